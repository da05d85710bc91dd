/* SPDX-License-Identifier: MIT
 * simd_avx2.h - small helpers that the cells of the avx2 column share.
 *
 * Needs AVX2, FMA and F16C. Sums over lanes have one fixed order, so a result never depends on who
 * computes it. */
#ifndef GGAUGE_SIMD_AVX2_H
#define GGAUGE_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/fp16.h"
#include "base/unaligned.h"

/* One binary16 as f32. */
ALWAYS_INLINE float load_f16(const void *p) {
    return _cvtsh_ss(load_u16(p));
}

ALWAYS_INLINE __m128i load128(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

ALWAYS_INLINE __m256i load256(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* 8 binary16 as f32. */
ALWAYS_INLINE __m256 load8_f16(const void *p) {
    return _mm256_cvtph_ps(load128(p));
}

/* 8 bfloat16 as f32. */
ALWAYS_INLINE __m256 load8_bf16(const void *p) {
    __m256i v = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16);
    return _mm256_castsi256_ps(v);
}

/* Sum of 8 floats: ((0+4) + (2+6)) + ((1+5) + (3+7)). */
ALWAYS_INLINE float hsum_f32(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Sum of 8 int32. */
ALWAYS_INLINE int32_t hsum_i32(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

/* Largest of 8 int32. */
ALWAYS_INLINE int32_t hmax_i32(__m256i v) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 1)));
}

/* Transpose an 8 x 8 matrix of 32-bit elements held in 8 registers. */
ALWAYS_INLINE void transpose8x8(__m256i r[8]) {
    __m256i a[8], b[8];
    UNROLL
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        b[4 * i + 0] = _mm256_unpacklo_epi64(a[4 * i + 0], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i + 0], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

/* Largest of 8 floats; a NaN is skipped or not, so callers look for it by other means. */
ALWAYS_INLINE float hmax_f32(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Sum of 4 doubles: (0+2) + (1+3). */
ALWAYS_INLINE double hsum_f64(__m256d v) {
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* Lanes 0 .. n - 1 all ones, the others zero: the mask of a tail of n elements. */
ALWAYS_INLINE __m256i tail_mask(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}

#endif
