/* SPDX-License-Identifier: MIT
 * split.h - a graph that is run over several places: spans of nodes at one place, and copies of
 * what a span needs from another, each made once.
 *
 * All memory is the host's; a place that is a device has images of it (backend.h). So a tensor is
 * at the same address everywhere, and `valid` says where its contents are. */
#ifndef GGAUGE_SPLIT_H
#define GGAUGE_SPLIT_H

#include "base/fault.h"
#include "exec/observer.h"
#include "exec/place.h"

#define SPLIT_HOST 1u /* bit of place 0 */

struct split {
    const struct place_map *map;
    struct backend *place;   /* [map->n_places] */
    const struct fault_run *fault; /* seeded faults of the arm */
    const struct graph *g;
    int max_nodes;
    uint8_t *where;          /* [n_nodes] */
    int (*src)[OP_MAX_SRC];  /* node that wrote a source; -1: a weight, an input or a cache */
    uint32_t *valid;         /* [n_nodes] places that have its result, as bits */
    const struct tensor *outer; /* a source from outside of the graph, and where it is valid */
    uint32_t outer_valid;
    uint64_t serial;         /* of the graph, for recorded runs; no two graphs share one */
};

int split_init(struct split *s, const struct place_map *map, struct backend *place, int max_nodes,
               const struct fault_run *fault, struct err *e);
void split_release(struct split *s);
/* Take over a graph that was built anew. */
void split_graph(struct split *s, const struct graph *g);

/* Run nodes [0, n_nodes). record: the same nodes will run often, with other inputs. */
int split_run(struct split *s, int n_nodes, int n_threads, bool record, const struct observer *o,
              struct err *e);
/* Make the result of node `node` valid on the host. Between begin and end nobody touches it there;
 * the graph may run again if that writes none of its results on the host. */
int split_to_host(struct split *s, int node, struct err *e);
int split_to_host_begin(struct split *s, int node, struct err *e);
int split_to_host_end(struct split *s, int node, struct err *e);

#endif
