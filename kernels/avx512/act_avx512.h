/* SPDX-License-Identifier: MIT
 * act_avx512.h - quantisation of one block of activations on AVX-512; bit for bit as act_ref.c. */
#ifndef GGAUGE_ACT_AVX512_H
#define GGAUGE_ACT_AVX512_H

#include <math.h>

#include "qtype.h"
#include "simd_avx512.h"

/* 16 quants as bytes at qs and as integers, none below least. */
ALWAYS_INLINE __m512i to_int8(__m512 x, __m512 inverse, float least, int8_t *qs) {
    /* minps and maxps give the second operand for a NaN (0 times an inverse that overflowed). */
    const __m512 r = _mm512_min_ps(_mm512_mul_ps(x, inverse), _mm512_set1_ps(127.0f));
    const __m512i q = _mm512_cvtps_epi32(_mm512_max_ps(r, _mm512_set1_ps(least)));
    _mm_storeu_si128((__m128i *)qs, _mm512_cvtepi32_epi8(q));
    return q;
}

/* n_blocks blocks of 256 values that share a scale: quants, 64 to a line, lines `apart` bytes from
 * each other, and behind those of a block a line of the scale and zeros. */
static inline void q8_k_tile_blocks(const float *x, int n_blocks, void *lines, size_t apart) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    char *out = lines;
    __m512i top = _mm512_setzero_si512();
    for (int i = 0; i < n_blocks * QK_Q8_K; i += 16)
        top = _mm512_max_epi32(
            top, _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + i)), magnitude));
    const uint32_t amax = (uint32_t)_mm512_reduce_max_epi32(top);
    /* Any NaN becomes the same one, as in act_ref.c. */
    const float d = amax > 0x7f800000u ? NAN : f32_from_bits(amax) / 127.0f;
    const __m512 inverse = _mm512_set1_ps(d != 0.0f ? 1.0f / d : 0.0f);
    for (int b = 0; b < n_blocks; b++) {
        for (int line = 0; line < QK_Q8_K / 64; line++, out += apart, x += 64) {
            if (UNLIKELY(amax >= 0x7f800000u))
                memset(out, 1, 64);
            else
                for (int i = 0; i < 64; i += 16)
                    to_int8(_mm512_loadu_ps(x + i), inverse, -127.0f, (int8_t *)out + i);
        }
        _mm512_storeu_ps(out, _mm512_castps128_ps512(_mm_set_ss(d)));
        out += apart;
    }
}

#endif
