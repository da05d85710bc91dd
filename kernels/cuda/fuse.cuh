/* SPDX-License-Identifier: MIT
 * fuse.cuh - nodes in a row that one launch computes, every result with the bits it has alone and
 * written where it belongs, so that nobody can tell but by the time.
 *
 * Launches are what token generation spends much of its time on: one by one, the nodes of a llama
 * layer take 22 of them; this way it is 10. */
#ifndef GGAUGE_FUSE_CUH
#define GGAUGE_FUSE_CUH

#include "cuda/device.cuh"

struct fusion {
    int n_nodes; /* at least 1 */
    /* NULL: the node as it is */
    int (*run)(struct cuda_device *d, const struct fusion *f, struct err *e);
    const struct node *const *nodes; /* [n_nodes] */
    bool acts; /* the product behind them reads the last one's result: leave it quantised */
};

/* What begins at nodes[0]. */
struct fusion fuse_find(const struct node *const *nodes, int n);

/* Of whole rows: the norm, after the addition that makes its rows (or NULL); acts: and quantise its
 * result. norm_cuda.cu. */
int norm_rows(struct cuda_device *d, const struct node *add, const struct node *norm, bool acts,
              struct err *e);

/* Steps of up to three tensors: rms_norm of heads, rope (all of one kind), set_rows, in this order
 * for each tensor. heads_cuda.cu. */
int heads_run(struct cuda_device *d, const struct node *const *nodes, int n, struct err *e);

/* What multiplies with weights of type t, NULL = nothing; and a node as its job. run.cu. */
const struct mul_cell *mul_cell(enum qtype t);
bool mul_wants_halves(const struct node *n); /* a product; otherwise integers, if anything */
int mul_job_of(struct cuda_device *d, const struct node *n, struct mul_job *j, struct err *e);

#endif
