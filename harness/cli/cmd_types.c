/* SPDX-License-Identifier: MIT
 * cmd_types.c - prints the tables of types, ops and backends of this build as Markdown; the
 * coverage table of the README is its output. */
#include <stdio.h>

#include "backend.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "fault_cell.h"

static void head(const char *first) {
    printf("| %s |", first);
    for (int c = 0; c < COL_count; c++)
        printf(" %s |", column_name((enum column)c));
    printf("\n|---|");
    for (int c = 0; c < COL_count; c++)
        printf(":---:|");
    putchar('\n');
}

/* A fault as column c has it, in whose cell it is. */
static void print_fault(enum fault f, enum column c) {
    const struct fault_info *i = fault_info(f);
    const enum column cell = fault_column(f, c);
    const struct fault_shown here = { i->options, i->hidden };
    const struct fault_shown *s = cell == COL_cuda ? fault_on_cuda(f) : &here;
    printf("%s\t%s\t%s\t%s\t%s\t%s@%s\t", i->name, i->thread, i->model, s->options, s->hidden,
           i->cell, column_name(cell));
    for (int k = 0, n = 0; k < COL_count; k++)
        if (fault_column(f, (enum column)k) != COL_none)
            printf("%s%s", n++ ? " " : "", column_name((enum column)k));
    printf("\t%s\n", i->what);
}

/* The faults of column c; COL_none: all, as avx2 has them if it does. */
static int list_faults(enum column c) {
    puts("fault\tthread\tmodel\toptions\thidden\tcell\tcolumns\twhat");
    for (int k = FAULT_none + 1; fault_info((enum fault)k); k++) {
        const enum fault f = (enum fault)k;
        const bool on_cpu = fault_column(f, COL_avx2) != COL_none;
        const enum column shown = c != COL_none ? c : on_cpu ? COL_avx2 : COL_cuda;
        if (fault_column(f, shown) != COL_none) print_fault(f, shown);
    }
    return EXIT_PASS;
}

/* Those that this machine can run; nothing if there are none. */
static void say_columns(const char *what, bool by_name_only) {
    int n = 0;
    for (int c = 0; c < COL_count; c++) {
        const enum column col = (enum column)c;
        if (!column_available(col)) continue;
        if ((column_is_cpu(col) && !column_goes_unasked(col)) != by_name_only) continue;
        fprintf(stderr, "%s %s", n++ ? "" : what, column_name(col));
    }
    if (n) fputc('\n', stderr);
}

int cmd_types(int argc, char **argv, struct err *e) {
    bool faults = false;
    const char *backend = NULL;
    const struct opt table[] = {
        OPT_IF_FAULTS({ OPT_FLAG, "--faults", NULL, &faults, 0, 0, NULL,
                        "the catalogue of seeded faults, tab-separated" })
            OPT_IF_FAULTS({ OPT_CHOICE, "--backend", "COLUMN", &backend, 0, 0,
                            "ref|" FAST_COLUMNS "|cuda",
                            "with --faults: those that the column has" }) OPT_END,
    };
    int rc = opt_parse(argc, argv, table, "types", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    if (faults) return list_faults(backend ? column_from_name(backend) : COL_none);

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
    say_columns("\nThis machine runs:", false);
    say_columns("Only by name:", true);
    return EXIT_PASS;
}
