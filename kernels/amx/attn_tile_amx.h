/* SPDX-License-Identifier: MIT
 * attn_tile_amx.h - the arithmetic of attention on bf16 tiles: the cache as tiles, scores, weights,
 * weighted sums.
 *
 * A bf16 has 8 significant bits and an f16 of the cache 11, so every number x is split into
 * hi = bf16(x) and lo = bf16(x - hi), together 16 bits or more (f16 exactly), and a product is
 * hi * hi + hi * lo + lo * hi. What is dropped, lo * lo, is below 2^-16 of a product. hi of the
 * cache is cut off, which is two instructions for 32 numbers, hi of q and of the weights is
 * rounded, so that lo has no sign of its own and the dropped part no bias.
 *
 * Tiles, 16 rows of 64 bytes each. A dword holds two numbers that meet in one step of a dot product:
 *   k  A  row = cell, dword j = elements (32 b + j, 32 b + j + 16)
 *   q  B  column = query row, row j = the same elements
 *   s  C  row = cell, column = query row: maxima and sums over cells need no step across lanes
 *   p  A  row = query row, dword j = weights of cells (32 c + j, 32 c + j + 16); lies where the two
 *         tiles of scores lay that it was made from
 *   v  B  row j = the same cells, column = element
 * Wherever a hi tile lies, its lo tile follows.
 *
 * Each score and each sum is a chain of tile steps over its own row and column only, in one order
 * everywhere, so its bits do not depend on what else is in the tiles; cells that a row does not see
 * get weight zero. Tiles take numbers below 2^-126 for zero. Source: Intel ISA extensions reference,
 * TDPBF16PS. */
#ifndef GGAUGE_ATTN_TILE_AMX_H
#define GGAUGE_ATTN_TILE_AMX_H

#include "avx512/attn_avx512.h"

#define TILE_DIM 16      /* rows of a tile, f32 columns */
#define TILE_BYTES 1024
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

/* n <= 16 cells from `row` on as k tiles [n_blocks], missing cells are zeros. whole: there are 16, and
 * hd is a multiple of 32. */
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

/* n <= STEP_CELLS cells from `row` on as v tiles of n_blocks blocks of 16 elements from block b0 on;
 * missing cells are zeros. whole: there are STEP_CELLS, and hd is a multiple of 16. */
ALWAYS_INLINE void v_tiles_of(enum qtype type, bool whole, const struct attn_side *v,
                              const char *row, int64_t n, int64_t b0, int64_t n_blocks,
                              char *tiles) {
    size_t stride = v->t->row_bytes, other = TILE_DIM * stride;
    for (int64_t j = 0; j < TILE_DIM; j++, row += stride, tiles += 64) {
        if (b0 == 0) attn_fetch(row, v->head_bytes, stride, CELLS_AHEAD);
        if (b0 == 0) attn_fetch(row + other, v->head_bytes, stride, CELLS_AHEAD);
        char *to = tiles;
        for (int64_t d = b0 * TILE_DIM; d < (b0 + n_blocks) * TILE_DIM; d += 16, to += PAIR_BYTES) {
            __mmask16 m = whole ? 0xffff : lanes16(v->hd - d);
            __m512i hi, lo;
            split_pair(false, type != QT_f16, load16_cache(type, row, d, whole || j < n ? m : 0),
                       load16_cache(type, row + other, d, whole || j + TILE_DIM < n ? m : 0), &hi,
                       &lo);
            _mm512_store_si512(to, hi);
            _mm512_store_si512(to + TILE_BYTES, lo);
        }
    }
}

/* Both for any type and number of cells; k tiles are [n / 16 rounded up, pad / 32]. */
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
            split_pair(true, true, _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes16(left), y), s),
                       _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes16(left - 16), y + 16), s), &hi[r],
                       &lo[r]);
        }
        transpose16x16(hi);
        transpose16x16(lo);
        UNROLL for (int r = 0; r < 16; r++) {
            _mm512_store_si512(tiles + 64 * r, hi[r]);
            _mm512_store_si512(tiles + TILE_BYTES + 64 * r, lo[r]);
        }
    }
}

/* Scores of 16 query rows with n_cells / 16 <= 4 tiles of cells: q and k tiles [.., n_blocks], s
 * tiles one behind the other. */
static inline void score_one(const char *k, const char *q, int64_t n_blocks, int64_t n_tiles,
                             char *s) {
    size_t next = (size_t)n_blocks * PAIR_BYTES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t b = 0; b < n_blocks; b++, k += PAIR_BYTES, q += PAIR_BYTES) {
        _tile_loadd(4, q, 64);
        _tile_loadd(5, q + TILE_BYTES, 64);
#define CELLS(acc, i)                                                                              \
    if (i < n_tiles) {                                                                             \
        _tile_loadd(6, k + i * next, 64);                                                          \
        _tile_dpbf16ps(acc, 6, 5);                                                                 \
        _tile_dpbf16ps(acc, 6, 4);                                                                 \
        _tile_loadd(7, k + i * next + TILE_BYTES, 64);                                             \
        _tile_dpbf16ps(acc, 7, 4);                                                                 \
    }
        CELLS(0, 0)
        CELLS(1, 1)
        CELLS(2, 2)
        CELLS(3, 3)
#undef CELLS
    }
    _tile_stored(0, s, 64);
    if (n_tiles > 1) _tile_stored(1, s + TILE_BYTES, 64);
    if (n_tiles > 2) _tile_stored(2, s + 2 * TILE_BYTES, 64);
    if (n_tiles > 3) _tile_stored(3, s + 3 * TILE_BYTES, 64);
}

/* The same for 32 query rows and two tiles of cells; q1 and s1 are of the second 16 rows. Blocks
 * [b0, b1) of the n_blocks; the sums wait in tile registers until the last one is done. */
static inline void score_two(const char *k, const char *q0, const char *q1, int64_t n_blocks,
                             int64_t b0, int64_t b1, char *s0, char *s1) {
    size_t next = (size_t)n_blocks * PAIR_BYTES;
    if (b0 == 0) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    k += b0 * PAIR_BYTES, q0 += b0 * PAIR_BYTES, q1 += b0 * PAIR_BYTES;
    for (int64_t b = b0; b < b1; b++, k += PAIR_BYTES, q0 += PAIR_BYTES, q1 += PAIR_BYTES) {
#define PRODUCTS                                                                                   \
    _tile_dpbf16ps(0, 4, 6);                                                                       \
    _tile_dpbf16ps(1, 5, 6);                                                                       \
    _tile_dpbf16ps(2, 4, 7);                                                                       \
    _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, k, 64);
        _tile_loadd(5, k + next, 64);
        _tile_loadd(6, q0 + TILE_BYTES, 64);
        _tile_loadd(7, q1 + TILE_BYTES, 64);
        PRODUCTS
        _tile_loadd(6, q0, 64);
        _tile_loadd(7, q1, 64);
        PRODUCTS
        _tile_loadd(4, k + TILE_BYTES, 64);
        _tile_loadd(5, k + next + TILE_BYTES, 64);
        PRODUCTS
    }
#undef PRODUCTS
    if (b1 < n_blocks) return;
    _tile_stored(0, s0, 64);
    _tile_stored(1, s0 + TILE_BYTES, 64);
    _tile_stored(2, s1, 64);
    _tile_stored(3, s1 + TILE_BYTES, 64);
}

/* Largest score of each of 16 rows over n_steps steps; scores that a row does not see become -inf.
 * seen: cells that each row sees, in all rows from `common` on at least. A NaN is skipped. */
static inline __m512 score_max(char *s, int64_t n_steps, __m512i seen, int64_t common) {
    __m512 m0 = _mm512_set1_ps(-INFINITY), m1 = m0;
    int64_t n = n_steps * STEP_CELLS, c = 0;
    float *x = (float *)s;
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

/* Scores of a step become weights 2^(s - max), as a pair of p tiles. max is finite. */
static NOINLINE void weights_step(char *s, const __m512 *max, struct sums *sums) {
    const float *x = (const float *)s;
    const __m512 m = *max;
    __m512 sum[4];
    __m512i hi[16], lo[16];
    UNROLL for (int i = 0; i < 4; i++) sum[i] = sums->chain[i];
    UNROLL for (int j = 0; j < 16; j++) {
        __m512 a = exp2_f32x16(_mm512_sub_ps(_mm512_load_ps(x + 16 * j), m));
        __m512 b = exp2_f32x16(_mm512_sub_ps(_mm512_load_ps(x + 256 + 16 * j), m));
        sum[j % 4] = _mm512_add_ps(_mm512_add_ps(sum[j % 4], a), b);
        split_pair(true, false, a, b, &hi[j], &lo[j]);
    }
    UNROLL for (int i = 0; i < 4; i++) sums->chain[i] = sum[i];
    transpose16x16(hi);
    transpose16x16(lo);
    UNROLL for (int j = 0; j < 16; j++) {
        _mm512_store_si512(s + 64 * j, hi[j]);
        _mm512_store_si512(s + TILE_BYTES + 64 * j, lo[j]);
    }
}

/* ---- up to four rows: a register holds four cells of each, lane 4 (c % 4) + row --------------- */

#define FEW_ROWS 4

/* score_max for FEW_ROWS rows (lanes 0 .. 3 of `seen` and of the result); scores are packed into
 * [cells / 4, 16] at the front. */
static inline __m512 score_max_few(char *s, int64_t n_steps, __m512i seen) {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    seen = _mm512_shuffle_i32x4(seen, seen, 0);
    __m512 m = _mm512_set1_ps(-INFINITY);
    const float *x = (const float *)s;
    for (int64_t c = 0; c < n_steps * STEP_CELLS; c += 4, x += 64) {
        __m512i cell = _mm512_add_epi32(lane, _mm512_set1_epi32((int)c));
        __m512 y = _mm512_castps128_ps512(_mm_load_ps(x));
        y = _mm512_mask_broadcast_f32x4(y, 0x00f0, _mm_load_ps(x + 16));
        y = _mm512_mask_broadcast_f32x4(y, 0x0f00, _mm_load_ps(x + 32));
        y = _mm512_mask_broadcast_f32x4(y, 0xf000, _mm_load_ps(x + 48));
        __mmask16 see = _mm512_cmpgt_epi32_mask(seen, cell);
        y = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), see, y);
        _mm512_store_ps((float *)s + 4 * c, y);
        m = _mm512_max_ps(y, m);
    }
    m = _mm512_max_ps(m, _mm512_shuffle_f32x4(m, m, 0x4e));
    return _mm512_max_ps(m, _mm512_shuffle_f32x4(m, m, 0xb1));
}

/* Dwords [cell, row] of four registers become rows [cells] of four. */
ALWAYS_INLINE void rows_of_few(__m512i x[4]) {
    const __m512i swap = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    UNROLL for (int i = 0; i < 4; i++) x[i] = _mm512_permutexvar_epi32(swap, x[i]);
    __m512i a = _mm512_shuffle_i32x4(x[0], x[1], 0x44), b = _mm512_shuffle_i32x4(x[0], x[1], 0xee);
    __m512i c = _mm512_shuffle_i32x4(x[2], x[3], 0x44), d = _mm512_shuffle_i32x4(x[2], x[3], 0xee);
    x[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    x[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    x[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    x[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

/* weights for FEW_ROWS rows: packed scores [n_steps * 8, 16] become rows 0 .. 3 of p tiles, with
 * the same sums. Steps go from the last to the first, because tiles are larger than scores. */
static inline __m512 weights_few(char *s, int64_t n_steps, __m512 max) {
    max = finite_max(_mm512_shuffle_f32x4(max, max, 0));
    __m512 sum = _mm512_setzero_ps();
    float *x = (float *)s;
    for (int64_t i = 0; i < n_steps * STEP_CELLS / 4; i += 8)
        UNROLL for (int64_t j = 0; j < 4; j++) {
            __m512 a = exp2_f32x16(_mm512_sub_ps(_mm512_load_ps(x + 16 * (i + j)), max));
            __m512 b = exp2_f32x16(_mm512_sub_ps(_mm512_load_ps(x + 16 * (i + j + 4)), max));
            sum = _mm512_add_ps(_mm512_add_ps(sum, a), b);
            _mm512_store_ps(x + 16 * (i + j), a);
            _mm512_store_ps(x + 16 * (i + j + 4), b);
        }
    for (int64_t step = n_steps - 1; step >= 0; step--) {
        char *p = s + step * PAIR_BYTES;
        __m512i hi[4], lo[4];
        UNROLL for (int64_t j = 0; j < 4; j++) {
            const float *y = x + 16 * (8 * step + j);
            split_pair(true, false, _mm512_load_ps(y), _mm512_load_ps(y + 64), &hi[j], &lo[j]);
        }
        rows_of_few(hi);
        rows_of_few(lo);
        UNROLL for (int j = 0; j < 4; j++) {
            _mm512_store_si512(p + 64 * j, hi[j]);
            _mm512_store_si512(p + TILE_BYTES + 64 * j, lo[j]);
        }
    }
    __m512 t = _mm512_add_ps(sum, _mm512_shuffle_f32x4(sum, sum, 0xb1)); /* 0 + 1 and 2 + 3 */
    return _mm512_add_ps(t, _mm512_shuffle_f32x4(t, t, 0x4e));
}

/* acc [16, n_blocks * 16] += p (a step) * v tiles [n_blocks] in tile registers 0 .. n_blocks - 1. */
static inline void sum_step_one(const char *p, const char *v, int64_t n_blocks) {
    _tile_loadd(4, p, 64);
    _tile_loadd(5, p + TILE_BYTES, 64);
#define BLOCK(acc, i)                                                                              \
    if (i < n_blocks) {                                                                            \
        _tile_loadd(6, v + i * PAIR_BYTES, 64);                                                    \
        _tile_dpbf16ps(acc, 5, 6);                                                                 \
        _tile_dpbf16ps(acc, 4, 6);                                                                 \
        _tile_loadd(7, v + i * PAIR_BYTES + TILE_BYTES, 64);                                       \
        _tile_dpbf16ps(acc, 4, 7);                                                                 \
    }
    BLOCK(0, 0)
    BLOCK(1, 1)
    BLOCK(2, 2)
    BLOCK(3, 3)
#undef BLOCK
}

/* The same for 32 rows and one or two blocks: registers 0, 1 of the first rows, 2, 3 of the others.
 */
static inline void sum_step_two(const char *p0, const char *p1, const char *v, int64_t n_blocks) {
#define PRODUCTS_OF_ONE                                                                            \
    _tile_dpbf16ps(0, 4, 6);                                                                       \
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(4, p0 + TILE_BYTES, 64);
    _tile_loadd(5, p1 + TILE_BYTES, 64);
    _tile_loadd(6, v, 64);
    if (n_blocks == 1) {
        PRODUCTS_OF_ONE
        _tile_loadd(4, p0, 64);
        _tile_loadd(5, p1, 64);
        PRODUCTS_OF_ONE
        _tile_loadd(6, v + TILE_BYTES, 64);
        PRODUCTS_OF_ONE
        return;
    }
#undef PRODUCTS_OF_ONE
#define SUMS                                                                                       \
    _tile_dpbf16ps(0, 4, 6);                                                                       \
    _tile_dpbf16ps(1, 4, 7);                                                                       \
    _tile_dpbf16ps(2, 5, 6);                                                                       \
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(7, v + PAIR_BYTES, 64);
    SUMS
    _tile_loadd(4, p0, 64);
    _tile_loadd(5, p1, 64);
    SUMS
    _tile_loadd(6, v + TILE_BYTES, 64);
    _tile_loadd(7, v + PAIR_BYTES + TILE_BYTES, 64);
    SUMS
#undef SUMS
}

#endif
