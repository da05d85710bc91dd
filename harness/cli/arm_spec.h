/* SPDX-License-Identifier: MIT
 * arm_spec.h - an arm written as one string: its kind, then options of its own.
 *
 *   "avx2 -t 2 -ub 64"                 our engine on a column, in this process
 *   "best"                             the best CPU column
 *   "worker avx2", "worker:PROG avx2"  the same in a process of its own, this program or another
 *   "lib:build/workers/llama.cpp-1a2b -ngl 0 -fa on"
 *                                      another engine, through the worker that `make worker` has
 *                                      built for it: its folder or its program
 *   "cli:/path/to/llama-perplexity"    its printed chunks, where there is nothing but the program
 *                                      (compare alone)
 *   "file:logits.bin"                  logits saved by --kl-divergence-base, ours or llama.cpp's
 *
 * Options not given are those of the command line, but -rtr, by which another engine means another
 * copy. Words are split at blanks; '...' and "..." keep
 * blanks together. */
#ifndef GGAUGE_ARM_SPEC_H
#define GGAUGE_ARM_SPEC_H

#include "arm/arm.h"

#define ARM_SPEC_WORDS 64

struct arm_spec {
    struct arm_params params; /* its strings belong to the spec or to the command line */
    char *words;              /* owned */
    char *argv[ARM_SPEC_WORDS];
    int argc;
    char program[4096]; /* of lib: */
};

/* `what` names the string in messages ("--a"); `defaults` are the command line's. Release with
 * arm_spec_release, after an error too. Returns 1 if help was asked for and printed. */
int arm_spec_parse(struct arm_spec *s, const char *what, const char *text,
                   const struct arm_params *defaults, struct err *e);
void arm_spec_release(struct arm_spec *s);

#endif
