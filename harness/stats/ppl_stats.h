/* SPDX-License-Identifier: MIT
 * ppl_stats.h - perplexity and its uncertainty from the sums of each chunk.
 *
 * With the negative log-likelihoods x_t of all n scored tokens, A = sum x_t and B = sum x_t^2:
 *     PPL = exp(A/n)
 *     se_token = PPL * sqrt((B/n - (A/n)^2) / (n-1))
 * which is the "+/-" of llama-perplexity and takes tokens as independent. They are not: neighbours
 * share their context. Chunks share nothing, so with their means D_i, i = 1..m,
 *     se_chunk = PPL * s_D / sqrt(m),  s_D the sample standard deviation of D_i,
 * is the honest one. The 95 % interval is exp(A/n -+ t * s_D/sqrt(m)) with Student's t of m-1
 * degrees of freedom; it is taken in the logarithm and therefore never reaches below zero.
 *
 * Chunks are expected to score the same number of tokens each, as they do in every mode of
 * perplexity. Anything not finite that goes in comes out of every function. Start from { 0 }. */
#ifndef GGAUGE_PPL_STATS_H
#define GGAUGE_PPL_STATS_H

#include <stdint.h>

#include "stats/interval.h"
#include "stats/welford.h"

struct ppl_stats {
    int64_t n_tokens, n_chunks;
    double nll_sum, nll_sq_sum; /* A in nats and B */
    struct welford chunk_mean;  /* of D_i */
};

/* Add one chunk: sum of nll, sum of nll^2, tokens scored (> 0). */
void ppl_stats_add_chunk(struct ppl_stats *s, double nll_sum, double nll_sq_sum, int64_t n_scored);

/* PPL of everything so far, the running value after a chunk; NaN before the first. */
double ppl_stats_ppl(const struct ppl_stats *s);

/* In units of PPL; NaN for less than two tokens, 0 if rounding leaves no variance. */
double ppl_stats_se_token(const struct ppl_stats *s);

/* In units of PPL; NaN for less than two chunks. */
double ppl_stats_se_chunk(const struct ppl_stats *s);

/* NaN, NaN for less than two chunks. */
struct interval ppl_stats_interval95(const struct ppl_stats *s);

#endif
