/* SPDX-License-Identifier: MIT
 * confseq.c - confidence sequence of a mean; see confseq.h. */
#include "stats/confseq.h"

#include <math.h>

double confseq_radius(const struct welford *w, double alpha) {
    if (isnan(w->mean)) return (double)NAN;
    if (w->n < 2) return (double)INFINITY;
    double n = (double)w->n, s2 = welford_var(w) * CONFSEQ_INFLATE * CONFSEQ_INFLATE;
    double ratio = (n + CONFSEQ_RHO) / CONFSEQ_RHO; /* (V + rho) / rho */
    return sqrt(s2 * (n + CONFSEQ_RHO) * (log(ratio) + 2.0 * log(1.0 / alpha))) / n;
}

struct interval confseq_interval(const struct welford *w, double alpha) {
    double u = confseq_radius(w, alpha);
    return (struct interval){ w->mean - u, w->mean + u };
}
