/* SPDX-License-Identifier: MIT
 * attn_avx512.h - what the attention cells of the avx512 and amx columns share: reading the cache
 * as f32, powers of two, transposition, and the fold of one range of cells into what came before.
 *
 * Scores are kept in units of ln 2 (q is scaled by log2(e) as well), so a weight is a power of two.
 */
#ifndef GGAUGE_ATTN_AVX512_H
#define GGAUGE_ATTN_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "exp_avx512.h"
#include "simd_avx512.h"
#include "tmpl/attn_tmpl.h"

#define ATTN_LOG2E 0x1.715476p+0f

/* 2^t for t <= 0 or so, NaN stays NaN, by a polynomial c of the degree, highest power first. One
 * instruction takes t - floor(t), 0 of infinities, another scales by 2^floor(t). The polynomials
 * between them are exactly 1 at 0 and minimise the largest relative error over [0, 1]. */
ALWAYS_INLINE __m512 exp2_by(__m512 t, const float *c, int degree) {
    const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(c[0]);
    UNROLL
    for (int i = 1; i < degree; i++)
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c[i]));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, t);
}

/* To 8.2e-8 (Lawson's iteration). */
ALWAYS_INLINE __m512 exp2_f32x16(__m512 t) {
    static const float c[] = { 0x1.e97322p-10f, 0x1.2778d0p-7f, 0x1.c91cd2p-5f, 0x1.ebdb58p-3f,
                               0x1.62e4bap-1f };
    return exp2_by(t, c, 5);
}

/* Elements d .. d + 15 of a head of type f32, f16 or q8_0 as f32; those outside of m are zero and
 * their memory is not touched. d is a multiple of 16. */
ALWAYS_INLINE __m512 load16_cache(enum qtype type, const char *row, int64_t d, __mmask16 m) {
    if (type == QT_f32) return _mm512_maskz_loadu_ps(m, (const float *)row + d);
    if (type == QT_f16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, (const f16_t *)row + d));
    if (!m) return _mm512_setzero_ps();
    const struct blk_q8_0 *b = (const struct blk_q8_0 *)row + d / QK_LEGACY;
    __m512i q = _mm512_cvtepi8_epi32(
        _mm_loadu_si128((const __m128i *)(const void *)(b->qs + d % QK_LEGACY)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(_cvtsh_ss(b->d)));
}

/* Cells fetched ahead: a head's part of a row is too short for the hardware to see the pattern. A
 * prefetch never faults, so nobody asks whether the cell exists. */
ALWAYS_INLINE void attn_fetch(const char *row, size_t n_bytes, size_t stride, int64_t ahead) {
    for (size_t i = 0; i < n_bytes; i += 64)
        _mm_prefetch(row + (size_t)ahead * stride + i, _MM_HINT_T0);
}

/* What sums relative to `old` are worth relative to `now`; -inf stands for "no score yet". */
ALWAYS_INLINE __m512 attn_rescale(__m512 old, __m512 now) {
    __mmask16 same = _mm512_cmp_ps_mask(old, now, _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(exp2_f32x16(_mm512_sub_ps(old, now)), same, _mm512_set1_ps(1.0f));
}

static inline void attn_fold(int64_t n_rows, int64_t v_pad, const struct attn_part *into,
                             const struct attn_part *part) {
    for (int64_t r0 = 0; r0 < n_rows; r0 += 16) {
        __mmask16 m = lanes16(n_rows - r0);
        __m512 max = _mm512_maskz_loadu_ps(m, into->max + r0);
        __m512 part_max = _mm512_maskz_loadu_ps(m, part->max + r0);
        __m512 sum = _mm512_maskz_loadu_ps(m, into->sum + r0);
        __m512 part_sum = _mm512_maskz_loadu_ps(m, part->sum + r0);
        __mmask16 none =
            _mm512_cmp_ps_mask(part_max, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ) &
            _mm512_cmp_ps_mask(part_sum, _mm512_setzero_ps(), _CMP_EQ_OQ);
        m &= (__mmask16)~none;
        __m512 now = _mm512_max_ps(max, part_max);
        __m512 a = attn_rescale(max, now), b = attn_rescale(part_max, now);
        _mm512_mask_storeu_ps(into->max + r0, m, now);
        _mm512_mask_storeu_ps(into->sum + r0, m,
                              _mm512_fmadd_ps(part_sum, b, _mm512_mul_ps(sum, a)));
        float older[16], newer[16];
        _mm512_storeu_ps(older, a);
        _mm512_storeu_ps(newer, b);
        for (unsigned left = m; left; left &= left - 1) {
            int r = __builtin_ctz(left);
            const __m512 x = _mm512_set1_ps(older[r]), y = _mm512_set1_ps(newer[r]);
            float *to = into->acc + (r0 + r) * v_pad;
            const float *from = part->acc + (r0 + r) * v_pad;
            for (int64_t d = 0; d < v_pad; d += 16) {
                __m512 t = _mm512_mul_ps(_mm512_loadu_ps(to + d), x);
                _mm512_storeu_ps(to + d, _mm512_fmadd_ps(_mm512_loadu_ps(from + d), y, t));
            }
        }
    }
}

static inline void attn_finish(float *acc, float sum, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __m512 x = _mm512_maskz_loadu_ps(m, acc + i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_div_ps(x, _mm512_set1_ps(sum)));
    }
}

#endif
