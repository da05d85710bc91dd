/* SPDX-License-Identifier: MIT
 * text.c - reading a text; see text.h. */
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "result/row.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

size_t text_unescape(char *s, size_t n) {
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        const char *known = NULL;
        if (s[i] == '\\' && i + 1 < n && s[i + 1]) known = strchr(from, s[i + 1]);
        if (known) {
            s[out++] = to[known - from];
            i++;
        } else if (s[i] == '\\' && i + 3 < n && s[i + 1] == 'x' && hex_digit(s[i + 2]) >= 0 &&
                   hex_digit(s[i + 3]) >= 0) {
            s[out++] = (char)(hex_digit(s[i + 2]) * 16 + hex_digit(s[i + 3]));
            i += 3;
        } else {
            s[out++] = s[i];
        }
    }
    return out;
}

static int read_all(struct text *t, FILE *f, const char *path, struct err *e) {
    int rc = 0;
    size_t cap = 0;
    for (;;) {
        if (cap - t->n < 2) { /* room for a byte and the final NUL */
            cap = cap ? 2 * cap : 65536;
            char *p = heap_realloc(t->data, cap, e);
            if (!p) {
                rc = ERR_NOMEM;
                goto out;
            }
            t->data = p;
        }
        size_t got = fread(t->data + t->n, 1, cap - t->n - 1, f);
        t->n += got;
        FAIL_IF(ferror(f), e, ERR_IO, "%s: %s", path, strerror(errno));
        if (!got) break;
    }
    t->data[t->n] = '\0';
out:
    return rc;
}

int text_read(struct text *t, const char *path, struct err *e) {
    int rc = 0;
    *t = (struct text){ 0 };
    FILE *f = fopen(path, "rbe");
    FAIL_IF(!f, e, ERR_IO, "%s: %s", path, strerror(errno));
    TRY(read_all(t, f, path, e));
    fingerprint_bytes(t->data, t->n, t->fingerprint);
out:
    if (f) fclose(f);
    if (rc < 0) text_release(t);
    return rc;
}

int text_load(struct text *t, const char *path, bool escape, struct err *e) {
    int rc = 0;
    TRY(text_read(t, path, e));
    if (t->n && t->data[t->n - 1] == '\n') t->n--;
    if (escape) t->n = text_unescape(t->data, t->n);
    t->data[t->n] = '\0';
    FAIL_IF(!t->n, e, ERR_ARG, "%s: the text is empty", path);
out:
    if (rc < 0) text_release(t);
    return rc;
}

void text_release(struct text *t) {
    heap_free(t->data);
    *t = (struct text){ 0 };
}
