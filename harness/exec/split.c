/* SPDX-License-Identifier: MIT
 * split.c - running a graph over places; see split.h. */
#include "exec/split.h"

#include <string.h>

static uint64_t n_graphs; /* serials are the process's, so that no device confuses two */

int split_init(struct split *s, const struct place_map *map, struct backend *place, int max_nodes,
               const struct fault_run *fault, struct err *e) {
    *s = (struct split){ .map = map, .place = place, .fault = fault, .max_nodes = max_nodes };
    s->where = heap_calloc((size_t)max_nodes, sizeof *s->where, e);
    s->src = heap_calloc((size_t)max_nodes, sizeof *s->src, e);
    s->valid = heap_calloc((size_t)max_nodes, sizeof *s->valid, e);
    return s->where && s->src && s->valid ? 0 : ERR_NOMEM;
}

void split_release(struct split *s) {
    heap_free(s->where);
    heap_free(s->src);
    heap_free(s->valid);
    *s = (struct split){ 0 };
}

static bool is_cache(const struct node *n) {
    return n->op == OP_set_rows;
}

void split_graph(struct split *s, const struct graph *g) {
    s->g = g;
    s->serial = ++n_graphs;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = g->nodes[i];
        s->where[i] = (uint8_t)place_of(s->map, n);
        s->valid[i] = 0;
        for (int k = 0; k < OP_MAX_SRC; k++) {
            s->src[i][k] = -1;
            for (int j = i - 1; n->src[k] && j >= 0; j--) {
                if (g->nodes[j]->dst != n->src[k]) continue;
                if (!is_cache(g->nodes[j])) s->src[i][k] = j;
                break;
            }
        }
    }
}

/* The place that t is pulled from. */
static struct backend *source_of(const struct split *s, uint32_t valid) {
    int from = 1;
    while (!(valid >> from & 1))
        from++;
    return &s->place[from];
}

/* Make t, valid at the places *valid, valid at place `at`. */
static int fetch(struct split *s, const struct tensor *t, uint32_t *valid, int at, struct err *e) {
    int rc = 0;
    if (*valid >> at & 1) return 0;
    if (!(*valid & SPLIT_HOST)) {
        struct backend *from = source_of(s, *valid);
        TRY(from->ops->pull(from, t->data, tensor_bytes(t), e));
        *valid |= SPLIT_HOST;
    }
    if (at > 0) TRY(s->place[at].ops->push(&s->place[at], t->data, tensor_bytes(t), e));
    *valid |= 1u << at;
out:
    return rc;
}

int split_to_host(struct split *s, int node, struct err *e) {
    return fetch(s, s->g->nodes[node]->dst, &s->valid[node], 0, e);
}

int split_to_host_begin(struct split *s, int node, struct err *e) {
    int rc = 0;
    const struct tensor *t = s->g->nodes[node]->dst;
    if (s->valid[node] & SPLIT_HOST) return 0;
    struct backend *from = source_of(s, s->valid[node]);
    TRY(from->ops->pull_begin(from, t->data, tensor_bytes(t), e));
    s->valid[node] |= SPLIT_HOST;
out:
    return rc;
}

int split_to_host_end(struct split *s, int node, struct err *e) {
    int rc = 0;
    if (s->valid[node] == SPLIT_HOST) return 0;
    struct backend *from = source_of(s, s->valid[node]);
    TRY(from->ops->pull_end(from, s->g->nodes[node]->dst->data, e));
out:
    return rc;
}

/* What node i reads, at place `at`. */
static int fetch_sources(struct split *s, int i, int at, struct err *e) {
    int rc = 0;
    for (int k = 0; k < OP_MAX_SRC; k++) {
        const int j = s->src[i][k];
        if (j >= 0) TRY(fetch(s, s->g->nodes[j]->dst, &s->valid[j], at, e));
        if (s->outer && s->g->nodes[i]->src[k] == s->outer)
            TRY(fetch(s, s->outer, &s->outer_valid, at, e));
    }
out:
    return rc;
}

/* A span of nodes [begin, end) at one place; whole: the graph, and nobody looks on. */
static int run_span(struct split *s, int begin, int end, int n_threads, bool whole, uint64_t key,
                    struct err *e) {
    int rc = 0;
    const int at = s->where[begin];
    struct backend *b = &s->place[at];
    for (int i = begin; i < end; i++) {
        for (int k = 0; k < OP_MAX_SRC; k++) /* what the span itself writes is there in time */
            if (s->src[i][k] >= begin) s->valid[s->src[i][k]] = 1u << at;
        TRY(fetch_sources(s, i, at, e));
    }
    const struct node *const *nodes = (const struct node *const *)s->g->nodes;
    fault_begin(s->fault);
    rc = b->ops->run(b, nodes + begin, end - begin, n_threads, whole, key, e);
    fault_end();
    if (rc < 0) goto out;
    for (int i = begin; i < end; i++)
        s->valid[i] = 1u << at;
out:
    return rc;
}

/* ---- observers ------------------------------------------------------------------------------- */

/* Rows of a cache that node i wrote, one by one, to the host or (back) to their place. */
static int move_rows(struct split *s, int i, bool to_host, struct err *e) {
    int rc = 0;
    const struct node *n = s->g->nodes[i];
    struct backend *b = &s->place[s->where[i]];
    const int32_t *cell = n->src[1]->data;
    for (int64_t t = 0; s->where[i] > 0 && t < node_rows(n); t++) {
        void *row = tensor_row(n->dst, cell[t]);
        TRY(to_host ? b->ops->pull(b, row, n->dst->row_bytes, e)
                    : b->ops->push(b, row, n->dst->row_bytes, e));
    }
out:
    return rc;
}

/* The node wrote some rows of the whole cache: those are shown, and what see() left of them is put
 * back. */
static int show_rows(struct split *s, int i, const struct observer *o, struct err *e) {
    int rc = 0;
    const struct node *n = s->g->nodes[i];
    const int64_t n_rows = node_rows(n);
    const int32_t *cell = n->src[1]->data;
    const size_t row = n->dst->row_bytes;
    char *rows = heap_alloc((size_t)n_rows * row, e);
    if (!rows) return ERR_NOMEM;
    TRY(move_rows(s, i, true, e));
    for (int64_t t = 0; t < n_rows; t++)
        memcpy(rows + (size_t)t * row, tensor_row(n->dst, cell[t]), row);
    TRY(o->see(o->arg, n, rows, e));
    for (int64_t t = 0; t < n_rows; t++)
        memcpy(tensor_row(n->dst, cell[t]), rows + (size_t)t * row, row);
    TRY(move_rows(s, i, false, e));
out:
    heap_free(rows);
    return rc;
}

/* Show the rows of node i, its sources on the host beside them. */
static int show(struct split *s, int i, const struct observer *o, struct err *e) {
    int rc = 0;
    const struct node *n = s->g->nodes[i];
    TRY(fetch_sources(s, i, 0, e));
    if (is_cache(n)) return show_rows(s, i, o, e);
    TRY(split_to_host(s, i, e));
    TRY(o->see(o->arg, n, n->dst->data, e));
    s->valid[i] = SPLIT_HOST; /* see() may have changed it */
out:
    return rc;
}

/* ---- running --------------------------------------------------------------------------------- */

/* A key for span [begin, end) of this graph, whose source from outside may move. */
static uint64_t key_of(const struct split *s, int begin, int end) {
    uint64_t key = s->serial;
    key = key * 0x9E3779B97F4A7C15u + (uint64_t)begin;
    key = key * 0x9E3779B97F4A7C15u + (uint64_t)end;
    key = key * 0x9E3779B97F4A7C15u + (s->outer ? (uintptr_t)s->outer->data : 0);
    return key ? key : 1;
}

int split_run(struct split *s, int n_nodes, int n_threads, bool record, const struct observer *o,
              struct err *e) {
    int rc = 0;
    const struct node *const *nodes = (const struct node *const *)s->g->nodes;
    if (o && o->graph) TRY(o->graph(o->arg, nodes, n_nodes, e));
    for (int begin = 0, end; begin < n_nodes; begin = end) {
        bool seen = false;
        for (end = begin; end < n_nodes && !seen && s->where[end] == s->where[begin]; end++)
            seen = o && o->want(o->arg, nodes[end]);
        const bool key = record && !o && s->where[begin] > 0;
        const bool whole = !o && begin == 0 && end == n_nodes;
        TRY(run_span(s, begin, end, n_threads, whole, key ? key_of(s, begin, end) : 0, e));
        if (s->where[begin] == 0) TRY(s->place[0].ops->synchronize(&s->place[0], e));
        if (seen) TRY(show(s, end - 1, o, e));
    }
out:
    return rc;
}
