/* SPDX-License-Identifier: MIT
 * exp_avx512.h - exp on sixteen floats: the reduction and polynomial of exp_avx2.h, scaled by one
 * instruction, which rounds subnormal results once and knows all exponents. */
#ifndef GGAUGE_EXP_AVX512_H
#define GGAUGE_EXP_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "base/compiler.h"

/* Lanes 0 .. n - 1; none for n <= 0, all from 16 on. */
ALWAYS_INLINE __mmask16 lanes16(int64_t n) {
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

ALWAYS_INLINE __m512 exp_f32x16(__m512 x) {
    /* The limits keep infinities out; min and max return their second operand if one is a NaN. */
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e400p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 q = _mm512_set1_ps(0x1.6a23d0p-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a20p-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f2p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555492p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    __m512 y = _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r);
    return _mm512_scalef_ps(_mm512_add_ps(y, _mm512_set1_ps(1.0f)), n);
}

/* z / (1 + exp(-z)) */
ALWAYS_INLINE __m512 silu_f32x16(__m512 z) {
    const __m512 e = exp_f32x16(_mm512_sub_ps(_mm512_setzero_ps(), z));
    return _mm512_div_ps(z, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

#endif
