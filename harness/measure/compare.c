/* SPDX-License-Identifier: MIT
 * compare.c - two arms on a text; see compare.h. */
#include "measure/compare.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "stats/quantile.h"

/* ---- one chunk ------------------------------------------------------------------------------- */

static void start_chunk(struct compare *c) {
    c->now = (struct compare_chunk){ .constant = { true, true } };
    c->now.bad[SIDE_A].pos = c->now.bad[SIDE_B].pos = -1;
}

static void note_bad(struct compare_chunk *n, int side, const struct pair *p) {
    if (p->row[side]->bad < 0 || n->bad[side].pos >= 0) return;
    n->bad[side].pos = p->pos;
    n->bad[side].token = p->row[side]->bad;
}

static int on_score(void *arg, const struct pair *p, struct err *e) {
    (void)e;
    struct compare *c = arg;
    struct compare_chunk *n = &c->now;
    const struct arm_row *a = p->row[SIDE_A], *b = p->row[SIDE_B];
    for (int s = 0; s < SIDE_count; s++) {
        note_bad(n, s, p);
        if (n->n == 0) c->first[s] = *p->row[s];
        if (!arm_row_same(&c->first[s], p->row[s])) n->constant[s] = false;
    }
    if (a->bad >= 0 || b->bad >= 0) return 0;
    double d = b->nll - a->nll;
    n->n++;
    n->nll[SIDE_A] += a->nll;
    n->nll[SIDE_B] += b->nll;
    n->nll_sq[SIDE_A] += a->nll * a->nll;
    n->nll_sq[SIDE_B] += b->nll * b->nll;
    n->d_abs += fabs(d);
    if (n->n == 1 || fabs(d) > n->d_max) {
        n->d_max = fabs(d);
        n->d_max_pos = p->pos;
    }
    n->kld_ab += p->kld_ab;
    n->kld_ba += p->kld_ba;
    if (p->kld_ab > n->kld_max) n->kld_max = p->kld_ab;
    n->n_same_top += a->top1 == b->top1;
    /* Without logits: A's lead over its second best is no more than over B's choice. */
    double gap = isnan(p->gap) ? a->max - (double)a->second : p->gap;
    n->n_wide_flips += a->top1 != b->top1 && gap >= WIDE_FLIP_GAP;
    if (a->top1 != b->top1 && gap > n->gap_max) {
        n->gap_max = gap;
        n->gap_max_pos = p->pos;
    }
    n->n_different += !arm_row_same(a, b) || memcmp(&a->nll, &b->nll, sizeof a->nll) != 0;
    n->only[SIDE_A] += a->top1 == p->target && b->top1 != p->target;
    n->only[SIDE_B] += b->top1 == p->target && a->top1 != p->target;
    c->d_abs[c->n_positions] = fabs(d);
    c->kld_at[c->n_positions] = p->kld_ab;
    c->n_positions++;
    return 0;
}

/* ---- all chunks ------------------------------------------------------------------------------ */

static void add_chunk(struct compare *c, const struct compare_chunk *n) {
    c->chunk_of[n->window] = c->n_chunks;
    c->chunks[c->n_chunks++] = *n;
    c->n_same_top += n->n_same_top;
    c->n_wide_flips += n->n_wide_flips;
    c->n_different += n->n_different;
    for (int s = 0; s < SIDE_count; s++)
        c->only[s] += n->only[s];
    c->kld_ab += n->kld_ab;
    c->kld_ba += n->kld_ba;
    if (n->kld_max > c->kld_max) c->kld_max = n->kld_max;
    c->d_abs_sum += n->d_abs;
    if (n->n > 0) welford_add(&c->d, (n->nll[SIDE_B] - n->nll[SIDE_A]) / (double)n->n);
}

/* Short chunks are pooled until there are positions enough to judge. */
static struct verdict judge_pool(struct compare *c, const struct compare_chunk *n) {
    struct compare_chunk *p = &c->pool;
    if (p->n == 0) *p = (struct compare_chunk){ .constant = { true, true } };
    p->window = n->window;
    p->n += n->n;
    p->n_same_top += n->n_same_top;
    for (int s = 0; s < SIDE_count; s++) {
        p->nll[s] += n->nll[s];
        p->constant[s] = p->constant[s] && n->constant[s];
    }
    if (p->n < VERDICT_MIN_POSITIONS) return (struct verdict){ .status = STATUS_OPEN };
    struct verdict v = verdict_positions(&c->rel, p);
    p->n = 0;
    return v;
}

/* Whether the run ends here. */
static bool decide(struct compare *c, const struct compare_chunk *n) {
    struct verdict v = verdict_chunk(&c->rel, n);
    if (v.status == STATUS_OPEN) v = judge_pool(c, n);
    if (v.status == STATUS_OPEN) v = verdict_mean(&c->rel, &c->d);
    bool by_mean = v.status == STATUS_PASS || v.reason == REASON_MEAN;
    c->verdict = v;
    return v.status != STATUS_OPEN && !(by_mean && c->keep_going);
}

static int on_done(void *arg, int64_t window, struct err *e) {
    int rc = 0;
    struct compare *c = arg;
    c->now.window = window;
    for (int s = 0; s < SIDE_count; s++) { /* since the last chunk; a pass computes several */
        c->now.seconds[s] = c->walk.seconds[s] - c->t[s];
        c->t[s] = c->walk.seconds[s];
    }
    add_chunk(c, &c->now);
    bool end = decide(c, &c->now);
    if (c->chunk) TRY(c->chunk(c->arg, &c->now, c, e));
    start_chunk(c);
    if (end) rc = 1;
out:
    return rc;
}

static int shuffle(struct compare *c, struct err *e) {
    int64_t n = c->walk.win->n;
    c->order = heap_alloc(2 * (size_t)n * sizeof *c->order, e);
    if (!c->order) return ERR_NOMEM;
    c->chunk_of = c->order + n;
    memset(c->chunk_of, -1, (size_t)n * sizeof *c->chunk_of);
    struct rng r = { c->seed };
    for (int64_t i = 0; i < n; i++) { /* inside-out Fisher-Yates */
        int64_t j = (int64_t)rng_below(&r, (uint32_t)i + 1);
        c->order[i] = c->order[j];
        c->order[j] = i;
    }
    c->walk.order = c->order;
    return 0;
}

int compare_run(struct compare *c, struct err *e) {
    int rc = 0;
    int64_t n = c->walk.n, n_pos = n * windows_n_scored(c->walk.win);
    c->rel.n_vocab = c->walk.arm[SIDE_A]->info.n_vocab;
    TRY(shuffle(c, e));
    c->chunks = heap_calloc((size_t)n, sizeof *c->chunks, e);
    c->d_abs = heap_alloc((size_t)n_pos * sizeof *c->d_abs, e);
    c->kld_at = heap_alloc((size_t)n_pos * sizeof *c->kld_at, e);
    FAIL_IF(!c->chunks || !c->d_abs || !c->kld_at, e, ERR_NOMEM, "out of memory for %lld positions",
            (long long)n_pos);
    start_chunk(c);
    c->walk.arg = c;
    c->walk.score = on_score;
    c->walk.done = on_done;
    TRY(pair_walk_run(&c->walk, e));
out:
    c->n_positions = 0; /* of whole chunks: an arm may have died inside of one */
    for (int64_t i = 0; i < c->n_chunks; i++)
        c->n_positions += c->chunks[i].n;
    if (c->d_abs) sort_f64(c->d_abs, c->n_positions);
    if (c->kld_at) sort_f64(c->kld_at, c->n_positions);
    return rc;
}

void compare_release(struct compare *c) {
    heap_free(c->order);
    heap_free(c->chunks);
    heap_free(c->d_abs);
    heap_free(c->kld_at);
    c->order = c->chunk_of = NULL;
    c->chunks = NULL;
    c->d_abs = c->kld_at = NULL;
}

/* ---- afterwards ------------------------------------------------------------------------------ */

struct tail compare_tail(const struct compare *c) {
    int64_t n = c->n_positions;
    struct tail t = { .n = n,
                      .n_wide_flips = c->n_wide_flips,
                      .p50 = quantile_sorted(c->d_abs, n, 0.5),
                      .p99 = quantile_sorted(c->d_abs, n, 0.99),
                      .p999 = quantile_sorted(c->d_abs, n, 0.999),
                      .max = quantile_sorted(c->d_abs, n, 1.0) };
    for (int64_t i = 0; i < c->n_chunks; i++) {
        const struct compare_chunk *k = &c->chunks[i];
        if (k->d_max == t.max) {
            t.max_chunk = k->window;
            t.max_pos = k->d_max_pos;
        }
        if (k->gap_max > t.gap_max) {
            t.gap_max = k->gap_max;
            t.gap_chunk = k->window;
            t.gap_pos = k->gap_max_pos;
        }
    }
    return t;
}

/* Chunks arrive shuffled; sums are added in the text's order, as perplexity does. */
struct ppl_stats compare_ppl(const struct compare *c, enum side side) {
    struct ppl_stats s = { 0 };
    if (!c->chunk_of) return s; /* it never began */
    for (int64_t w = 0; w < c->walk.win->n; w++) {
        if (c->chunk_of[w] < 0) continue;
        const struct compare_chunk *k = &c->chunks[c->chunk_of[w]];
        if (k->n > 0) ppl_stats_add_chunk(&s, k->nll[side], k->nll_sq[side], k->n);
    }
    return s;
}

const struct compare_chunk *compare_worst(const struct compare *c) {
    const struct compare_chunk *worst = &c->chunks[0];
    for (int64_t i = 1; i < c->n_chunks; i++)
        if (c->chunks[i].d_abs > worst->d_abs) worst = &c->chunks[i];
    return worst;
}
