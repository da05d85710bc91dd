/* SPDX-License-Identifier: MIT
 * row.c - the result row in memory; see row.h. */
#include "result/row.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"

static const struct {
    const char *name, *sql_type;
} fields[] = {
#define X(name, type) { #name, type },
    ROW_FIELD_LIST(X)
#undef X
};

void row_init(struct row *r) {
    *r = (struct row){ 0 };
}

void row_release(struct row *r) {
    for (int f = 0; f < ROW_field_count; f++)
        heap_free(r->field[f]);
    row_init(r);
}

int row_copy(struct row *dst, const struct row *src, struct err *e) {
    int rc = 0;
    for (int f = 0; f < ROW_field_count; f++)
        TRY(row_set(dst, (enum row_field)f, src->field[f], e));
out:
    return rc;
}

int row_set(struct row *r, enum row_field f, const char *text, struct err *e) {
    char *copy = NULL;
    if (text && text[0]) {
        copy = utf8_repair_dup(text, strlen(text), e);
        if (!copy) return ERR_NOMEM;
    }
    heap_free(r->field[f]);
    r->field[f] = copy;
    return 0;
}

int row_set_int(struct row *r, enum row_field f, long long v, struct err *e) {
    char text[32];
    snprintf(text, sizeof text, "%lld", v);
    return row_set(r, f, text, e);
}

/* The decimal point is a point whatever locale a library around us may have chosen. */
static void point_decimal(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (strchr("0123456789+-e", *from))
            *to++ = *from;
        else if (to == text || to[-1] != '.')
            *to++ = '.'; /* one point even for a separator of several bytes */
    }
    *to = '\0';
}

int row_set_num(struct row *r, enum row_field f, double v, struct err *e) {
    if (isnan(v)) return row_set(r, f, "nan", e);
    if (isinf(v)) return row_set(r, f, v < 0 ? "-inf" : "inf", e);
    char text[40];
    snprintf(text, sizeof text, "%.17g", v);
    point_decimal(text);
    return row_set(r, f, text, e);
}

const char *row_get(const struct row *r, enum row_field f) {
    return r->field[f] ? r->field[f] : "";
}

const char *row_field_name(enum row_field f) {
    return fields[f].name;
}

const char *row_field_sql_type(enum row_field f) {
    return fields[f].sql_type;
}
