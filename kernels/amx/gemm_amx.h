/* SPDX-License-Identifier: MIT
 * gemm_amx.h - products of weights of any type with bf16 activations in bf16 tiles.
 *
 * Weights are decoded to bf16, scale included, into panels of 32 rows that stay in the second level
 * cache while all tokens of the call pass; so a decoder's price is shared by the tokens. What it
 * rounds is 2^-8 of a weight at most. (Exact scales were measured, too: a scale changes every 32
 * weights, so sums would have to leave their tile after each instruction, which takes twice the
 * time of the products with integer weights in bf16 and scales in f32, and three times with int8.)
 *
 *   for 512 tokens, for 256 rows    so that sums rest in the second level cache
 *     for 512 weights of a row      so that activations of 32 tokens stay in the first level cache
 *       decode the panels
 *       for 32 tokens               read where they lie: a tile is 1 KiB in one piece
 *         for panels                4 tiles of sums: 2 of tokens x 2 of rows
 *
 * Tiles 0..3 are sums, [tokens][16 rows] f32; 4 and 5 activations, [tokens][32] bf16; 6 and 7
 * weights, [16 pairs of k][16 rows][2] bf16.
 *
 * A sum goes through one chain of additions in order of k, whatever the call; between blocks of k
 * it is stored and loaded again, which changes nothing. So a token's results have the same bits in
 * any call. */
#ifndef GGAUGE_GEMM_AMX_H
#define GGAUGE_GEMM_AMX_H

#include "qtype.h"
#include "simd_amx.h"
#include "tile_amx.h"

#define TILE_ROWS 16
#define TILE_K 32 /* bf16 of a row of a tile */
#define TILE_BYTES 1024

#define AMX_K_BLOCK 512
#define AMX_PANELS 8
#define AMX_PANEL_ROWS 32
#define AMX_TOKENS 32 /* of a pass over a panel */
#define AMX_TOKEN_GROUP 512
/* 16 tokens of a block of k, tile after tile. */
#define AMX_PACKED_BYTES (AMX_K_BLOCK / TILE_K * TILE_BYTES)
#define AMX_PANEL_BYTES (AMX_K_BLOCK / TILE_K * 2 * TILE_BYTES)

/* Fewest tokens that are worth a panel: see min_tokens of struct qkernel. */
#define AMX_MIN_TOKENS 16
/* The square of the largest relative rounding error of a weight. */
#define AMX_TOL_NMSE 0x1p-15

/* How a type comes into tiles. */
struct amx_format {
    /* Weights [k0, k0 + nk) of 16 rows: block b of 32 to out + b * 2 * TILE_BYTES; with split their
     * lower parts to out + AMX_PANELS * AMX_PANEL_BYTES + ..., and zeros after the end of a row. */
    void (*decode)(const struct rows16 *r, int64_t k0, int64_t nk, char *out);
    /* What the sums of a row are multiplied by at the end; NULL = 1. */
    float (*row_scale)(const char *row);
    /* Values [0, nk) of an f32 activation as upper and lower parts, 32 to a row of every tile, zeros
     * up to a multiple of 32; NULL: activations are bf16, in groups of 16 (struct qkernel). */
    void (*pack)(const float *x, int64_t nk, char *high, char *low);
    bool split; /* weights have lower parts, too */
};

/* Sums of 32 tokens x 32 rows, a tile after the other. */
struct amx_sums {
    float t[4][TILE_ROWS][TILE_ROWS]; // [2 of tokens][2 of rows]
};

struct amx_scratch {
    char panel[2][AMX_PANELS][AMX_PANEL_BYTES]; // upper, lower: [k / 32][2][16][16][2] bf16
    char x[2][2][AMX_PACKED_BYTES]; // packed: upper, lower; 16 tokens each
    struct amx_sums sums[AMX_TOKEN_GROUP / AMX_TOKENS][AMX_PANELS];
    float scale[AMX_PANELS * AMX_PANEL_ROWS];
};

static inline size_t amx_scratch_bytes(int64_t n) {
    (void)n;
    return sizeof(struct amx_scratch);
}

ALWAYS_INLINE int64_t amx_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* One call's matrices. */
struct amx_call {
    const char *w, *x;
    size_t w_stride, x_stride;
    int64_t n_rows, n_tok;
    float *dst;
    int64_t dst_stride;
};

ALWAYS_INLINE struct rows16 amx_rows16(const struct amx_call *c, int64_t r0) {
    struct rows16 r;
    int32_t offset[16];
    for (int i = 0; i < 16; i++) {
        r.row[i] = c->w + (size_t)amx_min(r0 + i, c->n_rows - 1) * c->w_stride;
        offset[i] = (int32_t)(r.row[i] - r.row[0]);
    }
    r.offset = _mm512_loadu_si512(offset);
    return r;
}

ALWAYS_INLINE __mmask16 amx_lanes(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0);
}

ALWAYS_INLINE void amx_begin_sums(bool two) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (!two) return;
    TILE_ZERO(2);
    TILE_ZERO(3);
}

ALWAYS_INLINE void amx_load_sums(const struct amx_sums *s, bool two) {
    TILE_LOAD_ONCE(0, s->t[0], 64);
    TILE_LOAD_ONCE(1, s->t[1], 64);
    if (!two) return;
    TILE_LOAD_ONCE(2, s->t[2], 64);
    TILE_LOAD_ONCE(3, s->t[3], 64);
}

ALWAYS_INLINE void amx_store_sums(struct amx_sums *s, bool two) {
    TILE_STORE(0, s->t[0], 64);
    TILE_STORE(1, s->t[1], 64);
    if (!two) return;
    TILE_STORE(2, s->t[2], 64);
    TILE_STORE(3, s->t[3], 64);
}

/* A pass over a panel: 32 tokens. */
struct amx_pass {
    const char *x[2], *low[2]; /* tiles of 16 tokens each; low: their lower parts */
    int64_t n_blocks;          /* of 32 weights */
    int m0, m1;                /* tokens */
    /* Fetched on the way; hints, which past the end do no harm. */
    const char *next_sums;
    const char *next_x; /* four lines of each tile of the next 32 tokens */
};

ALWAYS_INLINE void amx_fetch(const struct amx_pass *p, int64_t b) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        _mm_prefetch(p->next_sums + 256 * b + 64 * i, _MM_HINT_T0);
        _mm_prefetch(p->next_x + TILE_BYTES * b + 64 * i, _MM_HINT_T1);
    }
}

/* Add the products of tiles x and the panel. */
ALWAYS_INLINE void amx_products(const char *panel, const char *const x[2],
                                const struct amx_pass *p) {
    const char *x0 = x[0], *x1 = x[1];
    if (p->m1) {
        for (int64_t b = 0; b < p->n_blocks; b++, panel += 2 * TILE_BYTES) {
            TILE_LOAD(4, x0, 64);
            TILE_LOAD_ONCE(6, panel, 64);
            TILE_PRODUCT(0, 4, 6);
            TILE_LOAD_ONCE(7, panel + TILE_BYTES, 64);
            TILE_PRODUCT(1, 4, 7);
            TILE_LOAD(5, x1, 64);
            TILE_PRODUCT(2, 5, 6);
            TILE_PRODUCT(3, 5, 7);
            amx_fetch(p, b);
            x0 += TILE_BYTES, x1 += TILE_BYTES;
        }
        return;
    }
    for (int64_t b = 0; b < p->n_blocks; b++, panel += 2 * TILE_BYTES, x0 += TILE_BYTES) {
        TILE_LOAD(4, x0, 64);
        TILE_LOAD_ONCE(6, panel, 64);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD_ONCE(7, panel + TILE_BYTES, 64);
        TILE_PRODUCT(1, 4, 7);
    }
}

/* Complete sums of m tokens [panels] to dst, times the scales. */
static inline void amx_finish(const struct amx_sums *sums, const float *scale, float *dst,
                              int64_t stride, int m, int64_t nr) {
    for (int t = 0; t < m; t++, dst += stride)
        for (int64_t r = 0; r < nr; r += 16) {
            const float *sum = sums[r / AMX_PANEL_ROWS].t[t / 16 * 2 + r % 32 / 16][t % 16];
            _mm512_mask_storeu_ps(dst + r, amx_lanes(nr - r),
                                  _mm512_mul_ps(_mm512_load_ps(sum), _mm512_loadu_ps(scale + r)));
        }
}

/* A block of rows and k, and whether it is the first and the last of k. */
struct amx_block {
    int64_t r0, nr, k0, nk;
    bool first, last;
};

/* Tiles of activations of m tokens from t0 on. */
ALWAYS_INLINE void amx_activations(const struct amx_format *f, const struct amx_call *c,
                                   struct amx_scratch *s, const struct amx_block *b, int64_t t0,
                                   int m, struct amx_pass *p) {
    const char *x = c->x + (size_t)t0 * c->x_stride;
    if (!f->pack) {
        p->x[0] = x + b->k0 / TILE_K * TILE_BYTES;
        p->x[1] = p->x[0] + TILE_ROWS * c->x_stride;
        return;
    }
    for (int t = 0; t < m; t++, x += c->x_stride)
        f->pack((const float *)(const void *)x + b->k0, b->nk, s->x[0][t / 16] + t % 16 * 64,
                s->x[1][t / 16] + t % 16 * 64);
    for (int h = 0; h < 2; h++) {
        p->x[h] = s->x[0][h];
        p->low[h] = s->x[1][h];
    }
}

/* What panel i of AMX_PANELS fetches of the activations that come after those of token t0. */
ALWAYS_INLINE const char *amx_next_x(const struct amx_call *c, const struct amx_block *b,
                                     int64_t t0, int64_t i) {
    const bool more = t0 + AMX_TOKENS < c->n_tok;
    const int64_t t = more ? t0 + AMX_TOKENS : 0, k = more ? b->k0 : b->k0 + b->nk;
    const int64_t line = i * (AMX_TOKENS / AMX_PANELS);
    return c->x + (size_t)(t + line / TILE_ROWS * TILE_ROWS) * c->x_stride +
           k / TILE_K * TILE_BYTES + line % TILE_ROWS * 64;
}

/* The tokens of c (up to AMX_TOKEN_GROUP) by the decoded panels. */
ALWAYS_INLINE void amx_tokens(const struct amx_format *f, const struct amx_call *c,
                              struct amx_scratch *s, const struct amx_block *b) {
    struct amx_pass p = { .n_blocks = (b->nk + TILE_K - 1) / TILE_K };
    int m = 0;
    for (int64_t t0 = 0; t0 < c->n_tok; t0 += AMX_TOKENS) {
        if (m != amx_min(c->n_tok - t0, AMX_TOKENS)) {
            m = (int)amx_min(c->n_tok - t0, AMX_TOKENS);
            p.m0 = m < 16 ? m : 16;
            p.m1 = m - p.m0;
            tiles_begin_rows(p.m0, p.m1);
        }
        const bool two = p.m1 > 0;
        struct amx_sums *sums = s->sums[t0 / AMX_TOKENS];
        float *dst = c->dst + t0 * c->dst_stride + b->r0;
        amx_activations(f, c, s, b, t0, m, &p);
        for (int64_t r = 0, i = 0; r < b->nr; r += AMX_PANEL_ROWS, i++, sums++) {
            p.next_sums = (const char *)(sums + 1);
            p.next_x = f->pack ? p.x[0] : amx_next_x(c, b, t0, i);
            if (b->first)
                amx_begin_sums(two);
            else
                amx_load_sums(sums, two);
            amx_products(s->panel[0][i], p.x, &p);
            if (f->pack) amx_products(s->panel[0][i], p.low, &p);
            if (f->split) amx_products(s->panel[1][i], p.x, &p);
            amx_store_sums(sums, two);
        }
        if (b->last)
            amx_finish(s->sums[t0 / AMX_TOKENS], s->scale, dst, c->dst_stride, m, b->nr);
    }
}

/* Up to AMX_TOKEN_GROUP tokens. */
ALWAYS_INLINE void amx_group(const struct amx_format *f, const struct amx_call *c, int64_t n,
                             struct amx_scratch *s) {
    struct amx_block b = { 0 };
    for (b.r0 = 0; b.r0 < c->n_rows; b.r0 += b.nr) {
        b.nr = amx_min(c->n_rows - b.r0, AMX_PANELS * AMX_PANEL_ROWS);
        for (int64_t r = 0; r < AMX_PANELS * AMX_PANEL_ROWS; r++)
            s->scale[r] = f->row_scale && r < b.nr
                              ? f->row_scale(c->w + (size_t)(b.r0 + r) * c->w_stride)
                              : 1.0f;
        for (b.k0 = 0; b.k0 < n; b.k0 += b.nk) {
            b.nk = amx_min(n - b.k0, AMX_K_BLOCK);
            b.first = b.k0 == 0;
            b.last = b.k0 + b.nk == n;
            for (int64_t r = 0; r < b.nr; r += 16) {
                const struct rows16 rows = amx_rows16(c, b.r0 + r);
                f->decode(&rows, b.k0, b.nk,
                          s->panel[0][r / AMX_PANEL_ROWS] + r % AMX_PANEL_ROWS / 16 * TILE_BYTES);
            }
            amx_tokens(f, c, s, &b);
        }
    }
}

ALWAYS_INLINE void amx_run(const struct amx_format *f, const struct amx_call *c, int64_t n,
                           struct amx_scratch *s) {
    for (int64_t t = 0; t < c->n_tok; t += AMX_TOKEN_GROUP) {
        struct amx_call part = *c;
        part.n_tok = amx_min(c->n_tok - t, AMX_TOKEN_GROUP);
        part.x += (size_t)t * c->x_stride;
        part.dst += t * c->dst_stride;
        amx_group(f, &part, n, s);
    }
    tiles_end();
}

/* The cell of type NAME with format NAME_format. */
#define AMX_CELL(NAME, ...)                                                                        \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        const struct amx_call c = { w, x, w_stride, x_stride, n_rows, n_tok, dst, dst_stride };    \
        amx_run(&NAME##_format, &c, n, scratch);                                                   \
    }                                                                                              \
    const struct qkernel NAME##_amx = { .chunk_rows = AMX_PANELS * AMX_PANEL_ROWS,                 \
                                        .mul_mat = NAME##_mul_mat,                                 \
                                        .mul_mat_scratch = amx_scratch_bytes,                      \
                                        __VA_ARGS__ }

/* Of a type of quants from NAME_decode. */
#define AMX_QUANT_CELL(NAME, ROW_SCALE)                                                            \
    static const struct amx_format NAME##_format = { .decode = NAME##_decode,                      \
                                                     .row_scale = ROW_SCALE };                     \
    AMX_CELL(NAME, .act = QT_bf16, .act_group = TILE_ROWS, .tol_nmse = AMX_TOL_NMSE,               \
             .min_tokens = AMX_MIN_TOKENS)

#endif
