/* SPDX-License-Identifier: MIT
 * test_text.c - what is dropped and expanded when a text is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/progress.h"
#include "cli/text.h"

static void load(struct text *t, const char *bytes, size_t n, bool escape, int want) {
    struct err e = { 0 };
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_text.%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    assert_int_equal(text_load(t, path, escape, &e), want);
    remove(path);
}

static void one_newline_is_dropped(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } v[] = {
        { "a\n", "a" }, { "a\n\n", "a\n" }, { "a", "a" }, { "\na", "\na" }, { "a\r\n", "a\r" },
    };
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        struct text t;
        load(&t, v[i].in, strlen(v[i].in), false, 0);
        assert_string_equal(t.data, v[i].out);
        assert_int_equal(t.n, strlen(v[i].out));
        assert_int_equal(strlen(t.fingerprint), 16);
        text_release(&t);
    }
    struct text t;
    load(&t, "", 0, false, ERR_ARG);
    load(&t, "\n", 1, false, ERR_ARG);
    load(&t, "a\0b\n", 4, false, 0);
    assert_int_equal(t.n, 3);
    text_release(&t);
}

static void escapes(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } v[] = {
        { "a\\nb", "a\nb" },          { "\\r\\t\\'\\\"\\\\n", "\r\t'\"\\n" },
        { "\\x41\\x7a", "Az" },       { "\\x4", "\\x4" },
        { "\\x4g", "\\x4g" },         { "\\q\\", "\\q\\" },
        { "no escape", "no escape" },
    };
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        char s[64];
        strcpy(s, v[i].in);
        size_t n = text_unescape(s, strlen(s));
        assert_int_equal(n, strlen(v[i].out));
        assert_memory_equal(s, v[i].out, n);
    }
    struct text t;
    load(&t, "a\\nb\n", 5, true, 0);
    assert_string_equal(t.data, "a\nb");
    text_release(&t);
}

/* A text longer than the first buffer. */
static void long_text(void **state) {
    (void)state;
    static char big[300000];
    struct text t;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)('a' + i % 23);
    load(&t, big, sizeof big, false, 0);
    assert_int_equal(t.n, sizeof big);
    assert_memory_equal(t.data, big, sizeof big);
    text_release(&t);
}

static void unreadable(void **state) {
    (void)state;
    struct err e = { 0 };
    struct text t;
    assert_int_equal(text_load(&t, "/tmp", false, &e), ERR_IO);
    assert_int_equal(text_load(&t, "/no/such/file", false, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "/no/such/file"));
}

static void durations(void **state) {
    (void)state;
    static const struct {
        double s;
        const char *text;
    } v[] = { { -1, "0 s" },         { 44.6, "45 s" },       { 59.6, "1 min 00 s" },
              { 200, "3 min 20 s" }, { 3720, "1 h 02 min" }, { 360000, "100 h 00 min" } };
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        char buf[64];
        progress_duration(buf, sizeof buf, v[i].s);
        assert_string_equal(buf, v[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_newline_is_dropped),
        cmocka_unit_test(escapes),
        cmocka_unit_test(long_text),
        cmocka_unit_test(unreadable),
        cmocka_unit_test(durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
