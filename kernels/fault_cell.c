/* SPDX-License-Identifier: MIT
 * fault_cell.c - seeded faults by column; see fault_cell.h. */
#include "fault_cell.h"

#include <string.h>

/* Whose cell of op or type `what` column c takes for many tokens. */
static enum column cell_column(const char *what, enum column c) {
    enum column found = COL_none;
    for (int t = 0; t < QT_count; t++)
        if (!strcmp(qtype_info((enum qtype)t)->name, what)) {
            if (qkernel_for(c, (enum qtype)t, 0, TOKENS_MANY, &found)) return found;
            return column_is_cpu(c) ? COL_ref : COL_none; /* ref multiplies any type */
        }
    for (int o = 0; o < OP_count; o++) {
        if (strcmp(op_name((enum op)o), what)) continue;
        struct node n = { .op = (enum op)o };
        n.p.attn.n_tok_as = TOKENS_MANY;
        return op_cell_find(c, &n, &found) ? found : COL_none;
    }
    return COL_none;
}

enum column fault_column(enum fault f, enum column c) {
    const struct fault_info *i = fault_info(f);
    if (!i) return COL_none;
    const enum column cell = cell_column(i->cell, c);
    if (cell == COL_none) return COL_none;
    /* no column's name is a part of another's */
    const bool has =
        cell == COL_cuda ? fault_on_cuda(f) != NULL : strstr(i->columns, column_name(cell)) != NULL;
    return has ? cell : COL_none;
}

int fault_choose(const char *name, enum column c, enum fault *out, struct err *e) {
    int rc = 0;
    *out = name ? fault_from_name(name) : FAULT_none;
    if (!name) return 0;
    FAIL_IF(*out == FAULT_none, e, ERR_ARG, "'%s' is not a fault of this build", name);
    FAIL_IF(fault_column(*out, c) == COL_none, e, ERR_ARG,
            "the %s column has no fault '%s': %s@%s is without it (ggauge types --faults says who "
            "has it)",
            column_name(c), name, fault_info(*out)->cell,
            column_name(cell_column(fault_info(*out)->cell, c)));
out:
    return rc;
}
