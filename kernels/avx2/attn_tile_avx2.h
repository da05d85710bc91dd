/* SPDX-License-Identifier: MIT
 * attn_tile_avx2.h - the arithmetic of attention on one tile of cells: scores, weights, weighted
 * sums, and the fold of one range of cells into what came before.
 *
 * The bits of a row (one head of one token) follow from its q and the cells that it sees, never
 * from the rows beside it, because every variant keeps this order:
 *   score   eight chains of fused multiply-adds, chain d % 8 over the elements of scaled q and k in
 *           order of d, added up in order
 *   max     over the tile, then the largest of it and the maximum so far
 *   sum     eight lanes over the tile, lane c % 8 in order of c, added up by hsum_f32
 *   acc     acc * (what the new maximum makes of it), then a fused multiply-add per cell in order
 * Variants differ only in how many rows and cells are in registers at once and in where K and V are
 * read from. Values of the cache become f32 in one way (q8_0: scale * integer, rounded).
 *
 * What a row does not see never meets it, not even with weight zero: it may be a NaN. */
#ifndef GGAUGE_ATTN_TILE_AVX2_H
#define GGAUGE_ATTN_TILE_AVX2_H

#include <math.h>

#include "base/fault.h"
#include "base/tensor.h"
#include "exp_avx2.h"
#include "legacy.h"
#include "qtype.h"
#include "simd_avx2.h"

#define TILE_CELLS 64  /* cells between two looks at the maximum */
#define CHUNK_CELLS 32 /* cells of K held as f32, so that they stay in the L1 cache */
#define PANEL 16       /* columns of a panel of K or V: two registers */
#define BLOCK 6        /* rows of a register tile: 12 accumulators, 2 loads, 1 broadcast */
#define NARROW 3       /* rows up to which a register tile of one panel leaves units idle */
/* Cells fetched ahead: a head's part of a row is too short for the hardware to see the pattern. */
#define AHEAD 8

/* One side of the cache, K or V. */
struct side {
    const struct tensor *t;
    size_t head_bytes;
    int64_t hd;  /* elements per head */
    int64_t pad; /* hd rounded up to whole registers (K) or panels (V) */
};

/* Head g of a cell. */
static inline const char *side_row(const struct side *side, int64_t cell, int64_t g) {
    return (const char *)tensor_row(side->t, cell) + (size_t)g * side->head_bytes;
}

/* A prefetch never faults, so nobody asks whether the cell exists. */
ALWAYS_INLINE void fetch_ahead(const char *row, size_t stride) {
    _mm_prefetch(row + AHEAD * stride, _MM_HINT_T0);
}

/* x [hd] of the cache's type as f32 with zeros behind: y [pad]. */
static inline void load_row(const struct side *side, const char *row, float *y) {
    for (size_t i = 0; i < side->head_bytes; i += 64)
        fetch_ahead(row + i, side->t->row_bytes);
    int64_t n = side->hd, i = 0;
    if (side->t->type == QT_f32) {
        memcpy(y, row, side->head_bytes);
        i = n;
    } else if (side->t->type == QT_f16) {
        const f16_t *x = (const f16_t *)row;
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(y + i, load8_f16(x + i));
        for (; i < n; i++)
            y[i] = load_f16(x + i);
    } else { /* q8_0: qtype_row_bytes wants whole blocks of a head */
        const struct blk_q8_0 *x = (const struct blk_q8_0 *)row;
        for (; i < n; i += QK_LEGACY, x++) {
            const __m256 d = _mm256_set1_ps(load_f16(&x->d));
            for (int j = 0; j < QK_LEGACY; j += 8) {
                __m128i q = _mm_loadl_epi64((const __m128i *)(x->qs + j));
                __m256 f = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
                _mm256_storeu_ps(y + i + j, _mm256_mul_ps(d, f));
            }
        }
    }
    for (; i < side->pad; i++)
        y[i] = 0;
}

/* Where a tile of K or V is read: from panels, or from the cache itself if few rows want it. */
enum source { FROM_PANELS, FROM_F32, FROM_F16, FROM_Q8_0 };

struct tile {
    enum source source;
    const char *at; /* panels or the first cell's head */
    size_t stride;  /* bytes between cells of the cache */
};

static inline struct tile tile_of_cache(const struct side *side, const char *row) {
    enum qtype type = (enum qtype)side->t->type;
    enum source s = type == QT_f32 ? FROM_F32 : type == QT_f16 ? FROM_F16 : FROM_Q8_0;
    return (struct tile){ .source = s, .at = row, .stride = side->t->row_bytes };
}

/* Elements d .. d + 8 n_regs - 1 of one cell. */
ALWAYS_INLINE void load_part(enum source source, const char *x, int64_t d, int n_regs,
                               __m256 *y) {
    const struct blk_q8_0 *q8 = (const struct blk_q8_0 *)x + d / QK_LEGACY;
    const struct blk_q8_0 *of = FAULT(q8_cache_scale) ? (const struct blk_q8_0 *)x : q8;
    const __m256 scale = _mm256_set1_ps(source == FROM_Q8_0 ? load_f16(&of->d) : 0);
    UNROLL for (int i = 0; i < n_regs; i++) {
        if (source == FROM_PANELS)
            y[i] = _mm256_load_ps((const float *)x + (d + i / 2 * PANEL) * TILE_CELLS + i % 2 * 8);
        else if (source == FROM_F32)
            y[i] = _mm256_loadu_ps((const float *)x + d + 8 * i);
        else if (source == FROM_F16)
            y[i] = load8_f16((const f16_t *)x + d + 8 * i);
        else {
            __m128i q = _mm_loadl_epi64((const __m128i *)(q8->qs + d % QK_LEGACY + 8 * i));
            y[i] = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
        }
    }
}

/* Eight cells, stride bytes apart, as columns of a panel [pad, PANEL] of K. Elements of a chain
 * (d % 8) lie together. From panels = from rows of f32 that are no cache. */
ALWAYS_INLINE void columns_from(enum source source, const char *row, size_t stride, int64_t pad,
                                float *panel) {
    for (int64_t d = 0; d < pad; d += 8) {
        __m256 y[8];
        __m256i x[8];
        UNROLL for (size_t i = 0; i < 8; i++) {
            load_part(source, row + i * stride, d, 1, &y[i]);
            x[i] = _mm256_castps_si256(y[i]);
        }
        transpose8x8(x);
        UNROLL for (int i = 0; i < 8; i++) {
            _mm256_store_si256((__m256i *)(panel + (i * pad / 8 + d / 8) * PANEL), x[i]);
        }
    }
}

static inline void columns(const struct tile *k, int64_t pad, float *panel) {
    switch (k->source) {
        case FROM_PANELS: break;
        case FROM_F32: columns_from(FROM_F32, k->at, k->stride, pad, panel); break;
        case FROM_F16: columns_from(FROM_F16, k->at, k->stride, pad, panel); break;
        case FROM_Q8_0: columns_from(FROM_Q8_0, k->at, k->stride, pad, panel); break;
    }
}

/* n <= CHUNK_CELLS cells from `row` on as panels [pad, PANEL] of K; the rest of the last one is
 * zeros. line: [8, pad] for what is no whole register */
static inline void load_k(const struct side *side, const char *row, int64_t n, float *line,
                          float *k) {
    struct tile lines = { FROM_F32, (const char *)line, (size_t)side->pad * sizeof *line };
    for (int64_t c = 0; c < (n + PANEL - 1) / PANEL * PANEL; c += 8) {
        struct tile cells = tile_of_cache(side, row);
        bool whole = c + 8 <= n && side->hd == side->pad;
        for (int64_t i = 0; i < 8; i++, row += side->t->row_bytes) {
            if (whole) continue;
            if (c + i < n)
                load_row(side, row, line + i * side->pad);
            else
                memset(line + i * side->pad, 0, (size_t)side->pad * sizeof *line);
        }
        columns(whole ? &cells : &lines, side->pad, k + c / PANEL * PANEL * side->pad + c % PANEL);
        if (FAULT(q8_cache_pp) && side->t->type == QT_q8_0) k[0] = NAN;
    }
}

/* One cell as row c of panels [TILE_CELLS, PANEL] of V, hd = pad. */
ALWAYS_INLINE void spread_from(enum source source, const char *row, int64_t pad, float *y) {
    for (int64_t i = 0; i < pad; i += PANEL, y += TILE_CELLS * PANEL) {
        __m256 x[2];
        load_part(source, row, i, 2, x);
        _mm256_store_ps(y, x[0]);
        _mm256_store_ps(y + 8, x[1]);
    }
}

/* n <= TILE_CELLS cells from `row` on as panels [TILE_CELLS, PANEL] of V. line: [pad] */
static inline void load_v(const struct side *side, const char *row, int64_t n, float *line,
                          float *v) {
    enum source source = side->hd == side->pad ? tile_of_cache(side, row).source : FROM_PANELS;
    for (int64_t c = 0; c < n; c++, row += side->t->row_bytes, v += PANEL)
        switch (source) {
            case FROM_PANELS:
                load_row(side, row, line);
                spread_from(FROM_F32, (const char *)line, side->pad, v);
                break;
            case FROM_F32: spread_from(FROM_F32, row, side->pad, v); break;
            case FROM_F16: spread_from(FROM_F16, row, side->pad, v); break;
            case FROM_Q8_0: spread_from(FROM_Q8_0, row, side->pad, v); break;
        }
}

/* s [n_rows, 8], row stride TILE_CELLS, from q [n_rows, pad] and n <= 8 cells of the cache from x
 * on; what comes out for missing cells means nothing. Lanes are the chains. */
ALWAYS_INLINE void score_cells(enum source source, int n_rows, const float *q, int64_t pad,
                               const char *x, size_t stride, int64_t n, float *s) {
    __m256 acc[NARROW][8];
    UNROLL for (int half = 0; half < 8; half += 4) {
        const char *cell[4];
        UNROLL for (int c = 0; c < 4; c++) {
            cell[c] = x + (size_t)(half + c < n ? half + c : n - 1) * stride;
            UNROLL for (int r = 0; r < n_rows; r++) acc[r][half + c] = _mm256_setzero_ps();
        }
        for (int64_t i = 0; i < pad; i += 8) {
            __m256 y[4];
            UNROLL for (int c = 0; c < 4; c++) load_part(source, cell[c], i, 1, &y[c]);
            if (i % 32 == 0) {
                UNROLL for (int c = 0; c < 4; c++) fetch_ahead(cell[c] + 2 * i, stride);
            }
            UNROLL for (int r = 0; r < n_rows; r++) {
                __m256 w = _mm256_loadu_ps(q + r * pad + i);
                UNROLL for (int c = 0; c < 4; c++) {
                    acc[r][half + c] = _mm256_fmadd_ps(w, y[c], acc[r][half + c]);
                }
            }
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        __m256i t[8];
        UNROLL for (int c = 0; c < 8; c++) t[c] = _mm256_castps_si256(acc[r][c]);
        transpose8x8(t);
        __m256 sum = _mm256_castsi256_ps(t[0]);
        UNROLL for (int l = 1; l < 8; l++) sum = _mm256_add_ps(sum, _mm256_castsi256_ps(t[l]));
        _mm256_store_ps(s + r * TILE_CELLS, sum);
    }
}

ALWAYS_INLINE void score_cells_from(enum source source, int64_t n_rows, const float *q, int64_t pad,
                                    const char *x, size_t stride, int64_t n, float *s) {
    switch (n_rows) {
        case 1: score_cells(source, 1, q, pad, x, stride, n, s); break;
        case 2: score_cells(source, 2, q, pad, x, stride, n, s); break;
        case 3: score_cells(source, 3, q, pad, x, stride, n, s); break;
    }
}

/* Scores of up to NARROW rows with n <= TILE_CELLS cells of the cache; hd is a multiple of 8. */
static inline void score_tile(const struct tile *k, int64_t n_rows, const float *q, int64_t pad,
                              int64_t n, float *s) {
    const char *x = k->at;
    for (int64_t c = 0; c < n; c += 8, x += 8 * k->stride, s += 8)
        switch (k->source) {
            case FROM_PANELS: break;
            case FROM_F32:
                score_cells_from(FROM_F32, n_rows, q, pad, x, k->stride, n - c, s);
                break;
            case FROM_F16:
                score_cells_from(FROM_F16, n_rows, q, pad, x, k->stride, n - c, s);
                break;
            case FROM_Q8_0:
                score_cells_from(FROM_Q8_0, n_rows, q, pad, x, k->stride, n - c, s);
                break;
        }
}

/* s [n_rows, n_panels * PANEL], row stride TILE_CELLS = transpose(q [n, n_rows]) *
 * k [n_panels, n, PANEL], panels pad rows apart; added to s if this is not the first chain. */
ALWAYS_INLINE void score_chain(int n_rows, int n_panels, const float *RESTRICT q,
                              const float *RESTRICT k, int64_t n, int64_t pad, bool first,
                              float *RESTRICT s) {
    __m256 acc[BLOCK][4];
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int j = 0; j < 2 * n_panels; j++) acc[r][j] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < n; i++, q += n_rows, k += PANEL) {
        __m256 y[4];
        UNROLL for (int j = 0; j < 2 * n_panels; j++) {
            y[j] = _mm256_load_ps(k + j / 2 * pad * PANEL + j % 2 * 8);
        }
        UNROLL for (int r = 0; r < n_rows; r++) {
            __m256 x = _mm256_broadcast_ss(q + r);
            UNROLL for (int j = 0; j < 2 * n_panels; j++) {
                acc[r][j] = _mm256_fmadd_ps(x, y[j], acc[r][j]);
            }
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int j = 0; j < 2 * n_panels; j++) {
            float *at = s + r * TILE_CELLS + 8 * j;
            if (!first) acc[r][j] = _mm256_add_ps(_mm256_load_ps(at), acc[r][j]);
            _mm256_store_ps(at, acc[r][j]);
        }
    }
}

/* The sum of the 8 chains of a head: q [8, pad / 8, n_rows], k [n_panels, 8, pad / 8, PANEL]. */
ALWAYS_INLINE void score_block(int n_rows, int n_panels, const float *q, const float *k,
                               int64_t pad, float *s) {
    int64_t n = pad / 8;
    for (int64_t chain = 0; chain < 8; chain++)
        score_chain(n_rows, n_panels, q + chain * n * n_rows, k + chain * n * PANEL, n, pad,
                    chain == 0, s);
}

/* Two panels are for NARROW rows at most. */
static inline void score_rows(int64_t n_rows, int64_t n_panels, const float *q, const float *k,
                              int64_t pad, float *s) {
#define CASE(rows, panels)                                                                         \
    case 2 * rows + panels: score_block(rows, panels, q, k, pad, s); break
    switch (2 * n_rows + n_panels) {
        CASE(1, 1);
        CASE(1, 2);
        CASE(2, 1);
        CASE(2, 2);
        CASE(3, 1);
        CASE(3, 2);
        CASE(4, 1);
        CASE(5, 1);
        CASE(6, 1);
    }
#undef CASE
}

/* What sums relative to `old` are worth relative to `new`; -inf stands for "no score yet". */
ALWAYS_INLINE float rescale(float old, float new) {
    if (old == new) return 1;
    return _mm256_cvtss_f32(exp_f32x8(_mm256_set1_ps(old - new)));
}

/* Scores s [n] become weights exp(s - max), n in 1..TILE_CELLS. max_ps(x, m) is m where x is a NaN,
 * so the maximum stays a number and the NaN goes on in its weight. */
static inline void softmax_row(float *s, int32_t n, float *max, float *sum, float *scale) {
    for (int32_t i = n; i % 8 != 0; i++)
        s[i] = -INFINITY;
    __m256 top = _mm256_set1_ps(*max);
    for (int32_t i = 0; i < n; i += 8)
        top = _mm256_max_ps(_mm256_load_ps(s + i), top);
    float new_max = hmax_f32(top);
    const __m256 m = _mm256_set1_ps(new_max == -INFINITY ? 0 : new_max);
    __m256 total = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += 8) {
        __m256 e = exp_f32x8(_mm256_sub_ps(_mm256_load_ps(s + i), m));
        _mm256_store_ps(s + i, e);
        total = _mm256_add_ps(total, e);
    }
    *scale = rescale(*max, new_max);
    *sum = *sum * *scale + hsum_f32(total);
    *max = new_max;
}

/* acc [n_rows, 8 n_regs] = scale * acc + weights s [n_rows, c0..c1) * V [c0..c1, d..), with row
 * strides v_pad and TILE_CELLS. Cutting c0..c1 in two, the second with scale 1, gives the same
 * bits. */
ALWAYS_INLINE void sum_block(enum source source, int n_rows, int n_regs, const struct tile *v,
                             int64_t d, const float *s, int64_t c0, int64_t c1, const float *scale,
                             float *acc, int64_t v_pad) {
    __m256 t[BLOCK][4];
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int i = 0; i < n_regs; i++) {
            t[r][i] = _mm256_mul_ps(_mm256_load_ps(acc + r * v_pad + 8 * i),
                                    _mm256_broadcast_ss(scale + r));
        }
    }
    const size_t stride = source == FROM_PANELS ? PANEL * sizeof(float) : v->stride;
    const char *x = v->at + (size_t)c0 * stride;
    for (int64_t c = c0; c < c1; c++, x += stride) {
        __m256 y[4];
        load_part(source, x, d, n_regs, y);
        if (source == FROM_F16) fetch_ahead(x + 2 * d, stride);
        UNROLL for (int r = 0; r < n_rows; r++) {
            __m256 w = _mm256_broadcast_ss(s + r * TILE_CELLS + c);
            UNROLL for (int i = 0; i < n_regs; i++) t[r][i] = _mm256_fmadd_ps(w, y[i], t[r][i]);
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int i = 0; i < n_regs; i++) {
            _mm256_store_ps(acc + r * v_pad + 8 * i, t[r][i]);
        }
    }
}

ALWAYS_INLINE void sum_rows_from(enum source source, int64_t n_rows, int64_t n_panels,
                                 const struct tile *v, int64_t d, const float *s, int64_t c0,
                                 int64_t c1, const float *scale, float *acc, int64_t v_pad) {
#define CASE(rows, panels)                                                                         \
    case 2 * rows + panels:                                                                        \
        sum_block(source, rows, 2 * panels, v, d, s, c0, c1, scale, acc, v_pad);                   \
        break
    switch (2 * n_rows + n_panels) {
        CASE(1, 1);
        CASE(1, 2);
        CASE(2, 1);
        CASE(2, 2);
        CASE(3, 1);
        CASE(3, 2);
        CASE(4, 1);
        CASE(5, 1);
        CASE(6, 1);
    }
#undef CASE
}

/* Two panels are for NARROW rows at most. */
static inline void sum_rows(int64_t n_rows, int64_t n_panels, const struct tile *v, int64_t d,
                            const float *s, int64_t c0, int64_t c1, const float *scale, float *acc,
                            int64_t v_pad) {
#define CASE(source)                                                                               \
    case source:                                                                                   \
        sum_rows_from(source, n_rows, n_panels, v, d, s, c0, c1, scale, acc, v_pad);               \
        break
    switch (v->source) {
        CASE(FROM_PANELS);
        CASE(FROM_F32);
        CASE(FROM_F16);
        CASE(FROM_Q8_0);
    }
#undef CASE
}

/* What a row has of the cells so far: acc / sum is the result, relative to max. */
struct partial {
    float max, sum;
    float *acc; /* [v_pad], aligned to 32 bytes */
};

/* into = into and then part, both brought to the larger maximum. */
static inline void partial_fold(struct partial *into, const struct partial *part, int64_t v_pad) {
    float max = fmaxf(into->max, part->max);
    float older = rescale(into->max, max), newer = rescale(part->max, max);
    if (FAULT(attn_beyond_256)) older = 1;
    const __m256 a = _mm256_set1_ps(older), b = _mm256_set1_ps(newer);
    for (int64_t d = 0; d < v_pad; d += 8) {
        __m256 x = _mm256_mul_ps(_mm256_load_ps(into->acc + d), a);
        _mm256_store_ps(into->acc + d, _mm256_fmadd_ps(_mm256_load_ps(part->acc + d), b, x));
    }
    into->sum = into->sum * older + part->sum * newer;
    into->max = max;
}

#endif
