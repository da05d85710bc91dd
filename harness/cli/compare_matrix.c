/* SPDX-License-Identifier: MIT
 * compare_matrix.c - `ggauge compare --matrix`: one arm's column over every shape that has hidden a
 * bug: micro-batches, contexts, cache types, CPU columns.
 *
 * For each context and cache type every column is compared with arm A at the micro-batch of the
 * command line. What the column answered there is remembered, and its other micro-batches must give
 * the same bits; that is the columns' noise floor, too. So must single tokens by repacked weights
 * (-rtr) give those of single tokens without, where this program has copies and they were not asked
 * for in all cells. A cell ends as soon as it is known. Rows of OUT/matrix.csv are on disk as they
 * come, and a second run goes on behind them, unless an arm is another program, which may have
 * changed.
 *
 * No architecture has experts yet: no axis for them. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arm/recording.h"
#include "backend.h"
#include "base/arena.h"
#include "base/lock.h"
#include "base/timer.h"
#include "cli/cmd.h"
#include "cli/compare_cmd.h"
#include "result/csv.h"

#define MAX_AXIS 24
#define UBATCH_CHUNKS 2 /* bits differ in the first chunk or never */

struct cell {
    int n_ctx, n_ubatch;
    const char *type_k, *type_v, *backend;
    bool rtr;
    bool done; /* without chunks: it does not apply */
    enum status status;
    int64_t n_chunks;
    double ln_ratio, radius, d_max, seconds;
    char reason[32], text[320];
};

struct matrix {
    struct compare_cmd *cmd;
    int ctx[MAX_AXIS], n_ctx;
    int ub[MAX_AXIS + 1], n_ub; /* ub[0]: the one that is compared with arm A */
    char kv[MAX_AXIS][16];
    int n_kv;
    const char *column[MAX_AXIS];
    int n_columns;
    bool rtr;           /* after a column's micro-batches comes -ub 1 -rtr */
    int n_row;          /* cells of a column */
    struct cell *cells; /* [n_ctx, n_kv, n_columns, n_row] */
    int n_cells, n_run;
    FILE *csv;
    char key[17]; /* of all that decides a cell and has no column */
};

/* ---- axes ------------------------------------------------------------------------------------ */

/* Cut "a,b,c" into words of at most n_word - 1 bytes. */
static int cut(const char *what, const char *list, char words[][16], int *n, struct err *e) {
    int rc = 0;
    *n = 0;
    for (const char *p = list; *p;) {
        size_t len = strcspn(p, ",");
        FAIL_IF(*n == MAX_AXIS || len == 0 || len > 15, e, ERR_ARG,
                "%s: expected up to %d words between commas, not '%s'", what, MAX_AXIS, list);
        memcpy(words[*n], p, len);
        words[(*n)++][len] = '\0';
        p += len;
        if (*p == ',') p++;
    }
    FAIL_IF(*n == 0, e, ERR_ARG, "%s: the list is empty", what);
out:
    return rc;
}

static int cut_numbers(const char *what, const char *list, int min, int max, int *out, int *n,
                       struct err *e) {
    int rc = 0;
    char words[MAX_AXIS][16];
    TRY(cut(what, list, words, n, e));
    for (int i = 0; i < *n; i++) {
        char *end;
        long v = strtol(words[i], &end, 10);
        FAIL_IF(*end || v < min || v > max, e, ERR_ARG, "%s: '%s' is not a number from %d to %d",
                what, words[i], min, max);
        out[i] = (int)v;
    }
out:
    return rc;
}

static int cut_columns(struct matrix *m, const char *list, struct err *e) {
    int rc = 0, n;
    char words[MAX_AXIS][16];
    if (!list) { /* all but ref */
        for (int c = COL_ref + 1; c < COL_count; c++)
            if (column_goes_unasked((enum column)c))
                m->column[m->n_columns++] = column_name((enum column)c);
        FAIL_IF(m->n_columns == 0, e, ERR_UNSUPPORTED, "this machine has no column beside ref");
        return 0;
    }
    TRY(cut("--matrix-backends", list, words, &n, e));
    for (int i = 0; i < n; i++) {
        enum column c = column_from_name(words[i]);
        FAIL_IF(c == COL_none, e, ERR_ARG, "--matrix-backends: '%s' is not a column", words[i]);
        m->column[m->n_columns++] = column_name(c);
    }
out:
    return rc;
}

static int axes(struct matrix *m, struct err *e) {
    int rc = 0, ub[MAX_AXIS], n;
    const struct compare_cmd *c = m->cmd;
    TRY(cut_numbers("--matrix-ub", c->matrix_ub, 1, 1 << 16, ub, &n, e));
    m->ub[m->n_ub++] = c->common.n_ubatch;
    for (int i = 0; i < n; i++)
        if (ub[i] != c->common.n_ubatch) m->ub[m->n_ub++] = ub[i];
    const struct arm_params *b = &c->spec[SIDE_B].params;
    for (int i = 0; i < m->n_ub && compare_arm_is_own(b) && !b->engine.rtr; i++)
        m->rtr = m->rtr || m->ub[i] == 1;
    m->n_row = m->n_ub + m->rtr;
    TRY(cut_numbers("--matrix-ctx", c->matrix_ctx, 3, 1 << 24, m->ctx, &m->n_ctx, e));
    TRY(cut("--matrix-kv", c->matrix_kv, m->kv, &m->n_kv, e));
    TRY(cut_columns(m, c->matrix_backends, e));
    m->n_cells = m->n_ctx * m->n_kv * m->n_columns * m->n_row;
    m->cells = heap_calloc((size_t)m->n_cells, sizeof *m->cells, e);
    if (!m->cells) rc = ERR_NOMEM;
out:
    return rc;
}

static struct cell *cell_at(const struct matrix *m, int ctx, int kv, int col, int ub) {
    return &m->cells[((ctx * m->n_kv + kv) * m->n_columns + col) * m->n_row + ub];
}

/* "q8_0" is both caches, "q8_0/f16" K and V. */
static int name_cells(struct matrix *m, struct err *e) {
    int rc = 0;
    static const char *const types[] = { "f32", "f16", "q8_0" };
    for (int k = 0; k < m->n_kv; k++) {
        char *slash = strchr(m->kv[k], '/');
        if (slash) *slash = '\0';
        const char *half[2] = { m->kv[k], slash ? slash + 1 : m->kv[k] }, *type[2] = { 0 };
        for (int h = 0; h < 2; h++)
            for (size_t t = 0; t < N_ELEMS(types); t++)
                if (!strcmp(half[h], types[t])) type[h] = types[t];
        FAIL_IF(!type[0] || !type[1], e, ERR_ARG,
                "--matrix-kv: '%s' is not f32, f16, q8_0 or two of them as K/V", m->kv[k]);
        for (int i = 0; i < m->n_ctx; i++)
            for (int j = 0; j < m->n_columns; j++)
                for (int u = 0; u < m->n_row; u++)
                    *cell_at(m, i, k, j, u) = (struct cell){ .n_ctx = m->ctx[i],
                                                             .n_ubatch = u < m->n_ub ? m->ub[u] : 1,
                                                             .type_k = type[0],
                                                             .type_v = type[1],
                                                             .backend = m->column[j],
                                                             .rtr = u == m->n_ub };
    }
out:
    return rc;
}

/* ---- matrix.csv ------------------------------------------------------------------------------ */

static const char header[] = "key,n_ctx,type_k,type_v,backend,n_ubatch,status,reason,chunks,"
                             "ln_ratio,radius,d_max,seconds,text";
enum {
    F_KEY,
    F_CTX,
    F_K,
    F_V,
    F_BACKEND,
    F_UB,
    F_STATUS,
    F_REASON,
    F_CHUNKS,
    F_RATIO,
    F_RADIUS,
    F_MAX,
    F_SECONDS,
    F_TEXT,
    F_COUNT
};

/* The column as an arm is written: "avx512 -rtr". */
static const char *column_text(const struct cell *c, char text[32]) {
    snprintf(text, 32, "%s%s", c->backend, c->rtr ? " -rtr" : "");
    return text;
}

static void take_record(struct matrix *m, const struct csv_reader *r) {
    if (strcmp(csv_field(r, F_KEY), m->key)) return;
    for (int i = 0; i < m->n_cells; i++) {
        struct cell *c = &m->cells[i];
        char column[32];
        if (atoi(csv_field(r, F_CTX)) != c->n_ctx || atoi(csv_field(r, F_UB)) != c->n_ubatch ||
            strcmp(csv_field(r, F_K), c->type_k) || strcmp(csv_field(r, F_V), c->type_v) ||
            strcmp(csv_field(r, F_BACKEND), column_text(c, column)))
            continue;
        for (int s = STATUS_PASS; s <= STATUS_MISTRUSTED; s++)
            if (!strcmp(csv_field(r, F_STATUS), status_name((enum status)s))) {
                c->status = (enum status)s;
                c->done = true;
            }
        c->n_chunks = atoll(csv_field(r, F_CHUNKS));
        c->ln_ratio = strtod(csv_field(r, F_RATIO), NULL);
        c->radius = strtod(csv_field(r, F_RADIUS), NULL);
        c->d_max = strtod(csv_field(r, F_MAX), NULL);
        c->seconds = strtod(csv_field(r, F_SECONDS), NULL);
        snprintf(c->reason, sizeof c->reason, "%s", csv_field(r, F_REASON));
        snprintf(c->text, sizeof c->text, "%s", csv_field(r, F_TEXT));
    }
}

/* Take the cells that the file holds; *end: where it goes on, 0 if there is no file. What cannot be
 * read is not cut off: only a last line that a killed run left unfinished is. */
static int read_csv(struct matrix *m, const char *path, int64_t *end, struct err *e) {
    int rc = 0;
    bool own = true; /* both arms are this program */
    struct csv_reader r = { .fd = -1 };
    *end = 0;
    if (access(path, F_OK) != 0) return 0;
    for (int s = 0; s < SIDE_count; s++)
        own = own && compare_arm_is_own(&m->cmd->spec[s].params);
    TRY(file_may_hold(path, header, "cells of a matrix of this version", e));
    TRY(csv_reader_open(&r, path, e));
    for (int64_t n = 0; (rc = csv_reader_next(&r, e)) == 1; n++, *end = r.end_offset) {
        FAIL_IF(r.n_fields != F_COUNT, e, ERR_FORMAT, "%s:%" PRId64 ": %d fields, expected %d",
                path, r.line, r.n_fields, F_COUNT);
        if (own && n) take_record(m, &r);
    }
out:
    csv_reader_release(&r);
    return rc;
}

/* Cells of an earlier run with the same program, model, text and settings are kept, and lines of
 * others stay. */
static int open_csv(struct matrix *m, struct err *e) {
    int rc = 0, known = 0;
    char path[4096];
    int64_t end;
    struct compare_cmd *c = m->cmd;
    if (!c->out) return 0;
    TRY(compare_files_folder(c, e));
    FAIL_IF(snprintf(path, sizeof path, "%s/matrix.csv", c->out) >= (int)sizeof path, e, ERR_ARG,
            "%s: the path is too long", c->out);
    TRY(read_csv(m, path, &end, e));
    m->csv = fopen(path, end ? "r+e" : "we");
    FAIL_IF(!m->csv || fseeko(m->csv, end, SEEK_SET) || ftruncate(fileno(m->csv), end), e, ERR_IO,
            "%s: %s", path, strerror(errno));
    if (!end) fprintf(m->csv, "%s\n", header);
    FAIL_IF(fflush(m->csv), e, ERR_IO, "%s: %s", path, strerror(errno));
    for (int i = 0; i < m->n_cells; i++)
        known += m->cells[i].done;
    if (known) fprintf(stderr, "compare: %s holds %d of %d cells\n", path, known, m->n_cells);
out:
    return rc;
}

static int write_cell(struct matrix *m, const struct cell *c, struct err *e) {
    int rc = 0;
    if (!m->csv) return 0;
    char text[2 * sizeof c->text], column[32];
    size_t n = 0;
    for (const char *p = c->text; *p; p++) { /* quotes are doubled */
        if (*p == '"') text[n++] = '"';
        text[n++] = *p;
    }
    text[n] = '\0';
    fprintf(m->csv, "%s,%d,%s,%s,%s,%d,%s,%s,%" PRId64 ",%.9g,%.9g,%.9g,%.3f,\"%s\"\n", m->key,
            c->n_ctx, c->type_k, c->type_v, column_text(c, column), c->n_ubatch,
            status_name(c->status), c->reason, c->n_chunks, c->ln_ratio, c->radius, c->d_max,
            c->seconds, text);
    FAIL_IF(fflush(m->csv), e, ERR_IO, "%s/matrix.csv: %s", m->cmd->out, strerror(errno));
out:
    return rc;
}

/* ---- running --------------------------------------------------------------------------------- */

static int show_chunk(void *arg, const struct compare_chunk *k, const struct compare *so_far,
                      struct err *e) {
    (void)k, (void)e;
    struct compare_cmd *c = arg;
    snprintf(c->progress.note, sizeof c->progress.note, "; chunk %" PRId64, so_far->n_chunks);
    return 0;
}

/* Compare a with b over `chunks` chunks and fill the cell. */
static int run_cell(struct matrix *m, struct cell *c, struct arm *a, struct arm *b, bool bitwise,
                    int64_t chunks, struct err *e) {
    int rc = 0;
    struct windows win;
    const struct compare_cmd *cmd = m->cmd;
    double t0 = timer_s();
    TRY(windows_plain(&win, cmd->ids.n, c->n_ctx, cmd->chunks, e));
    struct compare run = { .walk = { .arm = { a, b },
                                     .win = &win,
                                     .tokens = cmd->ids.id,
                                     .bos = cmd->run.walk.bos,
                                     .n = chunks < 0 || chunks > win.n ? win.n : chunks,
                                     .n_seq = b->info.n_seq },
                           .rel = { .same_weights = cmd->run.rel.same_weights,
                                    .bitwise = bitwise,
                                    .margin = cmd->margin,
                                    .alpha = cmd->alpha },
                           .seed = (uint64_t)cmd->seed,
                           .chunk = show_chunk,
                           .arg = m->cmd };
    rc = compare_run(&run, e);
    struct verdict v = run.verdict;
    if (rc == ERR_ARM) {
        v = (struct verdict){ .status = STATUS_FAIL, .reason = REASON_ARM };
        compare_arm_error(v.text, sizeof v.text, run.walk.failed, e->msg, run.n_chunks);
        rc = 0;
    }
    if (rc < 0) goto release;
    struct tail t = compare_tail(&run);
    if (v.status == STATUS_OPEN || v.status == STATUS_PASS) {
        struct verdict tail = verdict_tail(&run.rel, &t);
        if (tail.status == STATUS_FAIL) v = tail;
    }
    if (v.status == STATUS_OPEN && run.n_positions > 0 && run.n_different == 0)
        v.status = STATUS_PASS;
    if (v.status == STATUS_OPEN) v.status = STATUS_UNDECIDED;
    c->status = v.status;
    c->n_chunks = run.n_chunks;
    c->ln_ratio = run.d.mean;
    c->radius = confseq_radius(&run.d, cmd->alpha);
    c->d_max = t.max;
    c->seconds = timer_s() - t0;
    snprintf(c->reason, sizeof c->reason, "%s", reason_name(v.reason));
    snprintf(c->text, sizeof c->text, "%s", v.text);
    if (!c->done) rc = write_cell(m, c, e);
    c->done = true;
release:
    compare_release(&run);
out:
    return rc;
}

static int open_for(const struct matrix *m, int side, const struct cell *c, int n_ubatch,
                    struct arm **out, struct err *e) {
    const struct arm_spec *spec = m->cmd->spec;
    struct arm_params p = spec[side].params;
    const int n_batch = spec[SIDE_A].params.n_batch > spec[SIDE_B].params.n_batch
                            ? spec[SIDE_A].params.n_batch
                            : spec[SIDE_B].params.n_batch;
    p.n_ctx = c->n_ctx;
    p.n_seq = windows_n_seq(n_batch, c->n_ctx);
    if (p.n_seq > 16) p.n_seq = 16;
    if (p.n_batch > p.n_seq * c->n_ctx) p.n_batch = p.n_seq * c->n_ctx;
    p.n_ubatch = n_ubatch;
    p.type_k = c->type_k;
    p.type_v = c->type_v;
    if (side == SIDE_B) {
        p.backend = c->backend;
        if (c->rtr) p.engine.rtr = "on";
    }
    return arm_open(out, &p, e);
}

/* Single tokens by repacked weights against single tokens: c[0] is the cell of the column's first
 * micro-batch. */
static int run_repacked(struct matrix *m, struct cell *c, int64_t chunks, struct err *e) {
    int rc = 0;
    struct arm *plain = NULL, *packed = NULL;
    struct cell *to = &c[m->n_ub];
    rc = open_for(m, SIDE_B, to, 1, &packed, e);
    if (rc == ERR_NOMEM) { /* nobody asked for copies */
        fprintf(stderr, "note: %s -rtr is left out: %s\n", to->backend, e ? e->msg : "");
        return 0;
    }
    TRY(rc);
    if (packed->info.repacked_bytes == 0) {
        to->done = true;
        to->status = STATUS_PASS;
        snprintf(to->text, sizeof to->text, "no weights to repack");
        rc = write_cell(m, to, e);
        goto out;
    }
    TRY(open_for(m, SIDE_B, &c[0], 1, &plain, e));
    TRY(run_cell(m, to, plain, packed, true, chunks, e));
out:
    arm_close(plain);
    arm_close(packed);
    return rc;
}

/* One column at one context and cache type: all its cells. *a is opened if it is needed. */
static int run_column(struct matrix *m, struct cell *c, struct arm **a, struct err *e) {
    int rc = 0;
    struct arm *b = NULL, *base = NULL, *other = NULL;
    bool all = true;
    for (int u = 0; u < m->n_row; u++)
        all = all && (c[u].done || c[u].n_ubatch > c->n_ctx);
    if (all) return 0;
    if (!*a) TRY(open_for(m, SIDE_A, c, m->cmd->spec[SIDE_A].params.n_ubatch, a, e));
    TRY(open_for(m, SIDE_B, c, m->ub[0], &b, e));
    TRY(arm_open_recording(&base, b, e));
    if (!c[0].done) {
        bool same = !strcmp((*a)->info.backend, b->info.backend) && m->cmd->run.rel.bitwise;
        TRY(run_cell(m, &c[0], *a, base, same, m->cmd->chunks, e));
    } else { /* known, but its rows are not */
        struct cell again = c[0];
        TRY(run_cell(m, &again, *a, base, false, UBATCH_CHUNKS, e));
    }
    int64_t chunks = c[0].n_chunks < UBATCH_CHUNKS ? c[0].n_chunks : UBATCH_CHUNKS;
    progress_update(&m->cmd->progress, ++m->n_run);
    recording_detach(base);
    arm_close(b);
    b = NULL;
    for (int u = 1; u < m->n_ub; u++, progress_update(&m->cmd->progress, ++m->n_run)) {
        if (c[u].done || m->ub[u] > c->n_ctx || chunks == 0) continue;
        TRY(open_for(m, SIDE_B, c, m->ub[u], &other, e));
        TRY(run_cell(m, &c[u], base, other, other->info.promise == ARM_BITWISE, chunks, e));
        arm_close(other);
        other = NULL;
    }
    if (m->rtr && !c[m->n_ub].done && chunks > 0) TRY(run_repacked(m, c, chunks, e));
    if (m->rtr) progress_update(&m->cmd->progress, ++m->n_run);
out:
    arm_close(base);
    arm_close(b);
    arm_close(other);
    return rc;
}

/* An arm that is gone is the verdict of the column's first cell. */
static int note_arm(struct matrix *m, struct cell *c, int rc, struct err *e) {
    if (rc != ERR_ARM) return rc;
    c->status = STATUS_FAIL;
    snprintf(c->reason, sizeof c->reason, "%s", reason_name(REASON_ARM));
    snprintf(c->text, sizeof c->text, "%.300s", e->msg);
    if (!c->done && (rc = write_cell(m, c, e)) < 0) return rc;
    c->done = true;
    return 0;
}

static int run_all(struct matrix *m, struct err *e) {
    int rc = 0;
    struct arm *a = NULL;
    for (int i = 0; i < m->n_ctx; i++) {
        if (m->cmd->ids.n < 2 * (int64_t)m->ctx[i]) {
            fprintf(stderr, "note: the text has %" PRId64 " tokens, too few for -c %d\n",
                    m->cmd->ids.n, m->ctx[i]);
            continue;
        }
        for (int k = 0; k < m->n_kv; k++) {
            for (int j = 0; j < m->n_columns; j++) {
                struct cell *c = cell_at(m, i, k, j, 0);
                TRY(note_arm(m, c, run_column(m, c, &a, e), e));
            }
            arm_close(a);
            a = NULL;
        }
    }
out:
    arm_close(a);
    return rc;
}

/* ---- the table ------------------------------------------------------------------------------- */

static void print_entry(const struct cell *c, bool base) {
    char text[32];
    if (!c->done || (c->status == STATUS_PASS && c->n_chunks == 0))
        snprintf(text, sizeof text, "-");
    else if (c->status == STATUS_FAIL || c->status == STATUS_MISTRUSTED)
        snprintf(text, sizeof text, "%s", status_name(c->status));
    else if (base)
        snprintf(text, sizeof text, "%s %+.1e", c->status == STATUS_PASS ? "ok" : "??",
                 c->ln_ratio);
    else
        snprintf(text, sizeof text, "%s", c->status == STATUS_PASS ? "=" : "??");
    printf(base ? " %14s" : " %9s", text);
}

static void print_table(const struct matrix *m) {
    printf("%6s %-10s %-8s %11s %d", "ctx", "cache", "backend", "ub", m->ub[0]);
    for (int u = 1; u < m->n_ub; u++)
        printf(" %9d", m->ub[u]);
    if (m->rtr) printf(" %9s", "1 -rtr");
    putchar('\n');
    for (int i = 0; i < m->n_cells; i += m->n_row) {
        const struct cell *c = &m->cells[i];
        char kv[32];
        snprintf(kv, sizeof kv, "%s/%s", c->type_k, c->type_v);
        printf("%6d %-10s %-8s", c->n_ctx, kv, c->backend);
        for (int u = 0; u < m->n_row; u++)
            print_entry(&c[u], u == 0);
        putchar('\n');
    }
    puts(
        "ok: ln(PPL_B/PPL_A) against arm A inside of the margin; ??: undecided; =: the bits of the "
        "first micro-batch, of 1 with -rtr; -: does not apply");
    for (int i = 0; i < m->n_cells; i++) {
        const struct cell *c = &m->cells[i];
        if (c->done && (c->status == STATUS_FAIL || c->status == STATUS_MISTRUSTED))
            printf("%s (%s): -c %d -ctk %s -ctv %s %s -ub %d%s: %s\n", status_name(c->status),
                   c->reason, c->n_ctx, c->type_k, c->type_v, c->backend, c->n_ubatch,
                   c->rtr ? " -rtr" : "", c->text);
    }
}

static int matrix_verdict(const struct matrix *m) {
    bool failed = false, open = false, any = false;
    for (int i = 0; i < m->n_cells; i++) {
        if (!m->cells[i].done) continue;
        any = true;
        failed = failed || m->cells[i].status == STATUS_FAIL;
        open = open || m->cells[i].status != STATUS_PASS;
    }
    open = open || !any; /* all contexts are longer than the text */
    printf("verdict           %s\n", failed ? "FAIL" : open ? "UNDECIDED" : "PASS");
    return failed ? EXIT_FAIL : open ? EXIT_UNDECIDED : EXIT_PASS;
}

/* What decides a cell beside its own columns. */
static int make_key(struct matrix *m, struct err *e) {
    int rc = 0;
    char all[8192], floor[17], name[512];
    const struct compare_cmd *c = m->cmd;
    TRY(floor_key(floor, c->arm[SIDE_B], &c->spec[SIDE_B].params, &c->run.walk, e));
    compare_arm_name(c, SIDE_A, name, sizeof name);
    int n =
        snprintf(all, sizeof all, "%s|%s|%d|%s|%s|%s|%s|%s|%d|%g|%g|%d", floor, name,
                 c->spec[SIDE_A].params.n_batch, c->spec_text[SIDE_A], c->spec_text[SIDE_B],
                 row_get(&c->what[SIDE_A], ROW_model_fp), row_get(&c->what[SIDE_B], ROW_model_fp),
                 c->words.fingerprint, c->chunks, c->margin, c->alpha, c->seed);
    fingerprint_bytes(all, (size_t)n < sizeof all ? (size_t)n : sizeof all, m->key);
out:
    return rc;
}

int compare_matrix(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    struct matrix m = { .cmd = c };
    TRY(axes(&m, e));
    TRY(name_cells(&m, e));
    TRY(make_key(&m, e));
    TRY(open_csv(&m, e));
    progress_start(&c->progress, "cell", m.n_cells, 0);
    rc = run_all(&m, e);
    progress_clear(&c->progress);
    TRY(rc);
    print_table(&m);
    rc = matrix_verdict(&m);
out:
    if (m.csv && fclose(m.csv) && rc >= 0)
        rc = ERR(e, ERR_IO, "%s/matrix.csv: %s", c->out, strerror(errno));
    heap_free(m.cells);
    return rc;
}
