/* SPDX-License-Identifier: MIT
 * fuzz_csv.c - the reader of result files on arbitrary bytes.
 *
 * The first byte says which allocation fails (0 = none). Whatever row is read must survive being
 * written and read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "result/csv.h"
#include "result/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A line as we write it: breaks inside fields are spaces, an empty schema is ours. */
static bool same_text(const char *read, const char *written) {
    for (; *read && *written; read++, written++) {
        char c = *read == '\n' || *read == '\r' ? ' ' : *read;
        if (c != *written) return false;
    }
    return *read == *written;
}

static int write_and_read(void *arg, const struct row *r, struct err *e) {
    int rc = 0;
    (void)arg;
    size_t n;
    char *line = NULL;
    struct csv_reader again = { .fd = -1 };
    TRY(csv_row_line(&line, &n, r, e));
    TRY(csv_reader_open_mem(&again, line, n, "again", e));
    TRY(csv_reader_next(&again, e));
    if (rc != 1 || again.n_fields != ROW_field_count) abort();
    for (int f = 0; f < ROW_field_count; f++)
        if (!same_text(row_get(r, (enum row_field)f), csv_field(&again, f))) abort();
    rc = 0;
out:
    if (rc < 0 && rc != ERR_NOMEM && rc != ERR_ARG) abort(); /* ARG: quotes made it too long */
    csv_reader_release(&again);
    heap_free(line);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = { 0 };
    struct csv_reader in;
    if (n == 0) return 0;
    heap_fail_at(data[0]);
    if (csv_reader_open_mem(&in, data + 1, n - 1, "fuzz", &e) == 0) {
        csv_read_rows(&in, write_and_read, NULL, &e);
        if (in.end_offset > (int64_t)n - 1) abort();
        csv_reader_release(&in);
    }
    heap_fail_at(0);
    return 0;
}
