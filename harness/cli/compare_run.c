/* SPDX-License-Identifier: MIT
 * compare_run.c - what `ggauge compare` does with its options: opens the arms, cuts the text, runs
 * the comparison, checks floors and operations, and has everything written; see compare_cmd.h. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/timer.h"
#include "cli/cmd.h"
#include "cli/compare_cmd.h"
#include "stats/proportion.h"
#include "stats/quantile.h"

/* ---- preparing ------------------------------------------------------------------------------- */

static int open_arms(struct compare_cmd *c, struct err *e) {
    int rc = 0, n_batch = 0;
    for (int s = 0; s < SIDE_count; s++)
        if (c->spec[s].params.n_batch > n_batch) n_batch = c->spec[s].params.n_batch;
    int n_seq = windows_n_seq(n_batch, c->common.n_ctx);
    if (n_seq > 16) n_seq = 16; /* a verdict is due after every pass */
    for (int s = 0; s < SIDE_count; s++) {
        struct arm_params *p = &c->spec[s].params;
        p->n_seq = n_seq;
        if (p->n_batch > n_seq * p->n_ctx) p->n_batch = n_seq * p->n_ctx;
        c->run.walk.failed = s;
        rc = arm_open(&c->arm[s], p, e);
        if (rc < 0) {
            err_prefix(e, "arm %c", s == SIDE_A ? 'A' : 'B');
            goto out;
        }
        row_init(&c->what[s]);
        TRY(provenance_fill(&c->what[s], e));
        TRY(arm_describe(c->arm[s], &c->what[s], e));
    }
    c->run.walk.failed = -1;
    c->run.walk.n_seq = n_seq;
out:
    return rc;
}

/* The vocabulary that cuts the text: arm A's, or B's if A is a file. */
int compare_tokenize(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    const struct arm *first = c->arm[SIDE_A];
    const struct arm *a = first && first->tok ? first : c->arm[SIDE_B];
    const struct tok *t = a ? a->tok : NULL;
    FAIL_IF(!t, e, ERR_UNSUPPORTED,
            "compare needs a vocabulary, and neither arm has one that can be used");
    FAIL_IF(tok_add_eos(t), e, ERR_UNSUPPORTED,
            "the vocabulary appends EOS to every text (add_eos), which perplexity is not defined "
            "for");
    TRY(tok_encode(t, c->words.data, c->words.n, true, false, &c->ids, e));
    for (int64_t i = 0; i < c->ids.n; i++)
        FAIL_IF(c->ids.id[i] < 0 || c->ids.id[i] >= a->info.n_vocab, e, ERR_FORMAT,
                "token %d of the text is outside of the model's %d outputs", c->ids.id[i],
                a->info.n_vocab);
    int64_t chunks = c->chunks;
    for (int s = 0; s < SIDE_count; s++) { /* saved logits end where they end */
        int64_t n = c->arm[s] ? c->arm[s]->info.n_chunks : 0;
        if (n > 0 && (chunks < 0 || n < chunks)) chunks = n;
    }
    TRY(windows_plain(&c->win, c->ids.n, c->common.n_ctx, chunks, e));
    c->run.walk.bos = tok_add_bos(t) ? tok_bos(t) : -1;
out:
    return rc;
}

static bool same_field(const struct compare_cmd *c, enum row_field f) {
    return !strcmp(row_get(&c->what[SIDE_A], f), row_get(&c->what[SIDE_B], f));
}

/* A fingerprint samples a file; of two files only the tensors' bytes could tell (localise.h does).
 */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return a && b && !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether differences can only be arithmetic, and whether there may be any. */
static int relate(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    static const enum row_field decisive[] = { ROW_engine, ROW_engine_commit, ROW_backend,
                                               ROW_type_k, ROW_type_v,        ROW_host,
                                               ROW_cpu };
    struct relation *r = &c->run.rel;
    const struct arm_params *a = &c->spec[SIDE_A].params, *b = &c->spec[SIDE_B].params;
    r->margin = c->margin;
    r->alpha = c->alpha;
    r->same_weights = *row_get(&c->what[SIDE_A], ROW_model_fp) && same_field(c, ROW_model_fp);
    r->bitwise = same_file(a->model, b->model) && compare_arm_is_own(a) && compare_arm_is_own(b) &&
                 c->arm[SIDE_A]->info.promise == ARM_BITWISE &&
                 c->arm[SIDE_B]->info.promise == ARM_BITWISE && !a->act_like == !b->act_like &&
                 (!a->act_like || !strcmp(a->act_like, b->act_like)) && !a->fault &&
                 !b->fault; /* a seeded fault stands for another engine's */
    for (size_t i = 0; i < N_ELEMS(decisive); i++)
        if (!same_field(c, decisive[i])) r->bitwise = false;
    FAIL_IF(
        a->model && b->model && !strcmp(a->model, b->model) && !r->same_weights &&
            *row_get(&c->what[SIDE_A], ROW_model_fp) && *row_get(&c->what[SIDE_B], ROW_model_fp) &&
            a->kind != ARM_FILE && b->kind != ARM_FILE,
        e, ERR_FORMAT, "%s is %s for arm A and %s for arm B: the arms read different files",
        a->model, row_get(&c->what[SIDE_A], ROW_model_fp), row_get(&c->what[SIDE_B], ROW_model_fp));
out:
    return rc;
}

static int set_settings(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char *text = NULL;
    json_t *j = json_pack("{s:I, s:f, s:f, s:b, s:s, s:s}", "chunks", (json_int_t)c->win.n,
                          "margin", c->margin, "alpha", c->alpha, "kld", !c->no_kld, "a",
                          c->spec_text[SIDE_A], "b", c->spec_text[SIDE_B]);
    if (j && !same_field(c, ROW_model_fp))
        json_object_set_new(j, "model_b",
                            json_pack("[s, s]", row_get(&c->what[SIDE_B], ROW_model),
                                      row_get(&c->what[SIDE_B], ROW_qtype)));
    if (j) text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
    FAIL_IF(!text, e, ERR_NOMEM, "out of memory: the settings of the run");
    TRY(row_set(&c->rows.base, ROW_settings, text, e));
out:
    free(text);
    json_decref(j);
    return rc;
}

/* Rows carry arm A in their own columns and arm B's name in arm_b. */
static int open_rows(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char name[512];
    const char *slash = strrchr(c->text, '/');
    struct row *r = &c->rows.base;
    TRY(row_copy(r, &c->what[SIDE_A], e));
    /* The card is one of the run, whichever arm uses it. */
    if (!row_get(r, ROW_gpu)[0]) {
        TRY(row_set(r, ROW_gpu, row_get(&c->what[SIDE_B], ROW_gpu), e));
        TRY(row_set(r, ROW_driver, row_get(&c->what[SIDE_B], ROW_driver), e));
    }
    compare_arm_name(c, SIDE_B, name, sizeof name);
    TRY(row_set(r, ROW_test, "compare", e));
    TRY(row_set(r, ROW_arm_b, name, e));
    TRY(row_set(r, ROW_text, slash ? slash + 1 : c->text, e));
    TRY(row_set(r, ROW_text_fp, c->words.fingerprint, e));
    TRY(row_set_int(r, ROW_seed, c->seed, e));
    TRY(set_settings(c, e));
    if (c->csv) TRY(run_rows_open(&c->rows, c->csv, e));
    if (c->results) TRY(run_rows_open_in(&c->rows, c->results, e));
    if (c->out) TRY(compare_files_open(c, e));
out:
    return rc;
}

/* ---- running --------------------------------------------------------------------------------- */

/* All chunks are added up anew: worth it only where somebody looks. */
static void note_progress(struct compare_cmd *c, const struct compare *so_far) {
    struct ppl_stats a = compare_ppl(so_far, SIDE_A), b = compare_ppl(so_far, SIDE_B);
    snprintf(c->progress.note, sizeof c->progress.note,
             "; PPL %.4f / %.4f, ln ratio %+.5f +/- %.5f", ppl_stats_ppl(&a), ppl_stats_ppl(&b),
             so_far->d.mean, confseq_radius(&so_far->d, c->alpha));
}

static int on_chunk(void *arg, const struct compare_chunk *k, const struct compare *so_far,
                    struct err *e) {
    int rc = 0;
    struct compare_cmd *c = arg;
    char subject[32];
    const double n = (double)k->n;
    if (c->t_first == 0) c->t_first = timer_s() - c->t_start;
    if (c->out) TRY(compare_files_chunk(c, k, e));
    snprintf(subject, sizeof subject, "chunk %" PRId64, k->window + 1);
    struct interval ci = confseq_interval(&so_far->d, c->alpha);
    TRY(run_rows_put(&c->rows, RUN_ROWS_ALL, subject, METRIC_ln_ratio, so_far->d.mean, &ci,
                     so_far->n_chunks, status_name(so_far->verdict.status), e));
    if (k->n > 0 && !c->no_kld)
        TRY(run_rows_value(&c->rows, subject, METRIC_kld, k->kld_ab / n, NULL, k->n, e));
    if (k->n > 0)
        TRY(run_rows_value(&c->rows, subject, METRIC_top1, (double)k->n_same_top / n, NULL, k->n,
                           e));
    if (c->progress.on) note_progress(c, so_far);
    progress_update(&c->progress, so_far->n_chunks);
out:
    return rc;
}

void compare_arm_error(char *buf, size_t n, int side, const char *msg, int64_t n_chunks) {
    const char letter = side == SIDE_A ? 'A' : 'B';
    /* "arm died: ..." of a worker, "arm B: ..." of ours: the letter belongs behind the first word.
     */
    if (!strncmp(msg, "arm A: ", 7) || !strncmp(msg, "arm B: ", 7)) msg += 7;
    if (side < 0)
        snprintf(buf, n, "%.300s", msg);
    else if (!strncmp(msg, "arm ", 4))
        snprintf(buf, n, "arm %c %.270s after %" PRId64 " chunks", letter, msg + 4, n_chunks);
    else
        snprintf(buf, n, "arm %c: %.270s, after %" PRId64 " chunks", letter, msg, n_chunks);
}

/* What an arm's end says. Trouble of our own (memory, files) is no verdict. */
static bool verdict_of_error(struct compare_cmd *c, int rc, const struct err *e) {
    const struct arm *a = c->arm[SIDE_A], *b = c->arm[SIDE_B];
    bool vocabularies = rc == ERR_MISMATCH && a && b && a->info.n_vocab != b->info.n_vocab;
    if (rc != ERR_ARM && !vocabularies) return false;
    struct verdict *v = &c->verdict;
    v->status = STATUS_FAIL;
    v->reason = rc == ERR_ARM ? REASON_ARM : REASON_VOCABULARY;
    compare_arm_error(v->text, sizeof v->text, c->run.walk.failed, e->msg, c->run.n_chunks);
    return true;
}

static int floor_of(struct compare_cmd *c, int side, bool recall_only, struct err *e) {
    int rc = 0;
    char key[17];
    struct floor *f = &c->floor[side];
    /* Another program may have changed under its name: its floor is measured every time. */
    bool remember = c->floor_file && !c->spec[side].params.path && !c->spec[side].params.launch;
    if (remember) {
        TRY(floor_key(key, c->arm[side], &c->spec[side].params, &c->run.walk, e));
        TRY(floor_recall(f, c->floor_file, key, e));
        c->has_floor[side] = rc == 1;
    }
    if (c->has_floor[side] || recall_only) {
        rc = 0;
        goto out;
    }
    c->run.walk.failed = side;
    TRY(floor_measure(f, c->arm[side], &c->spec[side].params, &c->run.walk, c->margin, e));
    c->run.walk.failed = -1;
    c->has_floor[side] = true;
    struct err ignored; /* a floor that cannot be remembered is measured again, that is all */
    if (remember && c->arm[side]->info.promise != ARM_RECORDED &&
        floor_remember(f, c->floor_file, key, &ignored) < 0)
        fprintf(stderr, "note: the noise floor is not remembered: %s\n", ignored.msg);
out:
    return rc;
}

static void check_floors(struct compare_cmd *c) {
    for (int s = 0; s < SIDE_count; s++) {
        const struct floor *f = &c->floor[s];
        if (!c->has_floor[s] || f->kept || c->verdict.status == STATUS_FAIL) continue;
        c->verdict.status = STATUS_MISTRUSTED;
        c->verdict.reason = REASON_FLOOR;
        snprintf(c->verdict.text, sizeof c->verdict.text,
                 "arm %c does not repeat itself: with -ub %d and %d threads %" PRId64 " of %" PRId64
                 " positions differ, |d nll| up to %.3g",
                 s == SIDE_A ? 'A' : 'B', f->n_ubatch, f->n_threads, f->n_different, f->n,
                 f->d_max);
    }
}

static void undecided(struct compare_cmd *c) {
    const struct compare *r = &c->run;
    char *text = c->verdict.text;
    const size_t n = sizeof c->verdict.text;
    const char *more = c->chunks >= 0 ? "; try more --chunks" : "";
    double u = confseq_radius(&r->d, c->alpha);
    if (r->n_chunks < CONFSEQ_MIN_N)
        snprintf(text, n,
                 "no rule is broken, but %" PRId64
                 " chunks are too few for the mean, which needs %d%s",
                 r->n_chunks, CONFSEQ_MIN_N, more);
    else
        snprintf(text, n,
                 "ln(PPL_B/PPL_A) = %+.6f +/- %.6f after %" PRId64
                 " chunks: neither inside nor outside of +/- %g%s",
                 r->d.mean, u, r->n_chunks, c->margin, more);
}

/* After the last chunk: what the rules over single chunks and the mean left open. */
static int conclude(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    struct verdict *v = &c->verdict;
    *v = c->run.verdict;
    struct tail t = compare_tail(&c->run);
    bool equal = c->run.n_positions > 0 && c->run.n_different == 0;
    if (v->status == STATUS_OPEN && equal) {
        v->status = STATUS_PASS;
        snprintf(v->text, sizeof v->text, "all %" PRId64 " positions are equal bit for bit",
                 c->run.n_positions);
    }
    if (v->status != STATUS_FAIL && v->status != STATUS_MISTRUSTED) {
        struct verdict tail = verdict_tail(&c->run.rel, &t);
        if (tail.status == STATUS_FAIL) *v = tail;
    }
    if (v->status == STATUS_OPEN) {
        v->status = STATUS_UNDECIDED;
        undecided(c);
    }
    c->t_verdict = timer_s() - c->t_start;
    for (int s = 0; s < SIDE_count; s++)
        TRY(floor_of(c, s, v->status == STATUS_FAIL, e));
    check_floors(c);
    TRY(compare_look(c, e));
    c->t_end = timer_s() - c->t_start;
out:
    return rc;
}

static int write_rows(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char status[64];
    const struct compare *r = &c->run;
    const double n = (double)r->n_positions;
    struct interval ci = confseq_interval(&r->d, c->alpha);
    snprintf(status, sizeof status, "%s%s%s", status_name(c->verdict.status),
             c->verdict.reason ? " " : "", c->verdict.reason ? reason_name(c->verdict.reason) : "");
    TRY(run_rows_put(&c->rows, RUN_ROWS_ALL, "run", METRIC_ln_ratio,
                     r->d.n ? r->d.mean : (double)NAN, &ci, r->n_chunks, status, e));
    if (r->n_positions == 0) goto out;
    struct interval top = wilson_interval95(r->n_same_top, r->n_positions);
    TRY(run_rows_value(&c->rows, "run", METRIC_top1, (double)r->n_same_top / n, &top,
                       r->n_positions, e));
    TRY(run_rows_value(&c->rows, "run", METRIC_wide_flips, (double)r->n_wide_flips, NULL,
                       r->n_positions, e));
    if (!c->no_kld) {
        TRY(run_rows_value(&c->rows, "run", METRIC_kld, r->kld_ab / n, NULL, r->n_positions, e));
        TRY(run_rows_value(&c->rows, "run", METRIC_kld_ba, r->kld_ba / n, NULL, r->n_positions, e));
    }
    const struct {
        const char *subject;
        double p;
    } q[] = { { "p10", 0.1 },       { "p25", 0.25 },      { "p50", 0.5 },     { "p75", 0.75 },
              { "p90", 0.9 },       { "p95", 0.95 },      { "p98", 0.98 },    { "p99", 0.99 },
              { "p99.5", 0.995 },   { "p99.8", 0.998 },   { "p99.9", 0.999 }, { "p99.95", 0.9995 },
              { "p99.98", 0.9998 }, { "p99.99", 0.9999 }, { "max", 1.0 } };
    for (size_t i = 0; i < N_ELEMS(q); i++)
        TRY(run_rows_value(&c->rows, q[i].subject, METRIC_d_abs,
                           quantile_sorted(r->d_abs, r->n_positions, q[i].p), NULL, r->n_positions,
                           e));
    for (int s = 0; s < SIDE_count; s++)
        if (c->has_floor[s])
            TRY(run_rows_value(&c->rows, s == SIDE_A ? "arm A" : "arm B", METRIC_floor_d_max,
                               c->floor[s].d_max, NULL, c->floor[s].n, e));
    TRY(compare_ops_rows(c, e));
out:
    return rc;
}

static int exit_code(const struct compare_cmd *c) {
    switch (c->verdict.status) {
    case STATUS_PASS: return EXIT_PASS;
    case STATUS_FAIL: return EXIT_FAIL;
    default: return EXIT_UNDECIDED;
    }
}

int compare_command(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    TRY(text_load(&c->words, c->text, c->escape, e));
    if (compare_has_tool(c)) return compare_tool(c, e);
    rc = open_arms(c, e);
    if (rc < 0 && verdict_of_error(c, rc, e)) goto say;
    TRY(rc);
    TRY(compare_tokenize(c, e));
    TRY(relate(c, e));
    c->run.walk.tokens = c->ids.id;
    c->run.walk.win = &c->win;
    c->run.walk.n = c->win.n;
    compare_print_arms(c);
    if (c->matrix) return compare_matrix(c, e);
    struct compare *r = &c->run;
    r->walk.arm[SIDE_A] = c->arm[SIDE_A];
    r->walk.arm[SIDE_B] = c->arm[SIDE_B];
    r->walk.logits = !c->no_kld;
    r->seed = (uint64_t)c->seed;
    r->keep_going = c->full;
    r->chunk = on_chunk;
    r->arg = c;
    TRY(open_rows(c, e));
    progress_start(&c->progress, "chunk", c->win.n, 0);
    c->t_start = timer_s();
    rc = compare_run(r, e);
    progress_clear(&c->progress);
    if (rc == 0) rc = conclude(c, e);
    if (rc < 0 && !verdict_of_error(c, rc, e)) goto out;
    if (c->t_verdict == 0) c->t_verdict = c->t_end = timer_s() - c->t_start;
    TRY(write_rows(c, e));
say:
    rc = compare_print_result(c, e);
    if (rc == 0 && c->out) rc = compare_files_close(c, e);
    if (rc == 0) rc = exit_code(c);
out:
    return rc;
}
