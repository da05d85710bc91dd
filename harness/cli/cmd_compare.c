/* SPDX-License-Identifier: MIT
 * cmd_compare.c - `ggauge compare`: two arms, one verdict. Options, and the order of the end.
 *
 * stdout gets the figures and the verdict; progress and remarks go to stderr. The exit code is the
 * verdict's: 0 PASS, 1 FAIL, 125 UNDECIDED or MISTRUSTED. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "cli/cmd.h"
#include "cli/compare_cmd.h"
#include "cli/opt.h"

#define MAX_CTX (1 << 24)

static int parse(struct compare_cmd *c, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        OPT_MODEL(c->common),
        { OPT_STR, "-m-b --model-b", "FILE", &c->model_b, 0, 0, NULL,
          "another file for arm B; default: the same" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "arms" },
        { OPT_STR, "--a --arm-a", "ARM", &c->spec_text[SIDE_A], 0, 0, NULL,
          "the arm that is trusted: \"ref\", \"avx2 -t 2 -ub 64\", \"worker:PROG avx2\", "
          "\"file:logits.bin\", another engine: \"lib:build/workers/llama.cpp-1a2b -fa on\" (make "
          "worker), "
          "\"cli:/path/to/llama-perplexity\"" },
        { OPT_STR, "--b --arm-b", "ARM", &c->spec_text[SIDE_B], 0, 0, NULL,
          "the arm that is tried; \"best\" = the best CPU column" },
        { OPT_STR, "--launch-b", "WORDS", &c->launch_b, 0, 0, NULL,
          "run arm B as a worker behind these words, such as \"ssh host\"" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL,
          "options of both arms, unless they say otherwise" },
        OPT_THREADS_BATCHES(c->common),
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "text" },
        { OPT_STR, "-f --file", "FILE", &c->text, 0, 0, NULL,
          "text to compare on; one newline at its end is dropped" },
        { OPT_FLAG, "-e --escape", NULL, &c->escape, 0, 0, NULL,
          "expand \\n \\t \\xHH ... in the text" },
        { OPT_INT, "-c --ctx-size", "N", &c->common.n_ctx, 3, MAX_CTX, NULL,
          "tokens of a chunk; the second half is scored" },
        { OPT_INT, "--chunks", "N", &c->chunks, -1, INT32_MAX, NULL,
          "use the first N chunks at most (-1 = all); the run stops as soon as the answer is "
          "known" },
        { OPT_INT, "-s --seed", "N", &c->seed, 0, INT32_MAX, NULL, "of the order of the chunks" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "verdict" },
        { OPT_DOUBLE, "--margin", "NATS", &c->margin, 1e-9, 10, NULL,
          "PASS needs |ln(PPL_B/PPL_A)| below it, FAIL above" },
        { OPT_DOUBLE, "--alpha", "P", &c->alpha, 1e-12, 0.5, NULL,
          "chance of a wrong verdict by the mean, over all looks together" },
        { OPT_FLAG, "--full", NULL, &c->full, 0, 0, NULL,
          "use all chunks even if the mean has spoken" },
        { OPT_FLAG, "--no-kld", NULL, &c->no_kld, 0, 0, NULL,
          "leave out KL divergences: no logits leave the arms" },
        { OPT_FLAG, "--ops", NULL, &c->ops, 0, 0, NULL,
          "look into every operation even if the arms gave the same bits" },
        { OPT_FLAG, "--no-ops", NULL, &c->no_ops, 0, 0, NULL,
          "never look into operations: a PASS is then one by the text alone" },
        { OPT_STR, "--floor-file", "FILE", &c->floor_file, 0, 0, NULL,
          "where noise floors are remembered (default ~/.cache/ggauge/floors)" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "coverage" },
        { OPT_FLAG, "--matrix", NULL, &c->matrix, 0, 0, NULL,
          "a table of all shapes instead of one comparison; goes on from OUT/matrix.csv" },
        { OPT_STR, "--matrix-ub", "LIST", &c->matrix_ub, 0, 0, NULL, "micro-batches of arm B" },
        { OPT_STR, "--matrix-ctx", "LIST", &c->matrix_ctx, 0, 0, NULL, "contexts" },
        { OPT_STR, "--matrix-kv", "LIST", &c->matrix_kv, 0, 0, NULL,
          "cache types, of K and V or as K/V" },
        { OPT_STR, "--matrix-backends", "LIST", &c->matrix_backends, 0, 0, NULL,
          "columns of arm B (default: all that this machine has but ref)" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_STR, "--out", "DIR", &c->out, 0, 0, NULL,
          "report.md, compare.csv, ops.csv, summary.json, junit.xml and the capsule go here" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "compare -m FILE -f TEXT --a ARM --b ARM [options]", e);
}

/* Names of files are any bytes; what is written into JSON and XML has to be UTF-8. */
static int name_inputs(struct compare_cmd *c, struct err *e) {
    c->text_name = utf8_repair_dup(c->text, strlen(c->text), e);
    if (!c->text_name) return ERR_NOMEM;
    for (int s = 0; s < SIDE_count; s++) {
        c->arm_text[s] = utf8_repair_dup(c->spec_text[s], strlen(c->spec_text[s]), e);
        if (!c->arm_text[s]) return ERR_NOMEM;
        c->spec_text[s] = c->arm_text[s]; /* the arm's options have their own copy */
    }
    return 0;
}

static int check(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    struct arm_params b = c->common;
    FAIL_IF(!c->text, e, ERR_ARG, "compare needs a text: -f FILE");
    if (c->model_b) b.model = c->model_b;
    TRY(arm_spec_parse(&c->spec[SIDE_A], "--a", c->spec_text[SIDE_A], &c->common, e));
    if (rc == 0) TRY(arm_spec_parse(&c->spec[SIDE_B], "--b", c->spec_text[SIDE_B], &b, e));
    if (rc > 0) goto out;
    TRY(name_inputs(c, e));
    struct arm_params *pa = &c->spec[SIDE_A].params, *pb = &c->spec[SIDE_B].params;
    FAIL_IF(pa->n_ctx != pb->n_ctx, e, ERR_ARG,
            "the arms have different contexts, -c %d and -c %d: their chunks are not the same",
            pa->n_ctx, pb->n_ctx);
    FAIL_IF(c->matrix && (c->csv || c->results), e, ERR_ARG,
            "--matrix gives cells, not result rows: --out DIR keeps them, --csv and --results are "
            "for a single comparison");
    c->common.n_ctx = pa->n_ctx;
    if (c->launch_b) {
        FAIL_IF(pb->kind == ARM_FILE || pb->kind == ARM_TOOL, e, ERR_ARG,
                "--launch-b: only arms that compute are launched");
        pb->kind = ARM_WORKER;
        pb->launch = c->launch_b;
    }
    FAIL_IF((pa->kind != ARM_FILE && !pa->model) || (pb->kind != ARM_FILE && !pb->model), e,
            ERR_ARG, "compare needs a model: -m FILE");
    FAIL_IF(pa->kind == ARM_FILE && pb->kind == ARM_FILE, e, ERR_ARG,
            "both arms are files: one must be a model, whose vocabulary cuts the text");
    opt_warn_threads(c->common.n_threads, c->common.n_threads_batch);
out:
    return rc;
}

/* $XDG_CACHE_HOME/ggauge/floors or ~/.cache/ggauge/floors; NULL without a home. */
static const char *default_floor_file(char *buf, size_t n) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache == '/')
        snprintf(buf, n, "%s/ggauge/floors", cache);
    else if (home && *home == '/')
        snprintf(buf, n, "%s/.cache/ggauge/floors", home);
    else
        return NULL;
    return buf;
}

int cmd_compare(int argc, char **argv, struct err *e) {
    char floor_file[4096];
    struct compare_cmd c = {
        .out_fd = -1,
        .common = { .n_ctx = 512,
                    .n_seq = 1,
                    .n_batch = 2048,
                    .n_ubatch = 512,
                    .type_k = "f16",
                    .type_v = "f16" },
        .spec_text = { "ref", "best" },
        .chunks = -1,
        .seed = 1,
        .margin = 0.002,
        .alpha = 1e-3,
        .matrix_ub = "1,2,3,8,17,33,64,512",
        .matrix_ctx = "512,2048",
        .matrix_kv = "f16,q8_0,f32",
    };
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    if (!c.floor_file) c.floor_file = default_floor_file(floor_file, sizeof floor_file);
    row_init(&c.rows.base);
    rc = check(&c, e);
    if (rc == 0)
        rc = compare_command(&c, e);
    else if (rc > 0)
        rc = EXIT_PASS; /* help of an arm */

    progress_clear(&c.progress);
    int closed = run_rows_close(&c.rows, rc < 0 ? NULL : e);
    if (rc >= 0 && closed < 0) rc = closed;
    if (c.chunk_csv) fclose(c.chunk_csv);
    if (c.out_fd >= 0) close(c.out_fd);
    compare_release(&c.run);
    localise_free(c.where);
    for (int s = 0; s < SIDE_count; s++) {
        arm_close(c.arm[s]);
        row_release(&c.what[s]);
        arm_spec_release(&c.spec[s]);
        heap_free(c.arm_text[s]);
    }
    heap_free(c.text_name);
    text_release(&c.words);
    tok_ids_free(&c.ids);
    return rc;
}
