/* SPDX-License-Identifier: MIT
 * bench.c - a list of speed tests in interleaved rounds; contract in bench.h. */
#include "measure/bench.h"

#include <math.h>

#include "base/arena.h"
#include "stats/welford.h"

struct bench {
    const struct bench_params *p;
    struct speed *speed;  /* [n_arms] */
    int *order;           /* [n_tests] of the present round */
    int64_t *ns;          /* [n_tests, n_rep] */
    double *seconds;      /* [n_rep] scratch */
    struct nvml_use *gpu; /* [n_tests] */
};

/* Sequence of a depth: its place among the distinct depths of the arm, by first appearance. */
static int seq_of(const struct bench_test *tests, int n_tests, int arm, int n_depth) {
    int seq = 0;
    for (int i = 0; i < n_tests; i++) {
        if (tests[i].arm != arm) continue;
        if (tests[i].n_depth == n_depth) return seq;
        bool seen = false;
        for (int j = 0; j < i && !seen; j++)
            seen = tests[j].arm == arm && tests[j].n_depth == tests[i].n_depth;
        seq += !seen;
    }
    return seq;
}

void bench_needs(const struct bench_test *tests, int n_tests, int arm, int *n_ctx, int *n_seq) {
    *n_ctx = *n_seq = 0;
    for (int i = 0; i < n_tests; i++) {
        const struct bench_test *t = &tests[i];
        if (t->arm != arm) continue;
        int need = t->n_depth + t->n_prompt + t->n_gen;
        int seq = seq_of(tests, n_tests, arm, t->n_depth);
        if (need > *n_ctx) *n_ctx = need;
        if (seq + 1 > *n_seq) *n_seq = seq + 1;
    }
}

void bench_shuffle(int *order, int n, struct rng *r) {
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint32_t)i + 1);
        int t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static int check(const struct bench_params *p, struct err *e) {
    int rc = 0;
    FAIL_IF(p->n_tests < 1 || p->n_tests > BENCH_MAX_TESTS, e, ERR_ARG,
            "%d tests; expected 1 to %d", p->n_tests, BENCH_MAX_TESTS);
    FAIL_IF(p->n_arms < 1 || p->n_arms > BENCH_MAX_ARMS, e, ERR_ARG, "%d engines; expected 1 to %d",
            p->n_arms, BENCH_MAX_ARMS);
    FAIL_IF(p->n_rep < 1 || p->n_rep > SPEED_MAX_REP, e, ERR_ARG,
            "%d repetitions; expected 1 to %d", p->n_rep, SPEED_MAX_REP);
    for (int i = 0; i < p->n_tests; i++) {
        const struct bench_test *t = &p->tests[i];
        FAIL_IF(t->arm < 0 || t->arm >= p->n_arms, e, ERR_ARG, "test %d is for engine %d of %d", i,
                t->arm, p->n_arms);
        FAIL_IF(t->n_prompt < 0 || t->n_gen < 0 || t->n_depth < 0 ||
                    t->n_prompt > SPEED_MAX_TOKENS || t->n_gen > SPEED_MAX_TOKENS ||
                    t->n_depth > SPEED_MAX_TOKENS || t->n_prompt + t->n_gen == 0,
                e, ERR_ARG, "test %d: prompt %d, generation %d, depth %d; expected 0 to %d each", i,
                t->n_prompt, t->n_gen, t->n_depth, SPEED_MAX_TOKENS);
    }
    for (int a = 0; a < p->n_arms; a++) {
        int n_ctx, n_seq;
        bench_needs(p->tests, p->n_tests, a, &n_ctx, &n_seq);
        FAIL_IF(n_ctx > p->arms[a]->info.n_ctx || n_seq > p->arms[a]->info.n_seq, e, ERR_ARG,
                "engine %d has %d sequences of %d tokens; its tests need %d of %d", a,
                p->arms[a]->info.n_seq, p->arms[a]->info.n_ctx, n_seq, n_ctx);
    }
out:
    return rc;
}

static int seq_of_test(const struct bench *b, const struct bench_test *t) {
    return seq_of(b->p->tests, b->p->n_tests, t->arm, t->n_depth);
}

/* The test's tokens behind its depth; n_gen apart, because the warm-up generates only one. */
static int run_test(struct bench *b, const struct bench_test *t, int n_gen, int64_t *ns,
                    struct err *e) {
    struct speed *s = &b->speed[t->arm];
    int seq = seq_of_test(b, t);
    int rc = 0;
    *ns = 0;
    TRY(arm_kv_trim(s->arm, seq, t->n_depth, e));
    if (t->n_prompt) TRY(speed_prompt(s, seq, t->n_depth, t->n_prompt, ns, e));
    if (n_gen) TRY(speed_generate(s, seq, t->n_depth + t->n_prompt, n_gen, ns, e));
out:
    return rc;
}

/* Fill every arm's sequences to their depths, then run each test's shapes once. */
static int prepare(struct bench *b, struct err *e) {
    const struct bench_params *p = b->p;
    int64_t ns = 0;
    int rc = 0;
    for (int a = 0; a < p->n_arms; a++) {
        int n_seq, n_ctx;
        TRY(arm_kv_trim(p->arms[a], -1, 0, e));
        if (!p->warmup) TRY(speed_check_once(&b->speed[a], 0, e));
        bench_needs(p->tests, p->n_tests, a, &n_ctx, &n_seq);
        for (int seq = 0, i = 0; i < p->n_tests; i++) {
            const struct bench_test *t = &p->tests[i];
            if (t->arm != a || seq_of_test(b, t) != seq) continue;
            if (t->n_depth) TRY(speed_prompt(&b->speed[a], seq, 0, t->n_depth, &ns, e));
            if (++seq == n_seq) break;
        }
    }
    for (int a = 0; a < p->n_arms; a++)
        b->speed[a].check = true;
    for (int i = 0; p->warmup && i < p->n_tests; i++)
        TRY(run_test(b, &p->tests[i], p->tests[i].n_gen > 0, &ns, e));
out:
    for (int a = 0; a < p->n_arms; a++)
        b->speed[a].check = false;
    return rc < 0 ? err_prefix(e, "warm-up") : rc;
}

static int run_rounds(struct bench *b, struct err *e) {
    const struct bench_params *p = b->p;
    struct rng r = { p->seed };
    int64_t done = 0, total = (int64_t)p->n_tests * p->n_rep;
    int rc = 0;
    for (int rep = 0; rep < p->n_rep; rep++) {
        for (int i = 0; i < p->n_tests; i++)
            b->order[i] = i;
        bench_shuffle(b->order, p->n_tests, &r);
        for (int i = 0; i < p->n_tests; i++) {
            const struct bench_test *t = &p->tests[b->order[i]];
            if (p->progress) p->progress(p->progress_arg, done++, total);
            int64_t *ns = &b->ns[(int64_t)b->order[i] * p->n_rep + rep];
            nvml_begin(p->arms[t->arm]->cards);
            TRY(run_test(b, t, t->n_gen, ns, e));
            nvml_end(p->arms[t->arm]->cards, (double)*ns * 1e-9, &b->gpu[b->order[i]]);
            if (p->repeat) TRY(p->repeat(p->repeat_arg, t, rep, *ns, e));
        }
    }
out:
    return rc;
}

static int report(struct bench *b, int i_test, bench_fn fn, void *arg, struct err *e) {
    const struct bench_params *p = b->p;
    struct bench_result r = { .test = p->tests[i_test], .n_rep = p->n_rep };
    struct welford ns = { 0 }, ts = { 0 };
    int n_tokens = r.test.n_prompt + r.test.n_gen;
    int rc = 0;
    r.sample_ns = b->ns + (int64_t)i_test * p->n_rep;
    for (int k = 0; k < p->n_rep; k++) {
        b->seconds[k] = (double)r.sample_ns[k] * 1e-9;
        welford_add(&ns, (double)r.sample_ns[k]);
        welford_add(&ts, 1e9 * n_tokens / (double)r.sample_ns[k]);
    }
    TRY(speed_stat_of(b->seconds, p->n_rep, &r.seconds, e));
    r.avg_ns = ns.mean;
    r.stddev_ns = welford_stddev(&ns);
    r.avg_ts = ts.mean;
    r.stddev_ts = welford_stddev(&ts);
    r.gpu = nvml_facts_of(&b->gpu[i_test], n_tokens);
    FAIL_IF(!isfinite(r.avg_ts), e, ERR_UNSUPPORTED,
            "a repetition took no measurable time: the clock does not tell such short parts apart");
    TRY(fn(arg, &r, e));
out:
    return rc;
}

int bench_run(const struct bench_params *p, bench_fn fn, void *arg, struct err *e) {
    struct bench b = { .p = p };
    int rc = 0;
    TRY(check(p, e));
    rc = ERR_NOMEM;
    if (!(b.order = heap_calloc((size_t)p->n_tests, sizeof *b.order, e))) goto out;
    if (!(b.seconds = heap_calloc((size_t)p->n_rep, sizeof *b.seconds, e))) goto out;
    if (!(b.gpu = heap_calloc((size_t)p->n_tests, sizeof *b.gpu, e))) goto out;
    b.ns = heap_calloc((size_t)p->n_tests * (size_t)p->n_rep, sizeof *b.ns, e);
    if (!b.ns) goto out;
    if (!(b.speed = heap_calloc((size_t)p->n_arms, sizeof *b.speed, e))) goto out;
    for (int a = 0; a < p->n_arms; a++) {
        /* The longest part is at most the context that holds it. */
        int n_ctx, n_seq;
        bench_needs(p->tests, p->n_tests, a, &n_ctx, &n_seq);
        TRY(speed_init(&b.speed[a], p->arms[a], n_ctx > 0 ? n_ctx : 1, p->seed + (uint64_t)a,
                       p->clock, e));
    }
    TRY(prepare(&b, e));
    TRY(run_rounds(&b, e));
    for (int i = 0; i < p->n_tests; i++)
        TRY(report(&b, i, fn, arg, e));
out:
    for (int a = 0; b.speed && a < p->n_arms; a++)
        speed_release(&b.speed[a]);
    heap_free(b.speed);
    heap_free(b.ns);
    heap_free(b.gpu);
    heap_free(b.seconds);
    heap_free(b.order);
    return rc;
}
