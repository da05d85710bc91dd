/* SPDX-License-Identifier: MIT
 * gemm_amx_requant.h - products of weights that become 8 bits with activations of 8 bits (q8_k_tile
 * of act.h) in tiles of bytes.
 *
 * As in gemm_amx.h, weights are decoded into panels of 32 rows while all tokens of the call pass by
 * the panels of the block before. What differs:
 *   - a tile has 64 weights of a row, so there are half as many products;
 *   - the sums of 512 weights, integers, leave their tiles to be multiplied by the factor that the
 *     weights of the row have in these 512 and by that of the activations, and to be added to the
 *     f32 sums so far. A few rows of a tile at a time, this is done between the products of the
 *     next pass. (With factors for every 256 weights, products take a quarter more time.)
 *
 * Measured with 2048 x 2048 weights and 512 tokens (tile_amx.h has what bounds it): a product takes
 * 32 to 35 cycles; 25 if no sums leave, half of which is their way from the second level cache and
 * back; 30 if the activations of the next tokens need not come into the first level cache. Decoding
 * takes 4 %, spread as it is. */
#ifndef GGAUGE_GEMM_AMX_REQUANT_H
#define GGAUGE_GEMM_AMX_REQUANT_H

#include "amx/call_amx.h"
#include "avx512/act_avx512.h"
#include "avx512/exp_avx512.h"

#define RQ_BLOCKS Q8_K_BLOCKS
#define RQ_K_BLOCK (RQ_BLOCKS * QK_Q8_K) /* that have one factor */
#define RQ_STEPS (RQ_K_BLOCK / 64)       /* of a pass: 64 weights of 32 rows each */
#define RQ_X_LINES (sizeof(struct blk_q8_k_tile) / 64)
#define RQ_X_BYTES (RQ_X_LINES * TILE_BYTES) /* of 16 tokens, of a block */
#define RQ_PANELS 8
#define RQ_ROWS (RQ_PANELS * AMX_PANEL_ROWS)
#define RQ_PIECE 32 /* weights of 16 rows that are decoded at once, in 8 steps */
#define RQ_KEPT 45
#define RQ_GLU_ROWS RQ_K_BLOCK
#define RQ_MIN_TOKENS 20 /* see min_tokens of struct qkernel */

/* How a type becomes bytes. */
struct rq_format {
    /* Choose the factors of weights [256 i, 256 (i + n)) of 16 rows. Returns what the bytes of each
     * row are to be multiplied by. */
    __m512 (*open)(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept);
    /* Load piece b, n = RQ_PIECE weights, of the rows into kept [RQ_KEPT]; pieces come in order. */
    void (*begin)(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept);
    /* Weights [4 i, 4 i + 4) of the piece as [16 rows][4] bytes. */
    void (*step)(const __m512i *kept, int64_t i, char *out);
};

/* f32 sums of 32 tokens x 32 rows. */
struct rq_sums {
    float t[AMX_TOKENS][AMX_PANEL_ROWS];
};

/* The integers that are added to them, as they leave their tiles. */
struct rq_ints {
    int32_t t[4][TILE_ROWS][TILE_ROWS]; /* [2 of tokens][2 of rows] */
};

struct rq_scratch {
    char panel[2][RQ_PANELS][2 * RQ_STEPS * TILE_BYTES];
    float factors[2][RQ_PANELS][AMX_PANEL_ROWS];
    struct rq_ints ints;
    struct rq_sums zeros;
    struct rq_sums sums[AMX_TOKEN_GROUP / AMX_TOKENS][RQ_PANELS];
    float glu[AMX_TOKEN_GROUP][RQ_GLU_ROWS]; /* until there are enough for a block of activations */
    __m512i kept[RQ_KEPT];
};

static inline size_t rq_scratch_bytes(int64_t n) {
    (void)n;
    return sizeof(struct rq_scratch);
}

/* The sums of a block of up to 32 tokens and 32 rows on their way from tiles to f32. */
struct rq_drain {
    const struct rq_sums *from; /* what they are added to */
    float *to;                  /* token 0 of the sum */
    int64_t to_stride;          /* floats to the next token */
    const float *w;             /* factors of the rows */
    const char *s[2];           /* of the activations of 16 tokens each, 64 bytes apart */
    /* All 32 tokens and rows are there, and what `to` points to is read soon. */
    bool plain;
    bool stream;
    const struct rq_sums *gate; /* what is left is silu of these times the sums; NULL: not so */
    int m;
    int64_t n_rows;
};

/* Integers times w and s, added to sums. */
ALWAYS_INLINE __m512 rq_add(const int32_t *ints, __m512 w, __m512 s, const float *sums) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(ints)), _mm512_mul_ps(w, s),
                           _mm512_load_ps(sums));
}

/* Tokens [t, t + n) of those of a plain rq_drain, of which the parts are given. */
ALWAYS_INLINE void rq_drain_plain(const struct rq_ints *ints, const struct rq_sums *from, float *to,
                                  int64_t to_stride, const char *const s[2], const __m512 w[2],
                                  int t, int n) {
    UNROLL
    for (int j = 0; j < n; j++) {
        const int h = (t + j) / TILE_ROWS, r = (t + j) % TILE_ROWS;
        const __m512 factor = _mm512_set1_ps(load_f32(s[h] + 64 * r));
        const float *sums = from->t[t + j];
        float *y = to + (t + j) * to_stride;
        _mm512_store_ps(y, rq_add(ints->t[2 * h][r], w[0], factor, sums));
        _mm512_store_ps(y + 16, rq_add(ints->t[2 * h + 1][r], w[1], factor, sums + 16));
    }
}

/* Tokens [t, t + n) of those of d. */
static NOINLINE void rq_drain_any(const struct rq_drain *d, const struct rq_ints *ints, int t,
                                  int n) {
    const __m512 w[2] = { _mm512_loadu_ps(d->w), _mm512_loadu_ps(d->w + 16) };
    for (const int end = t + n; t < end && t < d->m; t++) {
        const int h = t / TILE_ROWS, r = t % TILE_ROWS;
        const __m512 factor = _mm512_set1_ps(load_f32(d->s[h] + 64 * r));
        const float *sums = d->from->t[t];
        float *y = d->to + t * d->to_stride;
        __m512 lo = rq_add(ints->t[2 * h][r], w[0], factor, sums);
        __m512 hi = rq_add(ints->t[2 * h + 1][r], w[1], factor, sums + 16);
        if (d->gate) {
            lo = _mm512_mul_ps(silu_f32x16(_mm512_load_ps(d->gate->t[t])), lo);
            hi = _mm512_mul_ps(silu_f32x16(_mm512_load_ps(d->gate->t[t] + 16)), hi);
        }
        if (d->stream && d->n_rows >= AMX_PANEL_ROWS) {
            _mm512_stream_ps(y, lo);
            _mm512_stream_ps(y + 16, hi);
        } else {
            _mm512_mask_storeu_ps(y, lanes16(d->n_rows), lo);
            _mm512_mask_storeu_ps(y + 16, lanes16(d->n_rows - 16), hi);
        }
    }
}

/* A block that is being decoded: next comes piece b of rows [row, row + 16) of it. */
struct rq_decoding {
    const struct amx_call *c;
    struct rq_scratch *s;
    struct amx_block to;
    int64_t row, b, n_b;
    int64_t at, next_at, n_bytes; /* in a row: where it begins and the next one does; its size */
    struct rows16 rows;
};

ALWAYS_INLINE struct rq_decoding rq_begin_decoding(const struct amx_call *c, struct rq_scratch *s,
                                                   const struct amx_block *to) {
    const int64_t stride = (int64_t)c->w_stride;
    return (struct rq_decoding){
        .c = c,
        .s = s,
        .to = *to,
        .n_b = to->nk / RQ_PIECE,
        .at = stride * to->k0 / c->n,
        .next_at = to->last ? 0 : stride * (to->k0 + to->nk) / c->n,
        .n_bytes = stride * to->nk / c->n + 63,
    };
}

/* Load the next piece. Where it goes, or NULL if there is none. */
ALWAYS_INLINE char *rq_begin_piece(const struct rq_format *f, struct rq_decoding *d) {
    const int64_t b = d->b, row = d->row, panel = row / AMX_PANEL_ROWS,
                  in_panel = row % AMX_PANEL_ROWS;
    struct rq_scratch *s = d->s;
    if (row >= d->to.nr) return NULL;
    if (b == 0) {
        d->rows = amx_rows16(d->c, d->to.r0 + row);
        _mm512_storeu_ps(s->factors[d->to.half][panel] + in_panel,
                         f->open(&d->rows, d->to.k0 / QK_Q8_K, d->to.nk / QK_Q8_K, s->kept));
    }
    if (++d->b == d->n_b) d->b = 0, d->row += TILE_ROWS;
    /* Two rows, every other time, of the 16 after these and of the same 16 in the block after this
     * one. */
    if (b % 2 == 0) {
        const int64_t i = row + b * (RQ_K_BLOCK / RQ_PIECE) / d->n_b;
        amx_fetch_rows(d->c, d->to.r0 + i + TILE_ROWS, d->at, d->n_bytes, true);
        amx_fetch_rows(d->c, d->to.r0 + i + (d->to.last ? d->to.nr : 0), d->next_at, d->n_bytes,
                       false);
    }
    f->begin(&d->rows, d->to.k0 / RQ_PIECE + b, RQ_PIECE, s->kept);
    return s->panel[d->to.half][panel] + (b / 2 * 2 + in_panel / TILE_ROWS) * TILE_BYTES +
           b % 2 * (TILE_BYTES / 2);
}

/* Decode n pieces, with nothing beside them. */
ALWAYS_INLINE void rq_decode(const struct rq_format *f, struct rq_decoding *d, int64_t n) {
    char *out;
    while (n-- > 0 && (out = rq_begin_piece(f, d)))
        for (int64_t i = 0; i < 8; i++)
            f->step(d->s->kept, i, out + 64 * i);
}

struct rq_pass {
    int m0, m1;                   /* tokens */
    const struct rq_drain *tiles; /* what is in the tiles; NULL: nothing */
    const char *next_x;           /* lines that are wanted soon, RQ_FETCHED in a step */
};

#define RQ_STORE(tile)                                                                             \
    do {                                                                                           \
        if (old) TILE_STORE(tile, ints->t[tile], 64);                                              \
        TILE_ZERO(tile);                                                                           \
    } while (0)
#define RQ_NOTHING(tile) (void)0
#define RQ_FETCHED                                                                                 \
    ((int)(2 * RQ_BLOCKS * RQ_X_BYTES / 64 / RQ_PANELS / RQ_STEPS)) /* lines in a step */

/* The products of 2 x 2 tiles in step i of panel, x0 and x1, and other work between them: DRAIN(i,
 * 0 and 1) some tokens, decode what is kept to out as f does, fetch next_x. BEFORE(sum) precedes
 * the first of a sum. */
#define RQ_PRODUCTS(i, BEFORE, DRAIN)                                                              \
    do {                                                                                           \
        const char *w = panel + 2 * (i)*TILE_BYTES;                                                \
        UNROLL                                                                                     \
        for (int line = 0; line < RQ_FETCHED; line++)                                              \
            _mm_prefetch(next_x + 64 * (RQ_FETCHED * (i) + line), _MM_HINT_T1);                    \
        BEFORE(0);                                                                                 \
        TILE_LOAD(4, x0 + RQ_X_TILE(i), 64);                                                       \
        TILE_LOAD_ONCE(6, w, 64);                                                                  \
        TILE_PRODUCT_I8(0, 4, 6);                                                                  \
        DRAIN(i, 0);                                                                               \
        BEFORE(2);                                                                                 \
        TILE_LOAD(5, x1 + RQ_X_TILE(i), 64);                                                       \
        TILE_PRODUCT_I8(2, 5, 6);                                                                  \
        RQ_DECODE(2 * (i));                                                                        \
        BEFORE(3);                                                                                 \
        TILE_LOAD_ONCE(7, w + TILE_BYTES, 64);                                                     \
        TILE_PRODUCT_I8(3, 5, 7);                                                                  \
        DRAIN(i, 1);                                                                               \
        BEFORE(1);                                                                                 \
        TILE_PRODUCT_I8(1, 4, 7);                                                                  \
        RQ_DECODE(2 * (i) + 1);                                                                    \
    } while (0)

/* The same of 1 x 2 tiles. */
#define RQ_PRODUCTS_ONE(i, BEFORE, DRAIN)                                                          \
    do {                                                                                           \
        const char *w = panel + 2 * (i)*TILE_BYTES;                                                \
        BEFORE(0);                                                                                 \
        TILE_LOAD(4, x0 + RQ_X_TILE(i), 64);                                                       \
        TILE_LOAD_ONCE(6, w, 64);                                                                  \
        TILE_PRODUCT_I8(0, 4, 6);                                                                  \
        DRAIN(i, 0);                                                                               \
        RQ_DECODE(2 * (i));                                                                        \
        BEFORE(1);                                                                                 \
        TILE_LOAD_ONCE(7, w + TILE_BYTES, 64);                                                     \
        TILE_PRODUCT_I8(1, 4, 7);                                                                  \
        DRAIN(i, 1);                                                                               \
        RQ_DECODE(2 * (i) + 1);                                                                    \
    } while (0)

/* Where the quants of step i are: after every four, there is a line of factors. */
#define RQ_X_TILE(i) (((i) + (i) / 4) * TILE_BYTES)
/* Step i of decoding, 8 to a piece. */
#define RQ_DECODE(i)                                                                               \
    do {                                                                                           \
        if (out) f->step(kept, (i) % 8, out + (i) % 8 * 64);                                       \
    } while (0)

/* Nothing is drained in step 0: the sums are still on their way out of the tiles. */
#define RQ_NONE(i, place) (void)0

/* A pass over 512 weights, while the sums of the one before leave and two pieces are decoded; where
 * there is nothing special about them, all that is needed of the sums is in registers. */
ALWAYS_INLINE void rq_products_plain(const struct rq_format *f, const char *panel, const char *x0,
                                     const char *x1, const struct rq_pass *p,
                                     struct rq_decoding *next) {
    /* 5 tokens in steps 1 to 4, 4 in the others */
#define DRAIN(i, place)                                                                            \
    rq_drain_plain(ints, from, to, stride, factors, w16,                                           \
                   ((i) < 5 ? 5 * ((i)-1) : 4 * (i)) + 2 * (place), (place) && (i) < 5 ? 3 : 2)
    const struct rq_drain *old = p->tiles;
    struct rq_ints *ints = &next->s->ints;
    const char *next_x = p->next_x;
    const __m512i *kept = next->s->kept;
    char *out = rq_begin_piece(f, next);
    RQ_PRODUCTS(0, RQ_STORE, RQ_NONE);
    const struct rq_sums *from = old->from;
    float *to = old->to;
    const int64_t stride = old->to_stride;
    const char *const factors[2] = { old->s[0], old->s[1] };
    const __m512 w16[2] = { _mm512_load_ps(old->w), _mm512_load_ps(old->w + 16) };
    RQ_PRODUCTS(1, RQ_NOTHING, DRAIN);
    RQ_PRODUCTS(2, RQ_NOTHING, DRAIN);
    RQ_PRODUCTS(3, RQ_NOTHING, DRAIN);
    out = rq_begin_piece(f, next);
    RQ_PRODUCTS(4, RQ_NOTHING, DRAIN);
    RQ_PRODUCTS(5, RQ_NOTHING, DRAIN);
    RQ_PRODUCTS(6, RQ_NOTHING, DRAIN);
    RQ_PRODUCTS(7, RQ_NOTHING, DRAIN);
#undef DRAIN
}

/* Any pass, of 4 or 8 steps. */
ALWAYS_INLINE void rq_products_any(const struct rq_format *f, int64_t n_steps, const char *panel,
                                   const char *x0, const char *x1, const struct rq_pass *p,
                                   struct rq_decoding *next) {
    const int each = n_steps == RQ_STEPS ? 3 : 6; /* tokens that leave at a time */
#define DRAIN(i, place)                                                                            \
    do {                                                                                           \
        if (old) rq_drain_any(old, ints, each *(2 * ((int)(i)-1) + (place)), each);                \
    } while (0)
    const struct rq_drain *old = p->tiles;
    struct rq_ints *ints = &next->s->ints;
    const char *next_x = p->next_x;
    const __m512i *kept = next->s->kept;
    char *out = rq_begin_piece(f, next);
    if (p->m1)
        RQ_PRODUCTS(0, RQ_STORE, RQ_NONE);
    else
        RQ_PRODUCTS_ONE(0, RQ_STORE, RQ_NONE);
    for (int i = 1; i < n_steps; i++) {
        if (i == RQ_STEPS / 2) out = rq_begin_piece(f, next);
        if (p->m1)
            RQ_PRODUCTS(i, RQ_NOTHING, DRAIN);
        else
            RQ_PRODUCTS_ONE(i, RQ_NOTHING, DRAIN);
    }
#undef DRAIN
}

/* Nothing is in the tiles after that. */
ALWAYS_INLINE void rq_flush(struct rq_pass *p, struct rq_ints *ints) {
    if (!p->tiles) return;
    amx_store_tiles(ints, p->m1 > 0);
    rq_drain_any(p->tiles, ints, 0, AMX_TOKENS);
    p->tiles = NULL;
}

ALWAYS_INLINE void rq_set_tokens(struct rq_pass *p, int m, struct rq_ints *ints) {
    if (p->m0 + p->m1 == m) return;
    rq_flush(p, ints);
    p->m0 = m < TILE_ROWS ? m : TILE_ROWS;
    p->m1 = m - p->m0;
    tiles_begin_rows(p->m0, p->m1);
}

/* What panel i of RQ_PANELS fetches of the activations that come after those of token t0. */
ALWAYS_INLINE const char *rq_next_x(const struct amx_call *c, const struct amx_block *b, int64_t t0,
                                    int64_t i) {
    const bool more = t0 + AMX_TOKENS < c->n_tok;
    const int64_t t = more ? t0 + AMX_TOKENS : 0, k = more ? b->k0 : b->k0 + b->nk;
    return c->x + (size_t)(t + i / (RQ_PANELS / 2) * TILE_ROWS) * c->x_stride +
           k / QK_Q8_K * RQ_X_BYTES + i % (RQ_PANELS / 2) * (RQ_FETCHED * RQ_STEPS * 64);
}

/* From where to where the sums of panel i go. */
ALWAYS_INLINE void rq_direct(const struct amx_call *c, struct rq_scratch *s,
                             const struct amx_block *b, int64_t t0, int64_t i, struct rq_drain *d) {
    struct rq_sums *sums = &s->sums[t0 / AMX_TOKENS][i];
    d->from = b->first ? &s->zeros : sums;
    d->n_rows = AMX_PANEL_ROWS;
    if (!b->last || (c->up && i % 2 == 0)) {
        d->to = sums->t[0];
        d->to_stride = AMX_PANEL_ROWS;
        d->plain = d->m == AMX_TOKENS;
    } else if (c->up) {
        d->gate = sums - 1;
        d->to = s->glu[t0] + (b->r0 / 2 + i / 2 * AMX_PANEL_ROWS) % RQ_GLU_ROWS;
        d->to_stride = RQ_GLU_ROWS;
    } else {
        const int64_t r = i * AMX_PANEL_ROWS;
        d->to = (float *)(void *)(c->y + (size_t)t0 * c->y_stride) + b->r0 + r;
        d->to_stride = (int64_t)(c->y_stride / sizeof(float));
        d->n_rows = b->nr - r;
        d->stream = c->stream;
        d->plain = d->m == AMX_TOKENS && d->n_rows >= AMX_PANEL_ROWS && !c->stream &&
                   ((uintptr_t)c->y | c->y_stride) % 64 == 0;
    }
}

/* Blocks [b, b + n) of what glu leaves, as activations. */
ALWAYS_INLINE void rq_leave_glu(const struct amx_call *c, const struct rq_scratch *s, int64_t b,
                                int n) {
    char *y = c->y + b * (int64_t)RQ_X_BYTES;
    for (int64_t t = 0; t < c->n_tok; t++)
        q8_k_tile_blocks(s->glu[t], n, act_in_group(y, c->y_stride, t, TILE_ROWS), TILE_BYTES);
}

/* The tokens of c, a group of them, by the decoded panels of b, while the next are decoded. */
ALWAYS_INLINE void rq_tokens(const struct rq_format *f, const struct amx_call *c,
                             struct rq_scratch *s, const struct amx_block *b,
                             struct rq_decoding *next) {
    struct rq_drain drains[2];
    struct rq_pass p = { 0 };
    const int64_t n_steps = b->nk / 64, factors = (RQ_X_LINES - 1) * TILE_BYTES;
    const int64_t passes = amx_parts(c->n_tok, AMX_TOKENS) * amx_parts(b->nr, AMX_PANEL_ROWS);
    const int64_t n_pieces = amx_parts(amx_parts(next->to.nr, TILE_ROWS) * next->n_b, passes);
    unsigned at = 0;
    for (int64_t t0 = 0; t0 < c->n_tok; t0 += AMX_TOKENS) {
        const int m = (int)amx_min(c->n_tok - t0, AMX_TOKENS);
        const char *x0 = c->x + (size_t)t0 * c->x_stride + b->k0 / QK_Q8_K * RQ_X_BYTES;
        const char *x1 = x0 + TILE_ROWS * c->x_stride;
        rq_set_tokens(&p, m, &s->ints);
        for (int64_t i = 0; i * AMX_PANEL_ROWS < b->nr; i++) {
            const char *panel = s->panel[b->half][i];
            struct rq_drain *to = &drains[at++ % 2];
            *to = (struct rq_drain){ .w = s->factors[b->half][i],
                                     .s = { x0 + factors, x1 + factors },
                                     .m = m };
            rq_direct(c, s, b, t0, i, to);
            p.next_x = rq_next_x(c, b, t0, i);
            if (LIKELY(p.tiles && p.tiles->plain && n_steps == RQ_STEPS))
                rq_products_plain(f, panel, x0, x1, &p, next);
            else
                rq_products_any(f, n_steps, panel, x0, x1, &p, next);
            rq_decode(f, next, n_pieces - n_steps / 4);
            p.tiles = to;
        }
    }
    rq_flush(&p, &s->ints);
}

/* Up to AMX_TOKEN_GROUP tokens. */
ALWAYS_INLINE void rq_group(const struct rq_format *f, const struct amx_call *c,
                            struct rq_scratch *s) {
    struct amx_block b = amx_block_at(c, 0, 0, 0, RQ_ROWS, RQ_K_BLOCK);
    memset(&s->zeros, 0, sizeof s->zeros);
    struct rq_decoding d = rq_begin_decoding(c, s, &b);
    for (int64_t r = 0; r < b.nr; r += 2)
        amx_fetch_rows(c, r, 0, d.n_bytes, false);
    while (b.r0 < c->n_rows) {
        rq_decode(f, &d, INT64_MAX); /* what is left of it */
        const struct amx_block next = amx_next_block(c, &b, RQ_ROWS, RQ_K_BLOCK);
        d = rq_begin_decoding(c, s, &next);
        rq_tokens(f, c, s, &b, &d);
        if (c->up && b.last) { /* the last scale may be of one block alone */
            const int64_t end = b.r0 + b.nr, n_blocks = end / 2 / QK_Q8_K, n = n_blocks % RQ_BLOCKS;
            if (end / 2 % RQ_GLU_ROWS == 0)
                rq_leave_glu(c, s, n_blocks - RQ_BLOCKS, RQ_BLOCKS);
            else if (end == c->n_rows)
                rq_leave_glu(c, s, n_blocks - n, (int)n);
        }
        b = next;
    }
}

ALWAYS_INLINE void rq_run(const struct rq_format *f, const struct amx_call *c,
                          struct rq_scratch *s) {
    for (int64_t t = 0; t < c->n_tok; t += AMX_TOKEN_GROUP) {
        const struct amx_call part = amx_group_of(c, t);
        rq_group(f, &part, s);
    }
    _mm_sfence();
    tiles_end();
}

/* The cell of type NAME with a format of NAME_open, BEGIN and NAME_step. */
#define RQ_CELL(NAME, BEGIN)                                                                       \
    static const struct rq_format NAME##_format = { .open = NAME##_open,                           \
                                                    .begin = BEGIN,                                \
                                                    .step = NAME##_step };                         \
    static NOINLINE void NAME##_run(const struct amx_call *c, void *scratch) {                     \
        rq_run(&NAME##_format, c, scratch);                                                        \
    }                                                                                              \
    AMX_MUL_MAT(NAME)                                                                              \
    AMX_GLU(NAME)                                                                                  \
    const struct qkernel NAME##_amx_requant = { .act = QT_q8_k_tile,                               \
                                                .act_group = TILE_ROWS,                            \
                                                .tol_nmse = AMX_TOL_NMSE,                          \
                                                .min_tokens = RQ_MIN_TOKENS,                       \
                                                .row_multiple = QK_Q8_K,                           \
                                                .chunk_rows = AMX_CHUNK_ROWS,                      \
                                                .mul_mat = NAME##_mul_mat,                         \
                                                .glu = NAME##_glu,                                 \
                                                .glu_rows = RQ_GLU_ROWS,                           \
                                                .mul_mat_scratch = rq_scratch_bytes }

#endif
