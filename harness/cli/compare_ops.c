/* SPDX-License-Identifier: MIT
 * compare_ops.c - where two arms part: localisation as `ggauge compare` uses it.
 *
 * It runs after a FAIL, to name the operation, and before a PASS, because a mean over a text can
 * hide an operation that is wrong: one row of one tile, or a product that is always a little short.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "cli/compare_cmd.h"
#include "cli/ops_print.h"
#include "measure/capsule.h"

/* Why operations cannot or need not be looked into; NULL if they can and should. */
static const char *why_not(const struct compare_cmd *c) {
    const struct verdict *v = &c->verdict;
    if (c->no_ops) return "--no-ops";
    if (v->reason == REASON_ARM || v->reason == REASON_VOCABULARY) return "an arm is gone";
    for (int s = 0; s < SIDE_count; s++) {
        if (c->spec[s].params.kind == ARM_FILE) return "saved logits have no operations";
        if (c->spec[s].params.act_like) return "an arm with --act-like cannot be observed";
    }
    if (c->ops) return NULL;
    if (c->run.rel.bitwise && c->run.n_different == 0) return "the arms gave the same bits";
    return NULL;
}

/* Place in the run of the chunk to look into: the one that broke a rule, else the one with the
 * largest differences. */
static int64_t place_of(const struct compare_cmd *c) {
    const struct compare *r = &c->run;
    if (r->n_chunks == 0) return 0;
    const int64_t w = c->verdict.status == STATUS_FAIL ? c->verdict.window : -1;
    if (w >= 0 && r->chunk_of[w] >= 0) return r->chunk_of[w];
    return compare_worst(r) - r->chunks;
}

/* Whether a micro-batch of the arm can hold tokens of two windows. */
static bool mixes_windows(const struct compare_cmd *c, int side) {
    const struct arm_info *i = &c->arm[side]->info;
    return i->n_batch > c->win.n_ctx && c->win.n_ctx % i->n_ubatch != 0;
}

/* The windows that shared its pass up to the chunk at `place`, if that can matter; else it alone.
 */
static const int64_t *windows_of(const struct compare_cmd *c, int64_t place, int *n) {
    const struct pair_walk *w = &c->run.walk;
    int64_t first = place == 0 ? 0 : 1 + (place - 1) / w->n_seq * w->n_seq;
    if (!mixes_windows(c, SIDE_A) && !mixes_windows(c, SIDE_B)) first = place;
    *n = (int)(place - first) + 1;
    return c->run.order + first;
}

static void on_progress(void *arg, const char *what) {
    struct compare_cmd *c = arg;
    if (!c->progress.on) return;
    fprintf(stderr, "\r%s\033[K", what);
    c->progress.drawn = true;
    c->progress.below = false;
}

/* Some operation of another engine is as far from ref as it is known to be. */
static bool has_known(const struct localise *l) {
    for (int i = 0; i < l->n_nodes; i++)
        if (l->nodes[i].known_a || l->nodes[i].known_b) return true;
    return false;
}

/* The texts differ by more than the margin, yet every operation was looked into and none is wrong,
 * and the other engine rounds as it is known to: that is what the difference is made of. */
static bool is_known_deviation(const struct compare_cmd *c) {
    const struct localise *l = c->where;
    const struct verdict *v = &c->verdict;
    return !l->unforced && v->status == STATUS_FAIL &&
           (v->reason == REASON_MEAN || v->reason == REASON_TAIL) &&
           l->first.kind == FINDING_NONE && l->n_examined + l->n_hidden == l->n_nodes &&
           has_known(l);
}

/* A verdict that stood by the text, and operations that say otherwise. */
static void judge(struct compare_cmd *c) {
    struct verdict *v = &c->verdict;
    const struct finding_detail *f = &c->where->first;
    if (is_known_deviation(c)) {
        char was[sizeof v->text];
        memcpy(was, v->text, sizeof was);
        v->status = STATUS_PASS;
        v->reason = REASON_NONE;
        snprintf(v->text, sizeof v->text, "a known deviation, no fault of an operation: %.250s",
                 was);
        return;
    }
    if (f->kind == FINDING_NONE || f->kind == FINDING_WEIGHTS || f->kind == FINDING_FORMAT) return;
    if (v->status == STATUS_FAIL) return;
    char text[sizeof v->text];
    ops_sentence(c->where, text, sizeof text);
    v->status = f->kind == FINDING_NOT_REPRODUCIBLE ? STATUS_MISTRUSTED : STATUS_FAIL;
    v->reason = f->kind == FINDING_NOT_REPRODUCIBLE ? REASON_FLOOR : REASON_OPS;
    memcpy(v->text, text, sizeof text);
}

int compare_look(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    int32_t *token = NULL;
    char path[4096];
    c->ops_why_not = why_not(c);
    if (c->ops_why_not) return 0;
    const struct windows *w = &c->win;
    int n_seq;
    const int64_t *window = windows_of(c, place_of(c), &n_seq);
    const size_t n_tok = (size_t)n_seq * (size_t)w->n_ctx;
    token = heap_alloc(2 * n_tok * sizeof *token, e);
    if (!token) return ERR_NOMEM;
    int32_t *target = token + n_tok;
    for (int s = 0; s < n_seq; s++)
        for (int p = 0; p < w->n_ctx; p++) {
            const size_t i = (size_t)s * (size_t)w->n_ctx + (size_t)p;
            token[i] = windows_input(w, c->ids.id, window[s], p, c->run.walk.bos);
            target[i] = p < w->n_ctx - 1 ? windows_target(w, c->ids.id, window[s], p) : 0;
        }
    struct localise_params p = { .a = c->arm[SIDE_A],
                                 .b = c->arm[SIDE_B],
                                 .model_a = c->spec[SIDE_A].params.model,
                                 .model_b = c->spec[SIDE_B].params.model,
                                 .token = token,
                                 .target = target,
                                 .n_seq = n_seq,
                                 .n_ctx = w->n_ctx,
                                 .first = w->first,
                                 .end = w->end,
                                 .progress = on_progress,
                                 .arg = c };
    rc = localise_run(&c->where, &p, e);
    if (rc == ERR_UNSUPPORTED) { /* perhaps an arm that shows its nodes, and no more */
        struct err ignored;
        p.unforced = true;
        if (localise_run(&c->where, &p, &ignored) == 0) {
            snprintf(c->ops_note, sizeof c->ops_note, "%s", e->msg);
            rc = 0;
        }
    }
    progress_clear(&c->progress);
    if (rc < 0) { /* the verdict stands without them, and says so */
        snprintf(c->ops_note, sizeof c->ops_note, "%s", e->msg);
        c->ops_why_not = c->ops_note;
        if (rc == ERR_ARM && c->verdict.status != STATUS_FAIL) {
            c->verdict = (struct verdict){ STATUS_FAIL, REASON_ARM, "", -1 };
            snprintf(c->verdict.text, sizeof c->verdict.text,
                     "while operations were looked into: %.270s", e->msg);
        }
        rc = 0;
        goto out;
    }
    judge(c);
    if (c->out && c->where->capsule) {
        snprintf(path, sizeof path, "%s/capsule.gguf", c->out);
        TRY(capsule_save(c->where->capsule, path, e));
        c->has_capsule = true;
    }
out:
    heap_free(token);
    return rc;
}

/* Share of its limit that an error takes up. */
static double share(const struct op_error *s, const struct op_limit *l) {
    return s->n ? s->max_rel / l->max_rel : (double)NAN;
}

int compare_ops_rows(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char subject[TENSOR_NAME_MAX + 16];
    if (!c->where) return 0;
    for (int i = 0; i < c->where->n_nodes; i++) {
        const struct op_report *r = &c->where->nodes[i];
        double a = share(&r->err_a, &r->limit_a), b = share(&r->err_b, &r->limit_b);
        snprintf(subject, sizeof subject, "%s/%d", r->name, r->occurrence);
        if (!isnan(a))
            TRY(run_rows_put(&c->rows, RUN_ROWS_ALL, subject, METRIC_op_error_a, a, NULL,
                             r->n_judged, r->wrong & WRONG_A ? "FAIL" : "PASS", e));
        if (!isnan(b))
            TRY(run_rows_put(&c->rows, RUN_ROWS_ALL, subject, METRIC_op_error, b, NULL, r->n_judged,
                             r->wrong & WRONG_B ? "FAIL" : "PASS", e));
    }
out:
    return rc;
}

/* How the arms drift apart from layer to layer, where neither could be forced to the other's data.
 */
static void print_growth(const struct compare_cmd *c, FILE *out) {
    const struct localise *l = c->where;
    fprintf(
        out,
        "operations        not judged one by one: %s\n                  NMSE of B against A behind "
        "each layer, nothing forced:",
        c->ops_note);
    for (int il = 0; il < l->n_layer; il++)
        if (l->layer_acc[il].n > 0)
            fprintf(out, "%s %d: %.1e", il ? "," : "", il, l->layer_acc[il].nmse);
    fprintf(out, " (%.1f s)\n", l->seconds);
}

void compare_ops_print(const struct compare_cmd *c, FILE *out) {
    char path[4096];
    const struct localise *l = c->where;
    if (!l) {
        if (c->ops_why_not) fprintf(out, "operations        not looked into: %s\n", c->ops_why_not);
        return;
    }
    if (l->unforced) {
        print_growth(c, out);
        return;
    }
    if (l->first.kind == FINDING_NONE) {
        const struct op_report *worst = NULL;
        double most = 0;
        for (int i = 0; i < l->n_nodes; i++) {
            double s = share(&l->nodes[i].err_b, &l->nodes[i].limit_b);
            if (!(s > most)) continue;
            most = s;
            worst = &l->nodes[i];
        }
        fprintf(out, "operations        all %d within their limits", l->n_examined);
        if (worst)
            fprintf(out, "; worst %s (%s): %.0f %% of its limit", worst->name, worst->cell_b,
                    100 * most);
        fprintf(out, " (%.1f s)\n", l->seconds);
        if (l->n_hidden)
            fprintf(out,
                    "                  with the inputs of arm B forced to arm A's; %d nodes that "
                    "one arm does "
                    "not show\n                  were judged as part of those behind them\n",
                    l->n_hidden);
        ops_print_known(out, l);
        return;
    }
    snprintf(path, sizeof path, "%s/capsule.gguf", c->out ? c->out : "");
    fputc('\n', out);
    ops_print(out, l, c->has_capsule ? path : NULL);
    if (!c->out && l->capsule)
        fputs("\nreproduce: give --out DIR to keep the operation in a file of its own\n", out);
    fputc('\n', out);
}
