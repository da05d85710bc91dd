/* SPDX-License-Identifier: MIT
 * cmd_regress.c - `ggauge regress`: two revisions of another engine, one verdict: do they agree,
 * and is the newer one slower? Both are built in worktrees with the user's own command, compared
 * with `compare`, and swept in turn.
 *
 * A speed counts as lost if its 95 % interval lies beyond the limit in two sweeps, the second made
 * only for that. Exit codes: those of compare, 1 also for a loss of speed. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arm/tool.h"
#include "base/arena.h"
#include "cli/arm_spec.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "cli/regress.h"

static int parse(struct regress *r, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "engine" },
        { OPT_STR, "--engine-repo", "DIR", &r->repo, 0, 0, NULL,
          "git repository of llama.cpp or ik_llama.cpp" },
        { OPT_STR, "--base", "REV", &r->rev[REV_BASE], 0, 0, NULL, "the revision that is trusted" },
        { OPT_STR, "--head", "REV", &r->rev[REV_HEAD], 0, 0, NULL, "the revision that is tried" },
        { OPT_STR, "--build", "CMD", &r->build, 0, 0, NULL, "builds a checkout, run by sh in it" },
        { OPT_STR, "--build-dir", "NAME", &r->build_dir, 0, 0, NULL,
          "where that leaves its libraries" },
        { OPT_STR, "--arm-options", "WORDS", &r->arm_options, 0, 0, NULL,
          "of both, as in compare: \"-ngl 99 -fa on\"" },
        { OPT_STR, "--source", "DIR", &r->source, 0, 0, NULL,
          "source tree of ggauge, where make worker works (default: around this program)" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "what is measured" },
        { OPT_STR, "-m --model", "FILE", &r->model, 0, 0, NULL, "GGUF file" },
        { OPT_STR, "-f --file", "FILE", &r->text, 0, 0, NULL, "text to compare on" },
        { OPT_INT, "-c --ctx-size", "N", &r->n_ctx, 3, 1 << 24, NULL, "tokens of a chunk" },
        { OPT_INT, "--chunks", "N", &r->chunks, -1, INT32_MAX, NULL, "chunks at most (-1 = all)" },
        { OPT_INT, "-t --threads", "N", &r->n_threads, 0, 512, NULL,
          "threads (0 = all processors)" },
        { OPT_DOUBLE, "--margin", "NATS", &r->margin, 1e-9, 10, NULL, "of compare" },
        { OPT_INT, "--depth", "N", &r->n_kv, 0, 1 << 24, NULL, "depth to sweep to" },
        { OPT_INT, "-npp", "N", &r->n_pp, 1, 1 << 24, NULL, "tokens of the prompt part" },
        { OPT_INT, "-ntg", "N", &r->n_tg, 1, 1 << 24, NULL, "tokens of the generation part" },
        { OPT_INT, "-r --repetitions", "N", &r->n_rounds, 1, SPEED_MAX_REP, NULL,
          "rounds of the sweep; 6 are needed for a 95 % interval" },
        { OPT_DOUBLE, "--slower", "SHARE", &r->slower, 0, 1, NULL,
          "loss of speed that is a regression" },
        { OPT_FLAG, "--no-sweep", NULL, &r->no_sweep, 0, 0, NULL, "leave speed alone" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_STR, "--out", "DIR", &r->out, 0, 0, NULL,
          "checkouts, logs, compare's files and report.md; what the same command has built "
          "there is used again" },
        OPT_END,
    };
    return opt_parse(argc, argv, table,
                     "regress --engine-repo DIR --base REV --head REV --build CMD -m FILE -f TEXT",
                     e);
}

static int check(const struct regress *r, struct err *e) {
    int rc = 0;
    FAIL_IF(!r->repo || !r->rev[REV_BASE] || !r->rev[REV_HEAD], e, ERR_ARG,
            "regress needs --engine-repo DIR, --base REV and --head REV");
    FAIL_IF(!r->build, e, ERR_ARG,
            "regress needs the command that builds a checkout: --build \"cmake -B build && cmake "
            "--build build -j\"");
    FAIL_IF(!r->model || !r->text, e, ERR_ARG, "regress needs a model and a text: -m FILE -f FILE");
out:
    return rc;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static int keep_text(void *arg, const char *text, size_t n, struct err *e) {
    struct regress *r = arg;
    if (r->n_compare_text + n + 1 > r->max_compare_text) {
        size_t more = 2 * (r->n_compare_text + n + 1);
        char *p = heap_realloc(r->compare_text, more, e);
        if (!p) return ERR_NOMEM;
        r->compare_text = p;
        r->max_compare_text = more;
    }
    memcpy(r->compare_text + r->n_compare_text, text, n);
    r->n_compare_text += n;
    r->compare_text[r->n_compare_text] = '\0';
    fwrite(text, 1, n, stdout);
    fflush(stdout);
    return 0;
}

static int compare(struct regress *r, struct err *e) {
    int rc = 0, status = 0;
    char self[PATH_MAX], out[PATH_MAX], n_ctx[16], chunks[16], threads[16], margin[32];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    FAIL_IF(n < 0, e, ERR_IO, "/proc/self/exe cannot be read");
    self[n] = '\0';
    snprintf(out, sizeof out, "%s/compare", r->out);
    snprintf(n_ctx, sizeof n_ctx, "%d", r->n_ctx);
    snprintf(chunks, sizeof chunks, "%d", r->chunks);
    snprintf(threads, sizeof threads, "%d", r->n_threads);
    snprintf(margin, sizeof margin, "%.9g", r->margin);
    const char *const argv[] = { self,       "compare",        "-m",    r->model,
                                 "-f",       r->text,          "-c",    n_ctx,
                                 "--chunks", chunks,           "-t",    threads,
                                 "--margin", margin,           "--a",   r->arm[REV_BASE],
                                 "--b",      r->arm[REV_HEAD], "--out", out,
                                 NULL };
    TRY(tool_run(argv, NULL, 0, keep_text, r, &status, e));
    r->compare_code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_ENVIRONMENT;
    FAIL_IF(r->compare_code == EXIT_USAGE || r->compare_code == EXIT_ENVIRONMENT, e, ERR_ARM,
            "compare could not be run; what it said is above");
out:
    return rc;
}

/* ---- sweeping -------------------------------------------------------------------------------- */

static void on_round(void *arg, int64_t done, int64_t total) {
    struct progress *p = arg;
    if (done == 0)
        progress_start(p, "round", total, 0);
    else
        progress_update(p, done);
}

static bool is_slower(const struct regress *r, const struct pair_speed *s) {
    return s->ci.high < 1 - r->slower;
}

/* Slower in every sweep that was made. */
static bool is_lost(const struct regress *r, int i) {
    for (int k = 0; k < r->n_sweeps; k++)
        if (!is_slower(r, &r->sweep[k].speeds[i])) return false;
    return r->n_sweeps > 0;
}

static int n_lost(const struct regress *r) {
    int n = 0;
    for (int i = 0; r->n_sweeps && i < r->sweep[0].n_speeds; i++)
        n += is_lost(r, i);
    return n;
}

static int sweep(struct regress *r, struct err *e) {
    int rc = 0;
    struct arm *arm[REV_count] = { 0 };
    struct arm_spec spec[REV_count] = { 0 };
    struct progress progress = { 0 };
    const struct arm_params common = { .model = r->model,
                                       .n_ctx = r->n_kv,
                                       .n_seq = 1,
                                       .n_batch = 2048,
                                       .n_ubatch = 512,
                                       .n_threads = r->n_threads,
                                       .type_k = "f16",
                                       .type_v = "f16" };
    for (int k = 0; k < REV_count; k++) {
        TRY(arm_spec_parse(&spec[k], regress_rev_name(k), r->arm[k], &common, e));
        TRY(arm_open(&arm[k], &spec[k].params, e));
    }
    do {
        struct pair_sweep *s = &r->sweep[r->n_sweeps];
        *s = (struct pair_sweep){ .a = arm[REV_BASE], .b = arm[REV_HEAD], .n_rounds = r->n_rounds };
        s->p = (struct sweep_params){ .n_kv_max = r->n_kv,
                                      .n_pp = r->n_pp,
                                      .n_tg = r->n_tg,
                                      .warmup = true,
                                      .warmup_batch = true,
                                      .seed = 1,
                                      .progress = on_round,
                                      .progress_arg = &progress };
        rc = pair_sweep_run(s, e);
        progress_clear(&progress);
        TRY(rc);
        r->n_sweeps++;
    } while (r->n_sweeps < 2 && n_lost(r) > 0);
out:
    for (int k = 0; k < REV_count; k++) {
        arm_close(arm[k]);
        arm_spec_release(&spec[k]);
    }
    return rc;
}

/* ---- reporting ------------------------------------------------------------------------------- */

static int verdict_code(const struct regress *r) {
    if (r->head_broken || r->compare_code == EXIT_FAIL || n_lost(r) > 0) return EXIT_FAIL;
    return r->compare_code;
}

static void print_verdict(const struct regress *r, FILE *f) {
    const int code = verdict_code(r);
    fprintf(f, "%s: ", code == EXIT_PASS ? "PASS" : code == EXIT_FAIL ? "FAIL" : "UNDECIDED");
    if (r->head_broken)
        fprintf(f, "head does not build");
    else
        fprintf(f, "compare says %s",
                r->compare_code == EXIT_PASS   ? "PASS"
                : r->compare_code == EXIT_FAIL ? "FAIL"
                                               : "UNDECIDED");
    if (r->n_sweeps)
        fprintf(f, "; %d of %d speeds are more than %g %% lower", n_lost(r), r->sweep[0].n_speeds,
                100 * r->slower);
    fputc('\n', f);
}

static void print_speeds(const struct regress *r, FILE *f) {
    const struct pair_sweep *s = &r->sweep[r->n_sweeps - 1];
    fprintf(f, "| test | N_KV | base t/s | head t/s | head / base | 95 %% | |\n"
               "|------|-----:|---------:|---------:|------------:|------|---|\n");
    for (int i = 0; i < s->n_speeds; i++) {
        const struct pair_speed *x = &s->speeds[i];
        fprintf(f, "| %s%d | %d | %.2f | %.2f | %.4f | %.4f .. %.4f | %s |\n",
                x->prompt ? "pp" : "tg", x->n, x->n_kv, x->a_tps, x->b_tps, x->ratio, x->ci.low,
                x->ci.high,
                is_lost(r, i)               ? "slower"
                : x->ci.low > 1 + r->slower ? "faster"
                                            : "");
    }
}

static void print_report(const struct regress *r, FILE *f) {
    fprintf(f, "# %s against %s\n\n**", r->rev[REV_HEAD], r->rev[REV_BASE]);
    print_verdict(r, f);
    fprintf(f, "**\n\nbase %s, head %s, built with `%s`%s%s%s\n", r->commit[REV_BASE],
            r->commit[REV_HEAD], r->build, r->arm_options ? ", run with `" : "",
            r->arm_options ? r->arm_options : "", r->arm_options ? "`" : "");
    if (r->compare_text) fprintf(f, "\n## Do they agree?\n\n```\n%s```\n", r->compare_text);
    if (r->n_sweeps) {
        fprintf(f, "\n## Is head slower?\n\n%d rounds, in turn%s.\n\n", r->n_rounds,
                r->n_sweeps > 1 ? "; measured twice, since something seemed slower" : "");
        print_speeds(r, f);
    }
}

static int write_report(const struct regress *r, struct err *e) {
    int rc = 0;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/report.md", r->out);
    FILE *f = fopen(path, "we");
    FAIL_IF(!f, e, ERR_IO, "%s: cannot be created", path);
    print_report(r, f);
    bool bad = ferror(f) != 0;
    FAIL_IF(fclose(f) || bad, e, ERR_IO, "%s: cannot be written", path);
    printf("report            %s\n", path);
out:
    return rc;
}

static int make_arms(struct regress *r, struct err *e) {
    int rc = 0;
    for (int k = 0; k < REV_count; k++) {
        int n = snprintf(r->arm[k], sizeof r->arm[k], "'lib:%s' %s", r->worker[k],
                         r->arm_options ? r->arm_options : "");
        FAIL_IF(n >= (int)sizeof r->arm[k], e, ERR_ARG, "--arm-options: too long");
    }
out:
    return rc;
}

int cmd_regress(int argc, char **argv, struct err *e) {
    struct regress r = { .build_dir = "build",
                         .out = "regress",
                         .n_ctx = 512,
                         .chunks = 100,
                         .margin = 0.002,
                         .n_kv = 1024,
                         .n_pp = 512,
                         .n_tg = 32,
                         .n_rounds = 6,
                         .slower = 0.05 };
    int rc = parse(&r, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    TRY(check(&r, e));
    TRY(regress_build(&r, e));
    if (!r.head_broken) {
        TRY(make_arms(&r, e));
        TRY(compare(&r, e));
        if (!r.no_sweep) TRY(sweep(&r, e));
    }
    if (r.n_sweeps) print_speeds(&r, stdout);
    printf("regress           ");
    print_verdict(&r, stdout);
    TRY(write_report(&r, e));
    rc = verdict_code(&r);
out:
    heap_free(r.compare_text);
    for (int k = 0; k < 2; k++)
        pair_sweep_release(&r.sweep[k]);
    return rc;
}
