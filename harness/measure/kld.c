/* SPDX-License-Identifier: MIT
 * kld.c - divergence of one position and the statistics over all; see kld.h. */
#include "measure/kld.h"

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/fp16.h"

/* ---- one position ---------------------------------------------------------------------------- */

/* Tokens: a constant count without branches is what compilers turn into vectors. */
#define BLOCK 64

/* e^x within 2 units in the last place for -87 <= x <= 88, anything outside: 2^n times the Taylor
 * series of the rest r, |r| <= ln(2)/2, whose first missing term is below 2^-26. */
static inline float exp_f32(float x) {
    float n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and leaves n in the mantissa */
    uint32_t n_bits = f32_bits(n);
    n -= 12582912.0f;
    float r = x - n * 0.693145752f; /* ln 2 in two parts, the first exact in 15 bits */
    r -= n * 1.42860677e-6f;
    float p = 1 / 5040.0f;
    p = p * r + 1 / 720.0f;
    p = p * r + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1;
    return f32_from_bits(f32_bits(p) + (n_bits << 23));
}

/* One token's share of the divergence. The mask stands for a branch, which would keep it scalar. */
static inline float kld_term(float lp, float logit, float lse) {
    float t = exp_f32(lp) * (lp - logit + lse);
    return f32_from_bits(f32_bits(t) & -(uint32_t)(lp > KLD_MIN_LOG_PROB));
}

/* Terms in f32, summed in f64; four sums side by side, because a single one waits for its adder. */
static double kld_sum(const float *RESTRICT lp, const float *RESTRICT logits, int32_t n,
                      float lse) {
    float t[BLOCK];
    double s[4] = { 0 };
    int32_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        for (int j = 0; j < BLOCK; j++)
            t[j] = kld_term(lp[i + j], logits[i + j], lse);
        for (int j = 0; j < BLOCK; j += 4)
            for (int k = 0; k < 4; k++)
                s[k] += t[j + k];
    }
    for (; i < n; i++)
        s[0] += kld_term(lp[i], logits[i], lse);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

void kld_position(struct kld_position *out, const float *log_prob_base, int32_t n_vocab,
                  int32_t target, const struct arm_answer *a) {
    float lse = (float)a->max + (float)a->lse;
    float best = log_prob_base[0];
    int32_t top = 0;
    for (int32_t i = 1; i < n_vocab; i++) {
        if (log_prob_base[i] <= best) continue;
        best = log_prob_base[i];
        top = i;
    }
    out->nll = lse - a->logits[target];
    out->nll_base = -log_prob_base[target];
    out->kld = kld_sum(log_prob_base, a->logits, n_vocab, lse);
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
