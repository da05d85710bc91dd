/* SPDX-License-Identifier: MIT
 * compare_tool.c - a comparison with "cli:/path/to/llama-perplexity", where only the binaries of an
 * engine are there: the tool runs on the same model and text, and the running perplexities that it
 * prints give each chunk's mean nll back.
 *
 * Weaker than an arm: four decimals of a running perplexity, no positions, no logits, no operations
 * and no noise floor. The first chunk and the mean speak; the output says what could not be looked
 * at. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arm/tool.h"
#include "base/arena.h"
#include "base/timer.h"
#include "cli/cmd.h"
#include "cli/compare_cmd.h"
#include "measure/tool_text.h"

#define WORDS_MAX 64
#define NUMBER_BYTES 16
#define TOOL_SILENCE_S 600 /* unless --timeout says otherwise */
#define DECIMALS 5e-5      /* of a printed perplexity */

struct tool_run {
    struct compare_cmd *c;
    int side;
    const char *argv[WORDS_MAX + 1];
    char number[8][NUMBER_BYTES];
    int n_words, n_numbers;
    struct ppl_text text;
    double sum;  /* of mean nll of the chunks so far: i ln(PPL) */
    double *nll; /* [n_max] mean nll of each chunk */
    int64_t n, n_max;
    double total[SIDE_count]; /* of the chunks' mean nll of both arms */
    double rounding;          /* what four decimals may have changed of the last chunk, nats */
    bool enough;              /* the verdict stands: the tool is ended */
    char tail[256];           /* the end of what it printed */
    size_t n_tail;
    /* after each chunk */
    int (*chunk)(struct tool_run *t, int64_t i, struct err *e);
    struct tool_run *other; /* a tool whose chunks are there already */
};

static bool is_tool(const struct compare_cmd *c, int side) {
    return c->spec[side].params.kind == ARM_TOOL;
}

bool compare_has_tool(const struct compare_cmd *c) {
    return is_tool(c, SIDE_A) || is_tool(c, SIDE_B);
}

/* ---- running the tool ------------------------------------------------------------------------ */

static void add(struct tool_run *t, const char *flag, const char *value) {
    if (!value || t->n_words + 2 > WORDS_MAX) return;
    t->argv[t->n_words++] = flag;
    if (*value) t->argv[t->n_words++] = value;
}

static void add_int(struct tool_run *t, const char *flag, int value) {
    if (value <= 0) return;
    char *text = t->number[t->n_numbers++];
    snprintf(text, NUMBER_BYTES, "%d", value);
    add(t, flag, text);
}

static void make_words(struct tool_run *t) {
    const struct arm_params *p = &t->c->spec[t->side].params;
    const struct arm_engine *o = &p->engine;
    t->argv[t->n_words++] = p->path;
    add(t, "-m", p->model);
    add(t, "-f", t->c->text);
    add_int(t, "-c", p->n_ctx);
    add_int(t, "-b", p->n_batch);
    add_int(t, "-ub", p->n_ubatch);
    add_int(t, "-t", p->n_threads);
    add_int(t, "-tb", p->n_threads_batch);
    add_int(t, "--chunks", t->c->chunks);
    add(t, "-ctk", p->type_k);
    add(t, "-ctv", p->type_v);
    add(t, "-ngl", o->ngl);
    add(t, "-ot", o->ot);
    add(t, "-fa", o->fa);
    add(t, "-mla", o->mla);
    add(t, "-amb", o->amb);
    if (o->fmoe) add(t, !strcmp(o->fmoe, "on") ? "-fmoe" : "-no-fmoe", "");
    if (o->fug) add(t, !strcmp(o->fug, "on") ? "-fug" : "-no-fug", "");
    if (o->rtr) add(t, "-rtr", "");
    if (o->nkvo) add(t, "-nkvo", "");
}

static int on_value(void *arg, int64_t i, double ppl, struct err *e) {
    struct tool_run *t = arg;
    if (t->enough) return 0; /* printed in one piece with what decided */
    if (t->n == t->n_max) {
        int64_t more = t->n_max ? 2 * t->n_max : 256;
        double *p = heap_realloc(t->nll, (size_t)more * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        t->nll = p;
        t->n_max = more;
    }
    const double sum = (double)i * log(ppl);
    t->nll[t->n++] = sum - t->sum;
    t->sum = sum;
    t->rounding = 2 * (double)i * DECIMALS / ppl;
    return t->chunk ? t->chunk(t, i - 1, e) : 0;
}

static int on_text(void *arg, const char *text, size_t n, struct err *e) {
    struct tool_run *t = arg;
    size_t keep = sizeof t->tail - 1;
    if (n >= keep) {
        memcpy(t->tail, text + n - keep, keep);
        t->n_tail = keep;
    } else {
        size_t drop = t->n_tail + n > keep ? t->n_tail + n - keep : 0;
        memmove(t->tail, t->tail + drop, t->n_tail - drop);
        memcpy(t->tail + t->n_tail - drop, text, n);
        t->n_tail += n - drop;
    }
    int rc = ppl_text_feed(&t->text, text, n, on_value, t, e);
    if (rc < 0) return rc;
    return t->enough ? ERR(e, ERR_ARM, "enough") : 0;
}

/* What the tool said last, for people who ask why. */
static const char *last_words(struct tool_run *t) {
    t->tail[t->n_tail] = '\0';
    while (t->n_tail && strchr("\n ", t->tail[t->n_tail - 1]))
        t->tail[--t->n_tail] = '\0';
    const char *line = strrchr(t->tail, '\n');
    return line ? line + 1 : t->tail;
}

static int run(struct tool_run *t, struct err *e) {
    int rc = 0, status = 0;
    char how[64];
    const struct arm_params *p = &t->c->spec[t->side].params;
    make_words(t);
    t->c->run.walk.failed = t->side;
    rc = tool_run(t->argv, NULL, p->timeout_s ? p->timeout_s : TOOL_SILENCE_S, on_text, t, &status,
                  e);
    if (t->enough) rc = 0;
    if (rc == ERR_ARM && t->c->run.walk.failed != 1 - t->side)
        t->c->run.walk.failed = t->side; /* unless the other arm has failed in between */
    if (rc == ERR_ARM) return err_prefix(e, "arm");
    TRY(rc);
    t->c->run.walk.failed = t->side;
    tool_how(status, how, sizeof how);
    FAIL_IF(!t->enough && status, e, ERR_ARM, "arm died: %s, its last words: %.150s", how,
            last_words(t));
    FAIL_IF(t->n == 0, e, ERR_ARM, "arm has printed no chunk, but: %.150s", last_words(t));
    t->c->run.walk.failed = -1;
out:
    return rc;
}

/* ---- the other arm --------------------------------------------------------------------------- */

struct sum {
    double nll;
};

static int add_row(void *arg, const struct arm_row *r, struct err *e) {
    struct sum *s = arg;
    (void)e;
    s->nll += r->nll;
    return 0;
}

/* Mean nll of window i. */
static int own_chunk(struct compare_cmd *c, int side, int64_t i, double *mean, struct err *e) {
    int rc = 0;
    struct arm *a = c->arm[side];
    const struct windows *w = &c->win;
    const int n = w->n_ctx, n_scored = windows_n_scored(w);
    struct sum s = { 0 };
    int32_t *token = heap_calloc(4 * (size_t)n, sizeof *token, e);
    bool *want = heap_calloc((size_t)n, sizeof *want, e);
    if (!token || !want) {
        rc = ERR_NOMEM;
        goto out;
    }
    int32_t *pos = token + n, *seq = pos + n, *target = seq + n;
    for (int p = 0; p < n; p++) {
        token[p] = windows_input(w, c->ids.id, i, p, c->run.walk.bos);
        pos[p] = p;
        want[p] = p >= w->first && p < w->end;
        if (want[p]) target[p - w->first] = windows_target(w, c->ids.id, i, p);
    }
    c->run.walk.failed = side;
    TRY(arm_kv_trim(a, -1, 0, e));
    for (int p = 0; p < n; p += a->info.n_batch) {
        int k = n - p < a->info.n_batch ? n - p : a->info.n_batch;
        struct arm_batch b = { k, token + p, pos + p, seq + p, want + p, true };
        TRY(arm_hold(a, &b, p > 0, e));
    }
    TRY(arm_rows(a, 0, n_scored, target, false, add_row, &s, e));
    c->run.walk.failed = -1;
    *mean = s.nll / n_scored;
out:
    heap_free(token);
    heap_free(want);
    return rc;
}

/* ---- judging --------------------------------------------------------------------------------- */

static int on_chunk(struct tool_run *t, int64_t i, struct err *e) {
    int rc = 0;
    struct compare_cmd *c = t->c;
    struct compare *r = &c->run;
    double mean[SIDE_count];
    mean[t->side] = t->nll[i];
    if (t->other) {
        if (i >= t->other->n) return 0;
        mean[t->other->side] = t->other->nll[i];
    } else {
        FAIL_IF(i >= c->win.n, e, ERR_MISMATCH,
                "arm prints chunk %" PRId64 ", and the text has %" PRId64
                ": it cuts the text into other tokens",
                i + 1, c->win.n);
        TRY(own_chunk(c, 1 - t->side, i, &mean[1 - t->side], e));
    }
    if (c->t_first == 0) c->t_first = timer_s() - c->t_start;
    const int64_t n = c->common.n_ctx - 1 - c->common.n_ctx / 2;
    struct compare_chunk k = { .window = i, .n = n, .n_same_top = n };
    for (int s = 0; s < SIDE_count; s++) {
        k.nll[s] = mean[s] * (double)n;
        k.bad[s].pos = isfinite(mean[s]) ? -1 : 0;
        t->total[s] += mean[s];
    }
    r->n_chunks++;
    welford_add(&r->d, mean[SIDE_B] - mean[SIDE_A]);
    struct verdict v = verdict_chunk(&r->rel, &k);
    if (v.status == STATUS_OPEN && isfinite(mean[0] + mean[1])) v = verdict_positions(&r->rel, &k);
    if (v.status == STATUS_OPEN) v = verdict_mean(&r->rel, &r->d);
    r->verdict = v;
    t->enough = v.status == STATUS_FAIL || (v.status == STATUS_PASS && !c->full);
    if (t->enough && c->t_verdict == 0) c->t_verdict = timer_s() - c->t_start;
    progress_update(&c->progress, r->n_chunks);
out:
    return rc;
}

static void conclude(struct compare_cmd *c) {
    const struct compare *r = &c->run;
    c->verdict = r->verdict;
    if (c->verdict.status != STATUS_OPEN) return;
    c->verdict.status = STATUS_UNDECIDED;
    snprintf(c->verdict.text, sizeof c->verdict.text,
             "ln(PPL_B/PPL_A) = %+.6f +/- %.6f after %" PRId64
             " chunks: neither inside nor outside of +/- %g",
             r->d.mean, confseq_radius(&r->d, c->alpha), r->n_chunks, c->margin);
}

static void print_result(const struct compare_cmd *c, const struct tool_run *t) {
    const struct compare *r = &c->run;
    const double n = r->n_chunks ? (double)r->n_chunks : (double)NAN;
    struct interval ci = confseq_interval(&r->d, c->alpha);
    printf("PPL               A %.4f   B %.4f   (%" PRId64 " chunks)\n", exp(t->total[SIDE_A] / n),
           exp(t->total[SIDE_B] / n), r->n_chunks);
    printf("ln(PPL_B/PPL_A)   %+.6f   in [%+.6f, %+.6f] at %g %%, margin +/- %g\n", r->d.mean,
           ci.low, ci.high, 100 * (1 - c->alpha), c->margin);
    printf("weaker            a program prints four decimals for a chunk (the last one is known to "
           "%.1e nats): "
           "no positions,\n                  logits, operations or noise floor were looked at\n",
           t->rounding);
    printf("verdict           %s%s%s%s: %s\n", status_name(c->verdict.status),
           c->verdict.reason ? " (" : "", c->verdict.reason ? reason_name(c->verdict.reason) : "",
           c->verdict.reason ? ")" : "", c->verdict.text);
    printf("time              %.2f s to the first chunk, %.2f s in all\n", c->t_first,
           timer_s() - c->t_start);
}

static void print_side(const struct compare_cmd *c, int side) {
    const char letter = side == SIDE_A ? 'A' : 'B';
    char name[512];
    if (is_tool(c, side)) {
        printf("arm %c             cli:%s, %s\n", letter, c->spec[side].params.path,
               c->spec[side].params.model);
        return;
    }
    compare_arm_name(c, side, name, sizeof name);
    printf("arm %c             %s   %s %s\n", letter, name, row_get(&c->what[side], ROW_model),
           row_get(&c->what[side], ROW_model_fp));
}

static int prepare(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    for (int s = 0; s < SIDE_count; s++) {
        struct arm_params *p = &c->spec[s].params;
        FAIL_IF(p->kind == ARM_FILE, e, ERR_ARG,
                "saved logits and a program that prints chunks cannot be compared: use an arm that "
                "computes");
        p->n_seq = 1;
        if (is_tool(c, s)) continue;
        if (p->n_batch > p->n_ctx) p->n_batch = p->n_ctx;
        c->run.walk.failed = s;
        TRY(arm_open(&c->arm[s], p, e));
        row_init(&c->what[s]);
        TRY(provenance_fill(&c->what[s], e));
        TRY(arm_describe(c->arm[s], &c->what[s], e));
        TRY(compare_tokenize(c, e));
        c->run.rel.n_vocab = c->arm[s]->info.n_vocab;
    }
    c->run.walk.failed = -1;
out:
    return rc;
}

int compare_tool(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    struct tool_run t[SIDE_count] = { { .c = c, .side = SIDE_A }, { .c = c, .side = SIDE_B } };
    const int last = is_tool(c, SIDE_B) ? SIDE_B : SIDE_A;
    const struct arm_params *a = &c->spec[SIDE_A].params, *b = &c->spec[SIDE_B].params;
    FAIL_IF(c->out || c->matrix || c->csv || c->results, e, ERR_ARG,
            "--out, --csv, --results and --matrix need an arm that shows positions, not cli:");
    c->run.rel = (struct relation){ .margin = c->margin,
                                    .alpha = c->alpha,
                                    .n_vocab = INT32_MAX,
                                    .same_weights = !strcmp(a->model, b->model) };
    TRY(prepare(c, e));
    for (int s = 0; s < SIDE_count; s++)
        print_side(c, s);
    printf("text              %s, chunks of %d tokens\n", c->text, c->common.n_ctx);
    fflush(stdout);
    c->t_start = timer_s();
    progress_start(&c->progress, "chunk", c->win.n, 0);
    if (is_tool(c, 1 - last)) { /* two of them: the first one's chunks are kept */
        TRY(run(&t[1 - last], e));
        t[last].other = &t[1 - last];
    }
    t[last].chunk = on_chunk;
    TRY(run(&t[last], e));
    progress_clear(&c->progress);
    conclude(c);
    print_result(c, &t[last]);
    rc = c->verdict.status == STATUS_PASS   ? EXIT_PASS
         : c->verdict.status == STATUS_FAIL ? EXIT_FAIL
                                            : EXIT_UNDECIDED;
out:
    if (rc == ERR_ARM) {
        progress_clear(&c->progress);
        compare_arm_error(c->verdict.text, sizeof c->verdict.text, c->run.walk.failed, e->msg,
                          c->run.n_chunks);
        printf("verdict           FAIL (ARM): %s\n", c->verdict.text);
        rc = EXIT_FAIL;
    }
    heap_free(t[0].nll);
    heap_free(t[1].nll);
    return rc;
}
