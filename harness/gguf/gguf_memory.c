/* SPDX-License-Identifier: MIT
 * gguf_memory.c - moves the data of an open model into huge pages, for whoever reads all of it
 * again and again.
 *
 * A mapped file mostly comes in pages of 4 KiB. To look up their addresses costs a third of the
 * read bandwidth: 10.8 GB/s instead of 15.5 for one thread of a virtual machine on a Sapphire
 * Rapids. Therefore the file is copied into anonymous memory, which takes the place of the mapping
 * at the same address, so that no pointer changes. Where that is not to be had, the mapping stays
 * and the system is told that huge pages would be welcome; it gives them to files that it has not
 * read yet, if the file system can. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "gguf_impl.h"

#ifdef MADV_HUGEPAGE

#define WORTH_IT (16 * HUGE_PAGE) /* smaller models stay in the caches that matter */
#define SHARE 4                   /* of the memory that is free, a model may take one part */

static bool huge_pages_allowed(void) {
    char line[64] = "";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (!f) return false;
    bool ok = fgets(line, sizeof line, f) && !strstr(line, "[never]");
    fclose(f);
    return ok;
}

/* Whether the part now lies in memory of its own. */
static bool copy_part(struct gguf_part *p, gguf_place_fn place, void *arg) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t n = ((size_t)p->n_bytes + page - 1) / page * page;
    char *all =
        mmap(NULL, n + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return false;
    const size_t before = (HUGE_PAGE - (uintptr_t)all % HUGE_PAGE) % HUGE_PAGE;
    char *copy = all + before;
    munmap(copy + n, HUGE_PAGE - before);
    if (before) munmap(all, before);
    if (madvise(copy, n, MADV_HUGEPAGE) == 0) {
        if (place) place(arg, copy, n);
        memcpy(copy, p->map, (size_t)p->n_bytes);
        if (mprotect(copy, n, PROT_READ) == 0 &&
            mremap(copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, p->map) == p->map)
            return true;
    }
    munmap(copy, n);
    return false;
}

bool gguf_to_huge_pages(struct gguf *g, gguf_place_fn place, void *arg) {
    if (g->n_bytes < WORTH_IT || !huge_pages_allowed()) return false;
    bool copied = g->n_bytes <= memory_available() / SHARE, all = true;
    for (int k = 0; k < g->n_parts; k++) {
        struct gguf_part *p = &g->parts[k];
        if (!p->map || (copied && copy_part(p, place, arg))) continue;
        all = false;
        (void)madvise(p->map, (size_t)p->n_bytes, MADV_HUGEPAGE); /* only advice */
    }
    return all;
}

#else

bool gguf_to_huge_pages(struct gguf *g, gguf_place_fn place, void *arg) {
    (void)g, (void)place, (void)arg;
    return false;
}

#endif
