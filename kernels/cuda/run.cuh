/* SPDX-License-Identifier: MIT
 * run.cuh - running nodes on a device: which cells there are, and graphs that are kept. */
#ifndef GGAUGE_RUN_CUH
#define GGAUGE_RUN_CUH

#include "cuda/device.cuh"

/* What the plug-in has, [QT_count] and [OP_count]. */
void run_cells(bool *type_cell, bool *op_cell);
bool run_supports(const struct node *n);
/* See cuda_plugin.h. */
int device_run(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
               struct err *e);
/* Throw away recorded graphs: memory that they use goes. */
void run_forget(struct cuda_device *d);

/* Multiply-adds (PEAK_read: bytes) a second. */
int peak_measure(struct cuda_device *d, enum peak p, double *per_second, struct err *e);

void blas_close(struct blas *b); /* NULL is allowed */

#endif
