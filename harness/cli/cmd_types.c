/* SPDX-License-Identifier: MIT
 * cmd_types.c - prints the tables of types, ops and backends of this build as Markdown; the
 * coverage table of the README is its output. */
#include <stdio.h>

#include "backend.h"
#include "base/fault.h"
#include "cli/cmd.h"
#include "cli/opt.h"

static void head(const char *first) {
    printf("| %s |", first);
    for (int c = 0; c < COL_count; c++)
        printf(" %s |", column_name((enum column)c));
    printf("\n|---|");
    for (int c = 0; c < COL_count; c++)
        printf(":---:|");
    putchar('\n');
}

static int list_faults(void) {
    const struct fault_info *i;
    puts("fault\tthread\tmodel\toptions\thidden\tcell\twhat");
    for (int f = FAULT_none + 1; (i = fault_info((enum fault)f)); f++)
        printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i->name, i->thread, i->model, i->options, i->hidden,
               i->cell, i->what);
    return EXIT_PASS;
}

int cmd_types(int argc, char **argv, struct err *e) {
    bool faults = false;
    const struct opt table[] = {
        OPT_IF_FAULTS({ OPT_FLAG, "--faults", NULL, &faults, 0, 0, NULL,
                        "the catalogue of seeded faults, tab-separated" }) OPT_END,
    };
    int rc = opt_parse(argc, argv, table, "types", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    if (faults) return list_faults();

    head("type (bpw)");
    for (int t = 0; t < QT_count; t++) {
        const struct qtype_info *i = qtype_info((enum qtype)t);
        if (!qtype_has_cell(COL_ref, (enum qtype)t)) continue;
        printf("| %s (%g) |", i->name, 8.0 * (double)i->blk_bytes / i->n_blk);
        for (int c = 0; c < COL_count; c++)
            printf(" %s |", qtype_has_cell((enum column)c, (enum qtype)t) ? "Y" : "");
        putchar('\n');
    }
    putchar('\n');
    head("op");
    for (int o = 0; o < OP_count; o++) {
        printf("| %s |", op_name((enum op)o));
        for (int c = 0; c < COL_count; c++)
            printf(" %s |", op_has_cell((enum column)c, (enum op)o) ? "Y" : "");
        putchar('\n');
    }
    fputs("\nThis machine runs:", stderr);
    for (int c = 0; c < COL_count; c++)
        if (column_available((enum column)c)) fprintf(stderr, " %s", column_name((enum column)c));
    fputs("\n", stderr);
    return EXIT_PASS;
}
