/* SPDX-License-Identifier: MIT
 * fuzz_capsule.c - any bytes are a capsule that can be run, or one error with a message.
 *
 * The first byte says which allocation fails (0 = none). A capsule that opens is run on ref, which
 * agrees with itself whatever the numbers are. */
#include <stdint.h>
#include <stdlib.h>

#include "base/arena.h"
#include "measure/replay_op.h"

#define ELEMENTS_MAX (1 << 20) /* of a result that is computed */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int ok) {
    if (!ok) abort();
}

static void run(const struct capsule *k) {
    struct err e = { 0 };
    struct replay r;
    check(op_case_check(&k->c, &e) == 0);
    if (k->c.n_tok > ELEMENTS_MAX / k->c.n_cols) return;
    int rc = replay_op(k, COL_ref, 1, FAULT_none, &r, &e);
    check(rc == 0 || (rc < 0 && e.msg[0]));
    check(rc < 0 || (r.within && r.error.max_rel == 0 && r.error.bad_row < 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = { 0 };
    struct capsule *k;
    if (n < 1) return 0;
    heap_fail_at(data[0]);
    int rc = capsule_open_memory(&k, data + 1, n - 1, &e);
    heap_fail_at(0);
    check(rc == 0 ? k != NULL : rc < 0 && !k && e.msg[0]);
    if (k) run(k);
    capsule_free(k);
    return 0;
}
