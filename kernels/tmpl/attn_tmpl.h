/* SPDX-License-Identifier: MIT
 * attn_tmpl.h - who computes what of an attention node, for any column: tiles of tokens, ranges of
 * cells, their order, and how a row is put together from its ranges.
 *
 * A unit of work is a tile of tokens of one sequence and one kv head; a row of it is a token and a
 * head of the group. Cells are cut into ranges at fixed positions. Each range leaves a softmax of
 * its own (struct attn_part), and a row folds its ranges in order, so nothing of size n_tok x n_kv
 * exists. Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et
 * al. 2022, "FlashAttention".
 *
 * A batch of few tokens at depth has fewer units than a machine has threads, so there a range is a
 * unit of work; else one unit walks them all. Both fold in the same way, and the column promises
 * that inside of a range no bit of a row depends on the rows that share the unit: the result of a
 * token is bitwise the same in any batch, at any place in it, on any number of threads. The size of
 * a tile may therefore follow the number of threads.
 *
 * All of it is inlined into its caller, where `c` is a constant, so the calls through it are
 * direct. */
#ifndef GGAUGE_ATTN_TMPL_H
#define GGAUGE_ATTN_TMPL_H

#include <string.h>

#include "base/compiler.h"
#include "op.h"

#define ATTN_SPLIT_TOKENS 16  /* up to here a range of cells is a unit of work */
#define ATTN_UNITS_PER_THREAD 4 /* tiles shrink until every thread finds so many units */

/* One side of the cache, K or V. */
struct attn_side {
    const struct tensor *t;
    size_t head_bytes;
    int64_t hd;  /* elements per head */
    int64_t pad; /* hd rounded up to the column's unit */
};

struct attn {
    const struct node *node;
    const int32_t *first, *pos;
    int64_t n_tok, n_head_kv, group; /* group = heads per kv head */
    struct attn_side k, v;
    int64_t tile_tok; /* tokens per unit at most */
    int64_t tile_rows; /* rows per unit at most, rounded up to the column's unit */
};

struct attn_unit {
    int64_t t0, n_rows; /* row r is token t0 + r / heads, head g * group + r % heads */
    int64_t g;          /* kv head, the first one */
    int64_t heads;      /* of a token: group, or those of all kv heads */
    int64_t first;      /* cell of position 0 */
    int64_t end;        /* positions that the unit sees */
};

/* What rows have of some cells: acc / sum is the result, relative to max, which is -inf as long as
 * there is no score and never a NaN; a NaN shows in the sum. 64-byte aligned. */
struct attn_part {
    float *acc; /* [rows, v.pad] */
    float *max, *sum; /* [rows] */
};

/* Constants and arithmetic of a column. */
struct attn_cell {
    int64_t range_cells;            /* cells per range */
    int64_t tile_tokens, tile_rows; /* limits of a tile; one token may have more rows */
    int64_t row_unit;               /* rows of scratch are a multiple of it */
    int64_t k_unit, v_unit;         /* elements of a head are padded to a multiple of it */
    /* NULL, or whether a unit of one token can be of all kv heads. */
    bool (*takes_all_heads)(const struct attn *a);

    /* Bytes of the column's own scratch, a multiple of 64. */
    size_t (*own_bytes)(const struct attn *a);
    /* Prepare q of the unit. */
    void (*begin)(const struct attn *a, const struct attn_unit *u, char *own);
    /* Leave in part what the range gives to the rows; of a row that sees no cell of it max = -inf
     * and sum = 0. Rows up to a multiple of row_unit may be written. */
    void (*range)(const struct attn *a, const struct attn_unit *u, int64_t range,
                  const struct attn_part *part, char *own);
    /* NULL, or range and then fold at once, which needs no memory for the parts of all rows. */
    void (*range_fold)(const struct attn *a, const struct attn_unit *u, int64_t range,
                       const struct attn_part *into, char *own);
    /* into = into and then part, both brought to the larger maximum; a row whose part saw no cell
     * keeps its bits. */
    void (*fold)(int64_t n_rows, int64_t v_pad, const struct attn_part *into,
                 const struct attn_part *part);
    /* y [n] = acc / sum; acc [v_pad] may be used up. */
    void (*finish)(float *acc, float sum, float *y, int64_t n);
};

ALWAYS_INLINE int64_t attn_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

ALWAYS_INLINE int64_t attn_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

ALWAYS_INLINE int64_t attn_round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Head g of a cell. */
ALWAYS_INLINE const char *attn_row(const struct attn_side *side, int64_t cell, int64_t g) {
    return (const char *)tensor_row(side->t, cell) + (size_t)g * side->head_bytes;
}

ALWAYS_INLINE struct attn_side attn_side_of(const struct tensor *t, int64_t hd, int64_t unit) {
    size_t bytes = qtype_row_bytes((enum qtype)t->type, hd);
    return (struct attn_side){ t, bytes, hd, attn_round_up(hd, unit) };
}

ALWAYS_INLINE struct attn attn_of(const struct attn_cell *c, const struct node *n) {
    struct attn a = { .node = n, .first = n->src[3]->data, .pos = n->src[4]->data };
    a.n_tok = n->src[0]->ne[1];
    a.n_head_kv = n->p.attn.n_head_kv;
    a.group = n->p.attn.n_head / n->p.attn.n_head_kv;
    a.k = attn_side_of(n->src[1], n->p.attn.n_embd_head_k, c->k_unit);
    a.v = attn_side_of(n->src[2], n->p.attn.n_embd_head_v, c->v_unit);
    a.tile_tok = attn_max(1, attn_min(c->tile_tokens, c->tile_rows / a.group));
    a.tile_rows = attn_round_up(a.tile_tok * a.group, c->row_unit);
    return a;
}

ALWAYS_INLINE size_t attn_part_bytes(const struct attn *a) {
    size_t rows = (size_t)a->tile_rows;
    return rows * (size_t)a->v.pad * sizeof(float) +
           2 * (size_t)attn_round_up((int64_t)(rows * sizeof(float)), 64);
}

ALWAYS_INLINE struct attn_part attn_part_at(const struct attn *a, char *memory) {
    struct attn_part p = { .acc = (float *)memory };
    p.max = p.acc + a->tile_rows * a->v.pad;
    p.sum = p.max + attn_round_up(a->tile_rows, 16);
    return p;
}

/* Scratch of a thread: the sums of all ranges so far, those of one range unless they are folded at
 * once, the column's own. */
ALWAYS_INLINE size_t attn_own_at(const struct attn_cell *c, const struct attn *a) {
    return (c->range_fold ? 1 : 2) * attn_part_bytes(a);
}

ALWAYS_INLINE size_t attn_scratch_bytes(const struct attn_cell *c, const struct node *n) {
    struct attn a = attn_of(c, n);
    return attn_own_at(c, &a) + c->own_bytes(&a);
}

/* The tiles of a batch from the last token, whose units are the longest, to the first. A tile ends
 * at multiples of tile_tok and where another sequence begins. */
struct attn_tiles {
    int64_t index; /* of the tile [t0, t1) */
    int64_t t0, t1;
};

/* Go on to tile `index`, not before the present one; false if there is none. */
static inline bool attn_seek(struct attn_tiles *it, const struct attn *a, int64_t index) {
    while (it->index < index) {
        if (it->t0 == 0) return false;
        it->t1 = it->t0;
        int64_t low = (it->t1 - 1) / a->tile_tok * a->tile_tok;
        for (it->t0 = it->t1 - 1; it->t0 > low && a->first[it->t0 - 1] == a->first[it->t1 - 1];)
            it->t0--;
        it->index++;
    }
    return true;
}

static inline int64_t attn_count(const struct attn *a) {
    struct attn_tiles it = { .index = -1, .t0 = a->n_tok };
    int64_t n = 0;
    while (attn_seek(&it, a, n))
        n++;
    return n;
}

static inline struct attn_unit attn_unit_of(const struct attn *a, const struct attn_tiles *it,
                                            int64_t g, int64_t heads) {
    struct attn_unit u = { .t0 = it->t0, .g = g, .heads = heads, .first = a->first[it->t0] };
    u.n_rows = (it->t1 - it->t0) * u.heads;
    for (int64_t t = it->t0; t < it->t1; t++)
        u.end = attn_max(u.end, a->pos[t] + 1);
    return u;
}

/* dst of the unit's rows. */
ALWAYS_INLINE void attn_write(const struct attn_cell *c, const struct attn *a,
                              const struct attn_unit *u, const struct attn_part *p) {
    for (int64_t r = 0; r < u->n_rows; r++) {
        int64_t head = u->g * a->group + r % u->heads;
        float *y = (float *)tensor_row(a->node->dst, u->t0 + r / u->heads) + head * a->v.hd;
        c->finish(p->acc + r * a->v.pad, p->sum[r], y, a->v.hd);
    }
}

ALWAYS_INLINE void attn_run_whole(const struct attn_cell *c, const struct attn *a, struct work *w) {
    char *own = (char *)w->scratch + attn_own_at(c, a);
    struct attn_part total = attn_part_at(a, w->scratch);
    struct attn_tiles it = { .index = -1, .t0 = a->n_tok };
    for (int64_t i; attn_seek(&it, a, (i = work_next(w)) / a->n_head_kv);) {
        struct attn_unit u = attn_unit_of(a, &it, i % a->n_head_kv, a->group);
        c->begin(a, &u, own);
        c->range(a, &u, 0, &total, own);
        for (int64_t range = 1; range * c->range_cells < u.end; range++) {
            if (c->range_fold) {
                c->range_fold(a, &u, range, &total, own);
                continue;
            }
            struct attn_part part = attn_part_at(a, (char *)w->scratch + attn_part_bytes(a));
            c->range(a, &u, range, &part, own);
            c->fold(u.n_rows, a->v.pad, &total, &part);
        }
        attn_write(c, a, &u, &total);
    }
}

/* Floats that one range leaves of a row: acc [v.pad], max, sum, in whole cache lines. */
ALWAYS_INLINE int64_t attn_partial_floats(const struct attn *a) {
    return attn_round_up(a->v.pad + 2, 16);
}

ALWAYS_INLINE size_t attn_shared_bytes(const struct attn_cell *c, const struct node *n) {
    struct attn a = attn_of(c, n);
    int64_t n_ranges = (n->src[1]->ne[1] + c->range_cells - 1) / c->range_cells;
    if (a.n_tok > ATTN_SPLIT_TOKENS) return 0;
    return (size_t)(a.n_tok * n->p.attn.n_head * n_ranges * attn_partial_floats(&a)) *
           sizeof(float);
}

ALWAYS_INLINE struct attn_part attn_partial_at(const struct attn *a, float *p) {
    return (struct attn_part){ .acc = p, .max = p + a->v.pad, .sum = p + a->v.pad + 1 };
}

/* Row `row` of [n_tok, n_head] from its ranges at p, the first of which becomes the sum of all. */
ALWAYS_INLINE void attn_combine(const struct attn_cell *c, const struct attn *a, float *p,
                                int64_t row) {
    int64_t n_head = a->n_head_kv * a->group, t = row / n_head;
    struct attn_part total = attn_partial_at(a, p);
    for (int64_t i = 1; i * c->range_cells <= a->pos[t]; i++) {
        struct attn_part part = attn_partial_at(a, p + i * attn_partial_floats(a));
        c->fold(1, a->v.pad, &total, &part);
    }
    float *y = (float *)tensor_row(a->node->dst, t) + row % n_head * a->v.hd;
    c->finish(total.acc, *total.sum, y, a->v.hd);
}

/* With one range a unit is finished at once; with several, their parts meet after a barrier. Heads
 * of a range are neighbours, so that a thread goes through memory as it lies. */
ALWAYS_INLINE void attn_run_split(const struct attn_cell *c, const struct attn *a, struct work *w) {
    int64_t n_head = a->n_head_kv * a->group, stride = attn_partial_floats(a), n_ranges = 0;
    char *own = (char *)w->scratch + attn_own_at(c, a);
    struct attn_part part = attn_part_at(a, w->scratch);
    float *partials = w->shared; /* [n_tok, n_head, n_ranges, stride] */
    for (int64_t t = 0; t < a->n_tok; t++)
        n_ranges = attn_max(n_ranges, a->pos[t] / c->range_cells + 1);
    const struct attn_tiles start = { .index = -1, .t0 = a->n_tok };
    struct attn_tiles it = start;
    const bool all = a->n_tok == 1 && n_ranges >= ATTN_UNITS_PER_THREAD * w->nth &&
                     c->takes_all_heads && c->takes_all_heads(a);
    const int64_t heads = all ? n_head : a->group, n_parts = n_head / heads;
    const int64_t units = attn_count(a) * n_ranges * n_parts;
    for (int64_t i; (i = work_share(w, units)) >= 0;) {
        const int64_t range = i / n_parts % n_ranges, tile = i / n_parts / n_ranges;
        if (tile < it.index) it = start;
        attn_seek(&it, a, tile);
        struct attn_unit u = attn_unit_of(a, &it, i % n_parts, heads);
        if (range * c->range_cells >= u.end) continue;
        c->begin(a, &u, own);
        c->range(a, &u, range, &part, own);
        if (n_ranges == 1) {
            attn_write(c, a, &u, &part);
            continue;
        }
        for (int64_t r = 0; r < u.n_rows; r++) {
            int64_t row = (u.t0 + r / u.heads) * n_head + u.g * a->group + r % u.heads;
            float *p = partials + (row * n_ranges + range) * stride;
            memcpy(p, part.acc + r * a->v.pad, (size_t)a->v.pad * sizeof *p);
            p[a->v.pad] = part.max[r];
            p[a->v.pad + 1] = part.sum[r];
        }
    }
    if (n_ranges == 1) return;
    work_barrier(w);
    for (int64_t row; (row = work_next(w)) < a->n_tok * n_head;)
        attn_combine(c, a, partials + row * n_ranges * stride, row);
}

ALWAYS_INLINE void attn_run(const struct attn_cell *c, const struct node *n, struct work *w) {
    struct attn a = attn_of(c, n);
    if (a.n_tok <= ATTN_SPLIT_TOKENS) {
        attn_run_split(c, &a, w);
        return;
    }
    int64_t units = (int64_t)w->nth * ATTN_UNITS_PER_THREAD;
    while (a.tile_tok > 8 && a.n_tok * a.n_head_kv < units * a.tile_tok)
        a.tile_tok /= 2;
    attn_run_whole(c, &a, w);
}

#endif
