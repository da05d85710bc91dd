/* SPDX-License-Identifier: MIT
 * confseq.h - a confidence sequence for a mean: an interval that holds at every look at once.
 *
 * After n values with mean D and variance s^2, with V = n s^2 and rho = CONFSEQ_RHO s^2,
 *     u = sqrt((V + rho) (ln((V + rho) / rho) + 2 ln(1 / alpha))) / n
 * and the true mean is inside D -+ u for all n together with probability 1 - alpha. So a test may
 * look after every value and stop when it has seen enough. Source: S. R. Howard, A. Ramdas, J.
 * McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals
 * of Statistics 49 (2021), the normal mixture. The variance is estimated, so the promise is
 * asymptotic: the spread is taken CONFSEQ_INFLATE times as large, and nobody should decide before
 * CONFSEQ_MIN_N values. */
#ifndef GGAUGE_CONFSEQ_H
#define GGAUGE_CONFSEQ_H

#include "stats/interval.h"
#include "stats/welford.h"

#define CONFSEQ_RHO 8.0
#define CONFSEQ_INFLATE 1.5
#define CONFSEQ_MIN_N 8

/* Half the width u after the values in w: infinite for n < 2, 0 if all values are equal, NaN if one
 * was. alpha in (0, 1). */
double confseq_radius(const struct welford *w, double alpha);

/* mean -+ radius. */
struct interval confseq_interval(const struct welford *w, double alpha);

#endif
