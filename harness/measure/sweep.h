/* SPDX-License-Identifier: MIT
 * sweep.h - prompt and generation speed at growing depth of the KV cache.
 *
 * At depths n_kv = 0, n_pp, 2 n_pp, ... as long as both parts fit: n_tg single tokens, trim, n_pp
 * tokens as a prompt, trim; n_rep times. The tokens of the last prompt part stay as the context of
 * the next depth. So a step's generation runs over contexts n_kv .. n_kv + n_tg and its prompt part
 * over n_kv .. n_kv + n_pp. Only decoding is timed.
 *
 * Procedure: llama-sweep-bench of ik_llama.cpp 8337e4cd, examples/sweep-bench; unlike it, every
 * depth is repeated, not just the first. */
#ifndef GGAUGE_SWEEP_H
#define GGAUGE_SWEEP_H

#include "exec/nvml.h"
#include "measure/speed.h"

struct sweep_params {
    int n_kv_max;      /* at most the arm's n_ctx; 0 = the arm's n_ctx */
    int n_pp, n_tg;    /* tokens per part, both > 0 */
    int n_rep;         /* repeats at every depth, 1..SPEED_MAX_REP */
    bool warmup;       /* one single token before anything is timed; without it one that is only
                        * checked */
    bool warmup_batch; /* and one prompt part: every batch shape that will be measured */
    uint64_t seed;
    struct speed_clock clock;
    /* May be NULL. Before each timed repeat: how many are done, of how many. */
    void (*progress)(void *arg, int64_t done, int64_t total);
    void *progress_arg;
};

/* What was measured at one depth. */
struct sweep_step {
    int n_kv;                   /* depth before either part */
    int n_pp, n_tg, n_rep;
    const double *pp_s, *tg_s;  /* [n_rep] seconds in the order measured; valid during the call */
    struct speed_stat pp, tg;   /* in seconds */
    int64_t rss_bytes;          /* peak resident memory so far */
    struct nvml_facts pp_gpu, tg_gpu; /* of the arm's cards; NAN without any */
    struct nvml_vram vram;
};

/* Called once for every finished depth. Negative stops the sweep with that code. */
typedef int (*sweep_fn)(void *arg, const struct sweep_step *s, struct err *e);

/* Depths that a sweep over n_kv_max positions measures; 0 if not even the first fits. */
int sweep_n_steps(int n_kv_max, int n_pp, int n_tg);

/* Uses sequence 0 of the arm, whose cache is emptied first. Logits of the warm-up that are not
 * finite are ERR_NONFINITE, naming the model. */
int sweep_run(struct arm *a, const struct sweep_params *p, sweep_fn fn, void *arg, struct err *e);

#endif
