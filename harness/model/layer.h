/* SPDX-License-Identifier: MIT
 * layer.h - what the layers of dense decoder architectures have in common.
 *
 * A layer is: norm, Q K V (layer_qkv); what the architecture does to Q and K; attention, output
 * matrix, residual, feed-forward network, residual (layer_finish). Optional biases are applied
 * where the layer has them. */
#ifndef GGAUGE_LAYER_H
#define GGAUGE_LAYER_H

#include "model/graph.h"

/* attn_norm, attn_q/k/v/output, ffn_norm, ffn_gate/up/down; all required. */
int layer_load_dense(struct model *m, int il, struct layer *l, struct err *e);

/* Biases of Q, K and V. */
int layer_load_qkv_bias(struct model *m, int il, enum need need, struct layer *l, struct err *e);

struct qkv {
    struct tensor *q, *k, *v; /* [n_tok, n_head * n_embd_head]; NULL with *e set */
};

struct qkv layer_qkv(struct graph *g, const struct model *m, int il, const struct tensor *x,
                     struct err *e);

/* q and k come rotated. Returns the residual stream after the layer, or NULL with *e set. */
struct tensor *layer_finish(struct graph *g, const struct model *m, int il, struct tensor *x,
                            struct qkv a, struct err *e);

#endif
