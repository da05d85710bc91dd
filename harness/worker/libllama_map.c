/* SPDX-License-Identifier: MIT
 * libllama_map.c - nodes of a ggml graph recognised by weights and structure; see libllama_map.h.
 */
#include "libllama_map.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "model/graph.h"

#define CHAIN_MAX 16 /* views on views */

/* A tensor of theirs that is, or leads to, a node of ours. */
struct known {
    const struct ggml_tensor *t;
    int node;
    bool part; /* scores and weighted values on their way to the attention node */
};

struct ggml_map {
    struct model model;
    struct kv_cache kv;
    struct graph body, head;
    bool has_cache; /* its types are ours too */

    struct known *known; /* [n_known] of this decode, in run order */
    int n_known, max_known;
    bool *done; /* [body.n_nodes] recognised in the present graph */

    /* The node that was returned last. */
    struct node node;
    struct tensor dst, cells;
};

/* ---- opening --------------------------------------------------------------------------------- */

int ggml_map_open(struct ggml_map **out, const char *model, const char *type_k, const char *type_v,
                  struct err *e) {
    int rc = 0;
    *out = NULL;
    struct ggml_map *m = heap_calloc(1, sizeof *m, e);
    if (!m) return ERR_NOMEM;
    enum qtype k = qtype_from_name(type_k), v = qtype_from_name(type_v);
    m->has_cache = k != QT_none && v != QT_none;
    if (!m->has_cache) k = v = QT_f16;
    TRY(model_open(&m->model, model, e));
    TRY(kv_init(&m->kv, &m->model.hp, k, v, 1, 1, e));
    TRY(graph_init(&m->body, &m->model, &m->kv, e));
    TRY(graph_init(&m->head, &m->model, NULL, e));
    TRY(graph_build(&m->body, &m->model, 1, 1, e));
    TRY(graph_build_head(&m->head, &m->model, 1, e));
    m->done = heap_calloc((size_t)m->body.n_nodes, sizeof *m->done, e);
    if (!m->done) {
        rc = ERR_NOMEM;
        goto out;
    }
    *out = m;
out:
    if (rc < 0) ggml_map_free(m);
    return rc;
}

void ggml_map_free(struct ggml_map *m) {
    if (!m) return;
    heap_free(m->known);
    heap_free(m->done);
    graph_release(&m->body);
    graph_release(&m->head);
    kv_release(&m->kv);
    if (m->model.g) model_close(&m->model);
    heap_free(m);
}

/* ---- looking back ---------------------------------------------------------------------------- */

static bool is_op(const struct ggml_tensor *t, const char *name) {
    return !strcmp(ggml_op_name(t->op), name);
}

/* Their name of a tensor; of a copy for another device, "CUDA0#name#0", the name inside. */
static void plain_name(const struct ggml_tensor *t, char *buf, size_t n) {
    const char *from = strchr(t->name, '#'), *to = strrchr(t->name, '#');
    if (from && to > from)
        snprintf(buf, n, "%.*s", (int)(to - from - 1), from + 1);
    else
        snprintf(buf, n, "%s", t->name);
}

static bool is_copy(const struct ggml_tensor *t) {
    return strchr(t->name, '#') != NULL;
}

static const struct known *find(const struct ggml_map *m, const struct ggml_tensor *t) {
    char name[GGML_MAX_NAME], other[GGML_MAX_NAME];
    for (int i = m->n_known - 1; i >= 0; i--)
        if (m->known[i].t == t) return &m->known[i];
    if (!is_copy(t)) return NULL;
    plain_name(t, name, sizeof name);
    for (int i = m->n_known - 1; i >= 0; i--) {
        plain_name(m->known[i].t, other, sizeof other);
        if (!strcmp(name, other)) return &m->known[i];
    }
    return NULL;
}

static bool is_window(const struct ggml_tensor *t) {
    static const char *const ops[] = {
        "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT", "GET_ROWS"
    };
    for (size_t i = 0; i < N_ELEMS(ops); i++)
        if (is_op(t, ops[i])) return true;
    return false;
}

/* What source s of t is made of; NULL if nothing that is known. */
static const struct known *from(const struct ggml_map *m, const struct ggml_tensor *t, int s) {
    const struct ggml_tensor *x = t->src[s];
    for (int k = 0; x && k < CHAIN_MAX; k++) {
        const struct known *found = find(m, x);
        if (found) return found;
        if (!is_window(x)) return NULL;
        x = x->src[0];
    }
    return NULL;
}

static int node_from(const struct ggml_map *m, const struct ggml_tensor *t, int s) {
    const struct known *k = from(m, t, s);
    return k && !k->part ? k->node : -1;
}

/* Source s of t is this weight of the file. */
static bool is_weight(const struct ggml_tensor *t, int s, const struct tensor *w) {
    char name[GGML_MAX_NAME];
    const struct ggml_tensor *x = t->src[s];
    if (!x || !w) return false;
    plain_name(x, name, sizeof name);
    if (!strcmp(name, w->name)) return true;
    return !strcmp(name, "output.weight") && !strcmp(w->name, "token_embd.weight"); /* tied */
}

static int remember(struct ggml_map *m, const struct ggml_tensor *t, int node, bool part) {
    if (m->n_known == m->max_known) {
        int n = m->max_known ? 2 * m->max_known : 1024;
        struct known *p = heap_realloc(m->known, (size_t)n * sizeof *p, NULL);
        if (!p) return -1; /* what follows from t is not recognised */
        m->known = p;
        m->max_known = n;
    }
    m->known[m->n_known++] = (struct known){ t, node, part };
    return node;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static int dst_index(const struct ggml_map *m, const struct tensor *t) {
    for (int i = 0; i < m->body.n_nodes; i++)
        if (m->body.nodes[i]->dst == t) return i;
    return -1;
}

/* Our node i reads these two nodes, in either order. */
static bool reads(const struct ggml_map *m, int i, int a, int b) {
    const struct node *n = m->body.nodes[i];
    int x = dst_index(m, n->src[0]), y = n->src[1] ? dst_index(m, n->src[1]) : -1;
    return a >= 0 && b >= 0 && ((x == a && y == b) || (x == b && y == a));
}

static const struct tensor *weight_of(const struct ggml_map *m, const struct tensor *product) {
    int i = dst_index(m, product);
    return i >= 0 && m->body.nodes[i]->op == OP_mul_mat ? m->body.nodes[i]->src[0] : NULL;
}

static bool matches(const struct ggml_map *m, int i, const struct ggml_tensor *t) {
    const struct node *n = m->body.nodes[i];
    const int a = node_from(m, t, 0);
    switch (n->op) {
    case OP_get_rows: return is_op(t, "GET_ROWS") && is_weight(t, 0, n->src[0]);
    case OP_mul_mat: return is_op(t, "MUL_MAT") && is_weight(t, 0, n->src[0]);
    case OP_rms_norm:
        return (is_op(t, "FUSED_RMS_NORM") || (is_op(t, "MUL") && is_op(t->src[0], "RMS_NORM"))) &&
               is_weight(t, 1, n->src[1]);
    case OP_add:
        return is_op(t, "ADD") &&
               (is_weight(t, 1, n->src[1]) || reads(m, i, a, node_from(m, t, 1)));
    case OP_rope: return !strncmp(ggml_op_name(t->op), "ROPE", 4) && a == dst_index(m, n->src[0]);
    case OP_set_rows:
        return m->has_cache && (is_op(t, "CPY") || is_op(t, "SET_ROWS")) &&
               a == dst_index(m, n->src[0]);
    case OP_attn: return is_op(t, "FLASH_ATTN_EXT") && a == dst_index(m, n->src[0]);
    case OP_swiglu:
        if (is_op(t, "FUSED_UP_GATE"))
            return is_weight(t, 0, weight_of(m, n->src[1])) &&
                   is_weight(t, 1, weight_of(m, n->src[0]));
        return (is_op(t, "MUL") || is_op(t, "GLU") || is_op(t, "FUSED_MUL_UNARY")) &&
               reads(m, i, a, node_from(m, t, 1));
    default: return false;
    }
}

/* Attention that is not one node: q k^T, its softmax, times v, and the heads brought together. */
static int attention_part(struct ggml_map *m, const struct ggml_tensor *t) {
    const struct known *x = from(m, t, 0), *y = t->src[1] ? from(m, t, 1) : NULL;
    if (is_op(t, "MUL_MAT") && y && !y->part)
        for (int i = 0; i < m->body.n_nodes; i++)
            if (m->body.nodes[i]->op == OP_attn &&
                dst_index(m, m->body.nodes[i]->src[0]) == y->node)
                return remember(m, t, i, true), -1;
    if (is_op(t, "MUL_MAT") && y && y->part) return remember(m, t, y->node, true), -1;
    if (!x || !x->part) return -1;
    if (!is_op(t, "CONT")) return remember(m, t, x->node, true), -1;
    return remember(m, t, x->node, false);
}

static int recognise(struct ggml_map *m, const struct ggml_tensor *t) {
    for (int i = 0; i < m->body.n_nodes; i++) {
        if (m->done[i] || !matches(m, i, t)) continue;
        m->done[i] = true;
        return remember(m, t, i, false);
    }
    if (is_op(t, "UNARY")) { /* half of a swiglu: the gate is what matters */
        int gate = node_from(m, t, 0);
        if (gate >= 0) remember(m, t, gate, false);
        return -1;
    }
    return attention_part(m, t);
}

/* ---- nodes for showing ----------------------------------------------------------------------- */

static const struct node *for_rows(struct ggml_map *m, const struct node *n, int64_t rows) {
    m->node = *n;
    m->dst = *n->dst;
    m->dst.ne[1] = rows;
    m->node.dst = &m->dst;
    if (n->op == OP_set_rows) {
        m->cells = *n->src[1];
        m->cells.ne[0] = rows;
        m->node.src[1] = &m->cells;
    }
    return &m->node;
}

/* A cache of V that lies column by column. */
static bool is_transposed(const struct ggml_tensor *t) {
    if (!is_op(t, "CPY")) return false;
    for (const struct ggml_tensor *x = t->src[0]; x; x = is_window(x) ? x->src[0] : NULL)
        if (is_op(x, "TRANSPOSE") || strstr(x->name, "(transposed)")) return true;
    return false;
}

static bool is_plain(enum ggml_type theirs, const struct tensor *ours) {
    return (uint32_t)theirs == qtype_info((enum qtype)ours->type)->gguf_id;
}

void ggml_map_begin(struct ggml_map *m) {
    m->n_known = 0;
}

const struct node *ggml_map_node(struct ggml_map *m, const struct ggml_tensor *t) {
    /* The next micro-batch of the same decode begins where tokens are looked up. */
    if (is_op(t, "GET_ROWS") && is_weight(t, 0, m->model.token_embd)) {
        m->n_known = 0;
        memset(m->done, 0, (size_t)m->body.n_nodes * sizeof *m->done);
    }
    const struct known *x = is_window(t) ? from(m, t, 0) : NULL;
    if (is_window(t) && !is_op(t, "CONT") && !is_op(t, "GET_ROWS")) {
        if (x) remember(m, t, x->node, x->part); /* copies of it for other devices have its name */
        return NULL;
    }
    int i = recognise(m, t);
    if (i < 0) return NULL;
    const struct node *n = m->body.nodes[i];
    if (!is_plain(t->type, n->dst) || !ggml_is_contiguous(t) || is_transposed(t)) return NULL;
    int64_t n_cols = n->dst->ne[0], elements = ggml_nelements(t);
    if (is_op(t, "SET_ROWS")) {
        if (t->ne[0] != n_cols || ggml_n_dims(t) > 2) return NULL; /* V may lie transposed */
        return for_rows(m, n, t->src[1]->ne[0]);
    }
    return elements % n_cols ? NULL : for_rows(m, n, elements / n_cols);
}

const struct node *ggml_map_last(const struct ggml_map *m) {
    return &m->node;
}

const struct node *ggml_map_output(struct ggml_map *m, int64_t n) {
    return for_rows(m, m->head.nodes[0], n);
}
