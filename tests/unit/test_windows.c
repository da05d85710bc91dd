/* SPDX-License-Identifier: MIT
 * test_windows.c - chunk boundaries, scored ranges, BOS and strides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "exec/windows.h"

static void plain_numbers(void **state) {
    (void)state;
    struct err e = { 0 };
    struct windows w;
    /* wiki.test.raw with tiny-qwen3's vocabulary: 390,145 tokens, 762 chunks of 512, 255 scored. */
    assert_int_equal(windows_plain(&w, 390145, 512, -1, &e), 0);
    assert_int_equal(w.n, 762);
    assert_int_equal(windows_n_scored(&w), 255);
    assert_int_equal(w.first, 256);
    assert_int_equal(w.end, 511);
    assert_int_equal(windows_start(&w, 761), 761 * 512);
    assert_int_equal(windows_plain(&w, 390145, 256, 20, &e), 0);
    assert_int_equal(w.n, 20);
    assert_int_equal(windows_n_scored(&w), 127);
    /* Odd lengths: n_ctx/2 is an integer division. */
    assert_int_equal(windows_plain(&w, 14, 7, -1, &e), 0);
    assert_int_equal(w.first, 3);
    assert_int_equal(windows_n_scored(&w), 7 - 1 - 3);
    assert_int_equal(w.n, 2);
}

static void plain_limits(void **state) {
    (void)state;
    struct err e = { 0 };
    struct windows w;
    assert_int_equal(windows_plain(&w, 1023, 512, -1, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "at least 1024 tokens"));
    assert_int_equal(windows_plain(&w, 1024, 512, -1, &e), 0);
    assert_int_equal(w.n, 2);
    assert_int_equal(windows_plain(&w, 1024, 512, 100, &e), 0);
    assert_int_equal(w.n, 2);
    assert_int_equal(windows_plain(&w, 1024, 512, 0, &e), ERR_ARG);
    assert_int_equal(windows_plain(&w, 1024, 2, -1, &e), ERR_ARG);
    assert_int_equal(windows_plain(&w, 6, 3, -1, &e), 0);
    assert_int_equal(windows_n_scored(&w), 1);
}

static void bos_is_fed_but_never_a_target(void **state) {
    (void)state;
    struct err e = { 0 };
    struct windows w;
    int32_t tokens[24];
    for (int i = 0; i < 24; i++)
        tokens[i] = 100 + i;
    assert_int_equal(windows_plain(&w, 24, 8, -1, &e), 0);
    assert_int_equal(windows_input(&w, tokens, 1, 0, 1), 1);
    assert_int_equal(windows_input(&w, tokens, 1, 1, 1), 109);
    assert_int_equal(windows_input(&w, tokens, 1, 0, -1), 108);
    for (int64_t i = 0; i < w.n; i++)
        for (int p = w.first; p < w.end; p++)
            assert_int_equal(windows_target(&w, tokens, i, p), 100 + 8 * i + p + 1);
}

/* Every token behind the first window's context is a target once, and no target lies outside. */
static void strides_cover_once(void **state) {
    (void)state;
    static const int sizes[][3] = { /* n_tokens, n_ctx, stride */
                                    { 1000, 64, 32 },
                                    { 1000, 64, 33 },
                                    { 999, 17, 5 },
                                    { 129, 64, 126 },
                                    { 200, 100, 1 }
    };
    for (size_t k = 0; k < N_ELEMS(sizes); k++) {
        struct err e = { 0 };
        struct windows w;
        int n_tokens = sizes[k][0], n_ctx = sizes[k][1], stride = sizes[k][2];
        assert_int_equal(windows_strided(&w, n_tokens, n_ctx, stride, -1, &e), 0);
        assert_int_equal(w.n_ctx, n_ctx + stride / 2);
        assert_int_equal(windows_n_scored(&w), stride);
        assert_int_equal(w.n, (n_tokens - w.n_ctx + stride - 1) / stride);
        int count[1000] = { 0 };
        for (int64_t i = 0; i < w.n; i++) {
            assert_true(windows_start(&w, i) + w.n_ctx <= n_tokens);
            for (int p = w.first; p < w.end; p++)
                count[windows_start(&w, i) + p + 1]++;
        }
        int64_t last = windows_start(&w, w.n - 1) + w.end;
        for (int t = 0; t < n_tokens; t++)
            assert_int_equal(count[t], t > w.first && t <= last ? 1 : 0);
    }
}

static void strided_limits(void **state) {
    (void)state;
    struct err e = { 0 };
    struct windows w;
    assert_int_equal(windows_strided(&w, 1000, 64, 0, -1, &e), ERR_ARG);
    assert_int_equal(windows_strided(&w, 80, 64, 32, -1, &e), ERR_ARG);
    assert_int_equal(windows_strided(&w, 81, 64, 32, -1, &e), 0);
    assert_int_equal(w.n, 1);
    assert_int_equal(windows_strided(&w, 1000, 64, 126, -1, &e), 0);
    assert_int_equal(windows_strided(&w, 1000, 64, 127, -1, &e), ERR_ARG);
    assert_int_equal(windows_strided(&w, 1000, INT32_MAX, 32, -1, &e), ERR_ARG);
    assert_int_equal(windows_strided(&w, 1000, 64, 32, 3, &e), 0);
    assert_int_equal(w.n, 3);
}

static void sequences_per_batch(void **state) {
    (void)state;
    assert_int_equal(windows_n_seq(2048, 512), 4);
    assert_int_equal(windows_n_seq(2047, 512), 3);
    assert_int_equal(windows_n_seq(512, 512), 1);
    assert_int_equal(windows_n_seq(128, 512), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_numbers),
        cmocka_unit_test(plain_limits),
        cmocka_unit_test(bos_is_fed_but_never_a_target),
        cmocka_unit_test(strides_cover_once),
        cmocka_unit_test(strided_limits),
        cmocka_unit_test(sequences_per_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
