/* SPDX-License-Identifier: MIT
 * legacy_amx.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 for the tiles of gemm_amx.h.
 *
 * A lane is a row: a dword of quants holds 4 or 8 of its weights. A weight is d * q + c in one
 * multiply-add before it is rounded to bf16, c being the minimum, or -bias * d, which is exact.
 *
 * Layouts: legacy.h. */
#include "gemm_amx.h"

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
    const __m512 d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(d, d, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(d, is_nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

/* Bit `from` of each lane to bit 4; the others anywhere. */
ALWAYS_INLINE __m512i rotate_to_4(__m512i v, int from) {
    return _mm512_rorv_epi32(v, _mm512_set1_epi32((from - 4) & 31));
}

/* Where the upper bits of weight w are: dword of `high`, and its bit. */
ALWAYS_INLINE int high_dword(int n_high, int w) {
    return n_high == 2 ? w % 8 / 4 : 0;
}

ALWAYS_INLINE int high_bit(int n_high, int w) {
    return n_high == 2 ? 8 * (w % 4) + 4 * (w % 16 / 8) + 2 * (w / 16) : w;
}

ALWAYS_INLINE __m512 nibble_weight(const struct nibble_format *f, const __m512i qs[4],
                                   const __m512i high[2], int w, __m512 d, __m512 c) {
    /* Looking a nibble up ignores the bits above it and saves the conversion. */
    const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i q = _mm512_srli_epi32(qs[w % 16 / 4], (unsigned)(8 * (w % 4) + 4 * (w / 16)));
    if (f->n_high) {
        const __m512i h = rotate_to_4(high[high_dword(f->n_high, w)], high_bit(f->n_high, w));
        q = _mm512_ternarylogic_epi32(_mm512_set1_epi32(15), q, h, 0xca);
    }
    if (!f->n_high) return _mm512_fmadd_ps(_mm512_permutexvar_ps(q, numbers), d, c);
    q = _mm512_and_si512(q, _mm512_set1_epi32((16 << f->n_high) - 1));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), d, c);
}

ALWAYS_INLINE void nibble_decode(const struct nibble_format *f, const struct rows16 *r, int64_t k0,
                                 int64_t nk, char *out) {
    for (int64_t b = k0 / QK_LEGACY; b < (k0 + nk) / QK_LEGACY; b++, out += 2 * TILE_BYTES) {
        const int64_t at = b * f->n_bytes;
        const __m512i head = rows_dword(r, at);
        const __m512 d = f16_of_dword(head, false);
        const __m512 c =
            f->has_min ? f16_of_dword(head, true) : _mm512_mul_ps(d, _mm512_set1_ps(-f->bias));
        __m512i qs[4], high[2];
        rows_4_dwords(r, at + f->qs, qs);
        UNROLL
        for (int i = 0; i < f->n_high; i++)
            high[i] = rows_dword(r, at + f->high + 4 * i);
        UNROLL
        for (int w = 0; w < 32; w += 2)
            _mm512_store_si512(out + 32 * w, bf16_pair(nibble_weight(f, qs, high, w, d, c),
                                                       nibble_weight(f, qs, high, w + 1, d, c)));
    }
}

#define NIBBLE_CELL(NAME, N_HIGH, HIGH, BIAS, HAS_MIN)                                             \
    static void NAME##_decode(const struct rows16 *r, int64_t k0, int64_t nk, char *out) {         \
        static const struct nibble_format f = { .n_bytes = sizeof(struct blk_##NAME),              \
                                                .qs = offsetof(struct blk_##NAME, qs),             \
                                                .n_high = N_HIGH,                                  \
                                                .high = HIGH,                                      \
                                                .bias = BIAS,                                      \
                                                .has_min = HAS_MIN };                              \
        nibble_decode(&f, r, k0, nk, out);                                                         \
    }                                                                                              \
    AMX_QUANT_CELL(NAME, NULL)

NIBBLE_CELL(q4_0, 0, 0, 8, false);
NIBBLE_CELL(q4_1, 0, 0, 0, true);
NIBBLE_CELL(q5_0, 1, offsetof(struct blk_q5_0, qh), 16, false);
NIBBLE_CELL(q5_1, 1, offsetof(struct blk_q5_1, qh), 0, true);
NIBBLE_CELL(q6_0, 2, offsetof(struct blk_q6_0, qh), 32, false);

ALWAYS_INLINE __m512 q8_0_weight(const __m512i qs[4], int w, __m512 d) {
    __m512i q = _mm512_slli_epi32(qs[w / 4], (unsigned)(24 - 8 * (w % 4)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(q, 24)), d);
}

static void q8_0_decode(const struct rows16 *r, int64_t k0, int64_t nk, char *out) {
    for (int64_t b = k0 / QK_LEGACY; b < (k0 + nk) / QK_LEGACY; b++, out += 2 * TILE_BYTES) {
        const int64_t at = b * (int64_t)sizeof(struct blk_q8_0);
        const __m512 d = f16_of_dword(rows_dword(r, at), false);
        for (int h = 0; h < 2; h++) {
            __m512i qs[4];
            rows_4_dwords(r, at + 2 + 16 * h, qs);
            UNROLL
            for (int w = 0; w < 16; w += 2)
                _mm512_store_si512(out + 512 * h + 32 * w,
                                   bf16_pair(q8_0_weight(qs, w, d), q8_0_weight(qs, w + 1, d)));
        }
    }
}

AMX_QUANT_CELL(q8_0, NULL);
