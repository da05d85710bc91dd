/* SPDX-License-Identifier: MIT
 * judge_rows.c - each node's rows against what ref makes of the same inputs; see localise_impl.h.
 *
 * A product's activations are rounded through the type that the arm's cell wants before ref
 * multiplies, so the error is the kernel's alone. When both arms share weights and rounding, one
 * evaluation serves both. Of another engine nobody knows the rounding: foreign.h says what is done.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "measure/foreign.h"
#include "measure/localise_impl.h"

#define ROWS_MIN 4        /* judged of every node, whatever they cost */
#define CHEAP_SHARE 0.002 /* of the budget: a node that takes less is judged in all rows */

enum qtype loc_act(const struct side *s, int i) {
    const struct node *n = s->judge->nodes[i].n;
    if (s->column == COL_none) return s->act[i];
    if (n->op != OP_mul_mat) return QT_f32;
    const struct qkernel *k = node_qkernel(s->column, n, NULL);
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
    const struct captured *c = loc_shown(l, i);
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

/* Some of its rows are here. */
static bool has_rows(const struct captured *c) {
    return c->data && c->n_seen > c->r0;
}

const struct captured *loc_shown(const struct loc *l, int i) {
    return has_rows(&l->a.cap[i]) ? &l->a.cap[i] : &l->b.cap[i];
}

/* The rows of node k that side s went on with; NULL: it has not shown them. */
static const struct captured *went_on_with(const struct loc *l, const struct side *s, int k) {
    const struct captured *a = &l->a.cap[k], *own = &s->cap[k];
    if (!has_rows(own)) return NULL;
    return has_rows(a) && a->type == own->type ? a : own;
}

static void take_sources(const struct loc *l, const struct side *s, int i, struct judge_rows *of) {
    for (int k = 0; k < OP_MAX_SRC; k++) {
        if (s->judge->nodes[i].src[k].from != FROM_NODE) continue;
        int from = s->judge->nodes[i].src[k].node;
        const struct captured *c = went_on_with(l, s, from);
        if (c && !of[from].data)
            of[from] =
                (struct judge_rows){ c->type, c->row_bytes, c->r0, c->n_seen - c->r0, c->data };
    }
}

/* Inputs of node i that side s has not shown, as ref makes them from those that it has: another
 * engine may compute several of our nodes as one. The rows are in the places of the whole window.
 * owned[k] is released by the caller. */
static int make_sources(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n,
                        struct judge_rows *of, void **owned, struct err *e);

static int make_node(struct loc *l, struct side *s, int k, const int32_t *row, int64_t n,
                     struct judge_rows *of, void **owned, struct err *e) {
    int rc = 0;
    struct op_case c = { 0 };
    const struct judge_batch batch = { l->p->token, l->p->n_ctx };
    const struct node *node = s->judge->nodes[k].n;
    const size_t row_bytes = node->dst->row_bytes;
    char *out = heap_alloc((size_t)n * row_bytes, e);
    owned[k] = heap_calloc((size_t)l->n_tok, row_bytes, e);
    if (!out || !owned[k]) {
        rc = ERR_NOMEM;
        goto out;
    }
    TRY(make_sources(l, s, k, row, n, of, owned, e));
    TRY(judge_case(s->judge, k, of, &batch, row, n, &c, e));
    TRY(judge_eval(s->judge, &c, loc_act(s, k), out, e));
    for (int64_t t = 0; t < n; t++)
        memcpy((char *)owned[k] + (size_t)row[t] * row_bytes, out + (size_t)t * row_bytes,
               row_bytes);
    of[k] = (struct judge_rows){ (enum qtype)node->dst->type, row_bytes, 0, l->n_tok, owned[k] };
out:
    op_case_release(&c);
    heap_free(out);
    return rc;
}

static int make_sources(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n,
                        struct judge_rows *of, void **owned, struct err *e) {
    int rc = 0;
    int32_t *all = NULL;
    take_sources(l, s, i, of);
    /* From the last source on: caches come first, which need every row up to the last one. */
    for (int k = OP_MAX_SRC - 1; k >= 0; k--) {
        if (s->judge->nodes[i].src[k].from != FROM_NODE) continue;
        int from = s->judge->nodes[i].src[k].node;
        if (of[from].data) continue;
        bool cache = s->judge->nodes[i].n->op == OP_attn && (k == 1 || k == 2);
        if (!cache) {
            TRY(make_node(l, s, from, row, n, of, owned, e));
            continue;
        }
        int64_t n_all = row[n - 1] + 1; /* rows ascend */
        if (!all) {
            all = heap_alloc((size_t)n_all * sizeof *all, e);
            if (!all) return ERR_NOMEM;
            for (int64_t r = 0; r < n_all; r++)
                all[r] = (int32_t)r;
        }
        TRY(make_node(l, s, from, all, n_all, of, owned, e));
    }
out:
    heap_free(all);
    return rc;
}

int loc_case(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n, struct op_case *c,
             struct err *e) {
    int rc = 0;
    const struct judge_batch batch = { l->p->token, l->p->n_ctx };
    struct judge_rows *of = heap_calloc((size_t)l->n_nodes, sizeof *of, e);
    void **owned = heap_calloc((size_t)l->n_nodes, sizeof *owned, e);
    *c = (struct op_case){ 0 };
    if (!of || !owned) {
        rc = ERR_NOMEM;
        goto out;
    }
    TRY(make_sources(l, s, i, row, n, of, owned, e));
    TRY(judge_case(s->judge, i, of, &batch, row, n, c, e));
out:
    for (int k = 0; owned && k < l->n_nodes; k++)
        heap_free(owned[k]);
    heap_free(owned);
    heap_free(of);
    return rc;
}

int loc_expected(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n,
                 struct op_case *c, float *ref, float *got, struct err *e) {
    int rc = 0;
    char *out = NULL;
    const struct captured *own = &s->cap[i];
    TRY(loc_case(l, s, i, row, n, c, e));
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
    heap_free(out);
    if (rc < 0) op_case_release(c);
    return rc;
}

/* ---- judging -------------------------------------------------------------------------------- */

/* True if what is right for A's node i is, to the bit, right for B's too. */
static bool same_truth(const struct loc *l, int i) {
    const struct judge_node *n = &l->a.judge->nodes[i];
    if (l->a.judge != l->b.judge || loc_act(&l->a, i) != loc_act(&l->b, i) ||
        l->a.column == COL_none || l->b.column == COL_none)
        return false;
    if (!loc_captured(l, i)) return false;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (n->src[k].from == FROM_NODE &&
            went_on_with(l, &l->a, n->src[k].node) != went_on_with(l, &l->b, n->src[k].node))
            return false;
    return true;
}

/* What one side's rows of a node are judged with. */
struct judged {
    struct loc *l;
    int i;
    const int32_t *row; /* [n] */
    int64_t n, n_cols;
    float *ref, *got; /* [n, n_cols] */
};

static struct op_error *error_of(const struct judged *j, const struct side *s) {
    struct op_report *r = &j->l->out->nodes[j->i];
    return s->flag == WRONG_A ? &r->err_a : &r->err_b;
}

static int add_rows(const struct judged *j, const struct side *s, const float *ref, struct err *e) {
    const struct localise_params *p = j->l->p;
    struct op_error *err = error_of(j, s);
    for (int64_t t = 0; t < j->n; t++)
        op_error_add(err, j->row[t], j->got + t * j->n_cols, ref + t * j->n_cols, j->n_cols);
    return p->judged ? p->judged(p->arg, &j->l->out->nodes[j->i], s->flag, j->got, ref, j->n,
                                 j->n_cols, e)
                     : 0;
}

/* B's rows beside what was expected of A. */
static int judge_like_a(const struct judged *j, struct err *e) {
    const struct captured *own = &j->l->b.cap[j->i];
    for (int64_t t = 0; t < j->n; t++) {
        const char *mine = (const char *)own->data + (size_t)(j->row[t] - own->r0) * own->row_bytes;
        op_rows_f32(OP_count, own->type, mine, own->type, mine, j->n_cols, j->got + t * j->n_cols,
                    j->l->x);
    }
    return add_rows(j, &j->l->b, j->ref, e);
}

static int judge_own(struct judged *j, struct side *s, struct err *e) {
    struct op_case c;
    int rc = loc_expected(j->l, s, j->i, j->row, j->n, &c, j->ref, j->got, e);
    if (rc < 0) return rc;
    op_case_release(&c);
    return add_rows(j, s, j->ref, e);
}

/* All nodes that ref may have to make for node i round as it does. */
static void set_act(struct side *s, int i, enum qtype act) {
    s->act[i] = s->judge->nodes[i].n->op == OP_mul_mat ? act : QT_f32;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (s->judge->nodes[i].src[k].from == FROM_NODE &&
            !has_rows(&s->cap[s->judge->nodes[i].src[k].node]))
            set_act(s, s->judge->nodes[i].src[k].node, act);
}

/* Can these products be rounded in blocks of this type? */
static bool fits(const struct side *s, int i, enum qtype act) {
    const struct judge_node *n = &s->judge->nodes[i];
    if (n->n->op == OP_mul_mat && n->n->src[0]->ne[0] % qtype_info(act)->n_blk) return false;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (n->src[k].from == FROM_NODE && !has_rows(&s->cap[n->src[k].node]) &&
            !fits(s, n->src[k].node, act))
            return false;
    return true;
}

/* The weights that node i multiplies by, itself or in a hidden node in front of it; QT_none: none.
 */
static enum qtype weight_type(const struct side *s, int i) {
    const struct judge_node *n = &s->judge->nodes[i];
    if (n->n->op == OP_mul_mat) return (enum qtype)n->n->src[0]->type;
    for (int k = 0; k < OP_MAX_SRC; k++) {
        enum qtype found = QT_none;
        if (n->src[k].from == FROM_NODE && !has_rows(&s->cap[n->src[k].node]))
            found = weight_type(s, n->src[k].node);
        if (found != QT_none) return found;
    }
    return QT_none;
}

/* Node i is attention, or what is behind a hidden one. */
static bool has_attention(const struct side *s, int i) {
    const struct judge_node *n = &s->judge->nodes[i];
    bool found = n->n->op == OP_attn;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (n->src[k].from == FROM_NODE && !has_rows(&s->cap[n->src[k].node]))
            found |= has_attention(s, n->src[k].node);
    return found;
}

/* Another engine: of all ways to round activations the one that is nearest counts (foreign.h). Most
 * nodes round as the one before. */
static int choose_act(struct judged *j, struct side *s, struct err *e) {
    int rc = 0;
    double best = (double)INFINITY;
    enum qtype chosen = s->last_act;
    if (weight_type(s, j->i) == QT_none) {
        set_act(s, j->i, QT_f32);
        return 0;
    }
    for (int k = -1; k < 0 || foreign_act(k) != QT_none; k++) {
        struct op_case c;
        struct op_error err = OP_ERROR_NONE;
        enum qtype act = k < 0 ? s->last_act : foreign_act(k);
        if (!fits(s, j->i, act)) continue;
        set_act(s, j->i, act);
        TRY(loc_expected(j->l, s, j->i, j->row, j->n, &c, j->ref, j->got, e));
        op_case_release(&c);
        for (int64_t t = 0; t < j->n; t++)
            op_error_add(&err, j->row[t], j->got + t * j->n_cols, j->ref + t * j->n_cols,
                         j->n_cols);
        if (err.row_nmse < best) {
            best = err.row_nmse;
            chosen = act;
        }
        const struct op_limit usual = limit_of("?");
        if (!op_error_over(&err, &usual)) break;
    }
    s->last_act = chosen;
    set_act(s, j->i, chosen);
out:
    return rc;
}

/* Over the limit, but no further than is known of this engine: said, and no fault. */
static bool is_wrong(struct loc *l, const struct side *s, int i) {
    struct op_report *r = &l->out->nodes[i];
    bool a = s->flag == WRONG_A;
    struct op_limit *limit = a ? &r->limit_a : &r->limit_b, known;
    const struct op_limit usual = limit_of(a ? r->cell_a : r->cell_b);
    const struct op_error *err = a ? &r->err_a : &r->err_b;
    const char **why = a ? &r->known_a : &r->known_b;
    if (!op_error_over(err, &usual)) return false;
    if (s->column != COL_none) return true;
    *why = foreign_known(s->arm->info.backend, has_attention(s, i), r->op != OP_mul_mat,
                         weight_type(s, i), &known);
    if (*why && !op_error_over(err, &known) && foreign_only_rounds(err)) {
        *limit = known;
        return false;
    }
    *limit = usual;
    *why = NULL;
    return true;
}

static int judge_node(struct loc *l, int i, int64_t n_max, struct err *e) {
    int rc = 0;
    struct op_report *r = &l->out->nodes[i];
    struct judged j = { .l = l, .i = i, .n_cols = r->n_cols };
    int32_t *row = heap_alloc((size_t)l->n_tok * sizeof *row, e);
    j.ref = heap_alloc(2 * (size_t)(n_max * r->n_cols) * sizeof *j.ref, e);
    if (!row || !j.ref) {
        rc = ERR_NOMEM;
        goto out;
    }
    j.got = j.ref + n_max * r->n_cols;
    j.row = row;
    j.n = loc_pick_rows(l, i, n_max, row);
    for (int b = 0; b < 2; b++) {
        struct side *s = b ? &l->b : &l->a;
        if (!has_rows(&s->cap[i])) continue;
        if (s->column == COL_none) TRY(choose_act(&j, s, e));
        /* An index in an lse row was folded into A's comparison, so B needs its own. */
        if (b && same_truth(l, i) && r->op != OP_lse)
            TRY(judge_like_a(&j, e));
        else
            TRY(judge_own(&j, s, e));
        if (is_wrong(l, s, i)) r->wrong |= s->flag;
    }
    r->n_judged += j.n;
out:
    heap_free(row);
    heap_free(j.ref);
    return rc;
}

bool loc_captured(const struct loc *l, int i) {
    return has_rows(&l->a.cap[i]) && has_rows(&l->b.cap[i]);
}

static bool judgeable(const struct loc *l, int i, bool head) {
    return l->report[i] && l->a.judge->nodes[i].head == head && has_rows(loc_shown(l, i));
}

int loc_judge(struct loc *l, bool head, double budget, struct err *e) {
    int rc = 0;
    double total = 0;
    for (int i = 0; i < l->n_nodes; i++)
        if (judgeable(l, i, head))
            total += judge_row_cost(l->a.judge, i, l->p->n_ctx / 2) * (same_truth(l, i) ? 1 : 2) *
                     (double)(loc_shown(l, i)->n_seen - loc_shown(l, i)->r0);
    double share = total > budget ? budget / total : 1;
    for (int i = 0; i < l->n_nodes; i++) {
        if (!judgeable(l, i, head)) continue;
        int64_t n = loc_shown(l, i)->n_seen - loc_shown(l, i)->r0;
        double cheap = CHEAP_SHARE * budget / judge_row_cost(l->a.judge, i, l->p->n_ctx / 2);
        int64_t n_max = (int64_t)ceil(fmin(fmax(share * (double)n, cheap), (double)n));
        if (n_max < ROWS_MIN) n_max = n < ROWS_MIN ? n : ROWS_MIN;
        TRY(judge_node(l, i, n_max, e));
    }
out:
    return rc;
}
