/* SPDX-License-Identifier: MIT
 * op_rms_norm_ref.c - root mean square norm of each vector; contract in op.h. */
#include <math.h>

#include "op.h"

static void norm(const float *x, const float *weight, float *y, int64_t n, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double scale = 1.0 / sqrt(sum / (double)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)(x[i] * scale * weight[i]);
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0], *weight = node->src[1];
    int64_t n = node->p.rms_norm.n, n_vec = x->ne[0] / n;
    for (int64_t t; (t = work_next(w)) < x->ne[1];) {
        const float *in = tensor_row(x, t);
        float *out = tensor_row(node->dst, t);
        for (int64_t v = 0; v < n_vec; v++)
            norm(in + v * n, weight->data, out + v * n, n, node->p.rms_norm.eps);
    }
}

const struct op_cell op_rms_norm_ref = { .run = run };
