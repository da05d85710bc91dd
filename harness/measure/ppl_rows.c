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
#include "measure/gpu_rows.h"
#include "measure/speed.h"

/* ---- writing --------------------------------------------------------------------------------- */

int ppl_rows_open(struct ppl_rows *rows, const char *path, const struct ppl_known *there,
                  struct err *e) {
    int rc = 0, i = rows->run.n_out;
    TRY(run_rows_open(&rows->run, path, e));
    rows->from[i] = there ? there->n_rows : 0;
    rows->partial[i] = there ? there->partial : 0;
    rows->closing[i] = there ? there->closing : 0;
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
        /* the order of the bits in add_chunk_row */
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

/* A row of the run, to the files that lack it. */
static int put_closing(struct ppl_rows *rows, enum metric m, double value,
                       const struct interval *ci, int64_t n_rep, struct err *e) {
    unsigned files = 0;
    for (int i = 0; i < rows->run.n_out; i++)
        files |= (unsigned)!(rows->closing[i] >> m & 1) << i;
    return run_rows_put(&rows->run, files, "run", m, value, ci, n_rep, "PASS", e);
}

int ppl_rows_estimate(struct ppl_rows *rows, const struct ppl_stats *s, struct err *e) {
    int rc = 0;
    struct interval ci = ppl_stats_interval95(s);
    double se_token = ppl_stats_se_token(s), se_chunk = ppl_stats_se_chunk(s);
    TRY(put_closing(rows, METRIC_ppl, ppl_stats_ppl(s), &ci, s->n_chunks, e));
    if (isfinite(se_token))
        TRY(put_closing(rows, METRIC_ppl_se_token, se_token, NULL, s->n_tokens, e));
    if (isfinite(se_chunk))
        TRY(put_closing(rows, METRIC_ppl_se_chunk, se_chunk, NULL, s->n_chunks, e));
out:
    return rc;
}

int ppl_rows_cost(struct ppl_rows *rows, const struct arm *a, int64_t n_tokens, double seconds,
                  struct err *e) {
    int rc = 0;
    if (n_tokens > 0 && seconds > 0) {
        TRY(put_closing(rows, METRIC_eval_s, seconds, NULL, 0, e));
        TRY(put_closing(rows, METRIC_eval_tps, (double)n_tokens / seconds, NULL, 0, e));
    }
    TRY(put_closing(rows, METRIC_model_bytes, (double)a->info.model_bytes, NULL, 0, e));
    TRY(put_closing(rows, METRIC_bpw, a->info.bpw, NULL, 0, e));
    TRY(put_closing(rows, METRIC_rss_bytes, (double)speed_rss_bytes(a), NULL, 0, e));
out:
    return rc;
}

int ppl_rows_gpu(struct ppl_rows *rows, const struct arm *a, const struct nvml_use *u,
                 int64_t n_tokens, struct err *e) {
    struct gpu_row g[2 * GPU_ROWS_MAX];
    const struct nvml_facts facts = nvml_facts_of(u, n_tokens);
    const struct nvml_vram vram = nvml_vram_of(a->cards);
    int rc = 0, n = gpu_rows_facts(&facts, g);
    n += gpu_rows_vram(&vram, g + n);
    for (int i = 0; i < n; i++)
        TRY(put_closing(rows, g[i].m, g[i].value, NULL, 0, e));
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

/* One run of the file, in the order of their first rows. */
struct known_run {
    char run_id[128], time_utc[32];
    bool same;        /* it was to have as many chunks as this one */
    uint64_t closing; /* bit m: metric m of subject "run" is there */
    struct partial *chunk;
    int64_t n, cap; /* whole chunks from the first on */
};

struct reading {
    const struct row *like;
    const char *path;
    struct known_run *run;
    int n_runs, cap;
    struct err mismatch; /* of the last row that no run like ours has */
};

/* `text` from behind a leading `"chunks":N,`, or from its start. */
static const char *behind_chunks(const char *text) {
    static const char key[] = "\"chunks\":";
    if (strncmp(text, key, sizeof key - 1)) return text;
    text += sizeof key - 1;
    text += strspn(text, "0123456789");
    return *text == ',' ? text + 1 : text;
}

/* Canonical JSON of two runs that may differ in how many chunks they were to have. */
static bool settings_agree(const char *a, const char *b) {
    while (*a && *b) {
        a = behind_chunks(a);
        b = behind_chunks(b);
        if (*a != *b) return false;
        if (*a) a++, b++;
    }
    return *a == *b;
}

/* The first field in which r is another run than `like`, or ROW_field_count. */
static enum row_field first_difference(const struct row *r, const struct row *like) {
    for (size_t i = 0; i < N_ELEMS(must_agree); i++) {
        enum row_field f = must_agree[i];
        const char *a = row_get(r, f), *b = row_get(like, f);
        if (f == ROW_settings ? !settings_agree(a, b) : strcmp(a, b) != 0) return f;
    }
    return ROW_field_count;
}

/* "chunk 17" is 16; -1 for every other subject. */
static int64_t chunk_index(const char *subject) {
    if (strncmp(subject, "chunk ", 6)) return -1;
    char *end;
    long long i = strtoll(subject + 6, &end, 10);
    return *end || i < 1 || i > INT32_MAX ? -1 : i - 1;
}

static int grow(struct known_run *k, int64_t n, struct err *e) {
    int rc = 0;
    if (n <= k->cap) goto out;
    int64_t cap = n < 512 ? 1024 : 2 * n;
    struct partial *p = heap_realloc(k->chunk, (size_t)cap * sizeof *p, e);
    if (!p) {
        rc = ERR_NOMEM;
        goto out;
    }
    memset(p + k->cap, 0, (size_t)(cap - k->cap) * sizeof *p);
    k->chunk = p;
    k->cap = cap;
out:
    return rc;
}

/* The run that a row belongs to; new at the end if it is its first. */
static int find_run(struct reading *rd, const struct row *r, struct known_run **out,
                    struct err *e) {
    int rc = 0;
    const char *id = row_get(r, ROW_run_id);
    bool same = !strcmp(row_get(r, ROW_settings), row_get(rd->like, ROW_settings));
    for (int i = rd->n_runs - 1; i >= 0; i--) {
        *out = &rd->run[i];
        if (!strcmp((*out)->run_id, id) && (*out)->same == same) goto out;
    }
    if (rd->n_runs == rd->cap) {
        int cap = rd->cap ? 2 * rd->cap : 4;
        struct known_run *p = heap_realloc(rd->run, (size_t)cap * sizeof *p, e);
        if (!p) {
            rc = ERR_NOMEM;
            goto out;
        }
        rd->run = p;
        rd->cap = cap;
    }
    *out = &rd->run[rd->n_runs++];
    **out = (struct known_run){ .same = same };
    snprintf((*out)->run_id, sizeof(*out)->run_id, "%s", id);
    snprintf((*out)->time_utc, sizeof(*out)->time_utc, "%s", row_get(r, ROW_time_utc));
out:
    return rc;
}

/* The value of a row of a chunk, as we write it: a number, of positions a whole one. */
static int chunk_value(const struct row *r, enum metric m, double *v, struct err *e) {
    int rc = 0;
    char *end;
    const char *text = row_get(r, ROW_value);
    *v = strtod(text, &end);
    FAIL_IF(end == text || *end, e, ERR_FORMAT, "%s of %s is '%s', expected a number",
            metric_info(m)->name, row_get(r, ROW_subject), text);
    FAIL_IF(m == METRIC_n_scored &&
                (*v != floor(*v) || *v < 1 || *v > strtod(row_get(r, ROW_n_ctx), NULL)),
            e, ERR_FORMAT, "%s of %s is %s, expected a whole number from 1 to %s",
            metric_info(m)->name, row_get(r, ROW_subject), text, row_get(r, ROW_n_ctx));
out:
    return rc;
}

/* A row of chunk i. What is there already is not replaced. */
static int add_chunk_row(const struct row *r, struct known_run *k, int64_t i, enum metric m,
                         struct err *e) {
    static const enum metric order[] = { METRIC_nll_sum, METRIC_nll_sq_sum, METRIC_n_scored,
                                         METRIC_ppl_running };
    int rc = 0, bit = 0;
    double v;
    while (bit < (int)N_ELEMS(order) && order[bit] != m)
        bit++;
    /* Chunks come in order; one far behind the last is no work of ours. */
    if (bit == (int)N_ELEMS(order) || i > k->n) goto out;
    TRY(chunk_value(r, m, &v, e));
    TRY(grow(k, i + 1, e));
    struct partial *p = &k->chunk[i];
    if (p->have >> bit & 1) goto out;
    if (m == METRIC_nll_sum) p->c.nll_sum = v;
    if (m == METRIC_nll_sq_sum) p->c.nll_sq_sum = v;
    if (m == METRIC_n_scored) p->c.n_scored = (int64_t)v;
    p->have |= 1u << bit;
    if (p->have == 15 && i == k->n && isfinite(p->c.nll_sum) && p->c.n_scored > 0) k->n++;
out:
    return rc;
}

static int on_row(void *arg, const struct row *r, struct err *e) {
    int rc = 0;
    struct reading *rd = arg;
    struct known_run *k;
    const char *subject = row_get(r, ROW_subject);
    int64_t i = chunk_index(subject);
    enum metric m = metric_from_name(row_get(r, ROW_metric));
    bool of_run = !strcmp(subject, "run") && m != METRIC_count;
    if ((i < 0 && !of_run) || strcmp(row_get(r, ROW_status), "PASS")) goto out;
    enum row_field f = first_difference(r, rd->like);
    if (f != ROW_field_count && of_run && m != METRIC_ppl) goto out; /* speeds may stand here too */
    if (f != ROW_field_count) {
        ERR(&rd->mismatch, ERR_MISMATCH,
            "%s: cannot go on from these chunks: %s is '%s' there and '%s' now", rd->path,
            row_field_name(f), row_get(r, f), row_get(rd->like, f));
        goto out;
    }
    TRY(find_run(rd, r, &k, e));
    if (of_run)
        k->closing |= (uint64_t)1 << m;
    else
        TRY(add_chunk_row(r, k, i, m, e));
out:
    return rc;
}

void ppl_known_release(struct ppl_known *k) {
    heap_free(k->chunk);
    *k = (struct ppl_known){ 0 };
}

/* Of the runs with the most chunks one that was to have as many as ours, of these the newest. */
static const struct known_run *best_run(const struct reading *rd, int64_t n_max) {
    const struct known_run *best = NULL;
    int64_t n_best = -1;
    for (int i = 0; i < rd->n_runs; i++) {
        const struct known_run *k = &rd->run[i];
        int64_t n = k->n < n_max ? k->n : n_max;
        if (n < n_best || (n == n_best && best->same && !k->same)) continue;
        best = k;
        n_best = n;
    }
    return best;
}

static int take(struct ppl_known *k, const struct known_run *r, int64_t n_max, struct err *e) {
    k->n = r->n < n_max ? r->n : n_max;
    k->chunk = heap_alloc((size_t)k->n * sizeof *k->chunk, e);
    if (!k->chunk) return ERR_NOMEM;
    for (int64_t i = 0; i < k->n; i++)
        k->chunk[i] = r->chunk[i].c;
    /* Without a whole chunk, or with another number of them to come, the run gets a new name, and
     * then all rows of its own. */
    k->same_run = k->n > 0 && r->same;
    if (!k->same_run) return 0;
    k->n_rows = k->n;
    if (r->n < n_max && r->n < r->cap) k->partial = r->chunk[r->n].have;
    k->closing = r->closing;
    memcpy(k->run_id, r->run_id, sizeof k->run_id);
    memcpy(k->time_utc, r->time_utc, sizeof k->time_utc);
    return 0;
}

int ppl_rows_read(const char *path, const struct row *like, int64_t n_max, struct ppl_known *k,
                  struct err *e) {
    int rc = 0;
    struct reading rd = { .like = like, .path = path };
    *k = (struct ppl_known){ 0 };
    if (access(path, F_OK)) goto out;
    TRY(row_read_csv(path, on_row, &rd, e));
    if (!rd.n_runs && rd.mismatch.code) {
        if (e) *e = rd.mismatch;
        rc = rd.mismatch.code;
        goto out;
    }
    const struct known_run *best = best_run(&rd, n_max);
    if (best) TRY(take(k, best, n_max, e));
out:
    if (rc < 0) ppl_known_release(k);
    for (int i = 0; i < rd.n_runs; i++)
        heap_free(rd.run[i].chunk);
    heap_free(rd.run);
    return rc;
}
