/* SPDX-License-Identifier: MIT
 * frame.h - the frames that an arm and its worker process exchange, and the bytes inside them.
 *
 * A frame is 12 bytes of head and a payload, all little-endian:
 *
 *     0   4 bytes  "GGwk"
 *     4   u32      enum frame_type
 *     8   u32      bytes of payload, at most the type's limit: checked before anything is allocated
 *
 * The program speaks, the worker answers (serve.h tells the order); only FRAME_beat comes unasked:
 * the worker sends one each second while it works. Tensors and logits travel as FRAME_data of at
 * most FRAME_DATA_MAX bytes behind the frame that announces them, so neither side ever holds more
 * than the tensor itself. A side that changes what any payload means raises FRAME_PROTOCOL. */
#ifndef GGAUGE_FRAME_H
#define GGAUGE_FRAME_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define FRAME_PROTOCOL 2
#define FRAME_HEAD_BYTES 12
#define FRAME_DATA_MAX (1u << 20)

/*    name      number  longest payload */
#define FRAME_LIST(X)                                                                              \
    X(hello,    1, 4096)      /* u32 FRAME_PROTOCOL, str commit */                                 \
    X(welcome,  2, 4096)      /* the same of the worker */                                         \
    X(open,     3, 1u << 16)  /* arm_params */                                                     \
    X(opened,   4, 1u << 16)  /* arm_info, str host, the fields of its result row */               \
    X(decode,   5, 1u << 26)  /* u8 enum wire_decode, arm_batch */                                 \
    X(rows,     6, 1u << 26)  /* i64 r0, u8 logits, i32 target [n] */                              \
    X(trim,     7, 8)         /* i32 seq, i32 pos */                                               \
    X(observe,  8, 1)         /* u8 on */                                                          \
    X(stop,     9, 0)         /* no more rows of the present request, please */                    \
    X(done,    10, 16)        /* the request is answered; i64 ns of a decode, i64 resident bytes */\
    X(error,   11, 4096)      /* i32 code, str message: the request failed */                      \
    X(row,     12, 64)        /* arm_row, u32 n_logits; data [n_logits] f32 follow */              \
    X(graph,   13, 1u << 26)  /* nodes of a graph that is about to run */                          \
    X(wants,   14, 1u << 16)  /* u8 [n_nodes]: 1 = show it */                                      \
    X(see,     15, 16)        /* u32 node, u64 bytes; data follow */                               \
    X(seen,    16, 1)         /* u8 enum wire_seen; data follow if changed */                      \
    X(data,    17, FRAME_DATA_MAX)                                                                 \
    X(beat,    18, 0)

enum frame_type {
#define X(name, number, max) FRAME_##name = number,
    FRAME_LIST(X)
#undef X
};

const char *frame_name(enum frame_type t);

/* ---- payloads -------------------------------------------------------------------------------- */

/* Bytes that are put together or taken apart. Failures stick: `failed` when memory was short,
 * `torn` when more was read than there is, or a value cannot be; both are reported at the end. */
struct payload {
    unsigned char *p; /* owned */
    size_t n, cap, at;
    bool failed, torn;
};

void payload_release(struct payload *p);
void payload_clear(struct payload *p); /* to put together anew; keeps its memory */

void put_u8(struct payload *p, uint8_t v);
void put_u32(struct payload *p, uint32_t v);
void put_u64(struct payload *p, uint64_t v);
void put_f32(struct payload *p, float v);
void put_f64(struct payload *p, double v);
void put_str(struct payload *p, const char *s); /* NULL is allowed, and is not "" */
void put_bytes(struct payload *p, const void *v, size_t n);
static inline void put_i32(struct payload *p, int32_t v) {
    put_u32(p, (uint32_t)v);
}
static inline void put_i64(struct payload *p, int64_t v) {
    put_u64(p, (uint64_t)v);
}

/* 0 behind the end. */
uint8_t get_u8(struct payload *p);
uint32_t get_u32(struct payload *p);
uint64_t get_u64(struct payload *p);
float get_f32(struct payload *p);
double get_f64(struct payload *p);
/* Points into the payload and is NUL terminated; NULL if put as NULL, "" behind the end. */
const char *get_str(struct payload *p);
/* n bytes inside the payload, NULL behind the end. */
const void *get_bytes(struct payload *p, size_t n);
static inline int32_t get_i32(struct payload *p) {
    return (int32_t)get_u32(p);
}
static inline int64_t get_i64(struct payload *p) {
    return (int64_t)get_u64(p);
}
static inline size_t payload_left(const struct payload *p) {
    return p->n - p->at;
}
/* Was every byte read, and none behind the end? Otherwise ERR_ARM. */
int payload_end(const struct payload *p, enum frame_type t, struct err *e);

/* ---- conversation ---------------------------------------------------------------------------- */

#define FRAME_END 1 /* the other side has gone */

/* One side. Writes of several threads are kept apart by `lock` if there is one; reads belong to one
 * thread. With `wait` both files must be O_NONBLOCK, and no SIGPIPE is raised. */
struct frame_io {
    int in, out;
    pthread_mutex_t *lock; /* or NULL */
    /* Returns when fd may be ready for the poll(2) event; negative gives up. NULL: calls block. */
    int (*wait)(void *arg, int fd, short event, struct err *e);
    void *arg;
    bool fresh; /* set when the wait for a frame (not a beat) begins; for `wait` to clear */
};

/* 0, FRAME_END or a negative code. */
int frame_send(struct frame_io *io, enum frame_type t, const struct payload *p, struct err *e);
int frame_send_data(struct frame_io *io, const void *data, size_t n, struct err *e);
/* The next frame that is not a beat. Errors of form are ERR_ARM: "malformed frame: ...". */
int frame_receive(struct frame_io *io, enum frame_type *t, struct payload *p, struct err *e);
/* n bytes that come as FRAME_data. */
int frame_receive_data(struct frame_io *io, void *data, size_t n, struct err *e);

#endif
