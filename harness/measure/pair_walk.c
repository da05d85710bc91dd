/* SPDX-License-Identifier: MIT
 * pair_walk.c - two arms in lockstep; see pair_walk.h. */
#include "measure/pair_walk.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/timer.h"

struct pass {
    struct pair_walk *walk;
    int64_t window[64]; /* [n] of this pass */
    int n;
    /* one batch */
    int32_t *token, *pos, *seq;
    bool *want;
    /* rows of a slice */
    int64_t n_slice;
    struct arm_row *row[SIDE_count]; /* [n_slice] */
    float *logits_a;                 /* [n_slice, n_vocab] */
    double *kld_ab, *kld_ba, *gap;   /* [n_slice] */
    int32_t *target;                 /* [n_slice] */
    int64_t r0;
};

/* ---- computing ------------------------------------------------------------------------------- */

/* Add positions [from, to) of window s of the pass to the batch. */
static void add_tokens(struct pass *p, struct arm_batch *b, int s, int from, int to) {
    const struct pair_walk *w = p->walk;
    for (int i = from; i < to; i++, b->n++) {
        p->token[b->n] = windows_input(w->win, w->tokens, p->window[s], i, w->bos);
        p->pos[b->n] = i;
        p->seq[b->n] = s;
        p->want[b->n] = i >= w->win->first && i < w->win->end;
    }
}

/* Positions [from, to) of windows [s0, s1) as one batch; its rows are held behind the others. */
static int hold(struct pass *p, struct arm *a, int s0, int s1, int from, int to, struct err *e) {
    struct arm_batch b = { 0, p->token, p->pos, p->seq, p->want, true };
    for (int s = s0; s < s1; s++)
        add_tokens(p, &b, s, from, to);
    return arm_hold(a, &b, s0 > 0 || from > 0, e);
}

/* All windows of the pass, in batches as large as the arm takes. Rows are held window by window. */
static int compute(struct pass *p, enum side side, struct err *e) {
    int rc = 0;
    struct pair_walk *w = p->walk;
    struct arm *a = w->arm[side];
    const int n_ctx = w->win->n_ctx, n_batch = a->info.n_batch;
    const int whole = n_batch / n_ctx; /* windows of a batch; 0: a window takes several batches */
    double t0 = timer_s();
    w->failed = (int)side;
    TRY(arm_kv_trim(a, -1, 0, e));
    for (int s = 0; whole && s < p->n; s += whole)
        TRY(hold(p, a, s, s + whole < p->n ? s + whole : p->n, 0, n_ctx, e));
    for (int s = 0; !whole && s < p->n; s++)
        for (int i = 0; i < n_ctx; i += n_batch)
            TRY(hold(p, a, s, s + 1, i, i + n_batch < n_ctx ? i + n_batch : n_ctx, e));
    w->seconds[side] += timer_s() - t0;
    w->failed = -1;
out:
    return rc;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static int keep_a(void *arg, const struct arm_row *row, struct err *e) {
    (void)e;
    struct pass *p = arg;
    int64_t i = row->r - p->r0, n_vocab = p->walk->arm[SIDE_A]->info.n_vocab;
    p->row[SIDE_A][i] = *row;
    p->row[SIDE_A][i].logits = NULL;
    if (row->logits)
        memcpy(p->logits_a + i * n_vocab, row->logits, (size_t)n_vocab * sizeof(float));
    return 0;
}

/* Both divergences of one position. The exponentials are f32, whose error is 1e-7 of a term; the
 * logarithms' difference and the sums are f64, so a row against itself gives exactly 0. */
static void diverge(struct pass *p, int64_t i, const float *la, const float *lb) {
    const struct arm_row *a = &p->row[SIDE_A][i], *b = &p->row[SIDE_B][i];
    int32_t n_vocab = p->walk->arm[SIDE_A]->info.n_vocab;
    const double za = a->max + a->lse, zb = b->max + b->lse;
    const float ma = (float)za, mb = (float)zb;
    double ab = 0, ba = 0;
    for (int32_t v = 0; v < n_vocab; v++) {
        double d = ((double)la[v] - za) - ((double)lb[v] - zb); /* ln p_a - ln p_b */
        ab += (double)expf(la[v] - ma) * d;
        ba -= (double)expf(lb[v] - mb) * d;
    }
    p->kld_ab[i] = ab;
    p->kld_ba[i] = ba;
    p->gap[i] = a->max - (double)la[b->top1];
}

static int keep_b(void *arg, const struct arm_row *row, struct err *e) {
    (void)e;
    struct pass *p = arg;
    int64_t i = row->r - p->r0, n_vocab = p->walk->arm[SIDE_A]->info.n_vocab;
    p->row[SIDE_B][i] = *row;
    p->row[SIDE_B][i].logits = NULL;
    p->kld_ab[i] = p->kld_ba[i] = p->gap[i] = (double)NAN;
    if (row->logits && row->bad < 0 && p->row[SIDE_A][i].bad < 0)
        diverge(p, i, p->logits_a + i * n_vocab, row->logits);
    return 0;
}

static int ask(struct pass *p, enum side side, int64_t n, struct err *e) {
    int rc = 0;
    struct pair_walk *w = p->walk;
    double t0 = timer_s();
    w->failed = (int)side;
    TRY(arm_rows(w->arm[side], p->r0, n, p->target, w->logits, side == SIDE_A ? keep_a : keep_b, p,
                 e));
    w->seconds[side] += timer_s() - t0;
    w->failed = -1;
out:
    return rc;
}

/* Hand over the rows of a slice; row r is position r % n_scored of window r / n_scored. */
static int report(struct pass *p, int64_t n, struct err *e) {
    int rc = 0;
    struct pair_walk *w = p->walk;
    const int n_scored = windows_n_scored(w->win);
    for (int64_t i = 0; i < n; i++) {
        int64_t r = p->r0 + i;
        struct pair s = { .window = p->window[r / n_scored],
                          .pos = w->win->first + (int)(r % n_scored),
                          .target = p->target[i],
                          .row = { &p->row[SIDE_A][i], &p->row[SIDE_B][i] },
                          .kld_ab = p->kld_ab[i],
                          .kld_ba = p->kld_ba[i],
                          .gap = p->gap[i] };
        if ((rc = w->score(w->arg, &s, e))) goto out;
        if (s.pos == w->win->end - 1 && (rc = w->done(w->arg, s.window, e))) goto out;
    }
out:
    return rc;
}

static int run_pass(struct pass *p, struct err *e) {
    int rc = 0;
    struct pair_walk *w = p->walk;
    const int n_scored = windows_n_scored(w->win);
    const int64_t n_rows = (int64_t)p->n * n_scored;
    TRY(compute(p, SIDE_A, e));
    TRY(compute(p, SIDE_B, e));
    w->n_evaluated += (int64_t)p->n * w->win->n_ctx;
    for (p->r0 = 0; p->r0 < n_rows; p->r0 += p->n_slice) {
        int64_t n = n_rows - p->r0 < p->n_slice ? n_rows - p->r0 : p->n_slice;
        for (int64_t i = 0; i < n; i++)
            p->target[i] = windows_target(w->win, w->tokens, p->window[(p->r0 + i) / n_scored],
                                          w->win->first + (int)((p->r0 + i) % n_scored));
        TRY(ask(p, SIDE_A, n, e));
        TRY(ask(p, SIDE_B, n, e));
        if ((rc = report(p, n, e))) goto out;
    }
out:
    return rc;
}

static int reserve(struct pass *p, struct err *e) {
    int rc = 0;
    const struct pair_walk *w = p->walk;
    size_t n_tok = (size_t)w->n_seq * (size_t)w->win->n_ctx;
    size_t n_vocab = (size_t)w->arm[SIDE_A]->info.n_vocab;
    int64_t n_rows = (int64_t)w->n_seq * windows_n_scored(w->win);
    p->n_slice = w->logits ? (int64_t)(PAIR_ROWS_BYTES / (n_vocab * sizeof(float))) : n_rows;
    if (p->n_slice < 1) p->n_slice = 1;
    if (p->n_slice > n_rows) p->n_slice = n_rows;
    size_t n = (size_t)p->n_slice;
    p->token = heap_calloc(3 * n_tok, sizeof *p->token, e);
    p->want = heap_calloc(n_tok, sizeof *p->want, e);
    p->row[SIDE_A] = heap_calloc(2 * n, sizeof **p->row, e);
    p->kld_ab = heap_calloc(3 * n, sizeof *p->kld_ab, e);
    p->target = heap_calloc(n, sizeof *p->target, e);
    if (w->logits) p->logits_a = heap_alloc(n * n_vocab * sizeof *p->logits_a, e);
    FAIL_IF(!p->token || !p->want || !p->row[SIDE_A] || !p->kld_ab || !p->target ||
                (w->logits && !p->logits_a),
            e, ERR_NOMEM, "out of memory for %lld rows of %zu logits", (long long)p->n_slice,
            n_vocab);
    p->pos = p->token + n_tok;
    p->seq = p->pos + n_tok;
    p->row[SIDE_B] = p->row[SIDE_A] + n;
    p->kld_ba = p->kld_ab + n;
    p->gap = p->kld_ba + n;
out:
    return rc;
}

int pair_walk_run(struct pair_walk *w, struct err *e) {
    int rc = 0;
    struct pass p = { .walk = w };
    const struct arm_info *a = &w->arm[SIDE_A]->info, *b = &w->arm[SIDE_B]->info;
    w->failed = -1;
    w->seconds[SIDE_A] = w->seconds[SIDE_B] = 0;
    w->n_evaluated = 0;
    FAIL_IF(a->n_vocab != b->n_vocab, e, ERR_MISMATCH,
            "arm A has a vocabulary of %d tokens, arm B one of %d", a->n_vocab, b->n_vocab);
    FAIL_IF(w->n_seq < 1 || w->n_seq > (int)N_ELEMS(p.window), e, ERR_ARG,
            "passes of %d windows: expected 1 to %zu", w->n_seq, N_ELEMS(p.window));
    TRY(reserve(&p, e));
    for (int64_t i = 0; i < w->n; i += p.n) {
        int64_t n = i == 0 ? 1 : w->n - i;
        p.n = (int)(n < w->n_seq ? n : w->n_seq);
        for (int s = 0; s < p.n; s++)
            p.window[s] = w->order ? w->order[i + s] : i + s;
        rc = run_pass(&p, e);
        if (rc) break;
    }
    if (rc > 0) rc = 0; /* the caller has seen enough */
out:
    heap_free(p.token);
    heap_free(p.want);
    heap_free(p.row[SIDE_A]);
    heap_free(p.kld_ab);
    heap_free(p.target);
    heap_free(p.logits_a);
    return rc;
}
