/* SPDX-License-Identifier: MIT
 * proportion.c - shares; see proportion.h. */
#include "stats/proportion.h"

#include <math.h>

#define Z975 1.959963984540054 /* 97.5 % point of the normal distribution */

struct interval wilson_interval95(int64_t k, int64_t n) {
    if (n < 1) return (struct interval){ (double)NAN, (double)NAN };
    double N = (double)n, p = (double)k / N, z2 = Z975 * Z975;
    double mid = (p + z2 / (2 * N)) / (1 + z2 / N);
    double half = Z975 / (1 + z2 / N) * sqrt(p * (1 - p) / N + z2 / (4 * N * N));
    /* At the ends the formula gives exactly 0 and 1, up to rounding. */
    return (struct interval){ k == 0 ? 0.0 : fmax(0.0, mid - half),
                              k == n ? 1.0 : fmin(1.0, mid + half) };
}

double mcnemar_chi2(int64_t b, int64_t c) {
    double d = (double)(b - c);
    return b + c ? d * d / (double)(b + c) : 0.0;
}
