/* SPDX-License-Identifier: MIT
 * kernel_rows.h - the result rows of kernel-bench: test "kernel-bench", subject the cell.
 *
 * n_ubatch is the number of tokens of a call, n_kv the depth, type_k and type_v the cache's type;
 * settings hold the shape and the sizes of the cold memory and the last cache. Of a cell there is
 * kernel_nmse, and if it passed and was timed kernel_us, kernel_gbs, kernel_gmacs and kernel_roof;
 * of the machine peak_gbs (subject "read") and peak_gmacs (subject "i8@avx2"). */
#ifndef GGAUGE_KERNEL_ROWS_H
#define GGAUGE_KERNEL_ROWS_H

#include "measure/ktime.h"
#include "measure/run_rows.h"

/* What kernel-bench reports of one case. */
struct kernel_report {
    struct kcase c;
    char name[64];
    struct kresult check;
    struct kwork work;
    bool timed;
    struct ktime time;
    struct kroof roof;
    int n_threads;
};

/* Derived, with the interval of the time. */
struct speed_stat kernel_gbs(const struct kernel_report *r);
struct speed_stat kernel_gmacs(const struct kernel_report *r); /* 0 where the count says nothing */
struct speed_stat kernel_roof(const struct kernel_report *r);  /* %; 0 without a peak */

/* Fill what is the same for all rows; rows->base has its run fields. */
int kernel_rows_describe(struct run_rows *rows, const struct kcheck_params *p, size_t cache_bytes,
                         struct err *e);
int kernel_rows_put(struct run_rows *rows, const struct kernel_report *r, struct err *e);
/* Every peak that was measured. */
int kernel_rows_peaks(struct run_rows *rows, const struct peaks *peaks, struct err *e);

#endif
