/* SPDX-License-Identifier: MIT
 * judge.c - nodes of a model computed alone by ref; see judge.h. */
#include "measure/judge.h"

#include <string.h>

#include "base/arena.h"

static enum judge_from from_input(const struct graph *g, const struct tensor *t) {
    if (t == g->in_token) return FROM_TOKEN;
    if (t == g->in_pos) return FROM_POS;
    if (t == g->in_cell) return FROM_CELL;
    if (t == g->in_first) return FROM_FIRST;
    return FROM_WEIGHT;
}

/* Say where each source comes from. A cache tensor is the result of the node that stores in it. */
static void link_node(struct judge *j, int i) {
    struct judge_node *jn = &j->nodes[i];
    for (int s = 0; s < OP_MAX_SRC; s++) {
        const struct tensor *t = jn->n->src[s];
        jn->src[s].from = t ? from_input(&j->body, t) : FROM_NONE;
        for (int k = i - 1; t && k >= 0; k--) {
            const struct tensor *dst = j->nodes[k].n->dst;
            if (dst != t && !(t == j->head.in_norm && dst == j->body.result_norm)) continue;
            jn->src[s].from = FROM_NODE;
            jn->src[s].node = k;
            break;
        }
    }
}

static int build(struct judge *j, enum qtype type_k, enum qtype type_v, struct err *e) {
    int rc = 0;
    TRY(kv_init(&j->kv, &j->m.hp, type_k, type_v, 1, 1, e));
    TRY(graph_init(&j->body, &j->m, &j->kv, e));
    TRY(graph_init(&j->head, &j->m, NULL, e));
    TRY(graph_build(&j->body, &j->m, 1, 1, e));
    TRY(graph_build_head(&j->head, &j->m, 1, e));
    graph_round_as(&j->body, TOKENS_MANY); /* as the windows of a text are computed */
    graph_round_as(&j->head, TOKENS_MANY);
    j->n_nodes = j->body.n_nodes + j->head.n_nodes;
    j->nodes = heap_calloc((size_t)j->n_nodes, sizeof *j->nodes, e);
    if (!j->nodes) return ERR_NOMEM;
    for (int i = 0; i < j->n_nodes; i++) {
        bool head = i >= j->body.n_nodes;
        j->nodes[i].n = head ? j->head.nodes[i - j->body.n_nodes] : j->body.nodes[i];
        j->nodes[i].head = head;
        link_node(j, i);
    }
out:
    return rc;
}

int judge_open(struct judge **out, const char *model, enum qtype type_k, enum qtype type_v,
               int n_threads, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct judge *j = heap_calloc(1, sizeof *j, e);
    if (!j) return ERR_NOMEM;
    j->n_threads = n_threads > 0 ? n_threads : threads_online();
    TRY(thread_pool_new(&j->pool, j->n_threads, e));
    TRY(backend_cpu_init(&j->b, COL_ref, j->pool, e));
    TRY(model_open(&j->m, model, e));
    TRY(build(j, type_k, type_v, e));
    *out = j;
out:
    if (rc < 0) judge_close(j);
    return rc;
}

void judge_close(struct judge *j) {
    if (!j) return;
    heap_free(j->nodes);
    graph_release(&j->body);
    graph_release(&j->head);
    kv_release(&j->kv);
    if (j->m.g) model_close(&j->m);
    backend_release(&j->b);
    thread_pool_free(j->pool);
    heap_free(j);
}

int judge_find(const struct judge *j, const char *name, int occurrence, int hint) {
    for (int k = 0; k < j->n_nodes; k++) {
        int i = (hint + k) % j->n_nodes;
        const struct node *n = j->nodes[i].n;
        if (n->occurrence == occurrence && !strcmp(n->dst->name, name)) return i;
    }
    return -1;
}

/* ---- a case --------------------------------------------------------------------------------- */

static int own(struct op_case *c, int s, enum qtype type, int64_t ne0, int64_t ne1, struct err *e) {
    struct tensor *t = &c->src[s];
    *t = (struct tensor){ .type = type, .ne = { ne0, ne1, 1, 1 } };
    t->row_bytes = qtype_row_bytes(type, ne0);
    t->data = c->owned[s] = heap_alloc(t->row_bytes * (size_t)ne1, e);
    return t->data ? 0 : ERR_NOMEM;
}

static int copy_rows(struct op_case *c, int s, const struct judge_rows *r, const char *name,
                     const int32_t *row, int64_t n, int64_t n_cols, struct err *e) {
    int rc = 0;
    FAIL_IF(!r->data, e, ERR_MISSING, "%s: its source %s was not captured", c->name, name);
    TRY(own(c, s, r->type, n_cols, n, e));
    for (int64_t t = 0; t < n; t++) {
        int64_t from = row ? row[t] : t;
        FAIL_IF(from < r->r0 || from >= r->r0 + r->n_rows, e, ERR_MISSING,
                "%s: row %lld of its source %s was not captured", c->name, (long long)from, name);
        memcpy(tensor_row(&c->src[s], t),
               (const char *)r->data + (size_t)(from - r->r0) * r->row_bytes, r->row_bytes);
    }
out:
    return rc;
}

static int copy_ints(struct op_case *c, int s, enum judge_from from, const struct judge_batch *b,
                     const int32_t *row, int64_t n, struct err *e) {
    int rc = own(c, s, QT_i32, n, 1, e);
    if (rc < 0) return rc;
    int32_t *v = c->owned[s];
    for (int64_t t = 0; t < n; t++)
        v[t] = from == FROM_TOKEN  ? b->token[row[t]]
               : from == FROM_POS  ? row[t] % b->n_ctx
               : from == FROM_CELL ? (int32_t)t
                                   : row[t] - row[t] % b->n_ctx;
    return 0;
}

int judge_case(const struct judge *j, int i, const struct judge_rows *of,
               const struct judge_batch *b, const int32_t *row, int64_t n, struct op_case *out,
               struct err *e) {
    int rc = 0;
    const struct judge_node *jn = &j->nodes[i];
    const struct node *node = jn->n;
    *out = (struct op_case){ .op = node->op,
                             .il = node->il,
                             .occurrence = node->occurrence,
                             .p = node->p,
                             .n_tok = n,
                             .dst_type = (enum qtype)node->dst->type,
                             .n_cols = node->dst->ne[0] };
    memcpy(out->name, node->dst->name, sizeof out->name);
    int64_t n_kv = 0; /* rows of K and V that attention sees */
    for (int64_t t = 0; t < n; t++)
        n_kv = row[t] >= n_kv ? row[t] + 1 : n_kv;
    for (int s = 0; s < OP_MAX_SRC; s++) {
        const struct tensor *t = node->src[s];
        enum judge_from from = jn->src[s].from;
        bool cache = node->op == OP_attn && (s == 1 || s == 2);
        if (from == FROM_NONE) continue;
        if (from == FROM_WEIGHT)
            out->src[s] = *t;
        else if (from == FROM_NODE)
            TRY(copy_rows(out, s, &of[jn->src[s].node], t->name, cache ? NULL : row,
                          cache ? n_kv : n, t->ne[0], e));
        else
            TRY(copy_ints(out, s, from, b, row, n, e));
        memcpy(out->src[s].name, t->name, sizeof t->name);
    }
out:
    if (rc < 0) op_case_release(out);
    return rc;
}

double judge_row_cost(const struct judge *j, int i, int64_t pos) {
    const struct node *n = j->nodes[i].n;
    switch (n->op) {
    case OP_mul_mat: return (double)n->src[0]->ne[0] * (double)n->src[0]->ne[1];
    case OP_attn: return (double)(pos + 1) * (double)n->dst->ne[0] * 2;
    case OP_lse: return (double)n->src[0]->ne[0] * 16; /* an exponential each */
    case OP_swiglu: return (double)n->dst->ne[0] * 16;
    default: return (double)n->dst->ne[0] * 2;
    }
}

int judge_eval(struct judge *j, const struct op_case *c, enum qtype act, void *out, struct err *e) {
    return op_case_run(c, &j->b, j->n_threads, act, out, e);
}
