/* SPDX-License-Identifier: MIT
 * err.c - error records; see err.h. */
#include "err.h"

#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *file, int line, const char *fmt, ...) {
    if (!e) return code;
    e->code = code;
    e->file = file;
    e->line = line;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return code;
}

int err_prefix(struct err *e, const char *fmt, ...) {
    if (!e) return ERR_ARG;
    char head[256];
    char tail[sizeof e->msg - sizeof head - 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, e->msg, sizeof tail);
    tail[sizeof tail - 1] = '\0';
    snprintf(e->msg, sizeof e->msg, "%s: %s", head, tail);
    return e->code;
}

const char *err_name(int code) {
    switch (code) {
    case ERR_OK: return "OK";
#define X(name, value)                                                                             \
    case ERR_##name: return #name;
        ERR_LIST(X)
#undef X
    default: return "UNKNOWN";
    }
}
