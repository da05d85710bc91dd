/* SPDX-License-Identifier: MIT
 * gguf_index.c - a hash table from names to numbers, and the small helpers of the reader and
 * writer. */
#include <xxhash.h>

#include "base/arena.h"
#include "gguf_impl.h"

static struct gguf_slot *probe(const struct gguf_index *ix, struct gguf_str name) {
    uint64_t mask = ix->cap - 1;
    uint64_t at = XXH3_64bits(name.p, name.n) & mask;
    while (ix->slots[at].name.p && !gguf_str_eq(ix->slots[at].name, name))
        at = (at + 1) & mask;
    return &ix->slots[at];
}

/* Kept at most half full, so that probing stays short. */
static int make_room(struct gguf_index *ix, struct err *e) {
    if (ix->n * 2 < ix->cap) return 0;
    struct gguf_index big = { .n = ix->n, .cap = ix->cap ? ix->cap * 2 : 64 };
    big.slots = heap_calloc(big.cap, sizeof *big.slots, e);
    if (!big.slots) return ERR_NOMEM;
    for (uint64_t i = 0; i < ix->cap; i++)
        if (ix->slots[i].name.p) *probe(&big, ix->slots[i].name) = ix->slots[i];
    heap_free(ix->slots);
    *ix = big;
    return 0;
}

int gguf_index_put(struct gguf_index *ix, struct gguf_str name, int64_t i, int64_t *have,
                   struct err *e) {
    int rc = make_room(ix, e);
    if (rc < 0) return rc;
    struct gguf_slot *slot = probe(ix, name);
    if (slot->name.p) {
        *have = slot->i;
        return 1;
    }
    *slot = (struct gguf_slot){ name, i };
    ix->n++;
    return 0;
}

int64_t gguf_index_find(const struct gguf_index *ix, struct gguf_str name) {
    if (!ix->cap) return -1;
    const struct gguf_slot *slot = probe(ix, name);
    return slot->name.p ? slot->i : -1;
}

void gguf_index_release(struct gguf_index *ix) {
    heap_free(ix->slots);
    *ix = (struct gguf_index){ 0 };
}

void *gguf_grow(void *items, int64_t n, int64_t *cap, size_t item_bytes, struct err *e) {
    if (n < *cap) return items;
    int64_t want = *cap ? *cap * 2 : 32;
    void *p = heap_realloc(items, (size_t)want * item_bytes, e);
    if (p) *cap = want;
    return p;
}

struct gguf_shown gguf_show(struct gguf_str s) {
    struct gguf_shown out;
    size_t room = sizeof out.s - 4; /* for the dots */
    size_t n = s.n < room ? s.n : room;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        out.s[i] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    memcpy(out.s + n, s.n > room ? "..." : "", s.n > room ? 4 : 1);
    return out;
}

bool gguf_alignment_ok(uint64_t a) {
    return a >= GGUF_ALIGN_MIN && a <= GGUF_ALIGN_MAX && (a & (a - 1)) == 0;
}
