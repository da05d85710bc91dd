/* SPDX-License-Identifier: MIT
 * peak.c - measured peaks; see peak.h. */
#include "measure/peak.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/timer.h"

#define PIECE ((size_t)256 << 10) /* bytes that a thread reads at a time */
#define SMALLEST ((size_t)64 << 10)
#define WINDOW ((size_t)16 << 20) /* bytes for each thread that one sample reads at most */
/* Seconds of a sample: above what starting a team costs, and so short that on a busy machine some
 * samples go undisturbed. */
#define SAMPLE_S 0.002

size_t peak_cache_bytes(void) {
    for (int name = _SC_LEVEL4_CACHE_SIZE; name >= _SC_LEVEL1_DCACHE_SIZE; name -= 3) {
        long n = sysconf(name);
        if (n > 0) return (size_t)n;
    }
    return 0;
}

size_t peak_cold_bytes(void) {
    const uint64_t available = memory_available(), half = available ? available / 2 : SIZE_MAX;
    size_t n = 2 * peak_cache_bytes();
    if (n < (size_t)64 << 20) n = (size_t)64 << 20;
    if (n > (size_t)1 << 30) n = (size_t)1 << 30;
    if (n > half) n = half;
    return n / PIECE * PIECE;
}

/* One sample: every thread turns `count` times, or the window is read `count` times. */
struct sample {
    const struct peak_cell *cell;
    const char *window;
    size_t n_bytes; /* of the window */
    int64_t count;
};

static void run_sample(void *arg, struct work *w) {
    const struct sample *s = arg;
    if (s->cell->compute) {
        (void)s->cell->compute(s->count);
        return;
    }
    /* What fits in the caches is read in one share for each thread, so that it stays in its own. */
    const size_t piece = s->n_bytes > (size_t)w->nth * PIECE * 16
                             ? PIECE
                             : (s->n_bytes / (size_t)w->nth + 4095) / 4096 * 4096;
    const int64_t n = (int64_t)((s->n_bytes + piece - 1) / piece);
    for (int64_t turn = 0; turn < s->count; turn++) {
        for (int64_t i = w->ith; i < n; i += w->nth) {
            const size_t at = (size_t)i * piece;
            (void)s->cell->read(s->window + at, s->n_bytes - at < piece ? s->n_bytes - at : piece);
        }
    }
}

/* The part of the memory that is measured, which windows go through. */
struct region {
    const char *memory;
    size_t n_bytes, at;
};

static double seconds_of(struct peaks *p, struct sample *s, struct region *r, int n_threads) {
    s->window = r->memory + r->at;
    r->at += s->n_bytes;
    if (r->at + s->n_bytes > r->n_bytes) r->at = 0;
    const double t0 = timer_s();
    thread_pool_run(p->pool, n_threads, run_sample, s);
    return timer_s() - t0;
}

/* How often a sample counts: the shortest of three decides, so that one that was disturbed does not
 * make all others too short. */
static void find_count(struct peaks *p, struct sample *s, struct region *r, int n_threads) {
    for (s->count = 1; s->count < INT64_C(1) << 40;) {
        double t = SAMPLE_S;
        for (int i = 0; i < 3; i++) {
            const double again = seconds_of(p, s, r, n_threads);
            if (again < t) t = again;
        }
        if (t >= SAMPLE_S) break;
        s->count *= t < SAMPLE_S / 16 ? 8 : 2;
    }
}

/* Counts a second and thread (or team, of reads), the best sample's. */
static double best_rate(struct peaks *p, struct sample *s, struct region *r, int n_threads) {
    double best = 0;
    find_count(p, s, r, n_threads);
    /* A window that does not come round soon is read once, or it would be in the caches. */
    if (s->n_bytes < r->n_bytes) s->count = 1;
    const double end = timer_s() + p->seconds;
    do {
        const double rate = (double)s->count / seconds_of(p, s, r, n_threads);
        if (rate > best) best = rate;
    } while (timer_s() < end);
    return best;
}

static double find_or_measure(struct peaks *p, enum column c, enum peak peak, size_t n_bytes,
                              int n_threads) {
    const size_t most = (size_t)n_threads * WINDOW;
    struct region r = { p->memory, n_bytes, 0 };
    struct sample s = { .n_bytes = n_bytes < most ? n_bytes : most };
    if (column_is_cpu(c)) {
        s.cell = peak_cell_find(c, peak, &c);
        if (!s.cell) return 0;
    } else {
        n_threads = 0, n_bytes = 0; /* a device has one of each */
    }
    for (int i = 0; i < p->n_known; i++) {
        const struct peak_value *v = &p->known[i];
        if (v->col == c && v->peak == peak && v->n_threads == n_threads && v->n_bytes == n_bytes)
            return v->value;
    }
    double value = 0;
    if (!s.cell) {
        struct err ignored; /* a peak that cannot be measured is unknown */
        if (cuda_peak(peak, &value, &ignored) < 0) value = 0;
        value *= 1e-9;
    } else {
        value = best_rate(p, &s, &r, n_threads) * 1e-9;
        value *= s.cell->compute ? (double)s.cell->macs * n_threads : (double)s.n_bytes;
    }
    if (p->n_known < PEAKS_MAX)
        p->known[p->n_known++] = (struct peak_value){ c, peak, n_threads, n_bytes, value };
    return value;
}

double peak_gmacs(struct peaks *s, enum column c, enum peak p, int n_threads) {
    return find_or_measure(s, c, p, 0, n_threads);
}

double peak_gbs(struct peaks *s, enum column c, size_t n_bytes, int n_threads) {
    size_t n = SMALLEST;
    while (n < n_bytes)
        n *= 2;
    if (n > s->memory_bytes) n = s->memory_bytes;
    return find_or_measure(s, c, PEAK_read, n, n_threads);
}
