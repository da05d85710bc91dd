/* SPDX-License-Identifier: MIT
 * graph.h - the computation of one micro-batch as a flat list of nodes in run order.
 *
 * An architecture builds it with the functions below; they check shapes and types once, so that
 * cells need not. The graph knows no backend. Every builder returns the new tensor, or NULL with *e
 * set, and passes a NULL input through, so calls can be chained and checked once.
 *
 * Nodes carry the field's names ("attn_norm-0", "Qcur-0", "ffn_out-3", "result_norm"); names
 * repeat, so the key is (name, occurrence). */
#ifndef GGAUGE_GRAPH_H
#define GGAUGE_GRAPH_H

#include "base/arena.h"
#include "model/kv.h"
#include "model/model.h"

struct graph {
    struct arena mem;      /* nodes and tensors; rewound by graph_begin */
    struct node **nodes;   /* [n_nodes] in run order */
    int n_nodes, max_nodes;
    int64_t n_tok;         /* tokens of this micro-batch */
    int64_t n_out;         /* tokens whose logits are wanted */
    struct kv_cache *kv;

    /* Inputs, i32, filled by the caller before a run: [n_tok], out_rows [n_out]. */
    struct tensor *in_token, *in_pos, *in_cell, *in_first, *out_rows;
    struct tensor *rope;        /* cosines and sines of the positions */
    struct tensor *result_norm; /* [n_out, n_embd]; NULL if n_out = 0 */

    /* Of a head graph: rows of result_norm in (the caller sets ->data), logits and op lse out. */
    struct tensor *in_norm, *logits, *lse;

    size_t data_bytes;     /* activation memory that graph_plan asks for */
};

int graph_init(struct graph *g, const struct model *m, struct kv_cache *kv, struct err *e);
void graph_release(struct graph *g);

/* Build the graph of n_tok tokens, n_out of them wanted, up to result_norm. */
int graph_build(struct graph *g, const struct model *m, int64_t n_tok, int64_t n_out,
                struct err *e);

/* Every product and attention takes the cell for n_tok tokens (op.h: n_tok_as); 0 = for as many as
 * there are. */
void graph_round_as(struct graph *g, int64_t n_tok);

/* Every product of the ref column takes weights rounded as the cells of column c round them. */
void graph_weights_as(struct graph *g, enum column c);

/* Build the graph of the output matrix and the log-sum-exp for n_rows rows of result_norm. */
int graph_build_head(struct graph *g, const struct model *m, int64_t n_rows, struct err *e);

/* Give every tensor that a node writes an offset in one block (stored in ->data relative to NULL);
 * memory is reused after a tensor's last reader. graph_place then makes the offsets pointers. */
int graph_plan(struct graph *g, struct err *e);
void graph_place(struct graph *g, void *base);

/* ---- builders -------------------------------------------------------------------------------- */

struct tensor *g_get_rows(struct graph *g, const char *name, int il, const struct tensor *table,
                          const struct tensor *ids, struct err *e);
/* n = length of a vector; x may hold several a row (one per head). */
struct tensor *g_rms_norm(struct graph *g, const char *name, int il, const struct tensor *x,
                          const struct tensor *weight, double eps, struct err *e);
/* A bias [n], or NULL: x is passed through. */
struct tensor *g_add(struct graph *g, const char *name, int il, struct tensor *x,
                     const struct tensor *bias, struct err *e);
/* a + b of the same shape: the residual stream. */
struct tensor *g_sum(struct graph *g, const char *name, int il, const struct tensor *a,
                     const struct tensor *b, struct err *e);
struct tensor *g_mul_mat(struct graph *g, const char *name, int il, const struct tensor *w,
                         const struct tensor *x, struct err *e);
struct tensor *g_rope(struct graph *g, const char *name, int il, const struct tensor *x,
                      const struct hparams *hp, enum rope_mode mode, int64_t n_head, struct err *e);
struct tensor *g_swiglu(struct graph *g, const char *name, int il, const struct tensor *gate,
                        const struct tensor *up, struct err *e);
/* Store k and v of this micro-batch in the cache of layer il; false with *e set. */
bool g_store(struct graph *g, int il, const struct tensor *k, const struct tensor *v,
             struct err *e);
/* Causal attention of q over the cache of layer il: node kqv_out. */
struct tensor *g_attn(struct graph *g, int il, const struct hparams *hp, const struct tensor *q,
                      struct err *e);
/* The rows of x whose logits are wanted, as node `name`; x itself if those are all. */
struct tensor *g_wanted_rows(struct graph *g, const char *name, int il, struct tensor *x,
                             struct err *e);

#endif
