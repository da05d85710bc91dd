/* SPDX-License-Identifier: MIT
 * perplexity.h - what the files of `ggauge perplexity` share: its options, and one function for
 * each of its two modes. */
#ifndef GGAUGE_CLI_PERPLEXITY_H
#define GGAUGE_CLI_PERPLEXITY_H

#include "cli/arm_spec.h"
#include "cli/progress.h"
#include "measure/ppl_rows.h"

struct perplexity {
    /* options */
    struct arm_params arm;
    const char *arm_text, *text, *fa, *csv, *results, *base;
    int chunks, stride, output_type, kl_floor, seed;
    bool escape, resume, kld;

    /* while running */
    struct arm_spec spec; /* of --arm */
    struct arm *a;
    struct windows win;
    int n_batch, n_seq; /* in effect: of the windows and -b */
    struct ppl_rows rows;
    struct progress progress;
    bool mid_line;      /* stdout holds a line without its end */
    bool passed;        /* the first pass is over: remaining time was said */
};

/* Text and, if asked for, the file of logits to be written. */
int perplexity_plain(struct perplexity *c, struct err *e);
/* Against saved logits. */
int perplexity_kld(struct perplexity *c, struct err *e);

/* Open c->a for windows of n_ctx tokens; sets n_batch and n_seq. The vocabulary must be usable. */
int perplexity_open_arm(struct perplexity *c, int n_ctx, struct err *e);
/* BOS to be fed at the start of every window, or -1. */
int32_t perplexity_bos(const struct perplexity *c);
/* Fill rows.run.base with what is the same for all rows. nll: "f64", or "f32" where logits are
 * saved. */
int perplexity_describe(struct perplexity *c, const char *test, const char *text,
                        const char *text_fp, const char *nll, struct err *e);
/* Open --csv, where the known chunks (NULL: none) are already, and the file in --results. */
int perplexity_open_rows(struct perplexity *c, const struct ppl_known *known, struct err *e);
/* After the first pass: seconds and remaining time on stderr. */
void perplexity_eta(struct perplexity *c, const char *who, int64_t n_left, int n, double seconds);
/* After the last: speed on stderr. */
void perplexity_speed(const char *who, const struct walk *w);
/* A perplexity that no working model has: a warning on stderr. */
void perplexity_judge(const struct perplexity *c, double ppl);
/* Flush stdout; a full disk behind it is ERR_IO. */
int perplexity_flush(struct err *e);

#endif
