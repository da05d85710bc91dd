/* SPDX-License-Identifier: MIT
 * op_attn_amx.c - causal attention over the cache on bf16 tiles; contract in op.h, who computes
 * what in attn_tmpl.h, the arithmetic in attn_tile_amx.h.
 *
 * A range of cells becomes tiles once per unit and stays in the L2 cache for all of the unit's
 * rows. Up to two blocks of rows (16 rows each) walk it in step with that conversion, so that the
 * tiles never leave the L1 cache: with few rows the cache is read at the speed of memory.
 *
 * Many rows walk a range by pairs of blocks. Half of a pair's weights are taken while the sums of
 * the pair before it are in the tiles, the other half while the scores of the pair after it are:
 * powers and tiles are different units, as long as they alternate (struct beside).
 *
 * An infinity or NaN in the cache cannot be split, and no weight, not even zero, keeps it from the
 * other rows of a tile. It shows as a NaN of what it met; then the range is computed again with the
 * bad cells left out of the tiles and added one by one, only for the rows that see them. */
#include "amx/tile_amx.h"
#include "attn_tile_amx.h"

#define RANGE_CELLS 512
#define RANGE_STEPS (RANGE_CELLS / STEP_CELLS)
#define S_BYTES (RANGE_STEPS * PAIR_BYTES) /* scores of 16 rows with a range */
#define PAIR_ROWS (2 * TILE_DIM)

/* Cells of a range that hold an infinity or NaN. */
struct bad {
    int n_k, n_v;
    int32_t k[RANGE_CELLS], v[RANGE_CELLS];
};

/* The column's own scratch of a thread. */
struct bufs {
    char *q;    /* tiles [tile_rows / 16, k.pad / 32] */
    char *k;    /* tiles [RANGE_CELLS / 16, k.pad / 32] */
    char *v;    /* tiles [RANGE_STEPS, v.pad / 16] */
    char *s;    /* scores, then weights of two pairs of blocks of rows [4, RANGE_STEPS] */
    float *acc; /* what a range gives to a pair of blocks: struct attn_part [PAIR_ROWS] */
    float *max, *sum;
    float *row; /* [max(k.pad, v.pad)], one head of one cell */
    struct bad *bad;
};

/* A range as one unit sees it. */
struct piece {
    const struct attn *a;
    const struct attn_unit *u;
    const struct bufs *b;
    int64_t p0, n; /* positions p0 .. p0 + n - 1 */
    bool stream;   /* the cache becomes tiles as it is walked, each step over the last one's */
    const struct bad *bad; /* NULL = none known */
};

/* Up to 16 rows and the cells of the range that they see. */
struct rows {
    int64_t r0, n;
    int64_t n_steps;
    int64_t common; /* cells that all rows see */
    __m512i seen;
    char *q, *s;
};

/* One or two blocks of rows that walk the tiles of a range together. */
struct pair {
    struct rows w[2];
    int n;
    int64_t n_steps; /* of both */
    /* Of their scores: maxima, of n_scanned steps until all are there. */
    __m512 top[2];
    int64_t n_scanned[2];
    /* Of their weights: */
    __m512 max[2]; /* finite */
    struct sums sums[2];
    int64_t n_halves; /* how many halves of a step of a block are taken, of n_halves() */
};

static size_t carve(const struct attn *a, char *memory, struct bufs *b) {
    size_t used = 0, k_blocks = (size_t)a->k.pad / 32, v_blocks = (size_t)a->v.pad / 16;
    size_t line = (size_t)attn_max(a->k.pad, a->v.pad);
    struct {
        void *p; /* to a pointer of b */
        size_t bytes;
    } parts[] = {
        { &b->q, (size_t)a->tile_rows / TILE_DIM * k_blocks * PAIR_BYTES },
        { &b->k, RANGE_CELLS / TILE_DIM * k_blocks * PAIR_BYTES },
        { &b->v, RANGE_STEPS * v_blocks * PAIR_BYTES },
        { &b->s, 4 * S_BYTES },
        { &b->acc, PAIR_ROWS * (size_t)a->v.pad * sizeof *b->acc },
        { &b->max, PAIR_ROWS * sizeof *b->max },
        { &b->sum, PAIR_ROWS * sizeof *b->sum },
        { &b->row, line * sizeof *b->row },
        { &b->bad, sizeof *b->bad },
    };
    for (size_t i = 0; i < N_ELEMS(parts); i++) {
        void *at = memory ? memory + used : NULL;
        memcpy(parts[i].p, &at, sizeof at);
        used += (parts[i].bytes + 63) / 64 * 64; /* whole cache lines */
    }
    return used;
}

static size_t own_bytes(const struct attn *a) {
    struct bufs b;
    return carve(a, NULL, &b);
}

static const float *q_row(const struct attn *a, const struct attn_unit *u, int64_t r) {
    int64_t head = u->g * a->group + r % u->heads;
    return (const float *)tensor_row(a->node->src[0], u->t0 + r / u->heads) + head * a->k.hd;
}

static float q_scale(const struct attn *a) {
    return a->node->p.attn.scale * ATTN_LOG2E;
}

static void begin(const struct attn *a, const struct attn_unit *u, char *own) {
    struct bufs b;
    carve(a, own, &b);
    for (int64_t r0 = 0; r0 < u->n_rows; r0 += TILE_DIM) {
        const float *x[TILE_DIM];
        int64_t n = attn_min(TILE_DIM, u->n_rows - r0);
        for (int64_t r = 0; r < n; r++)
            x[r] = q_row(a, u, r0 + r);
        q_tiles(x, n, a->k.hd, a->k.pad, q_scale(a),
                b.q + r0 / TILE_DIM * a->k.pad / 32 * PAIR_BYTES);
    }
}

static const char *k_row(const struct piece *p, int64_t c) {
    return attn_row(&p->a->k, p->u->first + p->p0 + c, p->u->g);
}

static const char *v_row(const struct piece *p, int64_t c) {
    return attn_row(&p->a->v, p->u->first + p->p0 + c, p->u->g);
}

/* Block `block` of the unit's rows. */
static struct rows rows_of(const struct piece *p, int64_t block) {
    struct rows w = { .r0 = block * TILE_DIM, .common = RANGE_CELLS };
    int32_t seen[TILE_DIM] = { 0 };
    int64_t most = 0;
    w.n = attn_min(TILE_DIM, p->u->n_rows - w.r0);
    const int64_t heads = p->u->heads;
    for (int64_t r = 0, t = p->u->t0 + w.r0 / heads, h = w.r0 % heads; r < w.n; t++, h = 0) {
        const int64_t n = attn_max(0, attn_min(p->n, p->a->pos[t] + 1 - p->p0));
        most = attn_max(most, n);
        w.common = attn_min(w.common, n);
        for (; h < heads && r < w.n; h++, r++)
            seen[r] = (int32_t)n;
    }
    w.seen = _mm512_loadu_si512(seen);
    w.n_steps = (most + STEP_CELLS - 1) / STEP_CELLS;
    w.q = p->b->q + block * (p->a->k.pad / 32) * PAIR_BYTES;
    w.s = p->b->s + block % 4 * S_BYTES;
    return w;
}

static struct pair pair_of(const struct piece *p, int64_t block, int64_t n_blocks) {
    struct pair x = { .w = { rows_of(p, block) }, .n = (int)attn_min(2, n_blocks - block) };
    if (x.n == 2) x.w[1] = rows_of(p, block + 1);
    x.n_steps = attn_max(x.w[0].n_steps, x.n == 2 ? x.w[1].n_steps : 0);
    return x;
}

/* ---- bad cells ----------------------------------------------------------------------------- */

/* A head of a cell as f32; returns whether all of it is finite. */
static bool load_row(const struct attn_side *side, const char *row, float *y) {
    __mmask16 bad = 0;
    for (int64_t d = 0; d < side->hd; d += 16) {
        __mmask16 m = lanes16(side->hd - d);
        __m512 x = side->t->type == QT_f32   ? load16_cache(QT_f32, row, d, m)
                   : side->t->type == QT_f16 ? load16_cache(QT_f16, row, d, m)
                                             : load16_cache(QT_q8_0, row, d, m);
        _mm512_mask_storeu_ps(y + d, m, x);
        bad |= _mm512_fpclass_ps_mask(x, 0x99); /* quiet and signalling NaN, both infinities */
    }
    return bad == 0;
}

static void find_bad(const struct piece *p, struct bad *bad) {
    bad->n_k = bad->n_v = 0;
    for (int64_t c = 0; c < p->n; c++) {
        if (!load_row(&p->a->k, k_row(p, c), p->b->row)) bad->k[bad->n_k++] = (int32_t)c;
        if (!load_row(&p->a->v, v_row(p, c), p->b->row)) bad->v[bad->n_v++] = (int32_t)c;
    }
}

/* Scores of bad cells of K, in f32. */
static void bad_scores(const struct piece *p, const struct rows *w) {
    for (int i = 0; i < p->bad->n_k; i++) {
        int32_t c = p->bad->k[i];
        if (c >= w->n_steps * STEP_CELLS) return;
        load_row(&p->a->k, k_row(p, c), p->b->row);
        for (int64_t r = 0; r < w->n; r++) {
            const float *q = q_row(p->a, p->u, w->r0 + r);
            float s = 0;
            for (int64_t d = 0; d < p->a->k.hd; d++)
                s += q[d] * q_scale(p->a) * p->b->row[d];
            ((float *)w->s)[c * TILE_DIM + r] = s;
        }
    }
}

/* Take bad cells of V out of the tiles. */
static void clear_bad(const struct piece *p, char *tiles) {
    int64_t n_tiles = p->a->v.pad / 16 * 2;
    for (int i = 0; i < p->bad->n_v; i++) {
        int32_t c = p->bad->v[i], j = c % TILE_DIM, half = c / TILE_DIM % 2;
        char *tile = tiles + c / STEP_CELLS * n_tiles * TILE_BYTES;
        for (int64_t t = 0; t < n_tiles; t++, tile += TILE_BYTES)
            for (int64_t d = 0; d < TILE_DIM; d++)
                ((uint16_t *)(void *)(tile + 64 * d))[2 * j + half] = 0;
    }
}

/* And add them, in f32, to acc [16, v.pad]. */
static void bad_sums(const struct piece *p, const struct rows *w, float *acc) {
    int32_t seen[TILE_DIM];
    _mm512_storeu_si512(seen, w->seen);
    for (int i = 0; i < p->bad->n_v; i++) {
        int32_t c = p->bad->v[i], j = c % TILE_DIM, half = c / TILE_DIM % 2;
        load_row(&p->a->v, v_row(p, c), p->b->row);
        for (int64_t r = 0; r < w->n; r++) {
            if (c >= seen[r]) continue;
            const char *tile = w->s + c / STEP_CELLS * PAIR_BYTES;
            const uint16_t *hi = (const uint16_t *)(const void *)(tile + 64 * j);
            const uint16_t *lo = hi + TILE_BYTES / sizeof *lo;
            float weight = bf16_to_f32(hi[2 * r + half]) + bf16_to_f32(lo[2 * r + half]);
            for (int64_t d = 0; d < p->a->v.hd; d++)
                acc[r * p->a->v.pad + d] += weight * p->b->row[d];
        }
    }
}

/* ---- a range ------------------------------------------------------------------------------- */

/* k tiles of n_steps steps from `step` on. */
static const char *k_step(const struct piece *p, int64_t step, int64_t n_steps) {
    int64_t c = step * STEP_CELLS;
    if (!p->stream) return p->b->k + c / TILE_DIM * (p->a->k.pad / 32) * PAIR_BYTES;
    k_tiles(&p->a->k, k_row(p, c), attn_min(n_steps * STEP_CELLS, p->n - c), p->b->k);
    return p->b->k;
}

static const char *v_step(const struct piece *p, int64_t step, int64_t b0, int64_t n_blocks) {
    int64_t c = step * STEP_CELLS;
    if (!p->stream) return p->b->v + (step * (p->a->v.pad / 16) + b0) * PAIR_BYTES;
    v_tiles(&p->a->v, v_row(p, c), attn_min(STEP_CELLS, p->n - c), b0, n_blocks, p->b->v);
    return p->b->v;
}

/* Halves of a step in all steps of all blocks. */
static int64_t n_halves(const struct pair *x) {
    return 2 * x->n * x->n_steps;
}

/* The next half that has no weights yet, of the first `to`; half is NULL if there is none. */
static struct beside next_half(struct pair *x, int64_t to) {
    if (!x || x->n_halves >= to) return (struct beside){ .half = NULL };
    const int64_t h = x->n_halves++, i = x->n == 2 ? h / 2 % 2 : 0,
                  step = x->n == 2 ? h / 4 : h / 2;
    return (struct beside){ .half = x->w[i].s + step * PAIR_BYTES + h % 2 * HALF_BYTES,
                            .max = &x->max[i],
                            .sums = &x->sums[i] };
}

/* Weights up to half n of the pair (NULL = none). */
static void weigh_until(struct pair *x, int64_t n) {
    for (struct beside w; (w = next_half(x, n)).half;)
        weigh_half(w.half, w.max, w.sums);
}

/* Scores of a pair of one block. The last step may have one tile of cells only. */
static void scores_one(const struct piece *p, struct pair *x) {
    int64_t depth = p->a->k.pad / 32;
    for (int64_t step = 0; step < x->n_steps; step += 2) {
        int64_t now = attn_min(2, x->n_steps - step);
        const char *k = k_step(p, step, now);
        score_one(k, x->w[0].q, depth, 2 * now, x->w[0].s + step * PAIR_BYTES);
    }
}

/* The next step of block i whose scores are to be looked at while those of `step` are computed: two
 * steps back, for a tile takes a while to be stored, and only if all rows see it. */
static const float *next_scan(struct pair *x, int i, int64_t step) {
    const int64_t at = x->n_scanned[i];
    if (at + 2 > step || (at + 1) * STEP_CELLS > x->w[i].common) return NULL;
    x->n_scanned[i]++;
    return (const float *)(const void *)(x->w[i].s + at * PAIR_BYTES);
}

/* Scores of a pair of two blocks, and meanwhile the weights that `before` has left (NULL = none).
 */
static void scores_two(const struct piece *p, struct pair *x, struct pair *before) {
    const int64_t depth = p->a->k.pad / 32, next = depth * PAIR_BYTES;
    const int64_t done = before ? before->n_halves : 0, left = before ? n_halves(before) - done : 0;
    const int64_t slots = depth * x->n_steps;
    for (int64_t step = 0, slot = 0; step < x->n_steps; step++) {
        const char *k = k_step(p, step, 1);
        char *s0 = x->w[0].s + step * PAIR_BYTES, *s1 = x->w[1].s + step * PAIR_BYTES;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (int64_t b = 0; b < depth; b++, k += PAIR_BYTES) {
            const int64_t to = done + left * ++slot / slots;
            struct beside w = next_half(before, to);
            if (b < 2 && !p->bad && (w.scores = next_scan(x, (int)b, step))) w.top = &x->top[b];
            products_two(k, k + next, x->w[0].q + b * PAIR_BYTES, x->w[1].q + b * PAIR_BYTES, &w);
            weigh_until(before, to);
        }
        TILE_STORE(0, s0, 64);
        TILE_STORE(1, s0 + TILE_BYTES, 64);
        TILE_STORE(2, s1, 64);
        TILE_STORE(3, s1 + TILE_BYTES, 64);
    }
}

/* Scores of the pair, with what is left of the weights of `before`, both of two blocks (NULL =
 * none); then their maxima. No weight is taken yet. */
static void begin_pair(const struct piece *p, struct pair *x, struct pair *before) {
    for (int i = 0; i < x->n; i++) {
        x->top[i] = _mm512_set1_ps(-INFINITY);
        x->n_scanned[i] = 0;
    }
    if (x->n == 2)
        scores_two(p, x, before);
    else
        scores_one(p, x);
    for (int i = 0; i < x->n; i++) {
        const struct rows *w = &x->w[i];
        if (p->bad) bad_scores(p, w);
        x->top[i] = score_max(w->s, x->n_scanned[i] * STEP_CELLS, x->n_steps * STEP_CELLS, w->seen,
                              w->common, x->top[i]);
        x->max[i] = finite_max(x->top[i]);
        x->sums[i] = (struct sums){ 0 };
    }
    x->n_halves = 0;
}

/* The sums in tile register t to 16 rows of acc. */
#define STORE_SUMS(t, acc, pad)                                                                    \
    do {                                                                                           \
        _Alignas(64) char tile[TILE_BYTES];                                                        \
        TILE_STORE(t, tile, 64);                                                                   \
        store_sums(tile, acc, pad);                                                                \
    } while (0)

/* acc = weights * V of 16 rows each, row stride v.pad. */
static void sums_one(const struct piece *p, const struct pair *x, float *acc) {
    int64_t pad = p->a->v.pad, n_blocks = pad / 16;
    for (int64_t b = 0; b < n_blocks; b += 4, acc += 64) {
        int64_t now = attn_min(4, n_blocks - b);
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (int64_t step = 0; step < x->n_steps; step++)
            sum_step_one(x->w[0].s + step * PAIR_BYTES, v_step(p, step, b, now), now);
        STORE_SUMS(0, acc, pad);
        if (now > 1) STORE_SUMS(1, acc + 16, pad);
        if (now > 2) STORE_SUMS(2, acc + 32, pad);
        if (now > 3) STORE_SUMS(3, acc + 48, pad);
    }
}

/* And meanwhile half of the weights of `next` (NULL = none). */
static void sums_two(const struct piece *p, const struct pair *x, struct pair *next, float *acc) {
    int64_t pad = p->a->v.pad, n_blocks = pad / 16;
    const int64_t slots = (n_blocks + 1) / 2 * x->n_steps, part = next ? n_halves(next) / 2 : 0;
    int64_t slot = 0;
    float *acc1 = acc + TILE_DIM * pad;
    for (int64_t b = 0; b < n_blocks; b += 2, acc += 32, acc1 += 32) {
        int64_t now = attn_min(2, n_blocks - b);
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (int64_t step = 0; step < x->n_steps; step++) {
            const int64_t to = part * ++slot / slots;
            const struct beside w = next_half(next, to);
            const char *v = v_step(p, step, b, now);
            products_two(v, v + (now > 1 ? PAIR_BYTES : 0), x->w[0].s + step * PAIR_BYTES,
                         x->w[1].s + step * PAIR_BYTES, &w);
            weigh_until(next, to);
        }
        STORE_SUMS(0, acc, pad);
        STORE_SUMS(2, acc1, pad);
        if (now == 1) continue;
        STORE_SUMS(1, acc + 16, pad);
        STORE_SUMS(3, acc1 + 16, pad);
    }
}

/* Whether the sums of a block of rows and acc [16, v.pad] are finite. */
static bool all_finite(const struct attn *a, const struct rows *w, const float *acc, __m512 sum) {
    const __m512 zero = _mm512_setzero_ps();
    __m512 x = _mm512_maskz_mul_ps(lanes16(w->n), sum, zero);
    for (int64_t i = 0; i < w->n * a->v.pad; i += 16)
        x = _mm512_fmadd_ps(_mm512_load_ps(acc + i), zero, x);
    return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) == 0;
}

/* The rest of a pair whose scores are there, to part, and with it the scores and half of the
 * weights of `next` (NULL = none), where both have two blocks; returns whether all is finite. */
static bool run_pair(const struct piece *p, struct pair *x, struct pair *next,
                     const struct attn_part *part) {
    const int64_t block = TILE_DIM * p->a->v.pad;
    bool finite = true;
    if (next) begin_pair(p, next, x);
    weigh_until(x, n_halves(x));
    if (x->n == 2)
        sums_two(p, x, next, part->acc);
    else
        sums_one(p, x, part->acc);
    for (int i = 0; i < x->n; i++) {
        float *acc = part->acc + i * block;
        const __m512 sum = sums_total(&x->sums[i]);
        if (p->bad) bad_sums(p, &x->w[i], acc);
        _mm512_store_ps(part->max + i * TILE_DIM, x->top[i]);
        _mm512_store_ps(part->sum + i * TILE_DIM, sum);
        finite &= all_finite(p->a, &x->w[i], acc, sum);
    }
    return finite;
}

static void fill_tiles(const struct piece *p) {
    int64_t v_blocks = p->a->v.pad / 16;
    k_tiles(&p->a->k, k_row(p, 0), p->n, p->b->k);
    for (int64_t c = 0; c < p->n; c += STEP_CELLS)
        v_tiles(&p->a->v, v_row(p, c), attn_min(STEP_CELLS, p->n - c), 0, v_blocks,
                p->b->v + c / STEP_CELLS * v_blocks * PAIR_BYTES);
}

/* What a range gives to the rows, to `part`, or, with `fold`, together with what is there. */
static void walk(const struct attn *a, const struct attn_unit *u, int64_t index,
                 const struct attn_part *part, bool fold, char *own) {
    struct bufs b;
    carve(a, own, &b);
    struct piece p = { .a = a, .u = u, .b = &b, .p0 = index * RANGE_CELLS };
    p.n = attn_min(u->end - p.p0, RANGE_CELLS);
    int64_t n_blocks = (u->n_rows + TILE_DIM - 1) / TILE_DIM;
    p.stream = n_blocks <= 2;
    if (!p.stream) fill_tiles(&p);
    struct pair x = pair_of(&p, 0, n_blocks), next = { .n = 0 };
    begin_pair(&p, &x, NULL);
    for (int64_t block = 0;; block += 2, x = next) {
        const int64_t r = block * TILE_DIM;
        const struct attn_part into = { part->acc + r * a->v.pad, part->max + r, part->sum + r };
        const struct attn_part to = fold ? (struct attn_part){ b.acc, b.max, b.sum } : into;
        bool more = block + 2 < n_blocks;
        if (more) next = pair_of(&p, block + 2, n_blocks);
        bool together = more && next.n == 2; /* x has two blocks, too */
        if (!run_pair(&p, &x, together ? &next : NULL, &to) && !p.bad) {
            find_bad(&p, b.bad);
            p.bad = b.bad;
            if (p.stream) fill_tiles(&p);
            p.stream = false;
            clear_bad(&p, b.v);
            begin_pair(&p, &x, NULL);
            run_pair(&p, &x, NULL, &to);
            together = false; /* begin again */
        }
        if (fold) attn_fold(attn_min(PAIR_ROWS, u->n_rows - r), a->v.pad, &into, &to);
        if (!more) return;
        if (!together) begin_pair(&p, &next, NULL);
    }
}

static void range(const struct attn *a, const struct attn_unit *u, int64_t index,
                  const struct attn_part *part, char *own) {
    walk(a, u, index, part, false, own);
}

static void range_fold(const struct attn *a, const struct attn_unit *u, int64_t index,
                       const struct attn_part *into, char *own) {
    walk(a, u, index, into, true, own);
}

static const struct attn_cell cell = {
    .range_cells = RANGE_CELLS,
    .tile_tokens = 512,
    .tile_rows = 2048,
    .row_unit = TILE_DIM,
    .k_unit = 32,
    .v_unit = TILE_DIM,
    .own_bytes = own_bytes,
    .begin = begin,
    .range = range,
    .range_fold = range_fold,
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
    tiles_begin();
    attn_run(&cell, n, w);
    tiles_end();
}

/* One token's row leaves 15 of 16 in a tile empty: vectors read the cache faster. */
const struct op_cell op_attn_amx = {
    .run = run, .shared_bytes = shared_bytes, .scratch_bytes = scratch_bytes, .min_tokens = 2
};
