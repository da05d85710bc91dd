/* SPDX-License-Identifier: MIT
 * repack.c - packed copies of weights; see repack.h. */
#include "exec/repack.h"

#include <inttypes.h>

#include "base/memory.h"

struct pack_job {
    const struct tensor *of;
    const struct packed *to;
};

/* Claimed by the pages that are written: the first to write one decides where it lies. */
static void pack_rows(void *arg, struct work *w) {
    const struct pack_job *j = arg;
    const int64_t n_rows = tensor_rows(j->of);
    const int64_t grain = (work_grain(j->to->row_bytes) + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS;
    for (int64_t r, end; work_rows(w, n_rows, grain, &r, &end);)
        j->to->cell->pack(j->of->ne[0], tensor_row(j->of, r), j->of->row_bytes, end - r,
                          (char *)j->to->data + (size_t)r * j->to->row_bytes);
}

static const struct packed *find(const struct repacked *r, const struct tensor *t) {
    for (int i = 0; i < r->n; i++)
        if (r->w[i].of == t) return &r->w[i].copy;
    return NULL;
}

/* Note what the graph's products want copied, without data yet. */
static void list_weights(struct repacked *r, const struct graph *g, const struct split *s,
                         enum column c) {
    for (int i = 0; i < g->n_nodes; i++) {
        const struct tensor *w = g->nodes[i]->src[0];
        if (g->nodes[i]->op != OP_mul_mat || s->where[i] != 0 || find(r, w)) continue;
        const struct qkernel *k = qkernel_for(c, (enum qtype)w->type, w->ne[0], 1, NULL);
        if (!k || !k->pack) continue;
        r->w[r->n++] = (struct repacked_weight){
            .of = w, .copy = { .cell = k, .row_bytes = k->pack_row_bytes(w->ne[0]) }
        };
    }
}

int repack_graph(struct repacked *r, const struct graph *g, const struct split *s, enum column c,
                 struct thread_pool *pool, int n_threads, const struct topology *t, struct err *e) {
    int rc = 0;
    const int had = r->n;
    size_t wanted = 0;
    struct repacked_weight *more =
        heap_realloc(r->w, (size_t)(r->n + g->n_nodes) * sizeof *more, e);
    if (!more) return ERR_NOMEM;
    r->w = more;
    list_weights(r, g, s, c);
    for (int i = had; i < r->n; i++)
        wanted += packed_bytes(&r->w[i].copy, tensor_rows(r->w[i].of));
    /* Asked for one by one, each would be promised, and the last ones not kept. */
    const uint64_t available = memory_available();
    FAIL_IF(available && wanted > available, e, ERR_NOMEM,
            "no memory for copies of weights: %zu MiB, of which %" PRIu64
            " MiB are available; leave out -rtr",
            wanted >> 20, available >> 20);
    for (int i = had; i < r->n; i++) {
        const struct tensor *w = r->w[i].of;
        struct packed *p = &r->w[i].copy;
        const size_t n_bytes = packed_bytes(p, tensor_rows(w));
        p->data = heap_alloc(n_bytes, e);
        FAIL_IF(!p->data, e, ERR_NOMEM,
                "no memory for the copy of %s, %zu MiB after %zu MiB of others; leave out -rtr",
                w->name, n_bytes >> 20, r->n_bytes >> 20);
        r->n_bytes += n_bytes;
        topology_place(t, p->data, n_bytes);
        struct pack_job job = { w, p };
        thread_pool_run(pool, n_threads, pack_rows, &job);
    }
out:
    return rc;
}

void repack_attach(const struct repacked *r, struct graph *g) {
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op == OP_mul_mat) g->nodes[i]->packed = find(r, g->nodes[i]->src[0]);
}

void repack_release(struct repacked *r) {
    for (int i = 0; i < r->n; i++)
        heap_free(r->w[i].copy.data);
    heap_free(r->w);
    *r = (struct repacked){ 0 };
}
