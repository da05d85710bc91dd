/* SPDX-License-Identifier: MIT
 * op_add_ref.c - sum of two activations, or of an activation and a bias; contract in op.h. */
#include <string.h>

#include "base/fault.h"
#include "op.h"

static void run(const struct node *node, struct work *w) {
    const struct tensor *a = node->src[0], *b = node->src[1];
    int64_t n = a->ne[0];
    for (int64_t t; (t = work_next(w)) < a->ne[1];) {
        const float *x = tensor_row(a, t), *y = tensor_row(b, b->ne[1] == 1 ? 0 : t);
        float *z = tensor_row(node->dst, t);
        const bool is_bias = b->ne[1] == 1;
        if ((FAULT(bias) && is_bias) || (FAULT(residual) && !is_bias && t == a->ne[1] * 3 / 4)) {
            memcpy(z, x, (size_t)n * sizeof *z);
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            z[i] = x[i] + y[i];
    }
}

const struct op_cell op_add_ref = { .run = run };
