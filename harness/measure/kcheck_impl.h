/* SPDX-License-Identifier: MIT
 * kcheck_impl.h - what kcheck.c and kcheck_ops.c share; nobody else includes it. */
#ifndef GGAUGE_KCHECK_IMPL_H
#define GGAUGE_KCHECK_IMPL_H

#include "measure/kcheck.h"

#define KCHECK_BLOCKS 48

struct kcheck {
    struct kcheck_params p;
    struct kcase c;
    struct rng rng;
    struct backend b; /* ops = NULL: rows are dequantised or quantised without one */
    void *blocks[KCHECK_BLOCKS];
    int n_blocks;

    /* Filled by loading. Bit i of a mask is source i. */
    struct node node;      /* of KCASE_DEQUANT and _QUANTIZE: src[0] and dst only */
    struct packed packed;  /* of KCASE_PACKED; cold in place of src[0] */
    int64_t n_tok;
    unsigned cold_mask;    /* rotates */
    unsigned token_mask;   /* has a row (i32: an element) for every token */
    unsigned sparse_mask;  /* is a table of which n_tok rows are touched; bit OP_MAX_SRC is dst */
    double macs;

    struct node *nodes;         /* [n_copies] */
    const struct node **order;  /* [n_copies] */
    int64_t n_copies, next;
    uint64_t key;               /* of recorded runs on a device, less place and number */
    double copy_bytes;          /* of the cold sources */
};

/* All memory is the case's own and lives as long as it. NULL with *e set. */
void *kcheck_block(struct kcheck *k, size_t n_bytes, struct err *e);
struct tensor *kcheck_tensor(struct kcheck *k, enum qtype type, int64_t n_rows, int64_t n,
                             struct err *e);
/* With random weights, or normal numbers if the type is a float's. */
struct tensor *kcheck_random(struct kcheck *k, enum qtype type, int64_t n_rows, int64_t n,
                             struct err *e);
/* i32 [n]: first, first + step, ... */
struct tensor *kcheck_ints(struct kcheck *k, int64_t n, int32_t first, int32_t step,
                           struct err *e);

/* kcheck_ops.c: the node of an op and its masks. */
int kcheck_load_op(struct kcheck *k, struct err *e);
/* The NMSE that a cell of the op may have, with so many tokens. */
double kcheck_op_limit(enum op op, enum column c, enum qtype type, int64_t n_tok);

#endif
