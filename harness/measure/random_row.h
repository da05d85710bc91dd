/* SPDX-License-Identifier: MIT
 * random_row.h - rows of random quant bits with scales of a wanted size: weights for speed tests of
 * types that nothing here can quantise to, at any number.
 *
 * Every bit pattern is a valid row of every type here; only the scales need care. */
#ifndef GGAUGE_RANDOM_ROW_H
#define GGAUGE_RANDOM_ROW_H

#include "base/err.h"
#include "base/rng.h"
#include "qtype.h"

/* True for the types that random_row can make. */
bool random_row_has(enum qtype t);

/* n weights of type t; `scale` is what every scale is multiplied by, up to a quarter to either
 * side. out: qtype_row_bytes(t, n). */
void random_row(enum qtype t, struct rng *r, int64_t n, double scale, void *out);

/* Root mean square of such weights at scale 1, from a sample. */
int random_row_unit(enum qtype t, double *unit, struct err *e);

#endif
