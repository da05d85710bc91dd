/* SPDX-License-Identifier: MIT
 * layer.c - the dense decoder layer; see layer.h. */
#include "model/layer.h"

int layer_load_dense(struct model *m, int il, struct layer *l, struct err *e) {
    int rc = 0;
    const struct hparams *hp = &m->hp;
    int64_t n_embd = hp->n_embd, n_ff = hp->n_ff;
    int64_t n_q = hp->n_head * hp->n_embd_head_k, n_k = hp->n_head_kv * hp->n_embd_head_k;
    int64_t n_v = hp->n_head_kv * hp->n_embd_head_v, n_o = hp->n_head * hp->n_embd_head_v;
    enum need req = NEED_REQUIRED;
    TRY(model_vector(m, il, "attn_norm.weight", req, n_embd, &l->attn_norm, e));
    TRY(model_matrix(m, il, "attn_q.weight", req, n_embd, n_q, &l->attn_q, e));
    TRY(model_matrix(m, il, "attn_k.weight", req, n_embd, n_k, &l->attn_k, e));
    TRY(model_matrix(m, il, "attn_v.weight", req, n_embd, n_v, &l->attn_v, e));
    TRY(model_matrix(m, il, "attn_output.weight", req, n_o, n_embd, &l->attn_output, e));
    TRY(model_vector(m, il, "ffn_norm.weight", req, n_embd, &l->ffn_norm, e));
    TRY(model_matrix(m, il, "ffn_gate.weight", req, n_embd, n_ff, &l->ffn_gate, e));
    TRY(model_matrix(m, il, "ffn_up.weight", req, n_embd, n_ff, &l->ffn_up, e));
    TRY(model_matrix(m, il, "ffn_down.weight", req, n_ff, n_embd, &l->ffn_down, e));
out:
    return rc;
}

int layer_load_qkv_bias(struct model *m, int il, enum need need, struct layer *l, struct err *e) {
    int rc = 0;
    const struct hparams *hp = &m->hp;
    int64_t n_q = hp->n_head * hp->n_embd_head_k, n_k = hp->n_head_kv * hp->n_embd_head_k;
    int64_t n_v = hp->n_head_kv * hp->n_embd_head_v;
    TRY(model_vector(m, il, "attn_q.bias", need, n_q, &l->attn_q_bias, e));
    TRY(model_vector(m, il, "attn_k.bias", need, n_k, &l->attn_k_bias, e));
    TRY(model_vector(m, il, "attn_v.bias", need, n_v, &l->attn_v_bias, e));
out:
    return rc;
}

struct qkv layer_qkv(struct graph *g, const struct model *m, int il, const struct tensor *x,
                     struct err *e) {
    const struct layer *l = &m->layers[il];
    const struct tensor *n = g_rms_norm(g, "attn_norm", il, x, l->attn_norm, m->hp.rms_eps, e);
    struct qkv a;
    a.q = g_mul_mat(g, "Qcur", il, l->attn_q, n, e);
    a.k = g_mul_mat(g, "Kcur", il, l->attn_k, n, e);
    a.v = g_mul_mat(g, "Vcur", il, l->attn_v, n, e);
    a.q = g_add(g, "Qcur", il, a.q, l->attn_q_bias, e);
    a.k = g_add(g, "Kcur", il, a.k, l->attn_k_bias, e);
    a.v = g_add(g, "Vcur", il, a.v, l->attn_v_bias, e);
    return a;
}

static struct tensor *ffn(struct graph *g, int il, const struct layer *l, const struct tensor *x,
                          struct err *e) {
    struct tensor *gate = g_mul_mat(g, "ffn_gate", il, l->ffn_gate, x, e);
    struct tensor *up = g_mul_mat(g, "ffn_up", il, l->ffn_up, x, e);
    gate = g_add(g, "ffn_gate", il, gate, l->ffn_gate_bias, e);
    up = g_add(g, "ffn_up", il, up, l->ffn_up_bias, e);
    struct tensor *y = g_swiglu(g, "ffn_swiglu", il, gate, up, e);
    y = g_mul_mat(g, "ffn_out", il, l->ffn_down, y, e);
    return g_add(g, "ffn_out", il, y, l->ffn_down_bias, e);
}

struct tensor *layer_finish(struct graph *g, const struct model *m, int il, struct tensor *x,
                            struct qkv a, struct err *e) {
    const struct layer *l = &m->layers[il];
    bool last = il == m->hp.n_layer - 1;
    if (!g_store(g, il, a.k, a.v, e)) return NULL;
    if (last && g->n_out == 0) return x; /* nobody reads further; the cache is filled */

    struct tensor *y = g_attn(g, il, &m->hp, a.q, e);
    if (last) { /* only rows whose logits are wanted go on */
        y = g_wanted_rows(g, "kqv_wanted", il, y, e);
        x = g_wanted_rows(g, "inp_wanted", il, x, e);
    }
    y = g_mul_mat(g, "attn_out", il, l->attn_output, y, e);
    y = g_add(g, "attn_out", il, y, l->attn_output_bias, e);
    x = g_sum(g, "ffn_inp", il, y, x, e);

    y = g_rms_norm(g, "ffn_norm", il, x, l->ffn_norm, m->hp.rms_eps, e);
    y = ffn(g, il, l, y, e);
    return g_sum(g, "l_out", il, y, x, e);
}
