/* SPDX-License-Identifier: MIT
 * acts_cuda.cu - activations as 8-bit integers for the products of quantised types.
 *
 * The numbers are those of q8_2_x4 (act.h; act_ref.c is the definition), so a product differs from
 * one of a CPU column by the order of its sum alone. Only the layout is another: integers of a row
 * in one piece, then all scales, then all scales times sums.
 *
 * Grid [n / 32 / 8, n_tok], block of 8 warps, a warp a block of 32. Moves 4 n + 1.25 n bytes a row;
 * memory bound, and small beside the product. */
#include "cuda/device.cuh"

#define BLOCKS_AT_ONCE 8

struct acts_out {
    int8_t *q;
    float *d, *s;
};

static __global__ void acts_kernel(const char *x, size_t stride, int64_t n, struct acts_out out) {
    const int lane = (int)threadIdx.x % WARP;
    const int64_t t = blockIdx.y, b = (int64_t)blockIdx.x * BLOCKS_AT_ONCE + threadIdx.x / WARP;
    const int64_t n_blocks = n / 32;
    if (b >= n_blocks) return; /* a whole warp */
    const float v = ((const float *)(x + (size_t)t * stride))[32 * b + lane];
    const float amax = warp_max_nan(fabsf(v));
    /* bf16, to nearest even; a NaN or infinity becomes the scale and poisons every product */
    const uint32_t u = bits_of(amax / 127.0f);
    const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
    const float d = f32_of((nan ? u | 0x400000u : u + 0x7FFFu + (u >> 16 & 1u)) & 0xFFFF0000u);
    const float inverse = d != 0 ? 1.0f / d : 0.0f;
    const bool finite = (bits_of(amax) & 0x7F800000u) != 0x7F800000u;
    const int q = finite ? (int)fmaxf(-128.0f, fminf(127.0f, rintf(v * inverse))) : 1;
    const int sum = warp_sum(q);
    out.q[t * n + 32 * b + lane] = (int8_t)q;
    if (lane == 0) {
        out.d[t * n_blocks + b] = d;
        out.s[t * n_blocks + b] = d * (float)sum;
    }
}

static size_t align256(size_t n) {
    return (n + 255) / 256 * 256;
}

size_t acts_bytes(int64_t n_tok, int64_t n) {
    return align256((size_t)(n_tok * n)) + 2 * align256((size_t)(n_tok * (n / 32)) * sizeof(float));
}

int acts_quantize(struct cuda_device *d, const struct dtensor *x, struct acts *out,
                  struct err *e) {
    int rc = 0;
    const size_t q_bytes = align256((size_t)(x->rows * x->n));
    const size_t d_bytes = align256((size_t)(x->rows * (x->n / 32)) * sizeof(float));
    struct acts_out to;
    to.q = (int8_t *)d->acts.p;
    to.d = (float *)(d->acts.p + q_bytes);
    to.s = (float *)(d->acts.p + q_bytes + d_bytes);
    *out = { to.q, to.d, to.s };
    if (d->acts_of == x->p && d->acts_rows == x->rows) return 0;
    for (int64_t t = 0; t < x->rows; t += 32768) { /* a grid has 65535 rows */
        const int64_t m = x->rows - t < 32768 ? x->rows - t : 32768;
        const struct acts_out at = { to.q + t * x->n, to.d + t * (x->n / 32),
                                     to.s + t * (x->n / 32) };
        LAUNCH(acts_kernel, dim3(div_up(x->n / 32, BLOCKS_AT_ONCE), (unsigned)m),
               BLOCKS_AT_ONCE * WARP, 0, x->p + (size_t)t * x->stride, x->stride, x->n, at);
    }
    d->acts_of = x->p;
    d->acts_rows = x->rows;
out:
    return rc;
}
