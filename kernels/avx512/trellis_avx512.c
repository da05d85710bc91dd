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
 *             weight's activation four times in one vpdpbusd. With the two steps of vpmulld that
 *             is 4 instructions for 16 weights, or 8 weights a cycle on the two vector ports, less
 *             what it takes to unpack indices.
 *   by four   IQ3_KT, whose magnitude needs the sum, and panels: the bytes are added up first and
 *             four weights of a row share a lane. 21 instructions for 64 weights of IQ3_KT.
 *
 * Weights have a bias of KT_OFFSET: bytes 0..252; only the magnitudes of IQ3_KT's stream have none.
 *
 * Packed copies (struct qkernel: pack) hold what unpacking makes of 16 rows, so that a stream reads
 * one range of memory and transposes nothing. With scales 64 weights then take 18 steps of a vector
 * port of IQ2_KT and IQ4_KT, 21 of IQ3_KT; with transposing it is 19, 23 and 24.
 *
 * Formats and generator: trellis.h. */
#include "int8_avx512.h"

static const uint32_t powers[8] = KT_POWERS;

/* State k + 1 of 16 seeds: bytes 0..63 whose sum is the weight. */
ALWAYS_INLINE __m512i kt_state(__m512i x, int k) {
    return _mm512_and_si512(_mm512_mullo_epi32(x, _mm512_set1_epi32((int)powers[k])),
                            _mm512_set1_epi32((int)KT_MASK));
}

/* Bytes whose sum over a state with bit 7 set in all of its bytes is 512, or 382, which leave a
 * weight with its bias, or without it and 256 too many. None is larger than what it is taken from.
 */
#define KT_LESS 0x80808080u
#define KT_LESS_SIGNED 0x5f5f6060u
static_assert(2 * 0x5f + 2 * 0x60 == 4 * 0x80 + KT_OFFSET - 256, "the weight and 256");

/* Weights first .. first + 3 of 16 seeds, as the bytes of a lane, with the bias (less = KT_LESS) or
 * as signed bytes (KT_LESS_SIGNED). vdbpsadbw leaves the sum of a lane's bytes in both of its
 * halves, and a mask keeps one half for the next but one weight. */
ALWAYS_INLINE __m512i kt_four(__m512i x, int first, uint32_t less) {
    const __m512i up =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14));
    __m512i state[4], w[2];
    UNROLL
    for (int i = 0; i < 4; i++)
        state[i] = _mm512_ternarylogic_epi32(
            _mm512_mullo_epi32(x, _mm512_set1_epi32((int)powers[first + i])),
            _mm512_set1_epi32((int)KT_MASK), _mm512_set1_epi32((int)0x80808080), 0xea);
    UNROLL
    for (int i = 0; i < 2; i++) {
        const __m512i l = _mm512_set1_epi32((int)less);
        w[i] = _mm512_dbsad_epu8(state[i], l, 0);
        w[i] = _mm512_mask_dbsad_epu8(w[i], 0xaaaaaaaa, state[2 + i], l, 0);
    }
    return _mm512_mask_shuffle_epi8(w[0], 0xaaaaaaaaaaaaaaaa, w[1], up);
}

/* Indices are kept as signed numbers, less this, so that one vpdpwssd makes a seed of one of two.
 */
#define KT_SIGNED 0x8000

/* The two seeds of a pair of indices. */
ALWAYS_INLINE __m512i kt_seed(__m512i pair, int which) {
    return _mm512_dpwssd_epi32(_mm512_set1_epi32(KT_BASE + KT_SIGNED), pair,
                               _mm512_set1_epi32(which ? 1 << 16 : 1));
}

/* A block of 16 rows, a row in each lane, wherever its parts are. */
struct kt_block {
    const __m512i *pairs; /* indices less KT_SIGNED, 2 a lane: 32 in IQ4_KT, 16 in the others */
    const __m512i *words; /* [8] IQ3_KT: sg, 4 weights a lane; IQ4_KT: S */
    const void *codes;    /* of scales; IQ2_KT, IQ3_KT: sc [16]; IQ4_KT, packed: s [8][16] */
};

/* One that was unpacked. */
struct kt_unpacked {
    __m512i pairs[32], words[8];
    uint32_t nibbles[INT8_ROWS];
};

/* The same half way: transposed within 128 bits only. */
struct kt_middle {
    __m512i pairs[2][4][4]; // [half][quad of rows][column % 4]
    __m512i words[2][4];    // [8 rows][column % 4]
};

struct kt_format {
    /* The 32 indices of a block of one row; or, with halves = 2, those of the even sub-blocks, 8 in
     * each 128 bits, and those of the odd ones. */
    void (*indices)(const char *block, __m512i out[2]);
    /* Scales of sub-block b from those of the rows. */
    __m512 (*scales)(const struct kt_block *u, int b, __m512 d);
    /* Weights 4 i .. 4 i + 3 of sub-block b as bytes with the bias. */
    __m512i (*four)(const struct kt_block *u, int b, int i);
    /* The sum of the 32 products of sub-block b with the stream's activations; start: what the bias
     * adds to it, negated. */
    __m512i (*dot)(const struct kt_block *u, int b, const int8_t *x, __m512i start);
    int halves;
    int64_t words_at; /* where in a block the words are; -1 = none */
    int64_t block_bytes;
    double gain;
    int times; /* how often `dot` wants each activation */
    /* The same tile for activations with a -128, if `dot` does not take them. */
    void (*lowest_tile)(const void *panel, const void *acts, int64_t nk, struct gemm_out out);
};

ALWAYS_INLINE __m512i kt_signed(__m512i indices) {
    return _mm512_xor_si512(indices, _mm512_set1_epi16((int16_t)KT_SIGNED));
}

ALWAYS_INLINE void iq2_kt_indices(const char *block, __m512i out[2]) {
    out[0] = kt_signed(load512(((const struct blk_iq2_kt *)block)->idx));
}

ALWAYS_INLINE void iq3_kt_indices(const char *block, __m512i out[2]) {
    out[0] = kt_signed(load512(((const struct blk_iq3_kt *)block)->idx));
}

/* The 64 indices of a block of one row: out[0] has those of the even sub-blocks, 8 in each 128
 * bits, out[1] those of the odd ones.
 *
 * Bits 8 + 3j .. 10 + 3j of S belong to bits 12-14 of index j, bit 0 to bit 15. vpmultishiftqb
 * takes any 8 bits of a quadword, round its end if need be, so each field costs one instruction for
 * all 64 indices. */
ALWAYS_INLINE void iq4_kt_indices(const char *block, __m512i out[2]) {
    static_assert(KT_BASE_STEP == 1 << 15, "bit 15 of an index");
    const struct blk_iq4_kt *q = (const struct blk_iq4_kt *)block;
    const __m512i nibble_at = _mm512_setr_epi64(
        0x3830282018100800, 0x3830282018100800, 0x3830282018100800, 0x3830282018100800,
        0x3c342c241c140c04, 0x3c342c241c140c04, 0x3c342c241c140c04, 0x3c342c241c140c04);
    const __m512i three_at = _mm512_set1_epi64(0x191613100d0a0704);
    const __m512i S = _mm512_cvtepu32_epi64(load256(q->S));
    const __m512i qh = _mm512_broadcast_i64x4(load256(q->qh));
    __m512i nibble = _mm512_multishift_epi64_epi8(nibble_at, qh);
    __m512i three = _mm512_multishift_epi64_epi8(three_at, S);
    __m512i top = _mm512_multishift_epi64_epi8(_mm512_set1_epi8(57), S); // bit 0 as bit 7
    /* 0x0f ? nibble : three, then 0x7f ? h : ~top */
    __m512i h = _mm512_ternarylogic_epi64(_mm512_set1_epi8(0x0f), nibble, three, 0xca);
    h = _mm512_ternarylogic_epi64(h, _mm512_set1_epi8(0x7f), top, 0xd1);
    const __m512i l = load512(q->ql);
    out[0] = _mm512_unpacklo_epi8(l, h);
    out[1] = _mm512_unpackhi_epi8(l, h);
}

ALWAYS_INLINE void kt_store_middle(__m512i r[4], __m512i out[4]) {
    transpose4x4_32(r);
    UNROLL
    for (int c = 0; c < 4; c++)
        out[c] = r[c];
}

/* One of the 8 steps that unpack a block of 16 rows, `at` bytes from their starts: four of them
 * take 4 rows each, four a quarter of the columns. */
ALWAYS_INLINE void kt_unpack(const struct kt_format *f, const char *const row[INT8_ROWS],
                             int64_t at, int step, struct kt_middle *m, struct kt_unpacked *u) {
    if (step < 4) {
        __m512i even[4], odd[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            __m512i idx[2];
            f->indices(row[4 * step + i] + at, idx);
            even[i] = idx[0];
            if (f->halves == 2) odd[i] = idx[1];
        }
        kt_store_middle(even, m->pairs[0][step]);
        if (f->halves == 2) kt_store_middle(odd, m->pairs[1][step]);
        if (f->words_at >= 0 && step % 2) {
            const char *const *p = row + 4 * (step - 1);
            __m512i words[4];
            UNROLL
            for (int i = 0; i < 4; i++)
                words[i] =
                    _mm512_inserti64x4(_mm512_castsi256_si512(load256(p[i] + at + f->words_at)),
                                       load256(p[4 + i] + at + f->words_at), 1);
            kt_store_middle(words, m->words[step / 2]);
        }
        return;
    }
    const int c = step - 4;
    UNROLL
    for (int h = 0; h < f->halves; h++) {
        const __m512i in[4] = { m->pairs[h][0][c], m->pairs[h][1][c], m->pairs[h][2][c],
                                m->pairs[h][3][c] };
        __m512i out[4];
        transpose4x4_128(in, out);
        UNROLL
        for (int l = 0; l < 4; l++)
            u->pairs[4 * (f->halves * l + h) + c] = out[l];
    }
    if (f->words_at >= 0) {
        u->words[c] = _mm512_shuffle_i32x4(m->words[0][c], m->words[1][c], 0x88);
        u->words[4 + c] = _mm512_shuffle_i32x4(m->words[0][c], m->words[1][c], 0xdd);
    }
}

/* The nibbles of a block of 16 rows. */
ALWAYS_INLINE void kt_nibbles_of_rows(const char *const row[INT8_ROWS], int64_t at,
                                      uint32_t sc[INT8_ROWS]) {
    for (int r = 0; r < INT8_ROWS; r++)
        sc[r] = load_u32(row[r] + at);
}

ALWAYS_INLINE __m512i kt_nibble(const struct kt_block *u, int b) {
    return _mm512_srli_epi32(load512(u->codes), (unsigned)(8 * (b % 4) + 4 * (b / 4)));
}

ALWAYS_INLINE __m512 iq2_kt_scales(const struct kt_block *u, int b, __m512 d) {
    static const float values[16] = KT_SCALES;
    /* The permutation looks at the lower 4 bits only. */
    return _mm512_mul_ps(d, _mm512_permutexvar_ps(kt_nibble(u, b), _mm512_loadu_ps(values)));
}

ALWAYS_INLINE __m512 iq3_kt_scales(const struct kt_block *u, int b, __m512 d) {
    const __m512i s = _mm512_and_si512(kt_nibble(u, b), _mm512_set1_epi32(15));
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
}

/* d * (code / 2 - 64), rounded once; the code is even. */
ALWAYS_INLINE __m512 iq4_kt_scales_of(__m512i code, __m512 d) {
    return _mm512_fmsub_ps(_mm512_cvtepi32_ps(code), _mm512_mul_ps(d, _mm512_set1_ps(0.5f)),
                           _mm512_mul_ps(d, _mm512_set1_ps(64.0f)));
}

ALWAYS_INLINE __m512i iq4_kt_codes(const struct kt_block *u, int b) {
    return _mm512_and_si512(u->words[b], _mm512_set1_epi32(254));
}

ALWAYS_INLINE __m512 iq4_kt_scales(const struct kt_block *u, int b, __m512 d) {
    return iq4_kt_scales_of(iq4_kt_codes(u, b), d);
}

/* The same of a packed block. */
ALWAYS_INLINE __m512 iq4_kt_packed_scales(const struct kt_block *u, int b, __m512 d) {
    return iq4_kt_scales_of(_mm512_cvtepu8_epi32(load128((const char *)u->codes + 16 * b)), d);
}

/* Sums of 32 weights of sub-block b, of which an index seeds n, with spread activations. Two
 * chains, because a product waits 5 cycles for the one before it. */
ALWAYS_INLINE __m512i kt_dot_by(int n, const struct kt_block *u, int b, const int8_t *x,
                                __m512i start) {
    __m512i acc[2] = { start, _mm512_setzero_si512() };
    UNROLL
    for (int g = 0; g < 32 / n; g++) {
        const __m512i seed = kt_seed(u->pairs[16 / n * b + g / 2], g % 2);
        UNROLL
        for (int k = 0; k < n; k++)
            acc[k % 2] = dpbusd_spread(acc[k % 2], kt_state(seed, k), x + 4 * (n * g + k));
    }
    return _mm512_add_epi32(acc[0], acc[1]);
}

/* NAME_four: weights 4 i .. 4 i + 3 of sub-block b as bytes with the bias. */
ALWAYS_INLINE __m512i iq2_kt_four(const struct kt_block *u, int b, int i) {
    return kt_four(kt_seed(u->pairs[2 * b + i / 4], i / 2 % 2), i % 2 * 4, KT_LESS);
}

/* Bits b of the words of weights 4 i .. 4 i + 3. */
ALWAYS_INLINE __mmask64 iq3_kt_signs(const struct kt_block *u, int b, int i) {
    return _mm512_test_epi8_mask(u->words[i], _mm512_set1_epi8((char)(1 << b)));
}

/* What the generator gives for these weights, signed. */
ALWAYS_INLINE __m512i iq3_kt_values(const struct kt_block *u, int b, int i) {
    const __m512i seed = kt_seed(u->pairs[2 * b + i / 4], i / 2 % 2);
    return kt_four(seed, i % 2 * 4, KT_LESS_SIGNED);
}

/* Magnitudes 4 i .. 4 i + 3 of sub-block b, and which of them are to be negated. */
ALWAYS_INLINE __m512i iq3_kt_magnitudes(const struct kt_block *u, int b, int i, __mmask64 *neg) {
    *neg = iq3_kt_signs(u, b, i);
    return _mm512_abs_epi8(iq3_kt_values(u, b, i));
}

ALWAYS_INLINE __m512i iq3_kt_four(const struct kt_block *u, int b, int i) {
    const __m512i bias = _mm512_set1_epi8(KT_OFFSET);
    __mmask64 neg;
    const __m512i w = iq3_kt_magnitudes(u, b, i, &neg);
    return _mm512_mask_sub_epi8(_mm512_add_epi8(bias, w), neg, bias, w);
}

ALWAYS_INLINE __m512i iq4_kt_four(const struct kt_block *u, int b, int i) {
    return kt_four(kt_seed(u->pairs[4 * b + i / 2], i % 2), 0, KT_LESS);
}

/* NAME_dot: sums of the 32 products of sub-block b. */
ALWAYS_INLINE __m512i iq2_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    return kt_dot_by(8, u, b, x, start);
}

/* With the signs where they belong. */
ALWAYS_INLINE __m512i iq3_kt_dot_lowest(const struct kt_block *u, int b, const int8_t *x,
                                        __m512i start) {
    UNROLL
    for (int i = 0; i < 8; i++)
        start = dpbusd_spread(start, iq3_kt_four(u, b, i), x + 4 * i);
    return start;
}

/* Signs move to the activations, so that magnitudes need no bias. Activations of -128, which occur
 * where a block's scale is subnormal, have no negative: iq3_kt_dot_lowest. */
ALWAYS_INLINE __m512i iq3_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    const __m512i zero = _mm512_setzero_si512();
    __m512i acc[2] = { zero, zero };
    (void)start;
    UNROLL
    for (int i = 0; i < 8; i++) {
        __mmask64 neg;
        const __m512i w = iq3_kt_magnitudes(u, b, i, &neg), v = spread_u32(x + 4 * i);
        acc[i % 2] = _mm512_dpbusd_epi32(acc[i % 2], w, _mm512_mask_sub_epi8(v, neg, zero, v));
    }
    return _mm512_add_epi32(acc[0], acc[1]);
}

/* Of a packed block, whose words tell where the sign of the generator's value is not the weight's:
 * the bias makes a difference of it, 2 KT_OFFSET less a weight is its negative. */
ALWAYS_INLINE __m512i iq3_kt_packed_dot(const struct kt_block *u, int b, const int8_t *x,
                                        __m512i start) {
    const __m512i most = _mm512_set1_epi8((char)(2 * KT_OFFSET));
    __m512i acc[2] = { start, _mm512_setzero_si512() };
    UNROLL
    for (int i = 0; i < 8; i++) {
        const __m512i w = iq2_kt_four(u, b, i);
        acc[i % 2] = dpbusd_spread(
            acc[i % 2], _mm512_mask_sub_epi8(w, iq3_kt_signs(u, b, i), most, w), x + 4 * i);
    }
    return _mm512_add_epi32(acc[0], acc[1]);
}

ALWAYS_INLINE __m512i iq4_kt_dot(const struct kt_block *u, int b, const int8_t *x, __m512i start) {
    return kt_dot_by(4, u, b, x, start);
}

/* One token's activations in order, each f->times (1 or 4) in a row. */
ALWAYS_INLINE void kt_stream_acts(const struct kt_format *f, const char *x, int64_t n, int64_t k0,
                                  int64_t nk, struct int8_stream *a) {
    int8_fill_stream(KT_OFFSET, x, n, k0, nk, a);
    a->has_lowest = false;
    const __m512i four_times =
        _mm512_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505,
                          0x06060606, 0x07070707, 0x08080808, 0x09090909, 0x0a0a0a0a, 0x0b0b0b0b,
                          0x0c0c0c0c, 0x0d0d0d0d, 0x0e0e0e0e, 0x0f0f0f0f);
    for (int64_t b = 0; b < nk / 32; b++) {
        const __m256i v = load256(q8_2_x4_block(x, k0 / 32 + b, n / 32).qs);
        if (f->lowest_tile)
            a->has_lowest |= _mm256_cmpeq_epi8_mask(v, _mm256_set1_epi8(INT8_MIN)) != 0;
        if (f->times == 1) {
            _mm256_storeu_si256((__m256i *)(a->q + 32 * b), v);
            continue;
        }
        const __m512i z = _mm512_castsi256_si512(v);
        const __m512i upper = _mm512_add_epi8(four_times, _mm512_set1_epi8(16));
        _mm512_storeu_si512(a->q + 128 * b, _mm512_permutexvar_epi8(four_times, z));
        _mm512_storeu_si512(a->q + 128 * b + 64, _mm512_permutexvar_epi8(upper, z));
    }
}

typedef void (*kt_visit)(const struct kt_format *f, const struct kt_block *u, int b, __m512 d,
                         void *arg);

/* Call `visit` for every sub-block of blocks [first, end) of 16 rows. With each goes one step of
 * unpacking the next block, because shuffles keep only one of the two vector ports busy, and the
 * fetching of two blocks of the 16 rows after these, because a burst of fetches would stop
 * everything else. */
ALWAYS_INLINE void kt_for_blocks(const struct kt_format *f, const char *const row[INT8_ROWS],
                                 int64_t first, int64_t end, kt_visit visit, void *arg) {
    struct kt_unpacked u[2];
    struct kt_middle m;
    float row_d[INT8_ROWS];
    int64_t at = KT_ROW_META + first * f->block_bytes;
    for (int r = 0; r < INT8_ROWS; r++)
        row_d[r] = (float)(load_f32(row[r]) * f->gain);
    const __m512 d = _mm512_loadu_ps(row_d);
    UNROLL
    for (int step = 0; step < 8; step++)
        kt_unpack(f, row, at, step, &m, &u[0]);
    if (f->halves == 1) kt_nibbles_of_rows(row, at, u[0].nibbles);
    struct int8_ahead ahead = int8_ahead_of(row, at, f->block_bytes, end - first, f->halves == 2);
    struct kt_unpacked *now = &u[0], *next = &u[1];
    for (int64_t i = first; i < end; i++, at += f->block_bytes) {
        const struct kt_block block = { now->pairs, now->words, now->nibbles };
        UNROLL
        for (int b = 0; b < 8; b++) {
            int8_fetch(&ahead);
            int8_fetch(&ahead);
            if (i + 1 < end) {
                kt_unpack(f, row, at + f->block_bytes, b, &m, next);
                if (f->halves == 1 && b == 0)
                    kt_nibbles_of_rows(row, at + f->block_bytes, next->nibbles);
            }
            visit(f, &block, b, f->scales(&block, b, d), arg);
        }
        struct kt_unpacked *t = now;
        now = next;
        next = t;
    }
}

ALWAYS_INLINE void kt_store_panel(const struct kt_format *f, const struct kt_block *u, int b,
                                  __m512 d, void *arg) {
    struct int8_panel **p = arg;
    UNROLL
    for (int i = 0; i < 8; i++)
        _mm512_storeu_si512((*p)->q[i], f->four(u, b, i));
    _mm512_storeu_ps((*p)->d, d);
    ++*p;
}

struct kt_sum {
    const struct int8_stream *a;
    int64_t b;
    __m512 sum;
    struct gemm_out out;
};

ALWAYS_INLINE void kt_add_products(const struct kt_format *f, const struct kt_block *u, int b,
                                   __m512 d, void *arg) {
    struct kt_sum *s = arg;
    const struct int8_stream *a = s->a;
    const __m512i start = _mm512_set1_epi32(a->start[s->b]);
    const __m512i isum = f->dot(u, b, a->q + 32 * f->times * s->b, start);
    d = _mm512_mul_ps(d, _mm512_set1_ps(a->d[s->b]));
    s->sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum), d, s->sum);
    s->b++;
    if (b == 7 && s->b % (INT8_PART / 32) == 0) {
        int8_store(s->sum, s->out.dst, s->out.n_rows, s->out.add);
        s->out.add = true;
        s->sum = _mm512_setzero_ps();
    }
}

ALWAYS_INLINE void kt_stream_tile(const struct kt_format *f, const void *panel, const void *acts,
                                  int64_t nk, struct gemm_out out) {
    const struct int8_rows *p = panel;
    struct kt_sum s = { acts, 0, _mm512_setzero_ps(), out };
    if (f->lowest_tile && UNLIKELY(s.a->has_lowest)) {
        f->lowest_tile(panel, acts, nk, out);
        return;
    }
    kt_for_blocks(f, p->row, p->k0 / QK_KT, (p->k0 + nk) / QK_KT, kt_add_products, &s);
    if (s.b % (INT8_PART / 32)) int8_store(s.sum, out.dst, out.n_rows, s.out.add);
}

/* ---- packed copies ----------------------------------------------------------------------------
 *
 * A group of 16 rows is their scales d [16], with the gain, and then the blocks as kt_for_blocks
 * unpacks them: codes, words if the type has any besides, pairs. */

static_assert(PACK_ROWS == INT8_ROWS, "a group is what a register holds");

/* Where the words and the pairs of a packed block begin; where it ends. */
struct kt_packed {
    int64_t words, pairs, end;
};

ALWAYS_INLINE struct kt_packed kt_packed_of(const struct kt_format *f) {
    const bool iq4 = f->halves == 2; /* its words are codes and bits of indices */
    struct kt_packed p = { .words = iq4 ? 8 * INT8_ROWS : 4 * INT8_ROWS };
    p.pairs = p.words + (f->words_at >= 0 && !iq4 ? 8 * 64 : 0);
    p.end = p.pairs + 16 * 64 * f->halves;
    return p;
}

ALWAYS_INLINE size_t kt_pack_row_bytes(const struct kt_format *f, int64_t n) {
    return (size_t)(64 + n / QK_KT * kt_packed_of(f).end) / INT8_ROWS;
}

/* Sub-block by sub-block; *arg is the block's place. */
ALWAYS_INLINE void kt_pack_block(const struct kt_format *f, const struct kt_block *u, int b,
                                 __m512 d, void *arg) {
    const struct kt_packed p = kt_packed_of(f);
    char **block = arg;
    __m512i *words = (__m512i *)(void *)(*block + p.words);
    (void)d;
    if (f->halves == 2)
        _mm_store_si128((__m128i *)(void *)(*block + 16 * b),
                        _mm512_cvtepi32_epi8(iq4_kt_codes(u, b)));
    for (int i = 0; i < 8 && p.pairs > p.words; i++) {
        const __mmask64 other = _mm512_movepi8_mask(iq3_kt_values(u, b, i));
        const __m512i bit = _mm512_set1_epi8((char)(1 << b));
        const __m512i word = b == 0 ? u->words[i] : words[i];
        words[i] = _mm512_xor_si512(word, _mm512_maskz_mov_epi8(other, bit));
    }
    if (b < 7) return;
    if (f->halves == 1) memcpy(*block, u->codes, 4 * INT8_ROWS);
    memcpy(*block + p.pairs, u->pairs, (size_t)(p.end - p.pairs));
    *block += p.end;
}

ALWAYS_INLINE void kt_pack(const struct kt_format *f, int64_t n, const char *w, size_t w_stride,
                           int64_t n_rows, char *packed) {
    const char *row[INT8_ROWS];
    for (int64_t r0 = 0; r0 < n_rows; r0 += INT8_ROWS) {
        float *d = (float *)(void *)packed;
        for (int64_t i = 0; i < INT8_ROWS; i++) {
            row[i] = w + (size_t)gemm_min(r0 + i, n_rows - 1) * w_stride;
            d[i] = (float)(load_f32(row[i]) * f->gain);
        }
        packed += 64;
        kt_for_blocks(f, row, 0, n / QK_KT, kt_pack_block, &packed);
    }
}

/* The processor's own prefetcher follows one stream well: fetching by hand gives 1 to 3 %, so near;
 * 4 KiB ahead it costs IQ4_KT 15 %. */
#define KT_PACK_AHEAD 1024 /* bytes */

ALWAYS_INLINE void kt_packed_tile(const struct kt_format *f, const void *panel, const void *acts,
                                  int64_t nk, struct gemm_out out) {
    const struct int8_rows *rows = panel;
    const struct kt_packed p = kt_packed_of(f);
    struct kt_sum s = { acts, 0, _mm512_setzero_ps(), out };
    const char *block = rows->row[0] + 64 + rows->k0 / QK_KT * p.end;
    const __m512 d = _mm512_load_ps(rows->row[0]);
    for (int64_t i = 0; i < nk / QK_KT; i++, block += p.end) {
        const struct kt_block u = { (const __m512i *)(const void *)(block + p.pairs),
                                    (const __m512i *)(const void *)(block + p.words), block };
        UNROLL
        for (int b = 0; b < 8; b++) {
            for (int64_t l = (p.end / 8 * b + 63) / 64 * 64; l < p.end / 8 * (b + 1); l += 64)
                _mm_prefetch(block + KT_PACK_AHEAD + l, _MM_HINT_T0);
            kt_add_products(f, &u, b, f->scales(&u, b, d), &s);
        }
    }
    if (s.b % (INT8_PART / 32)) int8_store(s.sum, out.dst, out.n_rows, s.out.add);
}

/* ---- cells ------------------------------------------------------------------------------------
 */

/* From NAME_indices and NAME_four. */
#define KT_FORMAT(NAME, SCALES, DOT, HALVES, WORDS_AT, GAIN, TIMES, LOWEST_TILE)                   \
    {                                                                                              \
        .indices = NAME##_indices, .scales = SCALES, .four = NAME##_four, .dot = DOT,              \
        .halves = HALVES, .words_at = WORDS_AT, .block_bytes = sizeof(struct blk_##NAME),          \
        .gain = GAIN, .times = TIMES, .lowest_tile = LOWEST_TILE                                   \
    }

/* The functions and the cell of type NAME; PACKED_SCALES, PACKED_DOT: of its packed blocks. */
#define KT_CELL(NAME, HALVES, WORDS_AT, GAIN, TIMES, LOWEST_TILE, PACKED_SCALES, PACKED_DOT)       \
    static const struct kt_format NAME##_format =                                                  \
        KT_FORMAT(NAME, NAME##_scales, NAME##_dot, HALVES, WORDS_AT, GAIN, TIMES, LOWEST_TILE);    \
    static const struct kt_format NAME##_packed =                                                  \
        KT_FORMAT(NAME, PACKED_SCALES, PACKED_DOT, HALVES, WORDS_AT, GAIN, TIMES, NULL);           \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        struct int8_panel *p = panel;                                                              \
        kt_for_blocks(&NAME##_format, row, k0 / QK_KT, (k0 + nk) / QK_KT, kt_store_panel, &p);     \
    }                                                                                              \
    static void NAME##_stream(const char *x, size_t x_stride, int64_t n_tok, int64_t n,            \
                              int64_t k0, int64_t nk, void *acts) {                                \
        (void)x_stride, (void)n_tok;                                                               \
        kt_stream_acts(&NAME##_format, x, n, k0, nk, acts);                                        \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        kt_stream_tile(&NAME##_format, panel, acts, nk, out);                                      \
    }                                                                                              \
    static void NAME##_packed_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        kt_packed_tile(&NAME##_packed, panel, acts, nk, out);                                      \
    }                                                                                              \
    static size_t NAME##_pack_row_bytes(int64_t n) {                                               \
        return kt_pack_row_bytes(&NAME##_packed, n);                                               \
    }                                                                                              \
    static void NAME##_pack(int64_t n, const void *w, size_t w_stride, int64_t n_rows,             \
                            void *packed) {                                                        \
        kt_pack(&NAME##_format, n, w, w_stride, n_rows, packed);                                   \
    }                                                                                              \
    INT8_ONE(NAME##_one_packed, NAME##_stream, NAME##_packed_tile, TIMES)                          \
    INT8_CELL(NAME, KT_OFFSET, false, TIMES, .pack_row_bytes = NAME##_pack_row_bytes,              \
              .pack = NAME##_pack, .mul_packed = NAME##_one_packed)

static NOINLINE void iq3_kt_lowest_tile(const void *panel, const void *acts, int64_t nk,
                                        struct gemm_out out) {
    static const struct kt_format lowest =
        KT_FORMAT(iq3_kt, iq3_kt_scales, iq3_kt_dot_lowest, 1, offsetof(struct blk_iq3_kt, sg),
                  IQ3_KT_GAIN, 1, NULL);
    kt_stream_tile(&lowest, panel, acts, nk, out);
}

KT_CELL(iq2_kt, 1, -1, IQ2_KT_GAIN, 4, NULL, iq2_kt_scales, iq2_kt_dot);
KT_CELL(iq3_kt, 1, offsetof(struct blk_iq3_kt, sg), IQ3_KT_GAIN, 1, iq3_kt_lowest_tile,
        iq3_kt_scales, iq3_kt_packed_dot);
KT_CELL(iq4_kt, 2, offsetof(struct blk_iq4_kt, S), IQ4_KT_GAIN, 4, NULL, iq4_kt_packed_scales,
        iq4_kt_dot);
