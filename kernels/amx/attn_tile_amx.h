/* SPDX-License-Identifier: MIT
 * attn_tile_amx.h - the arithmetic of attention on bf16 tiles: the cache as tiles, scores, weights,
 * weighted sums.
 *
 * A bf16 has 8 significant bits and an f16 of the cache 11, so every number x is split into
 * hi = bf16(x) and lo = bf16(x - hi), together 16 bits or more (f16 exactly), and a product is
 * hi * hi + hi * lo + lo * hi. What is dropped, lo * lo, is below 2^-16 of a product. hi of the
 * cache is cut off, which is two instructions for 32 numbers, hi of q and of the weights is
 * rounded, so that lo has no sign of its own and the dropped part no bias. (q and weights of 8 bits
 * would need two products instead of three. But models with large scores lose their precision with
 * it: 0.1 of a logit in one of random weights.)
 *
 * Tiles, 16 rows of 64 bytes each. A dword holds two numbers that meet in one step of a dot
 * product:
 *   k  A  row = cell, dword j = elements (32 b + j, 32 b + j + 16)
 *   q  B  column = query row, row j = the same elements
 *   s  C  row = cell, column = query row: maxima and sums over cells need no step across lanes
 *   p  B  column = query row, row j = weights of cells (32 c + j, 32 c + j + 16); lies where the
 *         two tiles of scores lay that it was made from
 *   v  A  row = element, dword j = the same cells
 *   o  C  row = element, column = query row
 * Wherever a hi tile lies, its lo tile follows.
 *
 * Each score and each sum is a chain of tile steps over its own row and column only, in one order
 * everywhere, so its bits do not depend on what else is in the tiles; cells that a row does not see
 * get weight zero. Tiles take numbers below 2^-126 for zero. Source: Intel ISA extensions
 * reference, TDPBF16PS. */
#ifndef GGAUGE_ATTN_TILE_AMX_H
#define GGAUGE_ATTN_TILE_AMX_H

#include "amx/simd_amx.h"
#include "amx/tile_amx.h"
#include "avx512/attn_avx512.h"

#define TILE_DIM 16      /* rows of a tile, f32 columns */
#define PAIR_BYTES (2 * TILE_BYTES) /* a hi tile and its lo tile */
#define STEP_CELLS 32    /* cells that meet in one tile step of a weighted sum */
#define CELLS_AHEAD 64   /* cells fetched ahead while the cache becomes tiles */

/* x and y as bf16 in the halves of dwords, and what is left of both; each rounded or cut off. */
ALWAYS_INLINE void split_pair(bool round_hi, bool round_lo, __m512 x, __m512 y, __m512i *hi,
                              __m512i *lo) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512i a = _mm512_castps_si512(x), b = _mm512_castps_si512(y);
    if (round_hi) a = _mm512_add_epi32(a, half), b = _mm512_add_epi32(b, half);
    a = _mm512_and_si512(a, high), b = _mm512_and_si512(b, high);
    *hi = _mm512_or_si512(_mm512_srli_epi32(a, 16), b);
    __m512i c = _mm512_castps_si512(_mm512_sub_ps(x, _mm512_castsi512_ps(a)));
    __m512i d = _mm512_castps_si512(_mm512_sub_ps(y, _mm512_castsi512_ps(b)));
    if (round_lo) c = _mm512_add_epi32(c, half), d = _mm512_add_epi32(d, half);
    *lo = _mm512_ternarylogic_epi32(_mm512_srli_epi32(c, 16), d, high, 0xf8); /* c | (d & high) */
}

/* n <= 16 cells from `row` on as k tiles [n_blocks], missing cells are zeros. whole: there are 16,
 * and hd is a multiple of 32. */
ALWAYS_INLINE void k_tile_of(enum qtype type, bool whole, const struct attn_side *k,
                             const char *row, int64_t n, int64_t n_blocks, char *tiles) {
    size_t stride = k->t->row_bytes;
    for (int64_t c = 0; c < TILE_DIM; c++, row += stride, tiles += 64) {
        attn_fetch(row, k->head_bytes, stride, CELLS_AHEAD);
        char *to = tiles;
        for (int64_t b = 0; b < n_blocks; b++, to += PAIR_BYTES) {
            int64_t left = whole ? 32 : c < n ? k->hd - 32 * b : 0;
            __m512i hi, lo;
            split_pair(false, type != QT_f16, load16_cache(type, row, 32 * b, lanes16(left)),
                       load16_cache(type, row, 32 * b + 16, lanes16(left - 16)), &hi, &lo);
            _mm512_store_si512(to, hi);
            _mm512_store_si512(to + TILE_BYTES, lo);
        }
    }
}

/* 16 x 16 dwords as a tile, rows and columns exchanged. */
ALWAYS_INLINE void store_transposed(__m512i x[16], char *tile) {
    transpose16x16(x);
    UNROLL for (int j = 0; j < 16; j++) _mm512_store_si512(tile + 64 * j, x[j]);
}

/* n <= STEP_CELLS cells from `row` on as v tiles of n_blocks blocks of 16 elements from block b0
 * on; missing cells are zeros. whole: there are STEP_CELLS, and hd is a multiple of 16. */
ALWAYS_INLINE void v_tiles_of(enum qtype type, bool whole, const struct attn_side *v,
                              const char *row, int64_t n, int64_t b0, int64_t n_blocks,
                              char *tiles) {
    size_t stride = v->t->row_bytes, other = TILE_DIM * stride;
    for (int64_t j = 0; b0 == 0 && j < STEP_CELLS; j++)
        attn_fetch(row + (size_t)j * stride, v->head_bytes, stride, CELLS_AHEAD);
    for (int64_t d = b0 * TILE_DIM; d < (b0 + n_blocks) * TILE_DIM; d += 16, tiles += PAIR_BYTES) {
        const __mmask16 m = whole ? 0xffff : lanes16(v->hd - d);
        const char *at = row;
        __m512i hi[16], lo[16];
        UNROLL for (int64_t j = 0; j < TILE_DIM; j++, at += stride)
            split_pair(false, type != QT_f16, load16_cache(type, at, d, whole || j < n ? m : 0),
                       load16_cache(type, at + other, d, whole || j + TILE_DIM < n ? m : 0), &hi[j],
                       &lo[j]);
        store_transposed(hi, tiles);
        store_transposed(lo, tiles + TILE_BYTES);
    }
}

#define FOR_TYPE(type, whole, f, ...)                                                              \
    do {                                                                                           \
        if (whole)                                                                                 \
            f(type, true, __VA_ARGS__);                                                            \
        else                                                                                       \
            f(type, false, __VA_ARGS__);                                                           \
    } while (0)
#define BY_TYPE(t, whole, f, ...)                                                                  \
    switch (t) {                                                                                   \
    case QT_f32: FOR_TYPE(QT_f32, whole, f, __VA_ARGS__); break;                                   \
    case QT_f16: FOR_TYPE(QT_f16, whole, f, __VA_ARGS__); break;                                   \
    default: FOR_TYPE(QT_q8_0, whole, f, __VA_ARGS__); break;                                      \
    }

/* Both for any type and number of cells; k tiles are [n / 16 rounded up, pad / 32]. Scores of a
 * tile behind them, which may be anything, are of cells that no row sees. */
static void k_tiles(const struct attn_side *k, const char *row, int64_t n, char *tiles) {
    int64_t n_blocks = k->pad / 32;
    for (; n > 0; n -= TILE_DIM, row += TILE_DIM * k->t->row_bytes) {
        bool whole = n >= TILE_DIM && k->hd == k->pad;
        BY_TYPE(k->t->type, whole, k_tile_of, k, row, n, n_blocks, tiles)
        tiles += n_blocks * PAIR_BYTES;
    }
}

static void v_tiles(const struct attn_side *v, const char *row, int64_t n, int64_t b0,
                    int64_t n_blocks, char *tiles) {
    bool whole = n >= STEP_CELLS && v->hd == v->pad;
    BY_TYPE(v->t->type, whole, v_tiles_of, v, row, n, b0, n_blocks, tiles)
}
#undef BY_TYPE
#undef FOR_TYPE

/* q tiles [pad / 32] of n <= 16 query rows x[r] [hd], scaled; missing rows are zeros. */
static void q_tiles(const float *const *x, int64_t n, int64_t hd, int64_t pad, float scale,
                    char *tiles) {
    const __m512 s = _mm512_set1_ps(scale);
    for (int64_t b = 0; b < pad / 32; b++, tiles += PAIR_BYTES) {
        __m512i hi[16], lo[16];
        UNROLL for (int64_t r = 0; r < 16; r++) {
            const float *y = x[r < n ? r : 0] + 32 * b;
            int64_t left = r < n ? hd - 32 * b : 0;
            const __m512 lower = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes16(left), y), s);
            const __m512 upper =
                _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes16(left - 16), y + 16), s);
            split_pair(true, true, canonical_nan(lower), canonical_nan(upper), &hi[r], &lo[r]);
        }
        store_transposed(hi, tiles);
        store_transposed(lo, tiles + TILE_BYTES);
    }
}

/* Scores of 16 query rows with n_tiles <= 4 tiles of cells: q tiles [n_blocks], k tiles
 * [n_tiles, n_blocks], s tiles one behind the other. */
static inline void score_one(const char *k, const char *q, int64_t n_blocks, int64_t n_tiles,
                             char *s) {
    size_t next = (size_t)n_blocks * PAIR_BYTES;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int64_t b = 0; b < n_blocks; b++, k += PAIR_BYTES, q += PAIR_BYTES) {
        TILE_LOAD(4, q, 64);
        TILE_LOAD(5, q + TILE_BYTES, 64);
#define CELLS(acc, i)                                                                              \
    if (i < n_tiles) {                                                                             \
        TILE_LOAD(6, k + i * next, 64);                                                            \
        TILE_PRODUCT(acc, 6, 5);                                                                   \
        TILE_PRODUCT(acc, 6, 4);                                                                   \
        TILE_LOAD(7, k + i * next + TILE_BYTES, 64);                                               \
        TILE_PRODUCT(acc, 7, 4);                                                                   \
    }
        CELLS(0, 0)
        CELLS(1, 1)
        CELLS(2, 2)
        CELLS(3, 3)
#undef CELLS
    }
    TILE_STORE(0, s, 64);
    if (n_tiles > 1) TILE_STORE(1, s + TILE_BYTES, 64);
    if (n_tiles > 2) TILE_STORE(2, s + 2 * TILE_BYTES, 64);
    if (n_tiles > 3) TILE_STORE(3, s + 3 * TILE_BYTES, 64);
}

/* Largest score of each of 16 rows over cells [c, n), no smaller than top; scores that a row does
 * not see become -inf. seen: cells that each row sees, in all rows from `common` on at least. A NaN
 * is skipped. */
static inline __m512 score_max(char *s, int64_t c, int64_t n, __m512i seen, int64_t common,
                               __m512 top) {
    __m512 m0 = top, m1 = top;
    float *x = (float *)s + TILE_DIM * c;
    for (; c + 2 <= common && c < n; c += 2, x += 32) {
        m0 = _mm512_max_ps(_mm512_load_ps(x), m0);
        m1 = _mm512_max_ps(_mm512_load_ps(x + 16), m1);
    }
    for (; c < n; c++, x += 16) {
        __mmask16 see = _mm512_cmpgt_epi32_mask(seen, _mm512_set1_epi32((int)c));
        __m512 y = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), see, _mm512_load_ps(x));
        _mm512_store_ps(x, y);
        m0 = _mm512_max_ps(y, m0);
    }
    return _mm512_max_ps(m1, m0);
}

/* -inf, of a row without a score, counts as 0, so that its weights are 0. */
ALWAYS_INLINE __m512 finite_max(__m512 max) {
    __mmask16 none = _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(max, none, _mm512_setzero_ps());
}

/* Sums of the weights of 16 rows: four chains, cells c % 4, over the steps, in a step by c % 16 and
 * then c, added up pairwise at the end. */
struct sums {
    __m512 chain[4];
};

static inline __m512 sums_total(const struct sums *s) {
    return _mm512_add_ps(_mm512_add_ps(s->chain[0], s->chain[1]),
                         _mm512_add_ps(s->chain[2], s->chain[3]));
}

/* 2^t to 2.9e-6 (Remez): two parts of a weight keep 2^-17 of it. */
ALWAYS_INLINE __m512 exp2_weight(__m512 t) {
    static const float c[] = { 0x1.b7f730p-7f, 0x1.abf868p-5f, 0x1.ee2450p-3f, 0x1.62d6c6p-1f };
    return exp2_by(t, c, 4);
}

/* Scores of cells j and j + 16 of a step become weights 2^(s - max), row j of a pair of p tiles, in
 * the place of row j of both tiles of scores, which begin at s. max is finite. */
ALWAYS_INLINE void weigh_row(char *s, int64_t j, __m512 max, __m512 *sum) {
    const float *x = (const float *)s + TILE_DIM * j;
    const __m512 a = exp2_weight(_mm512_sub_ps(_mm512_load_ps(x), max));
    const __m512 b = exp2_weight(_mm512_sub_ps(_mm512_load_ps(x + TILE_DIM * TILE_DIM), max));
    __m512i hi, lo;
    *sum = _mm512_add_ps(_mm512_add_ps(*sum, a), b);
    split_pair(true, false, a, b, &hi, &lo);
    _mm512_store_si512(s + 64 * j, hi);
    _mm512_store_si512(s + TILE_BYTES + 64 * j, lo);
}

#define HALF_ROWS 8 /* of both tiles of scores: half of a step */
#define HALF_BYTES (HALF_ROWS * 64)

static NOINLINE void weigh_half(char *s, const __m512 *max, struct sums *sums) {
    struct sums all = *sums;
    UNROLL for (int j = 0; j < HALF_ROWS; j++) weigh_row(s, j, *max, &all.chain[j % 4]);
    *sums = all;
}

/* What vectors do while tiles are multiplied, a little after each product, for a core does not look
 * further ahead than about a dozen tiles: the weights of a half, and the maximum of 32 cells'
 * scores. */
struct beside {
    char *half; /* NULL: none */
    const __m512 *max;
    struct sums *sums;
    const float *scores; /* NULL: none */
    __m512 *top;
};

/* After product i of 12. */
ALWAYS_INLINE void beside_product(const struct beside *w, bool weigh, bool scan, int i,
                                  struct sums *sums, __m512 top[2]) {
    if (weigh && i % 3 != 0) {
        const int j = i / 3 * 2 + i % 3 - 1;
        COMPILER_BARRIER();
        weigh_row(w->half, j, *w->max, &sums->chain[j % 4]);
        COMPILER_BARRIER();
    }
    if (!scan) return;
    UNROLL for (int n = 0; n < 3; n++) {
        const int j = 3 * i + n;
        if (j < 32)
            top[j % 2] = _mm512_max_ps(_mm512_load_ps(w->scores + TILE_DIM * j), top[j % 2]);
    }
    COMPILER_BARRIER();
}

/* The three products of hi and lo tiles for two row tiles, at a0 and a1, and two column tiles, at
 * b0 and b1: hi with lo, hi with hi, lo with hi. Sums: 0 and 1 of b0, 2 and 3 of b1. A tile is
 * loaded right before its first product, for a core has room for about a dozen tiles that are on
 * the way. */
ALWAYS_INLINE void products_beside(const char *a0, const char *a1, const char *b0, const char *b1,
                                   const struct beside *w, bool weigh, bool scan) {
    struct sums sums;
    __m512 top[2];
    if (weigh) sums = *w->sums;
    if (scan) top[0] = top[1] = *w->top;
#define PRODUCT(i, sum, a, b)                                                                      \
    TILE_PRODUCT(sum, a, b);                                                                       \
    beside_product(w, weigh, scan, i, &sums, top)
    TILE_LOAD_ONCE(4, a0, 64); /* k and v leave the first level cache to scores and weights */
    TILE_LOAD(6, b0 + TILE_BYTES, 64);
    PRODUCT(0, 0, 4, 6);
    TILE_LOAD_ONCE(5, a1, 64);
    PRODUCT(1, 1, 5, 6);
    TILE_LOAD(7, b1 + TILE_BYTES, 64);
    PRODUCT(2, 3, 5, 7);
    PRODUCT(3, 2, 4, 7);
    TILE_LOAD(6, b0, 64);
    PRODUCT(4, 0, 4, 6);
    PRODUCT(5, 1, 5, 6);
    TILE_LOAD(7, b1, 64);
    PRODUCT(6, 3, 5, 7);
    PRODUCT(7, 2, 4, 7);
    TILE_LOAD_ONCE(4, a0 + TILE_BYTES, 64);
    PRODUCT(8, 0, 4, 6);
    PRODUCT(9, 2, 4, 7);
    TILE_LOAD_ONCE(5, a1 + TILE_BYTES, 64);
    PRODUCT(10, 3, 5, 7);
    PRODUCT(11, 1, 5, 6);
#undef PRODUCT
    if (weigh) *w->sums = sums;
    if (scan) *w->top = _mm512_max_ps(top[0], top[1]);
}

static inline void products_two(const char *a0, const char *a1, const char *b0, const char *b1,
                                const struct beside *w) {
    if (w->half && w->scores)
        products_beside(a0, a1, b0, b1, w, true, true);
    else if (w->half)
        products_beside(a0, a1, b0, b1, w, true, false);
    else if (w->scores)
        products_beside(a0, a1, b0, b1, w, false, true);
    else
        products_beside(a0, a1, b0, b1, w, false, false);
}

/* o tiles in registers 0 .. n_blocks - 1 += v tiles [n_blocks] * p, a step. */
static inline void sum_step_one(const char *p, const char *v, int64_t n_blocks) {
    TILE_LOAD(4, p, 64);
    TILE_LOAD(5, p + TILE_BYTES, 64);
#define BLOCK(acc, i)                                                                              \
    if (i < n_blocks) {                                                                            \
        TILE_LOAD(6, v + i * PAIR_BYTES, 64);                                                      \
        TILE_PRODUCT(acc, 6, 5);                                                                   \
        TILE_PRODUCT(acc, 6, 4);                                                                   \
        TILE_LOAD(7, v + i * PAIR_BYTES + TILE_BYTES, 64);                                         \
        TILE_PRODUCT(acc, 7, 4);                                                                   \
    }
    BLOCK(0, 0)
    BLOCK(1, 1)
    BLOCK(2, 2)
    BLOCK(3, 3)
#undef BLOCK
}

/* An o tile of 16 elements as rows of 16, `stride` floats apart. */
static inline void store_sums(const char *tile, float *acc, int64_t stride) {
    __m512i x[16];
    UNROLL for (int j = 0; j < 16; j++) x[j] = _mm512_load_si512(tile + 64 * j);
    transpose16x16(x);
    UNROLL for (int j = 0; j < 16; j++) _mm512_store_si512(acc + j * stride, x[j]);
}

#endif
