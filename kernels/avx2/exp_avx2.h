/* SPDX-License-Identifier: MIT
 * exp_avx2.h - exp on eight floats.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2, exp(x) = 2^n (1 + r + r^2 q(r)). q has degree 4; its
 * coefficients minimise the largest relative error over r (Remez exchange, 3.1e-9, a twentieth of
 * half a unit in the last place), so nearly all of the error is that of the last roundings: 1.003
 * ulp at most over a sweep of the normal range. Subnormal results are rounded once, too small ones
 * are 0, too large ones infinite, and NaN stays NaN. */
#ifndef GGAUGE_EXP_AVX2_H
#define GGAUGE_EXP_AVX2_H

#include <immintrin.h>

#include "base/compiler.h"

ALWAYS_INLINE __m256 exp_f32x8(__m256 x) {
    /* exp(-104) is below half of the smallest subnormal and exp(89) above the largest float.
     * min and max return their second operand if one is a NaN, so a NaN passes. */
    x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x);
    x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)), /* 1 / ln 2 */
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts; the first has trailing zeros enough for n * high to be exact. */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e400p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    __m256 q = _mm256_set1_ps(0x1.6a23d0p-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.123a20p-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f2p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555492p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    __m256 y = _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r);
    y = _mm256_add_ps(y, _mm256_set1_ps(1.0f));
    /* 2^n in two factors, because n reaches -150 and 128. */
    __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(y, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

#endif
