/* SPDX-License-Identifier: MIT
 * cmd_replay.c - ggauge replay: the op of a capsule once more on a column of this machine, its
 * error against its limit, and whether it gives what an arm gave, bit for bit. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "fault_cell.h"
#include "measure/replay_op.h"

static void print_source(const struct capsule *k, int s) {
    const struct tensor *t = &k->c.src[s];
    if (!t->data) return;
    printf("  source %d   %s [%" PRId64 " x %" PRId64 "]\n", s,
           qtype_info((enum qtype)t->type)->name, t->ne[1], t->ne[0]);
}

static void print_capsule(const struct capsule *k, const char *path) {
    printf("%s: node %s, occurrence %d, op %s\n", path, k->c.name, k->c.occurrence,
           op_name(k->c.op));
    printf("  found      %s; arms %s (error %.3g, limit %.3g) and %s (error %.3g, limit %.3g)\n",
           k->finding, k->cell_a, k->err_a, k->limit_a.max_rel, k->cell_b, k->err_b,
           k->limit_b.max_rel);
    printf("  model      %s, fingerprint %s; recorded by commit %.12s\n", k->model, k->model_fp,
           k->commit);
    printf("  holds      %" PRId64 " rows, columns %" PRId64 " to %" PRId64 " of %" PRId64 "\n",
           k->c.n_tok, k->col0, k->col0 + k->c.n_cols - 1, k->n_cols_all);
    for (int s = 0; s < OP_MAX_SRC; s++)
        print_source(k, s);
}

static void print_recorded(const char *arm, const char *cell, int64_t n_differ, double diff) {
    if (n_differ < 0)
        printf("  arm %s      has no recorded result\n", arm);
    else if (n_differ == 0)
        printf("  arm %s      (%s) reproduced bit for bit\n", arm, cell);
    else
        printf("  arm %s      (%s) not reproduced: %" PRId64 " elements differ, by %.3g of a row's "
               "rms at most\n",
               arm, cell, n_differ, diff);
}

static void print_result(const struct capsule *k, const struct replay *r) {
    const struct op_error *s = &r->error;
    printf("%s: error %.3g of a row's rms (limit %.3g%s), worst row's NMSE %.3g (limit %.3g)\n",
           r->cell, s->max_rel, r->limit.max_rel, r->limit.measured ? "" : ", not measured",
           s->row_nmse, r->limit.row_nmse);
    if (s->bad_row >= 0)
        printf("  not finite at position %" PRId64 ", column %" PRId64 "\n", s->bad_row,
               k->col0 + s->bad_col);
    else if (s->row >= 0)
        printf("  worst at   position %" PRId64 ", column %" PRId64 "\n", s->row, k->col0 + s->col);
    print_recorded("A", k->cell_a, r->n_differ_a, r->diff_a);
    print_recorded("B", k->cell_b, r->n_differ_b, r->diff_b);
    printf("%s\n", r->within ? "within its limit" : "OUTSIDE OF ITS LIMIT");
}

/* The column that is asked for, else arm B's, else the best one. */
static int choose_column(const char *asked, const struct capsule *k, enum column *c,
                         struct err *e) {
    int rc = 0;
    *c = column_from_name(asked ? asked : k->backend_b);
    if (!asked && (*c == COL_none || !column_available(*c))) *c = column_best_cpu();
    FAIL_IF(*c == COL_none, e, ERR_ARG, "'%s' is not a backend", asked);
    FAIL_IF(!column_available(*c), e, ERR_UNSUPPORTED,
            "backend %s cannot run here: it needs %s, and this build or machine lacks it",
            column_name(*c), column_needs(*c));
out:
    return rc;
}

int cmd_replay(int argc, char **argv, struct err *e) {
    const char *path = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
    const char *backend = NULL, *fault = NULL;
    int n_threads = 0;
    const struct opt table[] = {
        { OPT_CHOICE, "--backend", "COLUMN", &backend, 0, 0, "ref|" FAST_COLUMNS "|cuda",
          "kernels to use (default: arm B's column, else the best one of this machine)" },
        OPT_IF_FAULTS({ OPT_STR, "--fault", "NAME", &fault, 0, 0, NULL,
                        "seeded fault of the column; see ggauge types --faults" }){
            OPT_INT, "-t --threads", "N", &n_threads, 0, 512, NULL,
            "threads (0 = all processors)" },
        OPT_END,
    };
    int skip = path ? 1 : 0;
    int rc =
        opt_parse(argc - skip, argv + skip, table, "replay CAPSULE [--backend COLUMN] [-t N]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    struct capsule *k = NULL;
    struct replay r;
    enum column c;
    enum fault seeded;
    FAIL_IF(!path, e, ERR_ARG, "replay needs a capsule: ggauge replay CAPSULE [options]");
    TRY(capsule_open(&k, path, e));
    TRY(choose_column(backend, k, &c, e));
    print_capsule(k, path);
    TRY(fault_choose(fault, c, &seeded, e));
    TRY(replay_op(k, c, n_threads, seeded, &r, e));
    print_result(k, &r);
    rc = r.within ? EXIT_PASS : EXIT_FAIL;
out:
    capsule_free(k);
    return rc;
}
