/* SPDX-License-Identifier: MIT
 * pairtab.h - a hash table from a pair of 32-bit numbers to two numbers. */
#ifndef GGAUGE_PAIRTAB_H
#define GGAUGE_PAIRTAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pairtab_slot {
    uint64_t key; /* PAIRTAB_FREE = free */
    uint32_t rank;
    int32_t sym;
};

#define PAIRTAB_FREE UINT64_MAX

/* All zero is an empty table. */
struct pairtab {
    struct pairtab_slot *slot;
    size_t n, n_slot; /* n_slot is a power of two, at most half full */
};

static inline uint64_t pairtab_key(uint32_t a, uint32_t b) {
    return (uint64_t)a << 32 | b;
}

void pairtab_release(struct pairtab *t);

/* Keeps the first entry of a key. key is not PAIRTAB_FREE. */
int pairtab_add(struct pairtab *t, uint64_t key, uint32_t rank, int32_t sym, struct err *e);

static inline size_t pairtab_home(const struct pairtab *t, uint64_t key) {
    return (size_t)((key * 0x9E3779B97F4A7C15u) >> 32) & (t->n_slot - 1); /* 2^64 / golden ratio */
}

/* NULL if the pair is not there. */
static inline const struct pairtab_slot *pairtab_find(const struct pairtab *t, uint64_t key) {
    if (!t->n_slot) return NULL;
    size_t i = pairtab_home(t, key);
    for (; t->slot[i].key != key; i = (i + 1) & (t->n_slot - 1))
        if (t->slot[i].key == PAIRTAB_FREE) return NULL;
    return &t->slot[i];
}

#endif
