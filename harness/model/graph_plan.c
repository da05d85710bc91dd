/* SPDX-License-Identifier: MIT
 * graph_plan.c - memory of activations: every tensor gets the lowest free range of one block from
 * the node that writes it to the last node that reads it.
 *
 * First fit over at most a dozen live tensors; a plan takes microseconds and is made per graph. */
#include <stdio.h>
#include <string.h>

#include "model/graph.h"

#define MAX_LIVE 64

struct range {
    size_t begin, end; /* bytes */
    const struct tensor *t;
    int last_use; /* node index */
};

struct plan {
    struct range live[MAX_LIVE]; /* sorted by begin */
    int n;
    size_t high;
};

static bool is_of_heads(const struct node *n) {
    return norms_heads(n) || n->op == OP_rope || n->op == OP_set_rows;
}

/* A device computes norms of heads, rotations and stores that follow each other at once, so what
 * one of them reads stays until the last one, which this returns; i for any other node. */
static int last_of_heads(const struct graph *g, int i) {
    while (is_of_heads(g->nodes[i]) && i + 1 < g->n_nodes && is_of_heads(g->nodes[i + 1]))
        i++;
    return i;
}

static int last_use_of(const struct graph *g, const struct tensor *t, int from) {
    if (t == g->logits) return g->n_nodes; /* read after the run, beside the last node's result */
    for (int i = g->n_nodes - 1; i > from; i--)
        for (int s = 0; s < OP_MAX_SRC; s++)
            if (g->nodes[i]->src[s] == t) return last_of_heads(g, i);
    return t == g->result_norm || t == g->lse ? g->n_nodes : from;
}

static void expire(struct plan *p, int now) {
    int kept = 0;
    for (int i = 0; i < p->n; i++)
        if (p->live[i].last_use >= now) p->live[kept++] = p->live[i];
    p->n = kept;
}

static int place(struct plan *p, struct tensor *t, int last_use, struct err *e) {
    int rc = 0;
    FAIL_IF(p->n == MAX_LIVE, e, ERR_UNSUPPORTED, "%s: more than %d tensors live", t->name,
            MAX_LIVE);
    size_t n = (tensor_bytes(t) + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
    size_t begin = 0;
    int at = 0;
    for (; at < p->n && p->live[at].begin < begin + n; at++)
        begin = p->live[at].end;
    memmove(&p->live[at + 1], &p->live[at], (size_t)(p->n - at) * sizeof p->live[0]);
    p->live[at] = (struct range){ begin, begin + n, t, last_use };
    p->n++;
    if (begin + n > p->high) p->high = begin + n;
    t->data = (void *)(uintptr_t)begin;
out:
    return rc;
}

static bool is_cache(const struct node *n) {
    return n->op == OP_set_rows;
}

int graph_plan(struct graph *g, struct err *e) {
    int rc = 0;
    struct plan p = { .n = 0 };
    struct tensor *inputs[] = { g->in_token, g->in_pos, g->in_cell, g->in_first, g->out_rows };
    for (size_t i = 0; i < N_ELEMS(inputs); i++)
        if (inputs[i]) TRY(place(&p, inputs[i], g->n_nodes, e));
    for (int i = 0; i < g->n_nodes; i++) {
        expire(&p, i);
        if (!is_cache(g->nodes[i]))
            TRY(place(&p, g->nodes[i]->dst, last_use_of(g, g->nodes[i]->dst, i), e));
    }
    g->data_bytes = p.high;
out:
    return rc;
}

void graph_place(struct graph *g, void *base) {
    struct tensor *inputs[] = { g->in_token, g->in_pos, g->in_cell, g->in_first, g->out_rows };
    for (size_t i = 0; i < N_ELEMS(inputs); i++)
        if (inputs[i]) inputs[i]->data = (char *)base + (uintptr_t)inputs[i]->data;
    for (int i = 0; i < g->n_nodes; i++)
        if (!is_cache(g->nodes[i]))
            g->nodes[i]->dst->data = (char *)base + (uintptr_t)g->nodes[i]->dst->data;
}
