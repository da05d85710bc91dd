/* SPDX-License-Identifier: MIT
 * arena.c - heap wrapper and arenas; see arena.h. */
#include "arena.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#define RED_ZONE 64
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define RED_ZONE 0
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

/* Blocks from this size on lie in huge pages where the system has them: a cache of keys is read
 * with a stride of a few to a page, and every page costs a walk through the page table. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM (2 * HUGE_PAGE)

/* Armed by tests; counts down to the allocation that fails. */
static _Atomic int64_t fail_in;

void heap_fail_at(int64_t n) {
    atomic_store(&fail_in, n);
}

static bool must_fail(void) {
    int64_t n = atomic_load_explicit(&fail_in, memory_order_relaxed);
    while (n > 0) {
        if (atomic_compare_exchange_weak(&fail_in, &n, n - 1)) return n == 1;
    }
    return false;
}

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static void *no_memory(size_t n_bytes, struct err *e) {
    ERR(e, ERR_NOMEM, "out of memory: %zu bytes were asked for", n_bytes);
    return NULL;
}

/* The system promises more than it has and kills whoever fills it. What is asked for here is
 * filled. */
#define LARGE ((size_t)64 << 20)

static bool has_room(size_t n_bytes, struct err *e) {
    if (n_bytes < LARGE) return true;
    const uint64_t available = memory_available();
    if (!available || n_bytes <= available) return true;
    ERR(e, ERR_NOMEM, "out of memory: %zu MiB were asked for, %" PRIu64 " MiB are available",
        n_bytes >> 20, available >> 20);
    return false;
}

void *heap_alloc(size_t n_bytes, struct err *e) {
    if (n_bytes > SIZE_MAX / 2 || must_fail()) return no_memory(n_bytes, e);
    if (!has_room(n_bytes, e)) return NULL;
    bool huge = n_bytes >= HUGE_FROM;
    size_t align = huge ? HUGE_PAGE : MEM_ALIGN, whole = round_up(n_bytes ? n_bytes : 1, align);
    void *p = aligned_alloc(align, whole);
    if (!p) return no_memory(n_bytes, e);
#ifdef MADV_HUGEPAGE
    if (huge) (void)madvise(p, whole, MADV_HUGEPAGE); /* only advice: small pages serve as well */
#endif
    return p;
}

void *heap_calloc(size_t count, size_t size, struct err *e) {
    if (size && count > SIZE_MAX / 2 / size) return no_memory(SIZE_MAX, e);
    void *p = heap_alloc(count * size, e);
    if (p) memset(p, 0, count * size);
    return p;
}

void *heap_realloc(void *p, size_t n_bytes, struct err *e) {
    if (n_bytes > SIZE_MAX / 2 || must_fail()) return no_memory(n_bytes, e);
    /* realloc keeps only the alignment of malloc; growing arrays of plain data need no more. */
    void *q = realloc(p, n_bytes ? n_bytes : 1);
    return q ? q : no_memory(n_bytes, e);
}

char *heap_strndup(const char *s, size_t n, struct err *e) {
    char *p = heap_alloc(n + 1, e);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

void heap_free(void *p) {
    free(p);
}

int arena_init(struct arena *a, size_t cap_bytes, struct err *e) {
    *a = (struct arena){ 0 };
    a->base = heap_alloc(cap_bytes, e);
    if (!a->base) return ERR_NOMEM;
    a->cap = cap_bytes;
    POISON(a->base, a->cap);
    return 0;
}

void arena_release(struct arena *a) {
    if (a->base) UNPOISON(a->base, a->cap);
    heap_free(a->base);
    *a = (struct arena){ 0 };
}

void *arena_push(struct arena *a, size_t n_bytes, struct err *e) {
    assert(!a->sealed);
    if (n_bytes > SIZE_MAX / 2) return no_memory(n_bytes, e);
    size_t need = round_up(n_bytes, MEM_ALIGN) + RED_ZONE;
    if (a->sealed || need > a->cap - a->used) {
        ERR(e, ERR_NOMEM, "arena of %zu bytes is full: %zu used, %zu asked for", a->cap, a->used,
            n_bytes);
        return NULL;
    }
    void *p = a->base + a->used;
    a->used += need;
    UNPOISON(p, n_bytes);
    return p;
}

void arena_seal(struct arena *a) {
    a->sealed = true;
}

void arena_rewind(struct arena *a, size_t mark) {
    assert(mark <= a->used);
    POISON(a->base + mark, a->used - mark);
    a->used = mark;
}
