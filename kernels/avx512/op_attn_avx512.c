/* SPDX-License-Identifier: MIT
 * op_attn_avx512.c - causal attention over the cache in f32; contract in op.h, who computes what in
 * attn_tmpl.h, the arithmetic in attn_tile_avx512.h.
 *
 * Many rows share what it costs to turn K into panels and V into f32; few rows read both where they
 * lie. A head's part of a cell is too short for memory to be read well. So one token at depth takes
 * all heads of a few cells at once, if there are ranges enough for all threads, and else each kv
 * head with few rows also fetches its share of the next range, cell after cell as they lie. */
#include "attn_tile_avx512.h"

#define DIRECT_ROWS 8 /* up to here K is read where it lies */
#define SPARE_ROWS 3  /* that the last head's scores may run over */
#define ALL_CELLS 16  /* cells that go through all heads of one token */
#define ALL_SOON 8    /* cells fetched ahead into the first level cache meanwhile */
#define V_CELLS 64    /* cells of V held as f32, so that they stay in the L1 cache */

/* The column's own scratch of a thread. */
struct bufs {
    float *q; /* scaled: [n_rows, k.pad] if direct, else blocks of rows [16, k.pad / 16, block] */
    float *k; /* panel [16, k.pad / 16, PANEL] */
    float *v; /* [V_CELLS, v.pad] */
    float *s; /* scores, then weights [n_rows, RANGE_CELLS] */
};

static size_t carve(const struct attn *a, char *memory, struct bufs *b) {
    size_t used = 0, rows = (size_t)a->tile_rows;
    struct {
        void *p; /* to a pointer of b */
        size_t floats;
    } parts[] = {
        { &b->q, rows * (size_t)a->k.pad },
        { &b->k, PANEL * (size_t)a->k.pad },
        { &b->v, V_CELLS * (size_t)a->v.pad },
        { &b->s, rows * RANGE_CELLS + 16 },
    };
    for (size_t i = 0; i < N_ELEMS(parts); i++) {
        void *at = memory ? memory + used : NULL;
        memcpy(parts[i].p, &at, sizeof at);
        used += (parts[i].floats * sizeof(float) + 63) / 64 * 64; /* whole cache lines */
    }
    return used;
}

static size_t own_bytes(const struct attn *a) {
    struct bufs b;
    return carve(a, NULL, &b);
}

static bool has_all_heads(const struct attn *a, const struct attn_unit *u) {
    return u->heads > a->group;
}

static bool is_direct(const struct attn *a, const struct attn_unit *u) {
    return u->n_rows <= DIRECT_ROWS || has_all_heads(a, u);
}

/* Rows per register tile, even shares of n_rows. */
static int64_t block_of(const struct attn_unit *u) {
    int64_t n_blocks = (u->n_rows + BLOCK - 1) / BLOCK;
    return (u->n_rows + n_blocks - 1) / n_blocks;
}

static void begin(const struct attn *a, const struct attn_unit *u, char *own) {
    struct bufs b;
    carve(a, own, &b);
    const float scale = a->node->p.attn.scale * ATTN_LOG2E;
    int64_t block = block_of(u), chain = a->k.pad / 16;
    const int64_t spare = has_all_heads(a, u) ? SPARE_ROWS : 0;
    memset(b.q, 0, (size_t)(attn_round_up(u->n_rows + spare, 4) * a->k.pad) * sizeof *b.q);
    for (int64_t r = 0; r < u->n_rows; r++) {
        int64_t head = u->g * a->group + r % u->heads, r0 = r / block * block;
        const float *x =
            (const float *)tensor_row(a->node->src[0], u->t0 + r / u->heads) + head * a->k.hd;
        if (is_direct(a, u)) {
            for (int64_t i = 0; i < a->k.hd; i++)
                b.q[r * a->k.pad + i] = x[i] * scale;
            continue;
        }
        int64_t n = attn_min(block, u->n_rows - r0);
        float *y = b.q + r0 * a->k.pad + (r - r0);
        for (int64_t i = 0; i < a->k.hd; i++)
            y[(chain_place(i % 16) * chain + i / 16) * n] = x[i] * scale;
    }
}

/* Cells of positions p0 .. p0 + n - 1 that row r sees. */
static int64_t seen_by(const struct attn *a, const struct attn_unit *u, int64_t r, int64_t p0,
                       int64_t n) {
    return attn_max(0, attn_min(n, a->pos[u->t0 + r / u->heads] + 1 - p0));
}

/* What kv head g fetches while it walks a side of the range: cells ahead, and its share of the next
 * range; if none comes after this one, of itself. */
static struct fetch fetch_of(const struct attn_side *side, const struct attn_unit *u, int64_t p0) {
    const int64_t next = p0 + RANGE_CELLS < u->end ? p0 + RANGE_CELLS : p0;
    return (struct fetch){ .soon = attn_row(side, u->first + p0 + CELLS_AHEAD, u->g),
                           .later = (const char *)tensor_row(side->t, u->first + next) +
                                    (size_t)(u->g * RANGE_CELLS) * side->head_bytes,
                           .n_bytes = side->head_bytes };
}

static void scores(const struct attn *a, const struct attn_unit *u, int64_t p0, int64_t n,
                   const struct bufs *b) {
    int64_t block = block_of(u);
    if (is_direct(a, u)) {
        score_direct(u->n_rows, b->q, &a->k, attn_row(&a->k, u->first + p0, u->g),
                     fetch_of(&a->k, u, p0), n, b->s);
        return;
    }
    for (int64_t c = 0; c < n; c += PANEL) {
        k_panel(&a->k, attn_row(&a->k, u->first + p0 + c, u->g), attn_min(PANEL, n - c), b->k);
        for (int64_t r0 = 0; r0 < u->n_rows; r0 += block) {
            int64_t rows = attn_min(block, u->n_rows - r0), seen = 0;
            for (int64_t r = r0; r < r0 + rows; r++)
                seen = attn_max(seen, seen_by(a, u, r, p0, n));
            if (c < seen)
                score_panel(rows, b->q + r0 * a->k.pad, b->k, a->k.pad / 16,
                            b->s + r0 * RANGE_CELLS + c);
        }
    }
}

/* Sums of cells [c0, c1) of the range, V at x in the way of `type`. Rows of a block go together
 * over the cells that all of them see, then each alone. */
static void sums(const struct attn *a, const struct attn_unit *u, int64_t p0, int64_t c0,
                 int64_t c1, enum qtype type, const char *x, size_t stride, const struct bufs *b,
                 float *acc) {
    int64_t block = block_of(u), pad = a->v.pad;
    const struct fetch fetch = fetch_of(&a->v, u, p0);
    for (int64_t r0 = 0; r0 < u->n_rows; r0 += block) {
        int64_t rows = attn_min(block, u->n_rows - r0), common = c1 - c0;
        float *s = b->s + r0 * RANGE_CELLS + c0;
        for (int64_t r = r0; r < r0 + rows; r++)
            common = attn_min(common, seen_by(a, u, r, p0 + c0, c1 - c0));
        if (common > 0) sum_rows(type, rows, x, stride, s, 0, common, acc + r0 * pad, pad, fetch);
        for (int64_t r = r0; r < r0 + rows; r++) {
            int64_t seen = seen_by(a, u, r, p0 + c0, c1 - c0);
            if (seen > common)
                sum_rows(type, 1, x, stride, s + (r - r0) * RANGE_CELLS, common, seen,
                         acc + r * pad, pad, fetch);
        }
    }
}

static bool takes_all_heads(const struct attn *a) {
    return a->v.hd % 64 == 0 && a->n_head_kv * a->group + SPARE_ROWS <= a->tile_rows;
}

/* What kv head g fetches beside ALL_CELLS cells from x on: its share of the cells after them. */
static struct fetch fetch_of_all(const struct attn_side *side, const char *x, int64_t g) {
    const size_t stride = side->t->row_bytes, head = side->head_bytes;
    return (struct fetch){ .soon = x + (size_t)ALL_SOON * stride + (size_t)g * head,
                           .later = x + (size_t)ALL_CELLS * stride + (size_t)(g * ALL_CELLS) * head,
                           .n_bytes = head };
}

/* A range for all heads of one token. A few cells go through all of them, so that memory is read as
 * it lies. */
static void range_of_all(const struct attn *a, const struct attn_unit *u, int64_t p0, int64_t n,
                         const struct attn_part *part, const struct bufs *b) {
    const size_t k_stride = a->k.t->row_bytes, v_stride = a->v.t->row_bytes;
    const char *x = attn_row(&a->k, u->first + p0, 0);
    for (int64_t c = 0; c < n; c += ALL_CELLS, x += ALL_CELLS * k_stride)
        for (int64_t g = 0; g < a->n_head_kv; g++)
            score_direct(a->group, b->q + g * a->group * a->k.pad, &a->k,
                         x + (size_t)g * a->k.head_bytes, fetch_of_all(&a->k, x, g),
                         attn_min(ALL_CELLS, n - c), b->s + g * a->group * RANGE_CELLS + c);
    for (int64_t r = 0; r < u->n_rows; r++)
        softmax_row(b->s + r * RANGE_CELLS, n, part->max + r, part->sum + r);
    memset(part->acc, 0, (size_t)(u->n_rows * a->v.pad) * sizeof *part->acc);
    x = attn_row(&a->v, u->first + p0, 0);
    for (int64_t c = 0; c < n; c += ALL_CELLS, x += ALL_CELLS * v_stride)
        for (int64_t g = 0; g < a->n_head_kv; g++)
            for (int64_t r = g * a->group, end = r + a->group; r < end; r += BLOCK)
                sum_rows((enum qtype)a->v.t->type, attn_min(BLOCK, end - r),
                         x + (size_t)g * a->v.head_bytes, v_stride, b->s + r * RANGE_CELLS + c, 0,
                         attn_min(ALL_CELLS, n - c), part->acc + r * a->v.pad, a->v.pad,
                         fetch_of_all(&a->v, x, g));
}

static void range(const struct attn *a, const struct attn_unit *u, int64_t index,
                  const struct attn_part *part, char *own) {
    struct bufs b;
    carve(a, own, &b);
    int64_t p0 = index * RANGE_CELLS, n = attn_min(u->end - p0, RANGE_CELLS);
    if (has_all_heads(a, u)) {
        range_of_all(a, u, p0, n, part, &b);
        return;
    }
    scores(a, u, p0, n, &b);
    for (int64_t r = 0; r < u->n_rows; r++)
        softmax_row(b.s + r * RANGE_CELLS, seen_by(a, u, r, p0, n), part->max + r, part->sum + r);
    memset(part->acc, 0, (size_t)(u->n_rows * a->v.pad) * sizeof *part->acc);
    const char *row = attn_row(&a->v, u->first + p0, u->g);
    size_t stride = a->v.t->row_bytes;
    if (u->n_rows <= BLOCK && a->v.hd % 64 == 0) {
        sums(a, u, p0, 0, n, (enum qtype)a->v.t->type, row, stride, &b, part->acc);
        return;
    }
    for (int64_t c = 0; c < n; c += V_CELLS, row += V_CELLS * stride) {
        int64_t end = attn_min(c + V_CELLS, n);
        load_v(&a->v, row, end - c, b.v);
        sums(a, u, p0, c, end, QT_f32, (const char *)b.v, (size_t)a->v.pad * sizeof *b.v, &b,
             part->acc);
    }
}

static const struct attn_cell cell = {
    .range_cells = RANGE_CELLS,
    .tile_tokens = 64,
    .tile_rows = 120,
    .row_unit = 4,
    .k_unit = 16,
    .v_unit = 16,
    .takes_all_heads = takes_all_heads,
    .own_bytes = own_bytes,
    .begin = begin,
    .range = range,
    .fold = attn_fold,
    .finish = attn_finish,
};

static size_t shared_bytes(const struct node *n) {
    return attn_shared_bytes(&cell, n);
}

static size_t scratch_bytes(const struct node *n) {
    return attn_scratch_bytes(&cell, n);
}

static void run(const struct node *n, struct work *w) {
    attn_run(&cell, n, w);
}

const struct op_cell op_attn_avx512 = { .run = run,
                                        .shared_bytes = shared_bytes,
                                        .scratch_bytes = scratch_bytes };
