/* SPDX-License-Identifier: MIT
 * op_swiglu_avx512.c - silu(gate) * up; contract in op.h. */
#include "exp_avx512.h"
#include "op.h"

#define PIECE 4096 /* elements of one row */

static void swiglu_row(const float *gate, const float *up, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __m512 silu = silu_f32x16(_mm512_maskz_loadu_ps(m, gate + i));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *gate = node->src[0], *up = node->src[1];
    int64_t n = gate->ne[0], per_row = (n + PIECE - 1) / PIECE;
    int64_t grain = n < PIECE ? PIECE / n : 1;
    for (int64_t j, end; work_rows(w, gate->ne[1] * per_row, grain, &j, &end);)
        for (; j < end; j++) {
            int64_t t = j / per_row, i = j % per_row * PIECE;
            swiglu_row((const float *)tensor_row(gate, t) + i, (const float *)tensor_row(up, t) + i,
                       (float *)tensor_row(node->dst, t) + i, n - i < PIECE ? n - i : PIECE);
        }
}

const struct op_cell op_swiglu_avx512 = { .run = run };
