/* SPDX-License-Identifier: MIT
 * op_rms_norm_avx2.c - root mean square norm of each vector; contract in op.h.
 *
 * Squares in f32, their sum in f64, the rest in f32, as the field computes it. */
#include <math.h>

#include "base/fault.h"
#include "simd_avx2.h"
#include "tmpl/rms_norm_tmpl.h"

static double sum_squares(const float *x, int64_t n) {
    __m256d s0 = _mm256_setzero_pd(), s1 = s0;
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = LIKELY(i + 8 <= n) ? _mm256_loadu_ps(x + i)
                                      : _mm256_maskload_ps(x + i, tail_mask(n - i));
        v = _mm256_mul_ps(v, v);
        s0 = _mm256_add_pd(s0, _mm256_cvtps_pd(_mm256_castps256_ps128(v)));
        s1 = _mm256_add_pd(s1, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
    }
    return hsum_f64(_mm256_add_pd(s0, s1));
}

static void norm(const float *x, const float *weight, float *y, int64_t n, float eps) {
    float mean = (float)(sum_squares(x, n) / (FAULT(norm_mean) ? 1 : (double)n));
    if (FAULT(norm_eps)) eps *= 1000;
    float scale = 1.0f / sqrtf(mean + eps);
    const __m256 s = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), s);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
    }
    for (; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void run(const struct node *node, struct work *w) {
    rms_norm_run(norm, node, w);
}

const struct op_cell op_rms_norm_avx2 = { .run = run };
