/* SPDX-License-Identifier: MIT
 * gguf_fingerprint.c - tells two models apart without reading all of their data.
 *
 * Hashed are the key-values, the tensor infos and, of every tensor, the first, middle and last 4
 * KiB. Left out is what only says how the model is packed: alignment, offsets, padding and the
 * split keys. So a model keeps its fingerprint when it is split, merged or aligned anew. */
#define XXH_STATIC_LINKING_ONLY /* the state on the stack: nothing here can fail */
#include <stdio.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "gguf_impl.h"

#define SAMPLE 4096 /* bytes: a page */

static void add(XXH3_state_t *h, const void *p, size_t n) {
    XXH3_64bits_update(h, p, n);
}

static bool is_packing(struct gguf_str key) {
    return gguf_str_eq(key, gguf_str_of("general.alignment")) ||
           (key.n >= 6 && memcmp(key.p, "split.", 6) == 0);
}

static void add_kv(XXH3_state_t *h, const struct gguf_kv *kv) {
    const uint64_t head[] = { kv->key.n, (uint64_t)kv->type, (uint64_t)kv->elem_type, kv->count };
    add(h, head, sizeof head);
    add(h, kv->key.p, kv->key.n);
    add(h, kv->data, (size_t)gguf_kv_bytes(kv));
}

static void add_tensor(XXH3_state_t *h, const struct gguf_tensor *t) {
    const uint64_t head[] = { strlen(t->name), t->type_id, (uint64_t)t->n_dims, t->n_bytes };
    add(h, head, sizeof head);
    add(h, t->name, strlen(t->name));
    add(h, t->ne, sizeof t->ne);
    const unsigned char *p = t->data;
    size_t n = (size_t)t->n_bytes;
    if (n <= 3 * SAMPLE) {
        if (n) add(h, p, n);
        return;
    }
    add(h, p, SAMPLE);
    add(h, p + n / 2 - SAMPLE / 2, SAMPLE);
    add(h, p + n - SAMPLE, SAMPLE);
}

/* Reading ahead of a few scattered pages would fetch thirty times as much from the disk. */
static void advise(const struct gguf *g, int advice) {
    for (int k = 0; k < g->n_parts; k++)
        if (g->parts[k].map) madvise(g->parts[k].map, (size_t)g->parts[k].n_bytes, advice);
}

void gguf_fingerprint(const struct gguf *g, char out[17]) {
    XXH3_state_t h;
    XXH3_64bits_reset(&h);
    for (int64_t i = 0; i < gguf_n_kv(g); i++)
        if (!is_packing(gguf_kv_at(g, i)->key)) add_kv(&h, gguf_kv_at(g, i));
    advise(g, MADV_RANDOM);
    for (int64_t i = 0; i < g->n_tensors; i++)
        add_tensor(&h, &g->tensors[i]);
    advise(g, MADV_NORMAL);
    snprintf(out, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&h));
}
