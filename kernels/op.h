/* SPDX-License-Identifier: MIT
 * op.h - the rows of the table of operations, the contract of each, and what a cell is.
 *
 * OP_LIST is the only registration of an op. Y = the column has its own cell, a constant named
 * op_<name>_<column> of struct op_cell in kernels/<column>/op_<name>_<column>.c.
 *
 * Shapes are slowest first. Everything is f32 unless said otherwise; sources never overlap dst.
 * Shapes and types are checked once, when the graph is built (harness/model/graph.c); a cell may
 * rely on them.
 *
 *   get_rows    dst [n_tok, n] = rows of table [n_rows, n] (any type, without gain) at
 *               ids i32 [n_tok]
 *   rms_norm    dst [n_tok, n_vec, n] = x / sqrt(mean(x^2) + eps) * weight [n], for each vector of
 * n
 *               (n_vec > 1: one norm per head, p.rms_norm.n = n)
 *   add         dst [n_tok, n] = a [n_tok, n] + b [n_tok, n], or + b [n] for every token
 *   swiglu      dst [n_tok, n] = silu(gate) * up
 *   mul_mat     dst [n_tok, n_rows] = gain * x [n_tok, n] * transpose(W [n_rows, n]), W of any type
 *   rope_table  dst [n_tok, n_rot] = m cos(theta_i), m sin(theta_i) interleaved by i < n_rot / 2,
 * for
 *               pos i32 [n_tok] and optional frequency divisors [n_rot / 2]
 *   rope        dst [n_tok, n_head, n_embd_head] = x with the first n_rot elements of each head
 *               rotated by the table; pairs (2i, 2i + 1) for NORM, (i, i + n_rot / 2) for NEOX
 *   set_rows    row cell[t] of dst [n_cells, n] (f32, f16 or q8_0) = x [n_tok, n], cell i32
 * [n_tok];
 *               other rows keep their content
 *   attn        dst [n_tok, n_head, n_embd_head_v]: softmax(scale q k^T) v over the cells that
 * token t
 *               sees: cells [first[t], first[t] + pos[t]], first and pos i32 [n_tok]; head h reads
 *               kv head h / (n_head / n_head_kv); k [n_cells, n_head_kv, n_embd_head_k] and v
 *               [n_cells, n_head_kv, n_embd_head_v] of type f32, f16 or q8_0
 *   lse         dst f64 [n_rows, 3] = for logits [n_rows, n]: the maximum, ln(sum exp(l - maximum))
 *               with the sum in f64, and the index of the first maximum; NaN logits give NaN */
#ifndef GGAUGE_OP_H
#define GGAUGE_OP_H

#include <stdbool.h>

#include "base/tensor.h"
#include "base/threads.h"
#include "qtype.h"

/*    name        n_src  ref avx2 avx512 amx requant cuda */
#define OP_LIST(X)                                                                                 \
    X(get_rows,   2, Y, _, _, _, _, Y)                                                             \
    X(rms_norm,   2, Y, Y, Y, _, _, Y)                                                             \
    X(add,        2, Y, _, Y, _, _, Y)                                                             \
    X(swiglu,     2, Y, Y, Y, _, _, Y)                                                             \
    X(mul_mat,    2, Y, Y, Y, Y, Y, Y)                                                             \
    X(rope_table, 2, Y, _, _, _, _, Y)                                                             \
    X(rope,       2, Y, _, Y, _, _, Y)                                                             \
    X(set_rows,   2, Y, _, Y, _, _, Y)                                                             \
    X(attn,       5, Y, Y, Y, Y, _, Y)                                                             \
    X(lse,        1, Y, Y, Y, _, _, Y)

enum op {
#define X(name, ...) OP_##name,
    OP_LIST(X)
#undef X
    OP_count,
};

#define OP_MAX_SRC 5

enum rope_mode { ROPE_NORM, ROPE_NEOX };

union op_params {
    struct {
        int64_t n; /* length of a vector */
        float eps;
    } rms_norm;
    struct {
        /* The ref cell rounds x through this type first: QT_f32 leaves it alone; any other shows
         * what a column that wants this activation type should get. Other columns ignore it. */
        enum qtype act;
        /* And weights as cells do that want activations of this type (qtype_round_weights). */
        enum qtype weights_for;
        /* Take the cell that would multiply so many tokens, and with it its way of rounding; 0 = as
         * many as there are (backend.h: node_tokens). */
        int64_t n_tok_as;
    } mul_mat;
    struct {
        int n_rot;
        double freq_base, freq_scale;
        double ext_factor, attn_factor, beta_fast, beta_slow; /* YaRN */
        int64_t n_ctx_orig;
    } rope_table;
    struct {
        enum rope_mode mode;
        int n_rot;
        int64_t n_head, n_embd_head;
    } rope;
    struct {
        int64_t n_head, n_head_kv, n_embd_head_k, n_embd_head_v;
        float scale;
        int64_t n_tok_as; /* as that of mul_mat */
    } attn;
};

struct node {
    enum op op;
    int il;                   /* layer, -1 outside of layers; names repeat, see `occurrence` */
    int occurrence;           /* 0 for the first node of this name in the graph, then 1, ... */
    struct tensor *dst;       /* its name is the node's name: "attn_norm-0" */
    const struct tensor *src[OP_MAX_SRC]; /* NULL where optional and absent */
    const struct packed *packed; /* of mul_mat: a copy of src[0], or NULL; borrowed (qtype.h) */
    union op_params p;
};

/* Whether a node normalises parts of rows, heads, each by itself. */
static inline bool norms_heads(const struct node *n) {
    return n->op == OP_rms_norm && n->p.rms_norm.n != n->dst->ne[0];
}

struct op_cell {
    /* Run by every thread of the team together; may use work_next and work_barrier. Returns with no
     * barrier: the caller puts one between nodes. */
    void (*run)(const struct node *n, struct work *w);
    size_t (*shared_bytes)(const struct node *n);  /* NULL = none */
    size_t (*scratch_bytes)(const struct node *n); /* per thread; NULL = none */
    /* Of attn: a node of fewer tokens (backend.h: node_tokens) goes to the parent column's cell. */
    int64_t min_tokens;
};

/* Nodes in a row that a column computes at once, without the results in between; the same bits as
 * one by one. One row of CHAIN_LIST registers one, as op_<name>_<column> above: a constant named
 * chain_<name>_<column>.
 *
 *   ffn   mul_mat (gate), mul_mat (up) of the same x, swiglu of both, mul_mat of that */
/*    name  ref avx2 avx512 amx requant cuda */
#define CHAIN_LIST(X) X(ffn, _, _, _, Y, Y, _)

struct chain_cell {
    int n_nodes;
    /* Whether nodes [n_nodes] are such a chain, of types and shapes that the cell is for. */
    bool (*takes)(const struct node *const *nodes);
    /* As those of struct op_cell. */
    void (*run)(const struct node *const *nodes, struct work *w);
    size_t (*shared_bytes)(const struct node *const *nodes);
    size_t (*scratch_bytes)(const struct node *const *nodes);
};

const char *op_name(enum op op);

#endif
