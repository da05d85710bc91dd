/* SPDX-License-Identifier: MIT
 * kld.h - how far a tested model's next-token probabilities are from a base model's.
 *
 * One position gives: nll and nll_b of the target, KL(base || tested), whether both models prefer
 * the same token, and delta p = p - p_b of the target. The statistics are those of llama-perplexity
 * --kl-divergence, with its f32 roundings, so that tables can be laid side by side; where it would
 * print a NaN for a spread that is exactly zero (a model against itself) 0 is returned.
 *
 * Source: ik_llama.cpp 8337e4cd, examples/perplexity/perplexity.cpp. */
#ifndef GGAUGE_KLD_H
#define GGAUGE_KLD_H

#include <stdbool.h>
#include <stdint.h>

#include "measure/walk.h"

/* Base tokens below this log-probability add nothing to a divergence (as in the peer). */
#define KLD_MIN_LOG_PROB (-16.0f)

/* What one position says. */
struct kld_position {
    float nll, nll_base; /* of the target */
    double kld;          /* nats; f32 terms, summed in f64 */
    float delta_p;       /* p - p_base of the target */
    bool same_top;
};

/* log_prob_base [n_vocab] as kld_decode gives it; a: the tested model's answer. */
void kld_position(struct kld_position *out, const float *log_prob_base, int32_t n_vocab,
                  int32_t target, const struct arm_answer *a);

/* Sums over positions in order, f64; start from { 0 }. */
struct kld {
    int64_t n, cap;
    double nll, nll_sq, nll_base, nll_base_sq, nll_nll_base;
    double kld_sum, kld_sq;
    double dp, dp_sq, dp_4th;
    int64_t n_same_top;
    float *kld_at, *dp_at; /* [n], in order of arrival, until kld_sort */
};

void kld_release(struct kld *k);
/* Room for n positions in all, so that kld_add cannot fail. */
int kld_reserve(struct kld *k, int64_t n, struct err *e);
/* k->n must be below what was reserved. */
void kld_add(struct kld *k, const struct kld_position *p);
/* Sort the values kept for the percentiles; after the last kld_add. */
void kld_sort(struct kld *k);

/* A value and its standard error. */
struct estimate {
    double value, se;
};

struct estimate kld_ppl(const struct kld *k);       /* of the tested model */
struct estimate kld_ppl_base(const struct kld *k);
double kld_cor_ln_ppl(const struct kld *k);         /* in [-1, 1]; 0 without spread */
struct estimate kld_ln_ratio(const struct kld *k);  /* ln(PPL / PPL_base) */
struct estimate kld_ratio(const struct kld *k);     /* PPL / PPL_base */
struct estimate kld_difference(const struct kld *k);/* PPL - PPL_base */
struct estimate kld_mean(const struct kld *k);
struct estimate kld_mean_dp(const struct kld *k);
struct estimate kld_rms_dp(const struct kld *k);
struct estimate kld_same_top(const struct kld *k);  /* share of positions */

/* Of n > 0 sorted values. Position p * (n-1) in f32, linear between neighbours. */
float kld_percentile(const float *sorted, int64_t n, float p);
/* The middle one, or the mean of the two middle ones. */
float kld_median(const float *sorted, int64_t n);

/* ---- the measurement ------------------------------------------------------------------------- */

struct kld_reader;

struct kld_run {
    struct walk walk;        /* arm, windows, tokens, bos, n_batch, n_seq: by the caller */
    struct kld_reader *base; /* standing at its first record */
    /* After each chunk i (0-based); may stop the run with a negative code. */
    int (*chunk)(void *arg, int64_t i, const struct kld *so_far, struct err *e);
    int (*pass)(void *arg, int64_t first, int n, double seconds, struct err *e); /* or NULL */
    void *arg;

    struct kld kld;  /* result; release with kld_release */
    float *log_prob; /* of the base model, [n_vocab]; internal */
};

/* Score every window of the walk against the file's records. */
int kld_run(struct kld_run *r, struct err *e);

#endif
