/* SPDX-License-Identifier: MIT
 * compare.h - do two arms agree on a text? Chunk after chunk, until the answer is known.
 *
 * The chunks are taken in a fixed shuffled order, so that any number of them is a fair sample of
 * the text; sums are kept per chunk, so perplexities can be given in the text's own order. The
 * rules are those of verdict.h. A PASS by the rules is a candidate only: who runs the comparison
 * checks the arms' floors (floor.h) and operations (localise.h) before saying so. */
#ifndef GGAUGE_COMPARE_H
#define GGAUGE_COMPARE_H

#include "measure/verdict.h"
#include "stats/ppl_stats.h"

struct compare {
    /* The first walk.n of the shuffled windows are taken: a shorter run begins as a longer one. */
    struct pair_walk walk; /* arm, win, tokens, bos, n_seq, logits: by the caller */
    struct relation rel;   /* margin and alpha by the caller, n_vocab here */
    uint64_t seed;         /* of the order of the chunks */
    bool keep_going;       /* past a PASS candidate and a FAIL by the mean, to the last chunk */

    /* After every chunk, with what is known so far; negative stops. */
    int (*chunk)(void *arg, const struct compare_chunk *c, const struct compare *so_far,
                 struct err *e);
    void *arg;

    /* ---- results, also valid after an error; release with compare_release */
    struct verdict verdict;      /* OPEN if all chunks are used up and no rule has spoken */
    int64_t n_chunks, n_positions;
    struct compare_chunk *chunks; /* [n_chunks] in the order of the run */
    struct welford d;            /* of the chunks' mean differences */
    int64_t n_same_top, n_wide_flips, n_different;
    int64_t only[SIDE_count]; /* positions where only this arm's best token is the target */
    double kld_ab, kld_ba;       /* sums over n_positions; NaN without logits */
    double kld_max;
    double *d_abs, *kld_at;      /* [n_positions], sorted */
    double d_abs_sum;

    /* ---- internal */
    int64_t *order;    /* [walk.win->n] */
    int64_t *chunk_of; /* [walk.win->n] place of a window in chunks, or -1 */
    struct compare_chunk now;
    struct compare_chunk pool; /* chunks since the rules of single chunks spoke last */
    struct arm_row first[SIDE_count]; /* of the chunk, to see whether all are the same */
    double t[SIDE_count];
};

/* Run until a verdict or the last chunk. An error of an arm is an error here, with walk.failed
 * saying whose; what was measured before stays. */
int compare_run(struct compare *c, struct err *e);
void compare_release(struct compare *c);

struct tail compare_tail(const struct compare *c);

/* PPL of one arm over all chunks, in the text's order. */
struct ppl_stats compare_ppl(const struct compare *c, enum side side);
/* The chunk with the largest mean |d|: the one to look into. n_chunks must be > 0. */
const struct compare_chunk *compare_worst(const struct compare *c);

#endif
