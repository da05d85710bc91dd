/* SPDX-License-Identifier: MIT
 * limits.c - the measured limits; see limits.h. */
#include "measure/limits.h"

#include <stdio.h>
#include <string.h>

#include "measure/limits_table.h"

/* For a cell nobody has measured yet: far above rounding, far below any fault worth the name. */
#define UNMEASURED { .max_rel = 1e-3, .row_nmse = 1e-8 }

static const struct {
    const char *cell;
    struct op_limit limit;
} limits[] = {
#define X(cell, max_rel, row_nmse) { cell, { max_rel, row_nmse, true } },
    LIMIT_LIST(X)
#undef X
};

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
