/* SPDX-License-Identifier: MIT
 * speed_rows.c - result rows of speeds; see speed_rows.h. */
#include "measure/speed_rows.h"

#include <stdio.h>
#include <string.h>

#include "measure/gpu_rows.h"
#include "stats/interval.h"

int speed_rows_open(struct run_rows *rows, const char *csv, const char *dir, struct err *e) {
    int rc = 0;
    TRY(provenance_fill(&rows->base, e));
    if (csv) TRY(run_rows_open(rows, csv, e));
    if (dir) TRY(run_rows_open_in(rows, dir, e));
out:
    return rc;
}

int speed_rows_describe(struct row *base, const struct arm *a, const char *test, uint64_t seed,
                        int n_rep, bool warmup, bool warmup_batch, struct err *e) {
    char settings[128];
    int rc = 0;
    TRY(arm_describe(a, base, e));
    snprintf(settings, sizeof settings,
             "{\"interval_coverage\":%.6g,\"warmup\":%s,\"warmup_batch\":%s}",
             n_rep > 1 ? median_interval_coverage(n_rep) : 0.0, warmup ? "true" : "false",
             warmup && warmup_batch ? "true" : "false");
    TRY(row_set(base, ROW_test, test, e));
    TRY(row_set(base, ROW_settings, settings, e));
    TRY(row_set_int(base, ROW_seed, (long long)seed, e));
out:
    return rc;
}

static int set_shape(struct row *r, int n_pp, int n_tg, int n_kv, struct err *e) {
    int rc = 0;
    TRY(row_set_int(r, ROW_n_pp, n_pp, e));
    TRY(row_set_int(r, ROW_n_tg, n_tg, e));
    TRY(row_set_int(r, ROW_n_kv, n_kv, e));
out:
    return rc;
}

static int put(struct run_rows *rows, const char *subject, enum metric m, struct speed_stat s,
               int n_rep, struct err *e) {
    const struct interval ci = { s.ci_low, s.ci_high }; /* nan for one repeat: left empty */
    return run_rows_value(rows, subject, m, s.median, &ci, n_rep, e);
}

static int put_gpu(struct run_rows *rows, const char *subject, const struct nvml_facts *f,
                   int n_rep, struct err *e) {
    struct gpu_row g[GPU_ROWS_MAX];
    int rc = 0;
    const int n = gpu_rows_facts(f, g);
    for (int i = 0; i < n; i++)
        TRY(run_rows_value(rows, subject, g[i].m, g[i].value, NULL, n_rep, e));
out:
    return rc;
}

static int put_vram(struct run_rows *rows, const struct nvml_vram *v, struct err *e) {
    struct gpu_row g[GPU_ROWS_MAX];
    int rc = 0;
    const int n = gpu_rows_vram(v, g);
    for (int i = 0; i < n; i++)
        TRY(run_rows_value(rows, "run", g[i].m, g[i].value, NULL, 0, e));
out:
    return rc;
}

int speed_rows_sweep(struct run_rows *rows, const struct sweep_step *s, struct err *e) {
    int rc = 0;
    TRY(set_shape(&rows->base, s->n_pp, s->n_tg, s->n_kv, e));
    TRY(put(rows, "run", METRIC_pp_s, s->pp, s->n_rep, e));
    TRY(put(rows, "run", METRIC_pp_tps, speed_tps(s->pp, s->n_pp), s->n_rep, e));
    TRY(put(rows, "run", METRIC_tg_s, s->tg, s->n_rep, e));
    TRY(put(rows, "run", METRIC_tg_tps, speed_tps(s->tg, s->n_tg), s->n_rep, e));
    TRY(run_rows_value(rows, "run", METRIC_rss_bytes, (double)s->rss_bytes, NULL, 0, e));
    TRY(put_gpu(rows, "pp", &s->pp_gpu, s->n_rep, e));
    TRY(put_gpu(rows, "tg", &s->tg_gpu, s->n_rep, e));
    TRY(put_vram(rows, &s->vram, e));
out:
    return rc;
}

/* Which metrics a test has: seconds, and the same as a speed. */
static void metrics_of(const struct bench_test *t, enum metric *seconds, enum metric *tps) {
    *seconds = METRIC_eval_s, *tps = METRIC_eval_tps;
    if (!t->n_gen) *seconds = METRIC_pp_s, *tps = METRIC_pp_tps;
    if (!t->n_prompt) *seconds = METRIC_tg_s, *tps = METRIC_tg_tps;
}

int speed_rows_bench(struct run_rows *rows, const char *subject, const struct bench_result *r,
                     struct err *e) {
    const struct bench_test *t = &r->test;
    enum metric s, tps;
    int rc = 0;
    metrics_of(t, &s, &tps);
    TRY(set_shape(&rows->base, t->n_prompt, t->n_gen, t->n_depth, e));
    TRY(put(rows, subject, s, r->seconds, r->n_rep, e));
    TRY(put(rows, subject, tps, speed_tps(r->seconds, t->n_prompt + t->n_gen), r->n_rep, e));
    TRY(put_gpu(rows, subject, &r->gpu, r->n_rep, e));
out:
    return rc;
}

int speed_rows_repeat(struct run_rows *rows, const char *subject, const struct bench_test *t,
                      int rep, int64_t ns, struct err *e) {
    char name[96];
    enum metric s, tps;
    int rc = 0;
    metrics_of(t, &s, &tps);
    snprintf(name, sizeof name, "%s rep %d", subject, rep + 1);
    TRY(set_shape(&rows->base, t->n_prompt, t->n_gen, t->n_depth, e));
    TRY(run_rows_value(rows, name, s, (double)ns * 1e-9, NULL, 1, e));
out:
    return rc;
}

int speed_rows_memory(struct run_rows *rows, struct nvml *cards, struct err *e) {
    const struct nvml_vram vram = nvml_vram_of(cards);
    int rc = 0;
    TRY(row_set(&rows->base, ROW_n_pp, NULL, e));
    TRY(row_set(&rows->base, ROW_n_tg, NULL, e));
    TRY(row_set(&rows->base, ROW_n_kv, NULL, e));
    TRY(run_rows_value(rows, "run", METRIC_rss_bytes, (double)speed_rss_bytes(NULL), NULL, 0, e));
    TRY(put_vram(rows, &vram, e));
out:
    return rc;
}
