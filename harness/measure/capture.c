/* SPDX-License-Identifier: MIT
 * capture.c - a window through an arm with its nodes kept, compared or forced; see
 * localise_impl.h.
 *
 * The arms may cut the window into different micro-batches, so rows are matched by how many of a
 * node were seen before, never by graph. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "measure/localise_impl.h"

/* One run of one side. */
struct watch {
    struct loc *l;
    struct side *s;
    enum see_mode mode;
    struct op_error *const *errors;
    int hint; /* node after the last one found: they mostly come in order */
};

static int find(struct watch *w, const struct node *n) {
    int i = judge_find(w->s->judge, n->dst->name, n->occurrence, w->hint);
    if (i >= 0) w->hint = i + 1 == w->l->n_nodes ? 0 : i + 1;
    return i;
}

static bool want(void *arg, const struct node *n) {
    struct watch *w = arg;
    int i = find(w, n);
    return i >= 0 && w->l->want[i];
}

/* Room for the rows that are kept of node i; a longer buffer of an earlier run is used again. */
static int open_capture(struct loc *l, struct captured *c, int i, const struct node *n,
                        struct err *e) {
    if (c->data) return 0;
    c->type = (enum qtype)n->dst->type;
    c->row_bytes = n->dst->row_bytes;
    c->n_cols = n->dst->ne[0];
    c->cap = l->a.judge->nodes[i].head ? l->head_step : l->n_tok;
    c->data = heap_alloc((size_t)c->cap * c->row_bytes, e);
    return c->data ? 0 : ERR_NOMEM;
}

static void *kept_row(const struct captured *c, int64_t r) {
    if (!c->data || r < c->r0 || r >= c->r0 + c->cap) return NULL;
    return (char *)c->data + (size_t)(r - c->r0) * c->row_bytes;
}

static void compare(struct watch *w, int i, const struct captured *a, enum qtype type, int64_t r,
                    const void *b_row, const void *a_row) {
    struct loc *l = w->l;
    op_rows_f32(l->a.judge->nodes[i].n->op, type, b_row, a->type, a_row, a->n_cols, l->x, l->y);
    double nmse = op_error_add(w->errors[i], r, l->x, l->y, a->n_cols);
    if (w->mode == SEE_FORCE && l->report[i])
        l->row_err[(size_t)i * (size_t)l->n_tok + (size_t)r] = (float)nmse;
}

static int see_rows(struct watch *w, const struct node *n, int i, void *data, struct err *e) {
    int rc = 0;
    struct captured *own = &w->s->cap[i];
    const struct captured *a = &w->l->a.cap[i];
    enum qtype type = (enum qtype)n->dst->type;
    int64_t n_rows = node_rows(n);
    if (w->mode != SEE_COMPARE) TRY(open_capture(w->l, own, i, n, e));
    FAIL_IF(w->mode != SEE_CAPTURE && a->n_cols != n->dst->ne[0], e, ERR_MISMATCH,
            "%s has rows of %lld in arm A and of %lld in arm B", n->dst->name, (long long)a->n_cols,
            (long long)n->dst->ne[0]);
    FAIL_IF(own->n_seen + n_rows > w->l->n_tok, e, ERR_MISMATCH,
            "%s has more rows than the %d tokens", n->dst->name, w->l->n_tok);
    for (int64_t t = 0; t < n_rows; t++) {
        int64_t r = own->n_seen++;
        char *row = (char *)data + (size_t)t * n->dst->row_bytes;
        void *mine = w->mode == SEE_COMPARE ? NULL : kept_row(own, r);
        const void *theirs = w->mode == SEE_CAPTURE ? NULL : kept_row(a, r);
        if (mine) memcpy(mine, row, own->row_bytes);
        if (!theirs) continue;
        if (w->errors[i]) compare(w, i, a, type, r, row, theirs);
        /* Caches of two types stay as they are: what they hold follows from equal rows anyway. */
        if (w->mode == SEE_FORCE && type == a->type) memcpy(row, theirs, a->row_bytes);
    }
out:
    return rc;
}

static int see(void *arg, const struct node *n, void *data, struct err *e) {
    struct watch *w = arg;
    int i = judge_find(w->s->judge, n->dst->name, n->occurrence, w->hint ? w->hint - 1 : 0);
    if (i < 0) return 0;
    w->hint = i + 1 == w->l->n_nodes ? 0 : i + 1;
    return see_rows(w, n, i, data, e);
}

int loc_scrub(struct loc *l, struct side *s, struct err *e) {
    int rc = 0, n = l->n_tok;
    int step = s->arm->info.n_batch < n ? s->arm->info.n_batch : n;
    TRY(arm_kv_trim(s->arm, -1, 0, e));
    for (int i = 0; i < n; i += step) {
        struct arm_batch b = {
            n - i < step ? n - i : step, l->other + i, l->pos + i, l->seq + i, NULL, true
        };
        TRY(arm_decode(s->arm, &b, NULL, NULL, e));
    }
out:
    return rc;
}

int loc_feed(struct loc *l, struct side *s, struct observer *o, struct err *e) {
    int rc = 0, n = l->n_tok;
    int step = s->arm->info.n_batch < n ? s->arm->info.n_batch : n;
    TRY(arm_observe(s->arm, o, e));
    TRY(arm_kv_trim(s->arm, -1, 0, e));
    for (int i = 0; i < n; i += step) {
        struct arm_batch b = {
            n - i < step ? n - i : step, l->p->token + i, l->pos + i, l->seq + i, l->all + i, true
        };
        TRY(arm_hold(s->arm, &b, i > 0, e));
    }
out:
    if (arm_observe(s->arm, NULL, NULL) < 0 && rc >= 0)
        rc = ERR(e, ERR_UNSUPPORTED, "the observer of arm %s cannot be switched off",
                 s->flag == WRONG_A ? "A" : "B");
    return rc;
}

struct asked {
    double *nll;
    int n_ctx, first, end;
};

static int on_row(void *arg, const struct arm_row *r, struct err *e) {
    const struct asked *q = arg;
    (void)e;
    int64_t seq = r->r / q->n_ctx, pos = r->r % q->n_ctx;
    if (q->nll && pos >= q->first && pos < q->end)
        q->nll[seq * (q->end - q->first) + pos - q->first] = r->nll;
    return 0;
}

int loc_ask(struct loc *l, struct side *s, struct observer *o, int64_t r0, int64_t n, double *nll,
            struct err *e) {
    int rc = 0;
    struct asked q = { nll, l->p->n_ctx, l->p->first, l->p->end };
    TRY(arm_observe(s->arm, o, e));
    TRY(arm_rows(s->arm, r0, n, l->p->target + r0, false, on_row, &q, e));
out:
    if (arm_observe(s->arm, NULL, NULL) < 0 && rc >= 0)
        rc = ERR(e, ERR_UNSUPPORTED, "the observer of an arm cannot be switched off");
    return rc;
}

/* A node with rows [r0, r0 + n), or without any: then the arm does not compute it. */
static int check_seen(const struct loc *l, const struct side *s, bool head, int64_t r0, int64_t n,
                      struct err *e) {
    int rc = 0;
    for (int i = 0; i < l->n_nodes; i++) {
        const struct judge_node *jn = &l->a.judge->nodes[i];
        int64_t seen = s->cap[i].n_seen - r0;
        if (!l->want[i] || jn->head != head) continue;
        FAIL_IF(seen != 0 && seen != n, e, ERR_MISMATCH,
                "arm %s showed %lld rows of %s for %lld tokens", s->flag == WRONG_A ? "A" : "B",
                (long long)seen, jn->n->dst->name, (long long)n);
        if (s->flag == WRONG_A)
            l->out->nodes[i].seen_a |= seen > 0;
        else
            l->out->nodes[i].seen_b |= seen > 0;
    }
out:
    return rc;
}

int loc_body(struct loc *l, struct side *s, enum see_mode mode, struct op_error *const *errors,
             struct err *e) {
    int rc = 0;
    struct watch w = { l, s, mode, errors, 0 };
    struct observer o = { .arg = &w, .want = want, .see = see };
    for (int i = 0; i < l->n_nodes; i++)
        s->cap[i].n_seen = 0;
    TRY(loc_feed(l, s, &o, e));
    TRY(check_seen(l, s, false, 0, l->n_tok, e));
out:
    return rc;
}

int loc_head(struct loc *l, struct side *s, enum see_mode mode, struct op_error *const *errors,
             int64_t r0, int64_t n, double *nll, struct err *e) {
    int rc = 0;
    struct watch w = { l, s, mode, errors, 0 };
    struct observer o = { .arg = &w, .want = want, .see = see };
    for (int i = 0; i < l->n_nodes; i++) {
        if (!l->a.judge->nodes[i].head) continue;
        s->cap[i].n_seen = r0;
        if (mode != SEE_COMPARE) s->cap[i].r0 = r0;
    }
    TRY(loc_ask(l, s, &o, r0, n, nll, e));
    TRY(check_seen(l, s, true, r0, n, e));
out:
    return rc;
}

void loc_release_captures(struct loc *l) {
    for (int i = 0; i < l->n_nodes; i++) {
        heap_free(l->a.cap[i].data);
        heap_free(l->b.cap[i].data);
        l->a.cap[i] = l->b.cap[i] = (struct captured){ 0 };
    }
}
