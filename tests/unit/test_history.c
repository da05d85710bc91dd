/* SPDX-License-Identifier: MIT
 * test_history.c - the SQLite index: its schema against ROW_FIELD_LIST, rebuilding, replacing runs,
 * and what must leave an old index alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/log.h"
#include "result/row.h"

#define SCHEMA "results/schema.sql"
#define HEADER "schema,run_id,test,metric,value,n_kv,model\n"

static char dir[] = "/tmp/ggauge-history-XXXXXX";
static char db[64], runs[64], csv[128], csv2[128];
static int n_warnings;

static void count_warning(enum log_level level, const char *msg) {
    (void)msg;
    n_warnings += level == LOG_WARN;
}

static int make_dir(void **state) {
    (void)state;
    log_set_hook(count_warning);
    if (!mkdtemp(dir)) return -1;
    snprintf(db, sizeof db, "%s/h.sqlite", dir);
    snprintf(runs, sizeof runs, "%s/runs", dir);
    snprintf(csv, sizeof csv, "%s/a.csv", runs);
    snprintf(csv2, sizeof csv2, "%s/deep/b.csv", runs);
    return 0;
}

static int clean(void **state) {
    (void)state;
    char deep[160];
    snprintf(deep, sizeof deep, "%s/deep", runs);
    unlink(db);
    unlink(csv);
    unlink(csv2);
    rmdir(deep);
    rmdir(runs);
    return 0;
}

static int fresh(void **state) {
    char deep[160];
    clean(state);
    n_warnings = 0;
    snprintf(deep, sizeof deep, "%s/deep", runs);
    return mkdir(runs, 0755) || mkdir(deep, 0755);
}

static int remove_dir(void **state) {
    clean(state);
    return rmdir(dir);
}

static void put_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void rebuild(int64_t want_files, int64_t want_rows) {
    struct err e = { 0 };
    int64_t n_files = -1, n_rows = -1;
    if (history_rebuild(db, runs, SCHEMA, &n_files, &n_rows, &e) < 0) fail_msg("%s", e.msg);
    assert_int_equal(n_files, want_files);
    assert_int_equal(n_rows, want_rows);
}

static void add(const char *path) {
    struct err e = { 0 };
    if (history_add(db, path, SCHEMA, &e) < 0) fail_msg("%s", e.msg);
}

/* The first column of the first line as text, "NULL" or "" for no line. */
static const char *query(const char *sql) {
    static char out[256];
    sqlite3 *h;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open_v2(db, &h, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(h, sql, -1, &st, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(h));
    out[0] = '\0';
    if (sqlite3_step(st) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(st, 0);
        snprintf(out, sizeof out, "%s", text ? (const char *)text : "NULL");
    }
    sqlite3_finalize(st);
    sqlite3_close(h);
    return out;
}

static void assert_rebuild_error(int code, const char *part) {
    struct err e = { 0 };
    assert_int_equal(history_rebuild(db, runs, SCHEMA, NULL, NULL, &e), code);
    if (!strstr(e.msg, part)) fail_msg("'%s' is not in '%s'", part, e.msg);
    char left[192];
    snprintf(left, sizeof left, "%s.new-%ld", db, (long)getpid());
    assert_int_not_equal(access(left, F_OK), 0);
}

/* The schema is written down twice, for C and for SQLite; here they meet. */
static void test_schema(void **state) {
    (void)state;
    sqlite3 *h;
    sqlite3_stmt *st;
    rebuild(0, 0);
    assert_string_equal(query("PRAGMA user_version"), ROW_SCHEMA);
    assert_int_equal(sqlite3_open(db, &h), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(h, "PRAGMA table_info(result)", -1, &st, NULL), SQLITE_OK);
    int f = 0;
    for (; sqlite3_step(st) == SQLITE_ROW; f++) {
        assert_true(f < ROW_field_count);
        const char *name = (const char *)sqlite3_column_text(st, 1);
        const char *type = (const char *)sqlite3_column_text(st, 2);
        assert_string_equal(name, row_field_name((enum row_field)f));
        assert_string_equal(type, row_field_sql_type((enum row_field)f));
    }
    assert_int_equal(f, ROW_field_count);
    sqlite3_finalize(st);
    sqlite3_close(h);
}

static void test_rebuild(void **state) {
    (void)state;
    put_file(csv, HEADER "1,r1,perplexity,ppl,9.2514,,tiny\n1,r1,perplexity,kld,nan,3,\n");
    put_file(csv2, HEADER "1,r2,perplexity,ppl,inf,,\"a,\"\"b\"\"\"\n");
    rebuild(2, 3);
    assert_string_equal(query("SELECT count(*) FROM result"), "3");
    assert_string_equal(query("SELECT value = 9.2514 FROM result WHERE model = 'tiny'"), "1");
    assert_string_equal(query("SELECT n_kv FROM result WHERE model = 'tiny'"), "NULL");
    assert_string_equal(query("SELECT value FROM result WHERE metric = 'kld'"), "NULL");
    assert_string_equal(query("SELECT value FROM result WHERE run_id = 'r2'"), "Inf");
    assert_string_equal(query("SELECT model FROM result WHERE run_id = 'r2'"), "a,\"b\"");
    rebuild(2, 3); /* over the old one */
    unlink(csv2);
    rebuild(1, 2);
    assert_int_equal(n_warnings, 0);
}

/* What a writer wrote comes back from the index bit by bit. */
static void test_exact_values(void **state) {
    (void)state;
    static const double v[] = { 1.0 / 3,
                                9.2514,
                                0x1.fffffffffffffp-1,
                                2.2250738585072014e-308,
                                1.7976931348623157e308,
                                0x1.123456789abcdp-77 };
    struct err e = { 0 };
    struct row_writer *w;
    struct row r;
    row_init(&r);
    assert_int_equal(row_writer_open(&w, csv, &e), 0);
    row_set(&r, ROW_run_id, "r", NULL);
    row_set(&r, ROW_metric, "ppl", NULL);
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        row_set_int(&r, ROW_n_kv, (long long)i, NULL);
        row_set_num(&r, ROW_value, v[i], NULL);
        assert_int_equal(row_writer_add(w, &r, &e), 0);
    }
    assert_int_equal(row_writer_close(w, &e), 0);
    row_release(&r);
    rebuild(1, N_ELEMS(v));
    sqlite3 *h;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(db, &h), SQLITE_OK);
    sqlite3_prepare_v2(h, "SELECT value FROM result ORDER BY n_kv", -1, &st, NULL);
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        assert_int_equal(sqlite3_step(st), SQLITE_ROW);
        assert_true(sqlite3_column_double(st, 0) == v[i]);
    }
    sqlite3_finalize(st);
    sqlite3_close(h);
}

static void test_torn(void **state) {
    (void)state;
    put_file(csv, HEADER "1,r1,t,ppl,1,,\n1,r1,t,pp");
    put_file(csv2, ""); /* a run that ended before its header */
    rebuild(2, 1);
    assert_int_equal(n_warnings, 1);
}

/* One broken file, and the old index stays. */
static void test_broken(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *part;
    } cases[] = {
        { HEADER "1,r,t,ppl,1,,\n1,r,t\n1,r,t,ppl,1,,\n", ERR_FORMAT, "b.csv:3: 3 fields" },
        { HEADER "1,r,t,ppl,abc,,\n", ERR_FORMAT, "b.csv:2: value: expected a number" },
        { HEADER "1,r,t,ppl,1 2,,\n", ERR_FORMAT, "b.csv:2: value: expected a number" },
        { HEADER "1,r,t,ppl,1,2.5,\n", ERR_FORMAT, "b.csv:2: n_kv: expected an integer" },
        { HEADER "1,r,t,ppl,1,99999999999999999999,\n", ERR_FORMAT, "b.csv:2: n_kv: expected an" },
        { HEADER "2,r,t,ppl,1,,\n", ERR_MISMATCH, "b.csv:2: row of schema '2'" },
        { HEADER "1,,t,ppl,1,,\n", ERR_DB, "b.csv:2" },
        { HEADER "1,r,t,,1,,\n", ERR_DB, "b.csv:2" },
        { "not,ours\n1,2\n", ERR_FORMAT, "b.csv:1: not a result file" },
    };
    put_file(csv, HEADER "1,good,t,ppl,1,,\n");
    rebuild(1, 1);
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct err e = { 0 };
        put_file(csv2, cases[i].text);
        assert_rebuild_error(cases[i].code, cases[i].part);
        assert_int_equal(history_add(db, csv2, SCHEMA, &e), cases[i].code);
        assert_non_null(strstr(e.msg, cases[i].part));
        assert_string_equal(query("SELECT group_concat(run_id) FROM result"), "good");
    }
}

static void test_same_run_twice(void **state) {
    (void)state;
    put_file(csv, HEADER "1,r1,t,ppl,1,,\n1,r2,t,ppl,2,,\n1,r1,t,ppl,3,,\n");
    put_file(csv2, HEADER "1,r1,t,ppl,4,,\n");
    rebuild(2, 2);
    assert_int_equal(n_warnings, 1);
    assert_string_equal(query("SELECT value FROM result WHERE run_id = 'r1'"), "4.0");
}

static void test_add(void **state) {
    (void)state;
    put_file(csv, HEADER "1,r1,t,ppl,1,,\n1,r1,t,ppl,2,,\n");
    add(csv); /* makes the index */
    assert_string_equal(query("SELECT sum(value) FROM result"), "3.0");
    put_file(csv2, HEADER "1,r2,t,ppl,10,,\n");
    add(csv2);
    assert_string_equal(query("SELECT sum(value) FROM result"), "13.0");
    put_file(csv, HEADER "1,r1,t,ppl,5,,\n");
    add(csv);
    assert_string_equal(query("SELECT sum(value) FROM result"), "15.0");
}

static void test_other_version(void **state) {
    (void)state;
    struct err e = { 0 };
    sqlite3 *h;
    put_file(csv, HEADER "1,r1,t,ppl,1,,\n");
    rebuild(1, 1);
    assert_int_equal(sqlite3_open(db, &h), SQLITE_OK);
    sqlite3_exec(h, "PRAGMA user_version = 7", NULL, NULL, NULL);
    sqlite3_close(h);
    assert_int_equal(history_add(db, csv, SCHEMA, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.msg, "has schema 7"));
    rebuild(1, 1);
}

static void test_wrong_paths(void **state) {
    (void)state;
    struct err e = { 0 };
    assert_int_equal(history_rebuild(db, "/nonexistent", SCHEMA, NULL, NULL, &e), ERR_MISSING);
    assert_non_null(strstr(e.msg, "/nonexistent"));
    assert_int_equal(history_rebuild(db, runs, "/nonexistent", NULL, NULL, &e), ERR_MISSING);
    assert_int_equal(history_rebuild("/nonexistent/h", runs, SCHEMA, NULL, NULL, &e), ERR_DB);
    put_file(csv, HEADER);
    assert_int_equal(history_rebuild(db, csv, SCHEMA, NULL, NULL, &e), ERR_ARG);
    assert_int_equal(history_rebuild(csv, runs, SCHEMA, NULL, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "not an SQLite database"));
    assert_int_equal(history_add(csv, csv, SCHEMA, &e), ERR_DB);
    assert_int_not_equal(access(db, F_OK), 0);
}

static void test_views(void **state) {
    (void)state;
    put_file(csv, "schema,run_id,test,metric,value,n_kv,n_pp,model_fp,status\n"
                  "1,20260101T000000Z-h-1,sweep-bench,pp_tps,100,0,512,m,PASS\n"
                  "1,20260101T000000Z-h-1,sweep-bench,tg_tps,10,0,512,m,PASS\n"
                  "1,20260102T000000Z-h-1,sweep-bench,pp_tps,110,0,512,m,PASS\n"
                  "1,20260102T000000Z-h-1,sweep-bench,tg_tps,11,0,512,m,FAIL NONFINITE\n"
                  "1,20260102T000000Z-h-1,sweep-bench,tg_tps,9,512,512,m,PASS\n");
    rebuild(1, 5);
    assert_string_equal(query("SELECT count(*) FROM latest"), "3");
    assert_string_equal(query("SELECT count(DISTINCT run_id) FROM latest"), "1");
    assert_string_equal(query("SELECT count(*) FROM sweep"), "3");
    assert_string_equal(query("SELECT pp_tps || ' ' || tg_tps FROM sweep ORDER BY run_id"),
                        "100.0 10.0");
    assert_string_equal(query("SELECT n_not_pass FROM run ORDER BY run_id DESC"), "1");
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void) {
    if (access(SCHEMA, R_OK) != 0) {
        puts("not ok - " SCHEMA " is not here; tests run in the project's root");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        T(test_schema), T(test_rebuild),        T(test_exact_values), T(test_torn),
        T(test_broken), T(test_same_run_twice), T(test_add),          T(test_other_version),
        T(test_views),  T(test_wrong_paths),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
