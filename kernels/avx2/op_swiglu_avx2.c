/* SPDX-License-Identifier: MIT
 * op_swiglu_avx2.c - silu(gate) * up, silu(z) = z / (1 + exp(-z)); contract in op.h. */
#include "base/fault.h"
#include "exp_avx2.h"
#include "simd_avx2.h"
#include "tmpl/swiglu_tmpl.h"

ALWAYS_INLINE __m256 swiglu(__m256 gate, __m256 up) {
    if (FAULT(swiglu_swap)) {
        __m256 other = gate;
        gate = up;
        up = other;
    }
    __m256 z = FAULT(swiglu_gelu) ? _mm256_mul_ps(gate, _mm256_set1_ps(1.702f)) : gate;
    __m256 e = exp_f32x8(_mm256_xor_ps(z, _mm256_set1_ps(-0.0f)));
    __m256 silu = _mm256_div_ps(gate, _mm256_add_ps(e, _mm256_set1_ps(1.0f)));
    return _mm256_mul_ps(silu, up);
}

static void swiglu_row(const float *gate, const float *up, float *y, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, swiglu(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    __m256i mask = tail_mask(n - i);
    __m256 last = swiglu(_mm256_maskload_ps(gate + i, mask), _mm256_maskload_ps(up + i, mask));
    _mm256_maskstore_ps(y + i, mask, last);
}

static void run(const struct node *node, struct work *w) {
    swiglu_run(swiglu_row, node, w);
}

const struct op_cell op_swiglu_avx2 = { .run = run };
