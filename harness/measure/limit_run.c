/* SPDX-License-Identifier: MIT
 * limit_run.c - distributions of errors by cell; see limit_run.h. */
#include "measure/limit_run.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"

#define EXPONENT_MIN (-48)
#define ALL_ROWS 1e9 /* seconds: the judge need not hurry */

void limit_run_release(struct limit_run *r) {
    heap_free(r->cells);
    *r = (struct limit_run){ 0 };
}

static struct limit_cell *cell_of(struct limit_run *r, const char *name, struct err *e) {
    for (int i = 0; i < r->n; i++)
        if (!strcmp(r->cells[i].cell, name)) return &r->cells[i];
    if (r->n == r->cap) {
        int cap = r->cap ? 2 * r->cap : 16;
        struct limit_cell *p = heap_realloc(r->cells, (size_t)cap * sizeof *p, e);
        if (!p) return NULL;
        r->cells = p;
        r->cap = cap;
    }
    struct limit_cell *c = &r->cells[r->n++];
    *c = (struct limit_cell){ 0 };
    memcpy(c->cell, name, strlen(name) + 1);
    return c;
}

static void add_row(struct limit_cell *c, const float *got, const float *expected, int64_t n) {
    struct op_error s = OP_ERROR_NONE;
    double sq = 0;
    op_error_add(&s, 0, got, expected, n);
    for (int64_t i = 0; i < n; i++)
        sq += (double)expected[i] * expected[i];
    double rms = sqrt(sq / (double)n);
    for (int64_t i = 0; i < n; i++) {
        double rel = fabs((double)got[i] - expected[i]) / rms;
        c->n++;
        if (!(rel > 0)) {
            c->n_zero++;
            continue;
        }
        int bin = (int)floor((log2(rel) - EXPONENT_MIN) * LIMIT_STEPS);
        c->bin[bin < 0 ? 0 : bin >= LIMIT_BINS ? LIMIT_BINS - 1 : bin]++;
    }
    c->max_rel = fmax(c->max_rel, s.max_rel);
    c->row_nmse = fmax(c->row_nmse, s.row_nmse);
    c->n_bad += s.bad_row >= 0;
}

static int on_judged(void *arg, const struct op_report *r, int arm, const float *got,
                     const float *expected, int64_t n, int64_t n_cols, struct err *e) {
    struct limit_cell *c = cell_of(arg, arm == WRONG_A ? r->cell_a : r->cell_b, e);
    if (!c) return ERR_NOMEM;
    for (int64_t t = 0; t < n; t++)
        add_row(c, got + t * n_cols, expected + t * n_cols, n_cols);
    return 0;
}

int limit_run_add(struct limit_run *r, const char *model, enum column c, const char *type_kv,
                  const int32_t *tokens, int n_ctx, int n_threads, struct err *e) {
    int rc = 0;
    struct arm *a = NULL, *b = NULL;
    struct localise *l = NULL;
    struct arm_params p = { .model = model,
                            .backend = "ref",
                            .n_ctx = n_ctx,
                            .n_seq = 1,
                            .n_batch = n_ctx,
                            .n_ubatch = n_ctx,
                            .n_threads = n_threads,
                            .type_k = type_kv,
                            .type_v = type_kv };
    TRY(arm_open(&a, &p, e));
    p.backend = column_name(c);
    TRY(arm_open(&b, &p, e));
    struct localise_params lp = { .a = a,
                                  .b = b,
                                  .model_a = model,
                                  .token = tokens,
                                  .target = tokens + 1,
                                  .n_ctx = n_ctx,
                                  .first = 0,
                                  .end = n_ctx,
                                  .judge_seconds = ALL_ROWS,
                                  .n_threads = n_threads,
                                  .judged = on_judged,
                                  .arg = r };
    TRY(localise_run(&l, &lp, e));
out:
    localise_free(l);
    arm_close(a);
    arm_close(b);
    return rc;
}

double limit_quantile(const struct limit_cell *c, double p) {
    int64_t rank = (int64_t)ceil(p * (double)c->n), seen = c->n_zero;
    for (int i = 0; i < LIMIT_BINS && seen < rank; i++) {
        seen += c->bin[i];
        if (seen >= rank)
            return fmin(exp2(EXPONENT_MIN + (double)(i + 1) / LIMIT_STEPS), c->max_rel);
    }
    return 0;
}
