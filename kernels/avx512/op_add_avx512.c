/* SPDX-License-Identifier: MIT
 * op_add_avx512.c - sum of two activations, or of an activation and a bias; contract in op.h. */
#include "exp_avx512.h"
#include "op.h"

static void run(const struct node *node, struct work *w) {
    const struct tensor *a = node->src[0], *b = node->src[1];
    int64_t n = a->ne[0], grain = work_grain(a->row_bytes);
    for (int64_t t, end; work_rows(w, a->ne[1], grain, &t, &end);)
        for (; t < end; t++) {
            const float *x = tensor_row(a, t), *y = tensor_row(b, b->ne[1] == 1 ? 0 : t);
            float *z = tensor_row(node->dst, t);
            for (int64_t i = 0; i < n; i += 16) {
                __mmask16 m = lanes16(n - i);
                __m512 sum =
                    _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i));
                _mm512_mask_storeu_ps(z + i, m, sum);
            }
        }
}

const struct op_cell op_add_avx512 = { .run = run };
