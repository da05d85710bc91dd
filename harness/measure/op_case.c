/* SPDX-License-Identifier: MIT
 * op_case.c - running one op on inputs of its own; see op_case.h. */
#include "measure/op_case.h"

#include <string.h>

#include "base/arena.h"

#define DIM_MAX ((int64_t)1 << 31) /* of one dimension, so that products of two fit in 64 bits */

void op_case_release(struct op_case *c) {
    for (int i = 0; i < OP_MAX_SRC; i++)
        heap_free(c->owned[i]);
    *c = (struct op_case){ 0 };
}

struct node op_case_node(const struct op_case *c, enum qtype act, struct tensor *dst) {
    struct node n = {
        .op = c->op, .il = c->il, .occurrence = c->occurrence, .dst = dst, .p = c->p
    };
    *dst = (struct tensor){ .type = c->dst_type, .ne = { c->n_cols, c->n_tok, 1, 1 } };
    dst->row_bytes = qtype_row_bytes(c->dst_type, c->n_cols);
    memcpy(dst->name, c->name, sizeof dst->name);
    for (int i = 0; i < OP_MAX_SRC; i++)
        n.src[i] = c->src[i].data ? &c->src[i] : NULL;
    if (c->op == OP_mul_mat) {
        n.p.mul_mat.act = act;
        n.p.mul_mat.weights_for = act;
        n.p.mul_mat.n_tok_as = TOKENS_MANY; /* as the windows of a text are computed */
    }
    if (c->op == OP_attn) n.p.attn.n_tok_as = TOKENS_MANY; /* so is attention, of one row, too */
    return n;
}

/* ---- checks --------------------------------------------------------------------------------- */

/* A source of `type` (QT_none: any that ref can dequantise) and this shape; -1 = any. */
static int check_src(const struct op_case *c, int i, enum qtype type, int64_t ne0, int64_t ne1,
                     struct err *e) {
    int rc = 0;
    const struct tensor *t = &c->src[i];
    FAIL_IF(!t->data, e, ERR_FORMAT, "%s: source %d is missing", c->name, i);
    FAIL_IF(t->ne[0] < 1 || t->ne[1] < 1 || t->ne[0] > DIM_MAX || t->ne[1] > DIM_MAX ||
                t->ne[2] != 1 || t->ne[3] != 1,
            e, ERR_FORMAT, "%s: source %d is no matrix", c->name, i);
    if (type == QT_none) {
        const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)t->type, false, NULL);
        FAIL_IF(!k || !k->dequant_row, e, ERR_UNSUPPORTED,
                "%s: this build cannot dequantise source %d, of type %s", c->name, i,
                qtype_info((enum qtype)t->type)->name);
    } else {
        FAIL_IF(t->type != (int)type, e, ERR_FORMAT, "%s: source %d is %s, expected %s", c->name, i,
                qtype_info((enum qtype)t->type)->name, qtype_info(type)->name);
    }
    FAIL_IF((ne0 >= 0 && t->ne[0] != ne0) || (ne1 >= 0 && t->ne[1] != ne1), e, ERR_FORMAT,
            "%s: source %d is %lld x %lld, expected %lld x %lld (-1: any)", c->name, i,
            (long long)t->ne[0], (long long)t->ne[1], (long long)ne0, (long long)ne1);
out:
    return rc;
}

/* Every index of source i is in [0, n). */
static int check_index(const struct op_case *c, int i, int64_t n, struct err *e) {
    int rc = 0;
    TRY(check_src(c, i, QT_i32, c->n_tok, 1, e));
    const int32_t *v = c->src[i].data;
    for (int64_t t = 0; t < c->n_tok; t++)
        FAIL_IF(v[t] < 0 || v[t] >= n, e, ERR_FORMAT,
                "%s: element %lld of source %d is %d, outside of [0, %lld)", c->name, (long long)t,
                i, v[t], (long long)n);
out:
    return rc;
}

static bool cache_type(int t) {
    return t == QT_f32 || t == QT_f16 || t == QT_q8_0;
}

static int check_cache(const struct op_case *c, int i, int64_t n_head_kv, int64_t hd,
                       struct err *e) {
    int rc = 0;
    TRY(check_src(c, i, QT_none, n_head_kv * hd, -1, e));
    FAIL_IF(!cache_type(c->src[i].type) || hd % qtype_info((enum qtype)c->src[i].type)->n_blk, e,
            ERR_FORMAT, "%s: source %d is no cache of heads of %lld", c->name, i, (long long)hd);
out:
    return rc;
}

static int check_attn(const struct op_case *c, struct err *e) {
    int rc = 0;
    int64_t h = c->p.attn.n_head, kv = c->p.attn.n_head_kv, dk = c->p.attn.n_embd_head_k;
    int64_t dv = c->p.attn.n_embd_head_v;
    FAIL_IF(h < 1 || kv < 1 || dk < 1 || dv < 1 || h > DIM_MAX || kv > h || h % kv ||
                dk > DIM_MAX || dv > DIM_MAX || h * dv != c->n_cols,
            e, ERR_FORMAT, "%s: %lld heads on %lld of %lld and %lld make no attention", c->name,
            (long long)h, (long long)kv, (long long)dk, (long long)dv);
    TRY(check_src(c, 0, QT_f32, h * dk, c->n_tok, e));
    TRY(check_cache(c, 1, kv, dk, e));
    TRY(check_cache(c, 2, kv, dv, e));
    FAIL_IF(c->src[1].ne[1] != c->src[2].ne[1], e, ERR_FORMAT, "%s: K has %lld cells, V %lld",
            c->name, (long long)c->src[1].ne[1], (long long)c->src[2].ne[1]);
    TRY(check_index(c, 3, c->src[1].ne[1], e));
    TRY(check_index(c, 4, c->src[1].ne[1], e));
    const int32_t *first = c->src[3].data, *pos = c->src[4].data;
    for (int64_t t = 0; t < c->n_tok; t++)
        FAIL_IF((int64_t)first[t] + pos[t] >= c->src[1].ne[1], e, ERR_FORMAT,
                "%s: row %lld sees cells [%d, %d + %d] of %lld", c->name, (long long)t, first[t],
                first[t], pos[t], (long long)c->src[1].ne[1]);
out:
    return rc;
}

static int check_rope(const struct op_case *c, struct err *e) {
    int rc = 0;
    int64_t h = c->p.rope.n_head, hd = c->p.rope.n_embd_head, n_rot = c->p.rope.n_rot;
    FAIL_IF(h < 1 || h > DIM_MAX || hd < 1 || hd > DIM_MAX || h * hd != c->n_cols || n_rot < 2 ||
                n_rot % 2 || n_rot > hd ||
                (c->p.rope.mode != ROPE_NORM && c->p.rope.mode != ROPE_NEOX),
            e, ERR_FORMAT, "%s: %lld heads of %lld cannot be rotated by %lld", c->name,
            (long long)h, (long long)hd, (long long)n_rot);
    TRY(check_src(c, 0, QT_f32, c->n_cols, c->n_tok, e));
    TRY(check_src(c, 1, QT_f32, n_rot, c->n_tok, e));
out:
    return rc;
}

static int check_rope_table(const struct op_case *c, struct err *e) {
    int rc = 0;
    int n_rot = c->p.rope_table.n_rot;
    FAIL_IF(n_rot < 2 || n_rot % 2 || n_rot != c->n_cols, e, ERR_FORMAT,
            "%s: a table of %d numbers in rows of %lld", c->name, n_rot, (long long)c->n_cols);
    TRY(check_src(c, 0, QT_i32, c->n_tok, 1, e));
    if (c->src[1].data) TRY(check_src(c, 1, QT_f32, n_rot / 2, 1, e));
out:
    return rc;
}

static int check_norm(const struct op_case *c, struct err *e) {
    int rc = 0;
    int64_t n = c->p.rms_norm.n;
    FAIL_IF(n < 1 || c->n_cols % n, e, ERR_FORMAT, "%s: rows of %lld in vectors of %lld", c->name,
            (long long)c->n_cols, (long long)n);
    TRY(check_src(c, 0, QT_f32, c->n_cols, c->n_tok, e));
    TRY(check_src(c, 1, QT_f32, n, 1, e));
out:
    return rc;
}

static int check_add(const struct op_case *c, struct err *e) {
    int rc = 0;
    TRY(check_src(c, 0, QT_f32, c->n_cols, c->n_tok, e));
    TRY(check_src(c, 1, QT_f32, c->n_cols, c->src[1].ne[1] == 1 ? 1 : c->n_tok, e));
out:
    return rc;
}

static int check_mul_mat(const struct op_case *c, struct err *e) {
    int rc = 0;
    TRY(check_src(c, 0, QT_none, -1, c->n_cols, e));
    TRY(check_src(c, 1, QT_f32, c->src[0].ne[0], c->n_tok, e));
out:
    return rc;
}

static int check_get_rows(const struct op_case *c, struct err *e) {
    int rc = 0;
    TRY(check_src(c, 0, QT_none, c->n_cols, -1, e));
    TRY(check_index(c, 1, c->src[0].ne[1], e));
out:
    return rc;
}

static int check_set_rows(const struct op_case *c, struct err *e) {
    int rc = 0;
    FAIL_IF(!cache_type(c->dst_type) || c->n_cols % qtype_info(c->dst_type)->n_blk, e, ERR_FORMAT,
            "%s: no cache of rows of %lld", c->name, (long long)c->n_cols);
    TRY(check_src(c, 0, QT_f32, c->n_cols, c->n_tok, e));
    TRY(check_index(c, 1, c->n_tok, e));
out:
    return rc;
}

static int check_swiglu(const struct op_case *c, struct err *e) {
    int rc = check_src(c, 0, QT_f32, c->n_cols, c->n_tok, e);
    return rc < 0 ? rc : check_src(c, 1, QT_f32, c->n_cols, c->n_tok, e);
}

static int check_lse(const struct op_case *c, struct err *e) {
    int rc = 0;
    FAIL_IF(c->n_cols != 3, e, ERR_FORMAT, "%s: rows of %lld, expected 3", c->name,
            (long long)c->n_cols);
    TRY(check_src(c, 0, QT_f32, -1, c->n_tok, e));
out:
    return rc;
}

int op_case_check(const struct op_case *c, struct err *e) {
    int rc = 0;
    static int (*const checks[OP_count])(const struct op_case *c, struct err *e) = {
        [OP_get_rows] = check_get_rows, [OP_rms_norm] = check_norm,
        [OP_add] = check_add,           [OP_swiglu] = check_swiglu,
        [OP_mul_mat] = check_mul_mat,   [OP_rope_table] = check_rope_table,
        [OP_rope] = check_rope,         [OP_set_rows] = check_set_rows,
        [OP_attn] = check_attn,         [OP_lse] = check_lse,
    };
    FAIL_IF((unsigned)c->op >= OP_count || !checks[c->op], e, ERR_UNSUPPORTED,
            "%s: this build cannot run its op alone", c->name);
    FAIL_IF(c->n_tok < 1 || c->n_tok > DIM_MAX || c->n_cols < 1 || c->n_cols > DIM_MAX, e,
            ERR_FORMAT, "%s: a result of %lld x %lld", c->name, (long long)c->n_cols,
            (long long)c->n_tok);
    enum qtype want = c->op == OP_lse ? QT_f64 : QT_f32;
    FAIL_IF(c->op != OP_set_rows && c->dst_type != want, e, ERR_FORMAT,
            "%s: its result is %s, expected %s", c->name, qtype_info(c->dst_type)->name,
            qtype_info(want)->name);
    TRY(checks[c->op](c, e));
out:
    return rc;
}

/* ---- running -------------------------------------------------------------------------------- */

int op_case_run(const struct op_case *c, struct backend *b, int n_threads, enum qtype act,
                void *dst, struct err *e) {
    int rc = 0;
    struct tensor out;
    struct node n = op_case_node(c, act, &out);
    const struct node *list[] = { &n };
    out.data = dst;
    TRY(b->ops->run(b, list, 1, n_threads, false, 0, e));
    TRY(b->ops->synchronize(b, e));
out:
    return rc;
}
