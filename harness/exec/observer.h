/* SPDX-License-Identifier: MIT
 * observer.h - the only way to see, or to force, what a graph computes between its ends.
 *
 * A node's key is (name, occurrence): names repeat, as in the engines whose dumps are compared.
 * Nodes that nobody wants run in one batch, so observing nothing costs one test per graph.
 *
 * The nodes of an arm in another process are copies: names, types, shapes and parameters are those
 * of the graph, but the only data is that of the result that see() is given. */
#ifndef GGAUGE_OBSERVER_H
#define GGAUGE_OBSERVER_H

#include <stdbool.h>

#include "op.h"

struct observer {
    void *arg;
    /* Asked once per node and graph: shall see() be called for it? An arm may ask for all nodes of
     * a graph before the first of them runs. */
    bool (*want)(void *arg, const struct node *n);
    /* The node has run; its sources still hold their data where they are activations of the same
     * layer. `data` is the node's result on the host: node_rows(n) rows of dst->row_bytes and
     * dst->type. see() may overwrite it: later nodes then use what it wrote. Negative stops the
     * run. */
    int (*see)(void *arg, const struct node *n, void *data, struct err *e);
    /* Or NULL: called with the nodes of a graph that is about to run, before any want() of it. */
    int (*graph)(void *arg, const struct node *const *nodes, int n_nodes, struct err *e);
};

/* Rows that a node has computed: all of dst, but of a cache only the cells that were written. */
static inline int64_t node_rows(const struct node *n) {
    return n->op == OP_set_rows ? n->src[1]->ne[0] : tensor_rows(n->dst);
}

#endif
