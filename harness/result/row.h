/* SPDX-License-Identifier: MIT
 * row.h - the result row: one measured value with where it came from, and its CSV form.
 *
 * ROW_FIELD_LIST is the schema, in the order of the CSV columns; results/schema.sql holds the same
 * for SQLite and a test compares the two. A new metric never changes the schema.
 *
 * A run writes one CSV file. Every line is written with one write(2) and is complete or absent but
 * for the last one; a reader ignores a torn last line. So whatever was measured before a crash, a
 * kill or a full disk stays readable. */
#ifndef GGAUGE_ROW_H
#define GGAUGE_ROW_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "result/metric.h"

/*    field       SQL type  */
#define ROW_RUN_FIELDS(X) /* the same for all rows of a run */                                     \
    X(schema,        "INTEGER") /* ROW_SCHEMA */                                                   \
    X(run_id,        "TEXT")    /* UTC time, host, pid: sorts by time */                           \
    X(time_utc,      "TEXT")    /* ISO 8601 */                                                     \
    X(commit_id,     "TEXT")    /* of ggauge; "unknown" outside of git */                          \
    X(dirty,         "INTEGER") /* 1 = built from changed sources */                               \
    X(host,          "TEXT")                                                                       \
    X(cpu,           "TEXT")                                                                       \
    X(cpu_features,  "TEXT")    /* those that a column asks about, space separated */              \
    X(n_cpus,        "INTEGER") /* processors this process may use */                              \
    X(mem_bytes,     "INTEGER") /* physical memory */                                              \
    X(governor,      "TEXT")    /* cpufreq governor, "" if unknown */                              \
    X(load1,         "REAL")    /* 1-minute load average at the start */                           \
    X(gpu,           "TEXT")                                                                       \
    X(driver,        "TEXT")                                                                       \
    X(compiler,      "TEXT")                                                                       \
    X(flags,         "TEXT")
#define ROW_WHAT_FIELDS(X) /* what was measured */                                                 \
    X(engine,        "TEXT")    /* "ggauge", "ik_llama.cpp", ... */                                \
    X(engine_commit, "TEXT")                                                                       \
    X(backend,       "TEXT")    /* column asked for */                                             \
    X(placement,     "TEXT")                                                                       \
    X(cells,         "TEXT")    /* the cells that really ran: "iq4_kt@avx2 attn@avx2 ..." */       \
    X(model,         "TEXT")    /* general.name or file name */                                    \
    X(model_fp,      "TEXT")    /* gguf_fingerprint */                                             \
    X(text,          "TEXT")    /* file name of the text */                                        \
    X(text_fp,       "TEXT")    /* xxh3 of its bytes */                                            \
    X(arch,          "TEXT")                                                                       \
    X(qtype,         "TEXT")    /* type with the most weights in matrices */                       \
    X(bpw,           "REAL")                                                                       \
    X(test,          "TEXT")    /* "perplexity", "kld", "sweep-bench", "bench" */                  \
    X(subject,       "TEXT")    /* "run", "chunk 17", "pp", "tg", a node or kernel name */         \
    X(arm_b,         "TEXT")                                                                       \
    X(n_ctx,         "INTEGER")                                                                    \
    X(n_pp,          "INTEGER")                                                                    \
    X(n_tg,          "INTEGER")                                                                    \
    X(n_threads,     "INTEGER")                                                                    \
    X(n_threads_batch, "INTEGER")                                                                  \
    X(n_batch,       "INTEGER")                                                                    \
    X(n_ubatch,      "INTEGER")                                                                    \
    X(n_kv,          "INTEGER") /* depth of the cache before the measurement */                    \
    X(type_k,        "TEXT")                                                                       \
    X(type_v,        "TEXT")                                                                       \
    X(seed,          "INTEGER")                                                                    \
    X(settings,      "TEXT")    /* canonical JSON of everything else */
#define ROW_VALUE_FIELDS(X)                                                                        \
    X(metric,        "TEXT")                                                                       \
    X(value,         "REAL")                                                                       \
    X(ci_low,        "REAL")    /* 95 % interval, or the widest that the repeats allow, whose */   \
                                /* coverage settings.interval_coverage states; empty if none */    \
    X(ci_high,       "REAL")                                                                       \
    X(n_rep,         "INTEGER") /* repeats behind the value */                                     \
    X(status,        "TEXT")    /* PASS FAIL UNDECIDED SKIP UNSUPPORTED MISTRUSTED, with a reason */
#define ROW_FIELD_LIST(X) ROW_RUN_FIELDS(X) ROW_WHAT_FIELDS(X) ROW_VALUE_FIELDS(X)

#define ROW_SCHEMA "1"

enum row_field {
#define X(name, type) ROW_##name,
    ROW_FIELD_LIST(X)
#undef X
    ROW_field_count,
};

/* Field values as UTF-8, any other byte as U+FFFD; NULL or "" = empty. Strings are owned by the
 * row. */
struct row {
    char *field[ROW_field_count];
};

void row_init(struct row *r);
void row_release(struct row *r);
int row_copy(struct row *dst, const struct row *src, struct err *e);
int row_set(struct row *r, enum row_field f, const char *text, struct err *e);
int row_set_int(struct row *r, enum row_field f, long long v, struct err *e);
int row_set_num(struct row *r, enum row_field f, double v, struct err *e); /* 17 digits; nan, inf */
const char *row_get(const struct row *r, enum row_field f); /* never NULL */
const char *row_field_name(enum row_field f);
const char *row_field_sql_type(enum row_field f);

/* ---- CSV (RFC 4180, header line, one row a line) -------------------------------------------- */

struct row_writer;

/* Create PATH, or append to it if it exists and has our header (a torn last line is cut off first).
 * Parent directories must exist. */
int row_writer_open(struct row_writer **out, const char *path, struct err *e);
int row_writer_add(struct row_writer *w, const struct row *r, struct err *e);
/* Errors of the final flush are reported here; w is gone afterwards in any case. */
int row_writer_close(struct row_writer *w, struct err *e);
const char *row_writer_path(const struct row_writer *w);

/* Call fn for every complete row; fn returns negative to stop. Unknown columns are ignored, missing
 * ones are empty; another schema number is an error. */
int row_read_csv(const char *path, int (*fn)(void *arg, const struct row *r, struct err *e),
                 void *arg, struct err *e);

/* ---- provenance ------------------------------------------------------------------------------ */

/* The commit that this program was built from, "unknown" if it was built outside of git. */
const char *provenance_commit(void);
/* Fill the run fields of r for this process, build and machine. */
int provenance_fill(struct row *r, struct err *e);
/* xxh3 of a buffer as 16 hex digits. */
void fingerprint_bytes(const void *data, size_t n, char out[17]);

/* ---- history: the SQLite index over the CSV files -------------------------------------------- */

/* Rebuild DB from every *.csv below DIR, also behind links, using the schema file; *n_rows and
 * *n_files (may be NULL) say how many. The new index replaces the old one only when complete. */
int history_rebuild(const char *db_path, const char *dir, const char *schema_path, int64_t *n_files,
                    int64_t *n_rows, struct err *e);
/* Add the rows of one CSV file to DB, creating it if needed; a run_id that is already there is
 * replaced. */
int history_add(const char *db_path, const char *csv_path, const char *schema_path, struct err *e);

#endif
