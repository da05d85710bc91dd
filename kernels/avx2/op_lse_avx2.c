/* SPDX-License-Identifier: MIT
 * op_lse_avx2.c - maximum, log-sum-exp and first maximal index of each row of logits; contract in
 * op.h, segments and their combination in lse_tmpl.h. */
#include <math.h>

#include "exp_avx2.h"
#include "simd_avx2.h"
#include "tmpl/lse_tmpl.h"

/* Eight logits from l + i; lanes past the end are -inf, which neither pass notices. */
ALWAYS_INLINE __m256 load_logits(const float *l, int64_t i, int64_t n) {
    if (LIKELY(i + 8 <= n)) return _mm256_loadu_ps(l + i);
    __m256i mask = tail_mask(n - i);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(l + i, mask),
                            _mm256_castsi256_ps(mask));
}

/* max_ps(x, m) is m where x is a NaN. */
static float maximum(const float *l, int64_t n) {
    __m256 m0 = _mm256_set1_ps(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        m0 = _mm256_max_ps(_mm256_loadu_ps(l + i), m0);
        m1 = _mm256_max_ps(_mm256_loadu_ps(l + i + 8), m1);
        m2 = _mm256_max_ps(_mm256_loadu_ps(l + i + 16), m2);
        m3 = _mm256_max_ps(_mm256_loadu_ps(l + i + 24), m3);
    }
    for (; i < n; i += 8)
        m0 = _mm256_max_ps(load_logits(l, i, n), m0);
    return hmax_f32(_mm256_max_ps(_mm256_max_ps(m0, m1), _mm256_max_ps(m2, m3)));
}

static int64_t first_equal(const float *l, int64_t n, float x) {
    const __m256 v = _mm256_set1_ps(x);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        int hit = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(l + i), v, _CMP_EQ_OQ));
        if (hit) return i + __builtin_ctz((unsigned)hit);
    }
    for (; i < n; i++)
        if (l[i] == x) return i;
    return 0;
}

static void sum_exp(const float *l, int64_t n, struct lse_segment *seg) {
    const __m256 m = _mm256_set1_ps(seg->max == -INFINITY ? 0 : seg->max);
    __m256 nan = _mm256_setzero_ps();
    __m256d s0 = _mm256_setzero_pd(), s1 = s0;
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = load_logits(l, i, n), e = exp_f32x8(_mm256_sub_ps(v, m));
        nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        s0 = _mm256_add_pd(s0, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
        s1 = _mm256_add_pd(s1, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
    seg->sum = hsum_f64(_mm256_add_pd(s0, s1));
    seg->nan = _mm256_movemask_ps(nan) != 0;
}

static const struct lse_cell cell = {
    .maximum = maximum,
    .first_equal = first_equal,
    .sum_exp = sum_exp,
};

static void run(const struct node *node, struct work *w) {
    lse_run(&cell, node, w);
}

const struct op_cell op_lse_avx2 = { .run = run, .shared_bytes = lse_shared_bytes };
