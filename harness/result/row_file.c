/* SPDX-License-Identifier: MIT
 * row_file.c - result rows in CSV files; see row.h.
 *
 * A file belongs to one writer at a time, which an advisory lock guards where the file system knows
 * locks: the tail that a failed write leaves behind is cut off, and that must not hit a line of
 * somebody else's. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/lock.h"
#include "base/log.h"
#include "result/csv.h"
#include "result/row.h"

typedef int (*row_fn)(void *arg, const struct row *r, struct err *e);

/* ---- reading --------------------------------------------------------------------------------- */

/* Which row field each column holds, -1 for one that we do not know. */
struct columns {
    int n;
    int field[CSV_FIELDS_MAX];
};

static int field_from_name(const char *name) {
    for (int f = 0; f < ROW_field_count; f++)
        if (strcmp(name, row_field_name((enum row_field)f)) == 0) return f;
    return -1;
}

/* 1 = there is a header, 0 = the file ends before or inside it. */
static int read_header(struct csv_reader *in, struct columns *cols, struct err *e) {
    int rc = 0;
    bool seen[ROW_field_count] = { false };
    cols->n = 0;
    TRY(csv_reader_next(in, e));
    if (rc == 0) return 0;
    for (int i = 0; i < in->n_fields; i++) {
        int f = cols->field[i] = field_from_name(csv_field(in, i));
        if (f < 0) continue;
        FAIL_IF(seen[f], e, ERR_FORMAT, "%s:1: column '%s' is there twice", in->path,
                csv_field(in, i));
        seen[f] = true;
    }
    FAIL_IF(!seen[ROW_schema], e, ERR_FORMAT, "%s:1: not a result file, it has no column 'schema'",
            in->path);
    cols->n = in->n_fields;
    rc = 1;
out:
    return rc;
}

/* A record with a wrong number of fields: forgiven as torn only if nothing follows it. */
static int check_last(struct csv_reader *in, const struct columns *cols, int64_t end_before,
                      struct err *e) {
    int rc = 0, found = in->n_fields;
    int64_t line = in->line;
    rc = csv_reader_next(in, e);
    FAIL_IF(rc != 0 || in->torn, e, ERR_FORMAT, "%s:%lld: %d fields, expected %d as in the header",
            in->path, (long long)line, found, cols->n);
    in->line = line;
    in->torn = true;
    in->end_offset = end_before;
out:
    return rc;
}

/* Afterwards in->end_offset is the end of the last good line and in->torn says if more follows. */
static int read_body(struct csv_reader *in, const struct columns *cols, row_fn fn, void *arg,
                     struct err *e) {
    int rc = 0;
    for (;;) {
        int64_t end_before = in->end_offset;
        TRY(csv_reader_next(in, e));
        if (rc == 0) return 0;
        if (in->n_fields != cols->n) return check_last(in, cols, end_before, e);
        struct row view = { 0 }; /* borrows its strings from the reader */
        for (int i = 0; i < cols->n; i++)
            if (cols->field[i] >= 0) view.field[cols->field[i]] = in->text + in->field_at[i];
        FAIL_IF(strcmp(row_get(&view, ROW_schema), ROW_SCHEMA) != 0, e, ERR_MISMATCH,
                "%s:%lld: row of schema '%.20s', this program knows schema " ROW_SCHEMA, in->path,
                (long long)in->line, row_get(&view, ROW_schema));
        rc = fn ? fn(arg, &view, e) : 0;
        if (rc < 0) {
            err_prefix(e, "%s:%lld", in->path, (long long)in->line);
            goto out;
        }
    }
out:
    return rc;
}

int csv_read_rows(struct csv_reader *in, row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct columns cols;
    TRY(read_header(in, &cols, e));
    if (rc == 1) TRY(read_body(in, &cols, fn, arg, e));
    if (in->torn)
        log_msg(LOG_WARN, "%s:%lld: the last line is torn and ignored; the run was cut short",
                in->path, (long long)in->line);
    rc = 0;
out:
    return rc;
}

int row_read_csv(const char *path, row_fn fn, void *arg, struct err *e) {
    struct csv_reader in;
    int rc = csv_reader_open(&in, path, e);
    if (rc < 0) return rc;
    rc = csv_read_rows(&in, fn, arg, e);
    csv_reader_release(&in);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct row_writer {
    int fd;
    bool regular; /* not a pipe or a device: has a length and can be cut */
    bool torn;    /* a torn line could not be removed: nothing may follow it */
    char *path;
};

/* One write(2) for the line; only if the system took a part of it is the rest offered again, which
 * either completes the line or says why not. */
static int append_line(struct row_writer *w, const char *line, size_t n, struct err *e) {
    if (w->torn) return ERR(e, ERR_IO, "%s: ends in a torn line, nothing can be added", w->path);
    off_t start = w->regular ? lseek(w->fd, 0, SEEK_END) : 0;
    size_t done = 0;
    while (done < n) {
        ssize_t k = write(w->fd, line + done, n - done);
        if (k > 0) {
            done += (size_t)k;
            continue;
        }
        if (k < 0 && errno == EINTR) continue;
        const char *why = k < 0 ? strerror(errno) : "no byte was taken";
        w->torn = done > 0 && !(w->regular && start >= 0 && ftruncate(w->fd, start) == 0);
        return ERR(e, ERR_IO, "%s: writing %zu bytes: %s (%zu were written%s)", w->path, n, why,
                   done,
                   !done     ? ""
                   : w->torn ? ", the file ends in a torn line"
                             : " and removed");
    }
    return 0;
}

/* The file ends inside its first line: is that the beginning of our header? */
static int is_torn_header(const char *path, const char *header, size_t n_header, struct err *e) {
    int rc = 0;
    char *head = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    FAIL_IF(fd < 0, e, ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    head = heap_alloc(n_header, e);
    if (!head) {
        rc = ERR_NOMEM;
        goto out;
    }
    ssize_t got = read(fd, head, n_header);
    FAIL_IF(got < 0, e, ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    rc = (size_t)got < n_header && memcmp(head, header, (size_t)got) == 0;
out:
    heap_free(head);
    if (fd >= 0) close(fd);
    return rc;
}

/* Read through an existing file; *keep is the length of its good lines. */
static int check_existing(const char *path, const char *header, size_t n_header, int64_t *keep,
                          struct err *e) {
    struct csv_reader in;
    struct columns cols;
    int rc = csv_reader_open(&in, path, e);
    if (rc < 0) return rc;
    TRY(read_header(&in, &cols, e));
    if (rc == 0) {
        TRY(is_torn_header(path, header, n_header, e));
        FAIL_IF(rc == 0, e, ERR_FORMAT, "%s: exists and is not a result file; not touched", path);
    } else {
        bool same = cols.n == ROW_field_count;
        for (int i = 0; same && i < cols.n; i++)
            same = cols.field[i] == i;
        FAIL_IF(!same, e, ERR_MISMATCH,
                "%s: has other columns than the %d of schema " ROW_SCHEMA "; not touched", path,
                ROW_field_count);
        TRY(read_body(&in, &cols, NULL, NULL, e));
    }
    *keep = in.end_offset;
    if (in.torn)
        log_msg(LOG_WARN, "%s:%lld: the last line is torn and is cut off", path,
                (long long)in.line);
    rc = 0;
out:
    csv_reader_release(&in);
    return rc;
}

static int prepare(struct row_writer *w, struct err *e) {
    int rc = 0;
    int64_t keep = 0;
    struct stat st;
    size_t n_header;
    char *header;
    TRY(csv_header_line(&header, &n_header, e));
    FAIL_IF(fstat(w->fd, &st) != 0, e, ERR_IO, "%s: %s", w->path, strerror(errno));
    w->regular = S_ISREG(st.st_mode);
    if (w->regular) {
        TRY(file_lock(w->fd, w->path, e));
        FAIL_IF(fstat(w->fd, &st) != 0, e, ERR_IO, "%s: %s", w->path, strerror(errno));
        if (st.st_size > 0) TRY(check_existing(w->path, header, n_header, &keep, e));
        FAIL_IF(keep < st.st_size && ftruncate(w->fd, keep) != 0, e, ERR_IO,
                "%s: the torn last line cannot be cut off: %s", w->path, strerror(errno));
    }
    if (keep == 0) TRY(append_line(w, header, n_header, e));
out:
    heap_free(header);
    return rc;
}

int row_writer_open(struct row_writer **out, const char *path, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct row_writer *w = heap_calloc(1, sizeof *w, e);
    if (!w) return ERR_NOMEM;
    w->fd = -1;
    w->path = heap_strndup(path, strlen(path), e);
    if (!w->path) {
        rc = ERR_NOMEM;
        goto out;
    }
    w->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    FAIL_IF(w->fd < 0, e, ERR_IO, "%s: cannot be opened for writing: %s", path, strerror(errno));
    TRY(prepare(w, e));
    *out = w;
out:
    if (rc < 0) row_writer_close(w, NULL);
    return rc;
}

int row_writer_add(struct row_writer *w, const struct row *r, struct err *e) {
    size_t n;
    char *line;
    int rc = csv_row_line(&line, &n, r, e);
    if (rc < 0) return rc;
    rc = append_line(w, line, n, e);
    heap_free(line);
    return rc;
}

int row_writer_close(struct row_writer *w, struct err *e) {
    int rc = 0;
    if (!w) return 0;
    /* Network file systems report a full disk only here; pipes and devices know no fsync. */
    if (w->fd >= 0 && w->regular && fsync(w->fd) != 0)
        rc = ERR(e, ERR_IO, "%s: the last rows may be lost: %s", w->path, strerror(errno));
    if (w->fd >= 0 && close(w->fd) != 0 && rc == 0)
        rc = ERR(e, ERR_IO, "%s: the last rows may be lost: %s", w->path, strerror(errno));
    heap_free(w->path);
    heap_free(w);
    return rc;
}

const char *row_writer_path(const struct row_writer *w) {
    return w->path;
}
