/* SPDX-License-Identifier: MIT
 * timer.h - monotonic time. */
#ifndef GGAUGE_TIMER_H
#define GGAUGE_TIMER_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds since an arbitrary start; never goes back. */
static inline int64_t timer_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline double timer_s(void) {
    return (double)timer_ns() * 1e-9;
}

#endif
