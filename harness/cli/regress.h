/* SPDX-License-Identifier: MIT
 * regress.h - what the files of `ggauge regress` share: cmd_regress.c measures and reports,
 * regress_build.c brings two revisions of an engine from its repository to workers. */
#ifndef GGAUGE_REGRESS_H
#define GGAUGE_REGRESS_H

#include <stdio.h>

#include "measure/pair_sweep.h"
#include "measure/verdict.h"

enum { REV_BASE, REV_HEAD, REV_count };

struct regress {
    /* options */
    const char *repo, *rev[REV_count], *build, *build_dir, *source, *out, *model, *text,
        *arm_options;
    int n_ctx, chunks, n_threads, n_kv, n_pp, n_tg, n_rounds;
    double margin, slower;
    bool no_sweep;

    /* while running */
    char commit[REV_count][64];  /* full hashes */
    char worker[REV_count][4096]; /* the workers' folders */
    char arm[REV_count][8192];   /* "lib:... options" */
    bool head_broken;            /* it does not build: a verdict */
    int compare_code;            /* exit code */
    char *compare_text;          /* what compare printed, owned */
    size_t n_compare_text, max_compare_text;
    struct pair_sweep sweep[2];  /* the second only to see whether a slowness comes again */
    int n_sweeps;
};

const char *regress_rev_name(int rev); /* "base" */

/* Resolve both revisions, check them out below OUT, build them with the user's command, and build
 * their workers. Sets commit, worker and head_broken. A checkout that the same command has built is
 * used again if it is still clean; any other folder in its place is removed. */
int regress_build(struct regress *r, struct err *e);

#endif
