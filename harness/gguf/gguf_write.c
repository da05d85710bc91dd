/* SPDX-License-Identifier: MIT
 * gguf_write.c - writing a GGUF file of version 3.
 *
 * Key-values and infos are collected in memory, the data streams through one buffer into a
 * temporary file beside the target; it gets its name when everything is on the disk.
 * general.alignment, if it is among the keys, is obeyed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "gguf_impl.h"

#define BUFFER (1u << 20) /* bytes collected for one write */

struct bytes {
    unsigned char *p;
    int64_t n, cap;
};

struct entry {
    char *key;
    struct bytes value; /* type, length of an array and value, as in the file */
    enum gguf_value type;
};

struct info {
    char *name;
    int n_dims;
    int64_t ne[GGUF_MAX_DIMS];
    enum qtype type;
    uint64_t n_bytes;
};

enum stage { COLLECT, DATA, DONE, BROKEN };

struct gguf_writer {
    char *path, *tmp;
    int fd;
    enum stage stage;
    struct entry *entries;
    int64_t n_entries, entries_cap;
    struct gguf_index keys;
    struct info *infos;
    int64_t n_infos, infos_cap;
    struct gguf_index names;
    uint32_t alignment;
    int64_t current; /* tensor that data goes to */
    uint64_t filled; /* bytes of it that are there */
    unsigned char *buf;
    size_t n_buf;
};

/* ---- bytes in memory ------------------------------------------------------------------------ */

static int append(struct bytes *b, const void *p, uint64_t n, struct err *e) {
    if (n > (uint64_t)INT64_MAX / 4 - (uint64_t)b->n)
        return ERR(e, ERR_ARG, "a value of %" PRIu64 " bytes", n);
    int64_t want = b->n + (int64_t)n;
    if (want > b->cap) {
        int64_t cap = want + want / 2 + 64;
        unsigned char *q = heap_realloc(b->p, (size_t)cap, e);
        if (!q) return ERR_NOMEM;
        b->p = q;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, p, (size_t)n);
    b->n = want;
    return 0;
}

static int append_u32(struct bytes *b, uint32_t v, struct err *e) {
    return append(b, &v, sizeof v, e);
}

static int append_u64(struct bytes *b, uint64_t v, struct err *e) {
    return append(b, &v, sizeof v, e);
}

static int append_str(struct bytes *b, struct gguf_str s, struct err *e) {
    int rc = append_u64(b, s.n, e);
    return rc < 0 ? rc : append(b, s.p, s.n, e);
}

/* ---- life time ------------------------------------------------------------------------------ */

static int open_temporary(struct gguf_writer *w, struct err *e) {
    int rc = 0;
    struct stat st;
    /* rename() would replace a device or a FIFO by an ordinary file. */
    FAIL_IF(stat(w->path, &st) == 0 && !S_ISREG(st.st_mode), e, ERR_ARG,
            "%s: exists and is not a regular file", w->path);
    size_t room = strlen(w->path) + 40;
    w->tmp = heap_alloc(room, e);
    if (!w->tmp) return ERR_NOMEM;
    for (int i = 0; i < 100 && w->fd < 0; i++) {
        snprintf(w->tmp, room, "%s.tmp%ld-%d", w->path, (long)getpid(), i);
        w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd < 0 && errno != EEXIST) break;
    }
    FAIL_IF(w->fd < 0, e, ERR_IO, "%s: cannot create: %s", w->tmp, strerror(errno));
out:
    return rc;
}

int gguf_writer_new(struct gguf_writer **out, const char *path, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct gguf_writer *w = heap_calloc(1, sizeof *w, e);
    if (!w) return ERR_NOMEM;
    w->fd = -1;
    w->path = heap_strndup(path, strlen(path), e);
    TRY(w->path ? 0 : ERR_NOMEM);
    w->buf = heap_alloc(BUFFER, e);
    TRY(w->buf ? 0 : ERR_NOMEM);
    TRY(open_temporary(w, e));
    *out = w;
    w = NULL;
out:
    gguf_writer_free(w);
    return rc;
}

void gguf_writer_free(struct gguf_writer *w) {
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->tmp);
    }
    for (int64_t i = 0; i < w->n_entries; i++) {
        heap_free(w->entries[i].key);
        heap_free(w->entries[i].value.p);
    }
    for (int64_t i = 0; i < w->n_infos; i++)
        heap_free(w->infos[i].name);
    heap_free(w->entries);
    heap_free(w->infos);
    gguf_index_release(&w->keys);
    gguf_index_release(&w->names);
    heap_free(w->buf);
    heap_free(w->tmp);
    heap_free(w->path);
    heap_free(w);
}

/* ---- key-values ----------------------------------------------------------------------------- */

static int check_stage(const struct gguf_writer *w, enum stage stage, struct err *e) {
    if (w->stage == stage) return 0;
    return ERR(e, ERR_ARG, "%s: the writer is %s", w->path,
               w->stage == COLLECT ? "still collecting keys and tensors"
               : w->stage == DATA  ? "already writing data"
               : w->stage == DONE  ? "already closed"
                                   : "broken by an earlier error");
}

static int encode(struct bytes *b, const struct gguf_kv *kv, struct err *e) {
    int rc = 0;
    TRY(append_u32(b, (uint32_t)kv->type, e));
    if (kv->type == GGUF_ARRAY) {
        TRY(append_u32(b, (uint32_t)kv->elem_type, e));
        TRY(append_u64(b, kv->count, e));
    }
    if (kv->elem_type == GGUF_STRING) {
        for (uint64_t i = 0; i < kv->count; i++)
            TRY(append_str(b, kv->strs[i], e));
    } else {
        TRY(append(b, kv->data, kv->count * (uint64_t)gguf_value_bytes(kv->elem_type), e));
    }
out:
    return rc;
}

static int check_kv(const struct gguf_writer *w, const struct gguf_kv *kv, struct err *e) {
    int rc = 0;
    uint64_t total;
    TRY(check_stage(w, COLLECT, e));
    FAIL_IF(kv->key.n == 0 || kv->key.n > GGUF_KEY_MAX || memchr(kv->key.p, '\0', kv->key.n), e,
            ERR_ARG, "%s: key \"%s\" is empty, too long or contains a NUL byte", w->path,
            gguf_show(kv->key).s);
    FAIL_IF(kv->elem_type == GGUF_ARRAY || gguf_value_bytes(kv->elem_type) < 0 ||
                (kv->type != GGUF_ARRAY && (kv->type != kv->elem_type || kv->count != 1)),
            e, ERR_ARG, "%s: key %s: types %d and %d with %" PRIu64 " elements cannot be written",
            w->path, gguf_show(kv->key).s, (int)kv->type, (int)kv->elem_type, kv->count);
    FAIL_IF(!gguf_mul(kv->count, (uint64_t)gguf_value_bytes(kv->elem_type), &total), e, ERR_ARG,
            "%s: key %s: too many elements", w->path, gguf_show(kv->key).s);
out:
    return rc;
}

/* A new entry without a value; a failure leaves the writer as it was. */
static int add_entry(struct gguf_writer *w, struct gguf_str name, struct entry **out,
                     struct err *e) {
    int64_t have = 0;
    struct entry *es = gguf_grow(w->entries, w->n_entries, &w->entries_cap, sizeof *es, e);
    if (!es) return ERR_NOMEM;
    w->entries = es;
    char *key = heap_strndup(name.p, name.n, e);
    if (!key) return ERR_NOMEM;
    int rc = gguf_index_put(&w->keys, gguf_str_of(key), w->n_entries, &have, e);
    if (rc < 0) {
        heap_free(key);
        return rc;
    }
    *out = &es[w->n_entries++];
    **out = (struct entry){ .key = key };
    return 0;
}

int gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv, struct err *e) {
    int rc = 0;
    struct bytes value = { 0 };
    TRY(check_kv(w, kv, e));
    TRY(encode(&value, kv, e));
    int64_t at = gguf_index_find(&w->keys, kv->key);
    struct entry *en = NULL;
    if (at < 0) {
        TRY(add_entry(w, kv->key, &en, e));
    } else {
        en = &w->entries[at];
        heap_free(en->value.p);
    }
    en->value = value;
    en->type = kv->type;
    value.p = NULL;
out:
    heap_free(value.p);
    return rc;
}

static int put_scalar(struct gguf_writer *w, const char *key, enum gguf_value type,
                      const void *data, struct err *e) {
    struct gguf_kv kv = {
        .key = gguf_str_of(key), .type = type, .elem_type = type, .count = 1, .data = data
    };
    return gguf_put_kv(w, &kv, e);
}

int gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct err *e) {
    return put_scalar(w, key, GGUF_UINT32, &v, e);
}

int gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct err *e) {
    return put_scalar(w, key, GGUF_FLOAT32, &v, e);
}

int gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct err *e) {
    uint8_t b = v;
    return put_scalar(w, key, GGUF_BOOL, &b, e);
}

int gguf_put_str(struct gguf_writer *w, const char *key, const char *v, size_t n, struct err *e) {
    struct gguf_str s = { v, n };
    struct gguf_kv kv = { .key = gguf_str_of(key),
                          .type = GGUF_STRING,
                          .elem_type = GGUF_STRING,
                          .count = 1,
                          .strs = &s };
    return gguf_put_kv(w, &kv, e);
}

int gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_value elem_type,
                   const void *data, uint64_t n, struct err *e) {
    struct gguf_kv kv = { .key = gguf_str_of(key),
                          .type = GGUF_ARRAY,
                          .elem_type = elem_type,
                          .count = n,
                          .data = data,
                          .strs = elem_type == GGUF_STRING ? data : NULL };
    return gguf_put_kv(w, &kv, e);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static int check_tensor(const struct gguf_writer *w, const char *name, int n_dims,
                        const int64_t *ne, enum qtype type, struct err *e) {
    int rc = 0;
    size_t len = strlen(name);
    TRY(check_stage(w, COLLECT, e));
    FAIL_IF(len == 0 || len > GGUF_NAME_MAX, e, ERR_ARG,
            "%s: tensor name \"%s\" of %zu bytes, expected 1 to %d", w->path,
            gguf_show(gguf_str_of(name)).s, len, GGUF_NAME_MAX);
    FAIL_IF(n_dims < 1 || n_dims > GGUF_MAX_DIMS, e, ERR_ARG,
            "%s: %s: %d dimensions, expected 1 to %d", w->path, name, n_dims, GGUF_MAX_DIMS);
    FAIL_IF(type <= QT_none || type >= QT_count, e, ERR_ARG, "%s: %s: type %d does not exist",
            w->path, name, (int)type);
    for (int d = 0; d < n_dims; d++)
        FAIL_IF(ne[d] < 1, e, ERR_ARG, "%s: %s: dimension %d has %" PRId64 " elements", w->path,
                name, d, ne[d]);
    FAIL_IF(ne[0] % qtype_info(type)->n_blk, e, ERR_ARG,
            "%s: %s: row of %" PRId64 " is not a multiple of %d (%s)", w->path, name, ne[0],
            qtype_info(type)->n_blk, qtype_info(type)->name);
    FAIL_IF(gguf_index_find(&w->names, gguf_str_of(name)) >= 0, e, ERR_ARG,
            "%s: tensor %s is there already", w->path, name);
out:
    return rc;
}

/* False if the size passes what a file can hold. */
static bool size_info(struct info *t) {
    const struct qtype_info *qi = qtype_info(t->type);
    uint64_t rows = 1, row;
    for (int d = 1; d < t->n_dims; d++)
        if (!gguf_mul(rows, (uint64_t)t->ne[d], &rows)) return false;
    if (!gguf_mul((uint64_t)(t->ne[0] / qi->n_blk), qi->blk_bytes, &row)) return false;
    if (row > INT64_MAX / 2) return false;
    return gguf_mul(qtype_row_bytes(t->type, t->ne[0]), rows, &t->n_bytes) &&
           t->n_bytes < INT64_MAX / 2;
}

int gguf_put_tensor(struct gguf_writer *w, const char *name, int n_dims, const int64_t *ne,
                    enum qtype type, struct err *e) {
    int rc = 0;
    int64_t have = 0;
    struct info t = { .n_dims = n_dims, .type = type };
    TRY(check_tensor(w, name, n_dims, ne, type, e));
    for (int d = 0; d < n_dims; d++)
        t.ne[d] = ne[d];
    FAIL_IF(!size_info(&t), e, ERR_ARG, "%s: %s: too large for a file", w->path, name);
    struct info *infos = gguf_grow(w->infos, w->n_infos, &w->infos_cap, sizeof *infos, e);
    TRY(infos ? 0 : ERR_NOMEM);
    w->infos = infos;
    t.name = heap_strndup(name, strlen(name), e);
    TRY(t.name ? 0 : ERR_NOMEM);
    TRY(gguf_index_put(&w->names, gguf_str_of(t.name), w->n_infos, &have, e));
    infos[w->n_infos++] = t;
    t.name = NULL;
out:
    heap_free(t.name);
    return rc;
}

/* ---- the file ------------------------------------------------------------------------------- */

static int write_all(struct gguf_writer *w, const void *data, size_t n, struct err *e) {
    const unsigned char *p = data;
    while (n) {
        ssize_t done = write(w->fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            w->stage = BROKEN;
            return ERR(e, ERR_IO, "%s: cannot write: %s", w->tmp, strerror(errno));
        }
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

static int flush(struct gguf_writer *w, struct err *e) {
    size_t n = w->n_buf;
    w->n_buf = 0;
    return write_all(w, w->buf, n, e);
}

static int put(struct gguf_writer *w, const void *data, size_t n, struct err *e) {
    int rc = 0;
    if (n > BUFFER - w->n_buf) TRY(flush(w, e));
    if (n >= BUFFER) return write_all(w, data, n, e);
    if (n) memcpy(w->buf + w->n_buf, data, n);
    w->n_buf += n;
out:
    return rc;
}

static int put_zeros(struct gguf_writer *w, uint64_t n, struct err *e) {
    static const unsigned char zeros[256];
    int rc = 0;
    for (; n > sizeof zeros; n -= sizeof zeros)
        TRY(put(w, zeros, sizeof zeros, e));
    TRY(put(w, zeros, (size_t)n, e));
out:
    return rc;
}

static int take_alignment(struct gguf_writer *w, struct err *e) {
    int rc = 0;
    uint32_t a = GGUF_ALIGN_DEFAULT;
    int64_t i = gguf_index_find(&w->keys, gguf_str_of("general.alignment"));
    if (i >= 0) {
        const struct entry *en = &w->entries[i];
        FAIL_IF(en->type != GGUF_UINT32, e, ERR_ARG, "%s: general.alignment must be u32", w->path);
        memcpy(&a, en->value.p + sizeof(uint32_t), sizeof a);
        FAIL_IF(!gguf_alignment_ok(a), e, ERR_ARG,
                "%s: general.alignment is %" PRIu32 ", expected a power of two from %d to %u",
                w->path, a, GGUF_ALIGN_MIN, GGUF_ALIGN_MAX);
    }
    w->alignment = a;
out:
    return rc;
}

static int encode_infos(const struct gguf_writer *w, struct bytes *b, struct err *e) {
    int rc = 0;
    uint64_t offset = 0;
    for (int64_t i = 0; i < w->n_infos; i++) {
        const struct info *t = &w->infos[i];
        TRY(append_str(b, gguf_str_of(t->name), e));
        TRY(append_u32(b, (uint32_t)t->n_dims, e));
        for (int d = 0; d < t->n_dims; d++)
            TRY(append_u64(b, (uint64_t)t->ne[d], e));
        TRY(append_u32(b, qtype_info(t->type)->gguf_id, e));
        TRY(append_u64(b, offset, e));
        uint64_t padded = gguf_pad(t->n_bytes, w->alignment);
        FAIL_IF(padded > INT64_MAX - offset, e, ERR_ARG, "%s: %s: offset too large", w->path,
                t->name);
        offset += padded;
    }
out:
    return rc;
}

int gguf_writer_begin(struct gguf_writer *w, struct err *e) {
    int rc = 0;
    struct bytes head = { 0 };
    TRY(check_stage(w, COLLECT, e));
    TRY(take_alignment(w, e));
    TRY(append(&head, "GGUF", 4, e));
    TRY(append_u32(&head, 3, e));
    TRY(append_u64(&head, (uint64_t)w->n_infos, e));
    TRY(append_u64(&head, (uint64_t)w->n_entries, e));
    for (int64_t i = 0; i < w->n_entries; i++) {
        TRY(append_str(&head, gguf_str_of(w->entries[i].key), e));
        TRY(append(&head, w->entries[i].value.p, (uint64_t)w->entries[i].value.n, e));
    }
    TRY(encode_infos(w, &head, e));
    TRY(put(w, head.p, (size_t)head.n, e));
    TRY(put_zeros(w, gguf_pad((uint64_t)head.n, w->alignment) - (uint64_t)head.n, e));
    w->stage = DATA;
out:
    heap_free(head.p);
    return rc;
}

int gguf_writer_data(struct gguf_writer *w, const void *data, size_t n_bytes, struct err *e) {
    int rc = 0;
    TRY(check_stage(w, DATA, e));
    if (n_bytes == 0) return 0;
    FAIL_IF(w->current == w->n_infos, e, ERR_ARG, "%s: data behind the last tensor", w->path);
    const struct info *t = &w->infos[w->current];
    FAIL_IF(n_bytes > t->n_bytes - w->filled, e, ERR_ARG,
            "%s: %s: %zu bytes for a tensor that lacks %" PRIu64, w->path, t->name, n_bytes,
            t->n_bytes - w->filled);
    TRY(put(w, data, n_bytes, e));
    w->filled += n_bytes;
    if (w->filled == t->n_bytes) {
        TRY(put_zeros(w, gguf_pad(t->n_bytes, w->alignment) - t->n_bytes, e));
        w->current++;
        w->filled = 0;
    }
out:
    return rc;
}

int gguf_writer_end(struct gguf_writer *w, struct err *e) {
    int rc = 0;
    TRY(check_stage(w, DATA, e));
    FAIL_IF(w->current < w->n_infos, e, ERR_ARG, "%s: %s: %" PRIu64 " of %" PRIu64 " bytes written",
            w->path, w->infos[w->current].name, w->filled, w->infos[w->current].n_bytes);
    TRY(flush(w, e));
    /* A full disk may show only now, and the name must not be there before the data. */
    FAIL_IF(fsync(w->fd) < 0, e, ERR_IO, "%s: cannot write: %s", w->tmp, strerror(errno));
    int fd = w->fd;
    w->fd = -1;
    int closed = close(fd);
    int renamed = closed < 0 ? -1 : rename(w->tmp, w->path);
    int why = errno;
    if (renamed < 0) unlink(w->tmp);
    FAIL_IF(renamed < 0, e, ERR_IO, "%s: cannot %s: %s", w->path,
            closed < 0 ? "write" : "rename to it", strerror(why));
    w->stage = DONE;
out:
    if (rc < 0 && w->fd < 0) w->stage = BROKEN;
    return rc;
}
