/* SPDX-License-Identifier: MIT
 * pairtab.c - open addressing; see pairtab.h. */
#include "tok/pairtab.h"

#include <string.h>

#include "base/arena.h"

void pairtab_release(struct pairtab *t) {
    heap_free(t->slot);
    *t = (struct pairtab){ 0 };
}

static void put(struct pairtab *t, struct pairtab_slot x) {
    size_t i = pairtab_home(t, x.key);
    while (t->slot[i].key != PAIRTAB_FREE) {
        if (t->slot[i].key == x.key) return;
        i = (i + 1) & (t->n_slot - 1);
    }
    t->slot[i] = x;
    t->n++;
}

int pairtab_add(struct pairtab *t, uint64_t key, uint32_t rank, int32_t sym, struct err *e) {
    if (t->n >= t->n_slot / 2) {
        struct pairtab wide = { .n_slot = t->n_slot ? t->n_slot * 2 : 64 };
        wide.slot = heap_alloc(wide.n_slot * sizeof *wide.slot, e);
        if (!wide.slot) return ERR_NOMEM;
        memset(wide.slot, 0xff, wide.n_slot * sizeof *wide.slot); /* every key PAIRTAB_FREE */
        for (size_t i = 0; i < t->n_slot; i++)
            if (t->slot[i].key != PAIRTAB_FREE) put(&wide, t->slot[i]);
        pairtab_release(t);
        *t = wide;
    }
    put(t, (struct pairtab_slot){ .key = key, .rank = rank, .sym = sym });
    return 0;
}
