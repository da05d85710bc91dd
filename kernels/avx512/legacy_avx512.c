/* SPDX-License-Identifier: MIT
 * legacy_avx512.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 on AVX-512: decoders for int8_avx512.h, and the
 * stream of one token.
 *
 * Four blocks of a row are decoded together: one register holds weights 0..15 of each, a second one
 * weights 16..31, a block in 128 bits. That is how nibbles lie anyway (legacy.h), and it leaves the
 * sums of a block in 4 lanes after two vpdpbusd; 16 rows are then added up across lanes together.
 *
 * Few instructions per byte: the stream runs at the speed of the memory, so scales are fetched by
 * plain gathers. Loops that only read 960 MiB on two threads, in turn with it: one stream a thread
 * 25 to 28 GB/s, 16 rows a thread 28 to 30, this 26 to 27 (another day 30, 31 and 29 to 30); so
 * there is nothing in a copy in another order. The roof of kernel-bench is the best of many reads
 * of 2 ms, 31 to 38 GB/s on that day. */
#include "int8_avx512.h"

/* 16 bytes of each of `count` blocks, stride bytes apart; zeros for the others. */
ALWAYS_INLINE __m512i pieces(const void *first, size_t stride, int count) {
    static const __mmask16 quarter[4] = { 0x000f, 0x00f0, 0x0f00, 0xf000 };
    const char *p = first;
    __m512i z = _mm512_zextsi128_si512(load128(p));
    UNROLL
    for (int j = 1; j < 4 && j < count; j++)
        z = _mm512_mask_broadcast_i32x4(z, quarter[j], load128(p + (size_t)j * stride));
    return z;
}

/* Low and high nibbles of `pieces`. */
ALWAYS_INLINE void nibbles(const void *first, size_t stride, int count, __m512i out[2]) {
    const __m512i mask = _mm512_set1_epi8(15), q = pieces(first, stride, count);
    out[0] = _mm512_and_si512(q, mask);
    out[1] = _mm512_and_si512(_mm512_srli_epi16(q, 4), mask);
}

/* Add 16 to each weight whose bit in its block's 32 at qh is set. */
ALWAYS_INLINE void add_fifth_bits(const void *first, size_t stride, int count, __m512i w[2]) {
    static const __mmask16 quarter[4] = { 0x000f, 0x00f0, 0x0f00, 0xf000 };
    const __m512i bit = _mm512_set1_epi64((int64_t)0x8040201008040201u);
    const __m512i sixteen = _mm512_set1_epi8(16);
    const char *p = first;
    __m512i h = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 4 && j < count; j++)
        h = _mm512_mask_set1_epi32(h, quarter[j], (int)load_u32(p + (size_t)j * stride));
    UNROLL
    for (int i = 0; i < 2; i++) {
        const int64_t byte = i ? 0x0202020202020202 : 0;
        const __m512i at = _mm512_broadcast_i32x4(_mm_set_epi64x(byte + 0x0101010101010101, byte));
        const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(h, at), bit);
        w[i] = _mm512_mask_add_epi8(w[i], set, w[i], sixteen);
    }
}

/* Add bits 4 and 5 of the weights of Q6_0 blocks. Weight j of a half has its two bits in byte j % 8
 * of qh, from bit 4 (j / 8) + 2 (half) on; a rotation of the 8 bytes puts them where they go. */
ALWAYS_INLINE void add_upper_bits(const void *first, size_t stride, int count, __m512i w[2]) {
    static const __mmask8 quarter[4] = { 0x03, 0x0c, 0x30, 0xc0 };
    const __m512i mask = _mm512_set1_epi8(0x30);
    const char *p = first;
    __m512i h = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 4 && j < count; j++)
        h = _mm512_mask_set1_epi64(h, quarter[j], load_i64(p + (size_t)j * stride));
    UNROLL
    for (int i = 0; i < 2; i++) {
        const int64_t from = i ? 0x362e261e160e063e : 0x342c241c140c043c; // 8 j + 2 i - 4
        const __m512i at = _mm512_broadcast_i32x4(_mm_set_epi64x(from + 0x0404040404040404, from));
        const __m512i upper = _mm512_multishift_epi64_epi8(at, h);
        w[i] = _mm512_ternarylogic_epi64(w[i], upper, mask, 0xf8); // w | (upper & mask)
    }
}

/* NAME_halves: weights 0..15 and 16..31 of `count` blocks from q on, a block in 128 bits; what
 * comes out for missing blocks means nothing. */
#define HALVES(NAME)                                                                               \
    ALWAYS_INLINE void NAME##_halves(const struct blk_##NAME *q, int count, __m512i w[2])

HALVES(q4_0) {
    nibbles(q->qs, sizeof *q, count, w);
}

HALVES(q4_1) {
    nibbles(q->qs, sizeof *q, count, w);
}

HALVES(q5_0) {
    nibbles(q->qs, sizeof *q, count, w);
    add_fifth_bits(q->qh, sizeof *q, count, w);
}

HALVES(q5_1) {
    nibbles(q->qs, sizeof *q, count, w);
    add_fifth_bits(q->qh, sizeof *q, count, w);
}

HALVES(q6_0) {
    nibbles(q->qs, sizeof *q, count, w);
    add_upper_bits(q->qh, sizeof *q, count, w);
}

HALVES(q8_0) {
    const __m512i sign = _mm512_set1_epi8(-128);
    w[0] = _mm512_xor_si512(pieces(q->qs, sizeof *q, count), sign);
    w[1] = _mm512_xor_si512(pieces(q->qs + 16, sizeof *q, count), sign);
}

/* Bytes from the first of 16 rows to each. */
ALWAYS_INLINE __m512i row_offsets(const char *const row[INT8_ROWS]) {
    int32_t at[INT8_ROWS];
    for (int r = 0; r < INT8_ROWS; r++)
        at[r] = (int32_t)(row[r] - row[0]);
    return load512(at);
}

/* The scale of one block of each of 16 rows, and the minimum if there is one; block: row 0's. */
ALWAYS_INLINE __m512 scales_of_rows(const char *block, __m512i offsets, bool has_min, __m512 *m) {
    const __m512i h = _mm512_i32gather_epi32(offsets, block, 1);
    if (has_min) *m = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(h, 16)));
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(h));
}

/* Activations in the order of `halves`; zeros for missing blocks. */
static void stream_acts(int bias, const char *x, int64_t n, int64_t k0, int64_t nk,
                        struct int8_stream *a) {
    int8_fill_stream(bias, x, n, k0, nk, a);
    for (int64_t b = 0; b < (nk / 32 + 3) / 4 * 4; b++) {
        int8_t *q = a->q + b / 4 * 128 + b % 4 * 16;
        __m256i v = _mm256_setzero_si256();
        if (b < nk / 32) v = load256(q8_2_x4_block(x, k0 / 32 + b, n / 32).qs);
        _mm_storeu_si128((__m128i *)q, _mm256_castsi256_si128(v));
        _mm_storeu_si128((__m128i *)(q + 64), _mm256_extracti128_si256(v, 1));
    }
}

/* Panels of `count` blocks from w on: w[r] = halves of row r. */
ALWAYS_INLINE void store_panels(__m512i w[2][INT8_ROWS], int count, struct int8_panel *p) {
    UNROLL
    for (int half = 0; half < 2; half++) {
        transpose16x16(w[half]);
        UNROLL
        for (int j = 0; j < 4 && j < count; j++) {
            UNROLL
            for (int i = 0; i < 4; i++)
                _mm512_storeu_si512(p[j].q[4 * half + i], w[half][4 * j + i]);
        }
    }
}

/* The functions and the cell of type NAME from NAME_halves. */
#define LEGACY_CELL(NAME, BIAS, HAS_MIN)                                                           \
    /* Four blocks a step. */                                                                      \
    ALWAYS_INLINE struct int8_ahead NAME##_ahead(const char *const *row, int64_t k0, int64_t nk) { \
        const int64_t size = sizeof(struct blk_##NAME);                                            \
        return int8_ahead_of(row, k0 / 32 * size, 4 * size, (nk + 127) / 128, false);              \
    }                                                                                              \
    ALWAYS_INLINE void NAME##_panels(const char *const *row, __m512i offsets, int64_t b,           \
                                     int count, struct int8_ahead *ahead, struct int8_panel *p) {  \
        __m512i w[2][INT8_ROWS];                                                                   \
        UNROLL                                                                                     \
        for (int r = 0; r < INT8_ROWS; r++) {                                                      \
            __m512i halves[2];                                                                     \
            int8_fetch(ahead);                                                                     \
            NAME##_halves((const struct blk_##NAME *)row[r] + b, count, halves);                   \
            w[0][r] = halves[0];                                                                   \
            w[1][r] = halves[1];                                                                   \
        }                                                                                          \
        store_panels(w, count, p);                                                                 \
        UNROLL                                                                                     \
        for (int j = 0; j < 4 && j < count; j++) {                                                 \
            __m512 m;                                                                              \
            const struct blk_##NAME *q = (const struct blk_##NAME *)row[0] + b + j;                \
            _mm512_storeu_ps(p[j].d, scales_of_rows((const char *)q, offsets, HAS_MIN, &m));       \
            if (HAS_MIN) _mm512_storeu_ps(p[j].m, m);                                              \
        }                                                                                          \
    }                                                                                              \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        const __m512i offsets = row_offsets(row);                                                  \
        struct int8_panel *p = panel;                                                              \
        struct int8_ahead ahead = NAME##_ahead(row, k0, nk);                                       \
        const int64_t end = (k0 + nk) / 32;                                                        \
        int64_t b = k0 / 32;                                                                       \
        for (; b + 4 <= end; b += 4, p += 4)                                                       \
            NAME##_panels(row, offsets, b, 4, &ahead, p);                                          \
        for (; b < end; b++, p++)                                                                  \
            NAME##_panels(row, offsets, b, 1, &ahead, p);                                          \
    }                                                                                              \
    static void NAME##_stream(const char *x, size_t x_stride, int64_t n_tok, int64_t n,            \
                              int64_t k0, int64_t nk, void *acts) {                                \
        (void)x_stride, (void)n_tok;                                                               \
        stream_acts(BIAS, x, n, k0, nk, acts);                                                     \
    }                                                                                              \
    ALWAYS_INLINE __m512 NAME##_blocks(const struct int8_rows *p, __m512i offsets,                 \
                                       const struct int8_stream *a, int64_t b, int count,          \
                                       struct int8_ahead *ahead, __m512 sum) {                     \
        const int64_t b0 = p->k0 / 32 + b;                                                         \
        const __m512i lo = load512(a->q + 32 * b), hi = load512(a->q + 32 * b + 64);               \
        __m512i acc[INT8_ROWS], isum[4];                                                           \
        UNROLL                                                                                     \
        for (int r = 0; r < INT8_ROWS; r++) {                                                      \
            __m512i w[2];                                                                          \
            int8_fetch(ahead);                                                                     \
            NAME##_halves((const struct blk_##NAME *)p->row[r] + b0, count, w);                    \
            acc[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w[0], lo);                        \
            acc[r] = _mm512_dpbusd_epi32(acc[r], w[1], hi);                                        \
        }                                                                                          \
        sum_quarters(acc, isum);                                                                   \
        UNROLL                                                                                     \
        for (int j = 0; j < 4 && j < count; j++) {                                                 \
            const struct blk_##NAME *q = (const struct blk_##NAME *)p->row[0] + b0 + j;            \
            __m512 m, d = scales_of_rows((const char *)q, offsets, HAS_MIN, &m);                   \
            d = _mm512_mul_ps(d, _mm512_set1_ps(a->d[b + j]));                                     \
            if (BIAS) isum[j] = _mm512_add_epi32(isum[j], _mm512_set1_epi32(a->start[b + j]));     \
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[j]), d, sum);                            \
            if (HAS_MIN) sum = _mm512_fmadd_ps(m, _mm512_set1_ps(a->s[b + j]), sum);               \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        const struct int8_rows *p = panel;                                                         \
        const int64_t n_blocks = nk / 32;                                                          \
        const __m512i offsets = row_offsets(p->row);                                               \
        struct int8_ahead ahead = NAME##_ahead(p->row, p->k0, nk);                                 \
        for (int64_t b = 0; b < n_blocks; out.add = true) {                                        \
            const int64_t end = gemm_min(b + INT8_PART / 32, n_blocks);                            \
            __m512 sum = _mm512_setzero_ps();                                                      \
            for (; b + 4 <= end; b += 4)                                                           \
                sum = NAME##_blocks(p, offsets, acts, b, 4, &ahead, sum);                          \
            if (b < end) sum = NAME##_blocks(p, offsets, acts, b, (int)(end - b), &ahead, sum);    \
            b = end;                                                                               \
            int8_store(sum, out.dst, out.n_rows, out.add);                                         \
        }                                                                                          \
    }                                                                                              \
    INT8_CELL(NAME, BIAS, HAS_MIN, 1, .pack = NULL) /* streamed as they lie, at memory's speed */

LEGACY_CELL(q4_0, 8, false);
LEGACY_CELL(q4_1, 0, true);
LEGACY_CELL(q5_0, 16, false);
LEGACY_CELL(q5_1, 0, true);
LEGACY_CELL(q6_0, 32, false);
LEGACY_CELL(q8_0, 128, false);
