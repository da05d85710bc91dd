/* SPDX-License-Identifier: MIT
 * sweep.c - prompt and generation speed at growing depth; contract and procedure in sweep.h. */
#include "measure/sweep.h"

#include "base/arena.h"

struct sweep {
    const struct sweep_params *p;
    struct speed speed;
    int n_kv_max, n_steps;
    double *pp_s, *tg_s; /* [n_rep] of the present depth */
    struct nvml_use pp_gpu, tg_gpu;
};

int sweep_n_steps(int n_kv_max, int n_pp, int n_tg) {
    int need = n_pp > n_tg ? n_pp : n_tg;
    if (n_pp < 1 || n_kv_max < need) return 0;
    return (n_kv_max - need) / n_pp + 1;
}

static int check(const struct arm *a, const struct sweep_params *p, struct sweep *s,
                 struct err *e) {
    int rc = 0;
    FAIL_IF(p->n_pp < 1 || p->n_pp > SPEED_MAX_TOKENS, e, ERR_ARG,
            "prompt part of %d tokens; expected 1 to %d", p->n_pp, SPEED_MAX_TOKENS);
    FAIL_IF(p->n_tg < 1 || p->n_tg > SPEED_MAX_TOKENS, e, ERR_ARG,
            "generation part of %d tokens; expected 1 to %d", p->n_tg, SPEED_MAX_TOKENS);
    FAIL_IF(p->n_rep < 1 || p->n_rep > SPEED_MAX_REP, e, ERR_ARG, "%d repeats; expected 1 to %d",
            p->n_rep, SPEED_MAX_REP);
    s->n_kv_max = p->n_kv_max ? p->n_kv_max : a->info.n_ctx;
    FAIL_IF(s->n_kv_max > a->info.n_ctx, e, ERR_ARG,
            "depth %d is more than the context of %d tokens that the engine was given", s->n_kv_max,
            a->info.n_ctx);
    s->n_steps = sweep_n_steps(s->n_kv_max, p->n_pp, p->n_tg);
    FAIL_IF(s->n_steps == 0, e, ERR_ARG,
            "a context of %d tokens holds no step: the prompt part has %d, the generation part %d",
            s->n_kv_max, p->n_pp, p->n_tg);
out:
    return rc;
}

/* One shape after the other as they will be measured, with checked logits; nothing of it stays in
 * the cache. */
static int warm_up(struct sweep *s, struct err *e) {
    int64_t ns = 0;
    int rc = 0;
    TRY(arm_kv_trim(s->speed.arm, 0, 0, e));
    TRY(speed_check_once(&s->speed, 0, e));
    if (s->p->warmup && s->p->warmup_batch) {
        s->speed.check = true;
        TRY(speed_prompt(&s->speed, 0, 0, s->p->n_pp, &ns, e));
        TRY(arm_kv_trim(s->speed.arm, 0, 0, e));
    }
out:
    s->speed.check = false;
    return rc < 0 ? err_prefix(e, "warm-up") : rc;
}

/* Both parts at depth n_kv. The prompt's tokens stay in the cache. */
static int measure_once(struct sweep *s, int n_kv, int rep, struct err *e) {
    struct nvml *cards = s->speed.arm->cards;
    int64_t tg_ns = 0, pp_ns = 0;
    int rc = 0;
    TRY(arm_kv_trim(s->speed.arm, 0, n_kv, e));
    nvml_begin(cards);
    TRY(speed_generate(&s->speed, 0, n_kv, s->p->n_tg, &tg_ns, e));
    s->tg_s[rep] = (double)tg_ns * 1e-9;
    nvml_end(cards, s->tg_s[rep], &s->tg_gpu);
    TRY(arm_kv_trim(s->speed.arm, 0, n_kv, e));
    nvml_begin(cards);
    TRY(speed_prompt(&s->speed, 0, n_kv, s->p->n_pp, &pp_ns, e));
    s->pp_s[rep] = (double)pp_ns * 1e-9;
    nvml_end(cards, s->pp_s[rep], &s->pp_gpu);
out:
    return rc;
}

static int measure_depth(struct sweep *s, int i_step, sweep_fn fn, void *arg, struct err *e) {
    const struct sweep_params *p = s->p;
    struct sweep_step step = { .n_kv = i_step * p->n_pp,
                               .n_pp = p->n_pp,
                               .n_tg = p->n_tg,
                               .n_rep = p->n_rep,
                               .pp_s = s->pp_s,
                               .tg_s = s->tg_s };
    int rc = 0;
    s->pp_gpu = s->tg_gpu = (struct nvml_use){ 0 };
    for (int rep = 0; rep < p->n_rep; rep++) {
        if (p->progress)
            p->progress(p->progress_arg, (int64_t)i_step * p->n_rep + rep,
                        (int64_t)s->n_steps * p->n_rep);
        TRY(measure_once(s, step.n_kv, rep, e));
    }
    TRY(speed_stat_of(s->pp_s, p->n_rep, &step.pp, e));
    TRY(speed_stat_of(s->tg_s, p->n_rep, &step.tg, e));
    step.rss_bytes = speed_rss_bytes(s->speed.arm);
    step.pp_gpu = nvml_facts_of(&s->pp_gpu, p->n_pp);
    step.tg_gpu = nvml_facts_of(&s->tg_gpu, p->n_tg);
    step.vram = nvml_vram_of(s->speed.arm->cards);
    TRY(fn(arg, &step, e));
out:
    return rc;
}

int sweep_run(struct arm *a, const struct sweep_params *p, sweep_fn fn, void *arg, struct err *e) {
    struct sweep s = { .p = p };
    int longest = p->n_pp > p->n_tg ? p->n_pp : p->n_tg;
    int rc = 0;
    TRY(check(a, p, &s, e));
    TRY(speed_init(&s.speed, a, longest, p->seed, p->clock, e));
    rc = ERR_NOMEM;
    if (!(s.pp_s = heap_calloc((size_t)p->n_rep, sizeof *s.pp_s, e))) goto out;
    if (!(s.tg_s = heap_calloc((size_t)p->n_rep, sizeof *s.tg_s, e))) goto out;
    TRY(warm_up(&s, e));
    for (int i = 0; i < s.n_steps; i++) {
        rc = measure_depth(&s, i, fn, arg, e);
        if (rc < 0) {
            err_prefix(e, "N_KV = %d", i * p->n_pp);
            goto out;
        }
    }
out:
    heap_free(s.pp_s);
    heap_free(s.tg_s);
    speed_release(&s.speed);
    return rc;
}
