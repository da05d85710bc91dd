/* SPDX-License-Identifier: MIT
 * small_ops_cuda.cu - add, swiglu, rope_table, lse; contracts in op.h.
 *
 * Everything here reads and writes its rows once and is memory bound, but for the log-sum-exp,
 * whose exponentials are in binary64 as the contract says. A row is summed by one warp or one block
 * in a fixed order. */
#include "cuda/device.cuh"

#define THREADS 256
#define MAX_GRID_ROWS 32768

struct row_args {
    const char *a, *b;
    size_t a_stride, b_stride; /* b_stride 0: one row for all */
    char *dst;
    size_t dst_stride;
    int64_t n;
    FAULT_FIELD
};

/* Rows [t, t + m) of a node of one or two sources. */
static struct row_args rows_of(const struct dtensor *x, const struct dtensor *y,
                               const struct dtensor *dst, int64_t t) {
    struct row_args a = { x->p + (size_t)t * x->stride, NULL, x->stride, 0,
                          dst->p + (size_t)t * dst->stride, dst->stride, x->n };
    if (!y) return a;
    a.b_stride = y->rows == 1 ? 0 : y->stride;
    a.b = y->p + (size_t)t * a.b_stride;
    return a;
}

/* ---- element by element ---------------------------------------------------------------------- */

static __global__ void add_kernel(struct row_args r) {
    await_previous();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= r.n) return;
    const float y = ((const float *)(r.b + (size_t)t * r.b_stride))[i];
    ((float *)(r.dst + (size_t)t * r.dst_stride))[i] =
        ((const float *)(r.a + (size_t)t * r.a_stride))[i] +
        (loses_sum(r, r.b_stride == 0, t, gridDim.y) ? 0 : y);
}

static __global__ void swiglu_kernel(struct row_args r) {
    await_previous();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= r.n) return;
    const float g = ((const float *)(r.a + (size_t)t * r.a_stride))[i];
    const float u = ((const float *)(r.b + (size_t)t * r.b_stride))[i];
    ((float *)(r.dst + (size_t)t * r.dst_stride))[i] =
        FAULT_IN(r, swiglu_gelu) ? swiglu(1.702f * g, u) / 1.702f : swiglu(g, u);
}

static int element_op(struct cuda_device *d, const struct node *n, void (*kernel)(struct row_args),
                      struct err *e) {
    int rc = 0;
    const int first = FAULT(swiglu_swap) && n->op == OP_swiglu;
    const struct dtensor x = device_tensor(d, n->src[first]), y = device_tensor(d, n->src[!first]);
    const struct dtensor dst = device_tensor(d, n->dst);
    for (int64_t t = 0; t < dst.rows; t += MAX_GRID_ROWS) {
        const int64_t m = dst.rows - t < MAX_GRID_ROWS ? dst.rows - t : MAX_GRID_ROWS;
        const struct row_args a = rows_of(&x, &y, &dst, t);
        LAUNCH(kernel, dim3(div_up(a.n, THREADS), (unsigned)m), THREADS, 0, a);
    }
out:
    return rc;
}

int op_add_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return element_op(d, n, add_kernel, e);
}

int op_swiglu_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return element_op(d, n, swiglu_kernel, e);
}

/* ---- rope_table ------------------------------------------------------------------------------ */

struct table_args {
    const int32_t *pos;
    const float *divisors; /* or NULL */
    char *dst;
    size_t dst_stride;
    int n_rot;
    double base, scale, ext, amplitude, low, high; /* as in op_rope_table_ref.c */
};

static __global__ void rope_table_kernel(struct table_args a) {
    await_previous();
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    const int64_t t = blockIdx.y;
    if (i >= a.n_rot / 2) return;
    const double divisor = a.divisors ? (double)a.divisors[i] : 1.0;
    const double theta_e = (double)a.pos[t] * pow(a.base, -2.0 * i / a.n_rot) / divisor;
    double theta = a.scale * theta_e;
    if (a.ext != 0) {
        const double ramp = (i - a.low) / fmax(0.001, a.high - a.low);
        const double mix = (1 - fmin(1.0, fmax(0.0, ramp))) * a.ext;
        theta = theta * (1 - mix) + theta_e * mix;
    }
    float *out = (float *)(a.dst + (size_t)t * a.dst_stride);
    out[2 * i] = (float)(a.amplitude * cos(theta));
    out[2 * i + 1] = (float)(a.amplitude * sin(theta));
}

/* The dimension whose wavelength makes `turns` full turns over the original context. */
static double correction_dim(const struct node *n, double turns) {
    const double two_pi = 6.283185307179586, ctx = (double)n->p.rope_table.n_ctx_orig;
    return n->p.rope_table.n_rot * log(ctx / (turns * two_pi)) /
           (2 * log(n->p.rope_table.freq_base));
}

int op_rope_table_run(struct cuda_device *d, const struct node *n, struct err *e) {
    int rc = 0;
    const struct dtensor pos = device_tensor(d, n->src[0]), dst = device_tensor(d, n->dst);
    struct table_args a = { (const int32_t *)pos.p,
                            n->src[1] ? (const float *)device_tensor(d, n->src[1]).p : NULL,
                            dst.p,
                            dst.stride,
                            n->p.rope_table.n_rot,
                            n->p.rope_table.freq_base,
                            n->p.rope_table.freq_scale,
                            n->p.rope_table.ext_factor,
                            n->p.rope_table.attn_factor,
                            0,
                            0 };
    if (FAULT(rope_base)) a.base = 10000;
    if (a.ext != 0) {
        a.low = fmax(0.0, floor(correction_dim(n, n->p.rope_table.beta_fast)));
        a.high = fmin(a.n_rot - 1.0, ceil(correction_dim(n, n->p.rope_table.beta_slow)));
        a.amplitude *= 1 + 0.1 * log(1 / a.scale);
    }
    for (int64_t t = 0; t < dst.rows; t += MAX_GRID_ROWS) {
        const int64_t m = dst.rows - t < MAX_GRID_ROWS ? dst.rows - t : MAX_GRID_ROWS;
        struct table_args b = a;
        b.pos += t;
        b.dst += (size_t)t * a.dst_stride;
        LAUNCH(rope_table_kernel, dim3(div_up(a.n_rot / 2, THREADS), (unsigned)m), THREADS, 0, b);
    }
out:
    return rc;
}

/* ---- lse: a block a row ---------------------------------------------------------------------- */

struct top {
    float max; /* NaN as soon as one was seen */
    int32_t at;
};

/* The larger, or the first of equals; a NaN wins. */
DEV struct top top_of(struct top a, struct top b) {
    const bool take = (b.max != b.max && a.max == a.max) || b.max > a.max ||
                      (b.max == a.max && b.at < a.at);
    return take ? b : a;
}

DEV struct top warp_top(struct top x) {
#pragma unroll
    for (int m = WARP / 2; m > 0; m /= 2) {
        const struct top y = { __shfl_xor_sync(FULL_WARP, x.max, m),
                               __shfl_xor_sync(FULL_WARP, x.at, m) };
        x = top_of(x, y);
    }
    return x;
}

/* The maximum and its first place, then the sum of exponentials in binary64. ref finds the first
 * largest number that is not compared with a NaN: rows with a NaN are NaN, and their index is
 * whatever the comparison of ref leaves, which starts at element 0. */
static __global__ void lse_kernel(struct row_args r) {
    await_previous();
    SHARED(shared);
    const float *x = (const float *)(r.a + (size_t)blockIdx.x * r.a_stride);
    struct top best = { -INFINITY, 0x7FFFFFFF };
    int nan = 0;
    for (int64_t i = threadIdx.x; i < r.n; i += THREADS) {
        nan |= x[i] != x[i];
        const struct top here = { x[i], (int32_t)i };
        if (x[i] == x[i]) best = top_of(best, here);
    }
    struct top *tops = (struct top *)shared;
    double *sums = (double *)(shared + THREADS / WARP * sizeof(struct top));
    best = warp_top(best);
    nan = warp_sum(nan);
    if (threadIdx.x % WARP == 0) tops[threadIdx.x / WARP] = best, sums[threadIdx.x / WARP] = nan;
    __syncthreads();
    best = tops[0];
    double n_nan = sums[0];
    for (int i = 1; i < THREADS / WARP; i++) {
        best = top_of(best, tops[i]);
        n_nan += sums[i];
    }
    __syncthreads();
    const double max = n_nan > 0 ? (double)NAN : (double)best.max;
    double sum = 0;
    const int64_t n_sum = r.n - (FAULT_IN(r, lse_tail) ? r.n / 16 : 0);
    for (int64_t i = threadIdx.x; i < n_sum; i += THREADS)
        sum += exp((double)x[i] - max);
    sum = block_sum<THREADS>(sum, sums);
    if (threadIdx.x > 0) return;
    double *out = (double *)(r.dst + (size_t)blockIdx.x * r.dst_stride);
    out[0] = max;
    out[1] = log(sum);
    out[2] = x[0] != x[0] || best.at == 0x7FFFFFFF ? 0 : (double)best.at;
}

int op_lse_run(struct cuda_device *d, const struct node *n, struct err *e) {
    int rc = 0;
    const struct dtensor x = device_tensor(d, n->src[0]), dst = device_tensor(d, n->dst);
    const struct row_args a = rows_of(&x, NULL, &dst, 0);
    LAUNCH(lse_kernel, (unsigned)x.rows, THREADS,
           THREADS / WARP * (sizeof(struct top) + sizeof(double)), a);
out:
    return rc;
}
