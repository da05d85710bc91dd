/* SPDX-License-Identifier: MIT
 * act_like.c - ref fed the same quantised activations as another column.
 *
 * Letting ref round its own activations would not do: a difference of 1e-7 in an activation flips a
 * rounding here and there, flips beget flips, and after a few layers the two columns carry
 * independent rounding noise, hundreds of times larger than any error of a kernel. So both run in
 * lockstep, and every product of ref gets x + (Q(x') - x'): its own activation plus the rounding
 * error that the other column made at that place. A right kernel then agrees to float precision; a
 * wrong one does not, because its x' drifts away from x and nothing pulls it back. */
#include <stdio.h>
#include <string.h>

#include "arm/arm.h"
#include "backend.h"
#include "base/arena.h"
#include "exec/observer.h"

#define MAX_SOURCES 4096 /* tensors that are multiplied, of one graph */

/* Rounding errors of one tensor that goes into products, rows of all its products so far. */
struct rounding {
    char name[TENSOR_NAME_MAX];
    enum qtype act;
    float *error; /* [n] */
    int64_t n, cap;
    bool added; /* ref has got them */
};

struct act_like {
    struct arm arm;
    struct arm *lead, *ref;
    enum column column;
    struct observer see_lead, force_ref;
    struct rounding *all; /* [MAX_SOURCES] */
    int n_used;           /* of this micro-batch; the others keep their buffers */
};

static struct act_like *self(struct arm *a) {
    return (struct act_like *)a;
}

/* Tensors that go into products have names that do not repeat (norms, kqv_out, kqv_wanted,
 * ffn_swiglu); add_errors makes sure of it. */
static struct rounding *find(struct act_like *s, const char *name) {
    for (int i = 0; i < s->n_used; i++)
        if (!strcmp(s->all[i].name, name)) return &s->all[i];
    return NULL;
}

/* ---- the lead: note what each product's source loses by rounding ------------------------------
 */

static bool want_products(void *arg, const struct node *n) {
    (void)arg;
    return n->op == OP_mul_mat;
}

static int64_t n_elements(const struct tensor *t) {
    return t->ne[0] * tensor_rows(t);
}

static int reserve(struct rounding *r, int64_t n, struct err *e) {
    if (n <= r->cap) return 0;
    float *p = heap_realloc(r->error, (size_t)n * sizeof *p, e);
    if (!p) return ERR_NOMEM;
    r->error = p;
    r->cap = n;
    return 0;
}

/* error = Q(x) - x, row by row. */
static int append_errors(struct rounding *r, const struct tensor *x, struct err *e) {
    int rc = 0;
    const struct qkernel *k = qkernel_find(COL_ref, r->act, false, NULL);
    size_t row_bytes = qtype_row_bytes(r->act, x->ne[0]);
    void *row = heap_alloc(row_bytes, e);
    if (!row) return ERR_NOMEM;
    TRY(reserve(r, r->n + n_elements(x), e));
    for (int64_t t = 0; t < tensor_rows(x); t++) {
        const float *in = tensor_row(x, t);
        float *out = r->error + r->n;
        k->quantize_row(in, row, x->ne[0], NULL);
        k->dequant_row(row, out, x->ne[0]);
        for (int64_t i = 0; i < x->ne[0]; i++)
            out[i] -= in[i];
        r->n += x->ne[0];
    }
out:
    heap_free(row);
    return rc;
}

/* A source may go into several products, but only result_norm comes in slices of rows. */
static int see_product(void *arg, const struct node *n, void *data, struct err *e) {
    int rc = 0;
    (void)data;
    struct act_like *s = arg;
    const struct tensor *x = n->src[1];
    const struct qkernel *k = node_qkernel(s->column, n, NULL);
    enum qtype act = k ? k->act : QT_f32;
    struct rounding *r = find(s, x->name);
    bool slice = !strcmp(x->name, "result_norm");
    if (r && !slice) {
        FAIL_IF(r->act != act, e, ERR_UNSUPPORTED,
                "%s: its products want activations of two types, %s and %s", x->name,
                qtype_info(r->act)->name, qtype_info(act)->name);
        return 0;
    }
    if (!r) {
        FAIL_IF(s->n_used == MAX_SOURCES, e, ERR_UNSUPPORTED, "more than %d products", MAX_SOURCES);
        r = &s->all[s->n_used++];
        snprintf(r->name, sizeof r->name, "%s", x->name);
        r->n = 0;
        r->act = act;
        r->added = false;
    }
    if (act != QT_f32) TRY(append_errors(r, x, e));
out:
    return rc;
}

/* ---- ref: add them ----------------------------------------------------------------------------
 */

static bool want_sources(void *arg, const struct node *n) {
    struct rounding *r = find(arg, n->dst->name);
    return r && r->n > 0;
}

static int add_errors(void *arg, const struct node *n, void *data, struct err *e) {
    int rc = 0;
    struct rounding *r = find(arg, n->dst->name);
    float *x = data;
    FAIL_IF(r->n != n_elements(n->dst), e, ERR_MISMATCH,
            "%s has %lld elements in one column and %lld in the other", r->name, (long long)r->n,
            (long long)n_elements(n->dst));
    FAIL_IF(r->added, e, ERR_MISMATCH, "%s: two tensors of one graph have this name", r->name);
    r->added = true;
    for (int64_t i = 0; i < r->n; i++)
        x[i] += r->error[i];
out:
    return rc;
}

/* ---- the arm ----------------------------------------------------------------------------------
 */

static int ignore_answer(void *arg, const struct arm_answer *a, struct err *e) {
    (void)arg, (void)a, (void)e;
    return 0;
}

struct shifted {
    arm_answer_fn fn;
    void *arg;
    int i0;
};

static int shift_answer(void *arg, const struct arm_answer *a, struct err *e) {
    struct shifted *s = arg;
    struct arm_answer b = *a;
    b.i += s->i0;
    return s->fn(s->arg, &b, e);
}

static struct arm_batch piece(const struct arm_batch *b, int i0, int step) {
    int n = b->n - i0 < step ? b->n - i0 : step;
    return (struct arm_batch){
        n, b->token + i0, b->pos + i0, b->seq + i0, b->want ? b->want + i0 : NULL, b->uniform
    };
}

/* One micro-batch at a time, so that what the lead saw is what ref gets. */
static int decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    int rc = 0;
    struct act_like *s = self(a);
    int step = a->info.n_ubatch;
    for (int i0 = 0; i0 < b->n; i0 += step) {
        struct arm_batch part = piece(b, i0, step);
        struct shifted shifted = { fn, arg, i0 };
        s->n_used = 0;
        TRY(arm_decode(s->lead, &part, ignore_answer, NULL, e));
        TRY(arm_decode(s->ref, &part, fn ? shift_answer : NULL, &shifted, e));
    }
out:
    return rc;
}

/* The lead computes logits too: its output matrix rounds the rows that ref holds. */
static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0;
    struct act_like *s = self(a);
    int step = a->info.n_ubatch;
    for (int i0 = 0; i0 < b->n; i0 += step) {
        struct arm_batch part = piece(b, i0, step);
        s->n_used = 0;
        TRY(arm_decode(s->lead, &part, ignore_answer, NULL, e));
        TRY(arm_hold(s->ref, &part, append || i0 > 0, e));
    }
out:
    return rc;
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    return arm_rows(self(a)->ref, r0, n, target, logits, fn, arg, e);
}

static int kv_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    int rc = arm_kv_trim(self(a)->lead, seq, pos, e);
    return rc < 0 ? rc : arm_kv_trim(self(a)->ref, seq, pos, e);
}

static int observe(struct arm *a, struct observer *o, struct err *e) {
    (void)a;
    return o ? ERR(e, ERR_UNSUPPORTED, "an arm with --act-like cannot be observed") : 0;
}

static int describe(const struct arm *a, struct row *r, struct err *e) {
    const struct act_like *s = (const struct act_like *)a;
    return arm_describe(s->ref, r, e);
}

static void release(struct arm *a) {
    struct act_like *s = self(a);
    arm_close(s->lead);
    arm_close(s->ref);
    for (int i = 0; s->all && i < MAX_SOURCES; i++)
        heap_free(s->all[i].error);
    heap_free(s->all);
    heap_free(s);
}

static const struct arm_ops act_like_ops = {
    .release = release,
    .decode = decode,
    .hold = hold,
    .rows = rows,
    .kv_trim = kv_trim,
    .observe = observe,
    .describe = describe,
};

int arm_open_act_like(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct act_like *s = heap_calloc(1, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    s->arm.ops = &act_like_ops;
    FAIL_IF(!p->backend || strcmp(p->backend, "ref"), e, ERR_ARG,
            "--act-like goes with --backend ref");
    s->column = column_from_name(p->act_like);
    FAIL_IF(s->column == COL_none, e, ERR_ARG, "'%s' is not a column", p->act_like);
    s->all = heap_calloc(MAX_SOURCES, sizeof *s->all, e);
    if (!s->all) {
        rc = ERR_NOMEM;
        goto out;
    }
    struct arm_params lead = *p, ref = *p;
    lead.backend = p->act_like;
    lead.act_like = ref.act_like = NULL;
    ref.weights_as = p->act_like;
    TRY(arm_open_builtin(&s->lead, &lead, e));
    TRY(arm_open_builtin(&s->ref, &ref, e));
    s->see_lead = (struct observer){ .arg = s, .want = want_products, .see = see_product };
    s->force_ref = (struct observer){ .arg = s, .want = want_sources, .see = add_errors };
    TRY(arm_observe(s->lead, &s->see_lead, e));
    TRY(arm_observe(s->ref, &s->force_ref, e));
    s->arm.info = s->ref->info;
    s->arm.tok = s->ref->tok;
    *out = &s->arm;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}
