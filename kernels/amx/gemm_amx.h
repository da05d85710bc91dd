/* SPDX-License-Identifier: MIT
 * gemm_amx.h - products of weights of any type with bf16 activations in bf16 tiles.
 *
 * Weights are decoded to bf16, scale included, into panels of 32 rows that stay in the second level
 * cache while all tokens of the call pass; so a decoder's price is shared by the tokens. The panels
 * of the next block are decoded between the products of this one, a few instructions after every
 * four tiles: vectors and tiles are different units, but a core looks no further ahead than a few
 * tiles. So do complete sums leave, row by row and past the caches if they are many, since they
 * would only displace the panels. What is rounded is 2^-8 of a weight at most. (Exact scales were
 * measured, too: a scale changes every 32 weights, so sums would have to leave their tile after
 * each instruction, which takes twice the time of the products with integer weights in bf16 and
 * scales in f32, and three times with int8.)
 *
 *   for 512 tokens, for 256 rows    so that sums rest in the second level cache
 *     for 256 weights of a row      so that a panel and activations of 32 tokens share the first
 *       for 32 tokens               read where they lie: a tile is 1 KiB in one piece
 *         for panels                4 tiles of sums: 2 of tokens x 2 of rows
 *           products; meanwhile 16 x 32 weights of the next block become panels
 *
 * Tiles 0..3 are sums, [tokens][16 rows] f32; 4 and 5 activations, [tokens][32] bf16; 6 and 7
 * weights, [16 pairs of k][16 rows][2] bf16.
 *
 * A sum goes through one chain of additions in order of k, whatever the call; between blocks of k
 * it is stored and loaded again, which changes nothing. So a token's results have the same bits in
 * any call.
 *
 * What bounds it: memory, not decoding. 4096 x 4096 weights of iq4_kt, 512 tokens, two threads of a
 * Sapphire Rapids, G MAC/s, median of 4 runs: 1620; 1930 if sums neither leave nor come; 2000 if
 * complete ones do not leave, either; 1980 if nothing is decoded, either; 2410 if the activations
 * are the same in every block of k, so that they stay in the second level cache, which the third
 * one fills at 23 GB/s (its own rate to the first is 160). Products alone, on tiles in the first
 * level cache: 2800. Orders that move less between two levels move more between two others, and
 * none was faster: panels outside of tokens; 320, 384 or 512 rows; 512 weights in two passes whose
 * sums stay in the first level cache. Activations of 128 tokens could stay in the second level
 * cache for a whole row, and their sums in the first, but then all weights are decoded four times,
 * and the port of multiply-adds is full. */
#ifndef GGAUGE_GEMM_AMX_H
#define GGAUGE_GEMM_AMX_H

#include "avx512/exp_avx512.h"
#include "call_amx.h"

#define TILE_K 32 /* bf16 of a row of a tile */

#define AMX_K_BLOCK 256
#define AMX_PANELS 8
/* 16 tokens of a block of k, tile after tile. */
#define AMX_PACKED_BYTES (AMX_K_BLOCK / TILE_K * TILE_BYTES)
#define AMX_PANEL_BYTES (AMX_K_BLOCK / TILE_K * 2 * TILE_BYTES)
#define AMX_ROWS (AMX_PANELS * AMX_PANEL_ROWS)
#define AMX_KEPT 44 /* registers of a decoder */
#define AMX_STEPS 8 /* of a piece of 16 rows x 32 weights: 4 weights each */

/* Fewest tokens that are worth a panel: see min_tokens of struct qkernel. */
#define AMX_MIN_TOKENS 32

/* How a type comes into tiles. A piece is weights [32 b, 32 b + n) of 16 rows, n <= 32; it becomes
 * [16 pairs of k][16 rows][2] bf16, with zeros after the end of a row. */
struct amx_format {
    /* Load piece b into kept [AMX_KEPT]. The pieces of 16 rows come in order, from a multiple of
     * AMX_K_BLOCK on; kept stays as it is from one to the next. */
    void (*begin)(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept);
    /* Its pairs 2 i and 2 i + 1 to out and out + 64, i < AMX_STEPS; with split their lower parts to
     * AMX_PANELS * AMX_PANEL_BYTES behind. */
    void (*step)(const __m512i *kept, int64_t i, char *out);
    /* What the sums of a row are multiplied by at the end; NULL = 1. */
    float (*row_scale)(const char *row);
    /* Values [0, nk) of an f32 activation as upper and lower parts, 32 to a row of every tile,
     * zeros up to a multiple of 32; NULL: activations are bf16, in groups of 16 (struct
     * qkernel). */
    void (*pack)(const float *x, int64_t nk, char *high, char *low);
    bool split; /* weights have lower parts, too */
};

/* Sums of 32 tokens x 32 rows, a tile after the other. */
struct amx_sums {
    float t[4][TILE_ROWS][TILE_ROWS]; // [2 of tokens][2 of rows]
};

struct amx_scratch {
    /* The block in use and the next one; upper, lower: [k / 32][2][16][16][2] bf16 */
    char panel[2][2][AMX_PANELS][AMX_PANEL_BYTES];
    char x[2][2][AMX_PACKED_BYTES]; // packed: upper, lower; 16 tokens each
    struct amx_sums sums[AMX_TOKEN_GROUP / AMX_TOKENS][AMX_PANELS];
    __m512i kept[AMX_KEPT];
    float scale[AMX_PANELS * AMX_PANEL_ROWS];
};

static inline size_t amx_scratch_bytes(int64_t n) {
    (void)n;
    return sizeof(struct amx_scratch);
}

/* Bytes from the start of a token in y to where row r, the first of a block, leaves its result. */
ALWAYS_INLINE int64_t amx_column(const struct amx_call *c, int64_t r) {
    return c->up ? r / (2 * AMX_PANEL_ROWS) * TILE_BYTES : r * (int64_t)sizeof(float);
}

/* In between two passes: the sums in a tile go to old (NULL: nowhere), and those of new come (NULL:
 * zeros). Called one by one before the first products of a pass, so that no store waits for a
 * product and no product for a store. */
#define AMX_EXCHANGE(tile, old, new)                                                               \
    do {                                                                                           \
        if (old) TILE_STORE(tile, (old)->t[tile], 64);                                             \
        if (new)                                                                                   \
            TILE_LOAD(tile, (new)->t[tile], 64);                                                   \
        else                                                                                       \
            TILE_ZERO(tile);                                                                       \
    } while (0)

/* Complete sums of m tokens and n_rows rows that go to y, times scale, token by token. */
struct amx_leaving {
    const struct amx_sums *sums; /* NULL: none */
    const float *scale;
    char *y; /* of the first token and row */
    size_t y_stride;
    int64_t n_rows;
    int m;
    bool glu, stream; /* rows are of gate and up; past the caches */
    int token, row;   /* the next 32 */
    int parts;        /* of 32 rows, or of 32 pairs, that leave in a step */
};

ALWAYS_INLINE void amx_left(struct amx_leaving *l, int n) {
    l->row += n;
    if (l->row < l->n_rows) return;
    l->row = 0;
    if (++l->token == l->m) l->sums = NULL;
}

/* The next 32 pairs of a token, as one line of its activations. */
static NOINLINE void amx_leave_glu(struct amx_leaving *l) {
    const int t = l->token, r = l->row;
    const struct amx_sums *gate = l->sums + r / AMX_PANEL_ROWS, *up = gate + 1;
    __m256i y[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        const float *g = gate->t[t / TILE_ROWS * 2 + i][t % TILE_ROWS];
        const float *u = up->t[t / TILE_ROWS * 2 + i][t % TILE_ROWS];
        const float *scale = l->scale + r + 16 * i;
        const __m512 a = _mm512_mul_ps(_mm512_load_ps(g), _mm512_loadu_ps(scale));
        const __m512 b = _mm512_mul_ps(_mm512_load_ps(u), _mm512_loadu_ps(scale + AMX_PANEL_ROWS));
        y[i] = bf16_of(_mm512_mul_ps(silu_f32x16(a), b));
    }
    char *to = act_in_group(l->y, l->y_stride, t, TILE_ROWS) +
               r / (2 * AMX_PANEL_ROWS) * TILE_BYTES;
    const __m512i line = _mm512_inserti64x4(_mm512_castsi256_si512(y[0]), y[1], 1);
    if (l->stream)
        _mm512_stream_si512((__m512i *)(void *)to, line);
    else
        _mm512_store_si512(to, line);
    amx_left(l, 2 * AMX_PANEL_ROWS);
}

/* The next 32 rows of a token. */
ALWAYS_INLINE void amx_leave(struct amx_leaving *l) {
    if (l->glu) {
        amx_leave_glu(l);
        return;
    }
    const int t = l->token, r = l->row;
    const float *left = l->sums[r / AMX_PANEL_ROWS].t[t / TILE_ROWS * 2][t % TILE_ROWS];
    const float *right = left + TILE_ROWS * TILE_ROWS;
    const __m512 lo = _mm512_mul_ps(_mm512_load_ps(left), _mm512_loadu_ps(l->scale + r));
    const __m512 hi = _mm512_mul_ps(_mm512_load_ps(right), _mm512_loadu_ps(l->scale + r + 16));
    float *dst = (float *)(void *)(l->y + t * l->y_stride) + r;
    const int64_t rest = l->n_rows - r;
    if (l->stream && rest >= AMX_PANEL_ROWS) {
        _mm512_stream_ps(dst, lo);
        _mm512_stream_ps(dst + 16, hi);
    } else {
        _mm512_mask_storeu_ps(dst, lanes16(rest), lo);
        _mm512_mask_storeu_ps(dst + 16, lanes16(rest - 16), hi);
    }
    amx_left(l, AMX_PANEL_ROWS);
}

ALWAYS_INLINE void amx_leave_all(struct amx_leaving *l) {
    while (l->sums)
        amx_leave(l);
}

/* A pass over a panel: 32 tokens. */
struct amx_pass {
    const char *x[2], *low[2]; /* tiles of 16 tokens each; low: their lower parts */
    int64_t n_blocks;          /* of 32 weights */
    int m0, m1;                /* tokens */
    struct amx_sums *old;      /* see AMX_EXCHANGE */
    const struct amx_sums *new;
    /* Done on the way: a piece is decoded to out (NULL: none), sums leave. */
    const __m512i *kept;
    char *out;
    struct amx_leaving leaving;
    /* Fetched on the way; hints, which past the end do no harm. */
    const char *next_sums;
    const char *next_x; /* four lines of each tile of the next 32 tokens */
};

/* The other work of step i. */
ALWAYS_INLINE void amx_aside(const struct amx_format *f, struct amx_pass *p, int64_t i) {
    UNROLL
    for (int j = 0; j < 4; j++) {
        _mm_prefetch(p->next_sums + 256 * i + 64 * j, _MM_HINT_T0);
        _mm_prefetch(p->next_x + TILE_BYTES * i + 64 * j, _MM_HINT_T1);
    }
    if (p->out) f->step(p->kept, i, p->out + 128 * i);
    for (int j = 0; j < p->leaving.parts && p->leaving.sums; j++)
        amx_leave(&p->leaving);
}

/* The products of 2 x 2 tiles; BEFORE(sum) precedes those of a sum. */
#define AMX_PRODUCTS(x0, x1, panel, BEFORE)                                                        \
    do {                                                                                           \
        BEFORE(0);                                                                                 \
        TILE_LOAD(4, x0, 64);                                                                      \
        TILE_LOAD_ONCE(6, panel, 64);                                                              \
        TILE_PRODUCT(0, 4, 6);                                                                     \
        BEFORE(2);                                                                                 \
        TILE_LOAD(5, x1, 64);                                                                      \
        TILE_PRODUCT(2, 5, 6);                                                                     \
        BEFORE(3);                                                                                 \
        TILE_LOAD_ONCE(7, (panel) + TILE_BYTES, 64);                                               \
        TILE_PRODUCT(3, 5, 7);                                                                     \
        BEFORE(1);                                                                                 \
        TILE_PRODUCT(1, 4, 7);                                                                     \
    } while (0)

/* Add the products of tiles x and the panel. With aside, they are the first of a pass. */
ALWAYS_INLINE void amx_products(const char *panel, const char *const x[2], struct amx_pass *p,
                                const struct amx_format *aside) {
#define EXCHANGE(tile) AMX_EXCHANGE(tile, old, new)
#define NOTHING(tile) (void)0
    const char *x0 = x[0], *x1 = x[1];
    struct amx_sums *old = p->old;
    const struct amx_sums *new = p->new;
    int64_t b = 0;
    if (p->m1) {
        if (aside) {
            AMX_PRODUCTS(x0, x1, panel, EXCHANGE);
            amx_aside(aside, p, b++);
        }
        if (aside && p->n_blocks == AMX_STEPS) {
            UNROLL
            for (; b < AMX_STEPS; b++) {
                AMX_PRODUCTS(x0 + b * TILE_BYTES, x1 + b * TILE_BYTES, panel + 2 * b * TILE_BYTES,
                             NOTHING);
                amx_aside(aside, p, b);
            }
            return;
        }
        for (; b < p->n_blocks; b++) {
            AMX_PRODUCTS(x0 + b * TILE_BYTES, x1 + b * TILE_BYTES, panel + 2 * b * TILE_BYTES,
                         NOTHING);
            if (aside) amx_aside(aside, p, b);
        }
    } else {
        if (aside) {
            EXCHANGE(0);
            EXCHANGE(1);
        }
        for (; b < p->n_blocks; b++, panel += 2 * TILE_BYTES, x0 += TILE_BYTES) {
            TILE_LOAD(4, x0, 64);
            TILE_LOAD_ONCE(6, panel, 64);
            TILE_PRODUCT(0, 4, 6);
            TILE_LOAD_ONCE(7, panel + TILE_BYTES, 64);
            TILE_PRODUCT(1, 4, 7);
            if (aside) amx_aside(aside, p, b);
        }
    }
    for (; aside && b < AMX_STEPS; b++)
        amx_aside(aside, p, b);
#undef EXCHANGE
#undef NOTHING
}

/* A block that is being decoded: next comes piece b of rows [row, row + 16) of it. */
struct amx_decoding {
    struct amx_block to;
    int64_t row, b, n_b;
    int64_t at, next_at, n_bytes; /* in a row: where it begins, where the one after it does; its
                                   * size */
    struct rows16 rows;
};

ALWAYS_INLINE struct amx_decoding amx_begin_decoding(const struct amx_call *c,
                                                     const struct amx_block *to) {
    const int64_t stride = (int64_t)c->w_stride;
    return (struct amx_decoding){
        .to = *to,
        .n_b = amx_parts(to->nk, TILE_K),
        .at = stride * to->k0 / c->n,
        .next_at = to->last ? 0 : stride * (to->k0 + to->nk) / c->n,
        .n_bytes = stride * AMX_K_BLOCK / c->n + 63,
    };
}

/* Load the next piece. Where it goes, or NULL if there is none. */
ALWAYS_INLINE char *amx_begin_piece(const struct amx_format *f, const struct amx_call *c,
                                    struct amx_decoding *d, struct amx_scratch *s) {
    const int64_t b = d->b, row = d->row;
    if (row >= d->to.nr) return NULL;
    if (b == 0) d->rows = amx_rows16(c, d->to.r0 + row);
    if (++d->b == d->n_b) d->b = 0, d->row += TILE_ROWS;
    /* Two rows of the 16 after these, and of the same 16 in the block after this one. */
    amx_fetch_rows(c, d->to.r0 + row + TILE_ROWS + 2 * b, d->at, d->n_bytes, true);
    amx_fetch_rows(c, d->to.r0 + row + (d->to.last ? d->to.nr : 0) + 2 * b, d->next_at, d->n_bytes,
                   false);
    f->begin(&d->rows, d->to.k0 / TILE_K + b, amx_min(d->to.nk - b * TILE_K, TILE_K), s->kept);
    return s->panel[d->to.half][0][row / AMX_PANEL_ROWS] +
           (2 * b + row % AMX_PANEL_ROWS / TILE_ROWS) * TILE_BYTES;
}

/* Decode n pieces more, with nothing beside them. */
ALWAYS_INLINE void amx_decode(const struct amx_format *f, const struct amx_call *c,
                              struct amx_decoding *d, struct amx_scratch *s, int64_t n) {
    char *out;
    while (n-- > 0 && (out = amx_begin_piece(f, c, d, s)))
        for (int64_t i = 0; i < AMX_STEPS; i++)
            f->step(s->kept, i, out + 128 * i);
}

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

/* Tiles for m tokens; what is in them goes where it belongs first. */
ALWAYS_INLINE void amx_set_tokens(struct amx_pass *p, int m) {
    if (p->m0 + p->m1 == m) return;
    if (p->old) amx_store_tiles(p->old, p->m1 > 0);
    p->old = NULL;
    p->m0 = m < TILE_ROWS ? m : TILE_ROWS;
    p->m1 = m - p->m0;
    tiles_begin_rows(p->m0, p->m1);
}

/* The tokens of c (up to AMX_TOKEN_GROUP) by the decoded panels of b, while the next are
 * decoded. */
ALWAYS_INLINE void amx_tokens(const struct amx_format *f, const struct amx_call *c,
                              struct amx_scratch *s, const struct amx_block *b,
                              struct amx_decoding *next) {
    struct amx_pass p = { .n_blocks = amx_parts(b->nk, TILE_K), .kept = s->kept };
    int64_t passes = amx_parts(c->n_tok, AMX_TOKENS) * amx_parts(b->nr, AMX_PANEL_ROWS);
    const int64_t n_pieces = amx_parts(amx_parts(next->to.nr, TILE_ROWS) * next->n_b, passes);
    p.out = amx_begin_piece(f, c, next, s);
    for (int64_t t0 = 0; t0 < c->n_tok; t0 += AMX_TOKENS) {
        const int m = (int)amx_min(c->n_tok - t0, AMX_TOKENS);
        struct amx_sums *sums = s->sums[t0 / AMX_TOKENS];
        amx_set_tokens(&p, m);
        amx_activations(f, c, s, b, t0, m, &p);
        for (int64_t r = 0, i = 0; r < b->nr; r += AMX_PANEL_ROWS, i++) {
            const char *panel = s->panel[b->half][0][i];
            p.next_sums = (const char *)(sums + i + 1);
            p.next_x = f->pack ? p.x[0] : amx_next_x(c, b, t0, i);
            p.new = b->first ? NULL : sums + i;
            amx_products(panel, p.x, &p, f);
            if (f->pack) amx_products(panel, p.low, &p, NULL);
            if (f->split) amx_products(panel + AMX_PANELS * AMX_PANEL_BYTES, p.x, &p, NULL);
            /* While the last tiles are still being multiplied: */
            amx_decode(f, c, next, s, n_pieces - 1);
            p.out = --passes ? amx_begin_piece(f, c, next, s) : NULL;
            p.old = sums + i;
        }
        amx_leave_all(&p.leaving);
        if (!b->last) continue;
        /* The last of them leave their tiles before the first of this leave. */
        p.leaving =
            (struct amx_leaving){ .sums = sums,
                                  .scale = s->scale,
                                  .y = c->y + (size_t)t0 * c->y_stride + amx_column(c, b->r0),
                                  .y_stride = c->y_stride,
                                  .n_rows = b->nr,
                                  .m = m,
                                  .glu = c->up,
                                  .stream = c->stream,
                                  .parts = c->up ? 2 : 4 };
    }
    amx_store_tiles(p.old, p.m1 > 0);
    amx_leave_all(&p.leaving);
}

/* Up to AMX_TOKEN_GROUP tokens. */
ALWAYS_INLINE void amx_group(const struct amx_format *f, const struct amx_call *c,
                             struct amx_scratch *s) {
    struct amx_block b = amx_block_at(c, 0, 0, 0, AMX_ROWS, AMX_K_BLOCK);
    struct amx_decoding d = amx_begin_decoding(c, &b);
    for (int64_t r = 0; r < b.nr; r += 2)
        amx_fetch_rows(c, r, 0, d.n_bytes, false);
    while (b.r0 < c->n_rows) {
        amx_decode(f, c, &d, s, INT64_MAX); /* what is left of it */
        if (b.first)
            for (int64_t r = 0; r < AMX_PANELS * AMX_PANEL_ROWS; r++)
                s->scale[r] = f->row_scale && r < b.nr
                                  ? f->row_scale(amx_row(c, b.r0 + r))
                                  : 1.0f;
        const struct amx_block next = amx_next_block(c, &b, AMX_ROWS, AMX_K_BLOCK);
        d = amx_begin_decoding(c, &next);
        amx_tokens(f, c, s, &b, &d);
        b = next;
    }
}

ALWAYS_INLINE void amx_run(const struct amx_format *f, const struct amx_call *c,
                           struct amx_scratch *s) {
    for (int64_t t = 0; t < c->n_tok; t += AMX_TOKEN_GROUP) {
        const struct amx_call part = amx_group_of(c, t);
        amx_group(f, &part, s);
    }
    _mm_sfence();
    tiles_end();
}

/* The cell of type NAME with format NAME_format. */
#define AMX_CELL(NAME, ...)                                                                        \
    static NOINLINE void NAME##_run(const struct amx_call *c, void *scratch) {                     \
        amx_run(&NAME##_format, c, scratch);                                                       \
    }                                                                                              \
    AMX_MUL_MAT(NAME)                                                                              \
    const struct qkernel NAME##_amx = { .chunk_rows = AMX_CHUNK_ROWS,                              \
                                        .mul_mat = NAME##_mul_mat,                                 \
                                        .mul_mat_scratch = amx_scratch_bytes,                      \
                                        __VA_ARGS__ }

/* Of a type of quants from NAME_decode. */
#define AMX_QUANT_CELL(NAME, ROW_SCALE)                                                            \
    static const struct amx_format NAME##_format = { .begin = NAME##_begin,                        \
                                                     .step = NAME##_step,                          \
                                                     .row_scale = ROW_SCALE };                     \
    static void NAME##_run(const struct amx_call *c, void *scratch);                               \
    AMX_GLU(NAME)                                                                                  \
    AMX_CELL(NAME, .act = QT_bf16, .act_group = TILE_ROWS, .tol_nmse = AMX_TOL_NMSE,               \
             .min_tokens = AMX_MIN_TOKENS, .glu = NAME##_glu, .glu_rows = AMX_PANEL_ROWS)

#endif
