/* SPDX-License-Identifier: MIT
 * judge.h - what a node's result should be: a model of its own, whose nodes ref computes one at a
 * time from inputs that the caller captured, for any selection of a window's rows.
 *
 * The nodes are those of the body and the head of the model's graph, in run order, for a batch
 * whose every position is wanted. One thread at a time. */
#ifndef GGAUGE_JUDGE_H
#define GGAUGE_JUDGE_H

#include "measure/op_case.h"
#include "model/graph.h"

/* Where a source of a node comes from. */
enum judge_from {
    FROM_NONE,   /* optional and absent */
    FROM_WEIGHT, /* the file */
    FROM_NODE,   /* an earlier node */
    FROM_TOKEN, FROM_POS, FROM_CELL, FROM_FIRST, /* the batch */
};

struct judge_node {
    const struct node *n; /* of one token */
    bool head;            /* behind result_norm: runs when rows are asked for */
    struct {
        enum judge_from from;
        int node; /* FROM_NODE */
    } src[OP_MAX_SRC];
};

/* What one node made of a batch. */
struct judge_rows {
    enum qtype type;
    size_t row_bytes;
    int64_t r0, n_rows; /* rows [r0, r0 + n_rows) are here */
    const void *data;
};

struct judge {
    struct model m;
    struct kv_cache kv; /* one cell: only its types are used */
    struct graph body, head;
    struct thread_pool *pool;
    struct backend b; /* ref */
    struct judge_node *nodes;
    int n_nodes, n_threads;
};

/* type_k, type_v: of the arm's cache. n_threads 0: all processors. */
int judge_open(struct judge **out, const char *model, enum qtype type_k, enum qtype type_v,
               int n_threads, struct err *e);
void judge_close(struct judge *j); /* NULL is allowed */

/* Index of the node of this key, or -1; tries `hint` first. */
int judge_find(const struct judge *j, const char *name, int occurrence, int hint);

/* A batch from an empty cache: row r is position r % n_ctx of sequence r / n_ctx. */
struct judge_batch {
    const int32_t *token;
    int n_ctx;
};

/* Node i for n rows row[] of the batch: the inputs gathered from the results of the nodes that they
 * come from (of[k] for node k; attention needs K and V of all rows up to the last). The weight is
 * borrowed from the judge's model. */
int judge_case(const struct judge *j, int i, const struct judge_rows *of,
               const struct judge_batch *b, const int32_t *row, int64_t n, struct op_case *out,
               struct err *e);

/* Multiplications that a row of node i takes, attention at position `pos`. */
double judge_row_cost(const struct judge *j, int i, int64_t pos);

/* The rows of a case as ref computes them, with activations of a product rounded through `act`; out
 * as in op_case_run. */
int judge_eval(struct judge *j, const struct op_case *c, enum qtype act, void *out, struct err *e);

#endif
