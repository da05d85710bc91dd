/* SPDX-License-Identifier: MIT
 * kld.c - divergence of one position and the statistics over all; see kld.h. */
#include "measure/kld.h"

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"

/* ---- one position ---------------------------------------------------------------------------- */

void kld_position(struct kld_position *out, const float *log_prob_base, int32_t n_vocab,
                  int32_t target, const struct arm_answer *a) {
    float lse = (float)a->max + (float)a->lse;
    double sum = 0;
    int32_t top = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        float lp = log_prob_base[i];
        if (lp > log_prob_base[top]) top = i;
        if (lp > KLD_MIN_LOG_PROB) sum += expf(lp) * (lp - a->logits[i] + lse);
    }
    out->nll = lse - a->logits[target];
    out->nll_base = -log_prob_base[target];
    out->kld = sum;
    out->delta_p = expf(-out->nll) - expf(-out->nll_base);
    out->same_top = top == a->top1;
}

/* ---- sums ------------------------------------------------------------------------------------ */

void kld_release(struct kld *k) {
    heap_free(k->kld_at);
    heap_free(k->dp_at);
    *k = (struct kld){ 0 };
}

int kld_reserve(struct kld *k, int64_t n, struct err *e) {
    int rc = 0;
    size_t bytes = (size_t)n * sizeof(float);
    if (n <= k->cap) goto out;
    float *p = heap_realloc(k->kld_at, bytes, e);
    if (p) k->kld_at = p;
    float *q = heap_realloc(k->dp_at, bytes, e);
    if (q) k->dp_at = q;
    if (!p || !q) {
        rc = ERR_NOMEM;
        goto out;
    }
    k->cap = n;
out:
    return rc;
}

void kld_add(struct kld *k, const struct kld_position *p) {
    double dp_sq = p->delta_p * p->delta_p;
    k->nll += p->nll;
    k->nll_sq += p->nll * p->nll;
    k->nll_base += p->nll_base;
    k->nll_base_sq += p->nll_base * p->nll_base;
    k->nll_nll_base += p->nll * p->nll_base;
    k->kld_sum += p->kld;
    k->kld_sq += p->kld * p->kld;
    k->dp += p->delta_p;
    k->dp_sq += dp_sq;
    k->dp_4th += dp_sq * dp_sq;
    k->n_same_top += p->same_top;
    k->kld_at[k->n] = (float)p->kld;
    k->dp_at[k->n] = p->delta_p;
    k->n++;
}

static int compare_f32(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void kld_sort(struct kld *k) {
    if (!k->n) return;
    qsort(k->kld_at, (size_t)k->n, sizeof *k->kld_at, compare_f32);
    qsort(k->dp_at, (size_t)k->n, sizeof *k->dp_at, compare_f32);
}

/* ---- estimates ------------------------------------------------------------------------------- */

/* Mean and standard error from the sums of a quantity and of its squares. */
static struct estimate mean_of(double sum, double sum_sq, int64_t n) {
    struct estimate m = { 0, 0 };
    if (n < 1) return m;
    m.value = sum / (double)n;
    double var = sum_sq / (double)n - m.value * m.value;
    if (var > 0 && n > 10) m.se = sqrt(var / (double)(n - 1));
    return m;
}

static struct estimate mean_nll(const struct kld *k) {
    return mean_of(k->nll, k->nll_sq, k->n);
}

static struct estimate mean_nll_base(const struct kld *k) {
    return mean_of(k->nll_base, k->nll_base_sq, k->n);
}

/* Covariance of the two means of nll. */
static double cov_nll(const struct kld *k) {
    double n = (double)k->n;
    if (k->n < 10) return 0;
    return (k->nll_nll_base / n - (k->nll / n) * (k->nll_base / n)) / (n - 1);
}

/* A variance that rounding made slightly negative is zero. */
static double root(double var) {
    return var > 0 ? sqrt(var) : 0;
}

static struct estimate exp_of(struct estimate x) {
    double v = exp(x.value);
    return (struct estimate){ v, v * x.se };
}

struct estimate kld_ppl(const struct kld *k) {
    return exp_of(mean_nll(k));
}

struct estimate kld_ppl_base(const struct kld *k) {
    return exp_of(mean_nll_base(k));
}

double kld_cor_ln_ppl(const struct kld *k) {
    double both = mean_nll(k).se * mean_nll_base(k).se;
    return both > 0 ? cov_nll(k) / both : 0;
}

struct estimate kld_ln_ratio(const struct kld *k) {
    struct estimate q = mean_nll(k), b = mean_nll_base(k);
    double var = q.se * q.se + b.se * b.se - 2 * cov_nll(k);
    return (struct estimate){ q.value - b.value, root(var) };
}

struct estimate kld_ratio(const struct kld *k) {
    return exp_of(kld_ln_ratio(k));
}

struct estimate kld_difference(const struct kld *k) {
    struct estimate q = kld_ppl(k), b = kld_ppl_base(k);
    double var = q.se * q.se + b.se * b.se - 2 * q.value * b.value * cov_nll(k);
    return (struct estimate){ q.value - b.value, root(var) };
}

struct estimate kld_mean(const struct kld *k) {
    return mean_of(k->kld_sum, k->kld_sq, k->n);
}

struct estimate kld_mean_dp(const struct kld *k) {
    return mean_of(k->dp, k->dp_sq, k->n);
}

struct estimate kld_rms_dp(const struct kld *k) {
    struct estimate m = mean_of(k->dp_sq, k->dp_4th, k->n);
    double r = root(m.value);
    return (struct estimate){ r, r > 0 ? 0.5 / r * m.se : 0 };
}

struct estimate kld_same_top(const struct kld *k) {
    if (k->n < 1) return (struct estimate){ 0, 0 };
    double s = (double)k->n_same_top / (double)k->n;
    return (struct estimate){ s, k->n > 1 ? sqrt(s * (1 - s) / (double)(k->n - 1)) : 0 };
}

float kld_percentile(const float *sorted, int64_t n, float p) {
    if (p <= 0) return sorted[0];
    if (p >= 1) return sorted[n - 1];
    float at = p * (float)(n - 1);
    int64_t i = (int64_t)at;
    if (i >= n - 1) return sorted[n - 1];
    at -= (float)i;
    return (1 - at) * sorted[i] + at * sorted[i + 1];
}

float kld_median(const float *sorted, int64_t n) {
    return n % 2 ? sorted[n / 2] : 0.5f * (sorted[n / 2] + sorted[n / 2 - 1]);
}
