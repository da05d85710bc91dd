/* SPDX-License-Identifier: MIT
 * mul_faults_cuda.cu - seeded faults of products (base/fault.h) that would cost the healthy kernels
 * something: decoders that are wrong, as kernels of their own, and what wrong indices would leave
 * behind, put there after the product. Empty in a build without faults. */
#include "cuda/gemm.cuh"
#include "cuda/gemm_half.cuh"

#ifdef GGAUGE_FAULTS

/* ---- decoders -------------------------------------------------------------------------------- */

/* x -> 89226354 x + 64248484, the states of the older trellis. The k-th is a^k (x0 + c) - c with a
 * the multiplier and c = 64248484 / (a - 1) mod 2^32. */
#define OLDER_C 0xB2B4E6E4u

HOST_DEVICE uint32_t older_decode4(uint32_t x0) {
    const uint32_t x = x0 + OLDER_C;
    return hd_pack4(hd_byte_sum((x * 0x05517C72u - OLDER_C) & KT_MASK, -KT_OFFSET),
                    hd_byte_sum((x * 0x70A2A2C4u - OLDER_C) & KT_MASK, -KT_OFFSET),
                    hd_byte_sum((x * 0x43476B48u - OLDER_C) & KT_MASK, -KT_OFFSET),
                    hd_byte_sum((x * 0xE78CA610u - OLDER_C) & KT_MASK, -KT_OFFSET));
}

struct dec_iq4_kt_older : dec_iq4_kt {
    static __device__ __forceinline__ void decode(const uint8_t *blk, int b, float d,
                                                  struct decoded *o) {
        const struct iq4_kt_parts p = iq4_kt_load(blk, b);
        for (int i = 0; i < 4; i++) {
            uint32_t seed[2];
            iq4_kt_seeds(&p, i, seed);
            o->q[2 * i] = older_decode4(seed[0]);
            o->q[2 * i + 1] = older_decode4(seed[1]);
        }
        o->scale = iq4_kt_scale(blk, b, d);
        o->min = 0;
    }
};

template <> struct half_decoder<dec_iq4_kt_older> {
    static constexpr int TIMES = HALF_TIMES_iq4_kt;
    static __device__ __forceinline__ void decode(const struct half_lane *l, const uint8_t *blk,
                                                  int lo, int up, uint32_t w[4]) {
        struct half_seeds s;
        iq4_kt_half_seeds(l, blk, lo, up, &s);
        for (int i = 0; i < 4; i++) {
            const uint32_t x = s.seed[i / 2] + OLDER_C;
            w[i] = hd_half2_mul(
                i % 2 ? half2_states(x * 0x43476B48u - OLDER_C, x * 0xE78CA610u - OLDER_C)
                      : half2_states(x * 0x05517C72u - OLDER_C, x * 0x70A2A2C4u - OLDER_C),
                s.scale);
        }
    }
};

struct dec_iq4_kt_unscaled : dec_iq4_kt {
    static __device__ __forceinline__ float scale(const uint8_t *) {
        return 1.0f;
    }
};

template <> struct half_decoder<dec_iq4_kt_unscaled> : half_decoder<dec_iq4_kt> {};

struct dec_q4_0_swapped : dec_q4_0 {
    static __device__ __forceinline__ void decode(const uint8_t *blk, int b, float d,
                                                  struct decoded *o) {
        struct decoded right;
        q4_0_decode(blk, b, d, &right);
        *o = right;
        for (int i = 0; i < 8; i++)
            o->q[i] = right.q[(i + 4) % 8];
    }
};

struct dec_q8_0_half : dec_q8_0 {};
template <> struct gemm_sum<dec_q8_0_half> {
    static __device__ __forceinline__ float times(int p, float d, float) {
        return hd_f16(to_f16(f32_of((uint32_t)p) - f32_of(GEMM_MAGIC))) * d;
    }
};

const struct mul_cell *mul_cell_faulty(enum qtype t) {
    static const struct mul_cell older = { true, true, mul_trellis<dec_iq4_kt_older>, NULL };
    static const struct mul_cell unscaled = { true, true, mul_trellis<dec_iq4_kt_unscaled>, NULL };
    static const struct mul_cell swapped = { true, false, mul_quantised<dec_q4_0_swapped>, NULL };
    static const struct mul_cell half = { true, false, mul_quantised<dec_q8_0_half>, NULL };
    if (FAULT(kt_generator) && t == QT_iq4_kt) return &older;
    if (FAULT(kt_row_scale) && t == QT_iq4_kt) return &unscaled;
    if (FAULT(nibble_swap) && t == QT_q4_0) return &swapped;
    if (FAULT(f16_overflow) && t == QT_q8_0) return &half;
    return NULL;
}

/* ---- results --------------------------------------------------------------------------------- */

#define THREADS 256

struct wrong_args {
    char *dst;
    size_t stride;
    int64_t n;
    int first, last; /* tokens */
};

/* Each of the tokens has the results of the one before. */
static __global__ void token_before_kernel(struct wrong_args a) {
    await_previous();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.n) return;
    for (int t = a.last; t >= a.first; t--)
        ((float *)(a.dst + (size_t)t * a.stride))[i] =
            ((const float *)(a.dst + (size_t)(t - 1) * a.stride))[i];
}

/* Row 16 has the products of row 17. */
static __global__ void row_behind_kernel(struct wrong_args a) {
    await_previous();
    const int t = a.first + (int)threadIdx.x;
    float *y = (float *)(a.dst + (size_t)t * a.stride);
    if (t <= a.last) y[16] = y[17];
}

static __global__ void nan_kernel(struct wrong_args a) {
    await_previous();
    if (threadIdx.x == 0) *(float *)a.dst = NAN;
}

int mul_faults(struct cuda_device *d, const struct node *n, const struct dtensor *dst,
               struct err *e) {
    int rc = 0;
    const int n_tok = (int)dst->rows;
    const bool ffn_out = !strncmp(n->dst->name, "ffn_out", 7);
    struct wrong_args a = { dst->p, dst->stride, dst->n, n_tok, n_tok - 1 };
    if (FAULT(cols_2_3) && (n_tok == 2 || n_tok == 3)) a.first = n_tok - 1;
    if (FAULT(cols_17) && n_tok > 16 && n_tok < 64) a.first = n_tok / 16 * 16;
    if (a.first <= a.last)
        LAUNCH(token_before_kernel, div_up(a.n, THREADS), THREADS, 0, a);
    if (FAULT(nan_late) && fault_chunk() >= 4 && ffn_out && n->il == 1)
        LAUNCH(nan_kernel, 1, WARP, 0, a);
    if (FAULT(one_row) && ffn_out && n->il == 5) {
        a.first = n_tok / 2;
        LAUNCH(row_behind_kernel, 1, WARP, 0, a);
    }
out:
    return rc;
}

#endif
