/* SPDX-License-Identifier: MIT
 * run_rows.c - result rows of a run; see run_rows.h. */
#include "measure/run_rows.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int run_rows_open(struct run_rows *rows, const char *path, struct err *e) {
    int rc = 0;
    FAIL_IF(rows->n_out == RUN_ROWS_MAX, e, ERR_ARG, "%s: too many row files", path);
    TRY(row_writer_open(&rows->out[rows->n_out], path, e));
    rows->n_out++;
out:
    return rc;
}

int run_rows_open_in(struct run_rows *rows, const char *dir, struct err *e) {
    int rc = 0;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s.csv", dir, row_get(&rows->base, ROW_run_id));
    FAIL_IF(n >= (int)sizeof path, e, ERR_ARG, "%s: the path is too long", dir);
    FAIL_IF(mkdir(dir, 0777) && errno != EEXIST, e, ERR_IO, "%s: %s", dir, strerror(errno));
    TRY(run_rows_open(rows, path, e));
out:
    return rc;
}

int run_rows_close(struct run_rows *rows, struct err *e) {
    int rc = 0;
    for (int i = 0; i < rows->n_out; i++) {
        int r = row_writer_close(rows->out[i], rc < 0 ? NULL : e);
        if (rc == 0) rc = r;
    }
    rows->n_out = 0;
    row_release(&rows->base);
    return rc;
}

int run_rows_put(struct run_rows *rows, unsigned files, const char *subject, enum metric m,
                 double value, const struct interval *ci, int64_t n_rep, const char *status,
                 struct err *e) {
    int rc = 0;
    struct row *r = &rows->base;
    TRY(row_set(r, ROW_subject, subject, e));
    TRY(row_set(r, ROW_metric, metric_info(m)->name, e));
    TRY(row_set_num(r, ROW_value, value, e));
    TRY(row_set(r, ROW_ci_low, NULL, e));
    TRY(row_set(r, ROW_ci_high, NULL, e));
    TRY(row_set(r, ROW_n_rep, NULL, e));
    if (ci && isfinite(ci->low) && isfinite(ci->high)) {
        TRY(row_set_num(r, ROW_ci_low, ci->low, e));
        TRY(row_set_num(r, ROW_ci_high, ci->high, e));
    }
    if (n_rep > 0) TRY(row_set_int(r, ROW_n_rep, n_rep, e));
    TRY(row_set(r, ROW_status, status, e));
    for (int i = 0; i < rows->n_out; i++)
        if (files >> i & 1) TRY(row_writer_add(rows->out[i], r, e));
out:
    return rc;
}

int run_rows_value(struct run_rows *rows, const char *subject, enum metric m, double value,
                   const struct interval *ci, int64_t n_rep, struct err *e) {
    return run_rows_put(rows, RUN_ROWS_ALL, subject, m, value, ci, n_rep, "PASS", e);
}
