/* SPDX-License-Identifier: MIT
 * interval.c - 95 % intervals; see interval.h. */
#include "stats/interval.h"

#include <math.h>
#include <stdbool.h>

#define ALPHA_HALF 0.025 /* probability outside on one side */

/* P(Bin(n, 1/2) = m) for m = floor(n/2), as a product of the ratios (2i-1)/2i: no factorial, no
 * gamma function, good to the last digits for any n. */
static double binomial_middle(int64_t n) {
    int64_t m = n / 2;
    double p = 1;
    for (int64_t i = 1; i <= m; i++)
        p *= (double)(2 * i - 1) / (double)(2 * i);
    /* one trial more: C(2m+1, m) = C(2m, m) (2m+1)/(m+1) */
    return n % 2 ? p * (double)n / (double)(2 * (m + 1)) : p;
}

/* The largest k >= 1 with P(Bin(n, 1/2) < k) <= 0.025, or 1 if there is none; *tail is that
 * probability. Walks down from the middle, so it costs some sqrt(n) steps and never starts from
 * an underflowing 2^-n. */
static int64_t median_rank(int64_t n, double *tail) {
    int64_t j = n / 2;
    double pmf = binomial_middle(n);
    double below = n % 2 ? 0.5 - pmf : (1 - pmf) / 2; /* P(Bin < j) */
    while (j > 1 && below > ALPHA_HALF) {
        pmf *= (double)j / (double)(n - j + 1);
        j--;
        below -= pmf;
    }
    if (j <= 1) {
        *tail = ldexp(1.0, -(int)n); /* P(Bin = 0), free of rounding; n is below 9 here */
        return 1;
    }
    *tail = below;
    return j;
}

struct interval median_interval95(const double *sorted, int64_t n) {
    struct interval none = { NAN, NAN };
    if (n < 1 || isnan(sorted[n - 1])) return none;
    double tail;
    int64_t k = median_rank(n, &tail);
    return (struct interval){ sorted[k - 1], sorted[n - k] };
}

double median_interval_coverage(int64_t n) {
    if (n < 1) return NAN;
    double tail;
    median_rank(n, &tail);
    return 1 - 2 * tail;
}

/* P(|T| <= t) with t = sqrt(dof) tan(theta): finite series for integer dof.
 * Source: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4. */
static double student_central(double theta, int64_t dof) {
    double s = sin(theta), c = cos(theta), sum = 0;
    bool odd = dof % 2;
    double term = odd ? c : 1;
    for (int64_t i = odd ? 3 : 2; i <= dof; i += 2) {
        sum += term;
        term *= c * c * (double)(i - 1) / (double)i;
    }
    return odd ? (theta + s * sum) / M_PI_2 : s * sum;
}

/* The quantile as a series in 1/dof around the normal quantile x; from 200 degrees of freedom on
 * the first term left out is below 1e-11. Source: Abramowitz and Stegun, 26.7.5. */
static double student_expansion(double x, double dof) {
    double x2 = x * x;
    double g1 = x * (x2 + 1) / 4;
    double g2 = x * ((5 * x2 + 16) * x2 + 3) / 96;
    double g3 = x * (((3 * x2 + 19) * x2 + 17) * x2 - 15) / 384;
    double g4 = x * ((((79 * x2 + 776) * x2 + 1482) * x2 - 1920) * x2 - 945) / 92160;
    return x + (g1 + (g2 + (g3 + g4 / dof) / dof) / dof) / dof;
}

double student_t975(int64_t dof) {
    if (dof < 1) return NAN;
    if (dof > 200) return student_expansion(1.959963984540054, (double)dof);
    double low = 0, high = M_PI_2;
    for (int i = 0; i < 60; i++) { /* halving to the last bit of theta */
        double mid = (low + high) / 2;
        if (student_central(mid, dof) < 1 - 2 * ALPHA_HALF)
            low = mid;
        else
            high = mid;
    }
    return sqrt((double)dof) * tan((low + high) / 2);
}
