/* SPDX-License-Identifier: MIT
 * welford.c - running mean and variance; see welford.h. */
#include "stats/welford.h"

#include <math.h>

void welford_add(struct welford *w, double x) {
    w->n++;
    double d = x - w->mean;
    w->mean += d / (double)w->n;
    w->m2 += d * (x - w->mean);
}

double welford_var(const struct welford *w) {
    if (w->n < 2) return NAN;
    return w->m2 / (double)(w->n - 1);
}

double welford_stddev(const struct welford *w) {
    if (w->n == 1) return isfinite(w->mean) ? 0.0 : NAN; /* a NaN must not become a tidy 0 */
    return sqrt(welford_var(w));
}
