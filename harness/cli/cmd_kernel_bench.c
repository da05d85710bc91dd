/* SPDX-License-Identifier: MIT
 * cmd_kernel_bench.c - every cell of the tables: checked against ref, then timed and compared with
 * what the machine can do. What a contributor of a new kernel runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/threads.h"
#include "cli/cmd.h"
#include "cli/list.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "exec/card.h"
#include "exec/nvml.h"
#include "measure/kernel_rows.h"
#include "measure/speed_rows.h"

struct kernel_cmd {
    struct {
        struct opt_list type, op, backend, n_tok, depth, threads;
    } text;
    const char *numa, *csv, *results;
    struct topology *topology; /* NULL without --numa */
    struct kcase_filter filter;
    struct int_list threads;
    struct kcheck_params p;
    struct ktime_params time;
    struct peaks peaks;
    struct run_rows rows;
    struct card card; /* of the cuda column */
    struct progress progress;
    int n, n_rows, n_head, n_head_kv, n_embd_head, n_ff, n_vocab, seed, cold_mib;
    bool list, time_them;
    int n_cases, n_done, n_failed, n_timed, n_skipped;
};

static int parse(struct kernel_cmd *c, int argc, char **argv, struct err *e) {
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "cells (lists are separated by commas)" },
        { OPT_LIST, "--type", "LIST", &c->text.type, 0, 0, NULL,
          "types of weights, activations and caches (default: all)" },
        { OPT_LIST, "--op", "LIST", &c->text.op, 0, 0, NULL,
          "mul_mat, packed (-rtr), dequant, quantize, attn, rms_norm, ... (default: all)" },
        { OPT_LIST, "--backend", "LIST", &c->text.backend, 0, 0, NULL,
          "columns (default: all but ref that this machine can run)" },
        { OPT_LIST, "--n-tok", "LIST", &c->text.n_tok, 0, 0, NULL,
          "tokens of a call (default: products 1,2,4,8,512, other ops 1,512)" },
        { OPT_LIST, "-d --depth", "LIST", &c->text.depth, 0, 0, NULL,
          "tokens already in the cache, for attention" },
        { OPT_LIST, "-t --threads", "LIST", &c->text.threads, 0, 0, NULL,
          "threads (0 = all processors)" },
        OPT_NUMA(c->numa),
        { OPT_FLAG, "--list", NULL, &c->list, 0, 0, NULL, "only list the cells that would run" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "shape (the default is Llama 3.1 8B)" },
        { OPT_INT, "--n", "N", &c->n, 32, 1 << 20, NULL, "row length of weights" },
        { OPT_INT, "--n-rows", "N", &c->n_rows, 1, 1 << 22, NULL, "rows of weights" },
        { OPT_INT, "--n-head", "N", &c->n_head, 1, 4096, NULL, "heads of attention" },
        { OPT_INT, "--n-head-kv", "N", &c->n_head_kv, 1, 4096, NULL, "heads of K and V" },
        { OPT_INT, "--n-embd-head", "N", &c->n_embd_head, 2, 4096, NULL, "head size" },
        { OPT_INT, "--n-ff", "N", &c->n_ff, 1, 1 << 22, NULL, "feed-forward length, for swiglu" },
        { OPT_INT, "--n-vocab", "N", &c->n_vocab, 1, 1 << 22, NULL, "logits, for lse" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "measuring" },
        { OPT_DOUBLE, "--seconds", "S", &c->time.seconds, 0, 3600, NULL,
          "for the samples of each cell, unless its interval is narrow earlier" },
        { OPT_INT, "--cold-mib", "N", &c->cold_mib, 0, 1 << 20, NULL,
          "memory that weights and caches rotate through (0 = twice the last cache, at most 1 "
          "GiB)" },
        { OPT_NO_FLAG, "--no-time", NULL, &c->time_them, 0, 0, NULL, "only check" },
        { OPT_DOUBLE, "--tolerance", "X", &c->p.tolerance, 0, 1e6, NULL,
          "multiply the promised errors by this; 0 accepts none" },
        { OPT_INT, "-s --seed", "N", &c->seed, 0, INT32_MAX, NULL, "seed of the data" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_STR, "--csv", "FILE", &c->csv, 0, 0, NULL, "append result rows to FILE" },
        { OPT_STR, "--results", "DIR", &c->results, 0, 0, NULL, "result rows in DIR/<run id>.csv" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "kernel-bench [options]", e);
}

/* ---- what is asked for ------------------------------------------------------------------------
 */

static int choose_types(struct kernel_cmd *c, struct err *e) {
    int rc = 0;
    struct str_list names;
    for (int t = 0; t < QT_count; t++)
        c->filter.type[t] = !c->text.type.text;
    if (!c->text.type.text) return 0;
    TRY(list_strs("--type", c->text.type.text, &names, e));
    for (int i = 0; i < names.n; i++) {
        enum qtype t = qtype_from_name(names.v[i]);
        FAIL_IF(t == QT_none, e, ERR_ARG, "--type: there is no type '%s'; see ggauge types",
                names.v[i]);
        c->filter.type[t] = true;
    }
out:
    return rc;
}

static int choose_columns(struct kernel_cmd *c, struct err *e) {
    int rc = 0;
    struct str_list names;
    for (int i = COL_ref + 1; column_is_cpu((enum column)i) && !c->text.backend.text; i++)
        c->filter.col[i] = column_available((enum column)i);
    if (!c->text.backend.text) return 0;
    TRY(list_strs("--backend", c->text.backend.text, &names, e));
    for (int i = 0; i < names.n; i++) {
        enum column col = column_from_name(names.v[i]);
        FAIL_IF(col == COL_none, e, ERR_ARG, "--backend: there is no column '%s'", names.v[i]);
        FAIL_IF(!column_available(col), e, ERR_UNSUPPORTED,
                "--backend: %s cannot run here: it needs %s, and this build or machine lacks it",
                names.v[i], column_needs(col));
        c->filter.col[col] = true;
    }
out:
    return rc;
}

static int choose_ops(struct kernel_cmd *c, struct str_list *names, struct err *e) {
    static const char *const kinds[] = {
#define X(kind, name) name,
        KCASE_LIST(X)
#undef X
    };
    int rc = 0;
    if (!c->text.op.text) return 0;
    TRY(list_strs("--op", c->text.op.text, names, e));
    for (int i = 0; i < names->n; i++) {
        bool known = false;
        for (size_t k = 0; k < N_ELEMS(kinds); k++)
            known |= !strcmp(names->v[i], kinds[k]);
        for (int o = 0; o < OP_count; o++)
            known |= !strcmp(names->v[i], op_name((enum op)o));
        FAIL_IF(!known, e, ERR_ARG,
                "--op: there is no op '%s'; see ggauge types, and dequant, quantize", names->v[i]);
    }
    c->filter.ops = names->v;
    c->filter.n_ops = names->n;
out:
    return rc;
}

static int choose_numbers(struct kernel_cmd *c, struct err *e) {
    int rc = 0;
    struct int_list l;
    TRY(list_ints("--n-tok", c->text.n_tok.text ? c->text.n_tok.text : "1,2,4,8,512", 1, 1 << 16,
                  &l, e));
    memcpy(c->filter.n_tok, l.v, sizeof l.v);
    c->filter.n_n_tok = l.n;
    TRY(list_ints("--n-tok", c->text.n_tok.text ? c->text.n_tok.text : "1,512", 1, 1 << 16, &l, e));
    memcpy(c->filter.op_n_tok, l.v, sizeof l.v);
    c->filter.n_op_n_tok = l.n;
    TRY(list_ints("--depth", c->text.depth.text, 0, 1 << 24, &l, e));
    memcpy(c->filter.n_kv, l.v, sizeof l.v);
    c->filter.n_n_kv = l.n;
    TRY(list_ints("--threads", c->text.threads.text, 0, THREADS_MAX, &c->threads, e));
    int most = 0;
    TRY(topology_new(&c->topology, c->numa, e));
    for (int i = 0; i < c->threads.n; i++) {
        if (c->threads.v[i] == 0) c->threads.v[i] = topology_n_cpus(c->topology);
        if (c->threads.v[i] > most) most = c->threads.v[i];
    }
    opt_warn_threads(most, 0);
    TRY(topology_pool(c->topology, &c->p.pool, most, e));
    FAIL_IF(c->n_head % c->n_head_kv, e, ERR_ARG, "%d heads cannot share %d kv heads evenly",
            c->n_head, c->n_head_kv);
    c->p.shape = (struct kshape){ c->n,         c->n_rows,      c->n_ff,   c->n_head,
                                  c->n_head_kv, c->n_embd_head, c->n_vocab };
    c->p.seed = (uint64_t)c->seed;
out:
    return rc;
}

/* Memory that counts as cold must be written once: pages that nobody wrote are all the same one. */
static int reserve_cold(struct kernel_cmd *c, struct err *e) {
    const size_t piece = (size_t)1 << 20;
    size_t n = c->cold_mib ? (size_t)c->cold_mib << 20 : peak_cold_bytes() / piece * piece;
    const size_t cache = peak_cache_bytes();
    c->p.cold = heap_alloc(n, e);
    if (!c->p.cold) return ERR_NOMEM;
    topology_place(c->topology, c->p.cold, n);
    memset(c->p.cold, 0x5a, n);
    c->p.cold_bytes = n;
    c->peaks.pool = c->p.pool;
    c->peaks.memory = c->p.cold;
    c->peaks.memory_bytes = n;
    if (n < 2 * cache)
        fprintf(stderr,
                "warning: weights rotate through %zu MiB, and the last cache holds %zu MiB: they "
                "are not cold\n",
                n >> 20, cache >> 20);
    return 0;
}

/* Others on the machine take from speeds and from peaks, but not the same from both. */
static void warn_of_load(void) {
    double load;
    const int n = threads_online();
    if (getloadavg(&load, 1) == 1 && load > 0.5 * n)
        fprintf(
            stderr,
            "warning: the machine is busy (load %.1f on %d processors); speeds and peaks will be "
            "too low\n",
            load, n);
}

/* ---- the table ----------------------------------------------------------------------------------
 */

static void print_head(void) {
    puts("| cell                       | tokens |  depth | threads |     us/call |   +/- % |    "
         "GB/s |"
         "  G MAC/s | roof % | bound |   NMSE |\n"
         "|----------------------------|-------:|-------:|--------:|------------:|--------:|-------"
         "-:|"
         "---------:|-------:|-------|-------:|");
}

static void print_cell(int width, int digits, double v) {
    if (v > 0)
        printf(" %*.*f |", width, digits, v);
    else
        printf(" %*s |", width, "");
}

static void print_row(const struct kernel_report *r) {
    printf("| %-26s |", r->name);
    if (r->work.n_tok > 0)
        printf(" %6d |", r->work.n_tok);
    else
        printf(" %6s |", "");
    if (r->c.kind == KCASE_OP && r->c.op == OP_attn)
        printf(" %6d |", r->c.n_kv);
    else
        printf(" %6s |", "");
    if (r->n_threads > 0)
        printf(" %7d |", r->n_threads);
    else
        printf(" %7s |", "");
    if (!r->check.passed) {
        printf(" FAIL: %s |\n", r->check.why);
        return;
    }
    if (!r->timed) {
        printf(" %11s | %7s | %7s | %8s | %6s | %5s | %6.0e |\n", "", "", "", "", "", "",
               r->check.nmse);
        return;
    }
    const struct speed_stat s = r->time.call_s;
    print_cell(11, 2, s.median * 1e6);
    print_cell(7, 1, 50 * (s.ci_high - s.ci_low) / s.median);
    print_cell(7, 2, kernel_gbs(r).median);
    print_cell(8, 1, r->work.macs > 0 ? kernel_gmacs(r).median : 0);
    print_cell(6, 1, kernel_roof(r).median);
    printf(" %-5s | %6.0e |\n",
           r->roof.seconds <= 0 ? ""
           : !r->roof.by_memory ? peak_name(r->work.peak)
                                : (r->work.cold_bytes > 0 ? "mem" : "cache"),
           r->check.nmse);
}

/* ---- running
 * --------------------------------------------------------------------------------------- */

static int measure(struct kernel_cmd *c, struct kernel_report *r, struct err *e) {
    int rc = 0;
    struct kcheck *k = NULL;
    TRY(kcheck_new(&k, &c->p, &r->c, e));
    TRY(kcheck_run(k, &r->check, e));
    kcheck_work(k, &r->work);
    r->timed = r->check.passed && c->time_them;
    if (r->timed) {
        struct nvml_use use = { 0 };
        if (r->card) nvml_begin(r->card->nvml);
        TRY(ktime_run(k, &c->time, &r->time, e));
        if (r->card) nvml_end(r->card->nvml, 0, &use);
        r->sm_mhz = nvml_facts_of(&use, 0).sm_mhz;
        /* Copies of weights lie where the peak is read: no matter, reading does not change them. */
        ktime_roof(&c->peaks, r->c.col, &r->work, r->n_threads, &r->roof);
    }
out:
    kcheck_free(k);
    return rc;
}

/* For kcase_each. */
static int on_case(void *arg, const struct kcase *kc, struct err *e) {
    int rc = 0;
    struct kernel_cmd *c = arg;
    const bool cpu = column_is_cpu(kc->col);
    for (int i = 0; i < (cpu ? c->threads.n : 1); i++) {
        struct kernel_report r = { .c = *kc,
                                   .n_threads = cpu ? c->threads.v[i] : 0,
                                   .card = cpu ? NULL : &c->card };
        c->p.n_threads = c->threads.v[i]; /* ref's, too */
        struct err why = { 0 };
        kcase_name(kc, r.name, sizeof r.name);
        rc = measure(c, &r, &why);
        progress_clear(&c->progress);
        if (rc == ERR_UNSUPPORTED) { /* the other cells go on */
            fprintf(stderr, "skipped: %s: %s\n", r.name, why.msg);
            c->n_skipped++, rc = 0;
            continue;
        }
        if (rc < 0) *e = why;
        TRY(rc);
        c->n_failed += !r.check.passed;
        c->n_timed += r.timed;
        print_row(&r);
        TRY(table_flush(stdout, "stdout", e));
        TRY(kernel_rows_put(&c->rows, &r, e));
        progress_update(&c->progress, ++c->n_done);
    }
out:
    return rc;
}

static int count_case(void *arg, const struct kcase *kc, struct err *e) {
    struct kernel_cmd *c = arg;
    char name[64];
    (void)e;
    kcase_name(kc, name, sizeof name);
    c->n_cases += column_is_cpu(kc->col) ? c->threads.n : 1;
    if (!c->list) return 0;
    const bool rows = kc->kind == KCASE_DEQUANT || kc->kind == KCASE_QUANTIZE;
    printf("%-10s %-*s", kcase_op(kc), rows ? 0 : 26, name);
    if (!rows) printf(" tokens %d", kc->n_tok);
    if (kc->kind == KCASE_OP && kc->op == OP_attn) printf(" depth %d", kc->n_kv);
    putchar('\n');
    return 0;
}

static void print_peaks(const struct kernel_cmd *c) {
    fputs("\npeaks of this machine, measured here:", stdout);
    for (int i = 0; i < c->peaks.n_known; i++) {
        const struct peak_value *v = &c->peaks.known[i];
        if (v->peak != PEAK_read)
            printf("\n  %s@%s: %.0f G MAC/s", peak_name(v->peak), column_name(v->col), v->value);
        else if (v->n_bytes > 0)
            printf("\n  reading %.4g MiB @%s: %.1f GB/s", (double)v->n_bytes / 0x1p20,
                   column_name(v->col), v->value);
        else
            printf("\n  copying @%s: %.1f GB/s", column_name(v->col), v->value);
        if (v->n_threads > 0) printf(", %d thread%s", v->n_threads, v->n_threads == 1 ? "" : "s");
    }
    putchar('\n');
}

static int run(struct kernel_cmd *c, struct err *e) {
    int rc = 0;
    char numa[96];
    TRY(kcase_each(&c->filter, count_case, c, e));
    FAIL_IF(c->n_cases == 0, e, ERR_ARG, "no cell passes these filters; see ggauge types");
    if (c->list) return 0;
    if (c->filter.col[COL_cuda]) TRY(card_open(&c->card, e));
    TRY(speed_rows_open(&c->rows, c->csv, c->results, e));
    TRY(reserve_cold(c, e));
    if (c->time_them) warn_of_load();
    TRY(kernel_rows_describe(&c->rows, &c->p, peak_cache_bytes(), &c->card, e));
    topology_describe(c->topology, numa, sizeof numa);
    if (numa[0]) TRY(row_set(&c->rows.base, ROW_placement, numa, e));
    print_head();
    progress_start(&c->progress, "cell", c->n_cases, 0);
    rc = kcase_each(&c->filter, on_case, c, e);
    progress_clear(&c->progress);
    TRY(rc);
    TRY(kernel_rows_peaks(&c->rows, &c->peaks, &c->card, e));
    if (c->n_timed) print_peaks(c);
    fprintf(stderr,
            "%d cells: %d passed, %d failed, %d skipped; weights and caches rotate through "
            "%zu MiB, activations are warm\n",
            c->n_done + c->n_skipped, c->n_done - c->n_failed, c->n_failed, c->n_skipped,
            c->p.cold_bytes >> 20);
    FAIL_IF(c->n_done == 0, e, ERR_UNSUPPORTED, "no cell takes these shapes: nothing was checked");
out:
    return rc;
}

int cmd_kernel_bench(int argc, char **argv, struct err *e) {
    const struct kshape shape = KSHAPE_DEFAULT;
    struct kernel_cmd c = {
        .text = { .depth.text = "512,4096", .threads.text = "0" },
        .time = KTIME_DEFAULT,
        .p = { .tolerance = 1 },
        .peaks = { .seconds = 0.25 },
        .time_them = true,
        .n = (int)shape.n,
        .n_rows = (int)shape.n_rows,
        .n_head = (int)shape.n_head,
        .n_head_kv = (int)shape.n_head_kv,
        .n_embd_head = (int)shape.n_embd_head,
        .n_ff = (int)shape.n_ff,
        .n_vocab = (int)shape.n_vocab,
        .seed = 1,
    };
    struct str_list ops;
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    row_init(&c.rows.base);
    TRY(choose_types(&c, e));
    TRY(choose_columns(&c, e));
    TRY(choose_ops(&c, &ops, e));
    TRY(choose_numbers(&c, e));
    TRY(run(&c, e));
out:
    card_close(&c.card);
    thread_pool_free(c.p.pool);
    topology_free(c.topology);
    heap_free(c.p.cold);
    int closed = run_rows_close(&c.rows, rc < 0 ? NULL : e);
    if (rc >= 0 && closed < 0) rc = closed;
    if (rc < 0) return rc;
    return c.n_failed ? EXIT_FAIL : EXIT_PASS;
}
