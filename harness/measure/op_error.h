/* SPDX-License-Identifier: MIT
 * op_error.h - how far the rows of an op's result are from those they should equal.
 *
 * The scale of an element's error is the root mean square of its own row of expected values, so
 * that a sum that cancels is not judged by what is left of it. */
#ifndef GGAUGE_OP_ERROR_H
#define GGAUGE_OP_ERROR_H

#include <stdint.h>

#include "op.h"

struct op_error {
    int64_t n;       /* elements compared; 0: nothing is known */
    double nmse;     /* sum (got - want)^2 / sum want^2 */
    double row_nmse; /* the same of the worst row */
    double max_rel;  /* largest |got - want| / rms(row of want) */
    int64_t row, col;         /* where max_rel is, -1 if nothing differs */
    int64_t bad_row, bad_col; /* first element not finite where `want` is; -1 = none */
    double sum_sq, sum_want;  /* of nmse */
    double sum_dot;           /* of got * want: sum_dot / sum_want is the factor between the two */
};

#define OP_ERROR_NONE { .row = -1, .col = -1, .bad_row = -1, .bad_col = -1 }

/* Compare row `row`, n elements. Equal non-finite elements count as equal; an element that is
 * finite on one side alone makes the errors infinite. Returns the row's NMSE. */
double op_error_add(struct op_error *s, int64_t row, const float *got, const float *want,
                    int64_t n);
/* s as if it had also seen what o saw. */
void op_error_merge(struct op_error *s, const struct op_error *o);

/* Two rows of n elements as f32, whatever their types, to be compared. The index in an lse row
 * becomes 0 in both if they agree, and 1 in x if they do not: its size would drown the other
 * two. */
void op_rows_f32(enum op op, enum qtype tx, const void *x, enum qtype ty, const void *y, int64_t n,
                 float *out_x, float *out_y);

#endif
