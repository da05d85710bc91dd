/* SPDX-License-Identifier: MIT
 * rms_norm_tmpl.h - the rms_norm op of a column: the team shares vectors. Contract in op.h.
 *
 * Inlined into its caller, where `norm` is a constant, so the call through it is direct. */
#ifndef GGAUGE_RMS_NORM_TMPL_H
#define GGAUGE_RMS_NORM_TMPL_H

#include "base/compiler.h"
#include "op.h"

/* y [n] = x [n] / sqrt(mean(x^2) + eps) * weight [n] */
typedef void (*rms_norm_fn)(const float *x, const float *weight, float *y, int64_t n, float eps);

ALWAYS_INLINE void rms_norm_run(rms_norm_fn norm, const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0];
    int64_t n = node->p.rms_norm.n, n_vec = x->ne[0] / n, total = x->ne[1] * n_vec;
    const int64_t grain = work_grain((size_t)n * sizeof(float));
    for (int64_t i, end; work_rows(w, total, grain, &i, &end);)
        for (; i < end; i++) {
            int64_t t = i / n_vec, offset = i % n_vec * n;
            norm((const float *)tensor_row(x, t) + offset, node->src[1]->data,
                 (float *)tensor_row(node->dst, t) + offset, n, node->p.rms_norm.eps);
        }
}

#endif
