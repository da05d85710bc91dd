/* SPDX-License-Identifier: MIT
 * strtab.c - open addressing over one byte pool; see strtab.h. */
#include "tok/strtab.h"

#include <string.h>
#include <xxhash.h>

#include "base/arena.h"

void strtab_release(struct strtab *t) {
    heap_free(t->pool);
    heap_free(t->entry);
    heap_free(t->slot);
    *t = (struct strtab){ 0 };
}

/* The slot that holds the string, or the free one where it belongs. */
static uint32_t probe(const struct strtab *t, const char *s, size_t n, uint32_t hash) {
    uint32_t i = hash & (t->n_slot - 1);
    for (;; i = (i + 1) & (t->n_slot - 1)) {
        const struct strtab_slot *slot = &t->slot[i];
        if (slot->index < 0) return i;
        if (slot->hash != hash) continue;
        const struct strtab_entry *x = &t->entry[slot->index];
        if (x->n == n && !memcmp(t->pool + x->at, s, n)) return i;
    }
}

static int grow_slots(struct strtab *t, struct err *e) {
    uint32_t n_slot = t->n_slot ? t->n_slot * 2 : 64;
    struct strtab_slot *slot = heap_alloc(n_slot * sizeof *slot, e);
    if (!slot) return ERR_NOMEM;
    memset(slot, 0xff, n_slot * sizeof *slot); /* index -1 everywhere */
    for (uint32_t i = 0; i < t->n_slot; i++) {
        if (t->slot[i].index < 0) continue;
        uint32_t k = t->slot[i].hash & (n_slot - 1);
        while (slot[k].index >= 0)
            k = (k + 1) & (n_slot - 1);
        slot[k] = t->slot[i];
    }
    heap_free(t->slot);
    t->slot = slot;
    t->n_slot = n_slot;
    return 0;
}

static int reserve(struct strtab *t, size_t n, struct err *e) {
    int rc = 0;
    FAIL_IF(t->n >= INT32_MAX / 4 || n > UINT32_MAX, e, ERR_FORMAT,
            "a vocabulary of more than %d texts or a text of more than 4 GiB", INT32_MAX / 4);
    if ((uint32_t)t->n >= t->n_slot / 2) TRY(grow_slots(t, e));
    if (t->n == t->cap) {
        int32_t cap = t->cap ? t->cap * 2 : 64;
        struct strtab_entry *p = heap_realloc(t->entry, (size_t)cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        t->entry = p;
        t->cap = cap;
    }
    if (t->pool_cap - t->pool_n < n) {
        size_t cap = (t->pool_n + n) * 2;
        char *p = heap_realloc(t->pool, cap, e);
        if (!p) return ERR_NOMEM;
        t->pool = p;
        t->pool_cap = cap;
    }
out:
    return rc;
}

int32_t strtab_add(struct strtab *t, const char *s, size_t n, struct err *e) {
    int rc = reserve(t, n, e);
    if (rc < 0) return rc;
    uint32_t hash = (uint32_t)XXH3_64bits(s, n);
    struct strtab_slot *slot = &t->slot[probe(t, s, n, hash)];
    if (slot->index >= 0) return slot->index;
    if (n) memcpy(t->pool + t->pool_n, s, n);
    t->entry[t->n] = (struct strtab_entry){ .at = t->pool_n, .n = (uint32_t)n };
    t->pool_n += n;
    *slot = (struct strtab_slot){ .hash = hash, .index = t->n };
    return t->n++;
}

int32_t strtab_find(const struct strtab *t, const char *s, size_t n) {
    if (!t->n_slot) return -1;
    return t->slot[probe(t, s, n, (uint32_t)XXH3_64bits(s, n))].index;
}
