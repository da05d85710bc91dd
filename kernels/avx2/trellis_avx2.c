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
 * Streaming IQ2_KT and IQ4_KT does not add the bytes up: each meets its weight's activation. IQ3_KT
 * needs the sum for its magnitude.
 *
 * Formats and generator: trellis.h. */
#include "base/fault.h"
#include "int8_avx2.h"

static const uint32_t powers[8] = KT_POWERS;
static const int8_t scale_values[16] = KT_SCALES;

/* Fault kt_generator: x -> 89226354 x + 64248484. Its k-th state is a^k (x0 + c) - c with a the
 * multiplier and c = 64248484 / (a - 1) mod 2^32, so a^k and c are all that changes. */
static const uint32_t older_powers[8] = { 0x05517C72, 0x70A2A2C4, 0x43476B48, 0xE78CA610,
                                          0x1821B320, 0x5EE54440, 0x27676480, 0xED38C100 };
#define OLDER_C 0xB2B4E6E4u

ALWAYS_INLINE const uint32_t *kt_powers(void) {
    return FAULT(kt_generator) ? older_powers : powers;
}

/* The bytes of 32 states whose sums are the weights, 0..63 each. */
struct kt_states {
    __m256i v[4];
};

/* The masked bytes of the states x0 * p. */
ALWAYS_INLINE __m256i kt_state(__m256i x0, __m256i p) {
    const __m256i mask = _mm256_set1_epi32((int)KT_MASK);
    if (FAULT(kt_generator)) {
        const __m256i c = _mm256_set1_epi32((int)OLDER_C);
        __m256i x = _mm256_mullo_epi32(_mm256_add_epi32(x0, c), p);
        return _mm256_and_si256(_mm256_sub_epi32(x, c), mask);
    }
    return _mm256_and_si256(_mm256_mullo_epi32(x0, p), mask);
}

ALWAYS_INLINE struct kt_states kt_step(__m256i x0, __m256i p0, __m256i x1, __m256i p1, __m256i x2,
                                       __m256i p2, __m256i x3, __m256i p3) {
    return (struct kt_states){ { kt_state(x0, p0), kt_state(x1, p1), kt_state(x2, p2),
                                 kt_state(x3, p3) } };
}

/* The 32 weights of the states as bytes, in the order of a pack. */
ALWAYS_INLINE __m256i kt_values(struct kt_states s) {
    const __m256i ones = _mm256_set1_epi8(1);
    UNROLL
    for (int i = 0; i < 4; i++)
        s.v[i] = _mm256_maddubs_epi16(s.v[i], ones);
    __m256i a = _mm256_maddubs_epi16(_mm256_packus_epi16(s.v[0], s.v[1]), ones);
    __m256i b = _mm256_maddubs_epi16(_mm256_packus_epi16(s.v[2], s.v[3]), ones);
    return _mm256_sub_epi8(_mm256_packus_epi16(a, b), _mm256_set1_epi8(KT_OFFSET));
}

/* Products with spread activations: the bytes of a state meet its weight's activation each, so they
 * need not be added up first. A pair of steps fits an int16: 4 * 63 * 127 = 32004. */
ALWAYS_INLINE __m256i kt_dot(struct kt_states s, const int8_t *x) {
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int i = 0; i < 4; i++)
        s.v[i] = _mm256_maddubs_epi16(s.v[i], load256(x + 32 * i));
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(s.v[0], s.v[1]), ones),
                            _mm256_madd_epi16(_mm256_add_epi16(s.v[2], s.v[3]), ones));
}

/* 32 states of four 16-bit indices, 8 each. */
ALWAYS_INLINE struct kt_states kt_groups_of_8(const uint8_t *idx) {
    const __m256i even = _mm256_setr_epi8(0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 4,
                                          5, -1, -1, 4, 5, -1, -1, 4, 5, -1, -1, 4, 5, -1, -1);
    const __m256i odd = _mm256_setr_epi8(2, 3, -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 6,
                                         7, -1, -1, 6, 7, -1, -1, 6, 7, -1, -1, 6, 7, -1, -1);
    const __m256i base = _mm256_set1_epi32(KT_BASE);
    const __m256i lo = _mm256_broadcastsi128_si256(load128(kt_powers()));
    const __m256i hi = _mm256_broadcastsi128_si256(load128(kt_powers() + 4));
    __m256i four = _mm256_set1_epi64x(load_i64(idx));
    __m256i s02 = _mm256_add_epi32(_mm256_shuffle_epi8(four, even), base);
    __m256i s13 = _mm256_add_epi32(_mm256_shuffle_epi8(four, odd), base);
    return kt_step(s02, lo, s02, hi, s13, lo, s13, hi);
}

/* The scale nibbles of sub-blocks b .. b + 3, b a multiple of 4, one per byte. */
ALWAYS_INLINE __m128i kt_nibbles(const uint8_t *sc, int64_t b) {
    return _mm_cvtsi32_si128((int)(load_u32(sc) >> (b & 4) & 0x0f0f0f0fu));
}

ALWAYS_INLINE __m128 kt_scales(const char *row, double gain, __m128i s) {
    const float d = FAULT(kt_row_scale) ? 1 : load_f32(row);
    if (FAULT(kt_gain)) gain = 1;
    return _mm_mul_ps(_mm_set1_ps((float)(d * gain)), _mm_cvtepi32_ps(s));
}

ALWAYS_INLINE __m128 iq2_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq2_kt *q = (const struct blk_iq2_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    __m128i s = _mm_shuffle_epi8(load128(scale_values), kt_nibbles(q->sc, b));
    return kt_scales(row, IQ2_KT_GAIN, _mm_cvtepi8_epi32(s));
}

ALWAYS_INLINE __m256i iq2_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq2_kt *q = (const struct blk_iq2_kt *)(row + KT_ROW_META) + (b >> 3);
    return kt_values(kt_groups_of_8(q->idx + 8 * (b & 7)));
}

ALWAYS_INLINE void iq2_kt_dots(const char *row, int64_t b, int count, const int8_t *x,
                               __m256i *acc) {
    const struct blk_iq2_kt *q = (const struct blk_iq2_kt *)(row + KT_ROW_META) + (b >> 3);
    const uint8_t *idx = q->idx + 8 * (b & 7);
    (void)count;
    UNROLL
    for (int j = 0; j < 4; j++)
        acc[8 * j] = kt_dot(kt_groups_of_8(idx + 8 * j), x + 128 * j);
}

ALWAYS_INLINE __m128 iq3_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq3_kt *q = (const struct blk_iq3_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    return kt_scales(row, IQ3_KT_GAIN, _mm_cvtepu8_epi32(kt_nibbles(q->sc, b)));
}

ALWAYS_INLINE __m256i iq3_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq3_kt *q = (const struct blk_iq3_kt *)(row + KT_ROW_META) + (b >> 3);
    __m256i mag = _mm256_abs_epi8(kt_values(kt_groups_of_8(q->idx + 8 * (b & 7))));
    __m256i bit = _mm256_set1_epi8((char)(1 << (b & 7)));
    __m256i neg = _mm256_cmpeq_epi8(_mm256_and_si256(load256(q->sg), bit), bit);
    return _mm256_sub_epi8(_mm256_xor_si256(mag, neg), neg);
}

/* The sign of a weight goes to the activation. */
ALWAYS_INLINE void iq3_kt_dots(const char *row, int64_t b, int count, const int8_t *x,
                               __m256i *acc) {
    const struct blk_iq3_kt *q = (const struct blk_iq3_kt *)(row + KT_ROW_META) + (b >> 3);
    const uint8_t *idx = q->idx + 8 * (b & 7);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i signs = _mm256_srl_epi16(load256(q->sg), _mm_cvtsi32_si128((int)(b & 4)));
    (void)count;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m256i mag = _mm256_abs_epi8(kt_values(kt_groups_of_8(idx + 8 * j)));
        /* Bit j to the top: the sign; another one so that it is no zero. */
        __m256i neg = _mm256_or_si256(_mm256_slli_epi16(signs, 7 - j), _mm256_set1_epi8(1));
        __m256i v = _mm256_sign_epi8(load256(x + 32 * j), neg);
        acc[8 * j] = _mm256_madd_epi16(_mm256_maddubs_epi16(mag, v), ones);
    }
}

ALWAYS_INLINE __m128 iq4_kt_scales(const char *row, int64_t b, int count, __m128 *mins) {
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)(row + KT_ROW_META) + (b >> 3);
    (void)count, (void)mins;
    __m128i s = _mm_srli_epi32(load128(q->S + 4 * (b & 7)), 1);
    s = _mm_sub_epi32(_mm_and_si128(s, _mm_set1_epi32(127)), _mm_set1_epi32(64));
    return kt_scales(row, IQ4_KT_GAIN, s);
}

/* 32 states of eight seeds, 4 each: one in a lane of x. */
ALWAYS_INLINE struct kt_states kt_groups_of_4(__m256i x) {
    const __m256i p = _mm256_broadcastsi128_si256(load128(kt_powers()));
    return kt_step(_mm256_shuffle_epi32(x, 0x00), p, _mm256_shuffle_epi32(x, 0x55), p,
                   _mm256_shuffle_epi32(x, 0xaa), p, _mm256_shuffle_epi32(x, 0xff), p);
}

/* Indices of sub-blocks b .. b + 3, b a multiple of 4, with bit 0 of S as bit 15: 8 of each, those
 * of sub-blocks b and b + 2 in halves of out[0], the others in out[1].
 *
 * Bits 8 + 3j .. 10 + 3j of S are to be bits 12-14 of index j. A shuffle takes the two bytes that
 * hold them and a product moves them up. */
ALWAYS_INLINE void iq4_kt_indices(const struct blk_iq4_kt *q, int64_t b, __m256i out[2]) {
    const __m256i bytes[2] = {
        _mm256_setr_epi8(1, 2, 1, 2, 1, 2, 2, 3, 2, 3, 2, 3, 3, -1, 3, -1, 9, 10, 9, 10, 9, 10, 10,
                         11, 10, 11, 10, 11, 11, -1, 11, -1),
        _mm256_setr_epi8(5, 6, 5, 6, 5, 6, 6, 7, 6, 7, 6, 7, 7, -1, 7, -1, 13, 14, 13, 14, 13, 14,
                         14, 15, 14, 15, 14, 15, 15, -1, 15, -1)
    };
    const __m256i byte0[2] = { _mm256_setr_epi64x(0x0080008000800080, 0x0080008000800080,
                                                  0x0880088008800880, 0x0880088008800880),
                               _mm256_setr_epi64x(0x0480048004800480, 0x0480048004800480,
                                                  0x0c800c800c800c80, 0x0c800c800c800c80) };
    const __m256i up =
        _mm256_setr_epi16(1 << 12, 1 << 9, 1 << 6, 1 << 11, 1 << 8, 1 << 5, 1 << 10, 1 << 7,
                          1 << 12, 1 << 9, 1 << 6, 1 << 11, 1 << 8, 1 << 5, 1 << 10, 1 << 7);
    const int64_t j = b & 4;
    const __m256i S = _mm256_broadcastsi128_si256(load128(q->S + 4 * j));
    const __m256i ql = load256(q->ql + 8 * j);
    __m256i qh = _mm256_srl_epi16(load256(q->qh), _mm_cvtsi32_si128((int)j));
    qh = _mm256_and_si256(qh, _mm256_set1_epi8(15));
    out[0] = _mm256_unpacklo_epi8(ql, qh);
    out[1] = _mm256_unpackhi_epi8(ql, qh);
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m256i three = _mm256_mullo_epi16(_mm256_shuffle_epi8(S, bytes[i]), up);
        __m256i o = _mm256_slli_epi16(_mm256_shuffle_epi8(S, byte0[i]), 7);
        three = _mm256_and_si256(three, _mm256_set1_epi16(0x7000));
        out[i] = _mm256_or_si256(_mm256_or_si256(out[i], three), o);
    }
}

ALWAYS_INLINE __m256i iq4_kt_seeds(__m128i indices) {
    static_assert(KT_BASE_STEP == 1 << 15, "bit 15 of an index");
    return _mm256_add_epi32(_mm256_cvtepu16_epi32(indices), _mm256_set1_epi32(KT_BASE));
}

ALWAYS_INLINE void iq4_kt_dots(const char *row, int64_t b, int count, const int8_t *x,
                               __m256i *acc) {
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)(row + KT_ROW_META) + (b >> 3);
    __m256i idx[2];
    (void)count;
    iq4_kt_indices(q, b, idx);
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m128i eight =
            j < 2 ? _mm256_castsi256_si128(idx[j % 2]) : _mm256_extracti128_si256(idx[j % 2], 1);
        acc[8 * j] = kt_dot(kt_groups_of_4(iq4_kt_seeds(eight)), x + 128 * j);
    }
}

/* Eight indices of 16 bits, the topmost one common, 4 weights each. */
ALWAYS_INLINE __m256i iq4_kt_bytes(const char *row, int64_t b) {
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)(row + KT_ROW_META) + (b >> 3);
    const int64_t j = b & 7;
    const uint32_t S = load_u32(q->S + 4 * j);
    const __m256i at = _mm256_setr_epi32(8, 11, 14, 17, 20, 23, 26, 29);
    __m256i bits12 = _mm256_srlv_epi32(_mm256_set1_epi32((int)S), at);
    bits12 = _mm256_slli_epi32(_mm256_and_si256(bits12, _mm256_set1_epi32(7)), 12);
    __m256i bits8 = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q->qh + 8 * (j & 3))));
    bits8 = _mm256_sll_epi32(bits8, _mm_cvtsi32_si128(j < 4 ? 8 : 4));
    bits8 = _mm256_and_si256(bits8, _mm256_set1_epi32(0xf00));
    __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q->ql + 8 * j)));
    x = _mm256_or_si256(_mm256_or_si256(x, bits8), bits12);
    x = _mm256_add_epi32(x, _mm256_set1_epi32((int)(KT_BASE + KT_BASE_STEP * (S & 1))));
    return kt_values(kt_groups_of_4(x));
}

INT8_CELL(iq2_kt, 1, 0, false, KT_OFFSET, sizeof(struct blk_iq2_kt) / 2);
INT8_CELL(iq3_kt, 1, 0, false, 0, sizeof(struct blk_iq3_kt) / 2);
INT8_CELL(iq4_kt, 1, 0, false, KT_OFFSET, sizeof(struct blk_iq4_kt) / 2);
