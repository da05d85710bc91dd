/* SPDX-License-Identifier: MIT
 * localise.c - the passes: layers, then nodes on equal inputs, then the judge; see localise.h. */
#include "measure/localise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/timer.h"
#include "measure/capsule.h"
#include "measure/foreign.h"
#include "measure/localise_impl.h"
#include "stats/quantile.h"

#define MAX_BYTES ((size_t)512 << 20)
#define JUDGE_SECONDS 2.0
/* Multiplications that ref makes in a second and thread, with the decoding of weights; a rough
 * figure that only decides how many rows are judged. */
#define JUDGE_RATE 4e8
#define HEAD_SHARE 4 /* a slice of logits may take this part of the memory */

static const struct {
    const char *name, *meaning;
} findings[] = {
#define X(symbol, name, meaning) { name, meaning },
    FINDING_LIST(X)
#undef X
};

const char *finding_name(enum finding f) {
    return findings[f].name;
}

const char *finding_meaning(enum finding f) {
    return findings[f].meaning;
}

static void say(const struct loc *l, const char *what) {
    if (l->p->progress) l->p->progress(l->p->arg, what);
}

/* ---- setting up ----------------------------------------------------------------------------- */

static int check_params(const struct localise_params *p, struct err *e) {
    int rc = 0;
    const struct arm_info *a = &p->a->info, *b = &p->b->info;
    FAIL_IF(p->n_ctx < 1 || p->first < 0 || p->end > p->n_ctx || p->first >= p->end, e, ERR_ARG,
            "a window of %d tokens, scored in [%d, %d)", p->n_ctx, p->first, p->end);
    FAIL_IF(p->n_ctx > a->n_ctx || p->n_ctx > b->n_ctx, e, ERR_ARG,
            "a window of %d tokens does not fit in contexts of %d and %d", p->n_ctx, a->n_ctx,
            b->n_ctx);
    FAIL_IF(a->n_vocab != b->n_vocab, e, ERR_MISMATCH, "vocabularies of %d and %d tokens",
            a->n_vocab, b->n_vocab);
    int n_seq = p->n_seq > 0 ? p->n_seq : 1;
    FAIL_IF(n_seq > a->n_seq || n_seq > b->n_seq || (int64_t)n_seq * p->n_ctx > INT32_MAX, e,
            ERR_ARG, "%d windows do not fit in arms of %d and %d sequences", n_seq, a->n_seq,
            b->n_seq);
    for (int i = 0; i < n_seq * p->n_ctx; i++)
        FAIL_IF(p->token[i] < 0 || p->token[i] >= a->n_vocab || p->target[i] < 0 ||
                    p->target[i] >= a->n_vocab,
                e, ERR_ARG, "token %d of the window is outside of the vocabulary of %d", i,
                a->n_vocab);
out:
    return rc;
}

static int same_graph(const struct judge *a, const struct judge *b, struct err *e) {
    int rc = 0;
    FAIL_IF(a->n_nodes != b->n_nodes, e, ERR_MISMATCH,
            "the models' graphs differ: %d nodes in A's, %d in B's", a->n_nodes, b->n_nodes);
    for (int i = 0; i < a->n_nodes; i++) {
        const struct node *x = a->nodes[i].n, *y = b->nodes[i].n;
        FAIL_IF(x->op != y->op || x->occurrence != y->occurrence ||
                    strcmp(x->dst->name, y->dst->name) || x->dst->ne[0] != y->dst->ne[0],
                e, ERR_MISMATCH,
                "the models' graphs differ at node %d: %s %s of %lld in A's, %s %s of %lld in B's",
                i, op_name(x->op), x->dst->name, (long long)x->dst->ne[0], op_name(y->op),
                y->dst->name, (long long)y->dst->ne[0]);
    }
out:
    return rc;
}

static enum qtype cache_type(const char *name) {
    enum qtype t = qtype_from_name(name);
    return t == QT_none ? QT_f16 : t;
}

static int open_judges(struct loc *l, struct err *e) {
    int rc = 0;
    const struct arm_info *a = &l->a.arm->info, *b = &l->b.arm->info;
    enum qtype ak = cache_type(a->type_k), av = cache_type(a->type_v);
    enum qtype bk = cache_type(b->type_k), bv = cache_type(b->type_v);
    TRY(judge_open(&l->a.judge, l->a.model, ak, av, l->p->n_threads, e));
    if (!strcmp(l->a.model, l->b.model) && ak == bk && av == bv) {
        l->b.judge = l->a.judge;
    } else {
        TRY(judge_open(&l->b.judge, l->b.model, bk, bv, l->p->n_threads, e));
        TRY(same_graph(l->a.judge, l->b.judge, e));
    }
    l->n_nodes = l->a.judge->n_nodes;
    l->n_groups = (int)l->a.judge->m.hp.n_layer + 2;
out:
    return rc;
}

static int n_scored_of(const struct loc *l) {
    return l->n_tok / l->p->n_ctx * (l->p->end - l->p->first);
}

static int alloc_all(struct loc *l, struct err *e) {
    size_t n = (size_t)l->n_nodes, n_tok = (size_t)l->n_tok;
    size_t n_layer = (size_t)l->n_groups - 2, longest = 3;
    size_t n_scored = (size_t)n_scored_of(l);
    for (size_t i = 0; i < n; i++)
        if ((size_t)l->a.judge->nodes[i].n->dst->ne[0] > longest)
            longest = (size_t)l->a.judge->nodes[i].n->dst->ne[0];
    l->a.cap = heap_calloc(n, sizeof *l->a.cap, e);
    l->b.cap = heap_calloc(n, sizeof *l->b.cap, e);
    l->a.nll = heap_calloc(n_scored, sizeof *l->a.nll, e);
    l->b.nll = heap_calloc(n_scored, sizeof *l->b.nll, e);
    l->group = heap_calloc(n, sizeof *l->group, e);
    l->layer_out = heap_calloc(n_layer, sizeof *l->layer_out, e);
    l->want = heap_calloc(2 * n, sizeof *l->want, e);
    l->row_err = heap_calloc(n * n_tok, sizeof *l->row_err, e);
    l->x = heap_calloc(2 * longest, sizeof *l->x, e);
    l->pos = heap_calloc(3 * n_tok, sizeof *l->pos, e);
    l->all = heap_calloc(n_tok, sizeof *l->all, e);
    l->out->nodes = heap_calloc(n, sizeof *l->out->nodes, e);
    l->out->layer_own = heap_calloc(2 * n_layer, sizeof *l->out->layer_own, e);
    if (!l->a.cap || !l->b.cap || !l->a.nll || !l->b.nll || !l->group || !l->layer_out ||
        !l->want || !l->row_err || !l->x || !l->pos || !l->all || !l->out->nodes ||
        !l->out->layer_own)
        return ERR_NOMEM;
    l->a.act = heap_calloc(2 * n, sizeof *l->a.act, e);
    if (!l->a.act) return ERR_NOMEM;
    l->b.act = l->a.act + n;
    for (size_t i = 0; i < 2 * n; i++)
        l->a.act[i] = QT_f32;
    l->a.last_act = l->b.last_act = QT_f32;
    l->report = l->want + n;
    l->y = l->x + longest;
    l->seq = l->pos + n_tok;
    l->other = l->seq + n_tok;
    for (int i = 0; i < l->n_tok; i++) {
        l->seq[i] = i / l->p->n_ctx;
        l->pos[i] = i % l->p->n_ctx;
        l->other[i] = l->p->token[l->n_tok - 1 - i];
        l->all[i] = true;
    }
    l->out->n_nodes = (int)n;
    l->out->n_layer = (int)n_layer;
    l->out->layer_acc = l->out->layer_own + n_layer;
    return 0;
}

static void name_cell(const struct side *s, const struct node *n, char *buf, size_t n_bytes) {
    if (s->column == COL_none)
        foreign_cell_name(s->arm->info.backend, n, buf, n_bytes);
    else
        limit_cell_name(s->column, n, buf, n_bytes);
}

static void describe_node(struct loc *l, int i) {
    struct op_report *r = &l->out->nodes[i];
    const struct judge_node *jn = &l->a.judge->nodes[i];
    const struct node *n = jn->n;
    const struct op_error none = OP_ERROR_NONE;
    snprintf(r->name, sizeof r->name, "%s", n->dst->name);
    r->occurrence = n->occurrence;
    r->il = n->il;
    r->op = n->op;
    r->n_rows = l->n_tok;
    r->n_cols = n->dst->ne[0];
    for (int s = 0; s < OP_MAX_SRC; s++) {
        const struct tensor *t = n->src[s];
        if (!t) continue;
        enum judge_from from = jn->src[s].from;
        bool cache = from == FROM_NODE && l->a.judge->nodes[jn->src[s].node].n->op == OP_set_rows;
        snprintf(r->src[s].name, sizeof r->src[s].name, "%s", t->name);
        r->src[s].type = (enum qtype)t->type;
        r->src[s].weight = from == FROM_WEIGHT;
        r->src[s].ne[0] = t->ne[0];
        r->src[s].ne[1] = r->src[s].weight ? t->ne[1] : l->n_tok;
        if (from != FROM_WEIGHT && from != FROM_NODE) /* one number a token */
            r->src[s].ne[0] = l->n_tok, r->src[s].ne[1] = 1;
        if (cache) r->src[s].ne[1] = l->n_tok;
    }
    name_cell(&l->a, n, r->cell_a, sizeof r->cell_a);
    name_cell(&l->b, l->b.judge->nodes[i].n, r->cell_b, sizeof r->cell_b);
    r->limit_a = limit_of(r->cell_a);
    r->limit_b = limit_of(r->cell_b);
    r->own = r->acc = r->err_a = r->err_b = none;
    r->files = loc_files(l, i, NULL);
}

static void group_nodes(struct loc *l) {
    const struct op_error none = OP_ERROR_NONE;
    int n_layer = l->n_groups - 2;
    bool behind = false;
    for (int i = 0; i < l->n_nodes; i++) {
        const struct node *n = l->a.judge->nodes[i].n;
        behind |= n->il >= 0;
        l->group[i] = n->il >= 0 ? n->il + 1 : behind ? n_layer + 1 : 0;
        if (n->il >= 0) l->layer_out[n->il] = i; /* its last node is the residual stream */
        describe_node(l, i);
    }
    for (int il = 0; il < n_layer; il++)
        l->out->layer_own[il] = l->out->layer_acc[il] = none;
}

static size_t max_bytes(const struct loc *l) {
    return l->p->max_bytes ? l->p->max_bytes : MAX_BYTES;
}

/* Bytes that both arms' rows of group g take. */
static size_t group_bytes(const struct loc *l, int g) {
    size_t n = 0;
    for (int i = 0; i < l->n_nodes; i++) {
        const struct judge_node *jn = &l->a.judge->nodes[i];
        int64_t rows = jn->head ? l->head_step : l->n_tok;
        if (l->group[i] == g) n += 2 * jn->n->dst->row_bytes * (size_t)rows;
    }
    return n;
}

static int open_all(struct loc *l, struct err *e) {
    int rc = 0;
    TRY(open_judges(l, e));
    TRY(alloc_all(l, e));
    size_t row = (size_t)l->a.arm->info.n_vocab * sizeof(float);
    l->head_step = (int64_t)(max_bytes(l) / HEAD_SHARE / (2 * row));
    if (l->head_step < 1) l->head_step = 1;
    if (l->head_step > l->n_tok) l->head_step = l->n_tok;
    group_nodes(l);
out:
    return rc;
}

static void close_all(struct loc *l) {
    if (l->a.cap && l->b.cap) loc_release_captures(l);
    if (l->b.judge != l->a.judge) judge_close(l->b.judge);
    judge_close(l->a.judge);
    heap_free(l->a.cap);
    heap_free(l->b.cap);
    heap_free(l->a.act);
    heap_free(l->a.nll);
    heap_free(l->b.nll);
    heap_free(l->group);
    heap_free(l->layer_out);
    heap_free(l->want);
    heap_free(l->row_err);
    heap_free(l->x);
    heap_free(l->pos);
    heap_free(l->all);
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Where the errors of this run go, by node. */
static void point_errors(struct loc *l, struct op_error **to, bool acc) {
    for (int i = 0; i < l->n_nodes; i++) {
        struct op_report *r = &l->out->nodes[i];
        to[i] = acc ? &r->acc : l->report[i] ? &r->own : NULL;
    }
}

/* True if A's rows [r0, r0 + n) of the head are captured already. */
static bool has_head(const struct loc *l, int64_t r0, int64_t n) {
    const struct captured *c = &l->a.cap[l->n_nodes - 1];
    return c->data && c->r0 == r0 && c->n_seen == r0 + n;
}

/* Slices of the head of both arms, A's captured and B's compared; then the judge's turn if asked.
 */
static int run_heads(struct loc *l, enum see_mode mode, struct op_error *const *errors,
                     double budget, struct err *e) {
    int rc = 0;
    int64_t n_tok = l->n_tok;
    for (int64_t r0 = 0; r0 < n_tok; r0 += l->head_step) {
        int64_t n = n_tok - r0 < l->head_step ? n_tok - r0 : l->head_step;
        bool nll = mode == SEE_COMPARE;
        if (nll || !has_head(l, r0, n))
            TRY(loc_head(l, &l->a, SEE_CAPTURE, errors, r0, n, nll ? l->a.nll : NULL, e));
        TRY(loc_head(l, &l->b, mode, errors, r0, n, nll ? l->b.nll : NULL, e));
        if (mode == SEE_FORCE) TRY(loc_judge(l, true, budget * (double)n / (double)n_tok, e));
    }
out:
    return rc;
}

/* Both arms without any observer, for the nll that observation must not change. */
static int run_plain(struct loc *l, struct side *s, const double *known, double *nll,
                     struct err *e) {
    int rc = 0;
    int n = n_scored_of(l);
    if (known) {
        memcpy(nll, known, (size_t)n * sizeof *nll);
        return 0;
    }
    TRY(loc_feed(l, s, NULL, e));
    TRY(loc_ask(l, s, NULL, 0, l->n_tok, nll, e));
out:
    return rc;
}

static double largest_change(const double *x, const double *y, int n) {
    double max = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs(x[i] - y[i]);
        if (isnan(x[i]) && isnan(y[i])) d = 0;
        if (!(d <= max)) max = d; /* a NaN on one side stays */
    }
    return max;
}

static double mean_difference(const double *b, const double *a, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += b[i] - a[i];
    return sum / n;
}

/* B observed but not forced: accumulated errors, and whether the difference is still there. */
static int run_unforced(struct loc *l, struct op_error **errors, struct err *e) {
    int rc = 0;
    int n = n_scored_of(l);
    struct localise *r = l->out;
    double *nll = heap_calloc(2 * (size_t)n, sizeof *nll, e);
    if (!nll) return ERR_NOMEM;
    TRY(run_plain(l, &l->a, l->p->nll_a, nll, e));
    TRY(run_plain(l, &l->b, l->p->nll_b, nll + n, e));
    say(l, "capturing arm A");
    TRY(loc_scrub(l, &l->a, e));
    TRY(loc_body(l, &l->a, SEE_CAPTURE, errors, e));
    say(l, "comparing arm B, nothing forced");
    TRY(loc_body(l, &l->b, SEE_COMPARE, errors, e));
    TRY(run_heads(l, SEE_COMPARE, errors, 0, e));
    r->max_nll_change_a = largest_change(nll, l->a.nll, n);
    r->max_nll_change_b = largest_change(nll + n, l->b.nll, n);
    r->mean_d = mean_difference(nll + n, nll, n);
    r->mean_d_observed = mean_difference(l->b.nll, l->a.nll, n);
    for (int il = 0; il < r->n_layer; il++)
        r->layer_acc[il] = r->nodes[l->layer_out[il]].acc;
out:
    heap_free(nll);
    return rc;
}

/* Each layer of B on A's input. */
static int run_layers(struct loc *l, struct op_error **errors, struct err *e) {
    int rc = 0;
    memset(l->want, 0, 2 * (size_t)l->n_nodes * sizeof *l->want);
    memset(errors, 0, (size_t)l->n_nodes * sizeof(struct op_error *));
    for (int il = 0; il < l->out->n_layer; il++) {
        l->want[l->layer_out[il]] = true;
        errors[l->layer_out[il]] = &l->out->layer_own[il];
    }
    say(l, "comparing layers on equal inputs");
    TRY(loc_body(l, &l->b, SEE_FORCE, errors, e));
out:
    return rc;
}

/* ---- ranges of groups ----------------------------------------------------------------------- */

struct range {
    int g0, g1; /* [g0, g1] */
    double suspicion;
};

static void want_range(struct loc *l, const struct range *r) {
    memset(l->want, 0, 2 * (size_t)l->n_nodes * sizeof *l->want);
    for (int i = 0; i < l->n_nodes; i++) {
        if (l->group[i] < r->g0 || l->group[i] > r->g1) continue;
        l->want[i] = l->report[i] = true;
        for (int s = 0; s < OP_MAX_SRC; s++)
            if (l->a.judge->nodes[i].src[s].from == FROM_NODE)
                l->want[l->a.judge->nodes[i].src[s].node] = true;
    }
}

/* Own error of a layer against the median layer's; 0 = nothing strange about it. */
static void suspect(const struct loc *l, struct range *ranges, int n_ranges, double *sorted) {
    int n = l->out->n_layer;
    for (int il = 0; il < n; il++)
        sorted[il] = l->out->layer_own[il].nmse;
    double usual = median_f64(sorted, n);
    for (int k = 0; k < n_ranges; k++)
        for (int g = ranges[k].g0; g <= ranges[k].g1; g++) {
            if (g == 0 || g > n) continue;
            double own = l->out->layer_own[g - 1].nmse;
            if (!(own <= LAYER_SUSPICIOUS * usual) && !(own <= ranges[k].suspicion))
                ranges[k].suspicion = own;
        }
}

/* Neighbouring groups together as long as they fit in memory. */
static int cut_ranges(const struct loc *l, struct range *ranges) {
    int n = 0;
    size_t used = 0;
    for (int g = 0; g < l->n_groups; g++) {
        size_t bytes = group_bytes(l, g);
        if (n > 0 && used + bytes <= max_bytes(l)) {
            ranges[n - 1].g1 = g;
            used += bytes;
        } else {
            ranges[n++] = (struct range){ g, g, 0 };
            used = bytes;
        }
    }
    return n;
}

static bool range_has_bad(const struct loc *l) {
    for (int i = 0; i < l->n_nodes; i++)
        if (l->report[i] && (l->out->nodes[i].wrong || l->out->nodes[i].files == FINDING_WEIGHTS))
            return true;
    return false;
}

/* One range: nodes of B on A's inputs, and the judge. fresh: A's rows are not captured yet. */
static int run_range(struct loc *l, const struct range *r, bool fresh, struct op_error **errors,
                     struct err *e) {
    int rc = 0;
    double seconds = l->p->judge_seconds > 0 ? l->p->judge_seconds : JUDGE_SECONDS;
    double budget = seconds * JUDGE_RATE * l->a.judge->n_threads;
    bool head = r->g1 == l->n_groups - 1;
    if (fresh) loc_release_captures(l);
    want_range(l, r);
    point_errors(l, errors, false);
    if (fresh) {
        TRY(loc_scrub(l, &l->a, e));
        TRY(loc_body(l, &l->a, SEE_CAPTURE, errors, e));
    }
    say(l, "comparing nodes on equal inputs");
    TRY(loc_scrub(l, &l->b, e));
    TRY(loc_body(l, &l->b, SEE_FORCE, errors, e));
    say(l, "judging");
    TRY(loc_judge(l, false, head ? budget / 2 : budget, e));
    if (head) TRY(run_heads(l, SEE_FORCE, errors, budget / 2, e));
    for (int i = 0; i < l->n_nodes; i++)
        if (l->report[i]) {
            const struct op_report *o = &l->out->nodes[i];
            l->out->n_examined += o->seen_a && o->seen_b;
            l->out->n_hidden += o->seen_a != o->seen_b;
        }
out:
    return rc;
}

/* The most suspicious range first, the rest in order, until one holds a bad node. */
static int run_ranges(struct loc *l, struct range *ranges, int n, struct op_error **errors,
                      struct err *e) {
    int rc = 0;
    for (int done = 0; done < n; done++) {
        int best = -1;
        for (int k = 0; k < n; k++) {
            if (ranges[k].g0 < 0) continue;
            if (best < 0 || ranges[k].suspicion > ranges[best].suspicion) best = k;
        }
        TRY(run_range(l, &ranges[best], n > 1, errors, e));
        ranges[best].g0 = -1;
        if (range_has_bad(l)) break;
    }
out:
    return rc;
}

static int run_all(struct loc *l, struct err *e) {
    int rc = 0;
    struct op_error **errors = heap_calloc((size_t)l->n_nodes, sizeof *errors, e);
    struct range *ranges = heap_calloc((size_t)l->n_groups, sizeof *ranges, e);
    double *sorted = heap_calloc((size_t)l->n_groups, sizeof *sorted, e);
    if (!errors || !ranges || !sorted) {
        rc = ERR_NOMEM;
        goto out;
    }
    int n = cut_ranges(l, ranges);
    for (int i = 0; i < l->n_nodes; i++)
        l->want[i] = n == 1;
    for (int il = 0; il < l->out->n_layer; il++)
        l->want[l->layer_out[il]] = true;
    point_errors(l, errors, true);
    TRY(run_unforced(l, errors, e));
    l->out->unforced = l->p->unforced;
    if (l->p->unforced) {
        l->out->first.node = -1;
        goto out;
    }
    TRY(run_layers(l, errors, e));
    suspect(l, ranges, n, sorted);
    TRY(run_ranges(l, ranges, n, errors, e));
    TRY(loc_classify(l, e));
out:
    heap_free(errors);
    heap_free(ranges);
    heap_free(sorted);
    return rc;
}

int localise_run(struct localise **out, const struct localise_params *p, struct err *e) {
    int rc = 0;
    double t0 = timer_s();
    *out = NULL;
    struct loc l = { .p = p, .n_tok = p->n_ctx * (p->n_seq > 0 ? p->n_seq : 1) };
    l.out = heap_calloc(1, sizeof *l.out, e);
    if (!l.out) return ERR_NOMEM;
    l.a = (struct side){ .arm = p->a, .model = p->model_a, .flag = WRONG_A };
    l.b = (struct side){ .arm = p->b,
                         .model = p->model_b ? p->model_b : p->model_a,
                         .flag = WRONG_B };
    l.a.column = column_from_name(p->a->info.backend);
    l.b.column = column_from_name(p->b->info.backend);
    TRY(check_params(p, e));
    TRY(open_all(&l, e));
    TRY(run_all(&l, e));
    TRY(arm_kv_trim(p->a, -1, 0, e));
    TRY(arm_kv_trim(p->b, -1, 0, e));
    l.out->seconds = timer_s() - t0;
    *out = l.out;
out:
    close_all(&l);
    if (rc < 0) localise_free(l.out);
    return rc;
}

void localise_free(struct localise *l) {
    if (!l) return;
    heap_free(l->nodes);
    heap_free(l->layer_own);
    capsule_free(l->capsule);
    heap_free(l);
}
