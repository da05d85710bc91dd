/* SPDX-License-Identifier: MIT
 * swiglu_tmpl.h - the swiglu op of a column: the team shares pieces of rows. Contract in op.h.
 *
 * Inlined into its caller, where `row` is a constant, so the call through it is direct. */
#ifndef GGAUGE_SWIGLU_TMPL_H
#define GGAUGE_SWIGLU_TMPL_H

#include "base/compiler.h"
#include "op.h"

#define SWIGLU_PIECE 4096 /* elements of one row */

/* y [n] = silu(gate [n]) * up [n] */
typedef void (*swiglu_row_fn)(const float *gate, const float *up, float *y, int64_t n);

ALWAYS_INLINE void swiglu_run(swiglu_row_fn row, const struct node *node, struct work *w) {
    const struct tensor *gate = node->src[0], *up = node->src[1];
    int64_t n = gate->ne[0], per_row = (n + SWIGLU_PIECE - 1) / SWIGLU_PIECE;
    int64_t grain = n < SWIGLU_PIECE ? SWIGLU_PIECE / n : 1;
    for (int64_t j, end; work_rows(w, gate->ne[1] * per_row, grain, &j, &end);)
        for (; j < end; j++) {
            int64_t t = j / per_row, i = j % per_row * SWIGLU_PIECE;
            row((const float *)tensor_row(gate, t) + i, (const float *)tensor_row(up, t) + i,
                (float *)tensor_row(node->dst, t) + i, n - i < SWIGLU_PIECE ? n - i : SWIGLU_PIECE);
        }
}

#endif
