/* SPDX-License-Identifier: MIT
 * metric.c - look-up in METRIC_LIST; see metric.h. */
#include "result/metric.h"

#include <assert.h>
#include <string.h>

static const struct metric_info metrics[] = {
#define X(name, unit, better, timed, limit, meaning) { #name, unit, better, timed, limit, meaning },
    METRIC_LIST(X)
#undef X
};

const struct metric_info *metric_info(enum metric m) {
    assert((unsigned)m < METRIC_count);
    return &metrics[m];
}

enum metric metric_from_name(const char *name) {
    unsigned m = 0;
    while (m < METRIC_count && strcmp(metrics[m].name, name) != 0)
        m++;
    return (enum metric)m;
}
