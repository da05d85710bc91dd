/* SPDX-License-Identifier: MIT
 * cmd_limits.c - ggauge limits: the distribution of every cell's error against ref on real
 * activations, and the limit that follows from it, as CSV. `make limits` runs it on the models at
 * hand and writes harness/measure/limits_table.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/text.h"
#include "exec/card.h"
#include "measure/limit_run.h"
#include "measure/retype.h"
#include "model/model.h"
#include "result/row.h"
#include "tok/tok.h"

struct limits {
    const char *models, *text, *backend, *out;
    int n_ctx, chunks, copy_chunks, n_threads;
    struct text t;
    struct limit_run run;
    int n_models, n_windows;
    bool retype;
};

/* Cache types take turns, so that attention is seen with each. */
static const char *const cache_types[] = { "f16", "q8_0", "f32" };

static int run_windows(struct limits *l, const char *model, const struct tok *tok, int chunks,
                       struct err *e) {
    int rc = 0;
    struct tok_ids ids = { 0 };
    TRY(tok_encode(tok, l->t.data, l->t.n, true, false, &ids, e));
    FAIL_IF(ids.n < (int64_t)chunks * l->n_ctx + 1, e, ERR_ARG,
            "%s: %" PRId64 " tokens, %d windows of %d need more", l->text, ids.n, chunks, l->n_ctx);
    for (int c = COL_avx2; c < COL_count; c++) {
        if (l->backend ? column_from_name(l->backend) != (enum column)c
                       : !column_is_cpu((enum column)c) || !column_available((enum column)c))
            continue;
        for (int w = 0; w < chunks; w++) {
            const char *kv = cache_types[w % (int)N_ELEMS(cache_types)];
            fprintf(stderr, "%s: %s, cache %s, window %d\n", model, column_name((enum column)c), kv,
                    w + 1);
            TRY(limit_run_add(&l->run, model, (enum column)c, kv, ids.id + (int64_t)w * l->n_ctx,
                              l->n_ctx, l->n_threads, e));
            l->n_windows++;
        }
    }
out:
    tok_ids_free(&ids);
    return rc;
}

/* The model once more in each type that no model may be at hand for. */
static int run_retyped(struct limits *l, const struct gguf *g, const struct tok *tok,
                       struct err *e) {
    int rc = 0;
    char path[] = "/tmp/ggauge-limits-XXXXXX";
    int fd = mkstemp(path);
    FAIL_IF(fd < 0, e, ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    close(fd);
    for (int t = 0; t < QT_count; t++) {
        if (!retype_knows((enum qtype)t)) continue;
        fprintf(stderr, "%s: as %s\n", gguf_path(g), qtype_info((enum qtype)t)->name);
        TRY(retype_model(g, (enum qtype)t, path, e));
        TRY(run_windows(l, path, tok, l->copy_chunks > 0 ? l->copy_chunks : l->chunks, e));
        l->n_models++;
    }
out:
    if (fd >= 0) unlink(path);
    return rc;
}

/* A model that this build does not run yet is left out, with a word. */
static int run_model(struct limits *l, const char *path, struct err *e) {
    int rc = 0;
    struct model m;
    struct tok *tok = NULL;
    rc = model_open(&m, path, e);
    if (rc == ERR_UNSUPPORTED) {
        fprintf(stderr, "left out: %s\n", e->msg);
        *e = (struct err){ 0 };
        return 0;
    }
    if (rc < 0) return rc;
    TRY(tok_load(&tok, m.g, e));
    TRY(run_windows(l, path, tok, l->chunks, e));
    l->n_models++;
    if (m.main_type == QT_f16 && l->retype) {
        TRY(run_retyped(l, m.g, tok, e));
        l->retype = false; /* one model is enough */
    }
out:
    tok_free(tok);
    model_close(&m);
    return rc;
}

static int run_models(struct limits *l, struct err *e) {
    int rc = 0;
    char path[4096];
    for (const char *p = l->models; *p;) {
        size_t n = strcspn(p, ",");
        FAIL_IF(n == 0 || n >= sizeof path, e, ERR_ARG, "--models: an empty or overlong name");
        memcpy(path, p, n);
        path[n] = '\0';
        TRY(run_model(l, path, e));
        p += n + (p[n] == ',');
    }
out:
    return rc;
}

static const char limits_header[] =
    "cell,n,p50,p99,p99.9,max_rel,max_row_nmse,multiple,multiple_nmse,limit_max_rel,"
    "limit_row_nmse,models,windows,n_ctx,text_fp,cpu,commit,gpu,driver\n";

static int write_csv(const struct limits *l, const struct row *run, struct err *e) {
    int rc = 0;
    struct card card = { .gpu = "" };
    if (l->backend && column_from_name(l->backend) == COL_cuda) TRY(card_open(&card, e));
    FILE *f = l->out ? fopen(l->out, "w") : stdout;
    FAIL_IF(!f, e, ERR_IO, "%s: cannot create: %s", l->out, strerror(errno));
    fputs(limits_header, f);
    for (int i = 0; i < l->run.n; i++) {
        const struct limit_cell *c = &l->run.cells[i];
        const char *at = strrchr(c->cell, '@');
        const bool device = at && column_from_name(at + 1) == COL_cuda;
        struct op_limit limit = limit_from(c->max_rel, c->row_nmse);
        fprintf(f,
                "%s,%" PRId64 ",%.3g,%.3g,%.3g,%.9g,%.9g,%g,%g,%.2g,%.2g,%d,%d,%d,%s,%s,%.12s,%s,"
                "\"%s\"\n",
                c->cell, c->n, limit_quantile(c, 0.5), limit_quantile(c, 0.99),
                limit_quantile(c, 0.999), c->max_rel, c->row_nmse, LIMIT_MULTIPLE,
                LIMIT_MULTIPLE_NMSE, limit.max_rel, limit.row_nmse, l->n_models, l->n_windows,
                l->n_ctx, l->t.fingerprint, row_get(run, ROW_cpu), provenance_commit(),
                device ? card.gpu : "", device ? card.driver : "");
    }
    bool bad = ferror(f) != 0;
    if (l->out) bad |= fclose(f) != 0;
    FAIL_IF(bad, e, ERR_IO, "%s: cannot write: %s", l->out ? l->out : "stdout", strerror(errno));
out:
    card_close(&card);
    return rc;
}

static int check_finite(const struct limits *l, struct err *e) {
    int rc = 0;
    for (int i = 0; i < l->run.n; i++)
        FAIL_IF(l->run.cells[i].n_bad > 0, e, ERR_NONFINITE,
                "%s: NaN or infinity out of finite numbers: a fault, and no limit",
                l->run.cells[i].cell);
out:
    return rc;
}

int cmd_limits(int argc, char **argv, struct err *e) {
    struct limits l = { .n_ctx = 512, .chunks = 3, .retype = true };
    const struct opt table[] = {
        { OPT_STR, "--models", "LIST", &l.models, 0, 0, NULL, "GGUF files, separated by commas" },
        { OPT_STR, "-f --file", "TEXT", &l.text, 0, 0, NULL, "text whose windows are evaluated" },
        { OPT_INT, "-c --ctx-size", "N", &l.n_ctx, 2, 1 << 16, NULL, "tokens of a window" },
        { OPT_INT, "--chunks", "N", &l.chunks, 1, 1 << 16, NULL,
          "windows of each model and column; their caches are f16, q8_0 and f32 in turn" },
        { OPT_INT, "--copy-chunks", "N", &l.copy_chunks, 0, 1 << 16, NULL,
          "windows of each copy in a simple type, whose products alone are new (0 = --chunks)" },
        { OPT_CHOICE, "--backend", "COLUMN", &l.backend, 0, 0, FAST_COLUMNS "|cuda",
          "one column (default: every CPU column of this machine)" },
        { OPT_NO_FLAG, "--no-retype", NULL, &l.retype, 0, 0, NULL,
          "leave out the first f16 model's copies in simple types (f32, bf16, q4_1, ...)" },
        { OPT_INT, "-t --threads", "N", &l.n_threads, 0, 512, NULL,
          "threads (0 = all processors)" },
        { OPT_STR, "-o --output", "CSV", &l.out, 0, 0, NULL, "file to write instead of stdout" },
        OPT_END,
    };
    int rc = opt_parse(argc, argv, table, "limits --models LIST -f TEXT [options]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    struct row run;
    row_init(&run);
    FAIL_IF(!l.models || !l.text, e, ERR_ARG, "limits needs --models LIST and -f TEXT");
    if (l.out) TRY(file_may_hold(l.out, limits_header, "limits", e));
    TRY(provenance_fill(&run, e));
    TRY(text_load(&l.t, l.text, false, e));
    TRY(run_models(&l, e));
    TRY(check_finite(&l, e));
    FAIL_IF(l.run.n == 0, e, ERR_UNSUPPORTED, "no model and column of these can be measured");
    TRY(write_csv(&l, &run, e));
out:
    row_release(&run);
    text_release(&l.t);
    limit_run_release(&l.run);
    return rc;
}
