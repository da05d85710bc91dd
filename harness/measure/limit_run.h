/* SPDX-License-Identifier: MIT
 * limit_run.h - the distribution of every cell's error against ref on the activations of real
 * models and texts: what limits are made from. */
#ifndef GGAUGE_LIMIT_RUN_H
#define GGAUGE_LIMIT_RUN_H

#include <stdio.h>

#include "measure/localise.h"

/* |got - expected| / rms of an element, in steps of an eighth of an octave from 2^-48 on. */
#define LIMIT_STEPS 8
#define LIMIT_BINS (48 * LIMIT_STEPS)

struct limit_cell {
    char cell[48];
    int64_t n, n_zero;   /* elements, and those without any error */
    int64_t bin[LIMIT_BINS];
    double max_rel, row_nmse;
    int64_t n_bad;       /* elements not finite where ref's are */
};

struct limit_run {
    struct limit_cell *cells;
    int n, cap;
};

void limit_run_release(struct limit_run *r);
/* One window of the model through ref and column c, all nodes judged. type_kv: of both caches.
 * tokens [n_ctx + 1]. */
int limit_run_add(struct limit_run *r, const char *model, enum column c, const char *type_kv,
                  const int32_t *tokens, int n_ctx, int n_threads, struct err *e);
/* p in (0, 1]: an upper bound of the quantile, 9 % above it at most. */
double limit_quantile(const struct limit_cell *c, double p);

#endif
