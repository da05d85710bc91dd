/* SPDX-License-Identifier: MIT
 * norm_cuda.cu - rms_norm of whole rows, contract in op.h; also with the addition before it and the
 * rounding of its result to 8-bit integers, in one launch (fuse.cuh). Norms of heads: heads_cuda.cu.
 *
 * A row of up to 512 elements is summed by a warp, a longer one by a block of 8 warps, in a fixed
 * order. Memory bound; one token is bound by latency. */
#include "cuda/acts.cuh"
#include "cuda/fuse.cuh"

#define THREADS 256
#define WARP_MAX 512 /* elements */

struct row_args {
    const char *a, *b; /* b NULL = the row is a; otherwise it is a + b, which goes to x */
    size_t a_stride, b_stride;
    char *x;
    size_t x_stride;
    const float *weight; /* [n] */
    char *y;
    size_t y_stride;
    int64_t n;
    float eps;
    struct acts_out acts; /* of y; needs a multiple of 32 elements */
    FAULT_FIELD
};

/* Grid [rows], block of N threads; a thread reads and writes every N-th element. */
template <int N> static __global__ void norm_rows_kernel(struct row_args r) {
    await_previous();
    SHARED(shared);
    const int64_t t = blockIdx.x;
    const float *a = (const float *)(r.a + (size_t)t * r.a_stride);
    const float *b = (const float *)(r.b + (size_t)t * r.b_stride);
    float *x = (float *)(r.x + (size_t)t * r.x_stride);
    float *y = (float *)(r.y + (size_t)t * r.y_stride);
    float sum = 0;
    for (int64_t i = threadIdx.x; i < r.n; i += N) {
        float v = a[i];
        if (r.b) x[i] = v = v + (loses_sum(r, r.b_stride == 0, t, gridDim.x) ? 0 : b[i]);
        sum = fmaf(v, v, sum);
    }
    const float *in = r.b ? x : a; /* what this thread wrote, or nobody did */
    sum = N == WARP ? warp_sum(sum) : block_sum<N>(sum, (float *)shared);
    const float scale = 1.0f / sqrtf(sum / (FAULT_IN(r, norm_mean) ? 1.0f : (float)r.n) + r.eps);
    for (int64_t i = threadIdx.x; i < r.n; i += N) {
        const float v = in[i] * scale * r.weight[i];
        y[i] = v;
        if (r.acts.q) acts_put(r.acts, t, r.n, i / 32, v);
    }
}

int norm_rows(struct cuda_device *d, const struct node *add, const struct node *norm, bool acts,
              struct err *e) {
    int rc = 0;
    const struct dtensor x = device_tensor(d, norm->src[0]), w = device_tensor(d, norm->src[1]);
    const struct dtensor y = device_tensor(d, norm->dst);
    struct row_args r = { x.p, NULL, x.stride, 0, NULL, 0, (const float *)w.p, y.p, y.stride, x.n,
                          norm->p.rms_norm.eps, { NULL, NULL, NULL } };
    if (FAULT(norm_eps)) r.eps *= 1000;
    if (add) {
        const struct dtensor a = device_tensor(d, add->src[0]), b = device_tensor(d, add->src[1]);
        r.a = a.p, r.a_stride = a.stride;
        r.b = b.p, r.b_stride = b.rows == 1 ? 0 : b.stride;
        r.x = x.p, r.x_stride = x.stride;
    }
    if (acts) r.acts = acts_room(d, &y);
    if (x.n <= WARP_MAX)
        LAUNCH(norm_rows_kernel<WARP>, (unsigned)x.rows, WARP, 0, r);
    else
        LAUNCH(norm_rows_kernel<THREADS>, (unsigned)x.rows, THREADS,
               THREADS / WARP * sizeof(float), r);
    if (acts) acts_made(d, &y);
out:
    return rc;
}

int op_rms_norm_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return norms_heads(n) ? heads_run(d, &n, 1, e) : norm_rows(d, NULL, n, false, e);
}
