/* SPDX-License-Identifier: MIT
 * inspect.h - what `ggauge inspect` finds out about a file, and its JSON form. */
#ifndef GGAUGE_INSPECT_H
#define GGAUGE_INSPECT_H

#include "gguf/gguf.h"
#include "model/hparams.h"

/* Sizes as llama.cpp logs them when it loads a model; tensors of unknown type count in n_unknown
 * alone. */
struct model_sizes {
    uint64_t n_bytes, n_elems;         /* all tensors, without padding */
    bool has_layers;                   /* token_embd and output both exist */
    uint64_t layer_bytes, layer_elems; /* without these two */
    int64_t n_tensors[QT_count];
    int64_t n_unknown;
};

struct inspection {
    const struct gguf *g;
    struct model_sizes sizes;
    bool has_hp; /* hp could be read */
    struct hparams hp;
    struct err why; /* why this build does not run the model; no code if it does */
};

/* "u32", "str", "arr[f32,8]". */
void inspect_type_name(const struct gguf_kv *kv, char *buf, size_t n_bytes);

/* A binary32 as the binary64 with the fewest decimal digits that still names it: 1e-06, not
 * 9.99999997475242708e-07. */
double inspect_short_f32(float x);

/* Everything, arrays in full, as one JSON object in one line on stdout. Bytes that are not UTF-8
 * become U+FFFD. */
int inspect_json(const struct inspection *in, struct err *e);

#endif
