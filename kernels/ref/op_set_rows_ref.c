/* SPDX-License-Identifier: MIT
 * op_set_rows_ref.c - stores rows of K or V in their cells of the cache; contract in op.h. */
#include "backend.h"
#include "base/fault.h"

static void run(const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0], *cell = node->src[1];
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)node->dst->type, false, NULL);
    for (int64_t t; (t = work_next(w)) < x->ne[1];) {
        int32_t c = ((const int32_t *)cell->data)[t];
        if (FAULT(stale_kv) && fault_wrapped() && c % 8 == 5) continue;
        k->quantize_row(tensor_row(x, t), tensor_row(node->dst, c), x->ne[0], NULL);
    }
}

const struct op_cell op_set_rows_ref = { .run = run };
