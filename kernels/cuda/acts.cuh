/* SPDX-License-Identifier: MIT
 * acts.cuh - where activations become 8-bit integers: a kernel of their own (acts_cuda.cu), or the
 * one that makes the activations (norm_cuda.cu, attn_few_cuda.cu).
 *
 * The numbers are those of q8_2_x4 (act.h; act_ref.c is the definition), so a product differs from
 * one of a CPU column by the order of its sum alone. Only the layout is another: integers of a row
 * in one piece, then all scales, then all scales times sums. */
#ifndef GGAUGE_ACTS_CUH
#define GGAUGE_ACTS_CUH

#include "cuda/device.cuh"

struct acts_out {
    int8_t *q; /* [n_tok, n], NULL = nobody wants them */
    float *d, *s; /* [n_tok, n / 32] */
    FAULT_FIELD
};

/* Seeded faults: whether block b of n_blocks does not count, which is at the end of a row. */
DEV bool is_lost(const struct acts_out &out, int64_t b, int64_t n_blocks) {
    return (FAULT_IN(out, k_tail) && b >= n_blocks - 1) ||
           (FAULT_IN(out, tg_tail) && b >= n_blocks - 4);
}

/* The scale of a block whose largest magnitude is amax: bf16, to nearest even; a NaN or infinity becomes
 * the scale and poisons every product. */
DEV float acts_scale(float amax) {
    const uint32_t u = bits_of(amax / 127.0f);
    const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
    return f32_of((nan ? u | 0x400000u : u + 0x7FFFu + (u >> 16 & 1u)) & 0xFFFF0000u);
}

DEV float acts_inverse(float scale) {
    return scale != 0 ? 1.0f / scale : 0.0f;
}

/* What v becomes in that block; out is for seeded faults. */
DEV int acts_round(const struct acts_out &out, float v, float amax, float inverse) {
    const bool finite = (bits_of(amax) & 0x7F800000u) != 0x7F800000u;
    const float r = FAULT_IN(out, act_truncate) ? truncf(v * inverse) : rintf(v * inverse);
    return finite ? (int)fmaxf(-128.0f, fminf(127.0f, r)) : 1;
}

/* Element `lane` of block b of token t, by all lanes of a warp. */
DEV void acts_put(const struct acts_out &out, int64_t t, int64_t n, int64_t b, float v) {
    const int lane = (int)threadIdx.x % WARP;
    const float amax = warp_max_nan(fabsf(v));
    const float d = acts_scale(amax);
    const int q = acts_round(out, v, amax, acts_inverse(d)), sum = warp_sum(q);
    out.q[t * n + 32 * b + lane] = (int8_t)q;
    if (lane == 0) {
        const float scale = is_lost(out, b, n / 32) ? 0 : d;
        out.d[t * (n / 32) + b] = scale;
        out.s[t * (n / 32) + b] = FAULT_IN(out, act_sum) ? 0 : scale * (float)sum;
    }
}

/* The same from token t on, of rows of n. */
static inline struct acts_out acts_from(const struct acts_out &out, int64_t t, int64_t n) {
    struct acts_out from = out;
    from.q += t * n;
    from.d += t * (n / 32);
    from.s += t * (n / 32);
    return from;
}

/* Room for the activations of x in the scratch memory, which is large enough. */
struct acts_out acts_room(const struct cuda_device *d, const struct dtensor *x);
/* They are there, until x is overwritten. */
void acts_made(struct cuda_device *d, const struct dtensor *x);

#endif
