/* SPDX-License-Identifier: MIT
 * batch.h - token batches in, answers out: what passes between a measurement and an engine. */
#ifndef GGAUGE_BATCH_H
#define GGAUGE_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Tokens of one call: token[i] goes to position pos[i] of sequence seq[i]. Positions of a sequence
 * must follow each other without a gap from what the cache holds. want[i] asks for an answer. */
struct arm_batch {
    int n;
    const int32_t *token;
    const int32_t *pos;
    const int32_t *seq;
    const bool *want;      /* NULL = answers for none */
    /* A piece of a text: every token is rounded as one of many, so that no bit depends on how the
     * text is cut into batches and micro-batches. Without it few tokens may take cells that are
     * faster for few and round otherwise. */
    bool uniform;
};

/* Answer for one wanted token. */
struct arm_answer {
    int i;                 /* index in the batch */
    const float *logits;   /* [n_vocab]; valid during the call only */
    double max;            /* largest logit */
    double lse;            /* ln(sum exp(logit - max)), f64; log-softmax = logit - max - lse */
    int32_t top1;          /* first index of the largest logit */
};

/* Called in batch order, from one thread. Negative stops the decode with that code. A decode with
 * fn = NULL computes the wanted logits and drops them unreduced (speed measurements). */
typedef int (*arm_answer_fn)(void *arg, const struct arm_answer *a, struct err *e);

#endif
