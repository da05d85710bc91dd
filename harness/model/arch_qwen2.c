/* SPDX-License-Identifier: MIT
 * arch_qwen2.c - Qwen2: NEOX RoPE, biases on Q, K and V, grouped queries, SwiGLU.
 *
 * Source: ik_llama.cpp 8337e4cd, src/graphs/build_qwen2.cpp (order and names of nodes). */
#include "model/layer.h"

static int load_layer(struct model *m, int il, struct layer *l, struct err *e) {
    int rc = 0;
    TRY(layer_load_dense(m, il, l, e));
    TRY(layer_load_qkv_bias(m, il, NEED_REQUIRED, l, e));
out:
    return rc;
}

static struct tensor *build_layer(struct graph *g, const struct model *m, int il, struct tensor *x,
                                  struct err *e) {
    const struct hparams *hp = &m->hp;
    struct qkv a = layer_qkv(g, m, il, x, e);
    a.q = g_rope(g, "Qcur", il, a.q, hp, ROPE_NEOX, hp->n_head, e);
    a.k = g_rope(g, "Kcur", il, a.k, hp, ROPE_NEOX, hp->n_head_kv, e);
    return layer_finish(g, m, il, x, a, e);
}

const struct arch_ops arch_qwen2 = { "qwen2", load_layer, build_layer };
