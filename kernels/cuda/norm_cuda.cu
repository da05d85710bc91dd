/* SPDX-License-Identifier: MIT
 * norm_cuda.cu - rms_norm of whole rows, contract in op.h; also with the addition before it and the
 * rounding of its result to 8-bit integers, in one launch (fuse.cuh). Norms of heads:
 * heads_cuda.cu.
 *
 * A row of up to 512 elements belongs to a warp, a longer one to a block of 512 or 1024 threads, a
 * thread to every 4 elements of them. The first 8 of a thread stay in registers between the sum and
 * the result, which is all of a row of 512 to 8192. Sums in a fixed order: a thread's elements, its
 * warp, the warps. Bytes moved: what is added and the results, once. Memory bound; one token is
 * bound by latency, so all is asked for at once, the weights while the kernel before still runs. */
#include "cuda/acts.cuh"
#include "cuda/elements.cuh"
#include "cuda/fuse.cuh"

#define WARP_MAX 512   /* elements */
#define BLOCK_MAX 4096 /* of a row for 512 threads */
#define KEPT 2         /* fours of a thread in registers */

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

struct norm_row {
    const char *a, *b;
    char *x, *y;
    bool adds;
};

DEV float4 add4(const float4 &a, const float4 &b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* sum + the squares of v. */
DEV float norm_add4(float sum, const float4 &v) {
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

/* The result at i, by all lanes of a warp. */
template <bool WIDE>
DEV void norm_put4(const struct row_args &r, const struct norm_row &row, int64_t i,
                   const float4 &v, float scale, const float4 &w) {
    const float4 y = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z,
                                 v.w * scale * w.w);
    row_put4<WIDE>(row.y, i, r.n, y);
    if (r.acts.q) acts_put4(r.acts, blockIdx.x, r.n, i, y);
}

/* As block_sum, once in a kernel: nobody waits until `part` may be used again. */
template <int N> DEV float norm_sum(float sum, float *part) {
    sum = warp_sum(sum);
    if (N == WARP) return sum;
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = sum;
    __syncthreads();
    float4 all = ((const float4 *)part)[0];
#pragma unroll
    for (int i = 1; i < N / WARP / 4; i++)
        all = add4(all, ((const float4 *)part)[i]);
    return (all.x + all.y) + (all.z + all.w);
}

/* Grid [rows], block of N threads; thread k has elements 4 k .. 4 k + 3 of every 4 N. */
template <int N, bool WIDE>
static __global__ void __launch_bounds__(N, N < 64 ? 16 : 1024 / N)
    norm_rows_kernel(struct row_args r) {
    SHARED(shared);
    const int64_t first = 4 * (int64_t)threadIdx.x, t = blockIdx.x;
    const struct norm_row row = { r.a + (size_t)t * r.a_stride, r.b + (size_t)t * r.b_stride,
                                  r.x + (size_t)t * r.x_stride, r.y + (size_t)t * r.y_stride,
                                  r.b && !loses_sum(r, r.b_stride == 0, t, gridDim.x) };
    const char *weight = (const char *)r.weight;
    float4 w[KEPT], v[KEPT], b[KEPT];
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        w[k] = row_get4<WIDE>(weight, first + 4 * N * k, r.n);
    await_previous();
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        v[k] = row_get4<WIDE>(row.a, first + 4 * N * k, r.n);
        b[k] = row_get4<WIDE>(row.b, first + 4 * N * k, row.adds ? r.n : 0);
    }
    float sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        if (row.adds) v[k] = add4(v[k], b[k]);
        if (r.b) row_put4<WIDE>(row.x, first + 4 * N * k, r.n, v[k]);
        sum = norm_add4(sum, v[k]);
    }
#pragma unroll 1
    for (int64_t i = first + 4 * N * KEPT; i < r.n; i += 4 * N) {
        float4 u = row_get4<WIDE>(row.a, i, r.n);
        if (row.adds) u = add4(u, row_get4<WIDE>(row.b, i, r.n));
        if (r.b) row_put4<WIDE>(row.x, i, r.n, u);
        sum = norm_add4(sum, u);
    }
    sum = norm_sum<N>(sum, (float *)shared);
    const float scale = 1.0f / sqrtf(sum / (FAULT_IN(r, norm_mean) ? 1.0f : (float)r.n) + r.eps);
    const int64_t end = r.n + first % (4 * WARP); /* lanes stay together */
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + 4 * N * k < end)
            norm_put4<WIDE>(r, row, first + 4 * N * k, v[k], scale, w[k]);
#pragma unroll 1
    for (int64_t i = first + 4 * N * KEPT; i < end; i += 4 * N)
        /* what this thread wrote, or nobody did */
        norm_put4<WIDE>(r, row, i, row_get4<WIDE>(r.b ? row.x : row.a, i, r.n), scale,
                        row_get4<WIDE>(weight, i, r.n));
}

template <bool WIDE>
static int norm_launch(struct cuda_device *d, const struct row_args &r, int64_t n_rows,
                       struct err *e) {
    int rc = 0;
    const int n = r.n <= WARP_MAX ? WARP : r.n <= BLOCK_MAX ? 512 : 1024;
    const auto kernel = n == WARP ? &norm_rows_kernel<WARP, WIDE>
                        : n == 512 ? &norm_rows_kernel<512, WIDE>
                                   : &norm_rows_kernel<1024, WIDE>;
    LAUNCH(kernel, (unsigned)n_rows, n, n / WARP * sizeof(float), r);
out:
    return rc;
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
    if (row_is_wide(r.a, r.a_stride, x.n) && row_is_wide(r.b, r.b_stride, x.n) &&
        row_is_wide(r.x, r.x_stride, x.n) && row_is_wide(r.y, r.y_stride, x.n) &&
        row_is_wide(w.p, 0, x.n))
        TRY(norm_launch<true>(d, r, x.rows, e));
    else
        TRY(norm_launch<false>(d, r, x.rows, e));
    if (acts) acts_made(d, &y);
out:
    return rc;
}

int op_rms_norm_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return norms_heads(n) ? heads_run(d, &n, 1, e) : norm_rows(d, NULL, n, false, e);
}
