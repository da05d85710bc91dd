/* SPDX-License-Identifier: MIT
 * op_mul_mat_ref.c - the reference multiply: dequantises both sides and sums in double, one order
 * of summation for every element; contract in op.h. Works for any pair of types.
 *
 * Weights of ROWS rows are held interleaved, [n, ROWS], so that the inner loop has ROWS independent
 * sums; this changes no result. */
#include <string.h>

#include "backend.h"

#define ROWS 8

static size_t align64(size_t n) {
    return (n + 63) / 64 * 64;
}

static size_t shared_bytes(const struct node *node) {
    return (size_t)(node->src[1]->ne[0] * node->src[1]->ne[1]) * sizeof(double);
}

static size_t scratch_bytes(const struct node *node) {
    size_t n = (size_t)node->src[1]->ne[0];
    enum qtype act = node->p.mul_mat.act;
    size_t act_bytes = act == QT_f32 ? 0 : qtype_row_bytes(act, (int64_t)n);
    return align64(n * ROWS * sizeof(double)) + align64(n * sizeof(float)) + align64(act_bytes);
}

/* Row t of x as double, rounded through the activation type that is asked for. */
static void load_activations(const struct node *node, int64_t t, double *out, void *scratch) {
    int64_t n = node->src[1]->ne[0];
    const float *x = tensor_row(node->src[1], t);
    if (node->p.mul_mat.act != QT_f32) {
        const struct qkernel *k = qkernel_find(COL_ref, node->p.mul_mat.act, false, NULL);
        float *y = scratch;
        void *row = (char *)scratch + align64((size_t)n * sizeof *y);
        k->quantize_row(x, row, n, NULL);
        k->dequant_row(row, y, n);
        x = y;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i];
}

/* Eight sums by name, not in an array: only so does the compiler keep them in registers. */
static void dot_rows(const double *RESTRICT w, const double *RESTRICT x, int64_t n,
                     double sum[ROWS]) {
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    for (int64_t i = 0; i < n; i++, w += ROWS) {
        double v = x[i];
        s0 += w[0] * v, s1 += w[1] * v, s2 += w[2] * v, s3 += w[3] * v;
        s4 += w[4] * v, s5 += w[5] * v, s6 += w[6] * v, s7 += w[7] * v;
    }
    const double all[ROWS] = { s0, s1, s2, s3, s4, s5, s6, s7 };
    memcpy(sum, all, sizeof all);
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *W = node->src[0], *x = node->src[1];
    int64_t n = x->ne[0], n_tok = x->ne[1], n_rows = W->ne[1];
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)W->type, false, NULL);
    double gain = qtype_info((enum qtype)W->type)->gain;
    double *xs = w->shared;

    for (int64_t t; (t = work_next(w)) < n_tok;)
        load_activations(node, t, xs + t * n, w->scratch);
    work_barrier(w);

    double *ws = w->scratch;
    float *row = (float *)((char *)w->scratch + align64((size_t)n * ROWS * sizeof *ws));
    for (int64_t c; (c = work_next(w)) * ROWS < n_rows;) {
        int64_t r0 = c * ROWS;
        int m = (int)(n_rows - r0 < ROWS ? n_rows - r0 : ROWS);
        if (m < ROWS) memset(ws, 0, (size_t)n * ROWS * sizeof *ws);
        for (int r = 0; r < m; r++) {
            k->dequant_row(tensor_row(W, r0 + r), row, n);
            qtype_round_weights((enum qtype)W->type, node->p.mul_mat.weights_for,
                                tensor_row(W, r0 + r), row, n);
            for (int64_t i = 0; i < n; i++)
                ws[i * ROWS + r] = row[i];
        }
        for (int64_t t = 0; t < n_tok; t++) {
            double sum[ROWS];
            float *dst = (float *)tensor_row(node->dst, t) + r0;
            dot_rows(ws, xs + t * n, n, sum);
            for (int r = 0; r < m; r++)
                dst[r] = (float)(gain * sum[r]);
        }
    }
}

const struct op_cell op_mul_mat_ref = { .run = run,
                                        .shared_bytes = shared_bytes,
                                        .scratch_bytes = scratch_bytes };
