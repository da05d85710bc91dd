/* SPDX-License-Identifier: MIT
 * limits.c - the measured limits; see limits.h. */
#include "measure/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "measure/limits_table.h"

/* For a cell nobody has measured yet: far above rounding, far below any fault worth the name. */
#define UNMEASURED                                                                                 \
    { .max_rel = 1e-3, .row_nmse = 1e-8 }

static const struct {
    const char *cell;
    struct op_limit limit;
} limits[] = {
#define X(cell, max_rel, row_nmse) { cell, { max_rel, row_nmse, true } },
    LIMIT_LIST(X)
#undef X
};

static double two_digits_up(double x) {
    double unit = pow(10, floor(log10(x)) - 1);
    return ceil(x / unit * (1 - 1e-12)) * unit; /* a number of two digits stays what it is */
}

struct op_limit limit_from(double largest_rel, double largest_nmse) {
    return (struct op_limit){
        .max_rel = two_digits_up(fmax(LIMIT_MULTIPLE * largest_rel, LIMIT_FLOOR_REL)),
        .row_nmse = two_digits_up(fmax(LIMIT_MULTIPLE_NMSE * largest_nmse, LIMIT_FLOOR_NMSE)),
        .measured = true,
    };
}

void limit_cell_name(enum column c, const struct node *n, char *buf, size_t n_bytes) {
    enum column found = COL_none;
    if (!op_cell_find(c, n, &found)) {
        snprintf(buf, n_bytes, "none");
        return;
    }
    snprintf(buf, n_bytes, "%s@%s",
             n->op == OP_mul_mat ? qtype_info((enum qtype)n->src[0]->type)->name : op_name(n->op),
             column_name(found));
}

struct op_limit limit_of(const char *cell) {
    for (size_t i = 0; i < N_ELEMS(limits); i++)
        if (!strcmp(limits[i].cell, cell)) return limits[i].limit;
    return (struct op_limit)UNMEASURED;
}

bool op_error_over(const struct op_error *s, const struct op_limit *limit) {
    return s->n > 0 && (s->bad_row >= 0 || !(s->max_rel <= limit->max_rel) ||
                        !(s->row_nmse <= limit->row_nmse));
}
