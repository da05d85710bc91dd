/* SPDX-License-Identifier: MIT
 * cmd_sweep_bench.c - `ggauge sweep-bench`: prompt and generation speed at growing depth of the KV
 * cache, as the table that llama-sweep-bench prints (here on stdout), CSV, JSONL and Markdown. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "cli/arm_spec.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "measure/speed_rows.h"

#define MAX_CTX (1 << 24)
#define NOISY 1.10 /* quotient of an interval's ends above which the user is told */

struct sweep_cmd {
    struct arm_params arm;
    struct sweep_params sweep;
    int seed;
    bool intervals;
    const char *arm_text, *fa, *format, *csv, *jsonl, *md, *results;
    struct arm_spec spec;
    /* while running */
    struct sweep_run_info info;
    struct run_rows rows;
    FILE *f_jsonl, *f_md;
    struct progress progress;
    int n_steps, n_noisy;
};

static int parse(struct sweep_cmd *c, int argc, char **argv, struct err *e) {
    struct sweep_params *s = &c->sweep;
    const struct opt table[] = {
        OPT_MODEL(c->arm),
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "what is measured" },
        { OPT_INT, "-c --ctx-size", "N", &c->arm.n_ctx, 0, MAX_CTX, NULL,
          "depth to sweep to (0 = the context the model was trained for)" },
        { OPT_INT, "-npp", "N", &s->n_pp, 0, MAX_CTX, NULL,
          "tokens of the prompt part, and step of the depth (0 = as -ub)" },
        { OPT_INT, "-ntg -n --n-predict", "N", &s->n_tg, 0, MAX_CTX, NULL,
          "tokens of the generation part (0 = a quarter of -npp)" },
        { OPT_INT, "-r -nrep --repetitions", "N", &s->n_rep, 1, SPEED_MAX_REP, NULL,
          "repeats at every depth; 6 are needed for a 95 % interval" },
        { OPT_FLAG, "-wb --warmup-batch", NULL, &s->warmup_batch, 0, 0, NULL,
          "warm up with a whole prompt part too; this is the default" },
        { OPT_NO_FLAG, "--no-warmup-batch", NULL, &s->warmup_batch, 0, 0, NULL,
          "warm up with a single token only" },
        { OPT_NO_FLAG, "--no-warmup", NULL, &s->warmup, 0, 0, NULL, "no warm-up at all" },
        { OPT_INT, "-s --seed", "N", &c->seed, 0, INT32_MAX, NULL, "seed of the random tokens" },
        OPT_ENGINE(c->arm),
        OPT_OTHER_ARM(c->arm_text),
        { OPT_CHOICE, "-fa --flash-attn", "on", &c->fa, 0, 0, "on|off|auto|1|0",
          "accepted: this engine has one attention, which never stores the score matrix" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_FLAG, "--intervals", NULL, &c->intervals, 0, 0, NULL,
          "two more columns in the table: intervals of both speeds" },
        { OPT_CHOICE, "--output-format", "FORMAT", &c->format, 0, 0, "md|jsonl",
          "what stdout shows" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        { OPT_STR, "--jsonl", "FILE", &c->jsonl, 0, 0, NULL,
          "llama-sweep-bench's JSON lines, with intervals and every sample" },
        { OPT_STR, "--md", "FILE", &c->md, 0, 0, NULL, "the table" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "sweep-bench -m FILE [options]", e);
}

/* Whatever can be refused before a model is opened. */
static int check(struct sweep_cmd *c, struct err *e) {
    struct sweep_params *s = &c->sweep;
    int rc = 0;
    if (c->arm_text) {
        TRY(arm_spec_parse(&c->spec, "--arm", c->arm_text, &c->arm, e));
        if (rc > 0) return rc;
        c->arm = c->spec.params;
        FAIL_IF(c->arm.kind == ARM_FILE, e, ERR_ARG, "--arm: saved logits have no speed");
    }
    FAIL_IF(!c->arm.model, e, ERR_ARG, "sweep-bench needs a model: -m FILE");
    if (s->n_pp == 0) s->n_pp = c->arm.n_ubatch;
    if (s->n_tg == 0) s->n_tg = s->n_pp < 4 ? 1 : s->n_pp / 4;
    int longest = s->n_pp > s->n_tg ? s->n_pp : s->n_tg;
    FAIL_IF(c->arm.n_ctx && c->arm.n_ctx < longest, e, ERR_ARG,
            "-c %d holds no step: the prompt part has %d tokens (-npp), the generation part %d "
            "(-ntg)",
            c->arm.n_ctx, s->n_pp, s->n_tg);
    s->seed = (uint64_t)c->seed;
    opt_warn_threads(c->arm.n_threads, c->arm.n_threads_batch);
    opt_note_fa(c->fa);
out:
    return rc;
}

/* start: of what such files hold. */
static int open_text(FILE **f, const char *path, const char *start, const char *what,
                     struct err *e) {
    int rc = 0;
    if (!path) return 0;
    TRY(file_may_hold(path, start, what, e));
    *f = fopen(path, "ae"); /* what another run writes there stays */
    FAIL_IF(!*f, e, ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
    TRY(file_lock(fileno(*f), path, e));
    FAIL_IF(ftruncate(fileno(*f), 0) && errno != EINVAL, e, ERR_IO, "%s: cannot be emptied: %s",
            path, strerror(errno)); /* EINVAL: a pipe or device */
out:
    return rc;
}

static void on_progress(void *arg, int64_t done, int64_t total) {
    struct sweep_cmd *c = arg;
    if (done == 0)
        progress_start(&c->progress, "repeat", total, 0);
    else
        progress_update(&c->progress, done);
}

static bool is_noisy(struct speed_stat s) {
    return s.ci_high > NOISY * s.ci_low; /* false without an interval */
}

/* A finished depth goes everywhere at once, so that a killed run keeps it. */
static int on_step(void *arg, const struct sweep_step *s, struct err *e) {
    struct sweep_cmd *c = arg;
    int rc = 0;
    progress_clear(&c->progress);
    c->n_steps++;
    c->n_noisy += is_noisy(s->pp) || is_noisy(s->tg);
    if (!strcmp(c->format, "jsonl"))
        table_sweep_jsonl(stdout, &c->info, s);
    else
        table_sweep_row(stdout, s, c->intervals);
    TRY(table_flush(stdout, "stdout", e));
    TRY(speed_rows_sweep(&c->rows, s, e));
    if (c->f_jsonl) {
        table_sweep_jsonl(c->f_jsonl, &c->info, s);
        TRY(table_flush(c->f_jsonl, c->jsonl, e));
    }
    if (c->f_md) {
        table_sweep_row(c->f_md, s, c->intervals);
        TRY(table_flush(c->f_md, c->md, e));
    }
out:
    return rc;
}

static int run(struct sweep_cmd *c, struct arm *a, struct err *e) {
    const struct sweep_params *s = &c->sweep;
    int interval_reps = c->intervals ? s->n_rep : 0;
    int rc = 0;
    TRY(speed_rows_describe(&c->rows.base, a, "sweep-bench", s->seed, s->n_rep, s->warmup,
                            s->warmup_batch, e));
    c->info =
        (struct sweep_run_info){ &a->info, a->info.n_ctx, row_get(&c->rows.base, ROW_run_id) };
    fprintf(stderr,
            "main: n_kv_max = %d, n_batch = %d, n_ubatch = %d, flash_attn = 1, n_gpu_layers = %d, "
            "n_threads = %d, n_threads_batch = %d\n"
            "main: %s, backend %s, K %s, V %s, %d x at every depth, seed %d, run %s\n\n",
            a->info.n_ctx, a->info.n_batch, a->info.n_ubatch, a->info.n_gpu_layers,
            a->info.n_threads, a->info.n_threads_batch, a->info.desc, a->info.backend,
            a->info.type_k, a->info.type_v, s->n_rep, c->seed, c->info.run_id);
    if (strcmp(c->format, "jsonl")) table_sweep_head(stdout, interval_reps);
    if (c->f_md) table_sweep_head(c->f_md, interval_reps);
    TRY(table_flush(stdout, "stdout", e));
    rc = sweep_run(a, s, on_step, c, e);
    progress_clear(&c->progress);
    TRY(rc);
    fprintf(stderr, "\nmain: peak resident memory %.1f MiB\n",
            (double)speed_rss_bytes(a) / (1024 * 1024));
    const struct nvml_vram vram = nvml_vram_of(a->cards);
    if (!isnan(vram.delta_bytes))
        fprintf(stderr, "main: memory of the cards in use %.1f MiB, by this run %.1f MiB\n",
                vram.used_bytes / (1024 * 1024), vram.delta_bytes / (1024 * 1024));
    if (c->n_noisy)
        fprintf(
            stderr,
            "warning: at %d of %d depths the repeats lie more than %.0f %% apart; is the machine "
            "busy?\n",
            c->n_noisy, c->n_steps, 100.0 * (NOISY - 1));
out:
    return rc;
}

int cmd_sweep_bench(int argc, char **argv, struct err *e) {
    struct sweep_cmd c = {
        .arm = { .n_seq = 1, .n_batch = 2048, .n_ubatch = 512, .type_k = "f16", .type_v = "f16" },
        .sweep = { .n_rep = 3, .warmup = true, .warmup_batch = true },
        .fa = "on",
        .format = "md",
    };
    struct arm *a = NULL;
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    row_init(&c.rows.base);
    TRY(check(&c, e));
    if (rc > 0) goto out; /* help of an arm */
    c.sweep.progress = on_progress;
    c.sweep.progress_arg = &c;
    TRY(arm_open(&a, &c.arm, e)); /* before a mistaken -m empties files of earlier runs */
    TRY(speed_rows_open(&c.rows, c.csv, c.results, e));
    TRY(open_text(&c.f_jsonl, c.jsonl, "{", "lines of JSON", e));
    TRY(open_text(&c.f_md, c.md, "|", "a table", e));
    TRY(run(&c, a, e));
out:
    arm_close(a);
    arm_spec_release(&c.spec);
    if (c.f_md && fclose(c.f_md) && rc >= 0) rc = ERR(e, ERR_IO, "%s: writing failed", c.md);
    if (c.f_jsonl && fclose(c.f_jsonl) && rc >= 0)
        rc = ERR(e, ERR_IO, "%s: writing failed", c.jsonl);
    int closed = run_rows_close(&c.rows, rc < 0 ? NULL : e);
    if (rc >= 0) rc = closed;
    return rc < 0 ? rc : EXIT_PASS;
}
