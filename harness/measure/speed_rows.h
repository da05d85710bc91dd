/* SPDX-License-Identifier: MIT
 * speed_rows.h - the result rows of sweep-bench and bench.
 *
 * Values are medians of the repeats, with the interval of median_interval95; settings says what it
 * covers ("interval_coverage"), because fewer than 6 repeats cannot give 95 %. */
#ifndef GGAUGE_SPEED_ROWS_H
#define GGAUGE_SPEED_ROWS_H

#include "measure/bench.h"
#include "measure/run_rows.h"
#include "measure/sweep.h"

/* Fill the run fields of rows->base and open the files: CSV (may be NULL) and DIR/<run_id>.csv (dir
 * may be NULL; it is made if only its last part is missing). Start from { 0 } and row_init. */
int speed_rows_open(struct run_rows *rows, const char *csv, const char *dir, struct err *e);

/* Fill what is the same for all rows of an arm. */
int speed_rows_describe(struct row *base, const struct arm *a, const char *test, uint64_t seed,
                        int n_rep, bool warmup, bool warmup_batch, struct err *e);

/* pp_s, pp_tps, tg_s, tg_tps and rss_bytes of one depth; what is known of cards, of subject "pp"
 * and "tg", and of their memory. */
int speed_rows_sweep(struct run_rows *rows, const struct sweep_step *s, struct err *e);

/* Seconds and speed of one test: pp_, tg_, or eval_ where both parts are timed together; what is
 * known of cards while it ran. */
int speed_rows_bench(struct run_rows *rows, const char *subject, const struct bench_result *r,
                     struct err *e);
/* Seconds of its repetition `rep` (0-based) alone, subject "SUBJECT rep N" from 1. */
int speed_rows_repeat(struct run_rows *rows, const char *subject, const struct bench_test *t,
                      int rep, int64_t ns, struct err *e);
/* rss_bytes of this process and the memory of the cards that all its arms share; what rows->base
 * says of engine and model stays in. */
int speed_rows_memory(struct run_rows *rows, struct nvml *cards, struct err *e);

#endif
