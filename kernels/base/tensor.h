/* SPDX-License-Identifier: MIT
 * tensor.h - a view of a tensor; it never owns its data.
 *
 * ne[0] is the row length (fastest dimension), as in GGUF; a matrix written [rows, columns] in a
 * comment has ne = { columns, rows, 1, 1 }. Rows are contiguous. */
#ifndef GGAUGE_TENSOR_H
#define GGAUGE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TENSOR_NAME_MAX 64 /* bytes with the final NUL, as in GGUF files */

struct tensor {
    int type;       /* enum qtype */
    int64_t ne[4];  /* elements per dimension, missing ones are 1 */
    size_t row_bytes;
    void *data;     /* borrowed */
    char name[TENSOR_NAME_MAX];
};

static inline int64_t tensor_rows(const struct tensor *t) {
    return t->ne[1] * t->ne[2] * t->ne[3];
}

static inline size_t tensor_bytes(const struct tensor *t) {
    return t->row_bytes * (size_t)tensor_rows(t);
}

/* Whether both have a byte of memory. */
static inline bool tensors_overlap(const struct tensor *a, const struct tensor *b) {
    const char *p = (const char *)a->data, *q = (const char *)b->data;
    return p < q + tensor_bytes(b) && q < p + tensor_bytes(a);
}

static inline void *tensor_row(const struct tensor *t, int64_t r) {
    return (char *)t->data + (size_t)r * t->row_bytes;
}

#endif
