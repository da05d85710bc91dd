/* SPDX-License-Identifier: MIT
 * walk.h - feeding the windows of a text to an arm and handing back every scored position.
 *
 * n_seq windows make one pass: the cache is cleared, window s of the pass becomes sequence s, and
 * all go to the arm in one batch, window after window; or, when n_batch is shorter than a window,
 * one window goes in pieces. So answers come in the order of the text, whatever the batch. */
#ifndef GGAUGE_WALK_H
#define GGAUGE_WALK_H

#include "arm/arm.h"
#include "exec/nvml.h"
#include "exec/windows.h"

/* One scored position; every logit of it is finite. */
struct walk_answer {
    int64_t window;
    int pos;
    int32_t target;
    double nll; /* -ln softmax(logits)[target]: logit - max in f32, the rest in f64 */
    const struct arm_answer *a;
};

struct walk {
    struct arm *arm;
    const struct windows *win;
    const int32_t *tokens; /* of the whole text, each in [0, n_vocab) */
    int32_t bos;           /* fed at position 0 of every window; -1 = the text's own token */
    int n_batch, n_seq;    /* within what the arm was opened with */
    /* Windows below it are known already and not reported. Those that share a pass with a missing
     * one are evaluated all the same: equal batches round equally. */
    int64_t skip;

    void *arg; /* for the calls below, which may stop the walk with a negative code */
    int (*score)(void *arg, const struct walk_answer *s, struct err *e);
    int (*done)(void *arg, int64_t window, struct err *e);
    /* After each pass of n windows from `first` on; may be NULL. */
    int (*pass)(void *arg, int64_t first, int n, double seconds, struct err *e);

    /* Results; also valid after an error. */
    int64_t n_evaluated; /* tokens */
    double seconds;
    struct nvml_use gpu; /* of the arm's cards, all passes as one part */
    int64_t bad_window; /* of a logit that is not finite: ERR_NONFINITE; otherwise -1 */
    int bad_pos;
};

int walk_run(struct walk *w, struct err *e);

#endif
