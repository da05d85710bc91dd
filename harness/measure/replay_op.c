/* SPDX-License-Identifier: MIT
 * replay_op.c - one op again; see replay_op.h. */
#include "measure/replay_op.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"

static enum qtype act_of(const struct capsule *k, enum column c) {
    if (k->c.op != OP_mul_mat) return QT_f32;
    const struct qkernel *q =
        qkernel_for(c, (enum qtype)k->c.src[0].type, k->c.src[0].ne[0], TOKENS_MANY, NULL);
    return q ? q->act : QT_f32;
}

/* Rows of column c, as stored. A fault that comes late has come. */
static int run_column(const struct capsule *k, enum column c, int n_threads, enum qtype act,
                      enum fault fault, void *out, struct err *e) {
    int rc = 0;
    const struct fault_run late = { .fault = fault, .n_ctx = 1, .n_cells = 1, .n_done = 1 << 20 };
    struct thread_pool *pool = NULL;
    struct backend b = { 0 };
    if (n_threads < 1) n_threads = threads_online();
    TRY(thread_pool_new(&pool, n_threads, e));
    TRY(backend_init(&b, c, pool, e));
    fault_begin(&late);
    rc = op_case_run(&k->c, &b, n_threads, act, out, e);
    fault_end();
out:
    backend_release(&b);
    thread_pool_free(pool);
    return rc;
}

/* Elements of `got` whose bits are not the recorded ones. */
static int64_t count_differ(const struct capsule *k, const float *recorded, const float *got,
                            double *diff) {
    int64_t n = 0, n_cols = k->c.n_cols;
    struct op_error s = OP_ERROR_NONE;
    *diff = 0;
    if (!recorded) return -1;
    for (int64_t i = 0; i < k->c.n_tok * n_cols; i++)
        n += memcmp(&recorded[i], &got[i], sizeof *got) != 0;
    for (int64_t t = 0; t < k->c.n_tok; t++)
        op_error_add(&s, t, got + t * n_cols, recorded + t * n_cols, n_cols);
    *diff = s.max_rel;
    return n;
}

/* x: rows of the column, y: ref's; both as stored. */
static int judge(const struct capsule *k, const char *x, const char *y, struct replay *r,
                 struct err *e) {
    const struct op_case *c = &k->c;
    size_t row = qtype_row_bytes(c->dst_type, c->n_cols);
    int64_t n = c->n_cols;
    float *got = heap_alloc(2 * (size_t)(c->n_tok * n) * sizeof *got, e);
    if (!got) return ERR_NOMEM;
    float *want = got + c->n_tok * n;
    for (int64_t t = 0; t < c->n_tok; t++) {
        op_rows_f32(c->op, c->dst_type, x + (size_t)t * row, c->dst_type, y + (size_t)t * row, n,
                    got + t * n, want + t * n);
        op_error_add(&r->error, k->position[t], got + t * n, want + t * n, n);
    }
    for (int64_t t = 0; t < c->n_tok; t++) /* as it was recorded: an index stays an index */
        op_rows_f32(OP_count, c->dst_type, x + (size_t)t * row, c->dst_type, x + (size_t)t * row, n,
                    got + t * n, want + t * n);
    r->n_differ_a = count_differ(k, k->out_a, got, &r->diff_a);
    r->n_differ_b = count_differ(k, k->out_b, got, &r->diff_b);
    heap_free(got);
    return 0;
}

int replay_op(const struct capsule *k, enum column c, int n_threads, enum fault fault,
              struct replay *out, struct err *e) {
    int rc = 0;
    const struct op_error none = OP_ERROR_NONE;
    struct tensor dst;
    enum qtype act = act_of(k, c);
    struct node n = op_case_node(&k->c, act, &dst);
    *out = (struct replay){ .error = none };
    size_t n_bytes = dst.row_bytes * (size_t)k->c.n_tok;
    char *x = heap_calloc(2, n_bytes, e), *y = x ? x + n_bytes : NULL;
    if (!x) return ERR_NOMEM;
    FAIL_IF(act != QT_f32 && k->c.src[0].ne[0] % qtype_info(act)->n_blk, e, ERR_FORMAT,
            "rows of %lld cannot be rounded through %s", (long long)k->c.src[0].ne[0],
            qtype_info(act)->name);
    limit_cell_name(c, &n, out->cell, sizeof out->cell);
    out->limit = limit_of(out->cell);
    TRY(run_column(k, c, n_threads, act, fault, x, e));
    TRY(run_column(k, COL_ref, n_threads, act, FAULT_none, y, e));
    TRY(judge(k, x, y, out, e));
    out->within = !op_error_over(&out->error, &out->limit);
out:
    heap_free(x);
    return rc;
}
