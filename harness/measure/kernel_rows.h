/* SPDX-License-Identifier: MIT
 * kernel_rows.h - the result rows of kernel-bench: test "kernel-bench", subject the cell.
 *
 * n_threads is 0 on a device, whose name and driver the row has; n_ubatch is the number of tokens
 * of a call, n_kv the depth, type_k and type_v the cache's type; settings hold the shape, the sizes
 * of the cold memory and the last cache, and n_sm of a card. Of a cell there is kernel_nmse, and if
 * it passed and was timed kernel_us, kernel_gbs, kernel_gmacs and kernel_roof, and gpu_sm_mhz where
 * it is known; of the machine peak_gbs (subject "read") and peak_gmacs (subject "i8@avx2"). */
#ifndef GGAUGE_KERNEL_ROWS_H
#define GGAUGE_KERNEL_ROWS_H

#include "exec/card.h"
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
    int n_threads;           /* 0 on a device */
    const struct card *card; /* NULL on a CPU */
    double sm_mhz;           /* its clock behind the last sample, NAN where it is unknown */
};

/* Derived, with the interval of the time. */
struct speed_stat kernel_gbs(const struct kernel_report *r);
struct speed_stat kernel_gmacs(const struct kernel_report *r); /* 0 where the count says nothing */
struct speed_stat kernel_roof(const struct kernel_report *r);  /* %; 0 without a peak */

/* Fill what is the same for all rows; rows->base has its run fields. */
int kernel_rows_describe(struct run_rows *rows, const struct kcheck_params *p, size_t cache_bytes,
                         const struct card *card, struct err *e);
int kernel_rows_put(struct run_rows *rows, const struct kernel_report *r, struct err *e);
/* Every peak that was measured, a device's on this card. */
int kernel_rows_peaks(struct run_rows *rows, const struct peaks *peaks,
                      const struct card *card, struct err *e);

#endif
