/* SPDX-License-Identifier: MIT
 * kld_writer.c - writing saved logits, and going on with an interrupted file; see kld_file.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arm/kld_format.h"
#include "base/arena.h"
#include "base/lock.h"

struct kld_writer {
    FILE *f;
    char *path;
    struct kld_shape shape;
    int floor_nats;
    uint16_t *rec;
};

static int write_all(struct kld_writer *w, const void *p, size_t n, struct err *e) {
    int rc = 0;
    FAIL_IF(fwrite(p, 1, n, w->f) != n, e, ERR_IO, "%s: writing: %s", w->path, strerror(errno));
out:
    return rc;
}

static void make_header(unsigned char head[KLD_HEADER_BYTES], const struct kld_shape *s) {
    memcpy(head, KLD_MAGIC, 8);
    memcpy(head + 8, s, sizeof *s);
}

static size_t n_tokens(const struct kld_shape *s) {
    return (size_t)s->n_ctx * (size_t)s->n_chunk;
}

static int writer_new(struct kld_writer **out, const char *path, const struct kld_shape *shape,
                      int floor_nats, struct err *e) {
    int rc = 0, fd = -1;
    struct kld_writer *w = heap_calloc(1, sizeof *w, e);
    if (!w) return ERR_NOMEM;
    w->shape = *shape;
    w->floor_nats = floor_nats;
    w->path = heap_strndup(path, strlen(path), e);
    w->rec = heap_alloc(kld_record_words(shape->n_vocab) * sizeof *w->rec, e);
    if (!w->path || !w->rec) {
        rc = ERR_NOMEM;
        goto out;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    FAIL_IF(fd < 0, e, ERR_IO, "%s: %s", path, strerror(errno));
    TRY(file_lock(fd, path, e));
    w->f = fdopen(fd, "r+b");
    FAIL_IF(!w->f, e, ERR_IO, "%s: %s", path, strerror(errno));
    fd = -1;
    *out = w;
    w = NULL;
out:
    if (fd >= 0) close(fd);
    kld_writer_close(w, NULL);
    return rc;
}

static int write_header(struct kld_writer *w, const int32_t *tokens, struct err *e) {
    int rc = 0;
    unsigned char head[KLD_HEADER_BYTES];
    make_header(head, &w->shape);
    TRY(write_all(w, head, sizeof head, e));
    TRY(write_all(w, tokens, n_tokens(&w->shape) * sizeof *tokens, e));
    TRY(kld_writer_flush(w, e));
out:
    return rc;
}

static int make_empty(struct kld_writer *w, struct err *e) {
    int rc = 0;
    struct stat st;
    FAIL_IF(fstat(fileno(w->f), &st), e, ERR_IO, "%s: %s", w->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) goto out;
    TRY(file_may_hold(w->path, KLD_MAGIC, "saved logits", e));
    FAIL_IF(ftruncate(fileno(w->f), 0), e, ERR_IO, "%s: %s", w->path, strerror(errno));
out:
    return rc;
}

int kld_writer_open(struct kld_writer **out, const char *path, const struct kld_shape *shape,
                    const int32_t *tokens, int floor_nats, struct err *e) {
    int rc = 0;
    struct kld_writer *w = NULL;
    *out = NULL;
    TRY(writer_new(&w, path, shape, floor_nats, e));
    TRY(make_empty(w, e));
    TRY(write_header(w, tokens, e));
    *out = w;
    w = NULL;
out:
    kld_writer_close(w, NULL);
    return rc;
}

/* Is what the file begins with what we would write? A part of it, from an interrupted start, is. */
static int check_start(struct kld_writer *w, const int32_t *tokens, size_t have, struct err *e) {
    int rc = 0;
    unsigned char head[KLD_HEADER_BYTES], found[4096];
    make_header(head, &w->shape);
    size_t n = sizeof head + n_tokens(&w->shape) * sizeof *tokens, at = 0;
    if (have < n) n = have;
    while (at < n) {
        const unsigned char *want =
            at < sizeof head ? head + at : (const unsigned char *)tokens + at - sizeof head;
        size_t part = at < sizeof head ? sizeof head - at : sizeof found;
        if (part > n - at) part = n - at;
        FAIL_IF(fread(found, 1, part, w->f) != part, e, ERR_IO, "%s: reading: %s", w->path,
                strerror(errno));
        FAIL_IF(at == 0 && part == sizeof head && memcmp(found, head, part) &&
                    !memcmp(found, head, part - sizeof w->shape.n_chunk),
                e, ERR_MISMATCH,
                "%s: cannot go on with this file: it was made for another number of chunks than "
                "the %d of this run",
                w->path, w->shape.n_chunk);
        FAIL_IF(memcmp(found, want, part), e, ERR_MISMATCH,
                "%s: cannot go on with this file: its header or tokens are not those of this run "
                "(first difference in bytes %zu to %zu)",
                w->path, at, at + part);
        at += part;
    }
out:
    return rc;
}

/* Are the records of chunk i those of a model with this nll? */
static int check_chunk(struct kld_writer *w, const int32_t *tokens, int64_t i, double nll_sum,
                       struct err *e) {
    const struct kld_shape *s = &w->shape;
    const size_t n = kld_record_words(s->n_vocab);
    const uint64_t at = KLD_HEADER_BYTES + n_tokens(s) * sizeof *tokens;
    double low = 0, high = 0;
    int rc = 0;
    FAIL_IF(fseeko(w->f, (off_t)(at + (uint64_t)i * kld_chunk_bytes(s)), SEEK_SET), e, ERR_IO,
            "%s: %s", w->path, strerror(errno));
    for (int k = 0; k < kld_n_records(s->n_ctx); k++) {
        double l, h;
        FAIL_IF(fread(w->rec, sizeof *w->rec, n, w->f) != n, e, ERR_IO,
                "%s: reading chunk %" PRId64 ": %s", w->path, i + 1, strerror(errno));
        rc = kld_nll_bounds(w->rec, tokens[i * s->n_ctx + s->n_ctx / 2 + k + 1], &l, &h, e);
        if (rc < 0) err_prefix(e, "%s: chunk %" PRId64 ", record %d", w->path, i + 1, k);
        TRY(rc);
        low += l;
        high += h;
    }
    FAIL_IF(!(nll_sum >= low && nll_sum <= high), e, ERR_MISMATCH,
            "%s: cannot go on with this file: it holds the logits of another model or run; its "
            "chunk %" PRId64 " has a negative log-likelihood of %.6g to %.6g, the rows to go on "
            "from say %.6g",
            w->path, i + 1, low, high, nll_sum);
out:
    return rc;
}

int kld_writer_resume(struct kld_writer **out, const char *path, const struct kld_shape *shape,
                      const int32_t *tokens, int floor_nats, const double *nll_sum,
                      int64_t *n_chunks, struct err *e) {
    int rc = 0;
    struct kld_writer *w = NULL;
    struct stat st;
    *out = NULL;
    TRY(writer_new(&w, path, shape, floor_nats, e));
    FAIL_IF(fstat(fileno(w->f), &st), e, ERR_IO, "%s: %s", path, strerror(errno));
    FAIL_IF(!S_ISREG(st.st_mode), e, ERR_IO, "%s: not a regular file", path);
    TRY(check_start(w, tokens, (size_t)st.st_size, e));

    size_t start = KLD_HEADER_BYTES + n_tokens(shape) * sizeof *tokens;
    uint64_t whole = 0;
    if ((size_t)st.st_size >= start)
        whole = ((uint64_t)st.st_size - start) / kld_chunk_bytes(shape);
    if ((uint64_t)*n_chunks > whole) *n_chunks = (int64_t)whole;
    if (*n_chunks) TRY(check_chunk(w, tokens, *n_chunks - 1, nll_sum[*n_chunks - 1], e));
    uint64_t keep = *n_chunks ? start + (uint64_t)*n_chunks * kld_chunk_bytes(shape) : 0;
    FAIL_IF(ftruncate(fileno(w->f), (off_t)keep) || fseeko(w->f, (off_t)keep, SEEK_SET), e, ERR_IO,
            "%s: cutting to %" PRIu64 " bytes: %s", path, keep, strerror(errno));
    if (!keep) TRY(write_header(w, tokens, e));
    *out = w;
    w = NULL;
out:
    kld_writer_close(w, NULL);
    return rc;
}

int kld_writer_add(struct kld_writer *w, const float *logits, float max, double lse,
                   struct err *e) {
    kld_encode(w->rec, logits, w->shape.n_vocab, max, lse, w->floor_nats);
    return write_all(w, w->rec, kld_record_words(w->shape.n_vocab) * sizeof *w->rec, e);
}

int kld_writer_flush(struct kld_writer *w, struct err *e) {
    int rc = 0;
    FAIL_IF(fflush(w->f), e, ERR_IO, "%s: writing: %s", w->path, strerror(errno));
out:
    return rc;
}

int kld_writer_close(struct kld_writer *w, struct err *e) {
    int rc = 0;
    if (!w) return 0;
    if (w->f) FAIL_IF(fclose(w->f), e, ERR_IO, "%s: writing: %s", w->path, strerror(errno));
out:
    heap_free(w->path);
    heap_free(w->rec);
    heap_free(w);
    return rc;
}
