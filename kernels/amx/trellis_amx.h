/* SPDX-License-Identifier: MIT
 * trellis_amx.h - decoders of IQ2_KT IQ3_KT IQ4_KT for tiles: 16 rows at a time.
 *
 * A lane is a row, so a step of the generator is a product with one number for all lanes, and the
 * sum of the four masked bytes of a state is one vpdpbusd, whose other factor is the sub-block's
 * scale s and whose start is -126 s: it leaves s * r, an exact integer.
 *
 * Formats and generator: trellis.h. */
#ifndef GGAUGE_TRELLIS_AMX_H
#define GGAUGE_TRELLIS_AMX_H

#include "qtype.h"
#include "simd_amx.h"

#define KT_PIECES (QK_KT / 32)

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

/* s * r of an output of 16 seeds, whose power of the generator is given. */
ALWAYS_INLINE __m512i kt_weight(__m512i seed, uint32_t power, const struct kt_scale *s) {
    __m512i x = _mm512_mullo_epi32(seed, _mm512_set1_epi32((int)power));
    x = _mm512_and_si512(x, _mm512_set1_epi32((int)KT_MASK));
    return _mm512_dpbusd_epi32(s->start, x, s->bytes);
}

/* Nibble b of the scales of a block. */
ALWAYS_INLINE __m512i kt_nibble(__m512i sc, int64_t b) {
    const unsigned shift = 8u * (b & 3) + (b & 4);
    return _mm512_and_si512(_mm512_srl_epi32(sc, _mm_cvtsi32_si128((int)shift)),
                            _mm512_set1_epi32(15));
}

/* Seeds of the two 16-bit indices in each lane. */
ALWAYS_INLINE void kt_seeds(__m512i two, __m512i base, __m512i seed[2]) {
    seed[0] = _mm512_add_epi32(_mm512_and_si512(two, _mm512_set1_epi32(0xffff)), base);
    seed[1] = _mm512_add_epi32(_mm512_srli_epi32(two, 16), base);
}

/* What a decoder keeps: of a piece, and behind it of the block that the piece is in. */
struct kt_kept {
    struct kt_scale scale;
    __m512i seed[8]; /* 4 for groups of 8 */
    __m512i sign;    /* where those of the piece are among signs */
    union {
        struct {
            __m512i sc, idx[16], signs[16]; /* signs: as the cell wants them */
        } k23;
        struct {
            __m512i S[8], qh[8], ql[16];
        } k4;
    };
};

/* Where the block of piece b begins in a row. */
ALWAYS_INLINE int64_t kt_block_at(int64_t b, size_t n_bytes) {
    return KT_ROW_META + b / KT_PIECES * (int64_t)n_bytes;
}

/* n dwords from `at` on of every row. A block is read whole when its first piece begins: its lines
 * would have left the first level cache by the next. */
ALWAYS_INLINE void kt_dwords(const struct rows16 *r, int64_t at, int n, __m512i *out) {
    for (int i = 0; i < n; i += 4)
        rows_4_dwords(r, at + 4 * i, out + i);
}

/* Seeds of the 4 groups of 8 of piece b, whose indices are two to a lane. */
ALWAYS_INLINE void kt_begin_groups_of_8(int64_t b, struct kt_kept *k) {
    const __m512i base = _mm512_set1_epi32(KT_BASE);
    kt_seeds(k->k23.idx[2 * b], base, k->seed);
    kt_seeds(k->k23.idx[2 * b + 1], base, k->seed + 2);
}

static void iq2_kt_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    static const int32_t scales[16] = KT_SCALES;
    struct kt_kept *k = (struct kt_kept *)kept;
    const int64_t at = kt_block_at(b, sizeof(struct blk_iq2_kt));
    (void)n;
    b %= KT_PIECES;
    if (b == 0) {
        k->k23.sc = rows_dword(r, at);
        kt_dwords(r, at + 4, 16, k->k23.idx);
    }
    const __m512i table = _mm512_loadu_si512(scales);
    k->scale = kt_scale(_mm512_permutexvar_epi32(kt_nibble(k->k23.sc, b), table));
    kt_begin_groups_of_8(b, k);
}

/* Piece b but its signs. Returns where those of its block are; they are wanted when it begins. */
ALWAYS_INLINE int64_t iq3_kt_magnitudes(const struct rows16 *r, int64_t b, struct kt_kept *k) {
    const int64_t at = kt_block_at(b, sizeof(struct blk_iq3_kt));
    b %= KT_PIECES;
    if (b == 0) {
        k->k23.sc = rows_dword(r, at);
        kt_dwords(r, at + 4, 16, k->k23.idx);
    }
    k->scale = kt_scale(kt_nibble(k->k23.sc, b));
    kt_begin_groups_of_8(b, k);
    return at + (int64_t)offsetof(struct blk_iq3_kt, sg);
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

ALWAYS_INLINE __m512i iq4_kt_scale(__m512i S) {
    return _mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(S, 1), _mm512_set1_epi32(127)),
                            _mm512_set1_epi32(64));
}

static void iq4_kt_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    static_assert(KT_BASE_STEP == 1 << 15, "bit 15 of an index");
    struct kt_kept *k = (struct kt_kept *)kept;
    const int64_t at = kt_block_at(b, sizeof(struct blk_iq4_kt));
    (void)n;
    b %= KT_PIECES;
    if (b == 0) {
        kt_dwords(r, at, 8, k->k4.S);
        kt_dwords(r, at + 32, 16, k->k4.ql);
        kt_dwords(r, at + 96, 8, k->k4.qh);
    }
    const __m512i S = k->k4.S[b];
    const __m512i base =
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_and_si512(S, _mm512_set1_epi32(1)), 15),
                         _mm512_set1_epi32(KT_BASE));
    k->scale = kt_scale(iq4_kt_scale(S));
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i idx[2], seed[2];
        const __m512i nibbles =
            _mm512_and_si512(_mm512_srl_epi32(k->k4.qh[2 * (b & 3) + h], _mm_cvtsi32_si128(b & 4)),
                             _mm512_set1_epi32(0x0f0f0f0f));
        iq4_kt_indices(k->k4.ql[2 * b + h], nibbles, S, h, idx);
        UNROLL
        for (int o = 0; o < 2; o++) {
            kt_seeds(idx[o], base, seed);
            k->seed[4 * h + o] = seed[0];
            k->seed[4 * h + o + 2] = seed[1];
        }
    }
}

#endif
