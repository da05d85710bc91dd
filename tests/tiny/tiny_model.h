/* SPDX-License-Identifier: MIT
 * tiny_model.h - random models of two layers, one per architecture, for tests: small enough to be
 * computed again by a plain double-precision forward pass. */
#ifndef GGAUGE_TINY_MODEL_H
#define GGAUGE_TINY_MODEL_H

#include <stdint.h>

#include "base/err.h"

struct tiny_model {
    const char *arch; /* "llama", "qwen2", "qwen3" */
    int n_vocab, n_embd, n_layer, n_head, n_head_kv, n_embd_head, n_ff, n_ctx;
    double rms_eps, freq_base;
    const char *scaling;  /* rope.scaling.type or NULL */
    double scale_factor;  /* rope.scaling.factor, 0 = not in the file */
    int n_ctx_orig;       /* 0 = not in the file */
    bool tied, rope_freqs;
    bool quantised; /* matrices as q8_0: n_embd, n_ff and n_head * n_embd_head multiples of 32 */
    uint64_t seed;
};

/* A two-layer default of an architecture: GQA 4/2, untied but for qwen2. */
struct tiny_model tiny_model_default(const char *arch);

/* Write it as GGUF, F32 but for quantised matrices, without a vocabulary. Weights follow from the
 * seed alone. */
int tiny_model_write(const struct tiny_model *t, const char *path, struct err *e);

#endif
