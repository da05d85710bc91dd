/* SPDX-License-Identifier: MIT
 * ktime.h - timing a checked cell: as many repeats as the median needs to be known.
 *
 * A sample is several calls together, long enough for the clock. Samples are taken until the 95 %
 * interval of the median is narrow, or the time is up; there are always enough for the interval to
 * have its 95 %. */
#ifndef GGAUGE_KTIME_H
#define GGAUGE_KTIME_H

#include "measure/kcheck.h"
#include "measure/peak.h"
#include "measure/speed.h"

#define KTIME_MIN_REP 6 /* fewer have no 95 % interval (stats/interval.h) */
#define KTIME_MAX_REP 1000

struct ktime_params {
    double seconds;      /* of all samples of a case, unless the fewest repeats take longer */
    double narrow;       /* half width of the interval over the median that is narrow enough */
    double sample_s;     /* shortest sample */
    struct speed_clock clock;
};
#define KTIME_DEFAULT { 0.3, 0.01, 2e-3, { NULL, NULL } }

struct ktime {
    struct speed_stat call_s; /* seconds of a call */
    int n_rep;
    int64_t calls; /* of a sample */
};

/* k must have been checked. The first calls, which warm up, are not counted. */
int ktime_run(struct kcheck *k, const struct ktime_params *p, struct ktime *out, struct err *e);

/* The least seconds that a call could take: the longer of its multiply-adds at the compute peak of
 * column c and its bytes at the speed of reading, cold or from the caches that hold them. */
struct kroof {
    double gmacs, gbs; /* peaks; 0 = there is none */
    double seconds;
    bool by_memory;    /* which of the two it is */
};
void ktime_roof(struct peaks *peaks, enum column c, const struct kwork *w, int n_threads,
                struct kroof *out);

#endif
