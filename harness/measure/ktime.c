/* SPDX-License-Identifier: MIT
 * ktime.c - timing a checked cell; see ktime.h. */
#include "measure/ktime.h"

#include <string.h>

#include "base/timer.h"
#include "stats/interval.h"
#include "stats/quantile.h"

static int64_t now(const struct ktime_params *p) {
    return p->clock.ns ? p->clock.ns(p->clock.arg) : timer_ns();
}

static int sample(struct kcheck *k, const struct ktime_params *p, int64_t calls, double *seconds,
                  struct err *e) {
    const int64_t t0 = now(p);
    int rc = kcheck_call(k, calls, e);
    *seconds = (double)(now(p) - t0) * 1e-9;
    return rc;
}

/* Calls of a sample, which warms up on the way. The shorter of two tries decides: one that was
 * disturbed would make all samples too short. */
static int find_calls(struct kcheck *k, const struct ktime_params *p, int64_t *calls,
                      struct err *e) {
    int rc = 0;
    double s, again;
    for (*calls = 1; *calls < INT64_C(1) << 30; *calls *= s < p->sample_s / 16 ? 8 : 2) {
        TRY(sample(k, p, *calls, &s, e));
        if (s < p->sample_s) continue;
        if (s > 10 * p->sample_s) break; /* long enough whatever happened to it */
        TRY(sample(k, p, *calls, &again, e));
        s = again;
        if (s >= p->sample_s) break;
    }
out:
    return rc;
}

static bool is_narrow(const double *v, int n, double narrow) {
    double sorted[KTIME_MAX_REP];
    memcpy(sorted, v, (size_t)n * sizeof *v);
    sort_f64(sorted, n);
    const struct interval ci = median_interval95(sorted, n);
    return ci.high - ci.low <= 2 * narrow * quantile_sorted(sorted, n, 0.5);
}

int ktime_run(struct kcheck *k, const struct ktime_params *p, struct ktime *out, struct err *e) {
    int rc = 0;
    double v[KTIME_MAX_REP], total = 0, s;
    *out = (struct ktime){ 0 };
    TRY(find_calls(k, p, &out->calls, e));
    while (out->n_rep < KTIME_MAX_REP) {
        TRY(sample(k, p, out->calls, &s, e));
        total += s;
        v[out->n_rep++] = s / (double)out->calls;
        if (out->n_rep < KTIME_MIN_REP) continue;
        if (total >= p->seconds) break;
        if (total >= p->seconds / 5 && is_narrow(v, out->n_rep, p->narrow)) break;
    }
    TRY(speed_stat_of(v, out->n_rep, &out->call_s, e));
out:
    return rc;
}

void ktime_roof(struct peaks *peaks, enum column c, const struct kwork *w, int n_threads,
                struct kroof *out) {
    *out = (struct kroof){ 0 };
    const double bytes = w->cold_bytes > 0 ? w->cold_bytes : w->warm_bytes;
    double by_macs = 0, by_bytes = 0;
    if (w->macs > 0) out->gmacs = peak_gmacs(peaks, c, w->peak, n_threads);
    if (out->gmacs > 0) by_macs = w->macs / out->gmacs * 1e-9;
    out->gbs = peak_gbs(peaks, c, (size_t)w->footprint, n_threads);
    if (out->gbs > 0) by_bytes = bytes / out->gbs * 1e-9;
    out->by_memory = by_bytes >= by_macs;
    out->seconds = out->by_memory ? by_bytes : by_macs;
    /* Without a compute peak nothing is known of a product, however long its bytes take. */
    if (w->macs > 0 && out->gmacs <= 0) out->seconds = 0;
}
