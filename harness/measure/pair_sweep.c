/* SPDX-License-Identifier: MIT
 * pair_sweep.c - two arms swept in turn; see pair_sweep.h. */
#include "measure/pair_sweep.h"

#include <string.h>

#include "base/arena.h"
#include "stats/quantile.h"

struct run {
    struct pair_sweep *s;
    double *time[2]; /* [n_steps][PAIR_SWEEP_TESTS][n_rounds] of each arm, seconds */
    int arm, round, n_steps, step;
};

static double *cell(const struct run *r, int arm, int step, int test) {
    return r->time[arm] + ((size_t)step * PAIR_SWEEP_TESTS + (size_t)test) * (size_t)r->s->n_rounds;
}

static int on_step(void *arg, const struct sweep_step *x, struct err *e) {
    struct run *r = arg;
    (void)e;
    cell(r, r->arm, r->step, 0)[r->round] = x->pp_s[0];
    cell(r, r->arm, r->step, 1)[r->round] = x->tg_s[0];
    struct pair_speed *s = &r->s->speeds[(size_t)r->step * PAIR_SWEEP_TESTS];
    for (int test = 0; test < PAIR_SWEEP_TESTS; test++)
        s[test] = (struct pair_speed){ .n_kv = x->n_kv,
                                       .prompt = test == 0,
                                       .n = test == 0 ? x->n_pp : x->n_tg };
    r->step++;
    return 0;
}

static int run_rounds(struct run *r, struct err *e) {
    int rc = 0;
    struct pair_sweep *s = r->s;
    for (r->round = 0; r->round < s->n_rounds; r->round++) {
        if (s->p.progress) s->p.progress(s->p.progress_arg, r->round, s->n_rounds);
        for (int k = 0; k < 2; k++) {
            struct sweep_params p = s->p;
            p.progress = NULL;
            p.n_rep = 1;
            p.warmup = p.warmup && r->round == 0;
            p.warmup_batch = p.warmup_batch && r->round == 0;
            r->arm = k ^ (r->round & 1);
            r->step = 0;
            rc = sweep_run(r->arm ? s->b : s->a, &p, on_step, r, e);
            if (rc < 0) return err_prefix(e, "arm %c", r->arm ? 'B' : 'A');
        }
    }
    return rc;
}

/* x [n_rounds] becomes sorted. */
static void evaluate(const struct run *r, int step, int test, double *ratio) {
    const int n = r->s->n_rounds;
    double *a = cell(r, 0, step, test), *b = cell(r, 1, step, test);
    struct pair_speed *s = &r->s->speeds[step * PAIR_SWEEP_TESTS + test];
    for (int i = 0; i < n; i++)
        ratio[i] = a[i] / b[i];
    s->ratio = median_f64(ratio, n);
    s->ci = median_interval95(ratio, n);
    s->a_tps = s->n / median_f64(a, n);
    s->b_tps = s->n / median_f64(b, n);
}

int pair_sweep_run(struct pair_sweep *s, struct err *e) {
    int rc = 0;
    struct run r = { .s = s };
    double *ratio = NULL;
    s->speeds = NULL;
    s->n_speeds = 0;
    FAIL_IF(s->n_rounds < 1 || s->n_rounds > SPEED_MAX_REP, e, ERR_ARG,
            "%d rounds; expected 1 to %d", s->n_rounds, SPEED_MAX_REP);
    r.n_steps = sweep_n_steps(s->p.n_kv_max, s->p.n_pp, s->p.n_tg);
    FAIL_IF(r.n_steps == 0, e, ERR_ARG, "a depth of %d holds no step", s->p.n_kv_max);
    const size_t n = (size_t)r.n_steps * PAIR_SWEEP_TESTS;
    r.time[0] = heap_calloc(2 * n * (size_t)s->n_rounds, sizeof *r.time[0], e);
    s->speeds = heap_calloc(n, sizeof *s->speeds, e);
    ratio = heap_calloc((size_t)s->n_rounds, sizeof *ratio, e);
    if (!r.time[0] || !s->speeds || !ratio) {
        rc = ERR_NOMEM;
        goto out;
    }
    r.time[1] = r.time[0] + n * (size_t)s->n_rounds;
    TRY(run_rounds(&r, e));
    for (int step = 0; step < r.n_steps; step++)
        for (int test = 0; test < PAIR_SWEEP_TESTS; test++)
            evaluate(&r, step, test, ratio);
    s->n_speeds = (int)n;
out:
    heap_free(r.time[0]);
    heap_free(ratio);
    return rc;
}

void pair_sweep_release(struct pair_sweep *s) {
    heap_free(s->speeds);
    s->speeds = NULL;
    s->n_speeds = 0;
}
