/* SPDX-License-Identifier: MIT
 * op_rms_norm_avx512.c - root mean square norm of each vector; contract in op.h.
 *
 * Squares in f32, their sum in f64, the rest in f32, as the field computes it. */
#include <math.h>

#include "exp_avx512.h"
#include "tmpl/rms_norm_tmpl.h"

static double sum_squares(const float *x, int64_t n) {
    __m512d s0 = _mm512_setzero_pd(), s1 = s0;
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes16(n - i), x + i);
        v = _mm512_mul_ps(v, v);
        s0 = _mm512_add_pd(s0, _mm512_cvtps_pd(_mm512_castps512_ps256(v)));
        s1 = _mm512_add_pd(s1, _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)));
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(s0, s1));
}

static void norm(const float *x, const float *weight, float *y, int64_t n, float eps) {
    float mean = (float)(sum_squares(x, n) / (double)n);
    const __m512 s = _mm512_set1_ps(1.0f / sqrtf(mean + eps));
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), s);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, weight + i)));
    }
}

static void run(const struct node *node, struct work *w) {
    rms_norm_run(norm, node, w);
}

const struct op_cell op_rms_norm_avx512 = { .run = run };
