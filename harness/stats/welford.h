/* SPDX-License-Identifier: MIT
 * welford.h - running mean and variance in one pass, without cancellation.
 *
 * m2 is the sum of squared deviations from the mean. Source: B. P. Welford, "Note on a method for
 * calculating corrected sums of squares and products", Technometrics 4 (1962). A NaN that was added
 * stays visible in every result. Start from { 0 }. */
#ifndef GGAUGE_WELFORD_H
#define GGAUGE_WELFORD_H

#include <stdint.h>

struct welford {
    int64_t n;
    double mean, m2;
};

void welford_add(struct welford *w, double x);

/* Sample variance m2/(n-1); NaN for n < 2, where nothing is known about it. */
double welford_var(const struct welford *w);

/* Sample standard deviation, but 0 for n = 1: llama-bench's stddev_ts, for the same table. */
double welford_stddev(const struct welford *w);

#endif
