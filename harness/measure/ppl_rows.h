/* SPDX-License-Identifier: MIT
 * ppl_rows.h - the result rows of a perplexity run, and going on from them.
 *
 * A chunk is four rows of subject "chunk N" (from 1): nll_sum, nll_sq_sum, n_scored and, last,
 * ppl_running; they are handed to the operating system before the next chunk is looked at, so a
 * chunk either is in the file with all four or will be measured again. */
#ifndef GGAUGE_PPL_ROWS_H
#define GGAUGE_PPL_ROWS_H

#include <assert.h>

#include "arm/arm.h"
#include "measure/ppl.h"
#include "measure/run_rows.h"

struct ppl_rows {
    struct run_rows run;            /* opened by ppl_rows_open, closed by run_rows_close */
    int64_t from[RUN_ROWS_MAX];     /* chunks below it are in that file already */
    unsigned partial[RUN_ROWS_MAX]; /* bit k: so is the k-th row of chunk `from` */
    uint64_t closing[RUN_ROWS_MAX]; /* bit m: so is the run's row of metric m */
};

struct ppl_known;
/* Append to PATH (or create it). Rows that `there` says it holds will not be written again; NULL:
 * it holds none. */
int ppl_rows_open(struct ppl_rows *rows, const char *path, const struct ppl_known *there,
                  struct err *e);

/* The rows of chunk i (0-based). The interval of ppl_running is +/- 1.96 standard errors of
 * independent tokens, which exist from the first chunk on. */
int ppl_rows_chunk(struct ppl_rows *rows, int64_t i, const struct ppl_chunk *c,
                   const struct ppl_stats *running, struct err *e);
/* The run's rows: ppl with the interval that respects chunks, its two standard errors. */
int ppl_rows_estimate(struct ppl_rows *rows, const struct ppl_stats *s, struct err *e);
/* The run's cost: eval_s and eval_tps if n_tokens > 0, model_bytes, bpw, rss_bytes. */
int ppl_rows_cost(struct ppl_rows *rows, const struct arm *a, int64_t n_tokens,
                  double seconds, struct err *e);
/* What is known of the arm's cards while it evaluated n_tokens, and of their memory. */
int ppl_rows_gpu(struct ppl_rows *rows, const struct arm *a, const struct nvml_use *u,
                 int64_t n_tokens, struct err *e);
/* A row that says why there is no value: status FAIL NONFINITE, subject "chunk N". */
int ppl_rows_nonfinite(struct ppl_rows *rows, int64_t i, struct err *e);

/* What a file holds of an earlier run. */
struct ppl_known {
    struct ppl_chunk *chunk; /* [n], the first n of the text */
    int64_t n;
    /* Ours is the run that was interrupted: its name is to be used again and its rows are to be
     * completed. False: what follows is 0, all rows are to be written under a new name. */
    bool same_run;
    char run_id[128], time_utc[32];
    int64_t n_rows;   /* chunks that have all their rows */
    unsigned partial; /* bit k: the k-th row of chunk n_rows is there */
    uint64_t closing; /* bit m: the run's row of metric m is there */
};
static_assert(METRIC_count <= 64, "a bit for every metric");

/* Read from PATH the chunks of a run that would give the same digits as `like`: test, build,
 * engine, backend, cells, model, text, n_ctx, n_batch, n_ubatch, cache types and settings agree,
 * but for the number of chunks, so that a trial of a few can be extended. Of several runs that one
 * is taken which has the most of the first n_max chunks without a gap; among equals one of the same
 * number of chunks, and then the newest. A file that does not exist has none; a file whose chunks
 * all come from other runs is ERR_MISMATCH, naming the first field that differs. *k is overwritten;
 * release it with ppl_known_release. */
int ppl_rows_read(const char *path, const struct row *like, int64_t n_max, struct ppl_known *k,
                  struct err *e);
void ppl_known_release(struct ppl_known *k);

#endif
