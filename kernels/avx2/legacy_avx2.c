/* SPDX-License-Identifier: MIT
 * legacy_avx2.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 on AVX2: decoders for the loops of int8_avx2.h.
 *
 * Layouts: legacy.h. The low nibbles of a block are its weights 0..15 and the high ones 16..31, so
 * both halves of a register come out in weight order. */
#include "int8_avx2.h"

/* 32 nibbles of 16 bytes. */
ALWAYS_INLINE __m256i nibbles(const uint8_t *qs) {
    __m128i q = load128(qs);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(q, 4), q);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* Byte w = 16 if bit w of the 32 bits is set. */
ALWAYS_INLINE __m256i fifth_bits(const uint8_t *qh) {
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i h = _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_u32(qh)), spread);
    h = _mm256_cmpeq_epi8(_mm256_and_si256(h, bit), bit);
    return _mm256_and_si256(h, _mm256_set1_epi8(16));
}

/* Byte w = bits 4 and 5 of weight w of a Q6_0 block. */
ALWAYS_INLINE __m256i upper_bits(const uint8_t *qh) {
    int64_t h = load_i64(qh);
    /* The mask of the last line drops what the shifts move across bytes. */
    __m128i t = _mm_set_epi64x((int64_t)((uint64_t)h >> 4), h);
    __m256i both = _mm256_set_m128i(_mm_slli_epi16(t, 2), _mm_slli_epi16(t, 4));
    return _mm256_and_si256(both, _mm256_set1_epi8(0x30));
}

ALWAYS_INLINE __m256i q4_0_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q4_0 *q = (const struct blk_q4_0 *)row + b;
    (void)m;
    *d = load_f16(&q->d);
    return nibbles(q->qs);
}

ALWAYS_INLINE __m256i q4_1_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q4_1 *q = (const struct blk_q4_1 *)row + b;
    *d = load_f16(&q->d);
    *m = load_f16(&q->m);
    return nibbles(q->qs);
}

ALWAYS_INLINE __m256i q5_0_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q5_0 *q = (const struct blk_q5_0 *)row + b;
    (void)m;
    *d = load_f16(&q->d);
    return _mm256_or_si256(nibbles(q->qs), fifth_bits(q->qh));
}

ALWAYS_INLINE __m256i q5_1_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q5_1 *q = (const struct blk_q5_1 *)row + b;
    *d = load_f16(&q->d);
    *m = load_f16(&q->m);
    return _mm256_or_si256(nibbles(q->qs), fifth_bits(q->qh));
}

ALWAYS_INLINE __m256i q6_0_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q6_0 *q = (const struct blk_q6_0 *)row + b;
    (void)m;
    *d = load_f16(&q->d);
    return _mm256_or_si256(nibbles(q->qs), upper_bits(q->qh));
}

ALWAYS_INLINE __m256i q8_0_decode(const char *row, int64_t b, float *d, float *m) {
    const struct blk_q8_0 *q = (const struct blk_q8_0 *)row + b;
    (void)m;
    *d = load_f16(&q->d);
    return load256(q->qs);
}

/* steps: 2 * 127 * (largest byte) * steps <= 32767. */
INT8_CELL(q4_0, 8, 8, false);
INT8_CELL(q4_1, 8, 0, true);
INT8_CELL(q5_0, 4, 16, false);
INT8_CELL(q5_1, 4, 0, true);
INT8_CELL(q6_0, 2, 32, false);
INT8_CELL(q8_0, 1, 0, false);
