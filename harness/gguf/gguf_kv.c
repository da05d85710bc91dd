/* SPDX-License-Identifier: MIT
 * gguf_kv.c - key-value pairs: reading them from a part, and typed look-up.
 *
 * Memory grows with what has been read, never with a count that the file only claims. */
#include "base/arena.h"
#include "gguf_impl.h"

int gguf_value_bytes(uint32_t code) {
    switch (code) {
#define X(name, c, bytes)                                                                          \
    case c: return bytes;
        GGUF_VALUE_LIST(X)
#undef X
    default: return -1;
    }
}

const char *gguf_value_name(uint32_t code) {
    static const char *const names[] = { "u8",   "i8",  "u16", "i16", "u32", "i32", "f32",
                                         "bool", "str", "arr", "u64", "i64", "f64" };
    return code < N_ELEMS(names) ? names[code] : "?";
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Strings of an array lie at no fixed distance: walk them once to check, then once to note them, so
 * that nothing is allocated for a count the file cannot hold. */
static int read_strings(struct gguf_cursor *c, struct gguf_pair *pair, struct err *e) {
    int rc = 0;
    const uint64_t start = c->at;
    const uint64_t n = pair->kv.count;
    struct gguf_str s;
    FAIL_IF(n > (c->part->n_bytes - c->at) / 8, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": %" PRIu64 " strings cannot fit before the end at %" PRIu64,
            c->part->path, c->at, n, c->part->n_bytes);
    for (uint64_t i = 0; i < n; i++)
        TRY(gguf_read_str(c, &s, "a string value", e));
    pair->strs = heap_alloc(n * sizeof *pair->strs, e);
    if (!pair->strs) return ERR_NOMEM;
    pair->kv.strs = pair->strs;
    c->at = start;
    for (uint64_t i = 0; i < n; i++)
        TRY(gguf_read_str(c, &pair->strs[i], "a string value", e));
out:
    return rc;
}

static int read_array_head(struct gguf_cursor *c, struct gguf_kv *kv, struct err *e) {
    int rc = 0;
    uint32_t elem;
    TRY(gguf_read_u32(c, &elem, "an array's element type", e));
    FAIL_IF(gguf_value_bytes(elem) < 0 || elem == GGUF_ARRAY, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": %s: array element type %" PRIu32 " is not %s", c->part->path,
            c->at - 4, gguf_show(kv->key).s, elem,
            elem == GGUF_ARRAY ? "allowed (an array of arrays)" : "known (0 to 12)");
    kv->elem_type = (enum gguf_value)elem;
    TRY(gguf_read_u64(c, &kv->count, "an array's length", e));
out:
    return rc;
}

static int read_value(struct gguf_cursor *c, struct gguf_pair *pair, struct err *e) {
    int rc = 0;
    struct gguf_kv *kv = &pair->kv;
    uint32_t type;
    TRY(gguf_read_u32(c, &type, "a value type", e));
    FAIL_IF(gguf_value_bytes(type) < 0, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": %s: value type %" PRIu32 " is not known (0 to 12)",
            c->part->path, c->at - 4, gguf_show(kv->key).s, type);
    kv->type = kv->elem_type = (enum gguf_value)type;
    kv->count = 1;
    if (type == GGUF_ARRAY) TRY(read_array_head(c, kv, e));
    kv->data = c->part->base + c->at;
    if (kv->elem_type == GGUF_STRING) {
        TRY(read_strings(c, pair, e));
    } else {
        uint64_t size = (uint64_t)gguf_value_bytes(kv->elem_type), total;
        FAIL_IF(!gguf_mul(kv->count, size, &total), e, ERR_FORMAT,
                "%s: byte %" PRIu64 ": %s: %" PRIu64 " elements cannot fit into any file",
                c->part->path, c->at, gguf_show(kv->key).s, kv->count);
        TRY(gguf_need(c, total, "a value", e));
        c->at += total;
    }
out:
    return rc;
}

static int read_pair(struct gguf_cursor *c, struct gguf_pair *pair, struct err *e) {
    int rc = 0;
    uint64_t at = c->at;
    struct gguf_str *key = &pair->kv.key;
    TRY(gguf_read_str(c, key, "a key", e));
    FAIL_IF(key->n == 0 || key->n > GGUF_KEY_MAX, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": key of %zu bytes, expected 1 to %d", c->part->path, at, key->n,
            GGUF_KEY_MAX);
    FAIL_IF(memchr(key->p, '\0', key->n), e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": the key contains a NUL byte", c->part->path, at);
    TRY(read_value(c, pair, e));
out:
    return rc;
}

int gguf_read_pairs(struct gguf_part *p, struct gguf_cursor *c, uint64_t n_kv, struct err *e) {
    int rc = 0;
    int64_t cap = 0, have = 0;
    const uint64_t least = 8 + 1 + 4 + 1; /* bytes of a pair: length, key, type, value */
    FAIL_IF(n_kv > (p->n_bytes - c->at) / least, e, ERR_FORMAT,
            "%s: byte 16: %" PRIu64 " key-value pairs cannot fit into %" PRIu64 " bytes", p->path,
            n_kv, p->n_bytes);
    while ((uint64_t)p->n_pairs < n_kv) {
        struct gguf_pair *pairs = gguf_grow(p->pairs, p->n_pairs, &cap, sizeof *pairs, e);
        if (!pairs) return ERR_NOMEM;
        p->pairs = pairs;
        struct gguf_pair *pair = &pairs[p->n_pairs];
        *pair = (struct gguf_pair){ .strs = NULL };
        p->n_pairs++; /* counted at once: the strings of a broken pair are released too */
        uint64_t at = c->at;
        TRY(read_pair(c, pair, e));
        TRY(gguf_index_put(&p->keys, pair->kv.key, p->n_pairs - 1, &have, e));
        FAIL_IF(rc == 1, e, ERR_FORMAT, "%s: byte %" PRIu64 ": key %s is there twice", p->path, at,
                gguf_show(pair->kv.key).s);
    }
out:
    return rc;
}

/* ---- values --------------------------------------------------------------------------------- */

uint64_t gguf_kv_bytes(const struct gguf_kv *kv) {
    if (kv->elem_type != GGUF_STRING) return kv->count * (uint64_t)gguf_value_bytes(kv->elem_type);
    if (kv->count == 0) return 0;
    const struct gguf_str *last = &kv->strs[kv->count - 1];
    return (uint64_t)(last->p + last->n - (const char *)kv->data);
}

static bool is_integer(enum gguf_value t) {
    return t <= GGUF_INT32 || t == GGUF_UINT64 || t == GGUF_INT64;
}

/* Element i of an integer type: its bits as i64; u64 above INT64_MAX wraps, *wrapped tells. */
static int64_t load_int(const struct gguf_kv *kv, uint64_t i, bool *wrapped) {
    int n = gguf_value_bytes(kv->elem_type);
    uint64_t u = 0;
    memcpy(&u, (const char *)kv->data + i * (uint64_t)n, (size_t)n);
    *wrapped = false;
    switch (kv->elem_type) {
    case GGUF_INT8: return (int8_t)u;
    case GGUF_INT16: return (int16_t)u;
    case GGUF_INT32: return (int32_t)u;
    case GGUF_BOOL: return u != 0;
    case GGUF_UINT64: *wrapped = u > INT64_MAX; return (int64_t)u;
    default: return (int64_t)u;
    }
}

int64_t gguf_kv_i64(const struct gguf_kv *kv, uint64_t i) {
    bool wrapped;
    if (i >= kv->count || (!is_integer(kv->elem_type) && kv->elem_type != GGUF_BOOL)) return 0;
    int64_t v = load_int(kv, i, &wrapped);
    return wrapped ? INT64_MAX : v;
}

double gguf_kv_f64(const struct gguf_kv *kv, uint64_t i) {
    if (i >= kv->count) return 0;
    if (kv->elem_type == GGUF_FLOAT32) {
        float f;
        memcpy(&f, (const char *)kv->data + i * sizeof f, sizeof f);
        return f;
    }
    if (kv->elem_type == GGUF_FLOAT64) {
        double d;
        memcpy(&d, (const char *)kv->data + i * sizeof d, sizeof d);
        return d;
    }
    if (!is_integer(kv->elem_type)) return (double)gguf_kv_i64(kv, i);
    bool wrapped;
    int64_t v = load_int(kv, i, &wrapped);
    return wrapped ? (double)(uint64_t)v : (double)v;
}

/* ---- typed look-up -------------------------------------------------------------------------- */

const struct gguf_kv *gguf_part_find(const struct gguf_part *p, const char *key) {
    int64_t i = gguf_index_find(&p->keys, gguf_str_of(key));
    return i < 0 ? NULL : &p->pairs[i].kv;
}

static int wrong_type(const struct gguf_part *p, const struct gguf_kv *kv, const char *want,
                      struct err *e) {
    bool array = kv->type == GGUF_ARRAY;
    return ERR(e, ERR_FORMAT, "%s: key %s: expected %s, found %s%s", p->path, gguf_show(kv->key).s,
               want, array ? "an array of " : "", gguf_value_name(kv->elem_type));
}

static int get_int(const struct gguf_part *p, const char *key, int64_t *out, bool *wrapped,
                   struct err *e) {
    const struct gguf_kv *kv = gguf_part_find(p, key);
    if (!kv) return 0;
    if (!is_integer(kv->type)) return wrong_type(p, kv, "an integer", e);
    *out = load_int(kv, 0, wrapped);
    return 1;
}

int gguf_part_u64(const struct gguf_part *p, const char *key, uint64_t *out, struct err *e) {
    int64_t v = 0;
    bool wrapped = false;
    int rc = get_int(p, key, &v, &wrapped, e);
    if (rc != 1) return rc;
    if (v < 0 && !wrapped)
        return ERR(e, ERR_FORMAT, "%s: key %s: %" PRId64 " is negative", p->path, key, v);
    *out = (uint64_t)v;
    return 1;
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e) {
    return gguf_part_u64(&g->parts[0], key, out, e);
}

int gguf_get_i64(const struct gguf *g, const char *key, int64_t *out, struct err *e) {
    int64_t v = 0;
    bool wrapped = false;
    int rc = get_int(&g->parts[0], key, &v, &wrapped, e);
    if (rc != 1) return rc;
    if (wrapped)
        return ERR(e, ERR_FORMAT, "%s: key %s: %" PRIu64 " is above 2^63 - 1", gguf_path(g), key,
                   (uint64_t)v);
    *out = v;
    return 1;
}

/* The pair if it is a scalar of type a or b. */
static int find_typed(const struct gguf *g, const char *key, enum gguf_value a, enum gguf_value b,
                      const char *want, const struct gguf_kv **kv, struct err *e) {
    *kv = gguf_part_find(&g->parts[0], key);
    if (!*kv) return 0;
    if ((*kv)->type != a && (*kv)->type != b) return wrong_type(&g->parts[0], *kv, want, e);
    return 1;
}

int gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e) {
    const struct gguf_kv *kv;
    int rc = find_typed(g, key, GGUF_FLOAT32, GGUF_FLOAT64, "a float", &kv, e);
    if (rc == 1) *out = gguf_kv_f64(kv, 0);
    return rc;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e) {
    const struct gguf_kv *kv;
    int rc = find_typed(g, key, GGUF_BOOL, GGUF_BOOL, "a bool", &kv, e);
    if (rc == 1) *out = gguf_kv_i64(kv, 0) != 0;
    return rc;
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *out, struct err *e) {
    const struct gguf_kv *kv;
    int rc = find_typed(g, key, GGUF_STRING, GGUF_STRING, "a string", &kv, e);
    if (rc == 1) *out = kv->strs[0];
    return rc;
}
