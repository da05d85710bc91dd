/* SPDX-License-Identifier: MIT
 * ppl_stats.c - perplexity and its uncertainty; see ppl_stats.h. */
#include "stats/ppl_stats.h"

#include <math.h>

void ppl_stats_add_chunk(struct ppl_stats *s, double nll_sum, double nll_sq_sum, int64_t n_scored) {
    s->n_tokens += n_scored;
    s->n_chunks++;
    s->nll_sum += nll_sum;
    s->nll_sq_sum += nll_sq_sum;
    welford_add(&s->chunk_mean, nll_sum / (double)n_scored);
}

static double mean_nll(const struct ppl_stats *s) {
    return s->n_tokens > 0 ? s->nll_sum / (double)s->n_tokens : NAN;
}

double ppl_stats_ppl(const struct ppl_stats *s) {
    return exp(mean_nll(s));
}

double ppl_stats_se_token(const struct ppl_stats *s) {
    if (s->n_tokens < 2) return NAN;
    double n = (double)s->n_tokens, mean = mean_nll(s);
    double var = s->nll_sq_sum / n - mean * mean;
    if (var < 0) var = 0; /* rounding; a NaN passes on */
    return exp(mean) * sqrt(var / (n - 1));
}

/* Standard error of the mean nll, over chunks. */
static double se_nll_chunk(const struct ppl_stats *s) {
    return sqrt(welford_var(&s->chunk_mean) / (double)s->n_chunks);
}

double ppl_stats_se_chunk(const struct ppl_stats *s) {
    return ppl_stats_ppl(s) * se_nll_chunk(s);
}

struct interval ppl_stats_interval95(const struct ppl_stats *s) {
    double mean = mean_nll(s), half = student_t975(s->n_chunks - 1) * se_nll_chunk(s);
    return (struct interval){ exp(mean - half), exp(mean + half) };
}
