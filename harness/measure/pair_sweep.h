/* SPDX-License-Identifier: MIT
 * pair_sweep.h - two arms swept in turn, so that whatever drifts on the machine hits both alike.
 *
 * A round is one sweep (sweep.h) of each arm, and who goes first changes from round to round. What
 * is compared is the quotient of the two times of one round at one depth. */
#ifndef GGAUGE_PAIR_SWEEP_H
#define GGAUGE_PAIR_SWEEP_H

#include "measure/sweep.h"
#include "stats/interval.h"

#define PAIR_SWEEP_TESTS 2 /* prompt, generation */

/* One depth and one of the two tests: speed of B over that of A, > 1 = B is faster. */
struct pair_speed {
    int n_kv, n;           /* depth; tokens of the part */
    bool prompt;
    double a_tps, b_tps;   /* medians */
    double ratio;          /* median over the rounds */
    struct interval ci;    /* 95 % from 6 rounds on, otherwise all that was seen */
};

struct pair_sweep {
    struct arm *a, *b;
    struct sweep_params p; /* n_rep is 1; progress is called once a round */
    int n_rounds;          /* 1..SPEED_MAX_REP */
    /* results: [n_speeds], by depth, prompt first; release with pair_sweep_release */
    struct pair_speed *speeds;
    int n_speeds;
};

int pair_sweep_run(struct pair_sweep *s, struct err *e);
void pair_sweep_release(struct pair_sweep *s);

#endif
