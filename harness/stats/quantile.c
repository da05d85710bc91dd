/* SPDX-License-Identifier: MIT
 * quantile.c - sorting and quantiles; see quantile.h. */
#include "stats/quantile.h"

#include <math.h>
#include <stdlib.h>

static int compare_f64(const void *pa, const void *pb) {
    double a = *(const double *)pa, b = *(const double *)pb;
    if (isnan(a) || isnan(b)) return !!isnan(a) - !!isnan(b);
    return (a > b) - (a < b);
}

void sort_f64(double *v, int64_t n) {
    if (n > 1) qsort(v, (size_t)n, sizeof *v, compare_f64);
}

double quantile_sorted(const double *sorted, int64_t n, double p) {
    if (n < 1 || !(p >= 0 && p <= 1) || isnan(sorted[n - 1])) return NAN;
    double h = p * (double)(n - 1);
    int64_t k = (int64_t)h;
    double frac = h - (double)k;
    if (k >= n - 1) return sorted[n - 1];
    /* Nothing to interpolate; also keeps inf - inf out of the sum below. */
    if (frac == 0 || sorted[k] == sorted[k + 1]) return sorted[k];
    return sorted[k] + frac * (sorted[k + 1] - sorted[k]);
}

double median_f64(double *v, int64_t n) {
    sort_f64(v, n);
    return quantile_sorted(v, n, 0.5);
}
