/* SPDX-License-Identifier: MIT
 * op_attn_avx2.c - causal attention over the cache; contract in op.h.
 *
 * A unit of work is a tile of tokens of one sequence and one kv head. It walks the cells in tiles
 * (attn_tile_avx2.h) for all query rows (a row = a token and a head of the group) and keeps the
 * softmax online by a running maximum and sum, so nothing of size n_tok x n_kv exists. Source:
 * Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022,
 * "FlashAttention".
 *
 * Cells are cut into ranges at fixed positions. Each range starts a softmax of its own, and a row
 * folds its ranges in order. A batch of few tokens at depth has fewer units than a machine has
 * threads, so there a range is a unit of work; else one unit walks them all. Both fold in the same
 * way, and inside of a range no bit depends on the rows that share the unit: the result of a token
 * is bitwise the same in any batch, at any place in it, on any number of threads. */
#include <math.h>
#include <string.h>

#include "attn_tile_avx2.h"
#include "base/fault.h"
#include "op.h"

#define TILE_TOKENS 32  /* tokens per unit at most */
#define TILE_ROWS 128   /* query rows per unit, so that their accumulators fit in the L2 cache */
#define DIRECT_ROWS 8   /* up to here K is read where it lies */
#define FEW_ROWS 16     /* up to here V is */
#define SPLIT_TOKENS 8  /* up to here a range of cells is a unit of work */
#define RANGE_CELLS 256 /* cells per range, a multiple of TILE_CELLS */

struct attn {
    const struct node *node;
    const int32_t *first, *pos;
    int64_t n_tok, n_head_kv, group; /* group = heads per kv head */
    struct side k, v;
    int64_t tile_tok; /* tokens per unit at most */
};

struct unit {
    int64_t t0, n_rows; /* row r is token t0 + r / group, head g * group + r % group */
    int64_t g;          /* kv head */
    int64_t first;      /* cell of position 0 */
    int64_t end;        /* positions that the unit sees */
    int64_t block;      /* rows per register tile, even shares of n_rows */
    bool direct;        /* scores read K where it lies */
};

/* Scratch of one thread. */
struct bufs {
    float *q;         /* scaled: [n_rows, k.pad] if direct, else [n_rows / block, k.pad, block] */
    float *k;         /* [CHUNK_CELLS / PANEL, k.pad, PANEL] */
    float *v;         /* [v.pad / PANEL, TILE_CELLS, PANEL] */
    float *s;         /* scores, then weights [n_rows, TILE_CELLS] */
    float *line;      /* [8, max(k.pad, v.pad)], rows on their way to panels */
    float *acc, *all; /* [n_rows, v.pad], the range's sums and those of all ranges so far */
    float *scale;     /* [n_rows], what a new maximum makes of older sums */
    int32_t *n;       /* [n_rows], cells of the tile that the row sees */
    struct partial *range, *total; /* [n_rows], of acc and of all */
};

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

static struct side side_of(const struct tensor *t, int64_t hd, int64_t unit) {
    size_t bytes = qtype_row_bytes((enum qtype)t->type, hd);
    return (struct side){ .t = t, .head_bytes = bytes, .hd = hd, .pad = round_up(hd, unit) };
}

static struct attn attn_of(const struct node *n) {
    struct attn a = { .node = n, .first = n->src[3]->data, .pos = n->src[4]->data };
    a.n_tok = n->src[0]->ne[1];
    a.n_head_kv = n->p.attn.n_head_kv;
    a.group = n->p.attn.n_head / n->p.attn.n_head_kv;
    a.k = side_of(n->src[1], n->p.attn.n_embd_head_k, 8);
    a.v = side_of(n->src[FAULT(v_is_k) && n->src[2]->type == QT_q8_0 ? 1 : 2],
                  n->p.attn.n_embd_head_v, PANEL);
    a.tile_tok = max64(1, min64(TILE_TOKENS, TILE_ROWS / a.group));
    return a;
}

/* Returns the bytes that b takes; sets it if there is memory. */
static size_t carve(const struct attn *a, char *memory, struct bufs *b) {
    size_t rows = (size_t)round_up(a->tile_tok * a->group, BLOCK), used = 0;
    size_t k_pad = (size_t)a->k.pad, v_pad = (size_t)a->v.pad;
    struct {
        void *p; /* to a pointer of b */
        size_t bytes;
    } parts[] = {
        { &b->q, rows * k_pad * sizeof *b->q },
        { &b->k, CHUNK_CELLS * k_pad * sizeof *b->k },
        { &b->v, TILE_CELLS * v_pad * sizeof *b->v },
        { &b->s, rows * TILE_CELLS * sizeof *b->s },
        { &b->line, 8 * (k_pad > v_pad ? k_pad : v_pad) * sizeof *b->line },
        { &b->acc, rows * v_pad * sizeof *b->acc },
        { &b->all, rows * v_pad * sizeof *b->all },
        { &b->scale, rows * sizeof *b->scale },
        { &b->n, rows * sizeof *b->n },
        { &b->range, rows * sizeof *b->range },
        { &b->total, rows * sizeof *b->total },
    };
    for (size_t i = 0; i < N_ELEMS(parts); i++) {
        void *at = memory ? memory + used : NULL;
        memcpy(parts[i].p, &at, sizeof at);
        used += (parts[i].bytes + 63) / 64 * 64; /* whole cache lines */
    }
    for (size_t r = 0; memory && r < rows; r++) {
        b->range[r].acc = b->acc + r * v_pad;
        b->total[r].acc = b->all + r * v_pad;
    }
    return used;
}

static size_t scratch_bytes(const struct node *n) {
    struct attn a = attn_of(n);
    struct bufs b;
    return carve(&a, NULL, &b);
}

static void load_q(const struct attn *a, const struct unit *u, const struct bufs *b) {
    const struct tensor *q = a->node->src[0];
    float scale = a->node->p.attn.scale;
    if (FAULT(attn_scale)) scale *= scale;
    int64_t rows = round_up(u->n_rows, u->block), chain = a->k.pad / 8;
    if (rows > u->n_rows || a->k.pad > a->k.hd)
        memset(b->q, 0, (size_t)(rows * a->k.pad) * sizeof *b->q);
    for (int64_t r = 0; r < u->n_rows; r++) {
        int64_t head = u->g * a->group + r % a->group;
        const float *x = (const float *)tensor_row(q, u->t0 + r / a->group) + head * a->k.hd;
        float *y = b->q + r * a->k.pad;
        if (u->direct) {
            for (int64_t i = 0; i < a->k.hd; i++)
                y[i] = x[i] * scale;
            continue;
        }
        y = b->q + r / u->block * u->block * a->k.pad + r % u->block;
        int64_t i = 0, next = chain * u->block; /* from one chain to the next */
        for (; i + 8 <= a->k.hd; i += 8, y += u->block) {
            UNROLL for (int d = 0; d < 8; d++) y[d * next] = x[i + d] * scale;
        }
        for (; i < a->k.hd; i++, y += next)
            *y = x[i] * scale;
    }
}

/* The kv head that the unit reads. */
static int64_t kv_head(const struct attn *a, const struct unit *u) {
    return FAULT(kv_head_order) ? a->n_head_kv - 1 - u->g : u->g;
}

/* Scores of n cells from position p0 on, with K where it lies. */
static void scores_direct(const struct attn *a, const struct unit *u, int64_t p0, int64_t n,
                          const struct bufs *b) {
    struct tile k = tile_of_cache(&a->k, side_row(&a->k, u->first + p0, kv_head(a, u)));
    int64_t n_blocks = (u->n_rows + NARROW - 1) / NARROW;
    int64_t block = (u->n_rows + n_blocks - 1) / n_blocks;
    for (int64_t r = 0; r < u->n_rows; r += block)
        score_tile(&k, min64(block, u->n_rows - r), b->q + r * a->k.pad, a->k.pad, n,
                   b->s + r * TILE_CELLS);
}

/* The same with K as panels. */
static void scores_panels(const struct attn *a, const struct unit *u, int64_t p0, int64_t n,
                          const struct bufs *b) {
    int64_t width = u->block > NARROW ? PANEL : 2 * PANEL;
    for (int64_t c0 = 0; c0 < n; c0 += CHUNK_CELLS) {
        int64_t n_chunk = min64(CHUNK_CELLS, n - c0);
        load_k(&a->k, side_row(&a->k, u->first + p0 + c0, kv_head(a, u)), n_chunk, b->line, b->k);
        for (int64_t c = 0; c < n_chunk; c += width) {
            int64_t n_panels = (min64(width, n_chunk - c) + PANEL - 1) / PANEL;
            for (int64_t r = 0; r < u->n_rows; r += u->block) {
                int32_t seen = 0;
                for (int64_t i = r; i < r + u->block && i < u->n_rows; i++)
                    seen = b->n[i] > seen ? b->n[i] : seen;
                if (c0 + c < seen)
                    score_rows(u->block, n_panels, b->q + r * a->k.pad, b->k + c * a->k.pad,
                               a->k.pad, b->s + r * TILE_CELLS + c0 + c);
            }
        }
    }
}

/* V of n cells from position p0 on. */
static struct tile v_tile_of(const struct attn *a, const struct unit *u, int64_t p0, int64_t n,
                             const struct bufs *b) {
    const char *row = side_row(&a->v, u->first + p0, kv_head(a, u));
    if (u->n_rows <= FEW_ROWS && a->v.hd % (2 * PANEL) == 0) return tile_of_cache(&a->v, row);
    load_v(&a->v, row, n, b->line, b->v);
    return (struct tile){ .source = FROM_PANELS, .at = (const char *)b->v };
}

/* acc = scale * acc + weights * V for all rows of the unit. Rows of a block go together over the
 * cells that all of them see, then each alone. */
static void tile_sums(const struct attn *a, const struct unit *u, const struct tile *v, float *acc,
                      const struct bufs *b) {
    static const float one = 1;
    int64_t width = u->block > NARROW ? PANEL : 2 * PANEL;
    for (int64_t d = 0; d < a->v.pad; d += width) {
        int64_t n_panels = min64(width, a->v.pad - d) / PANEL;
        for (int64_t r0 = 0; r0 < u->n_rows; r0 += u->block) {
            int64_t n_rows = min64(u->block, u->n_rows - r0), common = b->n[r0];
            for (int64_t r = r0 + 1; r < r0 + n_rows; r++)
                common = min64(common, b->n[r]);
            if (common > 0)
                sum_rows(n_rows, n_panels, v, d, b->s + r0 * TILE_CELLS, 0, common, b->scale + r0,
                         acc + r0 * a->v.pad + d, a->v.pad);
            for (int64_t r = r0; r < r0 + n_rows; r++)
                if (b->n[r] > common)
                    sum_rows(1, n_panels, v, d, b->s + r * TILE_CELLS, common, b->n[r],
                             common > 0 ? &one : b->scale + r, acc + r * a->v.pad + d, a->v.pad);
        }
    }
}

/* Leaves what the positions of one range give to the unit's rows in part [n_rows], whose
 * accumulators lie one behind the other. */
static void run_range(const struct attn *a, const struct unit *u, int64_t range,
                      struct partial *part, const struct bufs *b) {
    float *acc = part[0].acc;
    memset(acc, 0, (size_t)(u->n_rows * a->v.pad) * sizeof *acc);
    for (int64_t r = 0; r < u->n_rows; r++)
        part[r].max = -INFINITY, part[r].sum = 0;
    int64_t end = min64(u->end, (range + 1) * RANGE_CELLS);
    for (int64_t p = range * RANGE_CELLS; p < end; p += TILE_CELLS) {
        int64_t n = min64(TILE_CELLS, end - p);
        for (int64_t r = 0; r < u->n_rows; r++) {
            int64_t seen = a->pos[u->t0 + r / a->group] + 1 - p + FAULT(causal_mask);
            b->n[r] = (int32_t)max64(0, min64(n, seen));
        }
        if (u->direct)
            scores_direct(a, u, p, n, b);
        else
            scores_panels(a, u, p, n, b);
        for (int64_t r = 0; r < u->n_rows; r++)
            if (b->n[r] > 0)
                softmax_row(b->s + r * TILE_CELLS, b->n[r], &part[r].max, &part[r].sum,
                            b->scale + r);
        struct tile v = v_tile_of(a, u, p, n, b);
        tile_sums(a, u, &v, acc, b);
    }
}

static int64_t ranges_for(int64_t n_cells) {
    return (n_cells + RANGE_CELLS - 1) / RANGE_CELLS;
}

/* dst of token t and head h; acc is used up. */
static void finish(const struct attn *a, struct partial *p, int64_t t, int64_t h) {
    const __m256 sum = _mm256_set1_ps(p->sum);
    for (int64_t i = 0; i < a->v.pad; i += 8)
        _mm256_store_ps(p->acc + i, _mm256_div_ps(_mm256_load_ps(p->acc + i), sum));
    memcpy((float *)tensor_row(a->node->dst, t) + h * a->v.hd, p->acc,
           (size_t)a->v.hd * sizeof *p->acc);
}

/* The tiles of a batch from the last token, whose units are the longest, to the first. A tile ends
 * at multiples of tile_tok and where another sequence begins. */
struct tiles {
    int64_t index; /* of the tile [t0, t1) */
    int64_t t0, t1;
};

/* Go on to tile `index`, not before the present one; false if there is none. */
static bool tiles_seek(struct tiles *it, const struct attn *a, int64_t index) {
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

static struct unit unit_of(const struct attn *a, const struct tiles *it, int64_t g) {
    struct unit u = { .t0 = it->t0, .g = g, .first = a->first[FAULT(seq_offset) ? 0 : it->t0] };
    u.n_rows = (it->t1 - it->t0) * a->group;
    int64_t n_blocks = (u.n_rows + BLOCK - 1) / BLOCK;
    u.block = (u.n_rows + n_blocks - 1) / n_blocks;
    u.direct = u.n_rows <= DIRECT_ROWS && a->k.hd % 8 == 0;
    for (int64_t t = it->t0; t < it->t1; t++)
        u.end = max64(u.end, a->pos[t] + 1);
    return u;
}

static void run_whole(const struct attn *a, const struct bufs *b, struct work *w) {
    struct tiles it = { .index = -1, .t0 = a->n_tok };
    for (int64_t c; tiles_seek(&it, a, (c = work_next(w)) / a->n_head_kv);) {
        struct unit u = unit_of(a, &it, c % a->n_head_kv);
        load_q(a, &u, b);
        run_range(a, &u, 0, b->total, b);
        for (int64_t range = 1; range < ranges_for(u.end); range++) {
            run_range(a, &u, range, b->range, b);
            for (int64_t r = 0; r < u.n_rows; r++)
                if (a->pos[u.t0 + r / a->group] >= range * RANGE_CELLS)
                    partial_fold(&b->total[r], &b->range[r], a->v.pad);
        }
        for (int64_t r = 0; r < u.n_rows; r++)
            finish(a, &b->total[r], u.t0 + r / a->group, u.g * a->group + r % a->group);
    }
}

/* What one range leaves of a row: acc [v.pad], max, sum, in whole cache lines. */
static int64_t partial_floats(const struct attn *a) {
    return round_up(a->v.pad + 2, 16);
}

static size_t shared_bytes(const struct node *n) {
    struct attn a = attn_of(n);
    int64_t rows = min64(a.n_tok, SPLIT_TOKENS) * n->p.attn.n_head;
    return (size_t)(rows * ranges_for(n->src[1]->ne[1]) * partial_floats(&a)) * sizeof(float);
}

static struct partial partial_at(float *p, int64_t v_pad) {
    return (struct partial){ .max = p[v_pad], .sum = p[v_pad + 1], .acc = p };
}

/* Row `row` of [n_tok, n_head] from its ranges at p, the first of which becomes the sum of all. */
static void combine(const struct attn *a, float *p, int64_t row) {
    int64_t n_head = a->n_head_kv * a->group, t = row / n_head;
    struct partial total = partial_at(p, a->v.pad);
    for (int64_t i = 1; i < ranges_for(a->pos[t] + 1); i++) {
        struct partial part = partial_at(p + i * partial_floats(a), a->v.pad);
        partial_fold(&total, &part, a->v.pad);
    }
    finish(a, &total, t, row % n_head);
}

static void run_split(const struct attn *a, const struct bufs *b, struct work *w) {
    int64_t n_head = a->n_head_kv * a->group, stride = partial_floats(a), n_ranges = 0;
    float *partials = w->shared; /* [n_tok, n_head, n_ranges, stride] */
    for (int64_t t = 0; t < a->n_tok; t++)
        n_ranges = max64(n_ranges, ranges_for(a->pos[t] + 1));
    struct tiles it = { .index = -1, .t0 = a->n_tok };
    for (int64_t c; tiles_seek(&it, a, (c = work_next(w)) / (a->n_head_kv * n_ranges));) {
        int64_t range = c / a->n_head_kv % n_ranges;
        struct unit u = unit_of(a, &it, c % a->n_head_kv);
        if (range >= ranges_for(u.end)) continue;
        load_q(a, &u, b);
        run_range(a, &u, range, b->range, b);
        for (int64_t r = 0; r < u.n_rows; r++) {
            int64_t row = u.t0 * n_head + r / a->group * n_head + u.g * a->group + r % a->group;
            float *p = partials + (row * n_ranges + range) * stride;
            memcpy(p, b->range[r].acc, (size_t)a->v.pad * sizeof *p);
            p[a->v.pad] = b->range[r].max;
            p[a->v.pad + 1] = b->range[r].sum;
        }
    }
    work_barrier(w);
    for (int64_t row; (row = work_next(w)) < a->n_tok * n_head;)
        combine(a, partials + row * n_ranges * stride, row);
}

static void run(const struct node *n, struct work *w) {
    struct attn a = attn_of(n);
    struct bufs b;
    carve(&a, w->scratch, &b);
    if (a.n_tok <= SPLIT_TOKENS)
        run_split(&a, &b, w);
    else
        run_whole(&a, &b, w);
}

const struct op_cell op_attn_avx2 = { .run = run,
                                      .shared_bytes = shared_bytes,
                                      .scratch_bytes = scratch_bytes };
