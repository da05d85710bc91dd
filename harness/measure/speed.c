/* SPDX-License-Identifier: MIT
 * speed.c - timed decoding on one arm; contract in speed.h. */
#include "measure/speed.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

#include "base/arena.h"
#include "base/timer.h"
#include "stats/interval.h"
#include "stats/quantile.h"

static int64_t now(const struct speed *s) {
    return s->clock.ns ? s->clock.ns(s->clock.arg) : timer_ns();
}

int speed_init(struct speed *s, struct arm *a, int max_tokens, uint64_t seed,
               struct speed_clock clock, struct err *e) {
    int rc = 0;
    *s = (struct speed){ .arm = a, .clock = clock, .rng = { seed }, .cap = max_tokens };
    FAIL_IF(a->info.n_vocab < 1 || a->info.n_batch < 1, e, ERR_UNSUPPORTED,
            "an engine with %d tokens of vocabulary and batches of %d cannot be timed",
            (int)a->info.n_vocab, a->info.n_batch);
    size_t n = (size_t)max_tokens;
    rc = ERR_NOMEM;
    if (!(s->token = heap_calloc(n, sizeof *s->token, e))) goto out;
    if (!(s->pos = heap_calloc(n, sizeof *s->pos, e))) goto out;
    if (!(s->seq = heap_calloc(n, sizeof *s->seq, e))) goto out;
    if (!(s->want = heap_calloc(n, sizeof *s->want, e))) goto out;
    rc = 0;
out:
    if (rc < 0) speed_release(s);
    return rc;
}

void speed_release(struct speed *s) {
    heap_free(s->token);
    heap_free(s->pos);
    heap_free(s->seq);
    heap_free(s->want);
    *s = (struct speed){ 0 };
}

/* Draw n tokens for positions pos.. of a sequence. Errors before the clock starts: the engine's own
 * message would not say which part did not fit. */
static int fill(struct speed *s, int32_t seq, int pos, int n, struct err *e) {
    int rc = 0;
    FAIL_IF(n < 1 || n > s->cap, e, ERR_ARG, "part of %d tokens; expected 1 to %d", n, s->cap);
    FAIL_IF(pos < 0 || pos > s->arm->info.n_ctx - n, e, ERR_ARG,
            "%d tokens at position %d do not fit into a context of %d", n, pos, s->arm->info.n_ctx);
    for (int i = 0; i < n; i++) {
        s->token[i] = (int32_t)rng_below(&s->rng, (uint32_t)s->arm->info.n_vocab);
        s->pos[i] = pos + i;
        s->seq[i] = seq;
    }
out:
    return rc;
}

/* A logit that is NaN or +inf shows in the largest or in the sum. */
static int check_answer(void *arg, const struct arm_answer *a, struct err *e) {
    int rc = 0;
    const struct speed *s = arg;
    FAIL_IF(!isfinite(a->max) || !isfinite(a->lse), e, ERR_NONFINITE,
            "%s: the logits of a random token are not finite: the largest is %g, ln(sum exp) "
            "below it %g",
            s->arm->info.name, a->max, a->lse);
out:
    return rc;
}

/* Decode tokens [0, n) of the buffers in pieces of at most `piece`. An arm in another process says
 * how long it took there, without the way. */
static int decode(struct speed *s, int n, int piece, int64_t *ns, struct err *e) {
    int rc = 0;
    int64_t start = now(s), told = 0;
    for (int i = 0; i < n; i += piece) {
        struct arm_batch b = { .n = n - i < piece ? n - i : piece,
                               .token = s->token + i,
                               .pos = s->pos + i,
                               .seq = s->seq + i,
                               .want = s->want + i };
        TRY(arm_decode(s->arm, &b, s->check ? check_answer : NULL, s, e));
        told += s->arm->decode_ns;
    }
    *ns += told ? told : now(s) - start;
out:
    return rc;
}

int speed_prompt(struct speed *s, int32_t seq, int pos, int n, int64_t *ns, struct err *e) {
    int rc = 0;
    TRY(fill(s, seq, pos, n, e));
    memset(s->want, 0, (size_t)n * sizeof *s->want);
    s->want[n - 1] = true;
    TRY(decode(s, n, s->arm->info.n_batch, ns, e));
out:
    return rc;
}

int speed_generate(struct speed *s, int32_t seq, int pos, int n, int64_t *ns, struct err *e) {
    int rc = 0;
    TRY(fill(s, seq, pos, n, e));
    for (int i = 0; i < n; i++)
        s->want[i] = true;
    TRY(decode(s, n, 1, ns, e));
out:
    return rc;
}

int speed_check_once(struct speed *s, int32_t seq, struct err *e) {
    int64_t ns = 0;
    int rc = 0;
    s->check = true;
    TRY(speed_generate(s, seq, 0, 1, &ns, e));
    TRY(arm_kv_trim(s->arm, seq, 0, e));
out:
    s->check = false;
    return rc;
}

int speed_stat_of(const double *sample, int n, struct speed_stat *out, struct err *e) {
    int rc = 0;
    double *sorted = heap_alloc((size_t)n * sizeof *sorted, e);
    if (!sorted) return ERR_NOMEM;
    memcpy(sorted, sample, (size_t)n * sizeof *sorted);
    out->median = median_f64(sorted, n); /* sorts */
    struct interval i = median_interval95(sorted, n);
    out->ci_low = n > 1 ? i.low : (double)NAN;
    out->ci_high = n > 1 ? i.high : (double)NAN;
    FAIL_IF(!(out->median > 0), e, ERR_UNSUPPORTED,
            "a median time of %g s: the clock does not tell such short parts apart", out->median);
out:
    heap_free(sorted);
    return rc;
}

struct speed_stat speed_tps(struct speed_stat seconds, int n) {
    return (struct speed_stat){ .median = n / seconds.median,
                                .ci_low = n / seconds.ci_high,
                                .ci_high = n / seconds.ci_low };
}

int64_t speed_rss_bytes(const struct arm *a) {
    struct rusage u;
    if (a && a->rss_bytes) return a->rss_bytes;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (int64_t)u.ru_maxrss * 1024 : 0; /* KiB on Linux */
}
