/* SPDX-License-Identifier: MIT
 * exec.c - running a model; see exec.h.
 *
 * A micro-batch is two graphs: the body up to result_norm, kept from one micro-batch to the next
 * while its shape stays the same, and the head (output matrix and log-sum-exp), run over slices of
 * rows. */
#include "exec/exec.h"

#include <stdio.h>
#include <string.h>

/* Logits alive at a time: enough rows to fill all threads, few enough to stay small. */
#define HEAD_BYTES ((size_t)64 << 20)
#define HEAD_MIN_ROWS 16

struct block {
    void *data;
    size_t n_bytes;
};

struct exec {
    const struct model *m;
    struct exec_params p;
    struct thread_pool *pool;
    struct backend b;
    struct kv_cache kv;
    struct graph body, head;
    struct block body_data, head_data;
    int64_t head_rows; /* rows of a slice */
    struct observer *observer;
    int64_t tokens_as; /* of the batch computed last */
    struct fault_run fault;
    int32_t *in; /* [5][n_ubatch]: token, pos, cell, first, out_rows */
    float *held; /* [n_held, n_embd] rows of result_norm, on the host */
    int64_t n_held, max_held;
    struct block bounce; /* rows of the cache that an observer sees */
};

static int reserve(struct exec *x, struct block *b, size_t n_bytes, struct err *e) {
    if (n_bytes <= b->n_bytes) return 0;
    if (b->data) x->b.ops->free(&x->b, b->data);
    *b = (struct block){ 0 };
    int rc = x->b.ops->alloc(&x->b, n_bytes, &b->data, e);
    if (rc == 0) b->n_bytes = n_bytes;
    return rc;
}

static int build_body(struct exec *x, int64_t n_tok, int64_t n_out, struct err *e) {
    int rc = 0;
    if (x->body.n_nodes && x->body.n_tok == n_tok && x->body.n_out == n_out) return 0;
    TRY(graph_build(&x->body, x->m, n_tok, n_out, e));
    TRY(reserve(x, &x->body_data, x->body.data_bytes, e));
    graph_place(&x->body, x->body_data.data);
out:
    if (rc < 0) x->body.n_nodes = 0;
    return rc;
}

static int build_head(struct exec *x, int64_t n_rows, struct err *e) {
    int rc = 0;
    if (x->head.n_nodes && x->head.n_out == n_rows) return 0;
    TRY(graph_build_head(&x->head, x->m, n_rows, e));
    TRY(reserve(x, &x->head_data, x->head.data_bytes, e));
    graph_place(&x->head, x->head_data.data);
out:
    if (rc < 0) x->head.n_nodes = 0;
    return rc;
}

/* Allocate everything now, so that lack of memory shows before the first token. */
static int reserve_all(struct exec *x, struct err *e) {
    int rc = 0;
    int64_t n = x->p.n_ubatch;
    const int64_t outs[] = { 0, n, n > 1 ? n - 1 : n };
    for (size_t i = 0; i < N_ELEMS(outs); i++) {
        rc = build_body(x, n, outs[i], e);
        FAIL_IF(rc < 0, e, rc == ERR_NOMEM ? ERR_NOMEM : rc, "%s%s", e ? e->msg : "",
                rc == ERR_NOMEM ? "; lower -ub" : "");
    }
    size_t row = (size_t)x->m->hp.n_vocab * sizeof(float);
    x->head_rows = (int64_t)(HEAD_BYTES / row);
    if (x->head_rows < HEAD_MIN_ROWS) x->head_rows = HEAD_MIN_ROWS;
    if (x->head_rows > n) x->head_rows = n;
    TRY(build_head(x, x->head_rows, e));
out:
    return rc;
}

int exec_new(struct exec **out, const struct model *m, const struct exec_params *p, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct exec *x = heap_calloc(1, sizeof *x, e);
    if (!x) return ERR_NOMEM;
    x->m = m;
    x->p = *p;
    x->fault = (struct fault_run){ .fault = p->fault,
                                   .n_ctx = p->n_ctx,
                                   .n_cells = (int64_t)p->n_ctx * p->n_seq };
    FAIL_IF(p->n_ubatch < 1 || p->n_ctx < 1 || p->n_seq < 1, e, ERR_ARG,
            "context, sequences and micro-batch must be positive");
    int n_threads = p->n_threads > p->n_threads_batch ? p->n_threads : p->n_threads_batch;
    TRY(topology_pool(p->topology, &x->pool, n_threads, e));
    TRY(backend_cpu_init(&x->b, p->column, x->pool, e));
    TRY(kv_init(&x->kv, &m->hp, p->type_k, p->type_v, p->n_ctx, p->n_seq, &x->b, e));
    topology_place(p->topology, x->kv.data, x->kv.n_bytes);
    TRY(graph_init(&x->body, m, &x->kv, e));
    TRY(graph_init(&x->head, m, NULL, e));
    x->in = heap_calloc(5 * (size_t)p->n_ubatch, sizeof *x->in, e);
    FAIL_IF(!x->in, e, ERR_NOMEM, "out of memory for a micro-batch of %d tokens", p->n_ubatch);
    TRY(reserve_all(x, e));
    *out = x;
out:
    if (rc < 0) exec_free(x);
    return rc;
}

void exec_free(struct exec *x) {
    if (!x) return;
    kv_release(&x->kv);
    graph_release(&x->body);
    graph_release(&x->head);
    if (x->body_data.data) x->b.ops->free(&x->b, x->body_data.data);
    if (x->head_data.data) x->b.ops->free(&x->b, x->head_data.data);
    if (x->bounce.data) x->b.ops->free(&x->b, x->bounce.data);
    backend_release(&x->b);
    thread_pool_free(x->pool);
    heap_free(x->in);
    heap_free(x->held);
    heap_free(x);
}

void exec_observe(struct exec *x, struct observer *o) {
    x->observer = o;
}

int exec_kv_trim(struct exec *x, int32_t seq, int32_t pos, struct err *e) {
    return kv_trim(&x->kv, seq, pos, e);
}

/* Show a node's rows to the observer; memory of the CPU columns is host memory. */
static int show(struct exec *x, const struct node *n, struct err *e) {
    int rc = 0;
    const struct observer *o = x->observer;
    if (n->op != OP_set_rows) return o->see(o->arg, n, n->dst->data, e);
    /* The node wrote some rows of the whole cache: those are shown, and what see() left of them is
     * put back. */
    int64_t n_rows = node_rows(n);
    const int32_t *cell = n->src[1]->data;
    size_t row = n->dst->row_bytes;
    TRY(reserve(x, &x->bounce, (size_t)n_rows * row, e));
    char *rows = x->bounce.data;
    for (int64_t t = 0; t < n_rows; t++)
        memcpy(rows + (size_t)t * row, tensor_row(n->dst, cell[t]), row);
    TRY(o->see(o->arg, n, rows, e));
    for (int64_t t = 0; t < n_rows; t++)
        memcpy(tensor_row(n->dst, cell[t]), rows + (size_t)t * row, row);
out:
    return rc;
}

/* Run all nodes: in one go, or in spans that end at the nodes the observer wants. */
static int run_graph(struct exec *x, const struct graph *g, int n_nodes, struct err *e) {
    int rc = 0;
    int n_threads = g->n_tok > 1 ? x->p.n_threads_batch : x->p.n_threads;
    const struct node *const *nodes = (const struct node *const *)g->nodes;
    const struct observer *o = x->observer;
    if (o && o->graph) TRY(o->graph(o->arg, nodes, n_nodes, e));
    for (int begin = 0, end; begin < n_nodes; begin = end) {
        end = begin;
        while (end < n_nodes && !(o && o->want(o->arg, nodes[end])))
            end++;
        bool seen = end < n_nodes;
        if (seen) end++;
        fault_begin(&x->fault);
        rc = x->b.ops->run(&x->b, nodes + begin, end - begin, n_threads, e);
        fault_end();
        if (rc < 0) goto out;
        TRY(x->b.ops->synchronize(&x->b, e));
        if (seen) TRY(show(x, nodes[end - 1], e));
    }
out:
    return rc;
}

static int check_token(const struct exec *x, const struct arm_batch *b, int i, const int32_t *next,
                       struct err *e) {
    int rc = 0;
    FAIL_IF(b->token[i] < 0 || b->token[i] >= x->m->hp.n_vocab, e, ERR_ARG,
            "token %d of the batch is %d, outside of the vocabulary of %lld", i, b->token[i],
            (long long)x->m->hp.n_vocab);
    FAIL_IF(b->seq[i] < 0 || b->seq[i] >= x->kv.n_seq, e, ERR_ARG,
            "token %d of the batch belongs to sequence %d of %d", i, b->seq[i], x->kv.n_seq);
    FAIL_IF(b->pos[i] != next[b->seq[i]], e, ERR_ARG,
            "token %d of the batch is at position %d of sequence %d, whose next position is %d", i,
            b->pos[i], b->seq[i], next[b->seq[i]]);
    FAIL_IF(b->pos[i] >= x->kv.n_ctx, e, ERR_ARG,
            "position %d of sequence %d does not fit in a context of %d", b->pos[i], b->seq[i],
            x->kv.n_ctx);
out:
    return rc;
}

/* Fill and upload the inputs for tokens [i0, i0 + n); returns how many are wanted. */
static int load_inputs(struct exec *x, const struct arm_batch *b, int i0, int n, int *n_out,
                       struct err *e) {
    int rc = 0;
    size_t stride = (size_t)x->p.n_ubatch;
    int32_t *token = x->in, *pos = token + stride, *cell = pos + stride, *first = cell + stride;
    int32_t *rows = first + stride;
    *n_out = 0;
    for (int i = 0; i < n; i++) {
        TRY(check_token(x, b, i0 + i, x->kv.n_used, e));
        token[i] = b->token[i0 + i];
        pos[i] = b->pos[i0 + i];
        first[i] = b->seq[i0 + i] * x->kv.n_ctx;
        cell[i] = first[i] + pos[i];
        x->kv.n_used[b->seq[i0 + i]]++;
        if (b->want && b->want[i0 + i]) rows[(*n_out)++] = i;
    }
    TRY(build_body(x, n, *n_out, e));
    const struct graph *g = &x->body;
    struct tensor *t[] = { g->in_token, g->in_pos, g->in_cell, g->in_first, g->out_rows };
    for (size_t i = 0; i < N_ELEMS(t); i++)
        TRY(x->b.ops->upload(&x->b, t[i]->data, x->in + i * stride, t[i]->row_bytes, e));
out:
    return rc;
}

/* Row r of the slice is token i0 + rows[r] of the batch, or i0 + r without rows. */
static int answer_rows(struct exec *x, int64_t n_rows, const int32_t *rows, int64_t i0,
                       arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        const double *lse = tensor_row(x->head.lse, r);
        struct arm_answer a = { .i = (int)(i0 + (rows ? rows[r] : r)),
                                .logits = tensor_row(x->head.logits, r),
                                .max = lse[0],
                                .lse = lse[1],
                                .top1 = (int32_t)lse[2] };
        TRY(fn(arg, &a, e));
    }
out:
    return rc;
}

static void round_as(struct exec *x, struct graph *g) {
    graph_round_as(g, x->tokens_as);
    if (x->p.weights_as != COL_none) graph_weights_as(g, x->p.weights_as);
}

/* Run the head over n rows of result_norm in slices. Without fn the log-sum-exp is left out. */
static int run_head(struct exec *x, void *norm, int64_t n, const int32_t *rows, int64_t i0,
                    arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    for (int64_t r = 0; r < n; r += x->head_rows) {
        int64_t m = n - r < x->head_rows ? n - r : x->head_rows;
        TRY(build_head(x, m, e));
        round_as(x, &x->head);
        x->head.in_norm->data = (char *)norm + (size_t)r * x->head.in_norm->row_bytes;
        TRY(run_graph(x, &x->head, fn ? x->head.n_nodes : x->head.n_nodes - 1, e));
        if (fn) TRY(answer_rows(x, m, rows ? rows + r : NULL, rows ? i0 : i0 + r, fn, arg, e));
    }
out:
    return rc;
}

/* Run the body of tokens [i0, i0 + n) of the batch. */
static int run_body(struct exec *x, const struct arm_batch *b, int i0, int *n_out, struct err *e) {
    int rc = 0;
    int n = b->n - i0 < x->p.n_ubatch ? b->n - i0 : x->p.n_ubatch;
    TRY(load_inputs(x, b, i0, n, n_out, e));
    x->tokens_as = b->uniform ? TOKENS_MANY : 0;
    round_as(x, &x->body);
    TRY(run_graph(x, &x->body, x->body.n_nodes, e));
    fault_count(&x->fault, n);
out:
    return rc;
}

int exec_decode(struct exec *x, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                struct err *e) {
    int rc = 0, n_out;
    const int32_t *out_rows = x->in + 4 * (size_t)x->p.n_ubatch;
    for (int i0 = 0; i0 < b->n; i0 += x->p.n_ubatch) {
        TRY(run_body(x, b, i0, &n_out, e));
        if (n_out == 0) continue;
        TRY(run_head(x, x->body.result_norm->data, n_out, out_rows, i0, fn, arg, e));
    }
out:
    return rc;
}

/* Keep n rows of result_norm behind those that are held. */
static int hold_rows(struct exec *x, int64_t n, struct err *e) {
    int rc = 0;
    const struct tensor *norm = x->body.result_norm;
    size_t row = norm->row_bytes;
    if (x->n_held + n > x->max_held) {
        int64_t max = x->n_held + n > 2 * x->max_held ? x->n_held + n : 2 * x->max_held;
        float *p = heap_realloc(x->held, (size_t)max * row, e);
        if (!p) return ERR_NOMEM;
        x->held = p;
        x->max_held = max;
    }
    TRY(x->b.ops->download(&x->b, (char *)x->held + (size_t)x->n_held * row, norm->data,
                           (size_t)n * row, e));
    x->n_held += n;
out:
    return rc;
}

int exec_hold(struct exec *x, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0, n_out;
    if (!append) x->n_held = 0;
    for (int i0 = 0; i0 < b->n; i0 += x->p.n_ubatch) {
        TRY(run_body(x, b, i0, &n_out, e));
        if (n_out > 0) TRY(hold_rows(x, n_out, e));
    }
out:
    return rc;
}

int exec_rows(struct exec *x, int64_t r0, int64_t n, arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    FAIL_IF(r0 < 0 || n < 0 || n > x->n_held || r0 > x->n_held - n, e, ERR_ARG,
            "%lld rows from %lld on were asked for, %lld are held", (long long)n, (long long)r0,
            (long long)x->n_held);
    TRY(run_head(x, x->held + r0 * x->m->hp.n_embd, n, NULL, 0, fn, arg, e));
out:
    return rc;
}

static bool has_cell(const char *list, const char *cell) {
    size_t n = strlen(cell);
    for (const char *p = list; (p = strstr(p, cell)); p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n])) return true;
    return false;
}

static int add_cells(const struct exec *x, const struct graph *g, char *buf, size_t n_bytes,
                     struct err *e) {
    int rc = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = g->nodes[i];
        enum column c = COL_none;
        char cell[64];
        op_cell_find(x->b.col, n, &c);
        snprintf(cell, sizeof cell, "%s@%s",
                 n->op == OP_mul_mat ? qtype_info((enum qtype)n->src[0]->type)->name
                                     : op_name(n->op),
                 column_name(c));
        if (has_cell(buf, cell)) continue;
        size_t used = strlen(buf);
        FAIL_IF(used + strlen(cell) + 2 > n_bytes, e, ERR_NOMEM, "the list of cells is too long");
        snprintf(buf + used, n_bytes - used, "%s%s", used ? " " : "", cell);
    }
out:
    return rc;
}

int exec_cells(struct exec *x, char *buf, size_t n_bytes, struct err *e) {
    int rc = 0;
    buf[0] = '\0';
    TRY(build_body(x, x->p.n_ubatch, x->p.n_ubatch, e));
    TRY(add_cells(x, &x->body, buf, n_bytes, e));
    TRY(build_head(x, x->head_rows, e));
    TRY(add_cells(x, &x->head, buf, n_bytes, e));
    const struct fault_info *fault = fault_info(x->p.fault);
    size_t used = strlen(buf);
    FAIL_IF(fault && used + sizeof " FAULT:" + strlen(fault->name) > n_bytes, e, ERR_NOMEM,
            "the list of cells is too long");
    if (fault) snprintf(buf + used, n_bytes - used, " FAULT:%s", fault->name);
out:
    return rc;
}
