/* SPDX-License-Identifier: MIT
 * kv.h - the KV cache: n_seq sequences of n_ctx cells each; position p of sequence s is cell
 * s * n_ctx + p. No mask and no search: what a token sees follows from its position. */
#ifndef GGAUGE_KV_H
#define GGAUGE_KV_H

#include "backend.h"
#include "model/hparams.h"

struct kv_cache {
    enum qtype type_k, type_v;
    int64_t n_layer;
    int32_t n_ctx, n_seq;
    struct tensor *k, *v; /* [n_layer], each [n_seq * n_ctx, n_head_kv * n_embd_head] */
    int32_t *n_used;      /* [n_seq] positions filled */
    void *data;           /* one block for all layers; pages that nobody touches take no memory */
    size_t n_bytes;
};

int kv_init(struct kv_cache *kv, const struct hparams *hp, enum qtype type_k, enum qtype type_v,
            int32_t n_ctx, int32_t n_seq, struct err *e);
/* Write to every page of layer il, which is empty yet, so that the system finds memory for it now
 * and not while time is measured. */
void kv_touch(struct kv_cache *kv, int64_t il);
void kv_release(struct kv_cache *kv);
/* Forget positions >= pos of sequence seq, or of all if seq is -1. */
int kv_trim(struct kv_cache *kv, int32_t seq, int32_t pos, struct err *e);

#endif
