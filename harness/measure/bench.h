/* SPDX-License-Identifier: MIT
 * bench.h - prompt and generation speed of a list of tests, as llama-bench defines them.
 *
 * A test is a prompt of n_prompt tokens, then n_gen single tokens, timed together (either may be
 * 0), behind n_depth tokens that are already in the cache. Repetitions are interleaved: each round
 * runs every test of every arm once, in an order shuffled by the seed, so that a machine that slows
 * down slows all of them (llama-bench runs one test to its end before the next, and its results
 * depend on the order).
 *
 * Every distinct depth of an arm lives in a sequence of its own, filled once and trimmed back after
 * every repetition: going round costs no second fill. */
#ifndef GGAUGE_BENCH_H
#define GGAUGE_BENCH_H

#include "exec/nvml.h"
#include "measure/speed.h"

#define BENCH_MAX_TESTS 512
#define BENCH_MAX_ARMS 64

struct bench_test {
    int arm; /* index in bench_params.arms */
    int n_prompt, n_gen, n_depth;
};

struct bench_params {
    struct arm *const *arms; /* [n_arms] borrowed */
    int n_arms;
    const struct bench_test *tests; /* [n_tests] */
    int n_tests;
    int n_rep;   /* 1..SPEED_MAX_REP */
    bool warmup; /* each test's shapes once, untimed: its whole prompt, one generated token; without
                  * it one token per arm that is only checked */
    uint64_t seed;
    struct speed_clock clock;
    /* May be NULL. Before each timed repetition: how many are done, of how many. */
    void (*progress)(void *arg, int64_t done, int64_t total);
    void *progress_arg;
    /* May be NULL. After each timed repetition (0-based) of a test. Negative stops the run. */
    int (*repeat)(void *arg, const struct bench_test *t, int rep, int64_t ns, struct err *e);
    void *repeat_arg;
};

struct bench_result {
    struct bench_test test;
    int n_rep;
    const int64_t *sample_ns;    /* [n_rep] in the order measured; valid during the call */
    double avg_ns, stddev_ns;    /* n - 1 in the denominator; 0 for one repetition */
    double avg_ts, stddev_ts;    /* of the repetitions' tokens per second */
    struct speed_stat seconds;   /* median and interval */
    struct nvml_facts gpu;       /* of the arm's cards; NAN without any */
};

/* Called for every test in the order of the list when all are measured. */
typedef int (*bench_fn)(void *arg, const struct bench_result *r, struct err *e);

/* What an arm must be opened with for its tests: positions per sequence, and sequences. */
void bench_needs(const struct bench_test *tests, int n_tests, int arm, int *n_ctx, int *n_seq);

/* Logits of the warm-up that are not finite are ERR_NONFINITE, naming the model. */
int bench_run(const struct bench_params *p, bench_fn fn, void *arg, struct err *e);

/* Fisher and Yates, with rng_below. */
void bench_shuffle(int *order, int n, struct rng *r);

#endif
