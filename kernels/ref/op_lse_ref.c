/* SPDX-License-Identifier: MIT
 * op_lse_ref.c - maximum, log-sum-exp and first maximal index of each row of logits; contract in
 * op.h. */
#include <math.h>

#include "op.h"

static void run(const struct node *node, struct work *w) {
    int64_t n = node->src[0]->ne[0];
    for (int64_t r; (r = work_next(w)) < node->src[0]->ne[1];) {
        const float *l = tensor_row(node->src[0], r);
        int64_t top = 0;
        bool nan = isnan(l[0]);
        for (int64_t i = 1; i < n; i++) {
            nan |= isnan(l[i]) != 0;
            if (l[i] > l[top]) top = i;
        }
        double max = nan ? NAN : l[top], sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += exp(l[i] - max);
        double *out = tensor_row(node->dst, r);
        out[0] = max;
        out[1] = log(sum);
        out[2] = (double)top;
    }
}

const struct op_cell op_lse_ref = { .run = run };
