/* SPDX-License-Identifier: MIT
 * arch_llama.c - Llama 2 and 3, Mistral: NORM RoPE (with rope_freqs where the file has them),
 * grouped queries, SwiGLU. Biases are accepted where a file has them.
 *
 * Source: ik_llama.cpp 8337e4cd, src/graphs/build_llama.cpp (order and names of nodes). */
#include "model/layer.h"

static int load_layer(struct model *m, int il, struct layer *l, struct err *e) {
    int rc = 0;
    const struct hparams *hp = &m->hp;
    FAIL_IF(hp->n_rot != hp->n_embd_head_k, e, ERR_FORMAT,
            "llama: rope.dimension_count %lld must equal the head size %lld", (long long)hp->n_rot,
            (long long)hp->n_embd_head_k);
    TRY(layer_load_dense(m, il, l, e));
    enum need opt = NEED_OPTIONAL;
    TRY(layer_load_qkv_bias(m, il, opt, l, e));
    TRY(model_vector(m, il, "attn_output.bias", opt, hp->n_embd, &l->attn_output_bias, e));
    TRY(model_vector(m, il, "ffn_gate.bias", opt, hp->n_ff, &l->ffn_gate_bias, e));
    TRY(model_vector(m, il, "ffn_up.bias", opt, hp->n_ff, &l->ffn_up_bias, e));
    TRY(model_vector(m, il, "ffn_down.bias", opt, hp->n_embd, &l->ffn_down_bias, e));
out:
    return rc;
}

static struct tensor *build_layer(struct graph *g, const struct model *m, int il, struct tensor *x,
                                  struct err *e) {
    const struct hparams *hp = &m->hp;
    struct qkv a = layer_qkv(g, m, il, x, e);
    a.q = g_rope(g, "Qcur", il, a.q, hp, ROPE_NORM, hp->n_head, e);
    a.k = g_rope(g, "Kcur", il, a.k, hp, ROPE_NORM, hp->n_head_kv, e);
    return layer_finish(g, m, il, x, a, e);
}

const struct arch_ops arch_llama = { "llama", load_layer, build_layer };
