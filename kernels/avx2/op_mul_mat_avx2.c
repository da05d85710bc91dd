/* SPDX-License-Identifier: MIT
 * op_mul_mat_avx2.c - mul_mat on AVX2; contract in op.h, the work in mul_mat_tmpl.h and the cells
 * of the types. */
#include "tmpl/mul_mat_tmpl.h"

static size_t shared_bytes(const struct node *n) {
    return mul_mat_shared_bytes(COL_avx2, n);
}

static size_t scratch_bytes(const struct node *n) {
    return mul_mat_scratch_bytes(COL_avx2, n);
}

static void run(const struct node *n, struct work *w) {
    mul_mat_run(COL_avx2, n, w);
}

const struct op_cell op_mul_mat_avx2 = { .run = run,
                                         .shared_bytes = shared_bytes,
                                         .scratch_bytes = scratch_bytes };
