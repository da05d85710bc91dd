/* SPDX-License-Identifier: MIT
 * cmd_perplexity.c - `ggauge perplexity`: options, and what its two modes share.
 *
 * Options and printed lines are those of llama-perplexity: chunk values, the final estimate and the
 * tables of a divergence go to stdout, everything else to stderr. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "arm/kld_file.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/perplexity.h"
#include "tok/tok.h"

#define MAX_CTX (1 << 24) /* tokens; above any model's */

static int parse(struct perplexity *c, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        OPT_MODEL(c->arm),
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "text" },
        { OPT_STR, "-f --file", "FILE", &c->text, 0, 0, NULL,
          "text to measure on; one newline at its end is dropped" },
        { OPT_FLAG, "-e --escape", NULL, &c->escape, 0, 0, NULL,
          "expand \\n \\t \\xHH ... in the text, as ik_llama.cpp does by default" },
        { OPT_NO_FLAG, "--no-escape", NULL, &c->escape, 0, 0, NULL,
          "take the text as it is, as llama.cpp does; this is the default" },
        { OPT_INT, "-c --ctx-size", "N", &c->arm.n_ctx, 3, MAX_CTX, NULL,
          "tokens of a chunk; the second half is scored" },
        { OPT_INT, "--chunks", "N", &c->chunks, -1, INT32_MAX, NULL, "how many chunks (-1 = all)" },
        { OPT_INT, "--ppl-stride", "N", &c->stride, 0, MAX_CTX, NULL,
          "overlapping windows of c + N/2 tokens every N tokens (0 = chunks)" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "KL divergence" },
        { OPT_STR, "--kl-divergence-base --save-all-logits", "FILE", &c->base, 0, 0, NULL,
          "save the log-probabilities here, or read them with --kl-divergence" },
        { OPT_FLAG, "--kl-divergence", NULL, &c->kld, 0, 0, NULL,
          "divergence from the model that wrote --kl-divergence-base; it holds the text too" },
        { OPT_INT, "--kl-floor", "N", &c->kl_floor, KLD_FLOOR_LLAMA, KLD_FLOOR_IK, NULL,
          "nats below the best token that are kept: 24 as ik_llama.cpp, 16 as llama.cpp" },
        OPT_ENGINE(c->arm),
        OPT_ACT_LIKE(c->arm),
        OPT_OTHER_ARM(c->arm_text),
        { OPT_CHOICE, "-fa --flash-attn", "MODE", &c->fa, 0, 0, "on|off|auto|1|0",
          "accepted: this engine has one attention, which never stores the score matrix" },
        { OPT_INT, "-s --seed", "N", &c->seed, -1, INT32_MAX, NULL,
          "accepted: nothing here is random" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_INT, "--ppl-output-type", "N", &c->output_type, 0, 1, NULL,
          "0 = [1]x,[2]y,... 1 = a line per chunk" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_FLAG, "--resume", NULL, &c->resume, 0, 0, NULL,
          "go on with the chunks that --csv holds already" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "perplexity -m FILE -f TEXT [options]", e);
}

/* Whatever can be refused before a model is opened. */
static int check(struct perplexity *c, struct err *e) {
    int rc = 0;
    if (c->arm_text) {
        TRY(arm_spec_parse(&c->spec, "--arm", c->arm_text, &c->arm, e));
        if (rc > 0) return rc;
        c->arm = c->spec.params;
        FAIL_IF(c->arm.kind == ARM_FILE, e, ERR_ARG,
                "--arm: saved logits are compared: ggauge compare --a file:...");
    }
    FAIL_IF(!c->arm.model, e, ERR_ARG, "perplexity needs a model: -m FILE");
    FAIL_IF(c->kld && !c->base, e, ERR_ARG,
            "--kl-divergence needs the saved logits: --kl-divergence-base FILE");
    FAIL_IF(!c->kld && !c->text, e, ERR_ARG, "perplexity needs a text: -f FILE");
    FAIL_IF(c->stride && c->base, e, ERR_ARG,
            "--ppl-stride does not go with --kl-divergence-base: its file has no windows");
    FAIL_IF(c->resume && !c->csv, e, ERR_ARG, "--resume needs the rows to go on from: --csv FILE");
    FAIL_IF(c->resume && c->kld, e, ERR_ARG, "--resume does not go with --kl-divergence");
    FAIL_IF(c->kl_floor != KLD_FLOOR_IK && c->kl_floor != KLD_FLOOR_LLAMA, e, ERR_ARG,
            "--kl-floor: expected 16 or 24, not %d", c->kl_floor);
    opt_warn_threads(c->arm.n_threads, c->arm.n_threads_batch);
    opt_note_fa(c->fa);
    if (c->kld && c->text)
        fprintf(stderr, "note: -f has no effect, the tokens come from %s\n", c->base);
out:
    return rc;
}

int cmd_perplexity(int argc, char **argv, struct err *e) {
    struct perplexity c = {
        .arm = { .n_ctx = 512,
                 .n_seq = 1,
                 .n_batch = 2048,
                 .n_ubatch = 512,
                 .type_k = "f16",
                 .type_v = "f16" },
        .fa = "on",
        .chunks = -1,
        .kl_floor = KLD_FLOOR_IK,
        .seed = -1,
    };
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    row_init(&c.rows.run.base);
    TRY(check(&c, e));
    if (rc > 0) goto out; /* help of an arm */
    TRY(c.kld ? perplexity_kld(&c, e) : perplexity_plain(&c, e));
out:
    progress_clear(&c.progress);
    if (c.mid_line) putchar('\n');
    int closed = run_rows_close(&c.rows.run, rc < 0 ? NULL : e);
    if (rc >= 0) rc = closed;
    arm_close(c.a);
    arm_spec_release(&c.spec);
    return rc;
}

/* ---- for both modes -------------------------------------------------------------------------- */

int perplexity_open_arm(struct perplexity *c, int n_ctx, struct err *e) {
    int rc = 0;
    c->n_seq = windows_n_seq(c->arm.n_batch, n_ctx);
    c->n_batch = c->arm.n_batch;
    if (c->n_batch > (int64_t)c->n_seq * n_ctx) c->n_batch = c->n_seq * n_ctx;
    struct arm_params p = c->arm;
    p.n_ctx = n_ctx;
    p.n_seq = c->n_seq;
    p.n_batch = c->n_batch;
    TRY(arm_open(&c->a, &p, e));
    FAIL_IF(!c->a->tok, e, ERR_UNSUPPORTED,
            "%s: perplexity needs a vocabulary, and the file has none that can be used", p.model);
    FAIL_IF(tok_add_eos(c->a->tok), e, ERR_UNSUPPORTED,
            "%s: its vocabulary appends EOS to every text (add_eos), which perplexity is not "
            "defined for",
            p.model);
    if (c->a->info.n_ctx_train > 0 && n_ctx > c->a->info.n_ctx_train)
        fprintf(stderr, "warning: the model was trained on %d tokens, -c asks for %d\n",
                c->a->info.n_ctx_train, n_ctx);
out:
    return rc;
}

int32_t perplexity_bos(const struct perplexity *c) {
    return tok_add_bos(c->a->tok) ? tok_bos(c->a->tok) : -1;
}

/* Canonical: sorted keys, no blanks. Whatever may change a digit and has no column of its own. */
static int set_settings(struct perplexity *c, const char *nll, struct err *e) {
    int rc = 0;
    char *text = NULL;
    json_t *j = json_pack("{s:I, s:b, s:s, s:i}", "chunks", (json_int_t)c->win.n, "escape",
                          c->escape, "nll", nll, "stride", c->stride);
    if (j && c->arm.act_like) json_object_set_new(j, "act_like", json_string(c->arm.act_like));
    if (j && c->arm.fault) json_object_set_new(j, "fault", json_string(c->arm.fault));
    if (j && !c->kld && c->base) json_object_set_new(j, "kl_floor", json_integer(c->kl_floor));
    if (j) text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
    FAIL_IF(!text, e, ERR_NOMEM, "out of memory: the settings of the run");
    TRY(row_set(&c->rows.run.base, ROW_settings, text, e));
out:
    free(text);
    json_decref(j);
    return rc;
}

int perplexity_describe(struct perplexity *c, const char *test, const char *text,
                        const char *text_fp, const char *nll, struct err *e) {
    int rc = 0;
    struct row *r = &c->rows.run.base;
    const char *slash = strrchr(text, '/');
    TRY(provenance_fill(r, e));
    TRY(arm_describe(c->a, r, e));
    TRY(row_set(r, ROW_test, test, e));
    TRY(row_set(r, ROW_text, slash ? slash + 1 : text, e));
    TRY(row_set(r, ROW_text_fp, text_fp, e));
    TRY(set_settings(c, nll, e));
out:
    return rc;
}

int perplexity_open_rows(struct perplexity *c, const struct ppl_known *known, struct err *e) {
    int rc = 0;
    char path[4096];
    struct ppl_known there = { 0 };
    if (c->csv) TRY(ppl_rows_open(&c->rows, c->csv, known, e));
    if (c->results) {
        int n = snprintf(path, sizeof path, "%s/%s.csv", c->results,
                         row_get(&c->rows.run.base, ROW_run_id));
        FAIL_IF(n >= (int)sizeof path, e, ERR_ARG, "%s: the path is too long", c->results);
        FAIL_IF(mkdir(c->results, 0777) && errno != EEXIST, e, ERR_IO, "%s: %s", c->results,
                strerror(errno));
        /* A resumed run has the name of the first: the chunks that stand there already. */
        TRY(ppl_rows_read(path, &c->rows.run.base, c->win.n, &there, e));
        TRY(ppl_rows_open(&c->rows, path, &there, e));
    }
out:
    ppl_known_release(&there);
    return rc;
}

void perplexity_eta(struct perplexity *c, const char *who, int64_t n_left, int n, double seconds) {
    if (c->passed) return;
    c->passed = true;
    if (c->mid_line) return; /* values of an earlier run: the message would split their line */
    int total = (int)(seconds * (double)(n_left + n) / n);
    fprintf(stderr, "%s: %.2f seconds per pass - ETA ", who, seconds);
    if (total >= 3600) fprintf(stderr, "%d hours ", total / 3600);
    fprintf(stderr, "%.2f minutes\n", total % 3600 / 60.0);
}

void perplexity_speed(const char *who, const struct walk *w) {
    if (w->seconds > 0)
        fprintf(stderr, "%s: %" PRId64 " tokens in %.2f s, %.2f tokens per second\n", who,
                w->n_evaluated, w->seconds, (double)w->n_evaluated / w->seconds);
}

void perplexity_judge(const struct perplexity *c, double ppl) {
    if (ppl > c->a->info.n_vocab)
        fprintf(stderr,
                "warning: a perplexity above %d, the size of the vocabulary, is worse than "
                "guessing; do model, vocabulary and text belong together?\n",
                c->a->info.n_vocab);
}

int perplexity_flush(struct err *e) {
    int rc = 0;
    FAIL_IF(fflush(stdout) || ferror(stdout), e, ERR_IO, "writing to stdout: %s", strerror(errno));
out:
    return rc;
}
