/* SPDX-License-Identifier: MIT
 * cmd_bench.c - `ggauge bench`: llama-bench's table, CSV and JSON from interleaved repetitions.
 *
 * Options that take a list, separated by commas, make a cross product: engines (-m -ctk -ctv -t -b
 * -ub -rtr) times depths times tests. All engines are open together, each over its own map of the
 * model, so that repetitions can go round; every depth has its own part of the KV cache. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "cli/cmd.h"
#include "cli/list.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "measure/speed_rows.h"

struct bench_cmd {
    struct {
        struct opt_list m, p, n, pg, d, t, b, ub, ctk, ctv, rtr;
    } text;
    struct arm_params common;
    const char *fa, *format, *csv, *results;
    int n_rep, seed;
    bool warmup;
    struct str_list models, type_k, type_v;
    struct int_list prompts, gens, pgs /* pairs */, depths, threads, batches, ubatches, rtr;
    struct arm_params arms[BENCH_MAX_ARMS];
    struct bench_test tests[BENCH_MAX_TESTS];
    int n_arms, n_tests;
    /* while running */
    struct arm *arm[BENCH_MAX_ARMS];
    struct row arm_row[BENCH_MAX_ARMS];
    struct run_rows rows;
    struct bench_columns columns;
    struct progress progress;
    int n_reported;
};

static int parse(struct bench_cmd *c, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "model" },
        { OPT_LIST, "-m --model", "LIST", &c->text.m, 0, 0, NULL, "GGUF files" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "tests (lists are separated by commas)" },
        { OPT_LIST, "-p --n-prompt", "LIST", &c->text.p, 0, 0, NULL,
          "tokens of a prompt; 0 = none" },
        { OPT_LIST, "-n --n-gen", "LIST", &c->text.n, 0, 0, NULL, "tokens to generate; 0 = none" },
        { OPT_LIST, "-pg", "PP,TG", &c->text.pg, 0, 0, NULL,
          "a prompt and a generation timed together; more pairs: PP,TG,PP,TG" },
        { OPT_LIST, "-d --n-depth", "LIST", &c->text.d, 0, 0, NULL,
          "tokens already in the cache, untimed" },
        { OPT_INT, "-r --repetitions", "N", &c->n_rep, 1, SPEED_MAX_REP, NULL,
          "repetitions of every test, interleaved" },
        { OPT_NO_FLAG, "--no-warmup", NULL, &c->warmup, 0, 0, NULL,
          "do not run every test's shapes once before timing" },
        { OPT_INT, "-s --seed", "N", &c->seed, 0, INT32_MAX, NULL,
          "seed of tokens and of the order of tests" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "engine" },
        { OPT_CHOICE, "--backend", "COLUMN", &c->common.backend, 0, 0, "ref|" FAST_COLUMNS "|cuda",
          "kernels to use (default: the best CPU column of this machine)" },
        OPT_PLACE(c->common),
        { OPT_LIST, "-t --threads", "LIST", &c->text.t, 0, 0, NULL,
          "threads (0 = all processors)" },
        { OPT_LIST, "-b --batch-size", "LIST", &c->text.b, 0, 0, NULL,
          "tokens handed over at a time" },
        { OPT_LIST, "-ub --ubatch-size", "LIST", &c->text.ub, 0, 0, NULL,
          "tokens computed at a time" },
        { OPT_LIST, "-ctk --cache-type-k", "LIST", &c->text.ctk, 0, 0, NULL,
          "types of the K cache: f32, f16, q8_0" },
        { OPT_LIST, "-ctv --cache-type-v", "LIST", &c->text.ctv, 0, 0, NULL,
          "types of the V cache: f32, f16, q8_0" },
        { OPT_ONOFF, HUGE_PAGES_FLAGS, "0|1", &c->common.huge_pages, 0, 0, NULL, HUGE_PAGES_HELP },
        { OPT_LIST, REPACK_FLAGS, "LIST", &c->text.rtr, 0, 0, NULL, REPACK_HELP ": 0, 1" },
        OPT_NUMA(c->common.numa),
        { OPT_CHOICE, "-fa --flash-attn", "on", &c->fa, 0, 0, "on|off|auto|1|0",
          "accepted: this engine has one attention, which never stores the score matrix" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_CHOICE, "-o --output", "FORMAT", &c->format, 0, 0, "md|csv|json|jsonl",
          "what stdout shows; the fields are llama-bench's" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "bench -m FILE [options]", e);
}

static int parse_types(const char *flag, const char *text, struct str_list *out, struct err *e) {
    int rc = 0;
    TRY(list_strs(flag, text, out, e));
    for (int i = 0; i < out->n; i++)
        FAIL_IF(strcmp(out->v[i], "f32") && strcmp(out->v[i], "f16") && strcmp(out->v[i], "q8_0"),
                e, ERR_ARG, "%s: expected f32, f16 or q8_0, not '%s'", flag, out->v[i]);
out:
    return rc;
}

static int parse_lists(struct bench_cmd *c, struct err *e) {
    const int max = SPEED_MAX_TOKENS;
    int rc = 0, most = 0;
    FAIL_IF(!c->text.m.text, e, ERR_ARG, "bench needs a model: -m FILE");
    if (access(c->text.m.text, F_OK) == 0) { /* a comma may be part of a name */
        c->models.n = 1;
        c->models.v[0] = c->text.m.text;
    } else {
        TRY(list_strs("-m", c->text.m.text, &c->models, e));
    }
    TRY(list_ints("-p", c->text.p.text, 0, max, &c->prompts, e));
    TRY(list_ints("-n", c->text.n.text, 0, max, &c->gens, e));
    TRY(list_ints("-d", c->text.d.text, 0, max, &c->depths, e));
    TRY(list_ints("-t", c->text.t.text, 0, 512, &c->threads, e));
    for (int i = 0; i < c->threads.n; i++)
        if (c->threads.v[i] > most) most = c->threads.v[i];
    TRY(list_ints("-b", c->text.b.text, 1, 1 << 20, &c->batches, e));
    TRY(list_ints("-ub", c->text.ub.text, 1, 1 << 16, &c->ubatches, e));
    TRY(list_ints("-rtr", c->text.rtr.text, 0, 1, &c->rtr, e));
    TRY(parse_types("-ctk", c->text.ctk.text, &c->type_k, e));
    TRY(parse_types("-ctv", c->text.ctv.text, &c->type_v, e));
    if (c->text.pg.text) TRY(list_ints("-pg", c->text.pg.text, 0, max, &c->pgs, e));
    FAIL_IF(c->pgs.n % 2, e, ERR_ARG, "-pg: expected pairs PP,TG, not '%s'", c->text.pg.text);
    opt_warn_threads(most, 0);
    opt_note_fa(c->fa);
out:
    return rc;
}

static int add_test(struct bench_cmd *c, int n_prompt, int n_gen, int n_depth, struct err *e) {
    int rc = 0;
    char label[64];
    if (n_prompt == 0 && n_gen == 0) return 0; /* a zero leaves the test out */
    FAIL_IF(c->n_tests == BENCH_MAX_TESTS, e, ERR_ARG, "the lists make more than %d tests",
            BENCH_MAX_TESTS);
    struct bench_test *t = &c->tests[c->n_tests++];
    *t = (struct bench_test){ c->n_arms, n_prompt, n_gen, n_depth };
    table_bench_label(t, label, sizeof label);
    if ((int)strlen(label) > c->columns.test_width) c->columns.test_width = (int)strlen(label);
out:
    return rc;
}

/* Every test of one engine, in llama-bench's order. */
static int add_arm(struct bench_cmd *c, const struct arm_params *arm, struct err *e) {
    int rc = 0;
    FAIL_IF(c->n_arms == BENCH_MAX_ARMS, e, ERR_ARG, "the lists make more than %d engines",
            BENCH_MAX_ARMS);
    for (int d = 0; d < c->depths.n; d++) {
        for (int i = 0; i < c->prompts.n; i++)
            TRY(add_test(c, c->prompts.v[i], 0, c->depths.v[d], e));
        for (int i = 0; i < c->gens.n; i++)
            TRY(add_test(c, 0, c->gens.v[i], c->depths.v[d], e));
        for (int i = 0; i < c->pgs.n; i += 2)
            TRY(add_test(c, c->pgs.v[i], c->pgs.v[i + 1], c->depths.v[d], e));
    }
    FAIL_IF(c->n_tests == 0, e, ERR_ARG, "nothing to measure: -p and -n are 0 and there is no -pg");
    c->arms[c->n_arms] = *arm;
    bench_needs(c->tests, c->n_tests, c->n_arms, &c->arms[c->n_arms].n_ctx,
                &c->arms[c->n_arms].n_seq);
    c->n_arms++;
out:
    return rc;
}

/* The cross product of the engine's lists; the last varies fastest. */
static int plan(struct bench_cmd *c, struct err *e) {
    const int n[] = { c->models.n, c->batches.n, c->ubatches.n, c->type_k.n,
                      c->type_v.n, c->threads.n, c->rtr.n };
    long total = 1;
    int rc = 0;
    for (size_t i = 0; i < N_ELEMS(n); i++)
        total *= n[i];
    for (long k = 0; k < total; k++) {
        int at[N_ELEMS(n)];
        long rest = k;
        for (int i = (int)N_ELEMS(n) - 1; i >= 0; rest /= n[i], i--)
            at[i] = (int)(rest % n[i]);
        struct arm_params a = c->common;
        a.model = c->models.v[at[0]];
        a.n_batch = c->batches.v[at[1]];
        a.n_ubatch = c->ubatches.v[at[2]];
        a.type_k = c->type_k.v[at[3]];
        a.type_v = c->type_v.v[at[4]];
        a.n_threads = c->threads.v[at[5]];
        a.engine.rtr = c->rtr.v[at[6]] ? "on" : NULL;
        TRY(add_arm(c, &a, e));
        c->columns.n_batch |= a.n_batch != 2048;
        c->columns.repack |= a.engine.rtr != NULL;
        c->columns.n_ubatch |= a.n_ubatch != 512;
        c->columns.type_k |= strcmp(a.type_k, "f16") != 0;
        c->columns.type_v |= strcmp(a.type_v, "f16") != 0;
    }
out:
    return rc;
}

static void print_head(const struct bench_cmd *c) {
    if (!strcmp(c->format, "md")) table_bench_md_head(stdout, &c->columns);
    if (!strcmp(c->format, "csv")) table_bench_csv_head(stdout);
    if (!strcmp(c->format, "json")) fputs("[\n", stdout);
}

static void print_line(struct bench_cmd *c, const struct bench_line *l) {
    if (!strcmp(c->format, "md")) {
        table_bench_md_row(stdout, &c->columns, l);
    } else if (!strcmp(c->format, "csv")) {
        table_bench_csv_row(stdout, l);
    } else if (!strcmp(c->format, "jsonl")) {
        table_bench_json(stdout, l);
        putchar('\n');
    } else {
        fputs(c->n_reported ? ",\n  " : "  ", stdout);
        table_bench_json(stdout, l);
    }
    c->n_reported++;
}

static void print_tail(const struct bench_cmd *c) {
    const char *commit = row_get(&c->rows.base, ROW_commit_id);
    if (!strcmp(c->format, "json")) fputs("\n]\n", stdout);
    /* llama.cpp counts its commits here and writes 0 where it cannot. */
    if (!strcmp(c->format, "md")) printf("\nbuild: %.9s (0)\n", commit);
}

static void on_progress(void *arg, int64_t done, int64_t total) {
    struct bench_cmd *c = arg;
    if (done == 0)
        progress_start(&c->progress, "repetition", total, 0);
    else
        progress_update(&c->progress, done);
}

static int on_result(void *arg, const struct bench_result *r, struct err *e) {
    struct bench_cmd *c = arg;
    const int a = r->test.arm;
    char label[64];
    int rc = 0;
    if (c->n_reported == 0) {
        progress_clear(&c->progress);
        print_head(c);
    }
    TRY(row_copy(&c->rows.base, &c->arm_row[a], e));
    struct bench_line l = { .arm = &c->arm[a]->info,
                            .model_path = c->arms[a].model,
                            .commit_id = row_get(&c->rows.base, ROW_commit_id),
                            .cpu = row_get(&c->rows.base, ROW_cpu),
                            .gpu = row_get(&c->rows.base, ROW_gpu),
                            .repack = c->arms[a].engine.rtr != NULL,
                            .vram = nvml_vram_of(c->arm[0]->cards),
                            .r = r };
    snprintf(l.time_utc, sizeof l.time_utc, "%s", row_get(&c->rows.base, ROW_time_utc));
    print_line(c, &l);
    TRY(table_flush(stdout, "stdout", e));
    table_bench_label(&r->test, label, sizeof label);
    TRY(speed_rows_bench(&c->rows, label, r, e));
out:
    return rc;
}

/* To the rows at once, so that a killed run keeps what it measured. */
static int on_repeat(void *arg, const struct bench_test *t, int rep, int64_t ns, struct err *e) {
    struct bench_cmd *c = arg;
    char label[64];
    int rc = 0;
    table_bench_label(t, label, sizeof label);
    TRY(row_copy(&c->rows.base, &c->arm_row[t->arm], e));
    TRY(speed_rows_repeat(&c->rows, label, t, rep, ns, e));
out:
    return rc;
}

/* All engines share one process and its cards: memory is told of them together, in rows that hold
 * what theirs have in common. The first was opened when the cards had nothing of any. */
static int memory_row(struct bench_cmd *c, struct err *e) {
    int rc = 0;
    TRY(row_copy(&c->rows.base, &c->arm_row[0], e));
    for (int i = 1; i < c->n_arms; i++)
        for (enum row_field f = 0; f < ROW_field_count; f++)
            if (strcmp(row_get(&c->arm_row[i], f), row_get(&c->rows.base, f)))
                TRY(row_set(&c->rows.base, f, NULL, e));
    TRY(speed_rows_memory(&c->rows, c->arm[0]->cards, e));
out:
    return rc;
}

static int run(struct bench_cmd *c, struct err *e) {
    int rc = 0;
    for (int i = 0; i < c->n_arms; i++) {
        TRY(arm_open_builtin(&c->arm[i], &c->arms[i], e));
        if (c->arms[i].engine.rtr && c->arm[i]->info.repacked_bytes == 0)
            fprintf(stderr, "note: -rtr 1 changes nothing: %s has no copies for weights of %s\n",
                    c->arm[i]->info.backend, c->arm[i]->info.qtype);
    }
    TRY(speed_rows_open(&c->rows, c->csv, c->results, e));
    for (int i = 0; i < c->n_arms; i++) {
        TRY(row_copy(&c->arm_row[i], &c->rows.base, e));
        TRY(speed_rows_describe(&c->arm_row[i], c->arm[i], "bench", (uint64_t)c->seed, c->n_rep,
                                c->warmup, c->warmup, e));
    }
    const struct bench_params p = { .arms = c->arm,
                                    .n_arms = c->n_arms,
                                    .tests = c->tests,
                                    .n_tests = c->n_tests,
                                    .n_rep = c->n_rep,
                                    .warmup = c->warmup,
                                    .seed = (uint64_t)c->seed,
                                    .progress = on_progress,
                                    .progress_arg = c,
                                    .repeat = on_repeat,
                                    .repeat_arg = c };
    rc = bench_run(&p, on_result, c, e);
    if (rc < 0) progress_clear(&c->progress);
    TRY(rc);
    TRY(memory_row(c, e));
    print_tail(c);
out:
    return rc;
}

int cmd_bench(int argc, char **argv, struct err *e) {
    int rc = ERR_NOMEM;
    struct bench_cmd *c = heap_calloc(1, sizeof *c, e); /* its lists are large */
    if (!c) return rc;
    c->text.p.text = "512", c->text.n.text = "128", c->text.d.text = "0", c->text.t.text = "0";
    c->text.b.text = "2048", c->text.ub.text = "512", c->text.rtr.text = "0";
    c->text.ctk.text = c->text.ctv.text = "f16";
    c->fa = "on", c->format = "md", c->n_rep = 5, c->warmup = true, c->columns.test_width = 13;
    row_init(&c->rows.base);
    for (int i = 0; i < BENCH_MAX_ARMS; i++)
        row_init(&c->arm_row[i]);
    rc = parse(c, argc, argv, e);
    if (rc == 0) {
        TRY(parse_lists(c, e));
        TRY(plan(c, e));
        TRY(run(c, e));
    }
out:
    for (int i = 0; i < BENCH_MAX_ARMS; i++) {
        arm_close(c->arm[i]);
        row_release(&c->arm_row[i]);
    }
    int closed = run_rows_close(&c->rows, rc < 0 ? NULL : e);
    if (rc >= 0 && closed < 0) rc = closed;
    heap_free(c);
    return rc < 0 ? rc : EXIT_PASS;
}
