/* SPDX-License-Identifier: MIT
 * legacy_amx.h - decoders of Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 for tiles: 16 rows at a time.
 *
 * A lane is a row: a dword of quants holds 4 or 8 of its weights. A weight is d * q + c in one
 * multiply-add, c being the minimum, or -bias * d, which is exact.
 *
 * Layouts: legacy.h. */
#ifndef GGAUGE_LEGACY_AMX_H
#define GGAUGE_LEGACY_AMX_H

#include "qtype.h"
#include "simd_amx.h"

/* Weight w of a block is (its nibble | (bits of it that lie elsewhere) << 4) * d + c. */
struct nibble_format {
    int n_bytes, qs; /* of a block; where its nibbles start */
    int n_high;      /* bits per weight that lie elsewhere, from byte `high` on */
    int high;
    float bias; /* c = -bias * d, unless the block has a minimum */
    bool has_min;
};

/* Binary16 of each lane, low or high half; a NaN becomes the one that bf16_pair wants. */
ALWAYS_INLINE __m512 f16_of_dword(__m512i v, bool high) {
    if (high) v = _mm512_srli_epi32(v, 16);
    return canonical_nan(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)));
}

struct nibble_kept {
    __m512 d, c;
    __m512i qs[4], high[2];
};

ALWAYS_INLINE void nibble_begin(const struct nibble_format *f, const struct rows16 *r, int64_t b,
                                struct nibble_kept *k) {
    const int64_t at = b * f->n_bytes;
    const __m512i head = rows_dword(r, at);
    k->d = f16_of_dword(head, false);
    k->c = f->has_min ? f16_of_dword(head, true) : _mm512_mul_ps(k->d, _mm512_set1_ps(-f->bias));
    rows_4_dwords(r, at + f->qs, k->qs);
    for (int i = 0; i < f->n_high; i++)
        k->high[i] = rows_dword(r, at + f->high + 4 * i);
}

/* The upper bits of weight 4 i of a block at bit 4 of each lane; those of the next three are
 * `apart` bits above it each. */
ALWAYS_INLINE __m512i nibble_high(const struct nibble_format *f, const struct nibble_kept *k,
                                  int64_t i, int *apart) {
    const bool two = f->n_high == 2;
    const int64_t from = two ? 4 * (i % 4 / 2) + 2 * (i / 4) : 4 * i;
    *apart = two ? 8 : 1;
    return _mm512_rorv_epi32(k->high[two ? i % 2 : 0], _mm512_set1_epi32((int)(from - 4) & 31));
}

/* Weights 4 i .. 4 i + 3 of the block of each row. */
ALWAYS_INLINE void nibble_weights(const struct nibble_format *f, const struct nibble_kept *k,
                                  int64_t i, __m512 w[4]) {
    /* Looking a nibble up ignores the bits above it and saves the conversion. */
    const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i four = _mm512_srl_epi32(k->qs[i % 4], _mm_cvtsi32_si128((int)(i / 4) * 4));
    int apart = 0;
    const __m512i high = f->n_high ? nibble_high(f, k, i, &apart) : four;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i q = _mm512_srli_epi32(four, (unsigned)(8 * j));
        __m512 v = _mm512_permutexvar_ps(q, numbers);
        if (f->n_high) {
            const __m512i h = _mm512_rorv_epi32(high, _mm512_set1_epi32(apart * j));
            q = _mm512_ternarylogic_epi32(_mm512_set1_epi32(15), q, h, 0xca);
            q = _mm512_and_si512(q, _mm512_set1_epi32((16 << f->n_high) - 1));
            v = _mm512_cvtepi32_ps(q);
        }
        w[j] = _mm512_fmadd_ps(v, k->d, k->c);
    }
}

#define NIBBLE_FORMAT(NAME, N_HIGH, HIGH, BIAS, HAS_MIN)                                           \
    static const struct nibble_format NAME##_nibbles = { .n_bytes = sizeof(struct blk_##NAME),     \
                                                         .qs = offsetof(struct blk_##NAME, qs),    \
                                                         .n_high = N_HIGH,                         \
                                                         .high = HIGH,                             \
                                                         .bias = BIAS,                             \
                                                         .has_min = HAS_MIN }
NIBBLE_FORMAT(q4_0, 0, 0, 8, false);
NIBBLE_FORMAT(q4_1, 0, 0, 0, true);
NIBBLE_FORMAT(q5_0, 1, offsetof(struct blk_q5_0, qh), 16, false);
NIBBLE_FORMAT(q5_1, 1, offsetof(struct blk_q5_1, qh), 0, true);
NIBBLE_FORMAT(q6_0, 2, offsetof(struct blk_q6_0, qh), 32, false);

struct q8_0_kept {
    __m512 d;
    __m512i qs[8];
};

static void q8_0_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    struct q8_0_kept *k = (struct q8_0_kept *)kept;
    const int64_t at = b * (int64_t)sizeof(struct blk_q8_0);
    (void)n;
    k->d = f16_of_dword(rows_dword(r, at), false);
    rows_4_dwords(r, at + 2, k->qs);
    rows_4_dwords(r, at + 18, k->qs + 4);
}

ALWAYS_INLINE void q8_0_weights(const struct q8_0_kept *k, int64_t i, __m512 w[4]) {
    UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512i q = _mm512_slli_epi32(k->qs[i], (unsigned)(24 - 8 * j));
        w[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(q, 24)), k->d);
    }
}

#endif
