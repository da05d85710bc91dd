/* SPDX-License-Identifier: MIT
 * walk.c - windows through an arm; see walk.h. */
#include "measure/walk.h"

#include <inttypes.h>
#include <string.h>

#include "base/arena.h"
#include "base/fp16.h"
#include "base/timer.h"

/* One logical batch, and the pass that it belongs to. */
struct pass {
    struct walk *walk;
    int64_t first; /* window of sequence 0 */
    int32_t *token, *pos, *seq;
    bool *want;
};

/* Index of the first infinity or NaN, or n. Blocks are looked at as pairs of words: adding one to
 * an exponent of all ones carries into the place of the sign, and nowhere else. */
static int64_t first_nonfinite(const float *x, int64_t n) {
    enum { BLOCK = 32 };
    const uint64_t exponent = 0x7f8000007f800000u, one = 0x0080000000800000u;
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        uint64_t carry = 0, pair[BLOCK / 2];
        memcpy(pair, x + i, sizeof pair);
        for (int j = 0; j < BLOCK / 2; j++)
            carry |= (pair[j] & exponent) + one;
        if (carry & 0x8000000080000000u) break;
    }
    while (i < n && (f32_bits(x[i]) & 0x7f800000u) != 0x7f800000u)
        i++;
    return i;
}

static int on_answer(void *arg, const struct arm_answer *a, struct err *e) {
    int rc = 0;
    const struct pass *p = arg;
    struct walk *w = p->walk;
    struct walk_answer s = { .window = p->first + p->seq[a->i], .pos = p->pos[a->i], .a = a };
    if (s.window < w->skip) goto out;

    int64_t n_vocab = w->arm->info.n_vocab;
    int64_t bad = first_nonfinite(a->logits, n_vocab);
    if (bad < n_vocab) {
        w->bad_window = s.window;
        w->bad_pos = s.pos;
    }
    FAIL_IF(bad < n_vocab, e, ERR_NONFINITE,
            "chunk %" PRId64 ", position %d: the logit of token %" PRId64 " is %g", s.window + 1,
            s.pos, bad, (double)a->logits[bad]);
    s.target = windows_target(w->win, w->tokens, s.window, s.pos);
    s.nll = a->lse - (double)(a->logits[s.target] - (float)a->max);
    TRY(w->score(w->arg, &s, e));
    if (s.pos == w->win->end - 1) TRY(w->done(w->arg, s.window, e));
out:
    return rc;
}

/* Positions [from, to) of n windows, as one batch. */
static int decode_piece(struct pass *p, int n, int from, int to, struct err *e) {
    struct walk *w = p->walk;
    const struct windows *win = w->win;
    struct arm_batch b = {
        .token = p->token, .pos = p->pos, .seq = p->seq, .want = p->want, .uniform = true
    };
    for (int s = 0; s < n; s++) {
        for (int i = from; i < to; i++, b.n++) {
            p->token[b.n] = windows_input(win, w->tokens, p->first + s, i, w->bos);
            p->pos[b.n] = i;
            p->seq[b.n] = s;
            p->want[b.n] = i >= win->first && i < win->end;
        }
    }
    w->n_evaluated += b.n;
    return arm_decode(w->arm, &b, on_answer, p, e);
}

static int run_pass(struct pass *p, int n, struct err *e) {
    int rc = 0;
    struct walk *w = p->walk;
    int n_ctx = w->win->n_ctx;
    double t0 = timer_s();
    TRY(arm_kv_trim(w->arm, -1, 0, e));
    int step = w->n_batch < n_ctx ? w->n_batch : n_ctx;
    for (int from = 0; from < n_ctx; from += step)
        TRY(decode_piece(p, n, from, from + step < n_ctx ? from + step : n_ctx, e));
    double t = timer_s() - t0;
    w->seconds += t;
    if (w->pass) TRY(w->pass(w->arg, p->first, n, t, e));
out:
    return rc;
}

int walk_run(struct walk *w, struct err *e) {
    int rc = 0;
    struct pass p = { .walk = w };
    int64_t n_pass = w->n_seq;
    size_t n_max = (size_t)n_pass * (size_t)w->win->n_ctx;
    w->n_evaluated = 0;
    w->seconds = 0;
    w->gpu = (struct nvml_use){ 0 };
    w->bad_window = -1;
    w->bad_pos = -1;
    FAIL_IF(w->n_seq < 1 || (w->n_batch < w->win->n_ctx && w->n_seq > 1), e, ERR_ARG,
            "a batch of %d tokens cannot hold %d windows of %d", w->n_batch, w->n_seq,
            w->win->n_ctx);
    p.token = heap_calloc(3 * n_max, sizeof *p.token, e);
    p.want = heap_calloc(n_max, sizeof *p.want, e);
    if (!p.token || !p.want) {
        rc = ERR_NOMEM;
        goto out;
    }
    p.pos = p.token + n_max;
    p.seq = p.pos + n_max;
    if (w->skip >= w->win->n) goto out;
    const double t0 = timer_s();
    nvml_begin(w->arm->cards);
    for (p.first = w->skip / n_pass * n_pass; p.first < w->win->n; p.first += n_pass) {
        int64_t left = w->win->n - p.first;
        TRY(run_pass(&p, (int)(left < n_pass ? left : n_pass), e));
    }
    nvml_end(w->arm->cards, timer_s() - t0, &w->gpu);
out:
    heap_free(p.token);
    heap_free(p.want);
    return rc;
}
