/* SPDX-License-Identifier: MIT
 * gguf_read.c - one file: header, tensor infos and where the data of every tensor lies.
 *
 * Every number is compared with the size of the file before it is used; a count is believed only as
 * far as the bytes behind it reach. */
#include <stdlib.h>

#include "base/arena.h"
#include "gguf_impl.h"

int gguf_need(const struct gguf_cursor *c, uint64_t n, const char *what, struct err *e) {
    uint64_t left = c->part->n_bytes - c->at;
    if (LIKELY(n <= left)) return 0;
    return ERR(e, ERR_FORMAT,
               "%s: byte %" PRIu64 ": %s of %" PRIu64 " bytes reaches behind the end of the file "
               "at %" PRIu64 " (truncated?)",
               c->part->path, c->at, what, n, c->part->n_bytes);
}

int gguf_read_u32(struct gguf_cursor *c, uint32_t *v, const char *what, struct err *e) {
    int rc = gguf_need(c, sizeof *v, what, e);
    if (rc < 0) return rc;
    memcpy(v, c->part->base + c->at, sizeof *v);
    c->at += sizeof *v;
    return 0;
}

int gguf_read_u64(struct gguf_cursor *c, uint64_t *v, const char *what, struct err *e) {
    int rc = gguf_need(c, sizeof *v, what, e);
    if (rc < 0) return rc;
    memcpy(v, c->part->base + c->at, sizeof *v);
    c->at += sizeof *v;
    return 0;
}

int gguf_read_str(struct gguf_cursor *c, struct gguf_str *s, const char *what, struct err *e) {
    uint64_t n = 0;
    int rc = gguf_read_u64(c, &n, what, e);
    if (rc < 0) return rc;
    rc = gguf_need(c, n, what, e);
    if (rc < 0) return rc;
    *s = (struct gguf_str){ (const char *)c->part->base + c->at, (size_t)n };
    c->at += n;
    return 0;
}

/* ---- header --------------------------------------------------------------------------------- */

static int read_version(struct gguf_part *p, struct gguf_cursor *c, struct err *e) {
    int rc = 0;
    const unsigned char *b = p->base;
    TRY(gguf_need(c, 4, "the magic \"GGUF\"", e));
    FAIL_IF(memcmp(b, "GGUF", 4) != 0, e, ERR_FORMAT,
            "%s: byte 0: not a GGUF file: expected 47 47 55 46 (\"GGUF\"), found "
            "%02x %02x %02x %02x",
            p->path, b[0], b[1], b[2], b[3]);
    c->at = 4;
    TRY(gguf_read_u32(c, &p->version, "the version", e));
    FAIL_IF((p->version & 0xffff) == 0 && p->version, e, ERR_UNSUPPORTED,
            "%s: byte 4: a big-endian GGUF file (version bytes %02x %02x %02x %02x); only "
            "little-endian files are read",
            p->path, b[4], b[5], b[6], b[7]);
    FAIL_IF(p->version == 1, e, ERR_UNSUPPORTED,
            "%s: byte 4: GGUF version 1 (32-bit counts) is not read, versions 2 and 3 are; "
            "convert the model anew",
            p->path);
    FAIL_IF(p->version < 2 || p->version > 3, e, ERR_UNSUPPORTED,
            "%s: byte 4: GGUF version %" PRIu32 ", expected 2 or 3", p->path, p->version);
out:
    return rc;
}

static int read_alignment(struct gguf_part *p, struct err *e) {
    int rc = 0;
    uint64_t a = GGUF_ALIGN_DEFAULT;
    TRY(gguf_part_u64(p, "general.alignment", &a, e));
    FAIL_IF(!gguf_alignment_ok(a), e, ERR_FORMAT,
            "%s: general.alignment is %" PRIu64 ", expected a power of two from %d to %u", p->path,
            a, GGUF_ALIGN_MIN, GGUF_ALIGN_MAX);
    p->alignment = (uint32_t)a;
    rc = 0;
out:
    return rc;
}

/* ---- tensor infos --------------------------------------------------------------------------- */

static int read_name(struct gguf_part *p, struct gguf_cursor *c, struct gguf_tensor *t,
                     struct err *e) {
    int rc = 0;
    uint64_t at = c->at;
    struct gguf_str name;
    TRY(gguf_read_str(c, &name, "a tensor name", e));
    FAIL_IF(name.n == 0 || name.n > GGUF_NAME_MAX, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": tensor name of %zu bytes, expected 1 to %d", p->path, at, name.n,
            GGUF_NAME_MAX);
    FAIL_IF(memchr(name.p, '\0', name.n), e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": the tensor name contains a NUL byte", p->path, at);
    t->name = heap_strndup(name.p, name.n, e);
    if (!t->name) return ERR_NOMEM;
out:
    return rc;
}

static int read_extents(struct gguf_part *p, struct gguf_cursor *c, struct gguf_tensor *t,
                        struct err *e) {
    int rc = 0;
    uint32_t n_dims;
    uint64_t n_elems = 1;
    struct gguf_shown name = gguf_show(gguf_str_of(t->name));
    TRY(gguf_read_u32(c, &n_dims, "a number of dimensions", e));
    FAIL_IF(n_dims > GGUF_MAX_DIMS, e, ERR_FORMAT,
            "%s: byte %" PRIu64 ": %s: %" PRIu32 " dimensions, expected at most %d", p->path,
            c->at - 4, name.s, n_dims, GGUF_MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < GGUF_MAX_DIMS; d++) {
        uint64_t ne = 1;
        if (d < t->n_dims) TRY(gguf_read_u64(c, &ne, "an extent", e));
        FAIL_IF(ne == 0, e, ERR_FORMAT, "%s: byte %" PRIu64 ": %s: dimension %d has 0 elements",
                p->path, c->at - 8, name.s, d);
        FAIL_IF(!gguf_mul(n_elems, ne, &n_elems) || n_elems > INT64_MAX, e, ERR_FORMAT,
                "%s: byte %" PRIu64 ": %s: the number of elements is above 2^63 - 1", p->path,
                c->at - 8, name.s);
        t->ne[d] = (int64_t)ne;
    }
out:
    return rc;
}

static int read_info(struct gguf_part *p, struct gguf_cursor *c, struct gguf_tensor *t,
                     struct err *e) {
    int rc = 0;
    TRY(read_name(p, c, t, e));
    TRY(read_extents(p, c, t, e));
    TRY(gguf_read_u32(c, &t->type_id, "a tensor type", e));
    t->type = qtype_from_gguf(t->type_id);
    TRY(gguf_read_u64(c, &t->offset, "a tensor offset", e));
out:
    return rc;
}

static int read_infos(struct gguf_part *p, struct gguf_cursor *c, uint64_t n_tensors,
                      struct err *e) {
    int rc = 0;
    int64_t cap = 0;
    const uint64_t least = 8 + 1 + 4 + 4 + 8; /* bytes of an info: name, n_dims, type, offset */
    FAIL_IF(n_tensors > (p->n_bytes - c->at) / least, e, ERR_FORMAT,
            "%s: byte 8: %" PRIu64 " tensors cannot fit behind byte %" PRIu64 " of %" PRIu64,
            p->path, n_tensors, c->at, p->n_bytes);
    while ((uint64_t)p->n_tensors < n_tensors) {
        struct gguf_tensor *ts = gguf_grow(p->tensors, p->n_tensors, &cap, sizeof *ts, e);
        if (!ts) return ERR_NOMEM;
        p->tensors = ts;
        ts[p->n_tensors] = (struct gguf_tensor){ .name = NULL };
        TRY(read_info(p, c, &ts[p->n_tensors++], e));
    }
out:
    return rc;
}

/* ---- data ----------------------------------------------------------------------------------- */

/* Bytes of the whole tensor; UINT64_MAX if no file could hold it. */
static uint64_t tensor_bytes(const struct gguf_tensor *t, uint64_t limit) {
    const struct qtype_info *qi = qtype_info(t->type);
    uint64_t rows = (uint64_t)(t->ne[1] * t->ne[2] * t->ne[3]), total;
    if ((uint64_t)(t->ne[0] / qi->n_blk) > limit / qi->blk_bytes) return UINT64_MAX;
    return gguf_mul(qtype_row_bytes(t->type, t->ne[0]), rows, &total) ? total : UINT64_MAX;
}

static int place_tensor(const struct gguf_part *p, struct gguf_tensor *t, struct err *e) {
    int rc = 0;
    struct gguf_shown name = gguf_show(gguf_str_of(t->name));
    const uint64_t section = p->n_bytes > p->data_at ? p->n_bytes - p->data_at : 0;
    FAIL_IF(t->offset % p->alignment, e, ERR_FORMAT,
            "%s: %s: offset %" PRIu64 " is not a multiple of the alignment %" PRIu32, p->path,
            name.s, t->offset, p->alignment);
    FAIL_IF(t->offset >= section, e, ERR_FORMAT,
            "%s: %s: offset %" PRIu64 " lies behind the end of the data section of %" PRIu64
            " bytes (truncated?)",
            p->path, name.s, t->offset, section);
    if (t->type == QT_none) goto out;
    const struct qtype_info *qi = qtype_info(t->type);
    FAIL_IF(t->ne[0] % qi->n_blk, e, ERR_FORMAT,
            "%s: %s: row of %" PRId64 " is not a multiple of %d (%s)", p->path, name.s, t->ne[0],
            qi->n_blk, qi->name);
    t->n_bytes = tensor_bytes(t, p->n_bytes);
    FAIL_IF(t->n_bytes == UINT64_MAX, e, ERR_FORMAT,
            "%s: %s: [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
            "] of %s is larger than the file of %" PRIu64 " bytes",
            p->path, name.s, t->ne[0], t->ne[1], t->ne[2], t->ne[3], qi->name, p->n_bytes);
    FAIL_IF(t->n_bytes > section - t->offset, e, ERR_FORMAT,
            "%s: %s: %" PRIu64 " bytes from %" PRIu64 " on reach behind the end of the file at "
            "%" PRIu64 " (truncated?)",
            p->path, name.s, t->n_bytes, p->data_at + t->offset, p->n_bytes);
    t->data = p->base + p->data_at + t->offset;
out:
    return rc;
}

/* One byte stands for data of unknown size. */
static uint64_t end_of(const struct gguf_tensor *t) {
    return t->offset + (t->n_bytes ? t->n_bytes : 1);
}

static int by_offset(const void *a, const void *b) {
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a;
    const struct gguf_tensor *y = *(const struct gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int check_overlap(const struct gguf_part *p, struct err *e) {
    int rc = 0;
    const struct gguf_tensor **order = NULL;
    int64_t i = 1;
    while (i < p->n_tensors && p->tensors[i].offset >= end_of(&p->tensors[i - 1]))
        i++;
    if (i >= p->n_tensors) return 0; /* in file order, as every known writer leaves them */

    order = heap_alloc((size_t)p->n_tensors * sizeof(void *), e);
    if (!order) return ERR_NOMEM;
    for (i = 0; i < p->n_tensors; i++)
        order[i] = &p->tensors[i];
    qsort(order, (size_t)p->n_tensors, sizeof *order, by_offset);
    for (i = 1; i < p->n_tensors; i++)
        FAIL_IF(order[i]->offset < end_of(order[i - 1]), e, ERR_FORMAT,
                "%s: tensors %s and %s overlap at byte %" PRIu64, p->path,
                gguf_show(gguf_str_of(order[i - 1]->name)).s,
                gguf_show(gguf_str_of(order[i]->name)).s, p->data_at + order[i]->offset);
out:
    heap_free(order);
    return rc;
}

int gguf_read_part(struct gguf_part *p, struct err *e) {
    int rc = 0;
    struct gguf_cursor c = { .part = p };
    uint64_t n_tensors, n_kv;
    TRY(read_version(p, &c, e));
    TRY(gguf_read_u64(&c, &n_tensors, "the number of tensors", e));
    TRY(gguf_read_u64(&c, &n_kv, "the number of key-value pairs", e));
    TRY(gguf_read_pairs(p, &c, n_kv, e));
    TRY(read_alignment(p, e));
    TRY(read_infos(p, &c, n_tensors, e));
    p->data_at = gguf_pad(c.at, p->alignment);
    for (int64_t i = 0; i < p->n_tensors; i++)
        TRY(place_tensor(p, &p->tensors[i], e));
    TRY(check_overlap(p, e));
out:
    return rc;
}
