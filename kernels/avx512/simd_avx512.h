/* SPDX-License-Identifier: MIT
 * simd_avx512.h - small helpers that the cells of the avx512 column share.
 *
 * Needs AVX-512 F, BW, DQ, VL, VNNI and VBMI. Sums over lanes have one fixed order, so a result
 * never depends on who computes it. */
#ifndef GGAUGE_SIMD_AVX512_H
#define GGAUGE_SIMD_AVX512_H

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

ALWAYS_INLINE __m512i load512(const void *p) {
    return _mm512_loadu_si512(p);
}

/* 4 bytes in every lane; as an operand of an instruction this costs a load and nothing else. */
ALWAYS_INLINE __m512i spread_u32(const void *p) {
    return _mm512_set1_epi32((int)load_u32(p));
}

/* sum + the products of the bytes of a lane, w unsigned, with the 4 signed bytes at x, which are
 * the same for all lanes. Written out, because gcc 12 fetches x with an instruction of its own. */
ALWAYS_INLINE __m512i dpbusd_spread(__m512i sum, __m512i w, const void *x) {
    typedef uint32_t __attribute__((may_alias, aligned(1))) bytes4;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const bytes4 *)x));
    return sum;
}

/* Lanes 0 .. n - 1 of 16, n <= 16. */
ALWAYS_INLINE __mmask16 first_lanes(int64_t n) {
    return (__mmask16)((1u << n) - 1);
}

/* 16 binary16 as f32. */
ALWAYS_INLINE __m512 load16_f16(const void *p) {
    return _mm512_cvtph_ps(load256(p));
}

/* 16 bfloat16 as f32. */
ALWAYS_INLINE __m512 bf16_as_f32(__m256i v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

/* Lane l of out[j] = lane j of in[l], for lanes of 128 bits. */
ALWAYS_INLINE void transpose4x4_128(const __m512i in[4], __m512i out[4]) {
    __m512i even01 = _mm512_shuffle_i32x4(in[0], in[1], 0x88);
    __m512i even23 = _mm512_shuffle_i32x4(in[2], in[3], 0x88);
    __m512i odd01 = _mm512_shuffle_i32x4(in[0], in[1], 0xdd);
    __m512i odd23 = _mm512_shuffle_i32x4(in[2], in[3], 0xdd);
    out[0] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    out[1] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    out[2] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    out[3] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
}

/* Transpose 4 x 4 elements of 32 bits in each lane of 128 bits. */
ALWAYS_INLINE void transpose4x4_32(__m512i r[4]) {
    __m512i lo01 = _mm512_unpacklo_epi32(r[0], r[1]), lo23 = _mm512_unpacklo_epi32(r[2], r[3]);
    __m512i hi01 = _mm512_unpackhi_epi32(r[0], r[1]), hi23 = _mm512_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm512_unpacklo_epi64(lo01, lo23);
    r[1] = _mm512_unpackhi_epi64(lo01, lo23);
    r[2] = _mm512_unpacklo_epi64(hi01, hi23);
    r[3] = _mm512_unpackhi_epi64(hi01, hi23);
}

/* Transpose a 16 x 16 matrix of 32-bit elements held in 16 registers. */
ALWAYS_INLINE void transpose16x16(__m512i r[16]) {
    UNROLL
    for (int i = 0; i < 16; i += 4)
        transpose4x4_32(r + i);
    __m512i t[16];
    UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512i in[4] = { r[c], r[4 + c], r[8 + c], r[12 + c] };
        __m512i out[4];
        transpose4x4_128(in, out);
        UNROLL
        for (int l = 0; l < 4; l++)
            t[4 * l + c] = out[l];
    }
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

/* Lane r of out[j] = sum of the lanes 4 j .. 4 j + 3 of a[r]. */
ALWAYS_INLINE void sum_quarters(const __m512i a[16], __m512i out[4]) {
    __m512i four[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
        __m512i two[2];
        UNROLL
        for (int j = 0; j < 2; j++) {
            __m512i x = a[4 * i + 2 * j], y = a[4 * i + 2 * j + 1];
            two[j] = _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
        }
        four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(two[0], two[1]),
                                   _mm512_unpackhi_epi64(two[0], two[1]));
    }
    transpose4x4_128(four, out);
}

#endif
