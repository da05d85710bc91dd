/* SPDX-License-Identifier: MIT
 * pair_walk.h - the windows of a text through two arms in lockstep, position by position.
 *
 * Both arms compute the same windows and hold the hidden states of the scored positions; then both
 * are asked for the same few rows in turn, so that the logits of both meet without a file and
 * without [positions, n_vocab] in memory: at most PAIR_ROWS_BYTES of logits of arm A are kept.
 *
 * Windows come in any order (`order`); the first one is a pass of its own, so that something can be
 * said about it as soon as possible. */
#ifndef GGAUGE_PAIR_WALK_H
#define GGAUGE_PAIR_WALK_H

#include "arm/arm.h"
#include "exec/windows.h"

#define PAIR_ROWS_BYTES ((size_t)64 << 20)

enum side { SIDE_A, SIDE_B, SIDE_count };

/* One scored position in both arms. */
struct pair {
    int64_t window;
    int pos;
    int32_t target;
    const struct arm_row *row[SIDE_count]; /* without logits */
    /* KL(A || B) and KL(B || A) over the whole vocabulary, nats, summed in f64; NaN if logits were
     * not asked for or are not finite. */
    double kld_ab, kld_ba;
    double gap; /* A's logit of its own best token less that of B's best, >= 0; as kld_ab */
};

struct pair_walk {
    struct arm *arm[SIDE_count];
    const struct windows *win;
    const int32_t *tokens; /* of the whole text, each in [0, n_vocab) */
    int32_t bos;           /* fed at position 0 of every window; -1 = the text's own token */
    const int64_t *order;  /* [n] windows, each at most once; NULL = as in the text */
    int64_t n;             /* windows to walk, at most win->n */
    int n_seq;             /* windows of a pass; both arms were opened for as many sequences */
    bool logits;           /* compare whole distributions: KL divergence and gap */

    void *arg; /* for the calls below: negative stops the walk as an error, positive ends it */
    int (*score)(void *arg, const struct pair *p, struct err *e);
    int (*done)(void *arg, int64_t window, struct err *e);

    /* Results; also valid after an error. */
    double seconds[SIDE_count]; /* computing */
    int64_t n_evaluated;        /* tokens, of one arm */
    int failed;                 /* the side whose arm gave the error, or -1 */
};

int pair_walk_run(struct pair_walk *w, struct err *e);

#endif
