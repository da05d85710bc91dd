/* SPDX-License-Identifier: MIT
 * chain_ffn_tmpl.h - a whole feed-forward block of many tokens, for a column whose cells have a
 * glu: the products with gate and up leave as activations of the last product, so that nothing of
 * size n_tok x n_ff is written in f32, read by swiglu, written, read and rounded. */
#ifndef GGAUGE_CHAIN_FFN_TMPL_H
#define GGAUGE_CHAIN_FFN_TMPL_H

#include "mul_mat_tmpl.h"

/* gate, up, swiglu, down */
enum { FFN_GATE, FFN_UP, FFN_GLU, FFN_DOWN, FFN_NODES };

/* The column's own. */
static inline const struct qkernel *ffn_cell(enum column c, const struct node *n) {
    enum column found = COL_none;
    const struct qkernel *k = node_qkernel(c, n, &found);
    return found == c && k->glu ? k : NULL;
}

static inline bool ffn_takes(enum column c, const struct node *const *n) {
    if (n[FFN_GATE]->op != OP_mul_mat || n[FFN_UP]->op != OP_mul_mat ||
        n[FFN_GLU]->op != OP_swiglu || n[FFN_DOWN]->op != OP_mul_mat)
        return false;
    const struct tensor *gate = n[FFN_GATE]->src[0], *up = n[FFN_UP]->src[0];
    return n[FFN_GATE]->src[1] == n[FFN_UP]->src[1] && n[FFN_GLU]->src[0] == n[FFN_GATE]->dst &&
           n[FFN_GLU]->src[1] == n[FFN_UP]->dst && n[FFN_DOWN]->src[1] == n[FFN_GLU]->dst &&
           gate->type == up->type && gate->row_bytes == up->row_bytes && ffn_cell(c, n[FFN_GATE]) &&
           ffn_cell(c, n[FFN_DOWN]);
}

/* Bytes of activations of a product. */
static inline size_t ffn_act_bytes(enum column c, const struct node *n) {
    return (mul_mat_shared_bytes(c, n) + 63) / 64 * 64;
}

static inline size_t ffn_shared_bytes(enum column c, const struct node *const *n) {
    return ffn_act_bytes(c, n[FFN_GATE]) + ffn_act_bytes(c, n[FFN_DOWN]);
}

static inline size_t ffn_scratch_bytes(enum column c, const struct node *const *n) {
    const size_t a = mul_mat_scratch_bytes(c, n[FFN_GATE]);
    const size_t b = mul_mat_scratch_bytes(c, n[FFN_DOWN]);
    return a > b ? a : b;
}

static inline void ffn_run(enum column c, const struct node *const *n, struct work *w) {
    const struct tensor *gate = n[FFN_GATE]->src[0], *up = n[FFN_UP]->src[0];
    const struct qkernel *k = ffn_cell(c, n[FFN_GATE]), *down = ffn_cell(c, n[FFN_DOWN]);
    const int64_t n_embd = gate->ne[0], n_ff = tensor_rows(gate);
    const int64_t n_tok = tensor_rows(n[FFN_GATE]->src[1]);
    const size_t x_stride = qtype_row_bytes(k->act, n_embd);
    const size_t y_stride = qtype_row_bytes(down->act, n_ff);
    char *x = w->shared, *y = x + ffn_act_bytes(c, n[FFN_GATE]);
    mul_mat_lay(qkernel_find(c, k->act, false, NULL), k, n[FFN_GATE], x, x_stride, w);
    work_barrier(w);
    /* Half as many rows of each matrix as a product would take of one. */
    const int64_t m = k->glu_rows, chunk = (mul_mat_chunk(k, n_ff) / 2 + m - 1) / m * m;
    for (int64_t r, end; work_rows(w, n_ff, chunk, &r, &end);)
        k->glu(n_embd, tensor_row(gate, r), tensor_row(up, r), gate->row_bytes, end - r, x,
               x_stride, n_tok, y + (size_t)k->act_group * qtype_row_bytes(down->act, r), y_stride,
               w->scratch);
    work_barrier(w);
    const int64_t n_rows = tensor_rows(n[FFN_DOWN]->src[0]);
    for (int64_t r, end; work_rows(w, n_rows, mul_mat_chunk(down, n_rows), &r, &end);)
        mul_mat_rows(down, n[FFN_DOWN], y, y_stride, r, end - r, w);
}

/* The chain cell of column c. */
#define CHAIN_FFN_CELL(c)                                                                          \
    static bool takes(const struct node *const *n) {                                               \
        return ffn_takes(COL_##c, n);                                                              \
    }                                                                                              \
    static void run(const struct node *const *n, struct work *w) {                                 \
        ffn_run(COL_##c, n, w);                                                                    \
    }                                                                                              \
    static size_t shared_bytes(const struct node *const *n) {                                      \
        return ffn_shared_bytes(COL_##c, n);                                                       \
    }                                                                                              \
    static size_t scratch_bytes(const struct node *const *n) {                                     \
        return ffn_scratch_bytes(COL_##c, n);                                                      \
    }                                                                                              \
    const struct chain_cell chain_ffn_##c = { .n_nodes = FFN_NODES,                                \
                                              .takes = takes,                                      \
                                              .run = run,                                          \
                                              .shared_bytes = shared_bytes,                        \
                                              .scratch_bytes = scratch_bytes }

#endif
