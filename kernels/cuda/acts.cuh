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

/* What a block of 32 is multiplied with to become integers. */
struct acts_scale {
    float d, inverse;
    bool finite;
};

/* amax: the largest magnitude, or any NaN. */
DEV struct acts_scale acts_scale_of(float amax) {
    /* bf16, to nearest even; a NaN or infinity becomes the scale and poisons every product */
    const uint32_t u = bits_of(amax / 127.0f);
    const bool nan = (u & 0x7FFFFFFFu) > 0x7F800000u;
    const float d = f32_of((nan ? u | 0x400000u : u + 0x7FFFu + (u >> 16 & 1u)) & 0xFFFF0000u);
    return { d, d != 0 ? 1.0f / d : 0.0f, (bits_of(amax) & 0x7F800000u) != 0x7F800000u };
}

DEV int acts_int(const struct acts_out &out, const struct acts_scale &s, float v) {
    const float r = FAULT_IN(out, act_truncate) ? truncf(v * s.inverse) : rintf(v * s.inverse);
    return s.finite ? (int)fmaxf(-128.0f, fminf(127.0f, r)) : 1;
}

DEV void acts_put_scale(const struct acts_out &out, int64_t t, int64_t n, int64_t b, float d,
                        int sum) {
    const float scale = is_lost(out, b, n / 32) ? 0 : d;
    out.d[t * (n / 32) + b] = scale;
    out.s[t * (n / 32) + b] = FAULT_IN(out, act_sum) ? 0 : scale * (float)sum;
}

DEV uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* The largest magnitude as bits, which are in the order of magnitudes, and a NaN above all. */
DEV uint32_t max_of_four(const float4 &v) {
    return larger(larger(bits_of(fabsf(v.x)), bits_of(fabsf(v.y))),
                  larger(bits_of(fabsf(v.z)), bits_of(fabsf(v.w))));
}

/* The scale of a block of which 8 lanes in a row have 4 elements each, by all lanes of a warp. */
DEV struct acts_scale acts_scale4(const float4 &v) {
    uint32_t amax = max_of_four(v);
#pragma unroll
    for (int m = 4; m > 0; m /= 2)
        amax = larger(amax, __shfl_xor_sync(FULL_WARP, amax, m));
    return acts_scale_of(f32_of(amax));
}

/* Elements i .. i + 3 of token t, i rising by 4 from one lane to the next from a multiple of 32 on,
 * by all lanes of a warp: 8 of them have a block. Lanes whose i is not below n do nothing. */
DEV void acts_put4(const struct acts_out &out, int64_t t, int64_t n, int64_t i, const float4 &v) {
    const struct acts_scale s = acts_scale4(v);
    const uint32_t q = hd_pack4(acts_int(out, s, v.x), acts_int(out, s, v.y),
                                acts_int(out, s, v.z), acts_int(out, s, v.w));
    int sum = hd_dot4(q, 0x01010101u, 0);
#pragma unroll
    for (int m = 4; m > 0; m /= 2)
        sum += __shfl_xor_sync(FULL_WARP, sum, m);
    if (i >= n) return;
    *(uint32_t *)(out.q + t * n + i) = q;
    if (i % 32 == 0) acts_put_scale(out, t, n, i / 32, s.d, sum);
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
