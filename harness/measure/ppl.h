/* SPDX-License-Identifier: MIT
 * ppl.h - perplexity of a text under an arm, chunk by chunk.
 *
 * Every chunk is summed on its own, in f64 and in the order of its positions, and the sums are
 * added in the order of the chunks: no digit depends on threads or on how chunks share batches, and
 * a run that goes on from stored sums ends with the digits of one that was never interrupted. */
#ifndef GGAUGE_PPL_H
#define GGAUGE_PPL_H

#include "measure/walk.h"
#include "stats/ppl_stats.h"

struct kld_writer;

struct ppl_chunk {
    double nll_sum, nll_sq_sum; /* nat, nat^2 */
    int64_t n_scored;
};

struct ppl_run {
    struct walk walk;              /* arm, windows, tokens, bos, n_batch, n_seq: by the caller */
    const struct ppl_chunk *known; /* chunks [0, n_known) of an earlier run */
    int64_t n_known;
    /* Save the logits of every chunk behind n_known, or NULL. The nll is then the peer's for this
     * case: max + ln(sum) - logit in f32. */
    struct kld_writer *save;

    /* After each chunk i (0-based), known ones first; running: up to and with it. What was saved of
     * the chunk has been handed to the operating system. */
    int (*chunk)(void *arg, int64_t i, const struct ppl_chunk *c, const struct ppl_stats *running,
                 struct err *e);
    int (*pass)(void *arg, int64_t first, int n, double seconds, struct err *e); /* or NULL */
    void *arg;

    struct ppl_stats stats; /* result */
    struct ppl_chunk now;   /* internal: the chunk being summed */
};

int ppl_run(struct ppl_run *r, struct err *e);

#endif
