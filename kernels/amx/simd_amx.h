/* SPDX-License-Identifier: MIT
 * simd_amx.h - AVX-512 helpers for the decoders of this column: a lane of a register is one of 16
 * rows of weights, so what they leave is a tile without a transposition. */
#ifndef GGAUGE_SIMD_AMX_H
#define GGAUGE_SIMD_AMX_H

#include <math.h>

#include "avx512/simd_avx512.h"

/* 16 rows of weights; the places of missing ones repeat the last. */
struct rows16 {
    const char *row[16];
    __m512i offset; /* of each row from the first, bytes */
};

/* The 4 bytes at `at` of every row. */
ALWAYS_INLINE __m512i rows_dword(const struct rows16 *r, int64_t at) {
    return _mm512_i32gather_epi32(r->offset, r->row[0] + at, 1);
}

/* The 16 bytes at `at` of every row: lane i of out[j] = dword j of row i. */
ALWAYS_INLINE void rows_4_dwords(const struct rows16 *r, int64_t at, __m512i out[4]) {
    __m512i z[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        z[i] = _mm512_castsi128_si512(load128(r->row[i] + at));
        z[i] = _mm512_inserti32x4(z[i], load128(r->row[i + 4] + at), 1);
        z[i] = _mm512_inserti32x4(z[i], load128(r->row[i + 8] + at), 2);
        z[i] = _mm512_inserti32x4(z[i], load128(r->row[i + 12] + at), 3);
    }
    transpose4x4_32(z);
    UNROLL
    for (int i = 0; i < 4; i++)
        out[i] = z[i];
}

/* A NaN as the one that rounding to bf16 leaves a NaN: it would carry out of some others. */
ALWAYS_INLINE __m512 canonical_nan(__m512 x) {
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_ps(NAN));
}

/* Lanes as pairs of bf16, lo in the low half. Rounds to nearest; a tie goes towards zero in lo and
 * away from it in hi, so that ties, which products of small integers often are, leave no gain. A
 * NaN must have some bit of its lower 16 clear above, as the canonical one has. */
ALWAYS_INLINE __m512i bf16_pair(__m512 lo, __m512 hi) {
    const __m512i l = _mm512_add_epi32(_mm512_castps_si512(lo), _mm512_set1_epi32(0x7fff));
    const __m512i h = _mm512_add_epi32(_mm512_castps_si512(hi), _mm512_set1_epi32(0x8000));
    /* bit = mask ? h : l >> 16 */
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32((int)0xffff0000u), h,
                                     _mm512_srli_epi32(l, 16), 0xca);
}

/* To nearest even, as floats_ref.c. The conversion instruction would not do: it takes subnormals
 * for zero. */
ALWAYS_INLINE __m256i bf16_of(__m512 x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i top = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(top, _mm512_set1_epi32(64));
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), is_nan, quiet));
}

#endif
