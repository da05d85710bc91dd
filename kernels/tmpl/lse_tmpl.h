/* SPDX-License-Identifier: MIT
 * lse_tmpl.h - the lse op of a column: maximum, log-sum-exp and first maximal index of each row of
 * logits; contract in op.h.
 *
 * A row is cut into segments, so that one row of a large vocabulary keeps all threads busy. Each
 * segment sums relative to its own maximum (f32 terms, f64 lanes); the sums are then brought to the
 * maximum of the row and added in order.
 *
 * All of it is inlined into its caller, where `c` is a constant, so the calls through it are
 * direct. */
#ifndef GGAUGE_LSE_TMPL_H
#define GGAUGE_LSE_TMPL_H

#include <math.h>

#include "base/compiler.h"
#include "base/fault.h"
#include "op.h"

#define LSE_SEGMENT 32768   /* logits; 128 KiB, so the second pass reads the L2 cache */
#define LSE_COMBINE_ROWS 64 /* of the cheap last step, at once */

struct lse_segment {
    double sum;  /* of exp(l - max) */
    int64_t top; /* first index of the maximum, in the row */
    float max;   /* of the logits that are no NaN; -inf if there are none */
    bool nan;    /* there is a NaN */
};

/* Arithmetic of a column, on n logits of a segment. */
struct lse_cell {
    /* The largest, NaN left out. */
    float (*maximum)(const float *l, int64_t n);
    /* Index of the first that is x; 0 if there is none, which happens to a segment of NaN. */
    int64_t (*first_equal)(const float *l, int64_t n, float x);
    /* Sets sum and nan of a segment whose maximum is known; -inf counts as 0. */
    void (*sum_exp)(const float *l, int64_t n, struct lse_segment *seg);
};

static inline int64_t lse_n_segments(const struct node *n) {
    return (n->src[0]->ne[0] + LSE_SEGMENT - 1) / LSE_SEGMENT;
}

static inline size_t lse_shared_bytes(const struct node *n) {
    return (size_t)(n->src[0]->ne[1] * lse_n_segments(n)) * sizeof(struct lse_segment);
}

/* parts [n_seg] of one row. An infinite maximum makes inf - inf and so a NaN of the sum, as in the
 * formula. */
static inline void lse_combine(const struct lse_segment *parts, int64_t n_seg, double *out) {
    struct lse_segment all = parts[0];
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

ALWAYS_INLINE void lse_run(const struct lse_cell *c, const struct node *node, struct work *w) {
    const struct tensor *logits = node->src[0];
    int64_t n = logits->ne[0], n_rows = logits->ne[1], n_seg = lse_n_segments(node);
    struct lse_segment *parts = w->shared; /* [n_rows, n_seg] */
    const int64_t grain = work_grain((size_t)(n < LSE_SEGMENT ? n : LSE_SEGMENT) * sizeof(float));
    for (int64_t i, end; work_rows(w, n_rows * n_seg, grain, &i, &end);)
        for (; i < end; i++) {
            int64_t begin = i % n_seg * LSE_SEGMENT;
            int64_t len = begin + LSE_SEGMENT < n ? LSE_SEGMENT : n - begin;
            const float *l = (const float *)tensor_row(logits, i / n_seg) + begin;
            parts[i].max = c->maximum(l, len);
            parts[i].top = begin + c->first_equal(l, len, parts[i].max);
            c->sum_exp(l, FAULT(lse_tail) ? len - len / 16 : len, &parts[i]);
        }
    work_barrier(w);
    for (int64_t r, end; work_rows(w, n_rows, LSE_COMBINE_ROWS, &r, &end);)
        for (; r < end; r++)
            lse_combine(parts + r * n_seg, n_seg, tensor_row(node->dst, r));
}

#endif
