/* SPDX-License-Identifier: MIT
 * op_swiglu_avx512.c - silu(gate) * up; contract in op.h. */
#include "exp_avx512.h"
#include "tmpl/swiglu_tmpl.h"

static void swiglu_row(const float *gate, const float *up, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __m512 silu = silu_f32x16(_mm512_maskz_loadu_ps(m, gate + i));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void run(const struct node *node, struct work *w) {
    swiglu_run(swiglu_row, node, w);
}

const struct op_cell op_swiglu_avx512 = { .run = run };
