/* SPDX-License-Identifier: MIT
 * attn_tile_avx512.h - the arithmetic of attention in f32 on one range of cells: scores, weights,
 * weighted sums.
 *
 * The bits of a row follow from its q and the cells that it sees, never from the rows beside it,
 * because every variant keeps this order:
 *   score   sixteen chains of fused multiply-adds, chain d % 16 over the elements of scaled q and k
 *           in order of d, added up as sum16 adds its lanes
 *   sum     sixteen lanes over the range, lane c % 16 in order of c, added up by sum16
 *   acc     a fused multiply-add per cell in order
 * Variants differ only in how many rows and cells are in registers at once and in where K and V are
 * read from. What a row does not see never meets it, not even with weight zero: it may be a NaN.
 * (Which of two NaNs is left where they meet is the one thing that may differ.) */
#ifndef GGAUGE_ATTN_TILE_AVX512_H
#define GGAUGE_ATTN_TILE_AVX512_H

#include "attn_avx512.h"

#define RANGE_CELLS 256
#define PANEL 32      /* cells of a panel of K: two registers */
#define BLOCK 6       /* rows of a register tile: 12 sums of a chain, 12 that wait, 2 loads,
                       * 1 broadcast */
#define CELLS_AHEAD 16 /* cells fetched ahead into the first level cache */

/* Lanes 0 .. 15 in order of a tree: 8 apart, 4, 2, 1. */
ALWAYS_INLINE float sum16(__m512 v) {
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
    __m128 s = _mm512_castps512_ps128(v);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* One step of sums16. Lanes of which bit `apart` (8, 4, 2 or 1) is clear: those of a and the ones
 * so far above them, added up; the others: those of b and the ones so far below them. */
ALWAYS_INLINE __m512 add_apart(int apart, __m512 a, __m512 b) {
    const __m512i four =
        _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    const __m512i one =
        _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
    switch (apart) {
    case 8:
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x4e), _mm512_mask_blend_ps(0xff00, a, b));
    case 4:
        return _mm512_add_ps(_mm512_permutex2var_ps(a, four, b),
                             _mm512_mask_blend_ps(0xf0f0, a, b));
    case 2: return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x4e), _mm512_mask_blend_ps(0xcccc, a, b));
    default:
        return _mm512_add_ps(_mm512_permutex2var_ps(a, one, b), _mm512_mask_blend_ps(0xaaaa, a, b));
    }
}

/* Lane i: sum16(v[i]). Half of the instructions of a transposition. v is used up. */
ALWAYS_INLINE __m512 sums16(__m512 v[16]) {
    UNROLL for (int i = 0; i < 8; i++) v[i] = add_apart(8, v[i], v[i + 8]);
    UNROLL for (int i = 0; i < 4; i++) v[i] = add_apart(4, v[i], v[i + 4]);
    UNROLL for (int i = 0; i < 2; i++) v[i] = add_apart(2, v[i], v[i + 2]);
    return add_apart(1, v[0], v[1]);
}

/* Where chain l stands if neighbours, then pairs of them and so on, are to be added up as sum16
 * does: its four bits turned round. */
ALWAYS_INLINE int64_t chain_place(int64_t l) {
    return (l & 1) << 3 | (l & 2) << 1 | (l & 4) >> 1 | (l & 8) >> 3;
}

/* What is fetched beside work on the cells at some x: into the first level cache what lies as far
 * from `soon` as a cell from x, into the second n_bytes a cell, one's after the other's from
 * `later` on. */
struct fetch {
    const char *soon, *later;
    size_t n_bytes;
};

/* ---- scores -------------------------------------------------------------------------------- */

/* s [n_rows, 16 / n_rows], row stride RANGE_CELLS, of q [n_rows, pad] and cells of the cache; of
 * the 16 / n_rows cells at x the last of n_cells stands for those that do not exist. whole: hd is a
 * multiple of 16. */
ALWAYS_INLINE void score_cells(enum qtype type, bool whole, int n_rows, const float *q,
                               const struct attn_side *k, const char *x,
                               struct fetch fetch, int64_t n_cells, float *s) {
    const int width = 16 / n_rows;
    const int64_t pad = k->pad, hd = k->hd;
    const size_t stride = k->t->row_bytes;
    const char *cell[16];
    __m512 acc[16];
    UNROLL for (int c = 0; c < width; c++)
        cell[c] = x + (size_t)(c < n_cells ? c : n_cells - 1) * stride;
    UNROLL for (int i = 0; i < 16; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t d = 0; d < pad; d += 16) {
        const __mmask16 m = whole ? 0xffff : lanes16(hd - d);
        __m512 w[4];
        UNROLL for (int r = 0; r < n_rows; r++) w[r] = _mm512_loadu_ps(q + r * pad + d);
        UNROLL for (int c = 0; c < width; c++) {
            if (d % 32 == 0)
                _mm_prefetch(fetch.soon + (size_t)c * stride + 2 * d, _MM_HINT_T0);
            else
                _mm_prefetch(fetch.later + (size_t)c * fetch.n_bytes + 2 * d - 32, _MM_HINT_T1);
            const __m512 y = load16_cache(type, cell[c], d, m);
            UNROLL for (int r = 0; r < n_rows; r++)
                acc[r * width + c] = _mm512_fmadd_ps(w[r], y, acc[r * width + c]);
        }
    }
    const __m512 sum = sums16(acc);
    if (n_rows == 1) {
        _mm512_storeu_ps(s, sum);
    } else if (n_rows == 2) {
        _mm256_storeu_ps(s, _mm512_castps512_ps256(sum));
        _mm256_storeu_ps(s + RANGE_CELLS, _mm512_extractf32x8_ps(sum, 1));
    } else {
        _mm_storeu_ps(s, _mm512_castps512_ps128(sum));
        _mm_storeu_ps(s + RANGE_CELLS, _mm512_extractf32x4_ps(sum, 1));
        _mm_storeu_ps(s + 2 * RANGE_CELLS, _mm512_extractf32x4_ps(sum, 2));
        _mm_storeu_ps(s + 3 * RANGE_CELLS, _mm512_extractf32x4_ps(sum, 3));
    }
}

ALWAYS_INLINE void score_direct_of(enum qtype type, bool whole, int n_rows, const float *q,
                                   const struct attn_side *k, const char *x, struct fetch fetch,
                                   int64_t n, float *s) {
    const int64_t width = 16 / n_rows;
    for (int64_t c = 0; c < n; c += width, x += (size_t)width * k->t->row_bytes) {
        score_cells(type, whole, n_rows, q, k, x, fetch, n - c, s + c);
        fetch.soon += (size_t)width * k->t->row_bytes;
        fetch.later += (size_t)width * fetch.n_bytes;
    }
}

/* s [n_rows, n], row stride RANGE_CELLS and up to 15 columns more, with K where it lies. q has room
 * for a multiple of four rows, and so has s. */
static void score_direct(int64_t n_rows, const float *q, const struct attn_side *k, const char *x,
                         struct fetch fetch, int64_t n, float *s) {
#define CASES(type)                                                                                \
    if (n_rows == 1)                                                                               \
        score_direct_of(type, false, 1, q, k, x, fetch, n, s);                                     \
    else if (n_rows == 2)                                                                          \
        score_direct_of(type, false, 2, q, k, x, fetch, n, s);                                     \
    else if (k->hd != k->pad)                                                                      \
        score_direct_of(type, false, 4, q, k, x, fetch, n, s);                                     \
    else                                                                                           \
        score_direct_of(type, true, 4, q, k, x, fetch, n, s);
    for (; n_rows > 0; n_rows -= 4, q += 4 * k->pad, s += 4 * RANGE_CELLS)
        switch ((enum qtype)k->t->type) {
        case QT_f32: CASES(QT_f32) break;
        case QT_f16: CASES(QT_f16) break;
        default: CASES(QT_q8_0) break;
        }
#undef CASES
}

/* n <= PANEL cells from `row` on as a panel [16, pad / 16, PANEL] of K: elements of a chain lie
 * together, chains in order of chain_place. Missing cells are zeros. */
ALWAYS_INLINE void k_panel_of(enum qtype type, const struct attn_side *k, const char *row,
                              int64_t n, float *panel) {
    const int64_t chain = k->pad / 16;
    for (int64_t c = 0; c < attn_round_up(n, 16); c += 16, row += 16 * k->t->row_bytes)
        for (int64_t i = 0; i < chain; i++) {
            __m512i x[16];
            UNROLL for (int64_t j = 0; j < 16; j++) {
                __mmask16 m = c + j < n ? lanes16(k->hd - 16 * i) : 0;
                x[j] = _mm512_castps_si512(
                    load16_cache(type, row + (size_t)j * k->t->row_bytes, 16 * i, m));
            }
            transpose16x16(x);
            UNROLL for (int64_t j = 0; j < 16; j++)
                _mm512_store_si512(panel + (chain_place(j) * chain + i) * PANEL + c, x[j]);
        }
}

static void k_panel(const struct attn_side *k, const char *row, int64_t n, float *panel) {
    switch ((enum qtype)k->t->type) {
    case QT_f32: k_panel_of(QT_f32, k, row, n, panel); break;
    case QT_f16: k_panel_of(QT_f16, k, row, n, panel); break;
    default: k_panel_of(QT_q8_0, k, row, n, panel); break;
    }
}

/* Sums of a block of rows and a panel's cells. */
struct block_sums {
    __m512 x[BLOCK][2];
};

/* One chain; q and k go on to the next. */
ALWAYS_INLINE void sum_chain(int n_rows, const float **q, const float **k, int64_t chain,
                             struct block_sums *to) {
    UNROLL for (int r = 0; r < n_rows; r++) to->x[r][0] = to->x[r][1] = _mm512_setzero_ps();
    for (int64_t i = 0; i < chain; i++, *q += n_rows, *k += PANEL) {
        const __m512 x = _mm512_load_ps(*k), y = _mm512_load_ps(*k + 16);
        UNROLL for (int r = 0; r < n_rows; r++) {
            const __m512 w = _mm512_set1_ps((*q)[r]);
            to->x[r][0] = _mm512_fmadd_ps(w, x, to->x[r][0]);
            to->x[r][1] = _mm512_fmadd_ps(w, y, to->x[r][1]);
        }
    }
}

ALWAYS_INLINE void add_sums(int n_rows, const struct block_sums *a, struct block_sums *to) {
    UNROLL for (int r = 0; r < n_rows; r++) {
        to->x[r][0] = _mm512_add_ps(a->x[r][0], to->x[r][0]);
        to->x[r][1] = _mm512_add_ps(a->x[r][1], to->x[r][1]);
    }
}

/* Two neighbours, then two pairs. */
ALWAYS_INLINE void sum_four_chains(int n_rows, const float **q, const float **k, int64_t chain,
                                   struct block_sums *to) {
    struct block_sums one, two, all;
    sum_chain(n_rows, q, k, chain, &one);
    sum_chain(n_rows, q, k, chain, &two);
    add_sums(n_rows, &one, &two);
    sum_chain(n_rows, q, k, chain, &one);
    sum_chain(n_rows, q, k, chain, &all);
    add_sums(n_rows, &one, &all);
    add_sums(n_rows, &two, &all);
    *to = all;
}

/* s [n_rows, PANEL], row stride RANGE_CELLS, of q [16, chain, n_rows] and a panel of K. */
ALWAYS_INLINE void score_block(int n_rows, const float *q, const float *k, int64_t chain,
                               float *s) {
    struct block_sums four[4];
    for (int i = 0; i < 4; i++)
        sum_four_chains(n_rows, &q, &k, chain, &four[i]);
    add_sums(n_rows, &four[0], &four[1]);
    add_sums(n_rows, &four[2], &four[3]);
    add_sums(n_rows, &four[1], &four[3]);
    UNROLL for (int r = 0; r < n_rows; r++) {
        _mm512_store_ps(s + r * RANGE_CELLS, four[3].x[r][0]);
        _mm512_store_ps(s + r * RANGE_CELLS + 16, four[3].x[r][1]);
    }
}

static void score_panel(int64_t n_rows, const float *q, const float *k, int64_t chain, float *s) {
    switch (n_rows) {
    case 1: score_block(1, q, k, chain, s); break;
    case 2: score_block(2, q, k, chain, s); break;
    case 3: score_block(3, q, k, chain, s); break;
    case 4: score_block(4, q, k, chain, s); break;
    case 5: score_block(5, q, k, chain, s); break;
    default: score_block(6, q, k, chain, s); break;
    }
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Scores s [n] become weights 2^(s - max), those up to a multiple of 16 zeros. max_ps(x, m) is m
 * where x is a NaN, so the maximum stays a number and the NaN goes on in its weight. */
static inline void softmax_row(float *s, int64_t n, float *max, float *sum) {
    __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        __m512 x = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes16(n - i), s + i);
        top = _mm512_max_ps(x, top);
    }
    *max = _mm512_reduce_max_ps(top);
    const __m512 m = _mm512_set1_ps(*max == -INFINITY ? 0 : *max);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 x = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes16(n - i), s + i);
        __m512 e = exp2_f32x16(_mm512_sub_ps(x, m));
        _mm512_storeu_ps(s + i, e);
        total = _mm512_add_ps(total, e);
    }
    *sum = sum16(total);
}

/* ---- weighted sums ------------------------------------------------------------------------- */

/* acc [n_rows, 16 n_regs], row stride v_pad, += weights s [n_rows, c0 .. c1) * V; x: the first
 * elements of cell 0, `stride` bytes from one cell to the next. */
ALWAYS_INLINE void sum_block(enum qtype type, int n_rows, int n_regs, const char *x, size_t stride,
                             int64_t d, const float *s, int64_t c0, int64_t c1, float *acc,
                             int64_t v_pad, struct fetch fetch) {
    __m512 t[BLOCK][4];
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int i = 0; i < n_regs; i++) t[r][i] = _mm512_load_ps(acc + r * v_pad + 16 * i);
    }
    x += (size_t)c0 * stride;
    for (int64_t c = c0; c < c1; c++, x += stride) {
        __m512 y[4];
        UNROLL for (int i = 0; i < n_regs; i++) y[i] = load16_cache(type, x, d + 16 * i, 0xffff);
        if (type != QT_f32) {
            const char *soon = fetch.soon + (size_t)c * stride + 2 * d;
            const char *later = fetch.later + (size_t)c * fetch.n_bytes + 2 * d;
            _mm_prefetch(soon, _MM_HINT_T0);
            _mm_prefetch(soon + 64, _MM_HINT_T0);
            _mm_prefetch(later, _MM_HINT_T1);
            _mm_prefetch(later + 64, _MM_HINT_T1);
        }
        UNROLL for (int r = 0; r < n_rows; r++) {
            __m512 w = _mm512_set1_ps(s[r * RANGE_CELLS + c]);
            UNROLL for (int i = 0; i < n_regs; i++) t[r][i] = _mm512_fmadd_ps(w, y[i], t[r][i]);
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int i = 0; i < n_regs; i++) _mm512_store_ps(acc + r * v_pad + 16 * i, t[r][i]);
    }
}

ALWAYS_INLINE void sum_rows_of(enum qtype type, int n_regs, int64_t n_rows, const char *x,
                               size_t stride, int64_t d, const float *s, int64_t c0, int64_t c1,
                               float *acc, int64_t v_pad, struct fetch fetch) {
#define CASE(n)                                                                                    \
    case n: sum_block(type, n, n_regs, x, stride, d, s, c0, c1, acc, v_pad, fetch); break
    switch (n_rows) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
    }
#undef CASE
}

/* acc [n_rows, v_pad] for n_rows <= BLOCK rows; V as f32, or where it lies, then v_pad = hd is a
 * multiple of 64. */
static void sum_rows(enum qtype type, int64_t n_rows, const char *x, size_t stride, const float *s,
                     int64_t c0, int64_t c1, float *acc, int64_t v_pad,
                     struct fetch fetch) {
    int64_t d = 0;
    for (; d + 64 <= v_pad; d += 64)
        switch (type) {
        case QT_f32:
            sum_rows_of(QT_f32, 4, n_rows, x, stride, d, s, c0, c1, acc + d, v_pad, fetch);
            break;
        case QT_f16:
            sum_rows_of(QT_f16, 4, n_rows, x, stride, d, s, c0, c1, acc + d, v_pad, fetch);
            break;
        default:
            sum_rows_of(QT_q8_0, 4, n_rows, x, stride, d, s, c0, c1, acc + d, v_pad, fetch);
            break;
        }
    for (; d < v_pad; d += 16)
        sum_rows_of(QT_f32, 1, n_rows, x, stride, d, s, c0, c1, acc + d, v_pad, fetch);
}

/* A head of n cells as f32 [n, pad], zeros behind hd. */
ALWAYS_INLINE void load_v_of(enum qtype type, const struct attn_side *v, const char *row, int64_t n,
                             float *y) {
    for (int64_t c = 0; c < n; c++, row += v->t->row_bytes, y += v->pad) {
        attn_fetch(row, v->head_bytes, v->t->row_bytes, CELLS_AHEAD);
        for (int64_t d = 0; d < v->pad; d += 16)
            _mm512_store_ps(y + d, load16_cache(type, row, d, lanes16(v->hd - d)));
    }
}

static void load_v(const struct attn_side *v, const char *row, int64_t n, float *y) {
    switch ((enum qtype)v->t->type) {
    case QT_f32: load_v_of(QT_f32, v, row, n, y); break;
    case QT_f16: load_v_of(QT_f16, v, row, n, y); break;
    default: load_v_of(QT_q8_0, v, row, n, y); break;
    }
}

#endif
