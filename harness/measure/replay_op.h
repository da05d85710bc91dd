/* SPDX-License-Identifier: MIT
 * replay_op.h - the op of a capsule, run again on a column of this machine and judged. */
#ifndef GGAUGE_REPLAY_OP_H
#define GGAUGE_REPLAY_OP_H

#include "base/fault.h"
#include "measure/capsule.h"

struct replay {
    char cell[48];          /* that ran: "iq4_kt@avx2" */
    struct op_limit limit;  /* of that cell */
    struct op_error error;  /* against ref with the same rounded activations; rows are positions */
    bool within;            /* error within limit */
    /* Elements that differ in any bit from what the arms had recorded; -1: nothing recorded. */
    int64_t n_differ_a, n_differ_b;
    /* And by how much at most, of the recorded row's rms. */
    double diff_a, diff_b;
};

/* n_threads 0: all processors. ERR_UNSUPPORTED if the column cannot run here. fault: of the column,
 * in a build with seeded faults; FAULT_none otherwise. */
int replay_op(const struct capsule *k, enum column c, int n_threads, enum fault fault,
              struct replay *out, struct err *e);

#endif
