/* SPDX-License-Identifier: MIT
 * merge.c - merging by a binary heap; see merge.h. */
#include "tok/merge.h"

#include "base/arena.h"

void merge_release(struct merge *m) {
    heap_free(m->node);
    heap_free(m->heap);
    *m = (struct merge){ 0 };
}

int merge_add(struct merge *m, size_t at, uint32_t n, int32_t sym, struct err *e) {
    int rc = 0;
    FAIL_IF(m->n_node >= INT32_MAX, e, ERR_UNSUPPORTED, "more than %d characters at once",
            INT32_MAX);
    if (m->n_node == m->cap_node) {
        size_t cap = m->cap_node ? m->cap_node * 2 : 64;
        struct merge_node *p = heap_realloc(m->node, cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        m->node = p;
        m->cap_node = cap;
    }
    int32_t i = (int32_t)m->n_node++;
    m->node[i] = (struct merge_node){ .at = at, .n = n, .sym = sym, .prev = i - 1, .next = -1 };
    if (i) m->node[i - 1].next = i;
out:
    return rc;
}

static int heap_push(struct merge *m, struct merge_pair x, struct err *e) {
    if (m->n_heap == m->cap_heap) {
        size_t cap = m->cap_heap ? m->cap_heap * 2 : 64;
        struct merge_pair *p = heap_realloc(m->heap, cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        m->heap = p;
        m->cap_heap = cap;
    }
    size_t i = m->n_heap++;
    for (size_t up; i && m->heap[up = (i - 1) / 2].order > x.order; i = up)
        m->heap[i] = m->heap[up];
    m->heap[i] = x;
    return 0;
}

static struct merge_pair heap_pop(struct merge *m) {
    struct merge_pair top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t down; (down = 2 * i + 1) < m->n_heap; i = down) {
        if (down + 1 < m->n_heap && m->heap[down + 1].order < m->heap[down].order) down++;
        if (m->heap[down].order >= last.order) break;
        m->heap[i] = m->heap[down];
    }
    m->heap[i] = last;
    return top;
}

static int queue_pair(struct merge *m, const char *text, int32_t left, int32_t right,
                      merge_find_fn find, const void *model, struct err *e) {
    if (left < 0 || right < 0) return 0;
    const struct merge_node *l = &m->node[left], *r = &m->node[right];
    uint32_t rank;
    struct merge_pair x = { .n = l->n + r->n };
    if (!find(model, text, l, r, &rank, &x.sym)) return 0;
    x.order = (uint64_t)rank << 32 | (uint32_t)left;
    return heap_push(m, x, e);
}

int merge_run(struct merge *m, const char *text, merge_find_fn find, const void *model,
              struct err *e) {
    int rc = 0;
    m->n_heap = 0;
    for (size_t i = 1; i < m->n_node; i++)
        TRY(queue_pair(m, text, (int32_t)i - 1, (int32_t)i, find, model, e));
    while (m->n_heap) {
        struct merge_pair x = heap_pop(m);
        int32_t left = (int32_t)(uint32_t)x.order;
        struct merge_node *l = &m->node[left];
        if (!l->n || l->next < 0 || l->n + m->node[l->next].n != x.n) continue; /* out of date */
        struct merge_node *r = &m->node[l->next];
        l->n = x.n;
        l->sym = x.sym;
        l->next = r->next;
        r->n = 0;
        if (l->next >= 0) m->node[l->next].prev = left;
        TRY(queue_pair(m, text, l->prev, left, find, model, e));
        TRY(queue_pair(m, text, left, l->next, find, model, e));
    }
out:
    return rc;
}
