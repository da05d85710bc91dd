/* SPDX-License-Identifier: MIT
 * proportion.h - shares: Wilson's interval, and McNemar's test of two paired ones.
 *
 * Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
 * JASA 22 (1927); Q. McNemar, "Note on the sampling error of the difference between correlated
 * proportions or percentages", Psychometrika 12 (1947). */
#ifndef GGAUGE_PROPORTION_H
#define GGAUGE_PROPORTION_H

#include <stdint.h>

#include "stats/interval.h"

/* 95 % interval of k successes in n trials, inside [0, 1]; NaN, NaN for n < 1. */
struct interval wilson_interval95(int64_t k, int64_t n);

/* (b - c)^2 / (b + c), about chi-square with one degree of freedom if neither side is better: b and
 * c count the pairs that only one side got right. 0 for b + c = 0. */
double mcnemar_chi2(int64_t b, int64_t c);

#endif
