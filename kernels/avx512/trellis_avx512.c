/* SPDX-License-Identifier: MIT
 * trellis_avx512.c - IQ2_KT IQ3_KT IQ4_KT on AVX-512: decoders for int8_avx512.h, and the stream of
 * one token.
 *
 * A lane is a row. The indices of 16 rows are transposed, so that one register holds an index of
 * each row; state k of all 16 is then one vpmulld by seed * KT_MULTIPLIER^k (a broadcast constant),
 * and one vpand. Nothing is left to be added up across lanes, and an activation is the same for all
 * lanes, which makes it an operand in memory.
 *
 *   streaming IQ2_KT and IQ4_KT: the four bytes of a state, whose sum is the weight, meet the
 *             weight's activation four times in one vpdpbusd. 4 vector instructions of one cycle
 *             each (vpmulld counts as two) for 16 weights: 8 weights a cycle on two ports, less
 *             what it takes to unpack indices.
 *   packed    IQ3_KT, whose magnitude needs the sum, and panels: vpdpbusd by ones adds up the
 *             bytes; four weights of a row share a lane by shifts in between.
 *
 * Weights have a bias of KT_OFFSET: bytes 0..252.
 *
 * Formats and generator: trellis.h. */
#include "int8_avx512.h"

static const uint32_t powers[8] = KT_POWERS;

/* State k + 1 of 16 seeds: bytes 0..63 whose sum is the weight. */
ALWAYS_INLINE __m512i kt_state(__m512i x, int k) {
    return _mm512_and_si512(_mm512_mullo_epi32(x, _mm512_set1_epi32((int)powers[k])),
                            _mm512_set1_epi32((int)KT_MASK));
}

/* Weights first .. first + 3 of 16 seeds, as the bytes of a lane. A sum fits a byte. */
ALWAYS_INLINE __m512i kt_four(__m512i x, int first) {
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i w = _mm512_setzero_si512();
    UNROLL
    for (int k = 3; k >= 0; k--) {
        w = _mm512_dpbusd_epi32(_mm512_slli_epi32(w, 8), kt_state(x, first + k), ones);
    }
    return w;
}

/* The two seeds of a pair of indices. */
ALWAYS_INLINE __m512i kt_seed(__m512i pair, int which) {
    __m512i x =
        which ? _mm512_srli_epi32(pair, 16) : _mm512_and_si512(pair, _mm512_set1_epi32(0xffff));
    return _mm512_add_epi32(x, _mm512_set1_epi32(KT_BASE));
}

/* What is known of 16 rows before their first block. */
struct kt_rows {
    __m512i offsets; /* bytes from row 0 to each row */
    __m512 d;        /* row scales times gain */
};

ALWAYS_INLINE struct kt_rows kt_rows(const char *const row[INT8_ROWS], double gain) {
    int32_t at[INT8_ROWS];
    float d[INT8_ROWS];
    for (int r = 0; r < INT8_ROWS; r++) {
        at[r] = (int32_t)(row[r] - row[0]);
        d[r] = (float)(load_f32(row[r]) * gain);
    }
    return (struct kt_rows){ load512(at), _mm512_loadu_ps(d) };
}

/* A block of 16 rows, unpacked. */
struct kt_block {
    __m512i pairs[32]; /* indices in order, 2 a lane; IQ4_KT has 64 of them, the others 32 */
    __m512i signs[8];  /* IQ3_KT: sg, 4 weights a lane */
    __m512 d[8];       /* scales of the sub-blocks */
};

/* d[b] = row scale * nibble b of the 4 bytes at sc of row 0, by way of `values` if there are any.
 */
ALWAYS_INLINE void kt_nibble_scales(const struct kt_rows *rows, const uint8_t *sc,
                                    const float *values, __m512 d[8]) {
    const __m512i four = _mm512_i32gather_epi32(rows->offsets, sc, 1);
    UNROLL
    for (int b = 0; b < 8; b++) {
        __m512i n = _mm512_srli_epi32(four, 8 * (b % 4) + 4 * (b / 4));
        __m512 s;
        if (values) /* the permutation looks at the lower 4 bits only */
            s = _mm512_permutexvar_ps(n, _mm512_loadu_ps(values));
        else
            s = _mm512_cvtepi32_ps(_mm512_and_si512(n, _mm512_set1_epi32(15)));
        d[b] = _mm512_mul_ps(rows->d, s);
    }
}

/* The 64 bytes at offset of each row as columns of 4 bytes. */
ALWAYS_INLINE void kt_columns(const char *const row[INT8_ROWS], int64_t offset, __m512i out[16]) {
    __m512i r[16];
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = load512(row[i] + offset);
    transpose16x16(r);
    UNROLL
    for (int i = 0; i < 16; i++)
        out[i] = r[i];
}

ALWAYS_INLINE void iq2_kt_unpack(const char *const row[INT8_ROWS], const struct kt_rows *rows,
                                 int64_t i, struct kt_block *u) {
    static const float values[16] = KT_SCALES;
    const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq2_kt);
    kt_nibble_scales(rows, (const uint8_t *)row[0] + at + offsetof(struct blk_iq2_kt, sc), values,
                     u->d);
    kt_columns(row, at + (int64_t)offsetof(struct blk_iq2_kt, idx), u->pairs);
}

ALWAYS_INLINE void iq3_kt_unpack(const char *const row[INT8_ROWS], const struct kt_rows *rows,
                                 int64_t i, struct kt_block *u) {
    const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq3_kt);
    kt_nibble_scales(rows, (const uint8_t *)row[0] + at + offsetof(struct blk_iq3_kt, sc), NULL,
                     u->d);
    kt_columns(row, at + (int64_t)offsetof(struct blk_iq3_kt, idx), u->pairs);
    load_columns8(row, at + (int64_t)offsetof(struct blk_iq3_kt, sg), u->signs);
}

/* The 64 indices of a block of one row: out[0] has those of the even sub-blocks, 8 in each 128
 * bits, out[1] those of the odd ones.
 *
 * Bits 8 + 3j .. 10 + 3j of S belong to bits 12-14 of index j, bit 0 to bit 15. vpmultishiftqb
 * takes any 8 bits of a quadword, round its end if need be, so each field costs one instruction for
 * all 64 indices. */
ALWAYS_INLINE void iq4_kt_indices(const struct blk_iq4_kt *q, __m512i out[2]) {
    const __m512i nibble_at = _mm512_setr_epi64(
        0x3830282018100800, 0x3830282018100800, 0x3830282018100800, 0x3830282018100800,
        0x3c342c241c140c04, 0x3c342c241c140c04, 0x3c342c241c140c04, 0x3c342c241c140c04);
    const __m512i three_at = _mm512_set1_epi64(0x191613100d0a0704);
    const __m512i S = _mm512_cvtepu32_epi64(load256(q->S));
    const __m512i qh = _mm512_broadcast_i64x4(load256(q->qh));
    __m512i nibble = _mm512_multishift_epi64_epi8(nibble_at, qh);
    __m512i three = _mm512_multishift_epi64_epi8(three_at, S);
    __m512i top = _mm512_multishift_epi64_epi8(_mm512_set1_epi8(57), S); // bit 0 as bit 7
    /* 0x0f ? nibble : three, then & 0x7f | top */
    __m512i h = _mm512_ternarylogic_epi64(_mm512_set1_epi8(0x0f), nibble, three, 0xca);
    h = _mm512_ternarylogic_epi64(h, _mm512_set1_epi8(0x7f), top, 0xea);
    const __m512i l = load512(q->ql);
    out[0] = _mm512_unpacklo_epi8(l, h);
    out[1] = _mm512_unpackhi_epi8(l, h);
}

ALWAYS_INLINE void iq4_kt_unpack(const char *const row[INT8_ROWS], const struct kt_rows *rows,
                                 int64_t i, struct kt_block *u) {
    static_assert(KT_BASE_STEP == 1 << 15, "bit 15 of an index");
    const int64_t at = KT_ROW_META + i * (int64_t)sizeof(struct blk_iq4_kt);
    __m512i half[2][16], S[8];
    UNROLL
    for (int r = 0; r < 16; r++) {
        __m512i idx[2];
        iq4_kt_indices((const struct blk_iq4_kt *)(row[r] + at), idx);
        half[0][r] = idx[0];
        half[1][r] = idx[1];
    }
    UNROLL
    for (int odd = 0; odd < 2; odd++) {
        transpose16x16(half[odd]);
        UNROLL
        for (int c = 0; c < 16; c++)
            u->pairs[8 * (c / 4) + 4 * odd + c % 4] = half[odd][c];
    }
    load_columns8(row, at + (int64_t)offsetof(struct blk_iq4_kt, S), S);
    UNROLL
    for (int b = 0; b < 8; b++) {
        __m512i s = _mm512_and_si512(_mm512_srli_epi32(S[b], 1), _mm512_set1_epi32(127));
        s = _mm512_sub_epi32(s, _mm512_set1_epi32(64));
        u->d[b] = _mm512_mul_ps(rows->d, _mm512_cvtepi32_ps(s));
    }
}

/* Sums of 32 weights of sub-block b with spread activations. Four chains, because a product waits
 * 5 cycles for the one before it. */
ALWAYS_INLINE __m512i kt_dot_by_8(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    __m512i acc[4] = { start, _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512() };
    UNROLL
    for (int g = 0; g < 4; g++) {
        const __m512i seed = kt_seed(u->pairs[2 * b + g / 2], g % 2);
        UNROLL
        for (int k = 0; k < 8; k++)
            acc[k % 4] =
                _mm512_dpbusd_epi32(acc[k % 4], kt_state(seed, k), spread_u32(x + 32 * g + 4 * k));
    }
    return _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
}

/* The same for groups of 4. */
ALWAYS_INLINE __m512i kt_dot_by_4(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    __m512i acc[4] = { start, _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512() };
    UNROLL
    for (int g = 0; g < 8; g++) {
        const __m512i seed = kt_seed(u->pairs[4 * b + g / 2], g % 2);
        UNROLL
        for (int k = 0; k < 4; k++)
            acc[k] = _mm512_dpbusd_epi32(acc[k], kt_state(seed, k), spread_u32(x + 16 * g + 4 * k));
    }
    return _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
}

/* NAME_four: weights 4 i .. 4 i + 3 of sub-block b as bytes with the bias. */
ALWAYS_INLINE __m512i iq2_kt_four(const struct kt_block *u, int b, int i) {
    return kt_four(kt_seed(u->pairs[2 * b + i / 4], i / 2 % 2), i % 2 * 4);
}

/* The weight, less its bias, is |sum - 126| or its negative: the larger one of sum and 252 - sum or
 * the smaller one, less 126. */
ALWAYS_INLINE __m512i iq3_kt_four(const struct kt_block *u, int b, int i) {
    const __m512i w = iq2_kt_four(u, b, i);
    const __m512i other = _mm512_sub_epi8(_mm512_set1_epi8((char)(2 * KT_OFFSET)), w);
    const __mmask64 neg = _mm512_test_epi8_mask(u->signs[i], _mm512_set1_epi8((char)(1 << b)));
    return _mm512_mask_min_epu8(_mm512_max_epu8(w, other), neg, w, other);
}

ALWAYS_INLINE __m512i iq4_kt_four(const struct kt_block *u, int b, int i) {
    return kt_four(kt_seed(u->pairs[4 * b + i / 2], i % 2), 0);
}

/* NAME_dot: sums of the 32 products of sub-block b. */
ALWAYS_INLINE __m512i iq2_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    return kt_dot_by_8(u, b, x, start);
}

ALWAYS_INLINE __m512i iq3_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    __m512i acc[2] = { start, _mm512_setzero_si512() };
    UNROLL
    for (int i = 0; i < 8; i++)
        acc[i % 2] = _mm512_dpbusd_epi32(acc[i % 2], iq3_kt_four(u, b, i), spread_u32(x + 4 * i));
    return _mm512_add_epi32(acc[0], acc[1]);
}

ALWAYS_INLINE __m512i iq4_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    return kt_dot_by_4(u, b, x, start);
}

/* One token's activations in order, each `times` (1 or 4) in a row. */
static void kt_stream_acts(int times, const char *x, int64_t n, int64_t k0, int64_t nk,
                           struct int8_stream *a) {
    int8_fill_stream(KT_OFFSET, x, n, k0, nk, a);
    const __m512i four_times =
        _mm512_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505,
                          0x06060606, 0x07070707, 0x08080808, 0x09090909, 0x0a0a0a0a, 0x0b0b0b0b,
                          0x0c0c0c0c, 0x0d0d0d0d, 0x0e0e0e0e, 0x0f0f0f0f);
    for (int64_t b = 0; b < nk / 32; b++) {
        const __m256i v = load256(q8_2_x4_block(x, k0 / 32 + b, n / 32).qs);
        if (times == 1) {
            _mm256_storeu_si256((__m256i *)(a->q + 32 * b), v);
            continue;
        }
        const __m512i z = _mm512_castsi256_si512(v);
        const __m512i upper = _mm512_add_epi8(four_times, _mm512_set1_epi8(16));
        _mm512_storeu_si512(a->q + 128 * b, _mm512_permutexvar_epi8(four_times, z));
        _mm512_storeu_si512(a->q + 128 * b + 64, _mm512_permutexvar_epi8(upper, z));
    }
}

/* The functions and the cell of type NAME from NAME_unpack, NAME_four and NAME_dot; TIMES is how
 * often NAME_dot wants each activation. */
#define KT_CELL(NAME, GAIN, TIMES)                                                                 \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        const struct kt_rows rows = kt_rows(row, GAIN);                                            \
        struct int8_panel *p = panel;                                                              \
        struct kt_block u;                                                                         \
        for (int64_t i = k0 / QK_KT; i < (k0 + nk) / QK_KT; i++) {                                 \
            NAME##_unpack(row, &rows, i, &u);                                                      \
            UNROLL                                                                                 \
            for (int b = 0; b < 8; b++, p++) {                                                     \
                UNROLL                                                                             \
                for (int j = 0; j < 8; j++)                                                        \
                    _mm512_storeu_si512(p->q[j], NAME##_four(&u, b, j));                           \
                _mm512_storeu_ps(p->d, u.d[b]);                                                    \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void NAME##_stream(const char *x, size_t x_stride, int64_t n_tok, int64_t n,            \
                              int64_t k0, int64_t nk, void *acts) {                                \
        (void)x_stride, (void)n_tok;                                                               \
        kt_stream_acts(TIMES, x, n, k0, nk, acts);                                                 \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        const struct int8_rows *p = panel;                                                         \
        const struct int8_stream *a = acts;                                                        \
        const struct kt_rows rows = kt_rows(p->row, GAIN);                                         \
        __m512 sum = _mm512_setzero_ps();                                                          \
        struct kt_block u;                                                                         \
        for (int64_t i = 0; i < nk / QK_KT; i++) {                                                 \
            const int64_t block = p->k0 / QK_KT + i;                                               \
            NAME##_unpack(p->row, &rows, block, &u);                                               \
            UNROLL                                                                                 \
            for (int b = 0; b < 8; b++) {                                                          \
                const int64_t at = 8 * i + b;                                                      \
                UNROLL                                                                             \
                for (int r = 2 * b; r < 2 * b + 2; r++)                                            \
                    int8_prefetch(p, r, block * (int64_t)sizeof(struct blk_##NAME),                \
                                  sizeof(struct blk_##NAME));                                      \
                __m512i isum =                                                                     \
                    NAME##_dot(&u, b, a->q + 32 * TIMES * at, _mm512_set1_epi32(a->start[at]));    \
                __m512 scale = _mm512_mul_ps(u.d[b], _mm512_set1_ps(a->d[at]));                    \
                sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum), scale, sum);                       \
            }                                                                                      \
        }                                                                                          \
        int8_store(sum, out.dst, out.n_rows, out.add);                                             \
    }                                                                                              \
    INT8_CELL(NAME, KT_OFFSET, false)

KT_CELL(iq2_kt, IQ2_KT_GAIN, 4);
KT_CELL(iq3_kt, IQ3_KT_GAIN, 1);
KT_CELL(iq4_kt, IQ4_KT_GAIN, 4);
