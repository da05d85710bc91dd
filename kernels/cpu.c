/* SPDX-License-Identifier: MIT
 * cpu.c - the backend of all CPU columns: runs nodes in order on a thread pool.
 *
 * All nodes of a call run inside one run of the pool, with a barrier after each, because starting
 * the pool costs more than most nodes. */
#include <string.h>

#include "backend.h"
#include "base/arena.h"

struct cpu {
    struct thread_pool *pool; /* borrowed */
};

struct cpu_run {
    enum column col;
    const struct node *const *nodes;
    int n;
};

static void run_nodes(void *arg, struct work *w) {
    const struct cpu_run *r = arg;
    for (int i = 0; i < r->n; i++) {
        op_cell_find(r->col, r->nodes[i], NULL)->run(r->nodes[i], w);
        work_barrier(w);
    }
}

static int cpu_run(struct backend *b, const struct node *const *nodes, int n, int n_threads,
                   struct err *e) {
    int rc = 0;
    struct cpu *cpu = b->impl;
    size_t shared = 0, scratch = 0;
    for (int i = 0; i < n; i++) {
        const struct op_cell *c = op_cell_find(b->col, nodes[i], NULL);
        FAIL_IF(!c, e, ERR_UNSUPPORTED, "%s: no %s cell for op %s", nodes[i]->dst->name,
                column_name(b->col), op_name(nodes[i]->op));
        size_t s = c->shared_bytes ? c->shared_bytes(nodes[i]) : 0;
        size_t p = c->scratch_bytes ? c->scratch_bytes(nodes[i]) : 0;
        if (s > shared) shared = s;
        if (p > scratch) scratch = p;
    }
    TRY(thread_pool_reserve(cpu->pool, shared, scratch, e));
    struct cpu_run r = { b->col, nodes, n };
    thread_pool_run(cpu->pool, n_threads, run_nodes, &r);
out:
    return rc;
}

static void cpu_release(struct backend *b) {
    heap_free(b->impl);
    b->impl = NULL;
}

static int cpu_alloc(struct backend *b, size_t n_bytes, void **out, struct err *e) {
    (void)b;
    *out = heap_alloc(n_bytes, e);
    return *out ? 0 : ERR_NOMEM;
}

static void cpu_free(struct backend *b, void *p) {
    (void)b;
    heap_free(p);
}

static int cpu_copy(struct backend *b, void *dst, const void *src, size_t n_bytes, struct err *e) {
    (void)b, (void)e;
    if (dst != src) memcpy(dst, src, n_bytes);
    return 0;
}

static int cpu_synchronize(struct backend *b, struct err *e) {
    (void)b, (void)e;
    return 0;
}

static bool cpu_supports(const struct backend *b, const struct node *n) {
    return op_cell_find(b->col, n, NULL) != NULL;
}

static const struct backend_ops cpu_ops = {
    .release = cpu_release,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .synchronize = cpu_synchronize,
    .supports = cpu_supports,
    .run = cpu_run,
};

int backend_cpu_init(struct backend *b, enum column c, struct thread_pool *pool, struct err *e) {
    int rc = 0;
    memset(b, 0, sizeof *b);
    FAIL_IF(c < COL_ref || c > COL_amx, e, ERR_ARG, "%s is not a CPU column", column_name(c));
    FAIL_IF(!column_available(c), e, ERR_UNSUPPORTED,
            "this machine or build cannot run the column %s, which needs %s", column_name(c),
            column_needs(c));
    struct cpu *cpu = heap_calloc(1, sizeof *cpu, e);
    if (!cpu) return ERR_NOMEM;
    cpu->pool = pool;
    *b = (struct backend){ .ops = &cpu_ops, .col = c, .impl = cpu };
out:
    return rc;
}
