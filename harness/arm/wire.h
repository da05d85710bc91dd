/* SPDX-License-Identifier: MIT
 * wire.h - what the frames between an arm and its worker process say; frame.h has their form.
 *
 * put_X appends X to a payload, get_X takes it off again and believes nothing: a value that cannot
 * be makes the payload `torn`, and payload_end reports it. What get_X returns inside the payload is
 * valid until that is cleared. */
#ifndef GGAUGE_WIRE_H
#define GGAUGE_WIRE_H

#include "arm/arm.h"
#include "arm/frame.h"
#include "exec/observer.h"
#include "result/row.h"

#define WIRE_VOCAB_MAX (1 << 24)
#define WIRE_NODES_MAX (1 << 16)

/* Of FRAME_decode. */
enum wire_decode {
    WIRE_ANSWER = 1, /* rows of the wanted tokens; otherwise their logits are dropped */
    WIRE_HOLD = 2,   /* arm_hold, without an answer */
    WIRE_APPEND = 4, /* ... behind those that are held */
};

/* Of FRAME_seen. */
enum wire_seen {
    WIRE_SAME,
    WIRE_CHANGED, /* the data follow */
    WIRE_STOP,    /* see() has failed */
};

/* The strings of *p point into the payload. path, launch and timeout_s stay at home. */
void put_params(struct payload *p, const struct arm_params *a);
void get_params(struct payload *p, struct arm_params *a);

void put_info(struct payload *p, const struct arm_info *i);
void get_info(struct payload *p, struct arm_info *i);

/* The fields ROW_WHAT_FIELDS of r that are set, by name; get sets those that this build knows. */
void put_what(struct payload *p, const struct row *r);
int get_what(struct payload *p, struct row *r, struct err *e);

void put_batch(struct payload *p, const struct arm_batch *b);
/* The arrays are copied into *store, which grows as needed and belongs to the caller. */
int get_batch(struct payload *p, struct arm_batch *b, struct payload *store, struct err *e);

/* All but the logits. n_logits is what follows: 0 or n_vocab. */
void put_row(struct payload *p, const struct arm_row *r, uint32_t n_logits);
/* top1 and bad lie in the vocabulary, or bad = -1. */
void get_row(struct payload *p, struct arm_row *r, uint32_t *n_logits, int32_t n_vocab);

void put_graph(struct payload *p, const struct node *const *nodes, int n);

/* A node without data, and the tensors that it points at: [0] is dst. */
struct wire_node {
    struct node node;
    struct tensor t[1 + OP_MAX_SRC];
};
/* *out [*n] is released with heap_free. An op or a type that this build does not know is
 * ERR_ARM. */
int get_graph(struct payload *p, struct wire_node **out, int *n, struct err *e);

/* Bytes that see() is given; false if the shape of n is absurd. */
bool wire_node_bytes(const struct node *n, uint64_t *n_bytes);

#endif
