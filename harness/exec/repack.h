/* SPDX-License-Identifier: MIT
 * repack.h - copies of a context's weights in the order in which one token's products stream them
 * (-rtr); see `pack` of struct qkernel. The weights themselves stay where they are, and calls of
 * more tokens read those. */
#ifndef GGAUGE_REPACK_H
#define GGAUGE_REPACK_H

#include "exec/split.h"
#include "exec/topology.h"

struct repacked_weight {
    const struct tensor *of;
    struct packed copy; /* its data are owned */
};

struct repacked {
    struct repacked_weight *w; /* [n] */
    int n;
    size_t n_bytes; /* of all copies */
};

/* Copy the weights of the graph's products that run on the CPU, as the cells of column c for one
 * token want them; those that are copied already and those whose cells want none are passed over.
 * ERR_NOMEM says which weight had no room. */
int repack_graph(struct repacked *r, const struct graph *g, const struct split *s, enum column c,
                 struct thread_pool *pool, int n_threads, const struct topology *t,
                 struct err *e);
/* Let the nodes of a graph know their copies: after every repack_graph, and when a graph is built
 * anew. */
void repack_attach(const struct repacked *r, struct graph *g);
void repack_release(struct repacked *r);

#endif
