/* SPDX-License-Identifier: MIT
 * op_mul_mat_amx_requant.c - mul_mat on tiles of bytes; contract in op.h, the work in
 * mul_mat_tmpl.h and the cells of the types. */
#include "tmpl/mul_mat_tmpl.h"

static size_t shared_bytes(const struct node *n) {
    return mul_mat_shared_bytes(COL_amx_requant, n);
}

static size_t scratch_bytes(const struct node *n) {
    return mul_mat_scratch_bytes(COL_amx_requant, n);
}

static void run(const struct node *n, struct work *w) {
    mul_mat_run(COL_amx_requant, n, w);
}

const struct op_cell op_mul_mat_amx_requant = { .run = run,
                                                .shared_bytes = shared_bytes,
                                                .scratch_bytes = scratch_bytes };
