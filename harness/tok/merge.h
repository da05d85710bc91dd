/* SPDX-License-Identifier: MIT
 * merge.h - the loop that both tokenizers share: of all neighbouring pairs that may be merged, take
 * the one with the lowest rank, the leftmost among equals, until there is none. */
#ifndef GGAUGE_MERGE_H
#define GGAUGE_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A symbol: bytes [at, at + n) of the text. Merged symbols have n = 0 and are in no list. */
struct merge_node {
    size_t at;
    uint32_t n;
    int32_t sym;        /* what the tokenizer calls it; -1 = unnamed */
    int32_t prev, next; /* neighbours, -1 at the ends */
};

struct merge_pair {
    uint64_t order; /* rank << 32 | left: smaller comes first */
    uint32_t n;     /* bytes of both: a pair whose parts have changed since is recognised by it */
    int32_t sym;    /* of the merged symbol */
};

/* Buffers of one thread; all zero is empty. */
struct merge {
    struct merge_node *node; /* in text order; node[0] always survives */
    struct merge_pair *heap;
    size_t n_node, cap_node, n_heap, cap_heap;
};

/* May l and r, neighbours in the text, be merged? Then their rank and the name of the result. */
typedef bool (*merge_find_fn)(const void *model, const char *text, const struct merge_node *l,
                              const struct merge_node *r, uint32_t *rank, int32_t *sym);

void merge_release(struct merge *m);

/* Append a symbol; at most INT32_MAX of them. */
int merge_add(struct merge *m, size_t at, uint32_t n, int32_t sym, struct err *e);

/* Merge until nothing is left to do. Afterwards follow `next` from node[0]. */
int merge_run(struct merge *m, const char *text, merge_find_fn find, const void *model,
              struct err *e);

#endif
