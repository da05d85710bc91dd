/* SPDX-License-Identifier: MIT
 * int8_avx512.c - panels of integer weights by packed activations, for all types; the arithmetic
 * and its order are described in int8_avx512.h. */
#include "int8_avx512.h"

void int8_fill_acts_avx512(int bias, const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                           int64_t k0, int64_t nk, struct int8_acts *acts) {
    const int64_t first = k0 / 32, end = (k0 + nk) / 32;
    for (int64_t t = 0; t < n_tok; t++, x += x_stride) {
        struct int8_acts *a = acts;
        for (int64_t b = first; b < end; b++, a++) {
            const struct q8_2_view v = q8_2_x4_block(x, b, n / 32);
            const float d = bf16_to_f32(v.d);
            _mm256_storeu_si256((__m256i *)a->q[t], load256(v.qs));
            a->d[t] = d;
            a->s[t] = d * (float)v.s;
            a->start[t] = -bias * v.s;
        }
    }
}

/* nt, a constant up to INT8_TOKENS, tokens. */
ALWAYS_INLINE void tile(int nt, bool has_min, const struct int8_panel *p, const struct int8_acts *a,
                        int64_t nk, struct gemm_out out) {
    __m512 sum[INT8_TOKENS];
    UNROLL
    for (int t = 0; t < nt; t++)
        sum[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < nk / 32; b++, p++, a++) {
        __m512i acc[INT8_TOKENS];
        UNROLL
        for (int t = 0; t < nt; t++)
            acc[t] = _mm512_set1_epi32(a->start[t]);
        UNROLL
        for (int i = 0; i < 8; i++) {
            const __m512i w = load512(p->q[i]);
            UNROLL
            for (int t = 0; t < nt; t++)
                acc[t] = _mm512_dpbusd_epi32(acc[t], w, spread_u32(a->q[t] + 4 * i));
        }
        const __m512 d = _mm512_loadu_ps(p->d);
        UNROLL
        for (int t = 0; t < nt; t++) {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(a->d[t]));
            sum[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[t]), scale, sum[t]);
            if (has_min)
                sum[t] = _mm512_fmadd_ps(_mm512_loadu_ps(p->m), _mm512_set1_ps(a->s[t]), sum[t]);
        }
    }
    UNROLL
    for (int t = 0; t < nt; t++)
        int8_store(sum[t], out.dst + t * out.stride, out.n_rows, out.add);
}

ALWAYS_INLINE void tile_of(bool has_min, const void *panel, const void *acts, int64_t nk,
                           struct gemm_out out) {
    switch (out.n_tok) {
    case 1: tile(1, has_min, panel, acts, nk, out); break;
    case 2: tile(2, has_min, panel, acts, nk, out); break;
    case 3: tile(3, has_min, panel, acts, nk, out); break;
    case 4: tile(4, has_min, panel, acts, nk, out); break;
    case 5: tile(5, has_min, panel, acts, nk, out); break;
    case 6: tile(6, has_min, panel, acts, nk, out); break;
    case 7: tile(7, has_min, panel, acts, nk, out); break;
    case 8: tile(8, has_min, panel, acts, nk, out); break;
    }
}

void int8_tile_avx512(bool has_min, const void *panel, const void *acts, int64_t nk,
                      struct gemm_out out) {
    if (has_min)
        tile_of(true, panel, acts, nk, out);
    else
        tile_of(false, panel, acts, nk, out);
}
