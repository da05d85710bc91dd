/* SPDX-License-Identifier: MIT
 * ppl_rows.c - rows of a perplexity run; see ppl_rows.h. */
#include "measure/ppl_rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "measure/speed.h"

/* ---- writing --------------------------------------------------------------------------------- */

int ppl_rows_open(struct ppl_rows *rows, const char *path, const struct ppl_known *there,
                  struct err *e) {
    int rc = 0, i = rows->run.n_out;
    TRY(run_rows_open(&rows->run, path, e));
    rows->from[i] = there ? there->n : 0;
    rows->partial[i] = there ? there->partial : 0;
out:
    return rc;
}

/* The files that lack the k-th row of a chunk. */
static unsigned files_without(const struct ppl_rows *rows, int64_t chunk, int k) {
    unsigned files = 0;
    for (int i = 0; i < rows->run.n_out; i++) {
        bool there = chunk < rows->from[i];
        if (chunk == rows->from[i]) there = rows->partial[i] >> k & 1;
        files |= (unsigned)!there << i;
    }
    return files;
}

int ppl_rows_chunk(struct ppl_rows *rows, int64_t i, const struct ppl_chunk *c,
                   const struct ppl_stats *running, struct err *e) {
    int rc = 0;
    char subject[32];
    snprintf(subject, sizeof subject, "chunk %" PRId64, i + 1);
    double ppl = ppl_stats_ppl(running), half = 1.96 * ppl_stats_se_token(running);
    const struct interval ci = { ppl - half, ppl + half };
    const struct {
        enum metric m;
        double value;
        const struct interval *ci;
        int64_t n_rep;
    } v[] = {
        /* the order of the bits in on_row */
        { METRIC_nll_sum, c->nll_sum, NULL, c->n_scored },
        { METRIC_nll_sq_sum, c->nll_sq_sum, NULL, c->n_scored },
        { METRIC_n_scored, (double)c->n_scored, NULL, 0 },
        { METRIC_ppl_running, ppl, &ci, running->n_tokens },
    };
    for (int k = 0; k < (int)N_ELEMS(v); k++)
        TRY(run_rows_put(&rows->run, files_without(rows, i, k), subject, v[k].m, v[k].value,
                         v[k].ci, v[k].n_rep, "PASS", e));
out:
    return rc;
}

int ppl_rows_estimate(struct ppl_rows *rows, const struct ppl_stats *s, struct err *e) {
    int rc = 0;
    struct run_rows *r = &rows->run;
    struct interval ci = ppl_stats_interval95(s);
    double se_token = ppl_stats_se_token(s), se_chunk = ppl_stats_se_chunk(s);
    TRY(run_rows_value(r, "run", METRIC_ppl, ppl_stats_ppl(s), &ci, s->n_chunks, e));
    if (isfinite(se_token))
        TRY(run_rows_value(r, "run", METRIC_ppl_se_token, se_token, NULL, s->n_tokens, e));
    if (isfinite(se_chunk))
        TRY(run_rows_value(r, "run", METRIC_ppl_se_chunk, se_chunk, NULL, s->n_chunks, e));
out:
    return rc;
}

int ppl_rows_cost(struct ppl_rows *rows, const struct arm_info *info, int64_t n_tokens,
                  double seconds, struct err *e) {
    int rc = 0;
    struct run_rows *r = &rows->run;
    if (n_tokens > 0 && seconds > 0) {
        double tps = (double)n_tokens / seconds;
        TRY(run_rows_value(r, "run", METRIC_eval_s, seconds, NULL, 0, e));
        TRY(run_rows_value(r, "run", METRIC_eval_tps, tps, NULL, 0, e));
    }
    TRY(run_rows_value(r, "run", METRIC_model_bytes, (double)info->model_bytes, NULL, 0, e));
    TRY(run_rows_value(r, "run", METRIC_bpw, info->bpw, NULL, 0, e));
    TRY(run_rows_value(r, "run", METRIC_rss_bytes, (double)speed_rss_bytes(), NULL, 0, e));
out:
    return rc;
}

int ppl_rows_nonfinite(struct ppl_rows *rows, int64_t i, struct err *e) {
    char subject[32];
    snprintf(subject, sizeof subject, "chunk %" PRId64, i + 1);
    return run_rows_put(&rows->run, RUN_ROWS_ALL, subject, METRIC_nll_sum, (double)NAN, NULL, 0,
                        "FAIL NONFINITE", e);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Whatever can change a digit of a chunk. */
static const enum row_field must_agree[] = {
    ROW_test,          ROW_model_fp,  ROW_text_fp, ROW_n_ctx,     ROW_settings, ROW_backend,
    ROW_type_k,        ROW_type_v,    ROW_n_batch, ROW_n_ubatch,  ROW_cells,    ROW_engine,
    ROW_engine_commit, ROW_commit_id, ROW_dirty,   ROW_placement,
};

/* A chunk while its rows come in: one bit for each of the four metrics. */
struct partial {
    struct ppl_chunk c;
    unsigned have;
};

struct reading {
    const struct row *like;
    const char *path;
    struct partial *chunk;
    int64_t n, cap;
    struct err mismatch; /* of the last chunk row that is another run's */
    bool any;            /* a chunk row of a run like ours was seen */
    bool finished;
    char run_id[128], time_utc[32];
};

/* The first field in which r is another run than `like`, or ROW_field_count. */
static enum row_field first_difference(const struct row *r, const struct row *like) {
    for (size_t i = 0; i < N_ELEMS(must_agree); i++)
        if (strcmp(row_get(r, must_agree[i]), row_get(like, must_agree[i]))) return must_agree[i];
    return ROW_field_count;
}

/* "chunk 17" is 16; -1 for every other subject. */
static int64_t chunk_index(const char *subject) {
    if (strncmp(subject, "chunk ", 6)) return -1;
    char *end;
    long long i = strtoll(subject + 6, &end, 10);
    return *end || i < 1 || i > INT32_MAX ? -1 : i - 1;
}

static int grow(struct reading *rd, int64_t n, struct err *e) {
    int rc = 0;
    if (n <= rd->cap) goto out;
    int64_t cap = n < 512 ? 1024 : 2 * n;
    struct partial *p = heap_realloc(rd->chunk, (size_t)cap * sizeof *p, e);
    if (!p) {
        rc = ERR_NOMEM;
        goto out;
    }
    memset(p + rd->cap, 0, (size_t)(cap - rd->cap) * sizeof *p);
    rd->chunk = p;
    rd->cap = cap;
out:
    return rc;
}

static int on_row(void *arg, const struct row *r, struct err *e) {
    int rc = 0;
    struct reading *rd = arg;
    int64_t i = chunk_index(row_get(r, ROW_subject));
    enum metric m = metric_from_name(row_get(r, ROW_metric));
    if ((i < 0 && m != METRIC_ppl) || strcmp(row_get(r, ROW_status), "PASS")) goto out;
    enum row_field f = first_difference(r, rd->like);
    if (f != ROW_field_count) {
        ERR(&rd->mismatch, ERR_MISMATCH,
            "%s: cannot go on from these chunks: %s is '%s' there and '%s' now", rd->path,
            row_field_name(f), row_get(r, f), row_get(rd->like, f));
        goto out;
    }
    rd->any = true;
    if (i < 0) {
        rd->finished = true;
        goto out;
    }
    snprintf(rd->run_id, sizeof rd->run_id, "%s", row_get(r, ROW_run_id));
    snprintf(rd->time_utc, sizeof rd->time_utc, "%s", row_get(r, ROW_time_utc));
    /* Chunks come in order; one far behind the last is no work of ours. */
    if (i > rd->n) goto out;
    TRY(grow(rd, i + 1, e));
    struct partial *p = &rd->chunk[i];
    double v = strtod(row_get(r, ROW_value), NULL);
    switch (m) {
    case METRIC_nll_sum: p->c.nll_sum = v, p->have |= 1; break;
    case METRIC_nll_sq_sum: p->c.nll_sq_sum = v, p->have |= 2; break;
    case METRIC_n_scored: p->c.n_scored = (int64_t)v, p->have |= 4; break;
    case METRIC_ppl_running: p->have |= 8; break;
    default: break;
    }
    if (p->have == 15 && i == rd->n && isfinite(p->c.nll_sum) && p->c.n_scored > 0) rd->n++;
out:
    return rc;
}

void ppl_known_release(struct ppl_known *k) {
    heap_free(k->chunk);
    *k = (struct ppl_known){ 0 };
}

int ppl_rows_read(const char *path, const struct row *like, struct ppl_known *k, struct err *e) {
    int rc = 0;
    struct reading rd = { .like = like, .path = path };
    *k = (struct ppl_known){ 0 };
    if (access(path, F_OK)) goto out;
    TRY(row_read_csv(path, on_row, &rd, e));
    if (!rd.any && rd.mismatch.code) {
        if (e) *e = rd.mismatch;
        rc = rd.mismatch.code;
        goto out;
    }
    k->chunk = heap_alloc((size_t)rd.n * sizeof *k->chunk, e);
    if (!k->chunk) {
        rc = ERR_NOMEM;
        goto out;
    }
    for (int64_t i = 0; i < rd.n; i++)
        k->chunk[i] = rd.chunk[i].c;
    k->n = rd.n;
    /* Without a whole chunk the run gets a new name, and then all rows of its own. */
    if (rd.n > 0 && rd.n < rd.cap) k->partial = rd.chunk[rd.n].have;
    k->finished = rd.finished;
    memcpy(k->run_id, rd.run_id, sizeof k->run_id);
    memcpy(k->time_utc, rd.time_utc, sizeof k->time_utc);
out:
    heap_free(rd.chunk);
    return rc;
}
