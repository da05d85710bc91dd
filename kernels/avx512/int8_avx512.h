/* SPDX-License-Identifier: MIT
 * int8_avx512.h - products of integer weights with q8_2_x4 activations on AVX-512 VNNI; a type
 * brings its decoder.
 *
 * A weight is an unsigned byte less the bias of its type, because vpdpbusd multiplies unsigned by
 * signed bytes; it adds the four products of a lane in int32 and cannot overflow. bias * sum(x) is
 * where a sum starts. A product's share of dst is d * dx * isum + m * dx * sum(x) in f32, m being
 * the minimum of q4_1 and q5_1.
 *
 * A lane of a register is a row, 16 of them:
 *
 *   panels    More than one token. A panel of 16 rows holds bytes by [k / 4][row][k % 4], decoded
 *             once; 4 activations broadcast to all lanes meet it.
 *   streaming One token. What is streamed is the type's own business: legacy_avx512.c,
 *             trellis_avx512.c.
 *
 * Either way the 32 products of a block are added up exactly, then the blocks of INT8_PART weights
 * in order by f32 multiply-adds, then those parts in order: every element of dst has the same bits
 * whatever the number of tokens in the call. */
#ifndef GGAUGE_INT8_AVX512_H
#define GGAUGE_INT8_AVX512_H

#include "qtype.h"
#include "simd_avx512.h"
#include "tmpl/gemm_tmpl.h"

#define INT8_ROWS 16      /* of a panel */
#define INT8_TOKENS 6     /* of a tile: with 2 panels, 12 sums of integers and 12 of floats */
#define INT8_TILES 2      /* decoded at a time: 80 or 320 KiB of the second level cache */
#define INT8_FEW_TOKENS 16
#define INT8_PART 1024
/* Weights decoded at a time: many tokens want their activations to stay in the first level cache,
 * few want rows to be read as far as they go. */
#define INT8_K_MANY INT8_PART
#define INT8_K_FEW 4096
#define INT8_K_ONE 16384 /* and one token, whose activations a stream may repeat */
/* Largest seen of a row, n up to 28672: 2.6e-13, from adding in f32. */
#define INT8_TOL_NMSE 1e-12

/* 16 rows x 32 weights. */
struct int8_panel {
    uint8_t q[8][16][4]; // [k / 4][row][k % 4]
    float d[16], m[16];  /* m only if the type has minimums */
};

/* A tile of tokens, read where they lie but for the scales. */
struct int8_acts {
    const char *x; /* rows of q8_2_x4 */
    size_t stride;
    int64_t first; /* block, a multiple of 4 */
    float d[INT8_TOKENS][INT8_K_FEW / 32];
    float s[INT8_TOKENS][INT8_K_FEW / 32];       /* d * sum of q */
    int32_t start[INT8_TOKENS][INT8_K_FEW / 32]; /* - bias * sum of q */
};

/* One token's activations of a block of k, in the order that the type's stream wants, `times`
 * each. */
struct int8_stream {
    int8_t q[INT8_K_ONE];
    float d[INT8_K_ONE / 32];
    float s[INT8_K_ONE / 32];
    int32_t start[INT8_K_ONE / 32];
    bool has_lowest; /* set by trellis types: a byte of q is -128, whose negative is none */
};

/* 16 rows that are read where they lie. */
struct int8_rows {
    const char *row[INT8_ROWS];
    int64_t k0; /* first weight */
};

/* n_tok <= INT8_TOKENS tokens. */
void int8_fill_acts_avx512(int bias, const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                           int64_t k0, int64_t nk, struct int8_acts *acts);
/* One or two panels, as out.n_rows asks for, by a tile of tokens; the second one lies nk / 32
 * structs behind the first. */
void int8_tile_avx512(bool has_min, const void *panel, const void *acts, int64_t nk,
                      struct gemm_out out);

static inline void int8_point_at_rows(const char *const *row, int64_t k0, int64_t nk, void *panel) {
    struct int8_rows *p = panel;
    (void)nk;
    memcpy(p->row, row, sizeof p->row);
    p->k0 = k0;
}

/* Scales, sums and starting values of blocks b .. b + count - 1 of one token, b a multiple of 4. */
ALWAYS_INLINE void int8_fill_blocks(int bias, const char *x, int64_t b, int count, int64_t n_blocks,
                                    float *d, float *s, int32_t *start) {
    if (LIKELY(count == 4)) {
        const struct blk_q8_2_x4 *g = (const struct blk_q8_2_x4 *)x + b / 4;
        const __m128i scales = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)g->d));
        const __m128i sums = _mm_cvtepi16_epi32(_mm_loadl_epi64((const __m128i *)g->s));
        const __m128 f = _mm_castsi128_ps(_mm_slli_epi32(scales, 16));
        _mm_storeu_ps(d, f);
        _mm_storeu_ps(s, _mm_mul_ps(f, _mm_cvtepi32_ps(sums)));
        _mm_storeu_si128((__m128i *)start, _mm_mullo_epi32(sums, _mm_set1_epi32(-bias)));
        return;
    }
    for (int j = 0; j < count; j++) {
        const struct q8_2_view v = q8_2_x4_block(x, b + j, n_blocks);
        d[j] = bf16_to_f32(v.d);
        s[j] = d[j] * (float)v.s;
        start[j] = -bias * v.s;
    }
}

/* Scales, sums and starting values of one token; q is left to the caller. */
ALWAYS_INLINE void int8_fill_stream(int bias, const char *x, int64_t n, int64_t k0, int64_t nk,
                                    struct int8_stream *a) {
    for (int64_t b = 0; b < nk / 32; b += 4)
        int8_fill_blocks(bias, x, k0 / 32 + b, (int)gemm_min(nk / 32 - b, 4), n / 32, a->d + b,
                         a->s + b, a->start + b);
}

/* 16 rows of one token. */
ALWAYS_INLINE void int8_store(__m512 sum, float *dst, int64_t n_rows, bool add) {
    const __mmask16 lanes = first_lanes(n_rows);
    sum = _mm512_add_ps(_mm512_maskz_loadu_ps(add ? lanes : 0, dst), sum);
    _mm512_mask_storeu_ps(dst, lanes, sum);
}

/* Fetches the 16 rows behind 16 others while those are used, a chunk of a row with every step, into
 * the second level: the first is full of what is in use. Behind the last row it is a hint that does
 * no harm.
 *
 *   in order of memory   lets the processor's own prefetcher join in, which does not foresee 16
 *                        short streams at once; a line then occupies one of the core's few line
 *                        buffers for as long as the second level takes, not memory. 4 rows further
 *                        ahead, since the last row's first chunk is wanted as soon as the first
 *                        row's.
 *   in order of use      IQ4_KT, whose arithmetic takes longer than its memory, is 3 % faster
 *                        so. */
struct int8_ahead {
    uintptr_t p;
    int64_t chunk;          /* bytes of a step */
    int64_t step, to_next;  /* from one to the next; and after n of them */
    int64_t left, n;
};

#define INT8_LEAD 4 /* rows */

/* n chunks of each row, from byte `offset` on. */
ALWAYS_INLINE struct int8_ahead int8_ahead_of(const char *const row[INT8_ROWS], int64_t offset,
                                              int64_t chunk, int64_t n, bool in_order_of_use) {
    const int64_t stride = row[1] - row[0];
    const uintptr_t at = (uintptr_t)row[0] + (uintptr_t)(INT8_ROWS * stride + offset);
    if (in_order_of_use)
        return (struct int8_ahead){ at,        chunk,     stride, chunk - (INT8_ROWS - 1) * stride,
                                    INT8_ROWS, INT8_ROWS };
    return (struct int8_ahead){ at + (uintptr_t)(INT8_LEAD * stride), chunk, chunk,
                                stride - (n - 1) * chunk, n, n };
}

ALWAYS_INLINE void int8_fetch(struct int8_ahead *a) {
    for (int64_t i = 0; i < a->chunk; i += 64)
        _mm_prefetch((const void *)(a->p + (uintptr_t)i), _MM_HINT_T1);
    const bool last = --a->left == 0;
    a->p += (uintptr_t)(last ? a->to_next : a->step);
    if (last) a->left = a->n;
}

static inline size_t int8_scratch(int64_t n) {
    (void)n;
    return 2 * INT8_TILES * (INT8_K_FEW / 32) * sizeof(struct int8_panel) +
           sizeof(struct int8_acts) + sizeof(struct int8_stream);
}

/* FN: the product of one token by `ACTS` and `TILE`, which are those of struct gemm. */
#define INT8_ONE(FN, ACTS, TILE, TIMES)                                                            \
    static NOINLINE void FN(int64_t n, const void *w, size_t w_stride, int64_t n_rows,             \
                            const void *x, size_t x_stride, float *dst, void *scratch) {           \
        static const struct gemm g = { .rows = INT8_ROWS,                                          \
                                       .tokens = 1,                                                \
                                       .k_block = INT8_K_ONE / (TIMES),                            \
                                       .n_panels = 2 * INT8_TILES,                                 \
                                       .panel_bytes = sizeof(struct int8_rows),                    \
                                       .panel = int8_point_at_rows,                                \
                                       .acts = ACTS,                                               \
                                       .tile = TILE };                                             \
        gemm_run(&g, n, w, w_stride, n_rows, x, x_stride, 1, dst, 0, scratch);                     \
    }

/* The cell of type NAME from NAME_panel, NAME_stream and NAME_stream_tile, which are the `panel`,
 * `acts` and `tile` of struct gemm for panels and for one token's stream. */
#define INT8_CELL(NAME, BIAS, HAS_MIN, TIMES, ...)                                                 \
    static void NAME##_acts(const char *x, size_t x_stride, int64_t n_tok, int64_t n, int64_t k0,  \
                            int64_t nk, void *acts) {                                              \
        int8_fill_acts_avx512(BIAS, x, x_stride, n_tok, n, k0, nk, acts);                          \
    }                                                                                              \
    static void NAME##_tile(const void *panel, const void *acts, int64_t nk,                       \
                            struct gemm_out out) {                                                 \
        int8_tile_avx512(HAS_MIN, panel, acts, nk, out);                                           \
    }                                                                                              \
    /* The second of two panels is left out if its rows only repeat the last one. */               \
    static void NAME##_two_panels(const char *const *row, int64_t k0, int64_t nk, void *panel) {   \
        NAME##_panel(row, k0, nk, panel);                                                          \
        if (row[INT8_ROWS] != row[INT8_ROWS - 1])                                                  \
            NAME##_panel(row + INT8_ROWS, k0, nk, (struct int8_panel *)panel + nk / 32);           \
    }                                                                                              \
    static NOINLINE void NAME##_many(int64_t k_block, int64_t n, const void *w, size_t w_stride,   \
                                     int64_t n_rows, const void *x, size_t x_stride,               \
                                     int64_t n_tok, float *dst, int64_t dst_stride,                \
                                     void *scratch) {                                              \
        const struct gemm g = { .rows = 2 * INT8_ROWS,                                             \
                                .tokens = INT8_TOKENS,                                             \
                                .k_block = k_block,                                                \
                                .n_panels = INT8_TILES,                                            \
                                .panel_bytes = (size_t)k_block / 16 * sizeof(struct int8_panel),   \
                                .panel = NAME##_two_panels,                                        \
                                .acts = NAME##_acts,                                               \
                                .tile = NAME##_tile };                                             \
        gemm_run(&g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);        \
    }                                                                                              \
    INT8_ONE(NAME##_one, NAME##_stream, NAME##_stream_tile, TIMES)                                 \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        if (n_tok == 1)                                                                            \
            NAME##_one(n, w, w_stride, n_rows, x, x_stride, dst, scratch);                         \
        else                                                                                       \
            NAME##_many(n_tok <= INT8_FEW_TOKENS ? INT8_K_FEW : INT8_K_MANY, n, w, w_stride,       \
                        n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);                     \
    }                                                                                              \
    const struct qkernel NAME##_avx512 = { .act = QT_q8_2_x4,                                      \
                                           .tol_nmse = INT8_TOL_NMSE,                              \
                                           .mul_mat = NAME##_mul_mat,                              \
                                           .mul_mat_scratch = int8_scratch,                        \
                                           __VA_ARGS__ }

#endif
