/* SPDX-License-Identifier: MIT
 * op_lse_avx512.c - maximum, log-sum-exp and first maximal index of each row of logits; contract in
 * op.h, segments and their combination in lse_tmpl.h. */
#include <math.h>

#include "exp_avx512.h"
#include "tmpl/lse_tmpl.h"

/* Sixteen logits from l + i; lanes past the end are -inf, which neither pass notices. */
ALWAYS_INLINE __m512 load_logits(const float *l, int64_t i, int64_t n) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes16(n - i), l + i);
}

/* max_ps(x, m) is m where x is a NaN. */
static float maximum(const float *l, int64_t n) {
    __m512 m0 = _mm512_set1_ps(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        m0 = _mm512_max_ps(_mm512_loadu_ps(l + i), m0);
        m1 = _mm512_max_ps(_mm512_loadu_ps(l + i + 16), m1);
        m2 = _mm512_max_ps(_mm512_loadu_ps(l + i + 32), m2);
        m3 = _mm512_max_ps(_mm512_loadu_ps(l + i + 48), m3);
    }
    for (; i < n; i += 16)
        m0 = _mm512_max_ps(load_logits(l, i, n), m0);
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(m0, m1), _mm512_max_ps(m2, m3)));
}

static int64_t first_equal(const float *l, int64_t n, float x) {
    const __m512 v = _mm512_set1_ps(x);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __mmask16 hit = _mm512_mask_cmp_ps_mask(m, _mm512_maskz_loadu_ps(m, l + i), v, _CMP_EQ_OQ);
        if (hit) return i + __builtin_ctz(hit);
    }
    return 0;
}

static void sum_exp(const float *l, int64_t n, struct lse_segment *seg) {
    const __m512 m = _mm512_set1_ps(seg->max == -INFINITY ? 0 : seg->max);
    __mmask16 nan = 0;
    __m512d s0 = _mm512_setzero_pd(), s1 = s0;
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = load_logits(l, i, n), e = exp_f32x16(_mm512_sub_ps(v, m));
        nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        s0 = _mm512_add_pd(s0, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
        s1 = _mm512_add_pd(s1, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
    }
    seg->sum = _mm512_reduce_add_pd(_mm512_add_pd(s0, s1));
    seg->nan = nan != 0;
}

static const struct lse_cell cell = {
    .maximum = maximum,
    .first_equal = first_equal,
    .sum_exp = sum_exp,
};

static void run(const struct node *node, struct work *w) {
    lse_run(&cell, node, w);
}

const struct op_cell op_lse_avx512 = { .run = run, .shared_bytes = lse_shared_bytes };
