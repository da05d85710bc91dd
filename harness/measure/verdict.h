/* SPDX-License-Identifier: MIT
 * verdict.h - the rules by which two arms agree or not; pure functions of what was measured.
 *
 * Deterministic rules speak after every chunk and own the start, where statistics cannot: they need
 * no noise floor. From chunk CONFSEQ_MIN_N on a confidence sequence over the chunks' mean
 * differences speaks at every look. The worst of what they say is the verdict. */
#ifndef GGAUGE_VERDICT_H
#define GGAUGE_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "measure/pair_walk.h"
#include "stats/confseq.h"

enum status { STATUS_OPEN, STATUS_PASS, STATUS_FAIL, STATUS_UNDECIDED, STATUS_MISTRUSTED };
const char *status_name(enum status s); /* "PASS"; "open" for STATUS_OPEN */

/*    reason            what it means */
#define REASON_LIST(X)                                                                             \
    X(NONE,             "")                                                                        \
    X(NONFINITE,        "a logit is not a number")                                                 \
    X(NOT_BITWISE,      "the arms promise the same bits")                                          \
    X(WORSE_THAN_UNIFORM, "worse than guessing every token alike")                                 \
    X(CONSTANT_LOGITS,  "the same logits at every position")                                       \
    X(PPL_RATIO,        "the perplexities of one chunk are far apart")                             \
    X(TOP1,             "the arms prefer different tokens")                                        \
    X(MEAN,             "the mean difference is beyond the margin")                                \
    X(TAIL,             "single positions are far apart")                                          \
    X(OPS,              "an operation is beyond its limit")                                        \
    X(ARM,              "an arm died, hung or talked nonsense")                                    \
    X(VOCABULARY,       "the arms have different vocabularies")                                    \
    X(FLOOR,            "an arm does not repeat itself as it promises")                            \
    X(REFERENCE,        "both arms are broken")

enum reason {
#define X(name, meaning) REASON_##name,
    REASON_LIST(X)
#undef X
};
const char *reason_name(enum reason r); /* "NOT_BITWISE" */

struct verdict {
    enum status status;
    enum reason reason;
    char text[320]; /* one sentence for people */
    int64_t window; /* where it shows best; -1 = nowhere in particular */
};

/* What the arms are to each other. */
struct relation {
    bool same_weights; /* one set of tensors: differences are arithmetic */
    bool bitwise;      /* the same cells on the same weights, which promise equal bits */
    double margin;     /* of ln(PPL_B / PPL_A), nats; > 0 */
    double alpha;      /* of the confidence sequence */
    int32_t n_vocab;
};

/* A chunk of n positions. */
struct compare_chunk {
    int64_t window, n;
    double nll[SIDE_count]; /* sums, nats */
    double nll_sq[SIDE_count];
    double d_abs;           /* sum of |d|, d = nll_B - nll_A of one position */
    double d_max;           /* largest |d|, at d_max_pos */
    int d_max_pos;
    double kld_ab, kld_ba;  /* sums */
    double kld_max;         /* of KL(A || B) */
    int64_t n_same_top, n_wide_flips;
    int64_t only[SIDE_count]; /* positions where only this arm's best token is the target */
    double gap_max;         /* largest lead of A's best token over B's, of the flips */
    int gap_max_pos;
    int64_t n_different;    /* positions whose rows are not equal bit for bit */
    bool constant[SIDE_count];
    /* First logit that is not finite, or pos -1; the sums leave such positions out. */
    struct {
        int pos;
        int32_t token;
    } bad[SIDE_count];
    double seconds[SIDE_count]; /* of computing; the first chunk of a pass has all of its time */
};

/* A position where A prefers its own token by at least this much, nats, and B another. */
#define WIDE_FLIP_GAP 1.0

/* What needs no statistics: numbers that are not finite, bits that were promised. FAIL, MISTRUSTED,
 * or OPEN. */
struct verdict verdict_chunk(const struct relation *rel, const struct compare_chunk *c);

/* What the sums over a chunk, or over several short ones, say: FAIL or OPEN. Fewer positions than
 * VERDICT_MIN_POSITIONS say nothing. */
#define VERDICT_MIN_POSITIONS 32
struct verdict verdict_positions(const struct relation *rel, const struct compare_chunk *c);

/* What all chunks together say; d: of the chunks' mean differences. FAIL, PASS, or OPEN. */
struct verdict verdict_mean(const struct relation *rel, const struct welford *d);

/* The single positions: a wrong tile hits a few of them hard and leaves the mean alone. The scale
 * of the healthy differences is their own 99 % quantile, so one rule serves arms that round
 * differently. Only for arms of the same weights. FAIL or OPEN.
 *
 * Measured between ref and avx2 on eight of the shared models (6,000 positions each): the largest
 * |d| is 1.8 to 2.4 times that quantile for quantised files and 6.6 and 7.7 times for F16 ones,
 * whose differences stay below 0.002 nats; no flip has a gap of 1 nat. */
#define TAIL_P99S 15.0
#define TAIL_MIN_D 0.02 /* nats; less is nobody's concern, however small the others are */

struct tail {
    int64_t n, n_wide_flips;
    double p50, p99, p999, max; /* of |d| */
    int64_t max_chunk;          /* window of the largest |d|, and its position */
    int max_pos;
    double gap_max; /* of the flips */
    int64_t gap_chunk;
    int gap_pos;
};
struct verdict verdict_tail(const struct relation *rel, const struct tail *t);

#endif
