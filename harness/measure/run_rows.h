/* SPDX-License-Identifier: MIT
 * run_rows.h - the result rows of a run, written to one or two files side by side.
 *
 * What is the same for all rows is set in `base` once; a value fills in the rest. Each row is
 * handed to the operating system at once, so that a killed run keeps what it measured. */
#ifndef GGAUGE_RUN_ROWS_H
#define GGAUGE_RUN_ROWS_H

#include "result/row.h"
#include "stats/interval.h"

#define RUN_ROWS_MAX 2 /* files: --csv and --results */
#define RUN_ROWS_ALL (~0u)

struct run_rows {
    struct row base; /* run and what fields of all rows */
    struct row_writer *out[RUN_ROWS_MAX];
    int n_out;
};

/* Start from { 0 } and row_init(&rows->base). Append to PATH, or create it. */
int run_rows_open(struct run_rows *rows, const char *path, struct err *e);
/* The same for DIR/<run id>.csv; DIR is created. */
int run_rows_open_in(struct run_rows *rows, const char *dir, struct err *e);
/* Closes every file; the first error is reported. */
int run_rows_close(struct run_rows *rows, struct err *e);

/* One row of status PASS to every file. ci may be NULL; n_rep < 1 = empty. */
int run_rows_value(struct run_rows *rows, const char *subject, enum metric m, double value,
                   const struct interval *ci, int64_t n_rep, struct err *e);

/* One row to the files whose bits are set in `files`. */
int run_rows_put(struct run_rows *rows, unsigned files, const char *subject, enum metric m,
                 double value, const struct interval *ci, int64_t n_rep, const char *status,
                 struct err *e);

#endif
