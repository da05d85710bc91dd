/* SPDX-License-Identifier: MIT
 * gguf.h - reading and writing GGUF files, versions 2 and 3, single or split.
 *
 * The reader maps every part read-only and checks each offset, length, count and product against
 * the file before it is used; a tensor's data is known to lie inside its part. Views borrow the
 * mapping and live until gguf_close. An open file may be read from several threads.
 *
 * Source: the GGUF specification of ggml; details in ik_llama.cpp 8337e4cd, ggml/src/ggml.c. */
#ifndef GGAUGE_GGUF_H
#define GGAUGE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "qtype.h"

/* Value types of key-value pairs, as stored. */
/*    name     code bytes (0 = not fixed) */
#define GGUF_VALUE_LIST(X)                                                                         \
    X(UINT8,   0, 1)                                                                               \
    X(INT8,    1, 1)                                                                               \
    X(UINT16,  2, 2)                                                                               \
    X(INT16,   3, 2)                                                                               \
    X(UINT32,  4, 4)                                                                               \
    X(INT32,   5, 4)                                                                               \
    X(FLOAT32, 6, 4)                                                                               \
    X(BOOL,    7, 1)                                                                               \
    X(STRING,  8, 0)                                                                               \
    X(ARRAY,   9, 0)                                                                               \
    X(UINT64, 10, 8)                                                                               \
    X(INT64,  11, 8)                                                                               \
    X(FLOAT64,12, 8)

enum gguf_value {
#define X(name, code, bytes) GGUF_##name = code,
    GGUF_VALUE_LIST(X)
#undef X
};

/* A string inside the mapped file: not NUL terminated. */
struct gguf_str {
    const char *p;
    size_t n;
};

struct gguf_kv {
    struct gguf_str key;
    enum gguf_value type;
    enum gguf_value elem_type; /* of an array; otherwise equal to type */
    uint64_t count;            /* elements of an array; otherwise 1 */
    const void *data;          /* first byte of the value(s), unaligned, little-endian */
    const struct gguf_str *strs; /* [count] for STRING and arrays of STRING, else NULL */
};

#define GGUF_MAX_DIMS 4

struct gguf_tensor {
    char *name; /* NUL terminated */
    int n_dims;
    int64_t ne[GGUF_MAX_DIMS]; /* ne[0] = row length; missing ones are 1 */
    uint32_t type_id;          /* as stored */
    enum qtype type;           /* QT_none: no table knows the id; size and data are unknown */
    int part;                  /* 0-based file of a split model */
    uint64_t offset;           /* in the part's data section */
    uint64_t n_bytes;          /* without padding; 0 if the type is unknown */
    const void *data;          /* in the mapping; NULL if the type is unknown */
};

struct gguf;

/* Open PATH and, if it is part 1 of a split model, all its siblings. Errors name the file, the byte
 * offset and what was expected there. */
int gguf_open(struct gguf **out, const char *path, struct err *e);
void gguf_close(struct gguf *g); /* NULL is allowed */

/* Called for memory that nobody has written yet, to say where its pages shall lie. */
typedef void (*gguf_place_fn)(void *arg, void *p, size_t n_bytes);

/* For speed only: the data are copied into huge pages, if the system has them, the model is large
 * and a quarter of the free memory suffices. True if all of it was; pointers stay valid in any
 * case. Not while others read. `place` may be NULL. */
bool gguf_to_huge_pages(struct gguf *g, gguf_place_fn place, void *arg);

/* The same for a file image in memory (tests, fuzzing); `data` must outlive g. */
int gguf_open_memory(struct gguf **out, const void *data, size_t n_bytes, struct err *e);

uint32_t gguf_version(const struct gguf *g);
uint32_t gguf_alignment(const struct gguf *g);
int gguf_n_parts(const struct gguf *g);
uint64_t gguf_file_bytes(const struct gguf *g); /* all parts together */
const char *gguf_path(const struct gguf *g);    /* of part 1 */

int64_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv_at(const struct gguf *g, int64_t i);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* NULL if absent */

/* As llama.cpp prints it: "u32", "str", "arr"; "?" for a code that does not exist. */
const char *gguf_value_name(uint32_t code);

/* Typed look-up. Any integer type converts to u64/i64 if the value fits, any float to f64.
 * Returns 1 = found, 0 = absent (*out unchanged), negative = present but of another type or
 * range. */
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e);
int gguf_get_i64(const struct gguf *g, const char *key, int64_t *out, struct err *e);
int gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out, struct err *e);

/* Element i of a scalar or array pair of any integer type / any float or integer type. i <
 * count. */
int64_t gguf_kv_i64(const struct gguf_kv *kv, uint64_t i);
double gguf_kv_f64(const struct gguf_kv *kv, uint64_t i);

int64_t gguf_n_tensors(const struct gguf *g); /* over all parts */
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int64_t i);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); /* or NULL */
/* The type that holds most elements of matrices; QT_none if there is none of a known type. */
enum qtype gguf_main_type(const struct gguf *g);

/* xxh3 of the keys, infos and sampled pages of every tensor, as 16 hex digits: tells two model
 * files apart in milliseconds, whatever their size. Splitting, merging or another alignment keep
 * it. */
void gguf_fingerprint(const struct gguf *g, char out[17]);

/* ---- writer: v3, one file ------------------------------------------------------------------- */

struct gguf_writer;

/* Collect key-values and tensor infos, then write: header with gguf_writer_begin, every tensor's
 * data in the order of the infos with gguf_writer_data (any number of calls each), end with
 * gguf_writer_end. The file appears under its name only when complete (temporary name, rename). */
int gguf_writer_new(struct gguf_writer **out, const char *path, struct err *e);
void gguf_writer_free(struct gguf_writer *w); /* removes an incomplete file */

int gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct err *e);
int gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct err *e);
int gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct err *e);
int gguf_put_str(struct gguf_writer *w, const char *key, const char *v, size_t n, struct err *e);
/* Any value type; data as stored in a file, n elements; strings: data = struct gguf_str[n]. */
int gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_value elem_type,
                   const void *data, uint64_t n, struct err *e);
/* A pair copied as it is from an open file. A key that is already there is replaced. */
int gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv, struct err *e);
int gguf_put_tensor(struct gguf_writer *w, const char *name, int n_dims, const int64_t *ne,
                    enum qtype type, struct err *e);

int gguf_writer_begin(struct gguf_writer *w, struct err *e);
int gguf_writer_data(struct gguf_writer *w, const void *data, size_t n_bytes, struct err *e);
int gguf_writer_end(struct gguf_writer *w, struct err *e);

#endif
