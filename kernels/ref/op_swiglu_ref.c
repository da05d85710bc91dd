/* SPDX-License-Identifier: MIT
 * op_swiglu_ref.c - silu(gate) * up, silu(z) = z / (1 + exp(-z)); contract in op.h. */
#include <math.h>

#include "op.h"

static void run(const struct node *node, struct work *w) {
    const struct tensor *gate = node->src[0], *up = node->src[1];
    for (int64_t t; (t = work_next(w)) < gate->ne[1];) {
        const float *g = tensor_row(gate, t), *u = tensor_row(up, t);
        float *y = tensor_row(node->dst, t);
        for (int64_t i = 0; i < gate->ne[0]; i++)
            y[i] = (float)(g[i] / (1.0 + exp(-(double)g[i])) * u[i]);
    }
}

const struct op_cell op_swiglu_ref = { .run = run };
