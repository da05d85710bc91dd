/* SPDX-License-Identifier: MIT
 * test_row.c - result rows: fields, CSV grammar, files cut short, full disks, provenance. */
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/utf8.h"
#include "result/csv.h"
#include "result/provenance.h"
#include "result/row.h"

static char dir[] = "/tmp/ggauge-row-XXXXXX";
static char path[128];
static int n_warnings;

static void count_warning(enum log_level level, const char *msg) {
    (void)msg;
    n_warnings += level == LOG_WARN;
}

static int fresh_path(void **state) {
    (void)state;
    n_warnings = 0;
    snprintf(path, sizeof path, "%s/run.csv", dir);
    unlink(path);
    return 0;
}

static void put_file(const char *text, size_t n, bool append) {
    FILE *f = fopen(path, append ? "ab" : "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t get_file(char *buf, size_t cap) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buf, 1, cap - 1, f);
    fclose(f);
    buf[n] = '\0';
    return n;
}

static void put_header(void) {
    char *line;
    size_t n;
    assert_int_equal(csv_header_line(&line, &n, NULL), 0);
    put_file(line, n, false);
    heap_free(line);
}

static void add_rows(int first, int count) {
    struct err e = { 0 };
    struct row_writer *w;
    struct row r;
    row_init(&r);
    if (row_writer_open(&w, path, &e) < 0) fail_msg("%s", e.msg);
    assert_string_equal(row_writer_path(w), path);
    for (int i = first; i < first + count; i++) {
        assert_int_equal(row_set_int(&r, ROW_n_kv, i, &e), 0);
        assert_int_equal(row_set(&r, ROW_run_id, "run", &e), 0);
        if (row_writer_add(w, &r, &e) < 0) fail_msg("%s", e.msg);
    }
    assert_int_equal(row_writer_close(w, &e), 0);
    row_release(&r);
}

/* Rows must hold n_kv = 0, 1, 2, ... */
static int expect_next(void *arg, const struct row *r, struct err *e) {
    (void)e;
    int *n = arg;
    assert_int_equal(atoi(row_get(r, ROW_n_kv)), *n);
    assert_string_equal(row_get(r, ROW_schema), ROW_SCHEMA);
    ++*n;
    return 0;
}

static void assert_rows(int want) {
    struct err e = { 0 };
    int n = 0;
    if (row_read_csv(path, expect_next, &n, &e) < 0) fail_msg("%s", e.msg);
    assert_int_equal(n, want);
}

static void assert_error(int rc, const struct err *e, int code, const char *part) {
    assert_int_equal(rc, code);
    if (!strstr(e->msg, part)) fail_msg("'%s' is not in '%s'", part, e->msg);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static void test_metrics(void **state) {
    (void)state;
    for (int m = 0; m < METRIC_count; m++)
        assert_int_equal(metric_from_name(metric_info((enum metric)m)->name), m);
    assert_int_equal(metric_from_name("nonsense"), METRIC_count);
    assert_string_equal(metric_info(METRIC_tg_tps)->unit, "token/s");
    assert_int_equal(metric_info(METRIC_ppl)->better, -1);
}

static void test_set_get(void **state) {
    (void)state;
    struct row r, copy;
    row_init(&r);
    row_init(&copy);
    assert_string_equal(row_get(&r, ROW_model), "");
    assert_int_equal(row_set(&r, ROW_model, "tiny", NULL), 0);
    assert_int_equal(row_set_int(&r, ROW_seed, INT64_MIN, NULL), 0);
    assert_int_equal(row_copy(&copy, &r, NULL), 0);
    assert_int_equal(row_set(&r, ROW_model, NULL, NULL), 0);
    assert_string_equal(row_get(&r, ROW_model), "");
    assert_string_equal(row_get(&copy, ROW_model), "tiny");
    assert_string_equal(row_get(&copy, ROW_seed), "-9223372036854775808");
    assert_int_equal(row_copy(&copy, &copy, NULL), 0);
    assert_string_equal(row_get(&copy, ROW_model), "tiny");
    assert_string_equal(row_field_name(ROW_n_kv), "n_kv");
    assert_string_equal(row_field_sql_type(ROW_n_kv), "INTEGER");
    row_release(&r);
    row_release(&copy);
}

/* Names of files and last words of programs are any bytes; rows go into JSON, SQLite and XML. */
static void test_any_bytes(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "t\xff.txt", "t\xef\xbf\xbd.txt" },
        { "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
        { "cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd" },
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },                 /* overlong */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
        { "\xf4\x90\x80\x80x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx" },
    };
    struct row r;
    row_init(&r);
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        assert_int_equal(row_set(&r, ROW_text, cases[i].text, NULL), 0);
        assert_string_equal(row_get(&r, ROW_text), cases[i].want);
    }
    row_release(&r);
    char buf[8];
    memset(buf, 'x', sizeof buf); /* cut between characters, and nothing behind the cut */
    assert_int_equal(utf8_repair(buf, 6, "ab\xe2\x82\xac\xc3\xa9z", 8), 8);
    assert_string_equal(buf, "ab\xe2\x82\xac");
    assert_int_equal(utf8_repair(buf, 5,
                                 "ab\xe2\x82\xac"
                                 "c",
                                 6),
                     6);
    assert_string_equal(buf, "ab");
}

static void test_numbers(void **state) {
    (void)state;
    static const double v[] = { 0,         -0.0,      1.0 / 3, 9.2514,       1e300,
                                -2.5e-300, 0x1p-1074, DBL_MAX, 123456789.125 };
    struct row r;
    row_init(&r);
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        assert_int_equal(row_set_num(&r, ROW_value, v[i], NULL), 0);
        double back = strtod(row_get(&r, ROW_value), NULL);
        assert_memory_equal(&back, &v[i], sizeof back);
    }
    row_set_num(&r, ROW_value, -NAN, NULL);
    assert_string_equal(row_get(&r, ROW_value), "nan");
    row_set_num(&r, ROW_value, INFINITY, NULL);
    assert_string_equal(row_get(&r, ROW_value), "inf");
    row_set_num(&r, ROW_value, -INFINITY, NULL);
    assert_string_equal(row_get(&r, ROW_value), "-inf");
    row_release(&r);
}

static void test_no_memory(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row r;
    row_init(&r);
    row_set(&r, ROW_model, "old", NULL);
    heap_fail_at(1);
    assert_int_equal(row_set(&r, ROW_model, "new", &e), ERR_NOMEM);
    assert_string_equal(row_get(&r, ROW_model), "old");
    row_release(&r);
    add_rows(0, 2);
    for (int n = 1; n < 50; n++) { /* every allocation on the way in and out */
        int seen = 0;
        struct row_writer *w = NULL;
        heap_fail_at(n);
        int rc_write = row_writer_open(&w, path, &e);
        if (rc_write == 0) row_writer_close(w, NULL);
        heap_fail_at(n);
        int rc_read = row_read_csv(path, expect_next, &seen, &e);
        heap_fail_at(0);
        if (rc_write == 0 && rc_read == 0) return;
        assert_true(rc_write == 0 || rc_write == ERR_NOMEM);
        assert_true(rc_read == 0 || rc_read == ERR_NOMEM);
    }
    fail_msg("allocations still fail after 50");
}

/* ---- the grammar ----------------------------------------------------------------------------- */

/* All records of a text as "field|field/field|field/", or the error. */
static int records(const char *text, size_t n, char *out, struct err *e) {
    struct csv_reader r;
    int rc = csv_reader_open_mem(&r, text, n, "text", e);
    if (rc < 0) return rc;
    *out = '\0';
    while ((rc = csv_reader_next(&r, e)) == 1) {
        for (int i = 0; i < r.n_fields; i++) {
            if (i) strcat(out, "|");
            strcat(out, csv_field(&r, i));
        }
        strcat(out, "/");
    }
    if (rc == 0 && r.torn) strcat(out, "TORN");
    csv_reader_release(&r);
    return rc;
}

static void test_grammar(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "", "" },
        { "a,b\n", "a|b/" },
        { "a,b\r\nc,d\r\n", "a|b/c|d/" },
        { ",\n", "|/" },
        { "\n", "/" },
        { "\"a,b\",\"c\"\"d\"\n", "a,b|c\"d/" },
        { "\"\",\"\"\"\"\n", "|\"/" },
        { "\"two\nlines\",x\n", "two\nlines|x/" },
        { " a , b \n", " a | b /" },
        { "a,b", "TORN" },
        { "a,b\nc", "a|b/TORN" },
        { "a,b\n\"c", "a|b/TORN" },
        { "a,b\nc\r", "a|b/TORN" },
        { "a,b\nc,\"d\"", "a|b/TORN" },
    };
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        char got[256];
        struct err e = { 0 };
        if (records(cases[i].text, strlen(cases[i].text), got, &e) < 0) fail_msg("%s", e.msg);
        assert_string_equal(got, cases[i].want);
    }
}

static void test_grammar_errors(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *part;
    } cases[] = {
        { "a\nb\"c\n", 6, "text:2: field 1: quote" },
        { "a\n\"x\ny\"z\n", 9, "text:3: field 1: expected ','" },
        { "a\n\nx\0y\n", 7, "text:3: NUL byte" },
        { "a\rb\n", 4, "text:1: carriage return" },
        { "\"a\"\rb\n", 6, "text:1: carriage return" },
    };
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        char got[256];
        struct err e = { 0 };
        int rc = records(cases[i].text, cases[i].n, got, &e);
        assert_error(rc, &e, ERR_FORMAT, cases[i].part);
    }
}

static void test_limits(void **state) {
    (void)state;
    struct err e = { 0 };
    struct csv_reader r;
    size_t n = CSV_RECORD_MAX + 2;
    char *text = malloc(n);
    memset(text, 'x', n);
    text[1] = '\n';
    assert_int_equal(csv_reader_open_mem(&r, text, n, "text", &e), 0);
    assert_int_equal(csv_reader_next(&r, &e), 1);
    assert_int_equal(csv_reader_next(&r, &e), 0); /* as long as allowed, but without an end */
    assert_true(r.torn);
    csv_reader_release(&r);
    text[1] = 'x';
    assert_int_equal(csv_reader_open_mem(&r, text, n, "text", &e), 0);
    assert_error(csv_reader_next(&r, &e), &e, ERR_FORMAT, "text:1: record of more than");
    csv_reader_release(&r);
    memset(text, ',', n);
    assert_int_equal(csv_reader_open_mem(&r, text, n, "text", &e), 0);
    assert_error(csv_reader_next(&r, &e), &e, ERR_FORMAT, "text:1: more than 255 fields");
    csv_reader_release(&r);
    struct row row;
    row_init(&row);
    memset(text, '"', n);
    text[CSV_RECORD_MAX / 2 - 100] = '\0';
    row_set(&row, ROW_settings, text, NULL);
    char *line;
    assert_int_equal(csv_row_line(&line, &n, &row, &e), 0);
    heap_free(line);
    memset(text, '"', CSV_RECORD_MAX);
    text[CSV_RECORD_MAX / 2 + 100] = '\0';
    row_set(&row, ROW_settings, text, NULL);
    assert_error(csv_row_line(&line, &n, &row, &e), &e, ERR_ARG, "the limit is");
    row_release(&row);
    free(text);
}

static int copy_out(void *arg, const struct row *r, struct err *e) {
    return row_copy(arg, r, e);
}

static void test_round_trip(void **state) {
    (void)state;
    static const char hard[] = "say \"a,b\",\r\nthen '\xc3\xa9' \t end ";
    static const char flat[] = "say \"a,b\",  then '\xc3\xa9' \t end ";
    struct err e = { 0 };
    struct row_writer *w;
    struct row r, back;
    row_init(&r);
    row_init(&back);
    for (int f = ROW_run_id; f < ROW_field_count; f++)
        row_set(&r, (enum row_field)f, hard, &e);
    assert_int_equal(row_writer_open(&w, path, &e), 0);
    assert_int_equal(row_writer_add(w, &r, &e), 0);
    assert_int_equal(row_writer_close(w, &e), 0);
    assert_int_equal(row_read_csv(path, copy_out, &back, &e), 0);
    for (int f = ROW_run_id; f < ROW_field_count; f++)
        assert_string_equal(row_get(&back, (enum row_field)f), flat);
    static char text[65536];
    get_file(text, sizeof text);
    int lines = 0;
    for (char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 2);
    row_release(&r);
    row_release(&back);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_append(void **state) {
    (void)state;
    add_rows(0, 3);
    add_rows(3, 2);
    assert_rows(5);
    assert_int_equal(n_warnings, 0);
}

/* Cut a file anywhere: what is complete is read, and the next run goes on behind it. */
static void test_torn_anywhere(void **state) {
    (void)state;
    static char whole[65536];
    add_rows(0, 2);
    size_t n = get_file(whole, sizeof whole);
    for (size_t cut = 0; cut < n; cut += cut + 9 < n && cut > 9 ? 7 : 1) {
        int rows = -1;
        for (size_t i = 0; i < cut; i++)
            rows += whole[i] == '\n';
        put_file(whole, cut, false);
        assert_rows(rows < 0 ? 0 : rows);
        add_rows(rows < 0 ? 0 : rows, 2);
        assert_rows((rows < 0 ? 0 : rows) + 2);
    }
}

static void test_torn_field_count(void **state) {
    (void)state;
    struct err e = { 0 };
    add_rows(0, 2);
    put_file("1,run\n", 6, true);
    assert_rows(2);
    assert_int_equal(n_warnings, 1);
    add_rows(2, 1);
    assert_rows(3);
    /* not the last line: broken, not torn */
    put_file("1,run\n1,run\n", 12, true);
    int n = 0;
    assert_error(row_read_csv(path, expect_next, &n, &e), &e, ERR_FORMAT, "run.csv:5: 2 fields");
    struct row_writer *w;
    assert_error(row_writer_open(&w, path, &e), &e, ERR_FORMAT, "run.csv:5: 2 fields");
    assert_null(w);
}

static void test_foreign(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *part;
    } cases[] = {
        { "name,age\nann,3\n", ERR_FORMAT, "no column 'schema'" },
        { "hello", ERR_FORMAT, "not a result file" },
        { "schema,run_id,value\n1,x,2\n", ERR_MISMATCH, "other columns" },
        { "schema,schema\n1,1\n", ERR_FORMAT, "there twice" },
    };
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct err e = { 0 };
        struct row_writer *w;
        char after[64];
        put_file(cases[i].text, strlen(cases[i].text), false);
        assert_error(row_writer_open(&w, path, &e), &e, cases[i].code, cases[i].part);
        get_file(after, sizeof after);
        assert_string_equal(after, cases[i].text); /* not touched */
    }
}

static void test_other_schema(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row_writer *w;
    struct row r;
    int n = 0;
    put_header();
    row_init(&r);
    row_set(&r, ROW_schema, "2", &e);
    char *line;
    size_t len;
    assert_int_equal(csv_row_line(&line, &len, &r, &e), 0);
    put_file(line, len, true);
    heap_free(line);
    row_release(&r);
    assert_error(row_read_csv(path, expect_next, &n, &e), &e, ERR_MISMATCH,
                 "run.csv:2: row of sch");
    assert_error(row_writer_open(&w, path, &e), &e, ERR_MISMATCH, "run.csv:2: row of sch");
}

static void test_columns(void **state) {
    (void)state;
    static const char text[] = "new_column,n_kv,schema\nx,0,1\ny,1,1\n";
    put_file(text, sizeof text - 1, false);
    assert_rows(2);
}

static int stop(void *arg, const struct row *r, struct err *e) {
    (void)r;
    return ++*(int *)arg == 2 ? ERR(e, ERR_ARG, "enough") : 0;
}

static void test_stop(void **state) {
    (void)state;
    struct err e = { 0 };
    int n = 0;
    add_rows(0, 5);
    assert_error(row_read_csv(path, stop, &n, &e), &e, ERR_ARG, "run.csv:3: enough");
    assert_int_equal(n, 2);
}

static void test_missing(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row_writer *w;
    int n = 0;
    assert_error(row_read_csv("/nonexistent/x.csv", stop, &n, &e), &e, ERR_IO, "/nonexistent/x");
    assert_error(row_writer_open(&w, "/nonexistent/x.csv", &e), &e, ERR_IO, "/nonexistent/x.csv");
    assert_error(row_writer_open(&w, dir, &e), &e, ERR_IO, dir);
}

static void test_one_writer(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row_writer *a, *b;
    assert_int_equal(row_writer_open(&a, path, &e), 0);
    assert_error(row_writer_open(&b, path, &e), &e, ERR_IO, "being written by another run");
    assert_int_equal(row_writer_close(a, &e), 0);
    assert_int_equal(row_writer_open(&b, path, &e), 0);
    assert_int_equal(row_writer_close(b, &e), 0);
}

static void test_dev_full(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row_writer *w;
    if (access("/dev/full", W_OK) != 0) skip();
    assert_error(row_writer_open(&w, "/dev/full", &e), &e, ERR_IO, "/dev/full: writing ");
    assert_non_null(strstr(e.msg, strerror(ENOSPC)));
}

/* A limit on file size cuts a line in the middle, as a full disk does. */
static void test_short_write(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row_writer *w;
    struct row r;
    struct rlimit old;
    static char before[65536], after[65536];
    add_rows(0, 2);
    size_t n = get_file(before, sizeof before);
    row_init(&r);
    row_set_int(&r, ROW_n_kv, 2, NULL);
    row_set(&r, ROW_settings, "a long value of settings, to be cut in the middle", NULL);
    void (*old_handler)(int) = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(row_writer_open(&w, path, &e), 0);
    struct rlimit tight = { n + 20, old.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    int rc = row_writer_add(w, &r, &e);
    int rc_again = row_writer_add(w, &r, NULL); /* the second failure leaves no trace, either */
    setrlimit(RLIMIT_FSIZE, &old);
    assert_error(rc, &e, ERR_IO, "run.csv: writing ");
    assert_non_null(strstr(e.msg, strerror(EFBIG)));
    assert_non_null(strstr(e.msg, "(20 were written and removed)"));
    assert_int_equal(rc_again, ERR_IO);
    assert_int_equal(get_file(after, sizeof after), n);
    assert_string_equal(after, before);
    assert_int_equal(row_writer_add(w, &r, &e), 0); /* room again: the run goes on */
    assert_int_equal(row_writer_close(w, &e), 0);
    signal(SIGXFSZ, old_handler);
    row_release(&r);
    assert_rows(3);
}

/* ---- provenance ------------------------------------------------------------------------------ */

static void test_provenance(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row r;
    row_init(&r);
    assert_int_equal(provenance_fill(&r, &e), 0);
    static const enum row_field filled[] = { ROW_schema, ROW_run_id,   ROW_time_utc, ROW_commit_id,
                                             ROW_dirty,  ROW_compiler, ROW_n_cpus };
    for (size_t i = 0; i < N_ELEMS(filled); i++) {
        if (!row_get(&r, filled[i])[0]) fail_msg("%s is empty", row_field_name(filled[i]));
    }
    assert_string_equal(row_get(&r, ROW_schema), ROW_SCHEMA);
    const char *id = row_get(&r, ROW_run_id), *t = row_get(&r, ROW_time_utc);
    int y, mo, d, h, mi, s;
    assert_int_equal(sscanf(t, "%4d-%2d-%2dT%2d:%2d:%2dZ", &y, &mo, &d, &h, &mi, &s), 6);
    char want[32];
    snprintf(want, sizeof want, "%04d%02d%02dT%02d%02d%02dZ-", y, mo, d, h, mi, s);
    assert_memory_equal(id, want, strlen(want));
    assert_null(strpbrk(id, "/ ,\"\n"));
    row_release(&r);
}

static void test_cpuinfo(void **state) {
    (void)state;
    static const char text[] = "processor\t: 0\nvendor_id\t: X\nmodel\t\t: 143\n"
                               "model name\t: Example(R) CPU @ 2.00GHz\n"
                               "flags\t\t: fpu avx512f fma avx512fma avx2 xavx2 f16c\nbugs\t\t:\n"
                               "\nprocessor\t: 1\nmodel name\t: Other\nflags\t\t: amx_tile\n";
    char model[64], features[256];
    cpuinfo_parse(text, model, sizeof model, features, sizeof features);
    assert_string_equal(model, "Example(R) CPU @ 2.00GHz");
    assert_string_equal(features, "avx2 fma f16c avx512f");
    cpuinfo_parse(text, model, 8, features, 5); /* too small: cut, never overrun */
    assert_string_equal(model, "Example");
    assert_string_equal(features, "avx2");
    static const char *const nothing[] = { "", "\n\n", "flags",
                                           "flags:", "model name\t:\nflags\t:" };
    for (size_t i = 0; i < N_ELEMS(nothing); i++) {
        cpuinfo_parse(nothing[i], model, sizeof model, features, sizeof features);
        assert_string_equal(model, "");
        assert_string_equal(features, "");
    }
}

/* Test vectors of XXH3_64bits with seed 0: the empty input, from xxHash's documentation. */
static void test_fingerprint(void **state) {
    (void)state;
    char a[17], b[17];
    fingerprint_bytes("", 0, a);
    assert_string_equal(a, "2d06800538d394c2");
    fingerprint_bytes("text", 4, a);
    fingerprint_bytes("texu", 4, b);
    assert_int_equal(strlen(a), 16);
    assert_string_not_equal(a, b);
}

static int make_dir(void **state) {
    (void)state;
    log_set_hook(count_warning);
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    fresh_path(state);
    return rmdir(dir);
}

#define T(f) cmocka_unit_test_setup(f, fresh_path)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_metrics),    T(test_set_get),      T(test_any_bytes),      T(test_numbers),
        T(test_no_memory),  T(test_grammar),      T(test_grammar_errors), T(test_limits),
        T(test_round_trip), T(test_append),       T(test_torn_anywhere),  T(test_torn_field_count),
        T(test_foreign),    T(test_other_schema), T(test_columns),        T(test_stop),
        T(test_missing),    T(test_one_writer),   T(test_dev_full),       T(test_short_write),
        T(test_provenance), T(test_cpuinfo),      T(test_fingerprint),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
