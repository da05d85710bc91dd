/* SPDX-License-Identifier: MIT
 * arena.h - all heap memory of the program.
 *
 * heap_*  general allocations, so that a test can make the n-th one fail (heap_fail_at).
 * arena_* one block, filled front to back, released at once; objects are 64-byte aligned and under
 *         AddressSanitizer separated by red zones.
 *
 * heap_ functions are thread safe; one arena belongs to one thread at a time. */
#ifndef GGAUGE_ARENA_H
#define GGAUGE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define MEM_ALIGN 64 /* bytes: a cache line, and the widest vector register */

/* 64-byte aligned, uninitialised; large blocks ask for huge pages. NULL with *e set (ERR_NOMEM) on
 * failure, and where a large block would not fit the memory that is available (memory.h); n = 0
 * gives a valid pointer. Release with heap_free. */
void *heap_alloc(size_t n_bytes, struct err *e);
/* The same for count * size bytes, zeroed; an overflowing product is ERR_NOMEM. */
void *heap_calloc(size_t count, size_t size, struct err *e);
/* Grow or shrink; old contents kept, p stays valid on failure. p may be NULL. */
void *heap_realloc(void *p, size_t n_bytes, struct err *e);
/* A NUL-terminated copy of n bytes. */
char *heap_strndup(const char *s, size_t n, struct err *e);
void heap_free(void *p);

/* Tests only: let the n-th allocation from now (1 = the next) fail, 0 switches it off. */
void heap_fail_at(int64_t n);

struct arena {
    unsigned char *base;
    size_t cap, used; /* bytes */
    bool sealed;      /* after arena_seal no allocation may happen */
};

int arena_init(struct arena *a, size_t cap_bytes, struct err *e);
void arena_release(struct arena *a);
/* NULL with *e set when the arena is full or sealed. */
void *arena_push(struct arena *a, size_t n_bytes, struct err *e);
void arena_seal(struct arena *a);
/* Everything pushed after `mark = a->used` was read is forgotten. */
void arena_rewind(struct arena *a, size_t mark);

#endif
