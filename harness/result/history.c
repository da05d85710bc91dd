/* SPDX-License-Identifier: MIT
 * history.c - the SQLite index over result files; see row.h and results/schema.sql.
 *
 * A run is replaced as a whole: when a file brings a run_id for the first time, rows that the index
 * already has of it are dropped. A broken file stops the work with its name and line, and the index
 * stays as it was: numbers must not vanish from charts in silence. Only a torn last line, which any
 * killed run leaves behind, is passed over with a warning. */
#include <errno.h>
#include <fts.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/arena.h"
#include "base/log.h"
#include "result/row.h"

#define SCHEMA_FILE_MAX 65536 /* bytes */
#define BUSY_MS 10000         /* how long another writer may hold the index */

struct history {
    const char *path; /* borrowed, for messages */
    sqlite3 *db;
    sqlite3_stmt *insert, *forget, *seen;
    char *run_id; /* of the row before */
    int64_t n_files, n_rows;
    locale_t c_locale; /* numbers in files have a point, whatever the user's locale */
};

static int db_error(struct history *h, const char *doing, struct err *e) {
    return ERR(e, ERR_DB, "%s: %s: %s", h->path, doing,
               h->db ? sqlite3_errmsg(h->db) : "out of memory");
}

static int db_exec(struct history *h, const char *sql, const char *doing, struct err *e) {
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_error(h, doing, e);
}

static int db_prepare(struct history *h, sqlite3_stmt **st, const char *sql, struct err *e) {
    int got = sqlite3_prepare_v2(h->db, sql, -1, st, NULL);
    return got == SQLITE_OK ? 0 : db_error(h, "the result table is not ours", e);
}

/* Run a statement that returns no rows. */
static int db_step(struct history *h, sqlite3_stmt *st, const char *doing, struct err *e) {
    int got = sqlite3_step(st);
    int rc = got == SQLITE_DONE ? 0 : db_error(h, doing, e);
    sqlite3_reset(st);
    return rc;
}

static int db_integer(struct history *h, const char *sql, int64_t *value, struct err *e) {
    int rc = 0;
    sqlite3_stmt *st = NULL;
    FAIL_IF(sqlite3_prepare_v2(h->db, sql, -1, &st, NULL) != SQLITE_OK ||
                sqlite3_step(st) != SQLITE_ROW,
            e, ERR_DB, "%s: %s", h->path, sqlite3_errmsg(h->db));
    *value = sqlite3_column_int64(st, 0);
out:
    sqlite3_finalize(st);
    return rc;
}

static void history_close(struct history *h) {
    sqlite3_finalize(h->insert);
    sqlite3_finalize(h->forget);
    sqlite3_finalize(h->seen);
    sqlite3_close(h->db); /* rolls back what was not committed */
    heap_free(h->run_id);
    if (h->c_locale) freelocale(h->c_locale);
    *h = (struct history){ 0 };
}

static int history_open(struct history *h, const char *path, struct err *e) {
    int rc = 0;
    *h = (struct history){ .path = path };
    h->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    FAIL_IF(!h->c_locale, e, ERR_NOMEM, "out of memory: no C locale");
    int got = sqlite3_open_v2(path, &h->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (got != SQLITE_OK) TRY(db_error(h, "cannot be opened", e));
    sqlite3_busy_timeout(h->db, BUSY_MS);
out:
    return rc;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static int apply_schema(struct history *h, const char *schema_path, struct err *e) {
    int rc = 0;
    char *sql = NULL;
    FILE *f = fopen(schema_path, "rbe");
    FAIL_IF(!f, e, ERR_MISSING, "%s: the schema cannot be opened: %s", schema_path,
            strerror(errno));
    sql = heap_alloc(SCHEMA_FILE_MAX, e);
    if (!sql) {
        rc = ERR_NOMEM;
        goto out;
    }
    size_t n = fread(sql, 1, SCHEMA_FILE_MAX, f);
    FAIL_IF(ferror(f), e, ERR_IO, "%s: cannot be read: %s", schema_path, strerror(errno));
    FAIL_IF(n == SCHEMA_FILE_MAX, e, ERR_FORMAT, "%s: a schema has less than %d bytes", schema_path,
            SCHEMA_FILE_MAX);
    sql[n] = '\0';
    TRY(db_exec(h, sql, schema_path, e));
out:
    heap_free(sql);
    if (f) fclose(f);
    return rc;
}

static int prepare_insert(struct history *h, struct err *e) {
    char sql[4096];
    size_t n = (size_t)snprintf(sql, sizeof sql, "INSERT INTO result (");
    for (int f = 0; f < ROW_field_count; f++)
        n += (size_t)snprintf(sql + n, sizeof sql - n, "%s%s", f ? "," : "",
                              row_field_name((enum row_field)f));
    n += (size_t)snprintf(sql + n, sizeof sql - n, ") VALUES (");
    for (int f = 0; f < ROW_field_count; f++)
        n += (size_t)snprintf(sql + n, sizeof sql - n, f ? ",?" : "?");
    snprintf(sql + n, sizeof sql - n, ")");
    return db_prepare(h, &h->insert, sql, e);
}

/* Inside a transaction: make the tables of a new index, check those of an old one. */
static int history_prepare(struct history *h, const char *schema_path, struct err *e) {
    int rc = 0;
    int64_t n_tables, version;
    TRY(db_integer(h, "SELECT count(*) FROM sqlite_master WHERE name = 'result'", &n_tables, e));
    if (n_tables == 0) TRY(apply_schema(h, schema_path, e));
    TRY(db_integer(h, "PRAGMA user_version", &version, e));
    FAIL_IF(version != atoi(ROW_SCHEMA), e, ERR_MISMATCH,
            "%s: has schema %lld, this program writes schema " ROW_SCHEMA
            "; rebuild it with `ggauge history`",
            h->path, (long long)version);
    TRY(db_exec(h, "CREATE TEMP TABLE seen (run_id TEXT PRIMARY KEY) WITHOUT ROWID", "temp", e));
    TRY(prepare_insert(h, e));
    TRY(db_prepare(h, &h->forget, "DELETE FROM result WHERE run_id = ?", e));
    TRY(db_prepare(h, &h->seen, "INSERT OR IGNORE INTO seen VALUES (?)", e));
out:
    return rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Drop what the index has of this run, once per file. */
static int begin_run(struct history *h, const char *run_id, struct err *e) {
    int rc = 0;
    if (h->run_id && strcmp(h->run_id, run_id) == 0) return 0;
    heap_free(h->run_id);
    h->run_id = heap_strndup(run_id, strlen(run_id), e);
    if (!h->run_id) return ERR_NOMEM;
    sqlite3_bind_text(h->seen, 1, run_id, -1, SQLITE_TRANSIENT);
    TRY(db_step(h, h->seen, "temp", e));
    if (sqlite3_changes(h->db) == 0) return 0;
    sqlite3_bind_text(h->forget, 1, run_id, -1, SQLITE_TRANSIENT);
    TRY(db_step(h, h->forget, "deleting a run", e));
    int n_old = sqlite3_changes(h->db);
    h->n_rows -= n_old;
    if (n_old > 0) log_msg(LOG_WARN, "%s: %d rows of run %s are replaced", h->path, n_old, run_id);
out:
    return rc;
}

static int bind_field(struct history *h, enum row_field f, const char *text, struct err *e) {
    int rc = 0, got = SQLITE_OK, at = (int)f + 1;
    const char *type = row_field_sql_type(f);
    char *end = NULL;
    errno = 0;
    if (!text[0] || (strcmp(type, "REAL") == 0 && strcmp(text, "nan") == 0)) {
        got = sqlite3_bind_null(h->insert, at);
    } else if (strcmp(type, "INTEGER") == 0) {
        long long v = strtoll(text, &end, 10);
        FAIL_IF(*end || errno, e, ERR_FORMAT, "%s: expected an integer, found '%.40s'",
                row_field_name(f), text);
        got = sqlite3_bind_int64(h->insert, at, v);
    } else if (strcmp(type, "REAL") == 0) {
        double v = strtod_l(text, &end, h->c_locale);
        /* out of range is fine: a tiny number is 0 or subnormal, and inf is written as inf */
        FAIL_IF(*end || isnan(v), e, ERR_FORMAT, "%s: expected a number, found '%.40s'",
                row_field_name(f), text);
        got = sqlite3_bind_double(h->insert, at, v);
    } else {
        got = sqlite3_bind_text(h->insert, at, text, -1, SQLITE_TRANSIENT);
    }
    if (got != SQLITE_OK) rc = db_error(h, row_field_name(f), e);
out:
    return rc;
}

static int add_row(void *arg, const struct row *r, struct err *e) {
    int rc = 0;
    struct history *h = arg;
    TRY(begin_run(h, row_get(r, ROW_run_id), e));
    for (int f = 0; f < ROW_field_count; f++)
        TRY(bind_field(h, (enum row_field)f, row_get(r, (enum row_field)f), e));
    TRY(db_step(h, h->insert, "adding a row", e));
    h->n_rows++;
out:
    return rc;
}

static int add_file(struct history *h, const char *csv_path, struct err *e) {
    int rc = 0;
    TRY(db_exec(h, "DELETE FROM seen", "temp", e));
    heap_free(h->run_id);
    h->run_id = NULL;
    TRY(row_read_csv(csv_path, add_row, h, e));
    h->n_files++;
out:
    return rc;
}

int history_add(const char *db_path, const char *csv_path, const char *schema_path, struct err *e) {
    int rc = 0;
    struct history h;
    TRY(history_open(&h, db_path, e));
    TRY(db_exec(&h, "BEGIN IMMEDIATE", "cannot be locked", e));
    TRY(history_prepare(&h, schema_path, e));
    TRY(add_file(&h, csv_path, e));
    TRY(db_exec(&h, "COMMIT", "cannot be written", e));
out:
    history_close(&h);
    return rc;
}

/* ---- rebuilding ------------------------------------------------------------------------------ */

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static bool is_csv(const FTSENT *f) {
    const size_t n = f->fts_namelen;
    return n > 4 && strcmp(f->fts_name + n - 4, ".csv") == 0;
}

static int check_entry(const FTSENT *f, struct err *e) {
    int rc = 0;
    const bool dangling = f->fts_info == FTS_SLNONE && is_csv(f);
    const bool bad = f->fts_info == FTS_NS || f->fts_info == FTS_DNR || f->fts_info == FTS_ERR;
    FAIL_IF(bad || dangling, e, f->fts_level == 0 ? ERR_MISSING : ERR_IO, "%s: cannot be read: %s",
            f->fts_path, strerror(dangling ? ENOENT : f->fts_errno));
    FAIL_IF(f->fts_level == 0 && f->fts_info != FTS_D && f->fts_info != FTS_DP, e, ERR_ARG,
            "%s: expected a folder of result files", f->fts_path);
    if (f->fts_info == FTS_DC)
        log_msg(LOG_WARN, "%s: a link to a folder around it, not followed", f->fts_path);
    if (f->fts_info == FTS_DEFAULT && is_csv(f))
        log_msg(LOG_WARN, "%s: neither a file nor a folder, not read", f->fts_path);
out:
    return rc;
}

/* Every *.csv below dir, also behind links, in the order of names, so that two rebuilds give the
 * same index. */
static int add_tree(struct history *h, const char *dir, struct err *e) {
    int rc = 0;
    FTS *tree = NULL;
    char *root = heap_strndup(dir, strlen(dir), e);
    if (!root) return ERR_NOMEM;
    char *roots[] = { root, NULL };
    tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    FAIL_IF(!tree, e, ERR_IO, "%s: %s", dir, strerror(errno));
    for (;;) {
        errno = 0;
        FTSENT *f = fts_read(tree);
        FAIL_IF(!f && errno, e, ERR_IO, "%s: %s", dir, strerror(errno));
        if (!f) break;
        TRY(check_entry(f, e));
        if (f->fts_info == FTS_F && is_csv(f)) TRY(add_file(h, f->fts_path, e));
    }
out:
    if (tree) fts_close(tree);
    heap_free(root);
    return rc;
}

/* A file that is not a database must not be replaced by one: the path may be a slip. */
static int check_replaceable(const char *path, struct err *e) {
    static const char magic[16] = "SQLite format 3";
    char head[sizeof magic];
    FILE *f = fopen(path, "rbe");
    if (!f) return 0;
    size_t n = fread(head, 1, sizeof head, f);
    bool failed = ferror(f);
    fclose(f);
    if (failed || (n > 0 && (n < sizeof magic || memcmp(head, magic, n) != 0)))
        return ERR(e, ERR_ARG, "%s: exists and is not an SQLite database; not replaced", path);
    return 0;
}

/* Put the new index into the place of the old one. A journal left by a crash belongs to the old one
 * and would be played back into the new. */
static int replace_db(const char *from, const char *to, struct err *e) {
    static const char *const beside[] = { "-journal", "-wal", "-shm" };
    int rc = 0;
    size_t cap = strlen(to) + 16;
    char *name = heap_alloc(cap, e);
    if (!name) return ERR_NOMEM;
    for (size_t i = 0; i < N_ELEMS(beside); i++) {
        snprintf(name, cap, "%s%s", to, beside[i]);
        unlink(name);
    }
    FAIL_IF(rename(from, to) != 0, e, ERR_IO, "%s: cannot be replaced: %s", to, strerror(errno));
out:
    heap_free(name);
    return rc;
}

int history_rebuild(const char *db_path, const char *dir, const char *schema_path, int64_t *n_files,
                    int64_t *n_rows, struct err *e) {
    int rc = 0;
    struct history h = { 0 };
    size_t cap = strlen(db_path) + 32;
    char *fresh = heap_alloc(cap, e);
    if (!fresh) return ERR_NOMEM;
    snprintf(fresh, cap, "%s.new-%ld", db_path, (long)getpid());
    TRY(check_replaceable(db_path, e));
    unlink(fresh);
    TRY(history_open(&h, fresh, e));
    /* Until the rename nobody else sees this file, and a broken one is thrown away. */
    TRY(db_exec(&h, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN", "new index", e));
    TRY(history_prepare(&h, schema_path, e));
    TRY(add_tree(&h, dir, e));
    TRY(db_exec(&h, "COMMIT", "cannot be written", e));
    if (n_files) *n_files = h.n_files;
    if (n_rows) *n_rows = h.n_rows;
    history_close(&h);
    TRY(replace_db(fresh, db_path, e));
out:
    history_close(&h);
    if (rc < 0) unlink(fresh);
    heap_free(fresh);
    return rc;
}
