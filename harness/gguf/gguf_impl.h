/* SPDX-License-Identifier: MIT
 * gguf_impl.h - what the files of this folder share; nobody else includes it.
 *
 * gguf_open.c parts, siblings, life time     gguf_kv.c    key-value pairs and typed look-up
 * gguf_read.c header, tensors, data layout   gguf_index.c names to numbers
 * gguf_write.c the writer                    gguf_fingerprint.c
 * gguf_memory.c huge pages */
#ifndef GGAUGE_GGUF_IMPL_H
#define GGAUGE_GGUF_IMPL_H

#include <inttypes.h>
#include <string.h>

#include "gguf/gguf.h"

#define GGUF_NAME_MAX 63            /* bytes of a tensor's name, as in ggml */
#define GGUF_KEY_MAX 65535          /* bytes of a key, from the specification */
#define GGUF_ALIGN_DEFAULT 32       /* bytes, without general.alignment */
#define GGUF_ALIGN_MIN 8            /* so that every element type is naturally aligned */
#define GGUF_ALIGN_MAX (1u << 20)   /* more is a damaged file */

/* Names to numbers: open addressing, the names are borrowed. */
struct gguf_index {
    struct gguf_slot {
        struct gguf_str name; /* p = NULL: free */
        int64_t i;
    } * slots;
    uint64_t n, cap; /* cap is 0 or a power of two */
};

/* Returns 1 and the number it has in *have if the name is there, 0 if it was added as i. */
int gguf_index_put(struct gguf_index *ix, struct gguf_str name, int64_t i, int64_t *have,
                   struct err *e);
int64_t gguf_index_find(const struct gguf_index *ix, struct gguf_str name); /* -1 if absent */
void gguf_index_release(struct gguf_index *ix);

/* A pair and the table of its strings, which the pair itself only shows. */
struct gguf_pair {
    struct gguf_kv kv;
    struct gguf_str *strs;
};

#define HUGE_PAGE ((size_t)2 << 20)

/* One file. */
struct gguf_part {
    char *path;
    void *map; /* what to unmap, NULL for an image in memory; a large one is on a HUGE_PAGE */
    const unsigned char *base;
    uint64_t n_bytes;
    uint32_t version, alignment;
    uint64_t data_at; /* where the data section starts; may lie behind the end if it is empty */
    struct gguf_pair *pairs;
    int64_t n_pairs;
    struct gguf_index keys;
    struct gguf_tensor *tensors;
    int64_t n_tensors;
};

struct gguf {
    struct gguf_part *parts;
    int n_parts;
    uint64_t n_bytes;
    struct gguf_tensor *tensors; /* of all parts; the names stay with the parts */
    int64_t n_tensors;
    struct gguf_index names;
};

/* A place in a part. */
struct gguf_cursor {
    const struct gguf_part *part;
    uint64_t at;
};

/* Fail unless n more bytes exist; `what` names them in the message. */
int gguf_need(const struct gguf_cursor *c, uint64_t n, const char *what, struct err *e);
int gguf_read_u32(struct gguf_cursor *c, uint32_t *v, const char *what, struct err *e);
int gguf_read_u64(struct gguf_cursor *c, uint64_t *v, const char *what, struct err *e);
int gguf_read_str(struct gguf_cursor *c, struct gguf_str *s, const char *what, struct err *e);

int gguf_read_part(struct gguf_part *p, struct err *e);
int gguf_read_pairs(struct gguf_part *p, struct gguf_cursor *c, uint64_t n_kv, struct err *e);
const struct gguf_kv *gguf_part_find(const struct gguf_part *p, const char *key);
int gguf_part_u64(const struct gguf_part *p, const char *key, uint64_t *out, struct err *e);

/* Bytes of one value of a fixed size; 0 for STRING and ARRAY, -1 for a code that does not exist. */
int gguf_value_bytes(uint32_t code);
/* The bytes of the value(s) in the file, from kv->data on. */
uint64_t gguf_kv_bytes(const struct gguf_kv *kv);

bool gguf_alignment_ok(uint64_t a);

/* Room for one more item behind n; *cap counts items. NULL: out of memory, items stay valid. */
void *gguf_grow(void *items, int64_t n, int64_t *cap, size_t item_bytes, struct err *e);

/* A name from a file made fit for a message: cut, without control characters. */
struct gguf_shown {
    char s[72];
};
struct gguf_shown gguf_show(struct gguf_str s);

static inline struct gguf_str gguf_str_of(const char *s) {
    return (struct gguf_str){ s, strlen(s) };
}

static inline bool gguf_str_eq(struct gguf_str a, struct gguf_str b) {
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static inline uint64_t gguf_pad(uint64_t n, uint32_t alignment) {
    return (n + alignment - 1) & ~(uint64_t)(alignment - 1);
}

/* False if the product does not fit. */
static inline bool gguf_mul(uint64_t a, uint64_t b, uint64_t *out) {
    if (b && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}

#endif
