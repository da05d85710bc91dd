/* SPDX-License-Identifier: MIT
 * quantile.h - sorting and quantiles.
 *
 * Quantiles are of type 7: h = p*(n-1), linear between the order statistics around h. Source: R. J.
 * Hyndman, Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996);
 * llama-perplexity's KLD table uses the same. NaN sorts last, and a sample that holds one has no
 * quantiles: every result is NaN. */
#ifndef GGAUGE_QUANTILE_H
#define GGAUGE_QUANTILE_H

#include <stdint.h>

/* Ascending, NaN last. */
void sort_f64(double *v, int64_t n);

/* p in [0, 1]; NaN for an empty sample or a p outside. */
double quantile_sorted(const double *sorted, int64_t n, double p);

/* Sorts v. */
double median_f64(double *v, int64_t n);

#endif
