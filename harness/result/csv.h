/* SPDX-License-Identifier: MIT
 * csv.h - reading and writing CSV records, RFC 4180.
 *
 * The reader accepts LF and CR LF, quoted fields with line breaks, and nothing beyond the standard:
 * a quote in the middle of a bare field, text after a closing quote, a NUL byte, an overlong record
 * or too many fields is an error that names file and line. It holds one record at a time. */
#ifndef GGAUGE_CSV_H
#define GGAUGE_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct row;

#define CSV_RECORD_MAX (1 << 20) /* bytes of one record */
#define CSV_FIELDS_MAX 256

struct csv_reader {
    const char *path;   /* borrowed, for messages */
    int n_fields;       /* of the current record */
    int64_t line;       /* where the current record starts, from 1 */
    int64_t end_offset; /* bytes up to and including the last complete record */
    bool torn;          /* after the end: the file ends inside a line */

    int fd;         /* -1: all input is in `in` */
    const char *in; /* unread input is in[pos..len) */
    size_t pos, len;
    int64_t in_offset; /* of in[0] in the file */
    int64_t next_line;
    char *buf;  /* owned: file input */
    char *text; /* owned: the fields, each with its NUL */
    size_t text_len, text_cap;
    size_t field_at[CSV_FIELDS_MAX];
};

/* `path` must live as long as the reader. Release after success only. */
int csv_reader_open(struct csv_reader *r, const char *path, struct err *e);
/* The same over n bytes in memory, borrowed; `name` is for messages. */
int csv_reader_open_mem(struct csv_reader *r, const void *data, size_t n, const char *name,
                        struct err *e);
void csv_reader_release(struct csv_reader *r);

/* 1 = a complete record was read, 0 = the end, negative = an error. */
int csv_reader_next(struct csv_reader *r, struct err *e);
/* Field i of the current record, valid until the next one is read. */
const char *csv_field(const struct csv_reader *r, int i);

/* The header, or one row, as a line of *n_bytes with its newline, NUL-terminated, to be released
 * with heap_free. Line breaks inside fields become spaces, so a record is a line. */
int csv_header_line(char **line, size_t *n_bytes, struct err *e);
int csv_row_line(char **line, size_t *n_bytes, const struct row *r, struct err *e);

/* row_read_csv on an open reader, which must be at its first record. */
int csv_read_rows(struct csv_reader *in,
                  int (*fn)(void *arg, const struct row *r, struct err *e), void *arg,
                  struct err *e);

#endif
