/* SPDX-License-Identifier: MIT
 * interval.h - 95 % intervals for a median and for a mean.
 *
 * The median's interval lies between two order statistics and assumes no distribution, only
 * independent repeats: [x_(k), x_(n+1-k)] covers the median with probability
 * 1 - 2 P(Bin(n, 1/2) < k), and the largest k that keeps this at 95 % is taken.
 * Source: H. A. David, H. N. Nagaraja, "Order Statistics", 3rd ed. 2003, section 7.1. Below n = 6
 * even min..max covers less than 95 %; it is returned, and median_interval_coverage says how much
 * it covers. */
#ifndef GGAUGE_INTERVAL_H
#define GGAUGE_INTERVAL_H

#include <stdint.h>

struct interval {
    double low, high;
};

/* NaN, NaN for an empty sample or one with a NaN. */
struct interval median_interval95(const double *sorted, int64_t n);

/* True coverage of that interval: at least 0.95 for n >= 6, 1 - 2^(1-n) below; NaN for n < 1. */
double median_interval_coverage(int64_t n);

/* Two-sided 95 % point of Student's t: P(T <= t) = 0.975; NaN for dof < 1. */
double student_t975(int64_t dof);

#endif
