/* SPDX-License-Identifier: MIT
 * op_case.h - one op on inputs of its own: a node without a graph, that any column can run.
 *
 * Row t of the result belongs to row t of the inputs, so that a case may hold any selection of a
 * batch's tokens. Attention has the K and V of all rows of the batch up to the last one chosen;
 * `first` says where a row's sequence starts, `pos` its position in it. */
#ifndef GGAUGE_OP_CASE_H
#define GGAUGE_OP_CASE_H

#include "backend.h"

struct op_case {
    char name[TENSOR_NAME_MAX];
    int occurrence, il;
    enum op op;
    union op_params p;
    int64_t n_tok;                 /* rows of the result */
    enum qtype dst_type;
    int64_t n_cols;                /* elements of a row of the result */
    struct tensor src[OP_MAX_SRC]; /* data = NULL: absent */
    void *owned[OP_MAX_SRC];       /* copies of inputs, or NULL where src borrows */
};

void op_case_release(struct op_case *c);
/* Check that op, parameters, shapes and types fit together, so that no cell reads or writes outside
 * of them; ERR_FORMAT says what does not fit. */
int op_case_check(const struct op_case *c, struct err *e);
/* Run it on backend b; dst [n_tok] rows of qtype_row_bytes(dst_type, n_cols). act: the type that
 * ref rounds activations of a product through, QT_f32 for none; other columns ignore it. */
int op_case_run(const struct op_case *c, struct backend *b, int n_threads, enum qtype act,
                void *dst, struct err *e);
/* The case as a node, for looking cells up; dst is used by the node and keeps no data. */
struct node op_case_node(const struct op_case *c, enum qtype act, struct tensor *dst);

#endif
