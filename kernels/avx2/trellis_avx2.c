/* SPDX-License-Identifier: MIT
 * trellis_avx2.c - IQ2_KT IQ3_KT IQ4_KT on AVX2: decoders for the loops of int8_avx2.h.
 *
 * The weights of a seed are independent: state k is seed * KT_MULTIPLIER^k, so one vpmulld makes
 * four states of two seeds. The bytes of a state are added up by two vpmaddubsw with a pack between
 * them (vpmaddubsw, vpmaddwd and 32-bit packs are two instructions more and 8 % slower), and the
 * lanes are arranged so that packing leaves the weights in order:
 *
 *   register   low half     high half    p = powers 1-4, P = powers 5-8
 *   v0         seed 0 * p   seed 2 * p
 *   v1         seed 0 * P   seed 2 * P
 *   v2         seed 1 * p   seed 3 * p
 *   v3         seed 1 * P   seed 3 * P
 *
 * That is for 8 weights a seed. IQ4_KT has 4: v0..v3 are seeds 0..3 and 4..7, times p.
 *
 * Formats and generator: trellis.h. */
#include "int8_avx2.h"

static const uint32_t powers[8] = KT_POWERS;
static const int8_t scale_values[16] = KT_SCALES;

/* Sum of the masked bytes of the four states of v0..v3 as bytes, in the order of a pack. */
ALWAYS_INLINE __m256i kt_values(__m256i v0, __m256i v1, __m256i v2, __m256i v3) {
    const __m256i mask = _mm256_set1_epi32((int)KT_MASK), ones = _mm256_set1_epi8(1);
    v0 = _mm256_maddubs_epi16(_mm256_and_si256(v0, mask), ones);
    v1 = _mm256_maddubs_epi16(_mm256_and_si256(v1, mask), ones);
    v2 = _mm256_maddubs_epi16(_mm256_and_si256(v2, mask), ones);
    v3 = _mm256_maddubs_epi16(_mm256_and_si256(v3, mask), ones);
    __m256i a = _mm256_maddubs_epi16(_mm256_packus_epi16(v0, v1), ones);
    __m256i b = _mm256_maddubs_epi16(_mm256_packus_epi16(v2, v3), ones);
    return _mm256_sub_epi8(_mm256_packus_epi16(a, b), _mm256_set1_epi8(KT_OFFSET));
}

/* 32 weights of four 16-bit indices, 8 each. */
ALWAYS_INLINE __m256i kt_groups_of_8(const uint8_t *idx) {
    const __m256i even = _mm256_setr_epi8(0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 4,
                                          5, -1, -1, 4, 5, -1, -1, 4, 5, -1, -1, 4, 5, -1, -1);
    const __m256i odd = _mm256_setr_epi8(2, 3, -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 6,
                                         7, -1, -1, 6, 7, -1, -1, 6, 7, -1, -1, 6, 7, -1, -1);
    const __m256i base = _mm256_set1_epi32(KT_BASE);
    const __m256i lo = _mm256_broadcastsi128_si256(load128(powers));
    const __m256i hi = _mm256_broadcastsi128_si256(load128(powers + 4));
    __m256i four = _mm256_set1_epi64x(load_i64(idx));
    __m256i s02 = _mm256_add_epi32(_mm256_shuffle_epi8(four, even), base);
    __m256i s13 = _mm256_add_epi32(_mm256_shuffle_epi8(four, odd), base);
    return kt_values(_mm256_mullo_epi32(s02, lo), _mm256_mullo_epi32(s02, hi),
                     _mm256_mullo_epi32(s13, lo), _mm256_mullo_epi32(s13, hi));
}

/* The scale nibbles of sub-blocks b .. b + 3, b a multiple of 4, one per byte. */
ALWAYS_INLINE __m128i kt_nibbles(const uint8_t *sc, int64_t b) {
    return _mm_cvtsi32_si128((int)(load_u32(sc) >> (b & 4) & 0x0f0f0f0fu));
}

ALWAYS_INLINE __m128 kt_scales(const char *row, double gain, __m128i s) {
    return _mm_mul_ps(_mm_set1_ps((float)(load_f32(row) * gain)), _mm_cvtepi32_ps(s));
}

ALWAYS_INLINE __m128 iq2_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq2_kt *q = (const struct blk_iq2_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    __m128i s = _mm_shuffle_epi8(load128(scale_values), kt_nibbles(q->sc, b));
    return kt_scales(row, IQ2_KT_GAIN, _mm_cvtepi8_epi32(s));
}

ALWAYS_INLINE __m256i iq2_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq2_kt *q = (const struct blk_iq2_kt *)(row + KT_ROW_META) + (b >> 3);
    return kt_groups_of_8(q->idx + 8 * (b & 7));
}

ALWAYS_INLINE __m128 iq3_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq3_kt *q = (const struct blk_iq3_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    return kt_scales(row, IQ3_KT_GAIN, _mm_cvtepu8_epi32(kt_nibbles(q->sc, b)));
}

ALWAYS_INLINE __m256i iq3_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq3_kt *q = (const struct blk_iq3_kt *)(row + KT_ROW_META) + (b >> 3);
    __m256i mag = _mm256_abs_epi8(kt_groups_of_8(q->idx + 8 * (b & 7)));
    __m256i bit = _mm256_set1_epi8((char)(1 << (b & 7)));
    __m256i neg = _mm256_cmpeq_epi8(_mm256_and_si256(load256(q->sg), bit), bit);
    return _mm256_sub_epi8(_mm256_xor_si256(mag, neg), neg);
}

ALWAYS_INLINE __m128 iq4_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    __m128i s = _mm_srli_epi32(load128(q->S + 4 * (b & 7)), 1);
    s = _mm_sub_epi32(_mm_and_si128(s, _mm_set1_epi32(127)), _mm_set1_epi32(64));
    return kt_scales(row, IQ4_KT_GAIN, s);
}

/* Eight indices of 16 bits, the topmost one common, 4 weights each. */
ALWAYS_INLINE __m256i iq4_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)(row + KT_ROW_META) + (b >> 3);
    const int64_t j = b & 7;
    const uint32_t S = load_u32(q->S + 4 * j);
    const __m256i at = _mm256_setr_epi32(8, 11, 14, 17, 20, 23, 26, 29);
    const __m256i p = _mm256_broadcastsi128_si256(load128(powers));
    __m256i bits12 = _mm256_srlv_epi32(_mm256_set1_epi32((int)S), at);
    bits12 = _mm256_slli_epi32(_mm256_and_si256(bits12, _mm256_set1_epi32(7)), 12);
    __m256i bits8 = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q->qh + 8 * (j & 3))));
    bits8 = _mm256_sll_epi32(bits8, _mm_cvtsi32_si128(j < 4 ? 8 : 4));
    bits8 = _mm256_and_si256(bits8, _mm256_set1_epi32(0xf00));
    __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q->ql + 8 * j)));
    x = _mm256_or_si256(_mm256_or_si256(x, bits8), bits12);
    x = _mm256_add_epi32(x, _mm256_set1_epi32((int)(KT_BASE + KT_BASE_STEP * (S & 1))));
    return kt_values(_mm256_mullo_epi32(_mm256_shuffle_epi32(x, 0x00), p),
                     _mm256_mullo_epi32(_mm256_shuffle_epi32(x, 0x55), p),
                     _mm256_mullo_epi32(_mm256_shuffle_epi32(x, 0xaa), p),
                     _mm256_mullo_epi32(_mm256_shuffle_epi32(x, 0xff), p));
}

INT8_CELL(iq2_kt, 1, 0, false);
INT8_CELL(iq3_kt, 1, 0, false);
INT8_CELL(iq4_kt, 1, 0, false);
