/* SPDX-License-Identifier: MIT
 * strtab.h - byte strings numbered 0, 1, 2, ... in order of arrival, found again by hash. */
#ifndef GGAUGE_STRTAB_H
#define GGAUGE_STRTAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct strtab_entry {
    size_t at; /* in pool */
    uint32_t n;
};

struct strtab_slot {
    uint32_t hash;
    int32_t index; /* -1 = free */
};

/* All zero is an empty table. */
struct strtab {
    char *pool;
    size_t pool_n, pool_cap; /* bytes */
    struct strtab_entry *entry;
    int32_t n, cap;
    struct strtab_slot *slot; /* n_slot is a power of two, at most half full */
    uint32_t n_slot;
};

void strtab_release(struct strtab *t);

/* The number of the string s of n bytes: an old one or t->n before the call. Negative on error. */
int32_t strtab_add(struct strtab *t, const char *s, size_t n, struct err *e);

/* The number of the string, or -1. */
int32_t strtab_find(const struct strtab *t, const char *s, size_t n);

/* String i, not NUL terminated; valid until the next strtab_add. */
static inline const char *strtab_at(const struct strtab *t, int32_t i, size_t *n) {
    *n = t->entry[i].n;
    return t->pool + t->entry[i].at;
}

#endif
