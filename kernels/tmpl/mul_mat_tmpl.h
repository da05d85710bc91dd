/* SPDX-License-Identifier: MIT
 * mul_mat_tmpl.h - the mul_mat op of any column whose types have a mul_mat: the team turns the
 * activations into the type that the weights want, once, and shares the rows of the weights.
 *
 * The size of a chunk does not depend on the number of threads, and a cell's result does not depend
 * on the chunk, so 1 or N threads give the same bits. */
#ifndef GGAUGE_MUL_MAT_TMPL_H
#define GGAUGE_MUL_MAT_TMPL_H

#include <math.h>
#include <string.h>

#include "backend.h"
#include "base/fault.h"

/* Weight rows of a chunk, a multiple of PACK_ROWS. 64 rows share what it costs to lay out the
 * activations, which is worth 5 to 10 % at 512 tokens; a small matrix is cut finer, so that many
 * threads find work. A cell that wants more gets an 8th of the matrix, in whole panels of 32 rows:
 * of a matrix of 2048 rows 256, which is 10 % faster than 128, and 8 threads find work. */
static_assert(32 % PACK_ROWS == 0, "a chunk begins with a group of a packed copy");
static inline int64_t mul_mat_chunk(const struct qkernel *k, int64_t n_rows) {
    if (!k->chunk_rows) return n_rows < 4096 ? 32 : 64;
    const int64_t share = (n_rows / 8 + 31) / 32 * 32;
    return share < 32 ? 32 : share < k->chunk_rows ? share : k->chunk_rows;
}

/* Bytes of the quantised activations. */
static inline size_t mul_mat_shared_bytes(enum column c, const struct node *n) {
    const struct qkernel *k = node_qkernel(c, n, NULL);
    const struct tensor *x = n->src[1];
    if (k->act == QT_f32) return 0;
    return (size_t)qkernel_act_rows(k, tensor_rows(x)) * qtype_row_bytes(k->act, x->ne[0]);
}

static inline size_t mul_mat_scratch_bytes(enum column c, const struct node *n) {
    return node_qkernel(c, n, NULL)->mul_mat_scratch(n->src[0]->ne[0]);
}

/* The activations of token t of the node as k wants them, in `acts`; q: the cell that quantises
 * them. */
static inline void mul_mat_act(const struct qkernel *q, const struct qkernel *k,
                               const struct node *node, int64_t t, char *acts, size_t stride) {
    const struct tensor *x = node->src[1];
    const float *from = tensor_row(x, FAULT(same_logits) && node->il < 0 ? 0 : t);
    const int64_t g = k->act_group;
    if (g)
        q->quantize_pieces(from, act_in_group(acts, stride, t, g), (size_t)g * 64, x->ne[0]);
    else
        q->quantize_row(from, acts + (size_t)t * stride, x->ne[0], NULL);
}

/* Those of all tokens, row stride `stride`; the team's work. Returns the token that the fault
 * "race" leaves until after this thread's first products, or -1. */
static inline int64_t mul_mat_lay(const struct qkernel *q, const struct qkernel *k,
                                  const struct node *node, char *acts, size_t stride,
                                  struct work *w) {
    const int64_t n_tok = tensor_rows(node->src[1]), grain = work_grain(node->src[1]->row_bytes);
    int64_t late = -1;
    for (int64_t t, end; work_rows(w, n_tok, grain, &t, &end);) {
        if (FAULT(race) && w->ith > 0 && late < 0) late = t++;
        for (; t < end; t++)
            mul_mat_act(q, k, node, t, acts, stride);
    }
    return late;
}

/* Seeded faults: what wrong indices leave in rows r .. r + n - 1 of the result. */
static inline void mul_mat_faults(const struct node *node, int64_t r, int64_t n) {
    const int64_t n_tok = tensor_rows(node->src[1]);
    const bool ffn_out = !strncmp(node->dst->name, "ffn_out", 7);
    int64_t right = n_tok; /* tokens whose results are */
    if (FAULT(cols_2_3) && (n_tok == 2 || n_tok == 3)) right = n_tok - 1;
    if (FAULT(cols_17) && n_tok > 16 && n_tok < 64 && n_tok % 16) right = n_tok / 16 * 16;
    for (int64_t t = n_tok - 1; t >= right; t--)
        memcpy((float *)tensor_row(node->dst, t) + r, (float *)tensor_row(node->dst, t - 1) + r,
               (size_t)n * sizeof(float));
    if (FAULT(nan_late) && fault_chunk() >= 4 && ffn_out && node->il == 1 && r == 0)
        *(float *)tensor_row(node->dst, 0) = NAN;
    if (FAULT(one_row) && ffn_out && node->il == 5 && r == 0)
        for (int64_t t = n_tok / 2; t < n_tok / 2 + 32 && t < n_tok; t++) {
            float *y = tensor_row(node->dst, t);
            y[16] = y[17];
        }
}

/* Seeded fault: results from a packed copy whose rows have changed places in pairs. */
static inline void mul_packed_faults(float *dst, int64_t n) {
    for (int64_t i = 0; FAULT(packed_rows) && i + 1 < n; i += 2) {
        const float first = dst[i];
        dst[i] = dst[i + 1];
        dst[i + 1] = first;
    }
}

/* The products with activations as k wants them. */
static inline void mul_mat_rows(const struct qkernel *k, const struct node *node, const char *acts,
                                size_t stride, int64_t r, int64_t n, struct work *w) {
    const struct tensor *W = node->src[0], *dst = node->dst;
    const struct packed *p = node->packed;
    const int64_t n_tok = tensor_rows(node->src[1]);
    float *to = (float *)dst->data + r;
    if (p && p->cell == k && n_tok == 1) {
        k->mul_packed(W->ne[0], (const char *)p->data + (size_t)r * p->row_bytes, p->row_bytes, n,
                      acts, stride, to, w->scratch);
        mul_packed_faults(to, n);
    } else {
        k->mul_mat(W->ne[0], tensor_row(W, r), W->row_bytes, n, acts, stride, n_tok, to,
                   (int64_t)(dst->row_bytes / sizeof(float)), w->scratch);
    }
    mul_mat_faults(node, r, n);
}

/* src[0] = W [n_rows, n], src[1] = x f32 [n_tok, n], dst [n_tok, n_rows]. */
static inline void mul_mat_run(enum column c, const struct node *node, struct work *w) {
    const struct tensor *x = node->src[1];
    const struct qkernel *k = node_qkernel(c, node, NULL),
                         *q = qkernel_find(c, k->act, false, NULL);
    const int64_t n_rows = tensor_rows(node->src[0]), chunk = mul_mat_chunk(k, n_rows);
    const char *acts = x->data;
    size_t stride = x->row_bytes;
    int64_t late = -1;

    if (k->act != QT_f32) {
        stride = qtype_row_bytes(k->act, x->ne[0]);
        if (!w->kept) {
            late = mul_mat_lay(q, k, node, w->shared, stride, w);
            work_barrier(w);
        }
        acts = w->shared;
    } else if (FAULT(same_logits) && node->il < 0) {
        stride = 0;
    }
    for (int64_t r, end; work_rows(w, n_rows, chunk, &r, &end);) {
        mul_mat_rows(k, node, acts, stride, r, end - r, w);
        if (FAULT(race) && late >= 0) {
            mul_mat_act(q, k, node, late, w->shared, stride);
            late = -1;
        }
    }
}

#endif
