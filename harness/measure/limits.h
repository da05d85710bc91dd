/* SPDX-License-Identifier: MIT
 * limits.h - how far a cell may be from ref that is fed the same (rounded) inputs.
 *
 * A limit is a stated multiple of the largest error that was measured on real activations, and at
 * least the floor: limits_table.h is written from results/limits.csv by `make limits`, and
 * .ci/check_limits.py compares the two. */
#ifndef GGAUGE_LIMITS_H
#define GGAUGE_LIMITS_H

#include <stdbool.h>

#include "backend.h"
#include "measure/op_error.h"

#define LIMIT_MULTIPLE 8.0       /* of the largest |error| / rms */
#define LIMIT_MULTIPLE_NMSE 64.0 /* of the worst row's NMSE: a square */
#define LIMIT_FLOOR_REL 1e-6   /* a few roundings to f32 */
#define LIMIT_FLOOR_NMSE 1e-13 /* their square, less what a row's average takes off */

struct op_limit {
    double max_rel;  /* of struct op_error */
    double row_nmse;
    bool measured;   /* false: the cell is not in the table, and the limit a loose guess */
};

/* The limit that follows from what was measured, rounded up to two digits. */
struct op_limit limit_from(double largest_rel, double largest_nmse);

/* Name of the cell that serves node n in column c: "iq4_kt@avx2", "attn@avx2"; "none" if nothing
 * does. n needs op and the types of its sources. */
void limit_cell_name(enum column c, const struct node *n, char *buf, size_t n_bytes);
struct op_limit limit_of(const char *cell);
/* True if what was seen is outside of the limit; a NaN always is. */
bool op_error_over(const struct op_error *s, const struct op_limit *limit);

#endif
