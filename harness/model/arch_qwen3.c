/* SPDX-License-Identifier: MIT
 * arch_qwen3.c - Qwen3: NEOX RoPE, RMS norm over each head of Q and K before the rotation, grouped
 * queries, SwiGLU; no biases.
 *
 * Source: ik_llama.cpp 8337e4cd, src/graphs/build_qwen3.cpp (order and names of nodes). */
#include "model/layer.h"

static int load_layer(struct model *m, int il, struct layer *l, struct err *e) {
    int rc = 0;
    int64_t hd = m->hp.n_embd_head_k;
    TRY(layer_load_dense(m, il, l, e));
    TRY(model_vector(m, il, "attn_q_norm.weight", NEED_REQUIRED, hd, &l->attn_q_norm, e));
    TRY(model_vector(m, il, "attn_k_norm.weight", NEED_REQUIRED, hd, &l->attn_k_norm, e));
out:
    return rc;
}

static struct tensor *build_layer(struct graph *g, const struct model *m, int il, struct tensor *x,
                                  struct err *e) {
    const struct hparams *hp = &m->hp;
    struct qkv a = layer_qkv(g, m, il, x, e);
    const struct layer *l = &m->layers[il];
    a.q = g_rms_norm(g, "Qcur_normed", il, a.q, l->attn_q_norm, hp->rms_eps, e);
    a.k = g_rms_norm(g, "Kcur_normed", il, a.k, l->attn_k_norm, hp->rms_eps, e);
    a.q = g_rope(g, "Qcur", il, a.q, hp, ROPE_NEOX, hp->n_head, e);
    a.k = g_rope(g, "Kcur", il, a.k, hp, ROPE_NEOX, hp->n_head_kv, e);
    return layer_finish(g, m, il, x, a, e);
}

const struct arch_ops arch_qwen3 = { "qwen3", load_layer, build_layer };
