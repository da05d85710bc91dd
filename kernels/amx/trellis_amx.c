/* SPDX-License-Identifier: MIT
 * trellis_amx.c - IQ2_KT IQ3_KT IQ4_KT for the tiles of gemm_amx.h.
 *
 * A lane is a row, so a step of the generator is a product with one number for all lanes, and the
 * sum of the four masked bytes of a state is one vpdpbusd, whose other factor is the sub-block's
 * scale s and whose start is -126 s: it leaves s * r, an exact integer. What is rounded to bf16 is
 * that integer; the row scale multiplies the sums in f32.
 *
 * Formats and generator: trellis.h. */
#include "gemm_amx.h"

static const uint32_t powers[8] = KT_POWERS;

/* Scales of a sub-block. */
struct kt_scale {
    __m512i bytes; /* s four times in each lane */
    __m512i start; /* -126 s */
};

ALWAYS_INLINE struct kt_scale kt_scale(__m512i s) {
    const __m512i low =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return (struct kt_scale){ _mm512_shuffle_epi8(s, low),
                              _mm512_mullo_epi32(s, _mm512_set1_epi32(-KT_OFFSET)) };
}

/* s * r of output k of 16 seeds. */
ALWAYS_INLINE __m512 kt_weight(__m512i seed, int k, const struct kt_scale *s) {
    __m512i x = _mm512_mullo_epi32(seed, _mm512_set1_epi32((int)powers[k]));
    x = _mm512_and_si512(x, _mm512_set1_epi32((int)KT_MASK));
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(s->start, x, s->bytes));
}

ALWAYS_INLINE __m512i kt_pair(__m512i seed, int k, const struct kt_scale *s) {
    return bf16_pair(kt_weight(seed, k, s), kt_weight(seed, k + 1, s));
}

/* Nibble b of the scales of a block. */
ALWAYS_INLINE __m512i kt_nibble(__m512i sc, int b) {
    const unsigned shift = 8u * (b & 3) + (b & 4);
    return _mm512_and_si512(_mm512_srl_epi32(sc, _mm_cvtsi32_si128((int)shift)),
                            _mm512_set1_epi32(15));
}

/* Seeds of the two 16-bit indices in each lane. */
ALWAYS_INLINE void kt_seeds(__m512i two, __m512i base, __m512i seed[2]) {
    seed[0] = _mm512_add_epi32(_mm512_and_si512(two, _mm512_set1_epi32(0xffff)), base);
    seed[1] = _mm512_add_epi32(_mm512_srli_epi32(two, 16), base);
}

ALWAYS_INLINE float kt_row_scale(const char *row, double gain) {
    return (float)(load_f32(row) * gain);
}

static float iq2_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ2_KT_GAIN);
}

static float iq3_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ3_KT_GAIN);
}

static float iq4_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ4_KT_GAIN);
}

/* 32 weights of 4 groups of 8, whose indices are two to a lane. */
ALWAYS_INLINE void kt_block_of_8(const __m512i idx[2], const struct kt_scale *s, __m512i pair[16]) {
    const __m512i base = _mm512_set1_epi32(KT_BASE);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i seed[2];
        kt_seeds(idx[h], base, seed);
        UNROLL
        for (int k = 0; k < 16; k += 2)
            pair[8 * h + k / 2] = kt_pair(seed[k / 8], k % 8, s);
    }
}

static void iq2_kt_decode(const struct rows16 *r, int64_t k0, int64_t nk, char *out) {
    static const int32_t scales[16] = KT_SCALES;
    const __m512i table = _mm512_loadu_si512(scales);
    for (int64_t i = k0 / QK_KT; i < (k0 + nk) / QK_KT; i++) {
        const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq2_kt);
        const __m512i sc = rows_dword(r, at);
        for (int b = 0; b < 8; b += 2) {
            __m512i idx[4], pair[16];
            rows_4_dwords(r, at + 4 + 8 * b, idx);
            for (int j = 0; j < 2; j++, out += 2 * TILE_BYTES) {
                const __m512i nibble = kt_nibble(sc, b + j);
                const struct kt_scale s = kt_scale(_mm512_permutexvar_epi32(nibble, table));
                kt_block_of_8(idx + 2 * j, &s, pair);
                UNROLL
                for (int p = 0; p < 16; p++)
                    _mm512_store_si512(out + 64 * p, pair[p]);
            }
        }
    }
}

/* The sign bytes of a block as lanes of (0, byte of weight 2p, 0, byte of weight 2p + 1). */
ALWAYS_INLINE void iq3_kt_signs(const struct rows16 *r, int64_t at, __m512i signs[16]) {
    const __m512i pairs[2] = { _mm512_broadcast_i32x4(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1,
                                                                    8, -1, 9, -1, 12, -1, 13)),
                               _mm512_broadcast_i32x4(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1,
                                                                    10, -1, 11, -1, 14, -1, 15)) };
    for (int q = 0; q < 2; q++) {
        __m512i d[4];
        rows_4_dwords(r, at + 16 * q, d);
        UNROLL
        for (int p = 0; p < 8; p++)
            signs[8 * q + p] = _mm512_shuffle_epi8(d[p / 2], pairs[p % 2]);
    }
}

static void iq3_kt_decode(const struct rows16 *r, int64_t k0, int64_t nk, char *out) {
    const __m512i top = _mm512_set1_epi16((short)0x8000);
    for (int64_t i = k0 / QK_KT; i < (k0 + nk) / QK_KT; i++) {
        const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq3_kt);
        const __m512i sc = rows_dword(r, at);
        __m512i signs[16];
        iq3_kt_signs(r, at + 68, signs);
        for (int b = 0; b < 8; b += 2) {
            __m512i idx[4], pair[16];
            rows_4_dwords(r, at + 4 + 8 * b, idx);
            for (int j = 0; j < 2; j++, out += 2 * TILE_BYTES) {
                const struct kt_scale s = kt_scale(kt_nibble(sc, b + j));
                const __m128i up = _mm_cvtsi32_si128(7 - b - j);
                kt_block_of_8(idx + 2 * j, &s, pair);
                UNROLL
                for (int p = 0; p < 16; p++) {
                    /* top bit ? sign : magnitude */
                    const __m512i sign = _mm512_sll_epi16(signs[p], up);
                    _mm512_store_si512(out + 64 * p,
                                       _mm512_ternarylogic_epi32(top, sign, pair[p], 0xca));
                }
            }
        }
    }
}

/* Lanes moved up by n bits, down by -n. */
ALWAYS_INLINE __m512i shift_up(__m512i v, int n) {
    return n >= 0 ? _mm512_slli_epi32(v, (unsigned)(n & 31)) : _mm512_srli_epi32(v, (unsigned)-n);
}

/* The indices of groups 4h .. 4h + 3 of a sub-block, two to a lane: 0 and 2, then 1 and 3. */
ALWAYS_INLINE void iq4_kt_indices(__m512i ql, __m512i nibbles, __m512i S, int h, __m512i idx[2]) {
    const __m512i low_bytes = _mm512_set1_epi32(0x00ff00ff), low_half = _mm512_set1_epi32(0xffff);
    const __m512i top_bits = _mm512_set1_epi32(0x70007000);
    idx[0] = _mm512_ternarylogic_epi32(low_bytes, ql, _mm512_slli_epi32(nibbles, 8), 0xca);
    idx[1] = _mm512_ternarylogic_epi32(low_bytes, _mm512_srli_epi32(ql, 8), nibbles, 0xca);
    UNROLL
    for (int o = 0; o < 2; o++) {
        /* Bits 8 + 3j .. 10 + 3j of S belong to group j, as bits 12-14 of its half of a lane. */
        const int j = 4 * h + o;
        const __m512i three = _mm512_ternarylogic_epi32(low_half, shift_up(S, 12 - (8 + 3 * j)),
                                                        shift_up(S, 28 - (8 + 3 * (j + 2))), 0xca);
        idx[o] = _mm512_ternarylogic_epi32(top_bits, three, idx[o], 0xca);
    }
}

/* 32 weights of 8 groups of 4. */
ALWAYS_INLINE void iq4_kt_block(const __m512i ql[2], const __m512i qh[2], __m512i S, int b,
                                __m512i pair[16]) {
    static_assert(KT_BASE_STEP == 1 << 15, "bit 15 of an index");
    const __m512i base =
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_and_si512(S, _mm512_set1_epi32(1)), 15),
                         _mm512_set1_epi32(KT_BASE));
    const struct kt_scale s = kt_scale(_mm512_sub_epi32(
        _mm512_and_si512(_mm512_srli_epi32(S, 1), _mm512_set1_epi32(127)), _mm512_set1_epi32(64)));
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i idx[2], seed[2];
        const __m512i nibbles = _mm512_and_si512(_mm512_srl_epi32(qh[h], _mm_cvtsi32_si128(b & 4)),
                                                 _mm512_set1_epi32(0x0f0f0f0f));
        iq4_kt_indices(ql[h], nibbles, S, h, idx);
        UNROLL
        for (int o = 0; o < 2; o++) {
            kt_seeds(idx[o], base, seed);
            UNROLL
            for (int g = 0; g < 2; g++) {
                __m512i *p = pair + 2 * (4 * h + o + 2 * g);
                p[0] = kt_pair(seed[g], 0, &s);
                p[1] = kt_pair(seed[g], 2, &s);
            }
        }
    }
}

static void iq4_kt_decode(const struct rows16 *r, int64_t k0, int64_t nk, char *out) {
    for (int64_t i = k0 / QK_KT; i < (k0 + nk) / QK_KT; i++) {
        const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq4_kt);
        __m512i S[8], qh[8];
        for (int q = 0; q < 2; q++) {
            rows_4_dwords(r, at + 16 * q, S + 4 * q);
            rows_4_dwords(r, at + 96 + 16 * q, qh + 4 * q);
        }
        for (int b = 0; b < 8; b += 2) {
            __m512i ql[4], pair[16];
            rows_4_dwords(r, at + 32 + 8 * b, ql);
            for (int j = 0; j < 2; j++, out += 2 * TILE_BYTES) {
                iq4_kt_block(ql + 2 * j, qh + 2 * ((b + j) & 3), S[b + j], b + j, pair);
                UNROLL
                for (int p = 0; p < 16; p++)
                    _mm512_store_si512(out + 64 * p, pair[p]);
            }
        }
    }
}

AMX_QUANT_CELL(iq2_kt, iq2_kt_row_scale);
AMX_QUANT_CELL(iq3_kt, iq3_kt_row_scale);
AMX_QUANT_CELL(iq4_kt, iq4_kt_row_scale);
