/* SPDX-License-Identifier: MIT
 * legacy_avx2.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 on AVX2: decoders for the loops of int8_avx2.h.
 *
 * Layouts: legacy.h. The low nibbles of a block are its weights 0..15 and the high ones 16..31, so
 * both halves of a register come out in weight order. */
#include "base/fault.h"
#include "int8_avx2.h"

/* 32 nibbles of 16 bytes. */
ALWAYS_INLINE __m256i nibbles(const uint8_t *qs) {
    __m128i q = load128(qs);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(q, 4), q);
    if (FAULT(nibble_swap)) both = _mm256_set_m128i(q, _mm_srli_epi16(q, 4));
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

/* The binary16 numbers at p, p + stride, ... (count of 4) as f32; zero for the others. */
ALWAYS_INLINE __m128 every_f16(const void *p, size_t stride, int count) {
    const char *c = p;
    uint16_t h[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        h[i] = i < count ? load_u16(c + (size_t)i * stride) : 0;
    __m128i v = _mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3], 0, 0, 0, 0);
    return _mm_cvtph_ps(v);
}

/* NAME_scales of the types without and with a minimum. */
#define SCALES(NAME)                                                                               \
    ALWAYS_INLINE __m128 NAME##_scales(const char *row, int64_t b, int count, __m128 *mins) {      \
        const struct blk_##NAME *q = (const struct blk_##NAME *)row + b;                           \
        (void)mins;                                                                                \
        return every_f16(&q->d, sizeof *q, count);                                                 \
    }
#define SCALES_AND_MINS(NAME)                                                                      \
    ALWAYS_INLINE __m128 NAME##_scales(const char *row, int64_t b, int count, __m128 *mins) {      \
        const struct blk_##NAME *q = (const struct blk_##NAME *)row + b;                           \
        *mins = every_f16(&q->m, sizeof *q, count);                                                \
        return every_f16(&q->d, sizeof *q, count);                                                 \
    }

SCALES(q4_0)
SCALES_AND_MINS(q4_1)
SCALES(q5_0)
SCALES_AND_MINS(q5_1)
SCALES(q6_0)
SCALES(q8_0)

ALWAYS_INLINE __m256i q4_0_bytes(const char *row, int64_t b) {
    const struct blk_q4_0 *q = (const struct blk_q4_0 *)row;
    return nibbles(q[b].qs);
}

ALWAYS_INLINE __m256i q4_1_bytes(const char *row, int64_t b) {
    const struct blk_q4_1 *q = (const struct blk_q4_1 *)row;
    return nibbles(q[b].qs);
}

ALWAYS_INLINE __m256i q5_0_bytes(const char *row, int64_t b) {
    const struct blk_q5_0 *q = (const struct blk_q5_0 *)row;
    return _mm256_or_si256(nibbles(q[b].qs), fifth_bits(q[b].qh));
}

ALWAYS_INLINE __m256i q5_1_bytes(const char *row, int64_t b) {
    const struct blk_q5_1 *q = (const struct blk_q5_1 *)row;
    return _mm256_or_si256(nibbles(q[b].qs), fifth_bits(q[b].qh));
}

ALWAYS_INLINE __m256i q6_0_bytes(const char *row, int64_t b) {
    const struct blk_q6_0 *q = (const struct blk_q6_0 *)row;
    return _mm256_or_si256(nibbles(q[b].qs), upper_bits(q[b].qh));
}

ALWAYS_INLINE __m256i q8_0_bytes(const char *row, int64_t b) {
    const struct blk_q8_0 *q = (const struct blk_q8_0 *)row;
    return load256(q[b].qs);
}

/* steps: 2 * 127 * (largest byte) * steps <= 32767. */
INT8_DOTS(q4_0, 8)
INT8_CELL(q4_0, 8, 8, false, 0, 4 * sizeof(struct blk_q4_0));
INT8_DOTS(q4_1, 8)
INT8_CELL(q4_1, 8, 0, true, 0, 4 * sizeof(struct blk_q4_1));
INT8_DOTS(q5_0, 4)
INT8_CELL(q5_0, 4, 16, false, 0, 4 * sizeof(struct blk_q5_0));
INT8_DOTS(q5_1, 4)
INT8_CELL(q5_1, 4, 0, true, 0, 4 * sizeof(struct blk_q5_1));
INT8_DOTS(q6_0, 2)
INT8_CELL(q6_0, 2, 32, false, 0, 4 * sizeof(struct blk_q6_0));
INT8_DOTS(q8_0, 1)
INT8_CELL(q8_0, 1, 0, false, 0, 4 * sizeof(struct blk_q8_0));
