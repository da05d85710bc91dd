/* SPDX-License-Identifier: MIT
 * op_rope_ref.c - rotates pairs of each head by the table of op_rope_table; contract in op.h. */
#include <string.h>

#include "base/fault.h"
#include "op.h"

static void run(const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0], *table = node->src[1];
    int n_rot = node->p.rope.n_rot;
    int64_t hd = node->p.rope.n_embd_head;
    bool neox = node->p.rope.mode == (FAULT(rope_pairing) ? ROPE_NORM : ROPE_NEOX);
    int step = neox ? 1 : 2, other = neox ? n_rot / 2 : 1;
    for (int64_t t; (t = work_next(w)) < x->ne[1];) {
        const float *cs = tensor_row(table, t), *in = tensor_row(x, t);
        float *out = tensor_row(node->dst, t);
        for (int64_t h = 0; h < node->p.rope.n_head; h++, in += hd, out += hd) {
            for (int i = 0; i < n_rot / 2; i++) {
                float a = in[step * i], b = in[step * i + other];
                out[step * i] = a * cs[2 * i] - b * cs[2 * i + 1];
                out[step * i + other] = a * cs[2 * i + 1] + b * cs[2 * i];
            }
            memcpy(out + n_rot, in + n_rot, (size_t)(hd - n_rot) * sizeof *out);
        }
    }
}

const struct op_cell op_rope_ref = { .run = run };
