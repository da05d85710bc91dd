/* SPDX-License-Identifier: MIT
 * list.c - lists separated by commas; see list.h. */
#include "cli/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int list_ints(const char *flag, const char *text, int min, int max, struct int_list *out,
              struct err *e) {
    const char *p = text;
    int rc = 0;
    for (out->n = 0; out->n == 0 || *p++ == ',';) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        FAIL_IF(end == p || (*end && *end != ',') || (*p != '-' && (*p < '0' || *p > '9')), e,
                ERR_ARG, "%s: expected whole numbers separated by commas, not '%s'", flag, text);
        FAIL_IF(errno || v < min || v > max, e, ERR_ARG, "%s: %.*s is outside of %d to %d", flag,
                (int)(end - p), p, min, max);
        FAIL_IF(out->n == LIST_MAX, e, ERR_ARG, "%s: more than %d values", flag, LIST_MAX);
        out->v[out->n++] = (int)v;
        p = end;
    }
out:
    return rc;
}

int list_strs(const char *flag, const char *text, struct str_list *out, struct err *e) {
    int rc = 0;
    size_t n = strlen(text);
    FAIL_IF(n >= sizeof out->text, e, ERR_ARG, "%s: longer than %d bytes", flag, LIST_MAX_TEXT - 1);
    memcpy(out->text, text, n + 1);
    out->n = 0;
    for (char *p = out->text; p;) {
        char *comma = strchr(p, ',');
        if (comma) *comma = '\0';
        FAIL_IF(!*p, e, ERR_ARG, "%s: an empty value in '%s'", flag, text);
        FAIL_IF(out->n == LIST_MAX, e, ERR_ARG, "%s: more than %d values", flag, LIST_MAX);
        out->v[out->n++] = p;
        p = comma ? comma + 1 : NULL;
    }
out:
    return rc;
}
