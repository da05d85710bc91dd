/* SPDX-License-Identifier: MIT
 * speed.h - timed decoding on one arm: the core under sweep-bench and bench.
 *
 * Tokens are random and seeded; the same seed gives the same stream on every machine. They are
 * drawn before the clock starts, and nothing but arm_decode lies between its two readings. The
 * clock is a parameter, so that tests are deterministic.
 *
 * Timed parts never look at a logit; a model that answers NaN would be fast and worthless, so what
 * runs before them is checked. */
#ifndef GGAUGE_SPEED_H
#define GGAUGE_SPEED_H

#include "arm/arm.h"
#include "base/rng.h"

#define SPEED_MAX_TOKENS (1 << 24) /* longest part that can be asked for; far above any context */
#define SPEED_MAX_REP 1000

/* Nanoseconds since an arbitrary start; ns = NULL is the monotonic clock of base/timer.h. */
struct speed_clock {
    int64_t (*ns)(void *arg);
    void *arg;
};

struct speed {
    struct arm *arm; /* borrowed */
    struct speed_clock clock;
    struct rng rng;
    bool check;      /* logits of the next parts must be finite, else ERR_NONFINITE */
    int cap;         /* elements of each of the following: the longest part */
    int32_t *token, *pos, *seq;
    bool *want;
};

/* max_tokens: the longest n of the calls below. */
int speed_init(struct speed *s, struct arm *a, int max_tokens, uint64_t seed,
               struct speed_clock clock, struct err *e);
void speed_release(struct speed *s); /* a zeroed struct is allowed */

/* Decode n > 0 random tokens at positions pos.. of a sequence in pieces of the arm's n_batch, with
 * logits for the last one only. Adds the nanoseconds taken to *ns. */
int speed_prompt(struct speed *s, int32_t seq, int pos, int n, int64_t *ns, struct err *e);

/* Decode n > 0 random tokens one by one, each with its logits. Adds the nanoseconds to *ns. */
int speed_generate(struct speed *s, int32_t seq, int pos, int n, int64_t *ns, struct err *e);

/* One token at the start of a sequence, whose logits are checked; the sequence is empty before and
 * after. What is done instead of a warm-up. */
int speed_check_once(struct speed *s, int32_t seq, struct err *e);

/* Median of n > 0 samples in seconds and the interval of median_interval95: min..max below 6
 * samples (median_interval_coverage says what that is worth), nan for one sample. */
struct speed_stat {
    double median, ci_low, ci_high;
};

int speed_stat_of(const double *sample, int n, struct speed_stat *out, struct err *e);

/* Seconds of n tokens as tokens per second; the ends of the interval change places. */
struct speed_stat speed_tps(struct speed_stat seconds, int n);

/* Most memory that the arm's process has had resident so far, in bytes; 0 if unknown. a = NULL:
 * this process. */
int64_t speed_rss_bytes(const struct arm *a);

#endif
