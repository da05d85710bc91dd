/* SPDX-License-Identifier: MIT
 * kcase.c - listing the cells of the tables; see kcase.h. */
#include "measure/kcase.h"

#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
#define X(kind, name) name,
    KCASE_LIST(X)
#undef X
};

const char *kcase_op(const struct kcase *c) {
    return c->kind == KCASE_OP ? op_name(c->op) : kind_names[c->kind];
}

static bool has_cache(enum op op) {
    return op == OP_attn || op == OP_set_rows;
}

void kcase_name(const struct kcase *c, char *buf, size_t n_bytes) {
    const char *type = qtype_info(c->type)->name, *col = column_name(c->col);
    if (c->kind == KCASE_MUL_MAT)
        snprintf(buf, n_bytes, "%s@%s", type, col);
    else if (c->kind != KCASE_OP || has_cache(c->op))
        snprintf(buf, n_bytes, "%s %s@%s", kcase_op(c), type, col);
    else
        snprintf(buf, n_bytes, "%s@%s", kcase_op(c), col);
}

static bool wants(const struct kcase_filter *f, const char *name) {
    for (int i = 0; i < f->n_ops; i++)
        if (!strcmp(f->ops[i], name)) return true;
    return !f->ops;
}

struct lister {
    const struct kcase_filter *f;
    int (*fn)(void *arg, const struct kcase *c, struct err *e);
    void *arg;
};

/* One case for every number of tokens but fewer than the cell wants: those are run by the parent
 * column; of packed copies, one token. */
static int at_tokens(const struct lister *l, struct kcase c, struct err *e) {
    int rc = 0;
    const bool product = kcase_is_product(&c);
    const struct qkernel *k = product ? qkernel_find(c.col, c.type, false, NULL) : NULL;
    const int64_t fewest = k ? k->min_tokens : product ? 0 : op_min_tokens(c.col, c.op);
    const int *n_tok = product ? l->f->n_tok : l->f->op_n_tok;
    for (int i = 0; i < (product ? l->f->n_n_tok : l->f->n_op_n_tok); i++) {
        c.n_tok = n_tok[i];
        if (c.n_tok < fewest || (c.kind == KCASE_PACKED && c.n_tok > 1)) continue;
        TRY(l->fn(l->arg, &c, e));
    }
out:
    return rc;
}

static int list_type(const struct lister *l, enum qtype t, enum column col, struct err *e) {
    int rc = 0;
    enum column found = COL_none;
    struct kcase c = { .col = col, .type = t, .n_tok = 1 };
    const struct qkernel *k = qkernel_find(col, t, false, &found);
    if (!k || found != col) return 0;
    c.kind = KCASE_MUL_MAT;
    const bool by_op = col == COL_ref && k->dequant_row && !qtype_is_act(t); /* of any types */
    if ((k->mul_mat || k->on_device || by_op) && wants(l->f, kcase_op(&c))) TRY(at_tokens(l, c, e));
    c.kind = KCASE_PACKED;
    if (k->pack && wants(l->f, kcase_op(&c))) TRY(at_tokens(l, c, e));
    c.kind = KCASE_DEQUANT;
    if (k->dequant_row && wants(l->f, kcase_op(&c))) TRY(l->fn(l->arg, &c, e));
    c.kind = KCASE_QUANTIZE;
    if (k->quantize_row && wants(l->f, kcase_op(&c))) TRY(l->fn(l->arg, &c, e));
out:
    return rc;
}

static int list_op(const struct lister *l, enum op op, enum column col, struct err *e) {
    static const enum qtype caches[] = { QT_f32, QT_f16, QT_q8_0 };
    int rc = 0;
    struct kcase c = { .kind = KCASE_OP, .op = op, .col = col, .type = QT_f32 };
    for (size_t i = 0; i < (has_cache(op) ? N_ELEMS(caches) : 1); i++) {
        c.type = caches[i];
        if (has_cache(op) && !l->f->type[c.type]) continue;
        for (int d = 0; d < (op == OP_attn ? l->f->n_n_kv : 1); d++) {
            c.n_kv = op == OP_attn ? l->f->n_kv[d] : 0;
            TRY(at_tokens(l, c, e));
        }
    }
out:
    return rc;
}

int kcase_each(const struct kcase_filter *f,
               int (*fn)(void *arg, const struct kcase *c, struct err *e), void *arg,
               struct err *e) {
    int rc = 0;
    const struct lister l = { f, fn, arg };
    for (int t = 0; t < QT_count; t++)
        for (int c = 0; c < COL_count; c++)
            if (f->type[t] && f->col[c]) TRY(list_type(&l, (enum qtype)t, (enum column)c, e));
    for (int o = 0; o < OP_count; o++) {
        if (o == OP_mul_mat || !wants(f, op_name((enum op)o))) continue;
        for (int c = 0; c < COL_count; c++)
            if (f->col[c] && op_has_cell((enum column)c, (enum op)o))
                TRY(list_op(&l, (enum op)o, (enum column)c, e));
    }
out:
    return rc;
}
