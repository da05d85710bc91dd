/* SPDX-License-Identifier: MIT
 * verdict.c - rules of a comparison; see verdict.h. */
#include "measure/verdict.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/compiler.h"

#define MAX_PPL_RATIO 1.5 /* of a chunk, between arms of the same weights */
#define MIN_SAME_TOP 0.70 /* share of positions, likewise */
#define UNIFORM_GAP 0.05  /* nats between the arms; both may be about as good as guessing */

const char *status_name(enum status s) {
    static const char *const names[] = { "open", "PASS", "FAIL", "UNDECIDED", "MISTRUSTED" };
    return names[s];
}

const char *reason_name(enum reason r) {
    static const char *const names[] = {
#define X(name, meaning) #name,
        REASON_LIST(X)
#undef X
    };
    return names[r];
}

PRINTF_LIKE(3, 4)
static struct verdict say(enum status s, enum reason r, const char *fmt, ...) {
    struct verdict v = { .status = s, .reason = r, .window = -1 };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v.text, sizeof v.text, fmt, ap);
    va_end(ap);
    return v;
}

static const struct verdict nothing = { .status = STATUS_OPEN, .window = -1 };

static char letter(int side) {
    return side == SIDE_A ? 'A' : 'B';
}

static struct verdict nonfinite(const struct compare_chunk *c) {
    if (c->bad[SIDE_A].pos >= 0 && c->bad[SIDE_B].pos >= 0)
        return say(STATUS_MISTRUSTED, REASON_REFERENCE,
                   "logits of both arms are not finite, first at positions %d (A) and %d (B) of "
                   "chunk %" PRId64,
                   c->bad[SIDE_A].pos, c->bad[SIDE_B].pos, c->window + 1);
    for (int s = 0; s < SIDE_count; s++)
        if (c->bad[s].pos >= 0)
            return say(STATUS_FAIL, REASON_NONFINITE,
                       "arm %c: the logit of token %d at position %d of chunk %" PRId64
                       " is not finite",
                       letter(s), c->bad[s].token, c->bad[s].pos, c->window + 1);
    return nothing;
}

static struct verdict broken(const struct relation *rel, const struct compare_chunk *c) {
    const double uniform = log((double)rel->n_vocab), n = (double)c->n;
    for (int s = 0; s < SIDE_count; s++) {
        double mean = c->nll[s] / n, other = c->nll[1 - s] / n;
        if (c->constant[s] && !c->constant[1 - s])
            return say(STATUS_FAIL, REASON_CONSTANT_LOGITS,
                       "arm %c gives the same logits at all %" PRId64
                       " positions of chunk %" PRId64,
                       letter(s), c->n, c->window + 1);
        if (mean > uniform && other < uniform && mean - other > UNIFORM_GAP)
            return say(STATUS_FAIL, REASON_WORSE_THAN_UNIFORM,
                       "arm %c: PPL %.6g in chunk %" PRId64
                       " is worse than guessing among %d tokens; arm %c has %.6g",
                       letter(s), exp(mean), c->window + 1, rel->n_vocab, letter(1 - s),
                       exp(other));
    }
    return nothing;
}

static struct verdict far_apart(const struct compare_chunk *c) {
    double ratio = exp((c->nll[SIDE_B] - c->nll[SIDE_A]) / (double)c->n);
    double same = (double)c->n_same_top / (double)c->n;
    if (ratio > MAX_PPL_RATIO || ratio < 1 / MAX_PPL_RATIO)
        return say(STATUS_FAIL, REASON_PPL_RATIO,
                   "PPL of chunk %" PRId64 " is %.4f in arm A and %.4f in arm B, %.3g times",
                   c->window + 1, exp(c->nll[SIDE_A] / (double)c->n),
                   exp(c->nll[SIDE_B] / (double)c->n), ratio);
    if (same < MIN_SAME_TOP)
        return say(STATUS_FAIL, REASON_TOP1,
                   "the arms prefer the same token at %.1f %% of the positions of chunk %" PRId64
                   ", less than %.0f %%",
                   100 * same, c->window + 1, 100 * MIN_SAME_TOP);
    return nothing;
}

struct verdict verdict_chunk(const struct relation *rel, const struct compare_chunk *c) {
    struct verdict v = nonfinite(c);
    if (v.status == STATUS_OPEN && rel->bitwise && c->n_different > 0)
        v = say(STATUS_FAIL, REASON_NOT_BITWISE,
                "the same cells on the same weights, yet %" PRId64 " of %" PRId64
                " positions of chunk %" PRId64 " differ, position %d most: |d nll| = %.3g",
                c->n_different, c->n, c->window + 1, c->d_max_pos, c->d_max);
    if (v.status != STATUS_OPEN) v.window = c->window;
    return v;
}

struct verdict verdict_positions(const struct relation *rel, const struct compare_chunk *c) {
    if (c->n < VERDICT_MIN_POSITIONS) return nothing;
    struct verdict v = broken(rel, c);
    if (v.status == STATUS_OPEN && rel->same_weights) v = far_apart(c);
    if (v.status != STATUS_OPEN) v.window = c->window;
    return v;
}

struct verdict verdict_mean(const struct relation *rel, const struct welford *d) {
    if (d->n < CONFSEQ_MIN_N) return nothing;
    double u = confseq_radius(d, rel->alpha);
    if (fabs(d->mean) - u > rel->margin)
        return say(STATUS_FAIL, REASON_MEAN,
                   "ln(PPL_B/PPL_A) = %+.6f, in [%+.6f, %+.6f] after %" PRId64
                   " chunks: outside of +/- %g",
                   d->mean, d->mean - u, d->mean + u, d->n, rel->margin);
    if (fabs(d->mean) + u < rel->margin)
        return say(STATUS_PASS, REASON_NONE,
                   "ln(PPL_B/PPL_A) = %+.6f, in [%+.6f, %+.6f] after %" PRId64
                   " chunks: inside of +/- %g",
                   d->mean, d->mean - u, d->mean + u, d->n, rel->margin);
    return nothing;
}

struct verdict verdict_tail(const struct relation *rel, const struct tail *t) {
    double limit = fmax(TAIL_P99S * t->p99, TAIL_MIN_D);
    struct verdict v = nothing;
    if (!rel->same_weights || t->n == 0) return v;
    if (t->max > limit) {
        v = say(STATUS_FAIL, REASON_TAIL,
                "|d nll| = %.3g at position %d of chunk %" PRId64
                "; 99 of 100 are below %.3g, and the limit is %.3g",
                t->max, t->max_pos, t->max_chunk + 1, t->p99, limit);
        v.window = t->max_chunk;
    } else if (t->gap_max > fmax(limit, WIDE_FLIP_GAP)) {
        v = say(STATUS_FAIL, REASON_TAIL,
                "arm A prefers its token by %.3g nats at position %d of chunk %" PRId64
                ", arm B another one",
                t->gap_max, t->gap_pos, t->gap_chunk + 1);
        v.window = t->gap_chunk;
    }
    return v;
}
