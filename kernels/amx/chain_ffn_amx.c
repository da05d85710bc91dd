/* SPDX-License-Identifier: MIT
 * chain_ffn_amx.c - a whole feed-forward block of many tokens on tiles: the products with gate and
 * up leave their tiles as activations of the last product, so that nothing of size n_tok x n_ff is
 * written in f32, read by swiglu, written, read and rounded. */
#include "tmpl/mul_mat_tmpl.h"

/* gate, up, swiglu, down */
enum { GATE, UP, GLU, DOWN, NODES };

/* glu takes whole panels of rows. Of 16 tokens one is a tile of activations (qkernel_lay_act). */
enum { PANEL_ROWS = 32, PANEL_BYTES = 16 * PANEL_ROWS * 2 };

static const struct qkernel *amx_cell(const struct node *n) {
    enum column found = COL_none;
    const struct qkernel *k = node_qkernel(COL_amx, n, &found);
    return found == COL_amx && k->glu ? k : NULL;
}

static bool takes(const struct node *const *n) {
    if (n[GATE]->op != OP_mul_mat || n[UP]->op != OP_mul_mat || n[GLU]->op != OP_swiglu ||
        n[DOWN]->op != OP_mul_mat)
        return false;
    const struct tensor *gate = n[GATE]->src[0], *up = n[UP]->src[0];
    return n[GATE]->src[1] == n[UP]->src[1] && n[GLU]->src[0] == n[GATE]->dst &&
           n[GLU]->src[1] == n[UP]->dst && n[DOWN]->src[1] == n[GLU]->dst &&
           gate->type == up->type && gate->row_bytes == up->row_bytes &&
           tensor_rows(gate) % PANEL_ROWS == 0 && amx_cell(n[GATE]) && amx_cell(n[DOWN]);
}

/* Bytes of activations of a product. */
static size_t act_bytes(const struct node *n) {
    return (mul_mat_shared_bytes(COL_amx, n) + 63) / 64 * 64;
}

static size_t shared_bytes(const struct node *const *n) {
    return act_bytes(n[GATE]) + act_bytes(n[DOWN]);
}

static size_t scratch_bytes(const struct node *const *n) {
    const size_t a = mul_mat_scratch_bytes(COL_amx, n[GATE]);
    const size_t b = mul_mat_scratch_bytes(COL_amx, n[DOWN]);
    return a > b ? a : b;
}

static void run(const struct node *const *n, struct work *w) {
    const struct tensor *gate = n[GATE]->src[0], *up = n[UP]->src[0];
    const struct qkernel *k = amx_cell(n[GATE]), *down = amx_cell(n[DOWN]);
    const int64_t n_embd = gate->ne[0], n_ff = tensor_rows(gate);
    const int64_t n_tok = tensor_rows(n[GATE]->src[1]);
    const size_t x_stride = qtype_row_bytes(k->act, n_embd);
    const size_t y_stride = qtype_row_bytes(down->act, n_ff);
    char *x = w->shared, *y = x + act_bytes(n[GATE]);
    mul_mat_lay(qkernel_find(COL_amx, k->act, false, NULL), k, n[GATE], x, x_stride, w);
    work_barrier(w);
    /* Half as many rows of each matrix as a product would take of one, in whole panels. */
    const int64_t chunk = (mul_mat_chunk(k, n_ff) / 2 + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    for (int64_t r, end; work_rows(w, n_ff, chunk, &r, &end);)
        k->glu(n_embd, tensor_row(gate, r), tensor_row(up, r), gate->row_bytes, end - r, x,
               x_stride, n_tok, y + r / PANEL_ROWS * PANEL_BYTES, y_stride, w->scratch);
    work_barrier(w);
    const int64_t n_rows = tensor_rows(n[DOWN]->src[0]);
    for (int64_t r, end; work_rows(w, n_rows, mul_mat_chunk(down, n_rows), &r, &end);)
        mul_mat_rows(down, n[DOWN], y, y_stride, r, end - r, w);
}

const struct chain_cell chain_ffn_amx = { .n_nodes = NODES,
                                          .takes = takes,
                                          .run = run,
                                          .shared_bytes = shared_bytes,
                                          .scratch_bytes = scratch_bytes };
