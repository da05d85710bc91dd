/* SPDX-License-Identifier: MIT
 * hparams.h - hyper-parameters of a model, read from the keys of its GGUF file.
 *
 * Names are those of the field (n_embd, n_head_kv, ...); `A.` in a key stands for the
 * architecture's name. Source of keys and defaults: ik_llama.cpp 8337e4cd,
 * src/llama-hparams.cpp. */
#ifndef GGAUGE_HPARAMS_H
#define GGAUGE_HPARAMS_H

#include "gguf/gguf.h"
#include "model/arch.h"

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_YARN };

struct hparams {
    enum arch arch;
    int64_t n_vocab;
    int64_t n_ctx_train;   /* A.context_length */
    int64_t n_embd;        /* A.embedding_length */
    int64_t n_layer;       /* A.block_count */
    int64_t n_head;        /* A.attention.head_count; one number for all layers */
    int64_t n_head_kv;
    int64_t n_embd_head_k; /* A.attention.key_length, default n_embd / n_head */
    int64_t n_embd_head_v;
    int64_t n_rot;         /* A.rope.dimension_count, default n_embd_head_k */
    int64_t n_ff;          /* A.feed_forward_length */
    double rms_eps;        /* A.attention.layer_norm_rms_epsilon */
    double rope_freq_base; /* default 10000 */
    double rope_freq_scale; /* 1 / A.rope.scaling.factor, default 1 */
    enum rope_scaling rope_scaling;
    double rope_attn_factor; /* default 1 */
    int64_t n_ctx_orig;      /* A.rope.scaling.original_context_length, default n_ctx_train */
};

/* ERR_UNSUPPORTED for an architecture that is not in ARCH_LIST or a variant this build does not
 * run; ERR_MISSING or ERR_FORMAT names the key. */
int hparams_load(struct hparams *hp, const struct gguf *g, struct err *e);

/* One "name = value" line per hyper-parameter, in the order above; fn gets each line without its
 * newline. */
void hparams_print(const struct hparams *hp, void (*fn)(void *arg, const char *line), void *arg);

#endif
