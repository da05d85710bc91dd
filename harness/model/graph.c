/* SPDX-License-Identifier: MIT
 * graph.c - building graphs and planning their memory; see graph.h. */
#include "model/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Nodes a layer may have, with room for architectures to come. */
#define NODES_PER_LAYER 40

int graph_init(struct graph *g, const struct model *m, struct kv_cache *kv, struct err *e) {
    int rc = 0;
    memset(g, 0, sizeof *g);
    g->kv = kv;
    g->max_nodes = (int)m->hp.n_layer * NODES_PER_LAYER + 32;
    g->nodes = heap_calloc((size_t)g->max_nodes, sizeof *g->nodes, e);
    if (!g->nodes) return ERR_NOMEM;
    size_t per_node = sizeof(struct node) + sizeof(struct tensor) + 6 * MEM_ALIGN;
    TRY(arena_init(&g->mem, (size_t)g->max_nodes * per_node, e));
out:
    if (rc < 0) graph_release(g);
    return rc;
}

void graph_release(struct graph *g) {
    arena_release(&g->mem);
    heap_free(g->nodes);
    memset(g, 0, sizeof *g);
}

static struct tensor *new_tensor(struct graph *g, const char *name, enum qtype type, int64_t n0,
                                 int64_t n1, struct err *e) {
    struct tensor *t = arena_push(&g->mem, sizeof *t, e);
    if (!t) return NULL;
    *t = (struct tensor){ .type = type, .ne = { n0, n1, 1, 1 } };
    t->row_bytes = qtype_row_bytes(type, n0);
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

/* Append a node whose result is dst. */
static struct node *append(struct graph *g, enum op op, int il, struct tensor *dst, struct err *e) {
    if (g->n_nodes == g->max_nodes) {
        ERR(e, ERR_UNSUPPORTED, "the graph has more than %d nodes", g->max_nodes);
        return NULL;
    }
    struct node *n = arena_push(&g->mem, sizeof *n, e);
    if (!n) return NULL;
    *n = (struct node){ .op = op, .il = il, .dst = dst };
    for (int i = g->n_nodes - 1; i >= 0 && g->nodes[i]->il == il; i--) {
        if (strcmp(g->nodes[i]->dst->name, dst->name)) continue;
        n->occurrence = g->nodes[i]->occurrence + 1;
        break;
    }
    g->nodes[g->n_nodes++] = n;
    return n;
}

/* A node with a new f32 result [n1, n0] called name, or name-il inside a layer. */
static struct node *new_node(struct graph *g, enum op op, const char *name, int il, int64_t n0,
                             int64_t n1, struct err *e) {
    char full[TENSOR_NAME_MAX];
    snprintf(full, sizeof full, il < 0 ? "%s" : "%s-%d", name, il);
    struct tensor *t = new_tensor(g, full, op == OP_lse ? QT_f64 : QT_f32, n0, n1, e);
    return t ? append(g, op, il, t, e) : NULL;
}

static bool shapes_ok(bool ok, const char *name, int il, struct err *e) {
    if (!ok) ERR(e, ERR_FORMAT, "%s-%d: shapes of its sources do not fit", name, il);
    return ok;
}

void graph_round_as(struct graph *g, int64_t n_tok) {
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->op == OP_mul_mat) g->nodes[i]->p.mul_mat.n_tok_as = n_tok;
        if (g->nodes[i]->op == OP_attn) g->nodes[i]->p.attn.n_tok_as = n_tok;
    }
}

void graph_weights_as(struct graph *g, enum column c) {
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *n = g->nodes[i];
        if (n->op != OP_mul_mat) continue;
        const struct qkernel *k = node_qkernel(c, n, NULL);
        n->p.mul_mat.weights_for = k ? k->act : QT_f32;
    }
}

struct tensor *g_get_rows(struct graph *g, const char *name, int il, const struct tensor *table,
                          const struct tensor *ids, struct err *e) {
    if (!table || !ids) return NULL;
    struct node *n = new_node(g, OP_get_rows, name, il, table->ne[0], ids->ne[0], e);
    if (!n) return NULL;
    n->src[0] = table;
    n->src[1] = ids;
    return n->dst;
}

struct tensor *g_rms_norm(struct graph *g, const char *name, int il, const struct tensor *x,
                          const struct tensor *weight, double eps, struct err *e) {
    if (!x || !shapes_ok(x->ne[0] % weight->ne[0] == 0, name, il, e)) return NULL;
    struct node *n = new_node(g, OP_rms_norm, name, il, x->ne[0], x->ne[1], e);
    if (!n) return NULL;
    n->src[0] = x;
    n->src[1] = weight;
    n->p.rms_norm.n = weight->ne[0];
    n->p.rms_norm.eps = (float)eps;
    return n->dst;
}

static struct tensor *add_node(struct graph *g, const char *name, int il, const struct tensor *a,
                               const struct tensor *b, struct err *e) {
    struct node *n = new_node(g, OP_add, name, il, a->ne[0], a->ne[1], e);
    if (!n) return NULL;
    n->src[0] = a;
    n->src[1] = b;
    return n->dst;
}

struct tensor *g_add(struct graph *g, const char *name, int il, struct tensor *x,
                     const struct tensor *bias, struct err *e) {
    if (!x || !bias) return x;
    if (!shapes_ok(bias->ne[0] == x->ne[0] && bias->ne[1] == 1, name, il, e)) return NULL;
    return add_node(g, name, il, x, bias, e);
}

struct tensor *g_sum(struct graph *g, const char *name, int il, const struct tensor *a,
                     const struct tensor *b, struct err *e) {
    if (!a || !b) return NULL;
    if (!shapes_ok(a->ne[0] == b->ne[0] && a->ne[1] == b->ne[1], name, il, e)) return NULL;
    return add_node(g, name, il, a, b, e);
}

struct tensor *g_mul_mat(struct graph *g, const char *name, int il, const struct tensor *w,
                         const struct tensor *x, struct err *e) {
    if (!x || !shapes_ok(w->ne[0] == x->ne[0], name, il, e)) return NULL;
    struct node *n = new_node(g, OP_mul_mat, name, il, w->ne[1], x->ne[1], e);
    if (!n) return NULL;
    n->src[0] = w;
    n->src[1] = x;
    n->p.mul_mat.act = QT_f32;
    return n->dst;
}

struct tensor *g_rope(struct graph *g, const char *name, int il, const struct tensor *x,
                      const struct hparams *hp, enum rope_mode mode, int64_t n_head,
                      struct err *e) {
    if (!x || !shapes_ok(x->ne[0] == n_head * hp->n_embd_head_k, name, il, e)) return NULL;
    struct node *n = new_node(g, OP_rope, name, il, x->ne[0], x->ne[1], e);
    if (!n) return NULL;
    n->src[0] = x;
    n->src[1] = g->rope;
    n->p.rope.mode = mode;
    n->p.rope.n_rot = (int)hp->n_rot;
    n->p.rope.n_head = n_head;
    n->p.rope.n_embd_head = hp->n_embd_head_k;
    return n->dst;
}

struct tensor *g_swiglu(struct graph *g, const char *name, int il, const struct tensor *gate,
                        const struct tensor *up, struct err *e) {
    if (!gate || !up || !shapes_ok(gate->ne[0] == up->ne[0], name, il, e)) return NULL;
    struct node *n = new_node(g, OP_swiglu, name, il, gate->ne[0], gate->ne[1], e);
    if (!n) return NULL;
    n->src[0] = gate;
    n->src[1] = up;
    return n->dst;
}

static bool store(struct graph *g, int il, struct tensor *cache, const struct tensor *x,
                  struct err *e) {
    if (!x || !shapes_ok(cache->ne[0] == x->ne[0], cache->name, il, e)) return false;
    struct node *n = append(g, OP_set_rows, il, cache, e);
    if (!n) return false;
    n->src[0] = x;
    n->src[1] = g->in_cell;
    return true;
}

bool g_store(struct graph *g, int il, const struct tensor *k, const struct tensor *v,
             struct err *e) {
    return store(g, il, &g->kv->k[il], k, e) && store(g, il, &g->kv->v[il], v, e);
}

struct tensor *g_attn(struct graph *g, int il, const struct hparams *hp, const struct tensor *q,
                      struct err *e) {
    if (!q) return NULL;
    struct node *n =
        new_node(g, OP_attn, "kqv_out", il, hp->n_head * hp->n_embd_head_v, q->ne[1], e);
    if (!n) return NULL;
    const struct tensor *src[] = { q, &g->kv->k[il], &g->kv->v[il], g->in_first, g->in_pos };
    memcpy(n->src, src, sizeof src);
    n->p.attn.n_head = hp->n_head;
    n->p.attn.n_head_kv = hp->n_head_kv;
    n->p.attn.n_embd_head_k = hp->n_embd_head_k;
    n->p.attn.n_embd_head_v = hp->n_embd_head_v;
    n->p.attn.scale = 1.0f / sqrtf((float)hp->n_embd_head_k);
    return n->dst;
}

struct tensor *g_wanted_rows(struct graph *g, const char *name, int il, struct tensor *x,
                             struct err *e) {
    if (!x || g->n_out == g->n_tok) return x;
    return g_get_rows(g, name, il, x, g->out_rows, e);
}

static struct tensor *rope_table(struct graph *g, const struct model *m, struct err *e) {
    const struct hparams *hp = &m->hp;
    struct node *n = new_node(g, OP_rope_table, "rope_table", -1, hp->n_rot, g->n_tok, e);
    if (!n) return NULL;
    n->src[0] = g->in_pos;
    n->src[1] = m->rope_freqs;
    n->p.rope_table.n_rot = (int)hp->n_rot;
    n->p.rope_table.freq_base = hp->rope_freq_base;
    n->p.rope_table.freq_scale = hp->rope_freq_scale;
    n->p.rope_table.ext_factor = hp->rope_scaling == ROPE_SCALING_YARN;
    n->p.rope_table.attn_factor = hp->rope_attn_factor;
    n->p.rope_table.beta_fast = 32; /* the defaults of the YaRN paper; files do not carry them */
    n->p.rope_table.beta_slow = 1;
    n->p.rope_table.n_ctx_orig = hp->n_ctx_orig;
    return n->dst;
}

static int inputs(struct graph *g, struct err *e) {
    struct {
        struct tensor **t;
        const char *name;
        int64_t n;
    } in[] = {
        { &g->in_token, "inp_tokens", g->n_tok },  { &g->in_pos, "inp_pos", g->n_tok },
        { &g->in_cell, "inp_cell", g->n_tok },     { &g->in_first, "inp_first", g->n_tok },
        { &g->out_rows, "inp_out_ids", g->n_out },
    };
    for (size_t i = 0; i < N_ELEMS(in); i++) {
        *in[i].t = new_tensor(g, in[i].name, QT_i32, in[i].n, 1, e);
        if (!*in[i].t) return ERR_NOMEM;
    }
    return 0;
}

int graph_build(struct graph *g, const struct model *m, int64_t n_tok, int64_t n_out,
                struct err *e) {
    int rc = 0;
    arena_rewind(&g->mem, 0);
    g->n_nodes = 0;
    g->n_tok = n_tok;
    g->n_out = n_out;
    g->result_norm = NULL;
    TRY(inputs(g, e));
    g->rope = rope_table(g, m, e);
    struct tensor *x = g_get_rows(g, "inp_embd", -1, m->token_embd, g->in_token, e);
    for (int il = 0; x && il < m->hp.n_layer; il++)
        x = arch_ops(m->hp.arch)->build_layer(g, m, il, x, e);
    if (!x || !g->rope) return e && e->code ? e->code : ERR_NOMEM;
    if (n_out > 0) {
        g->result_norm = g_rms_norm(g, "result_norm", -1, x, m->output_norm, m->hp.rms_eps, e);
        if (!g->result_norm) return e && e->code ? e->code : ERR_NOMEM;
    }
    TRY(graph_plan(g, e));
out:
    return rc;
}

int graph_build_head(struct graph *g, const struct model *m, int64_t n_rows, struct err *e) {
    int rc = 0;
    arena_rewind(&g->mem, 0);
    g->n_nodes = 0;
    g->n_tok = g->n_out = n_rows;
    g->in_norm = new_tensor(g, "result_norm", QT_f32, m->hp.n_embd, n_rows, e);
    g->logits = g_mul_mat(g, "result_output", -1, m->output, g->in_norm, e);
    if (!g->logits) return e && e->code ? e->code : ERR_NOMEM;
    struct node *n = new_node(g, OP_lse, "result_lse", -1, 3, n_rows, e);
    if (!n) return ERR_NOMEM;
    n->src[0] = g->logits;
    g->lse = n->dst;
    TRY(graph_plan(g, e));
out:
    return rc;
}
