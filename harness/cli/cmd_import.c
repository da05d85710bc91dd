/* SPDX-License-Identifier: MIT
 * cmd_import.c - `ggauge import`: tables of llama-sweep-bench and llama-bench as result rows. What
 * cannot become a row is said on stderr with its line.
 *
 * A table says little of where it comes from, so what it does not say is given as options, and
 * nothing is taken from this machine: a run of another one must not look as if it were ours. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/text.h"
#include "measure/run_rows.h"
#include "measure/tool_text.h"

struct import {
    const char *file, *engine, *commit, *host, *cpu, *model, *csv, *results;
    int n_threads;
    struct run_rows rows;
    int64_t n_sweep, n_bench; /* speeds */
    int n_refused;            /* measurements, or halves of them */
};

static int parse(struct import *c, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        { OPT_STR, "-f --file", "FILE", &c->file, 0, 0, NULL,
          "what llama-sweep-bench or llama-bench has printed: table, CSV or JSON lines" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "what the table does not say" },
        { OPT_STR, "--engine", "NAME", &c->engine, 0, 0, NULL, "llama.cpp, ik_llama.cpp, ..." },
        { OPT_STR, "--engine-commit", "HASH", &c->commit, 0, 0, NULL, "its commit" },
        { OPT_STR, "--host", "NAME", &c->host, 0, 0, NULL, "where it ran" },
        { OPT_STR, "--cpu", "NAME", &c->cpu, 0, 0, NULL, "on what" },
        { OPT_STR, "--model-name", "NAME", &c->model, 0, 0, NULL, "of the model" },
        { OPT_INT, "-t --threads", "N", &c->n_threads, 0, 512, NULL,
          "its threads, where no column has them (0 = not known)" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "import -f FILE --csv FILE [options]", e);
}

static int describe(struct import *c, struct err *e) {
    int rc = 0;
    struct row here, *r = &c->rows.base;
    row_init(&here);
    static const enum row_field ours[] = { ROW_schema, ROW_run_id, ROW_time_utc, ROW_commit_id,
                                           ROW_dirty };
    TRY(provenance_fill(&here, e));
    for (size_t i = 0; i < N_ELEMS(ours); i++)
        TRY(row_set(r, ours[i], row_get(&here, ours[i]), e));
    TRY(row_set(r, ROW_engine, c->engine ? c->engine : "unknown", e));
    TRY(row_set(r, ROW_backend, c->engine ? c->engine : "unknown", e));
    TRY(row_set(r, ROW_placement, "imported", e));
    TRY(row_set(r, ROW_host, c->host, e));
    TRY(row_set(r, ROW_cpu, c->cpu, e));
out:
    row_release(&here);
    return rc;
}

static int put(struct import *c, const struct speed_text *s, enum metric tps, enum metric seconds,
               int n, double value, struct err *e) {
    int rc = 0;
    if (isnan(value)) return 0;
    TRY(run_rows_value(&c->rows, "run", tps, value, NULL, 0, e));
    TRY(run_rows_value(&c->rows, "run", seconds, n / value, NULL, 0, e));
    ++*(strcmp(s->test, "bench") ? &c->n_sweep : &c->n_bench);
out:
    return rc;
}

/* What the table says of the run, else what the options say; of model and commit, for which a table
 * has poorer names, the other way round. */
static int set_said(struct import *c, const struct speed_text *s, struct err *e) {
    int rc = 0;
    char n_threads[16] = "";
    struct row *r = &c->rows.base;
#define X(column, key, field) TRY(row_set(r, field, s->said[field], e));
    SPEED_SAID_LIST(X)
#undef X
    if (c->model) TRY(row_set(r, ROW_model, c->model, e));
    if (c->commit) TRY(row_set(r, ROW_engine_commit, c->commit, e));
    if (c->n_threads) snprintf(n_threads, sizeof n_threads, "%d", c->n_threads);
    if (!s->said[ROW_n_threads]) TRY(row_set(r, ROW_n_threads, n_threads, e));
out:
    return rc;
}

static int on_row(void *arg, const struct speed_text *s, struct err *e) {
    int rc = 0;
    struct import *c = arg;
    struct row *r = &c->rows.base;
    TRY(set_said(c, s, e));
    TRY(row_set(r, ROW_test, s->test, e));
    TRY(row_set_int(r, ROW_n_pp, s->n_pp, e));
    TRY(row_set_int(r, ROW_n_tg, s->n_tg, e));
    TRY(row_set_int(r, ROW_n_kv, s->n_kv, e));
    TRY(put(c, s, METRIC_pp_tps, METRIC_pp_s, s->n_pp, s->pp_tps, e));
    TRY(put(c, s, METRIC_tg_tps, METRIC_tg_s, s->n_tg, s->tg_tps, e));
    TRY(put(c, s, METRIC_eval_tps, METRIC_eval_s, s->n_pp + s->n_tg, s->eval_tps, e));
out:
    return rc;
}

static int ignore_row(void *arg, const struct speed_text *s, struct err *e) {
    (void)arg, (void)s, (void)e;
    return 0;
}

static void on_refused(void *arg, int64_t line, const char *why) {
    struct import *c = arg;
    c->n_refused++;
    fprintf(stderr, "warning: %s:%lld: not taken: %s\n", c->file, (long long)line, why);
}

static void print_summary(const struct import *c) {
    printf("%s:", c->file);
    if (c->n_sweep) printf(" %lld speeds of sweep-bench", (long long)c->n_sweep);
    if (c->n_bench) printf("%s %lld speeds of bench", c->n_sweep ? "," : "", (long long)c->n_bench);
    if (c->n_refused) printf(", %d not taken", c->n_refused);
    putchar('\n');
}

int cmd_import(int argc, char **argv, struct err *e) {
    struct import c = { 0 };
    struct text t = { 0 };
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    row_init(&c.rows.base);
    FAIL_IF(!c.file, e, ERR_ARG, "import needs a table: -f FILE");
    FAIL_IF(!c.csv && !c.results, e, ERR_ARG,
            "import needs a place for its rows: --csv or --results");
    TRY(text_read(&t, c.file, e));
    /* Once before files are made. */
    TRY(speed_text_read(t.data, t.n, c.file, ignore_row, on_refused, &c, e));
    TRY(describe(&c, e));
    if (c.csv) TRY(run_rows_open(&c.rows, c.csv, e));
    if (c.results) TRY(run_rows_open_in(&c.rows, c.results, e));
    TRY(speed_text_read(t.data, t.n, c.file, on_row, NULL, &c, e));
    print_summary(&c);
out:
    text_release(&t);
    int closed = run_rows_close(&c.rows, rc < 0 ? NULL : e);
    if (rc >= 0 && closed < 0) rc = closed;
    return rc < 0 ? rc : EXIT_PASS;
}
