/* SPDX-License-Identifier: MIT
 * op_get_rows_ref.c - rows of a table by index; contract in op.h. The gain of a type is a factor of
 * products, so a looked-up embedding does not get it. */
#include "backend.h"
#include "base/fault.h"

static void run(const struct node *n, struct work *w) {
    const struct tensor *table = n->src[0], *ids = n->src[1];
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)table->type, false, NULL);
    const int64_t grain = work_grain(n->dst->row_bytes);
    for (int64_t t, end; work_rows(w, n->dst->ne[1], grain, &t, &end);)
        for (; t < end; t++) {
            int32_t id = ((const int32_t *)ids->data)[t];
            if (FAULT(embd_rows) && n->il < 0 && (id | 3) < table->ne[1]) id ^= 3;
            k->dequant_row(tensor_row(table, id), tensor_row(n->dst, t), table->ne[0]);
        }
}

const struct op_cell op_get_rows_ref = { .run = run };
