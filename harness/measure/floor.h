/* SPDX-License-Identifier: MIT
 * floor.h - the noise floor of an arm: the arm against itself with another micro-batch and other
 * threads, on a few chunks of the same text.
 *
 * A repeat with the same settings would prove nothing: a kernel that is wrong for 17 tokens is
 * wrong again. A difference that an arm does not promise means that no comparison with it can be
 * trusted. Floors are remembered in a CSV file under a key of everything that decides them, the
 * program's own bytes included. */
#ifndef GGAUGE_FLOOR_H
#define GGAUGE_FLOOR_H

#include "measure/pair_walk.h"

struct floor {
    int64_t n;                     /* positions */
    int64_t n_different;           /* of them, rows that are not equal bit for bit */
    double d_max, d_mean;          /* |d nll| */
    double d_sum, d_sq;            /* sums of d and of its square; not remembered */
    int n_ubatch, n_threads;       /* of the second run */
    bool remembered;               /* read from the file, not measured now */
    bool kept;                     /* the arm's promise; ARM_RECORDED promises nothing */
};

/* Chunks of a floor: enough for every shape of a window to occur, few enough to be cheap. */
#define FLOOR_CHUNKS 2

/* Measure the arm `a`, opened with p, over the first FLOOR_CHUNKS windows of w's order (w: win,
 * tokens, bos, order, n, n_seq are read). margin: of the comparison; an arm that promises no bits
 * must on average stay within a tenth of it, beyond its standard errors. */
int floor_measure(struct floor *f, struct arm *a, const struct arm_params *p,
                  const struct pair_walk *w, double margin, struct err *e);

/* The key of a floor, 16 hex digits: this program, the model, text, settings and machine. */
int floor_key(char key[17], const struct arm *a, const struct arm_params *p,
              const struct pair_walk *w, struct err *e);
/* 1 = found, 0 = not there. A file that cannot be read counts as empty. */
int floor_recall(struct floor *f, const char *path, const char *key, struct err *e);
/* Append; the directory is created. */
int floor_remember(const struct floor *f, const char *path, const char *key, struct err *e);

#endif
