/* SPDX-License-Identifier: MIT
 * op_lse_avx512.c - maximum, log-sum-exp and first maximal index of each row of logits; contract in
 * op.h.
 *
 * A row is cut into segments, so that one row of a large vocabulary keeps all threads busy. Each
 * segment sums relative to its own maximum (f32 terms, f64 lanes); the sums are then brought to the
 * maximum of the row and added in order. */
#include <math.h>

#include "exp_avx512.h"
#include "op.h"

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

/* 0 if there is none, which happens to a segment of NaN. */
static int64_t first_equal(const float *l, int64_t n, float x) {
    const __m512 v = _mm512_set1_ps(x);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __mmask16 hit = _mm512_mask_cmp_ps_mask(m, _mm512_maskz_loadu_ps(m, l + i), v, _CMP_EQ_OQ);
        if (hit) return i + __builtin_ctz(hit);
    }
    return 0;
}

/* The last step of a segment whose maximum is known. */
static void sum_exp(const float *l, int64_t n, struct segment *seg) {
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
            sum_exp(l, len, &parts[c]);
        }
    work_barrier(w);
    for (int64_t r, end; work_rows(w, n_rows, COMBINE_ROWS, &r, &end);)
        for (; r < end; r++)
            combine(parts + r * n_seg, n_seg, tensor_row(node->dst, r));
}

const struct op_cell op_lse_avx512 = { .run = run, .shared_bytes = shared_bytes };
