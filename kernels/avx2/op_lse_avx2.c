/* SPDX-License-Identifier: MIT
 * op_lse_avx2.c - maximum, log-sum-exp and first maximal index of each row of logits; contract in
 * op.h.
 *
 * A row is cut into segments, so that one row of a large vocabulary keeps all threads busy. Each
 * segment sums relative to its own maximum (f32 terms, f64 lanes); the sums are then brought to the
 * maximum of the row and added in order. */
#include <math.h>

#include "base/fault.h"
#include "exp_avx2.h"
#include "op.h"
#include "simd_avx2.h"

#define SEGMENT 32768   /* logits; 128 KiB, so the second pass reads the L2 cache */
#define COMBINE_ROWS 64 /* of the cheap last step, at once */

struct segment {
    double sum;  /* of exp(l - max) */
    int64_t top; /* first index of the maximum, in the row */
    float max;   /* of the logits that are no NaN */
    bool nan;    /* there is a NaN */
};

static int64_t n_segments(const struct node *n) {
    return (n->src[0]->ne[0] + SEGMENT - 1) / SEGMENT;
}

static size_t shared_bytes(const struct node *n) {
    return (size_t)(n->src[0]->ne[1] * n_segments(n)) * sizeof(struct segment);
}

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

/* 0 if there is none, which happens to a segment of NaN. */
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

/* The last step of a segment whose maximum is known. */
static void sum_exp(const float *l, int64_t n, struct segment *seg) {
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

/* parts [n_seg] of one row. An infinite maximum makes inf - inf and so a NaN of the sum, as in the
 * formula. */
static void combine(const struct segment *parts, int64_t n_seg, double *out) {
    struct segment all = parts[0];
    for (int64_t s = 1; s < n_seg; s++) {
        all.nan |= parts[s].nan;
        if (!(parts[s].max > all.max)) continue;
        all.max = parts[s].max;
        all.top = parts[s].top;
    }
    all.sum = 0;
    for (int64_t s = 0; s < n_seg; s++)
        all.sum += parts[s].sum * exp((double)parts[s].max - all.max);
    out[0] = all.nan ? NAN : (double)all.max;
    out[1] = all.nan ? NAN : log(all.sum);
    out[2] = (double)all.top;
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *logits = node->src[0];
    int64_t n = logits->ne[0], n_rows = logits->ne[1], n_seg = n_segments(node);
    struct segment *parts = w->shared; /* [n_rows, n_seg] */
    const int64_t grain = work_grain((size_t)(n < SEGMENT ? n : SEGMENT) * sizeof(float));
    for (int64_t c, end; work_rows(w, n_rows * n_seg, grain, &c, &end);)
        for (; c < end; c++) {
            int64_t begin = c % n_seg * SEGMENT;
            int64_t len = begin + SEGMENT < n ? SEGMENT : n - begin;
            const float *l = (const float *)tensor_row(logits, c / n_seg) + begin;
            parts[c].max = maximum(l, len);
            parts[c].top = begin + first_equal(l, len, parts[c].max);
            sum_exp(l, FAULT(lse_tail) ? len - len / 16 : len, &parts[c]);
        }
    work_barrier(w);
    for (int64_t r, end; work_rows(w, n_rows, COMBINE_ROWS, &r, &end);)
        for (; r < end; r++)
            combine(parts + r * n_seg, n_seg, tensor_row(node->dst, r));
}

const struct op_cell op_lse_avx2 = { .run = run, .shared_bytes = shared_bytes };
