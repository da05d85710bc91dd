/* SPDX-License-Identifier: MIT
 * arch.h - ARCH_LIST: the model architectures this build runs.
 *
 * An architecture is one row here and one file arch_<name>.c, which says which tensors its layers
 * have and in which order its nodes run. */
#ifndef GGAUGE_ARCH_H
#define GGAUGE_ARCH_H

#include "base/err.h"

/*    general.architecture */
#define ARCH_LIST(X)                                                                               \
    X(llama)                                                                                       \
    X(qwen2)                                                                                       \
    X(qwen3)

enum arch {
#define X(name) ARCH_##name,
    ARCH_LIST(X)
#undef X
    ARCH_count,
};

struct model;
struct layer;
struct graph;
struct tensor;

struct arch_ops {
    const char *name;
    /* Find the tensors of layer il; what an architecture does not ask for may not be in the
     * file. */
    int (*load_layer)(struct model *m, int il, struct layer *l, struct err *e);
    /* Add layer il to the graph: residual stream in, residual stream out; NULL with *e set. */
    struct tensor *(*build_layer)(struct graph *g, const struct model *m, int il, struct tensor *x,
                                  struct err *e);
};

const struct arch_ops *arch_ops(enum arch a);

#endif
