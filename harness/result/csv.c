/* SPDX-License-Identifier: MIT
 * csv.c - CSV records; see csv.h. Source of the grammar: RFC 4180. */
#include "result/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "result/row.h"

#define READ_BYTES 65536

/* Where in a field the reader is. */
enum csv_state {
    CSV_START,  /* before its first byte */
    CSV_BARE,   /* inside, no quotes */
    CSV_QUOTED, /* inside quotes */
    CSV_CLOSED, /* behind a quote inside quotes: the end, or the first half of "" */
    CSV_CR,     /* behind a carriage return, which must be half of a line break */
    CSV_DONE,   /* the record is complete */
};

int csv_reader_open_mem(struct csv_reader *r, const void *data, size_t n, const char *name,
                        struct err *e) {
    *r = (struct csv_reader){ .path = name, .fd = -1, .in = data, .len = n, .next_line = 1 };
    r->text_cap = 4096;
    r->text = heap_alloc(r->text_cap, e);
    return r->text ? 0 : ERR_NOMEM;
}

int csv_reader_open(struct csv_reader *r, const char *path, struct err *e) {
    int rc = 0;
    TRY(csv_reader_open_mem(r, NULL, 0, path, e));
    r->buf = heap_alloc(READ_BYTES, e);
    if (!r->buf) {
        rc = ERR_NOMEM;
        goto out;
    }
    r->in = r->buf;
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    FAIL_IF(r->fd < 0, e, ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
out:
    if (rc < 0) csv_reader_release(r);
    return rc;
}

void csv_reader_release(struct csv_reader *r) {
    if (r->fd >= 0) close(r->fd);
    heap_free(r->buf);
    heap_free(r->text);
    *r = (struct csv_reader){ .fd = -1 };
}

/* Make in[pos] readable: 1 = there is a byte, 0 = end of the input. */
static int refill(struct csv_reader *r, struct err *e) {
    if (r->pos < r->len) return 1;
    if (r->fd < 0) return 0;
    ssize_t got;
    do
        got = read(r->fd, r->buf, READ_BYTES);
    while (got < 0 && errno == EINTR);
    if (got < 0) return ERR(e, ERR_IO, "%s: cannot be read: %s", r->path, strerror(errno));
    r->in_offset += (int64_t)r->len;
    r->pos = 0;
    r->len = (size_t)got;
    return got > 0;
}

static int put(struct csv_reader *r, char c, struct err *e) {
    if (r->text_len == r->text_cap) {
        char *grown = heap_realloc(r->text, r->text_cap * 2, e);
        if (!grown) return ERR_NOMEM;
        r->text = grown;
        r->text_cap *= 2;
    }
    r->text[r->text_len++] = c;
    return 0;
}

static int end_field(struct csv_reader *r, struct err *e) {
    int rc = 0;
    TRY(put(r, '\0', e));
    r->n_fields++;
    FAIL_IF(r->n_fields == CSV_FIELDS_MAX, e, ERR_FORMAT, "%s:%lld: more than %d fields", r->path,
            (long long)r->line, CSV_FIELDS_MAX - 1);
    r->field_at[r->n_fields] = r->text_len;
out:
    return rc;
}

/* The byte behind a field: a separator, or the field was not at its end. */
static int separator(struct csv_reader *r, enum csv_state *st, char c, struct err *e) {
    int rc = 0;
    if (c == '\r') {
        *st = CSV_CR;
        return 0;
    }
    FAIL_IF(c != ',' && c != '\n', e, ERR_FORMAT,
            "%s:%lld: field %d: expected ',' or the end of the line after the closing quote, "
            "found byte 0x%02x",
            r->path, (long long)r->next_line, r->n_fields + 1, (unsigned char)c);
    TRY(end_field(r, e));
    *st = c == ',' ? CSV_START : CSV_DONE;
out:
    return rc;
}

/* Take one byte. */
static int step(struct csv_reader *r, enum csv_state *st, char c, struct err *e) {
    int rc = 0;
    FAIL_IF(c == '\0', e, ERR_FORMAT, "%s:%lld: NUL byte, this is not a text file", r->path,
            (long long)r->next_line);
    switch (*st) {
    case CSV_START:
        if (c == '"') {
            *st = CSV_QUOTED;
            return 0;
        }
        *st = CSV_BARE; /* fall through */
    case CSV_BARE:
        if (c == ',' || c == '\n' || c == '\r') return separator(r, st, c, e);
        FAIL_IF(c == '"', e, ERR_FORMAT, "%s:%lld: field %d: quote inside an unquoted field",
                r->path, (long long)r->next_line, r->n_fields + 1);
        return put(r, c, e);
    case CSV_QUOTED:
        if (c != '"') return put(r, c, e);
        *st = CSV_CLOSED;
        return 0;
    case CSV_CLOSED:
        if (c != '"') return separator(r, st, c, e);
        *st = CSV_QUOTED;
        return put(r, c, e);
    case CSV_CR:
        FAIL_IF(c != '\n', e, ERR_FORMAT, "%s:%lld: carriage return without a line feed", r->path,
                (long long)r->next_line);
        return separator(r, st, c, e);
    case CSV_DONE: break;
    }
out:
    return rc;
}

int csv_reader_next(struct csv_reader *r, struct err *e) {
    int rc = 0;
    enum csv_state st = CSV_START;
    int64_t n_bytes = 0;
    r->n_fields = 0;
    r->text_len = 0;
    r->field_at[0] = 0;
    r->line = r->next_line;
    for (; st != CSV_DONE; n_bytes++) {
        TRY(refill(r, e));
        if (rc == 0) { /* the end: clean only between records */
            /* What a killed run left is less than a line: more is a mistake of somebody's. */
            FAIL_IF(r->next_line > r->line, e, ERR_FORMAT,
                    "%s:%lld: a quote is opened and never closed", r->path, (long long)r->line);
            r->torn = n_bytes > 0;
            r->n_fields = 0;
            return 0;
        }
        FAIL_IF(n_bytes == CSV_RECORD_MAX, e, ERR_FORMAT, "%s:%lld: record of more than %d bytes",
                r->path, (long long)r->line, CSV_RECORD_MAX);
        char c = r->in[r->pos++];
        TRY(step(r, &st, c, e));
        if (c == '\n') r->next_line++;
    }
    r->end_offset = r->in_offset + (int64_t)r->pos;
    rc = 1;
out:
    return rc;
}

const char *csv_field(const struct csv_reader *r, int i) {
    return r->text + r->field_at[i];
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* Write `text` as a field, at most 2 * strlen(text) + 2 bytes; returns the end. */
static char *format_field(char *to, const char *text) {
    bool quote = strpbrk(text, ",\"\r\n") != NULL;
    if (quote) *to++ = '"';
    for (; *text; text++) {
        if (*text == '"') *to++ = '"';
        *to++ = (char)(*text == '\n' || *text == '\r' ? ' ' : *text);
    }
    if (quote) *to++ = '"';
    return to;
}

static int format_line(char **out, size_t *n_bytes, const char *const *text, struct err *e) {
    *out = NULL;
    size_t cap = 2;
    for (int f = 0; f < ROW_field_count; f++)
        cap += 2 * strlen(text[f]) + 3;
    char *line = heap_alloc(cap, e);
    if (!line) return ERR_NOMEM;
    char *to = line;
    for (int f = 0; f < ROW_field_count; f++) {
        if (f) *to++ = ',';
        to = format_field(to, text[f]);
    }
    *to++ = '\n';
    *to = '\0';
    *n_bytes = (size_t)(to - line);
    if (*n_bytes > CSV_RECORD_MAX) {
        heap_free(line);
        return ERR(e, ERR_ARG, "a result row of %zu bytes, the limit is %d", *n_bytes,
                   CSV_RECORD_MAX);
    }
    *out = line;
    return 0;
}

int csv_header_line(char **line, size_t *n_bytes, struct err *e) {
    const char *text[ROW_field_count];
    for (int f = 0; f < ROW_field_count; f++)
        text[f] = row_field_name((enum row_field)f);
    return format_line(line, n_bytes, text, e);
}

int csv_row_line(char **line, size_t *n_bytes, const struct row *r, struct err *e) {
    const char *text[ROW_field_count];
    for (int f = 0; f < ROW_field_count; f++)
        text[f] = row_get(r, (enum row_field)f);
    if (!text[ROW_schema][0]) text[ROW_schema] = ROW_SCHEMA;
    return format_line(line, n_bytes, text, e);
}
