/* SPDX-License-Identifier: MIT
 * judge_rows.c - each node's rows against what ref makes of the same inputs; see localise_impl.h.
 *
 * A product's activations are rounded through the type that the arm's cell wants before ref
 * multiplies, so the error is the kernel's alone. When both arms share weights and rounding, one
 * evaluation serves both. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "measure/localise_impl.h"

#define ROWS_MIN 4        /* judged of every node, whatever they cost */
#define CHEAP_SHARE 0.002 /* of the budget: a node that takes less is judged in all rows */

enum qtype loc_act(const struct side *s, int i) {
    const struct node *n = s->judge->nodes[i].n;
    if (n->op != OP_mul_mat || s->column == COL_none) return QT_f32;
    const struct qkernel *k =
        qkernel_for(s->column, (enum qtype)n->src[0]->type, node_tokens(n), NULL);
    return k ? k->act : QT_f32;
}

/* ---- which rows ----------------------------------------------------------------------------- */

struct ranked {
    float err;
    int32_t row;
};

static int worse_first(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->err != y->err) return x->err < y->err ? 1 : -1;
    return x->row - y->row;
}

static int ascending(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

int64_t loc_pick_rows(const struct loc *l, int i, int64_t n_max, int32_t *row) {
    const struct captured *c = &l->a.cap[i];
    int64_t r0 = c->r0, n = c->n_seen - c->r0, n_rows = 0;
    if (n_max > n) n_max = n;
    if (n_max == n) {
        for (int64_t r = 0; r < n; r++)
            row[r] = (int32_t)(r0 + r);
        return n;
    }
    struct ranked *all = heap_alloc((size_t)n * sizeof *all, NULL);
    if (!all) { /* any rows are better than none */
        for (int64_t r = 0; r < n_max; r++)
            row[r] = (int32_t)(r0 + r);
        return n_max;
    }
    const float *err = l->row_err + (size_t)i * (size_t)l->n_tok;
    for (int64_t r = 0; r < n; r++)
        all[r] = (struct ranked){ isnan(err[r0 + r]) ? INFINITY : err[r0 + r], (int32_t)(r0 + r) };
    qsort(all, (size_t)n, sizeof *all, worse_first);
    int64_t n_worst = (n_max + 1) / 2;
    for (int64_t k = 0; k < n_worst; k++)
        row[n_rows++] = all[k].row;
    for (int64_t k = 0; k < n_max - n_worst; k++) /* spread; the first and the last among them */
        row[n_rows++] =
            (int32_t)(r0 + (n - 1) * k / (n_max - n_worst > 1 ? n_max - n_worst - 1 : 1));
    heap_free(all);
    qsort(row, (size_t)n_rows, sizeof *row, ascending);
    int64_t kept = 0;
    for (int64_t k = 0; k < n_rows; k++)
        if (kept == 0 || row[k] != row[kept - 1]) row[kept++] = row[k];
    return kept;
}

/* ---- expected rows -------------------------------------------------------------------------- */

void loc_sources(const struct loc *l, const struct side *s, int i, struct judge_rows *of) {
    for (int k = 0; k < OP_MAX_SRC; k++) {
        if (l->a.judge->nodes[i].src[k].from != FROM_NODE) continue;
        int from = l->a.judge->nodes[i].src[k].node;
        const struct captured *c = &l->a.cap[from];
        if (s == &l->b && l->b.cap[from].data && l->b.cap[from].type != c->type)
            c = &l->b.cap[from];
        of[from] = (struct judge_rows){ c->type, c->row_bytes, c->r0, c->n_seen - c->r0, c->data };
    }
}

int loc_expected(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n,
                 struct op_case *c, float *ref, float *got, struct err *e) {
    int rc = 0;
    char *out = NULL;
    const struct captured *own = &s->cap[i];
    const struct judge_batch batch = { l->p->token, l->p->n_ctx };
    struct judge_rows *of = heap_calloc((size_t)l->n_nodes, sizeof *of, e);
    *c = (struct op_case){ 0 };
    if (!of) return ERR_NOMEM;
    loc_sources(l, s, i, of);
    TRY(judge_case(s->judge, i, of, &batch, row, n, c, e));
    size_t row_bytes = qtype_row_bytes(c->dst_type, c->n_cols);
    out = heap_alloc(row_bytes * (size_t)n, e);
    if (!out) rc = ERR_NOMEM;
    TRY(rc);
    TRY(judge_eval(s->judge, c, loc_act(s, i), out, e));
    for (int64_t t = 0; t < n; t++) {
        const char *mine = (const char *)own->data + (size_t)(row[t] - own->r0) * own->row_bytes;
        op_rows_f32(c->op, own->type, mine, c->dst_type, out + (size_t)t * row_bytes, c->n_cols,
                    got + t * c->n_cols, ref + t * c->n_cols);
    }
out:
    heap_free(of);
    heap_free(out);
    if (rc < 0) op_case_release(c);
    return rc;
}

/* ---- judging -------------------------------------------------------------------------------- */

/* True if what is right for A's node i is, to the bit, right for B's too. */
static bool same_truth(const struct loc *l, int i) {
    const struct judge_node *n = &l->a.judge->nodes[i];
    if (l->a.judge != l->b.judge || loc_act(&l->a, i) != loc_act(&l->b, i)) return false;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (n->src[k].from == FROM_NODE &&
            l->a.cap[n->src[k].node].type != l->b.cap[n->src[k].node].type)
            return false;
    return true;
}

static int compare_rows(const struct loc *l, int i, int arm, const struct op_case *c,
                        const int32_t *row, const float *got, const float *ref, struct err *e) {
    struct op_report *r = &l->out->nodes[i];
    struct op_error *s = arm == WRONG_A ? &r->err_a : &r->err_b;
    for (int64_t t = 0; t < c->n_tok; t++)
        op_error_add(s, row[t], got + t * c->n_cols, ref + t * c->n_cols, c->n_cols);
    return l->p->judged ? l->p->judged(l->p->arg, r, arm, got, ref, c->n_tok, c->n_cols, e) : 0;
}

static void rows_of_b(const struct loc *l, int i, const int32_t *row, const struct op_case *c,
                      const float *ref, float *got, float *ref_b) {
    const struct captured *own = &l->b.cap[i];
    for (int64_t t = 0; t < c->n_tok; t++) {
        const char *mine = (const char *)own->data + (size_t)(row[t] - own->r0) * own->row_bytes;
        op_rows_f32(OP_count, own->type, mine, QT_f32, ref + t * c->n_cols, c->n_cols,
                    got + t * c->n_cols, ref_b + t * c->n_cols);
    }
}

static int judge_node(struct loc *l, int i, int64_t n_max, struct err *e) {
    int rc = 0;
    struct op_report *r = &l->out->nodes[i];
    struct op_case c = { 0 };
    size_t n_cols = (size_t)r->n_cols;
    int32_t *row = heap_alloc((size_t)l->n_tok * sizeof *row, e);
    float *ref = heap_alloc(3 * (size_t)n_max * n_cols * sizeof *ref, e);
    if (!row || !ref) {
        rc = ERR_NOMEM;
        goto out;
    }
    float *got = ref + (size_t)n_max * n_cols, *ref_b = got + (size_t)n_max * n_cols;
    int64_t n = loc_pick_rows(l, i, n_max, row);
    TRY(loc_expected(l, &l->a, i, row, n, &c, ref, got, e));
    TRY(compare_rows(l, i, WRONG_A, &c, row, got, ref, e));
    /* An index in an lse row was folded into A's comparison, so B needs its own. */
    if (same_truth(l, i) && r->op != OP_lse) {
        rows_of_b(l, i, row, &c, ref, got, ref_b);
    } else {
        op_case_release(&c);
        TRY(loc_expected(l, &l->b, i, row, n, &c, ref_b, got, e));
    }
    TRY(compare_rows(l, i, WRONG_B, &c, row, got, ref_b, e));
    r->n_judged += n;
    r->wrong = (op_error_over(&r->err_a, &r->limit_a) ? WRONG_A : 0) |
               (op_error_over(&r->err_b, &r->limit_b) ? WRONG_B : 0);
out:
    op_case_release(&c);
    heap_free(row);
    heap_free(ref);
    return rc;
}

bool loc_captured(const struct loc *l, int i) {
    const struct judge_node *n = &l->a.judge->nodes[i];
    bool ok = l->a.cap[i].data && l->b.cap[i].data;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (n->src[k].from == FROM_NODE)
            ok &= l->a.cap[n->src[k].node].data && l->b.cap[n->src[k].node].data;
    return ok;
}

/* Both arms have computed it, from inputs that both have shown: what an arm does not show is not
 * forced in B either, so that nobody knows what it went on with. */
static bool judgeable(const struct loc *l, int i, bool head) {
    const struct judge_node *n = &l->a.judge->nodes[i];
    return l->report[i] && n->head == head && loc_captured(l, i);
}

int loc_judge(struct loc *l, bool head, double budget, struct err *e) {
    int rc = 0;
    double total = 0;
    for (int i = 0; i < l->n_nodes; i++)
        if (judgeable(l, i, head))
            total += judge_row_cost(l->a.judge, i, l->p->n_ctx / 2) * (same_truth(l, i) ? 1 : 2) *
                     (double)(l->a.cap[i].n_seen - l->a.cap[i].r0);
    double share = total > budget ? budget / total : 1;
    for (int i = 0; i < l->n_nodes; i++) {
        if (!judgeable(l, i, head)) continue;
        int64_t n = l->a.cap[i].n_seen - l->a.cap[i].r0;
        double cheap = CHEAP_SHARE * budget / judge_row_cost(l->a.judge, i, l->p->n_ctx / 2);
        int64_t n_max = (int64_t)ceil(fmin(fmax(share * (double)n, cheap), (double)n));
        if (n_max < ROWS_MIN) n_max = n < ROWS_MIN ? n : ROWS_MIN;
        TRY(judge_node(l, i, n_max, e));
    }
out:
    return rc;
}
