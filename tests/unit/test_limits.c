/* SPDX-License-Identifier: MIT
 * test_limits.c - errors of rows, the limits made from them, and models in other types to measure
 * them on. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fp16.h"
#include "base/rng.h"
#include "measure/limit_run.h"
#include "measure/retype.h"

/* ---- op_error ------------------------------------------------------------------------------- */

static void test_error(void **state) {
    (void)state;
    struct op_error s = OP_ERROR_NONE;
    const float want[] = { 3, 4, 0, 0 }, got[] = { 3, 4.5f, 0, 0 };
    double nmse = op_error_add(&s, 7, got, want, 4);
    assert_true(fabs(nmse - 0.01) < 1e-15 && s.row_nmse == nmse && s.nmse == nmse);
    assert_true(fabs(s.max_rel - 0.5 / 2.5) < 1e-12); /* rms of want is 2.5 */
    assert_true(s.row == 7 && s.col == 1 && s.bad_row == -1 && s.n == 4);
    assert_true(op_error_add(&s, 8, want, want, 4) == 0);
    assert_true(fabs(s.nmse - 0.005) < 1e-15 && s.row_nmse == nmse && s.row == 7);
}

static void test_error_nonfinite(void **state) {
    (void)state;
    struct op_error s = OP_ERROR_NONE;
    const float inf = INFINITY, nan = NAN;
    const float want[] = { 1, inf, nan, 2 }, same[] = { 1, inf, nan, 2 };
    op_error_add(&s, 0, same, want, 4); /* broken in the same way */
    assert_true(s.max_rel == 0 && s.bad_row == -1);
    const float bad[] = { 1, inf, nan, nan };
    op_error_add(&s, 3, bad, want, 4);
    assert_true(isinf(s.max_rel) && s.bad_row == 3 && s.bad_col == 3);
    struct op_limit limit = { 1e9, 1e9, true };
    assert_true(op_error_over(&s, &limit));
    struct op_error t = OP_ERROR_NONE;
    const float zero[] = { 0, 0 }, tiny[] = { 0, 1e-3f };
    op_error_add(&t, 0, tiny, zero, 2); /* nothing to be relative to */
    assert_true(t.max_rel > 1e20 && op_error_over(&t, &(struct op_limit){ 1, 1, true }));
}

static void test_error_merge(void **state) {
    (void)state;
    struct op_error a = OP_ERROR_NONE, b = OP_ERROR_NONE, all = OP_ERROR_NONE;
    const float want[] = { 1, 2 }, x[] = { 1.1f, 2 }, y[] = { 1, 1.5f };
    op_error_add(&a, 0, x, want, 2);
    op_error_add(&b, 1, y, want, 2);
    op_error_add(&all, 0, x, want, 2);
    op_error_add(&all, 1, y, want, 2);
    op_error_merge(&a, &b);
    assert_true(a.max_rel == all.max_rel && a.row == all.row && a.col == all.col && a.n == all.n);
    assert_true(fabs(a.nmse - all.nmse) < 1e-15 && a.row_nmse == all.row_nmse);
}

/* The index of an lse row counts as equal or not, whatever its size. */
static void test_lse_rows(void **state) {
    (void)state;
    const double a[] = { 20, 3.5, 3000 }, b[] = { 20, 3.5, 2999 }, c[] = { 20, 3.6, 3000 };
    float x[3], y[3];
    struct op_error s = OP_ERROR_NONE, t = OP_ERROR_NONE;
    op_rows_f32(OP_lse, QT_f64, a, QT_f64, b, 3, x, y);
    op_error_add(&s, 0, x, y, 3);
    assert_true(s.col == 2 && s.max_rel > 0.05 && s.max_rel < 0.1);
    op_rows_f32(OP_lse, QT_f64, c, QT_f64, a, 3, x, y);
    op_error_add(&t, 0, x, y, 3);
    assert_true(t.col == 1 && t.max_rel > 0.005);
}

/* ---- limits --------------------------------------------------------------------------------- */

static void test_limit_from(void **state) {
    (void)state;
    struct op_limit l = limit_from(0, 0);
    assert_true(l.max_rel == LIMIT_FLOOR_REL && l.row_nmse == LIMIT_FLOOR_NMSE);
    l = limit_from(2.04118034e-06, 2.28752971e-14); /* 1.63e-5 and 1.46e-12 */
    assert_true(fabs(l.max_rel - 1.7e-5) < 1e-12 && fabs(l.row_nmse - 1.5e-12) < 1e-18);
    l = limit_from(2.5e-6, 1e-12); /* exactly two digits: not rounded up any further */
    assert_true(fabs(l.max_rel - 2.0e-5) < 1e-12 && fabs(l.row_nmse - 6.4e-11) < 1e-18);
}

static void test_limit_of(void **state) {
    (void)state;
    struct op_limit l = limit_of("no such cell@avx2");
    assert_false(l.measured);
    l = limit_of("rms_norm@avx2");
    assert_true(l.measured && l.max_rel < 1e-3);
    char cell[48];
    struct tensor w = { .type = QT_q8_0 }, x = { .type = QT_f32 };
    struct node n = { .op = OP_mul_mat, .src = { &w, &x } };
    limit_cell_name(COL_ref, &n, cell, sizeof cell);
    assert_string_equal(cell, "q8_0@ref");
    limit_cell_name(COL_avx2, &n, cell, sizeof cell);
    assert_string_equal(cell, "q8_0@avx2");
    n.op = OP_set_rows; /* a hole is served by the column to its left */
    limit_cell_name(COL_avx2, &n, cell, sizeof cell);
    assert_string_equal(cell, "set_rows@ref");
}

static void test_quantile(void **state) {
    (void)state;
    struct limit_cell c = { .n = 100, .n_zero = 50, .max_rel = 1 };
    c.bin[0] = 40; /* just above 2^-48 */
    c.bin[LIMIT_BINS - 1] = 10;
    assert_true(limit_quantile(&c, 0.5) == 0);
    assert_true(fabs(limit_quantile(&c, 0.9) / exp2(-48 + 0.125) - 1) < 1e-12);
    assert_true(limit_quantile(&c, 0.99) == 1);
}

/* ---- retype --------------------------------------------------------------------------------- */

#define N0 64
#define N1 8

static void write_f16(const char *path) {
    struct err e = { 0 };
    struct gguf_writer *w;
    struct rng rng = { 9 };
    uint16_t row[N0];
    float norm[N0] = { 0 };
    if (gguf_writer_new(&w, path, &e) || gguf_put_u32(w, "answer", 42, &e) ||
        gguf_put_tensor(w, "m", 2, (int64_t[]){ N0, N1 }, QT_f16, &e) ||
        gguf_put_tensor(w, "v", 1, (int64_t[]){ N0 }, QT_f32, &e) || gguf_writer_begin(w, &e))
        fail_msg("%s", e.msg);
    for (int r = 0; r < N1; r++) {
        for (int i = 0; i < N0; i++)
            row[i] = f32_to_f16((float)rng_normal(&rng) + (r == 2 ? 5 : 0));
        assert_int_equal(gguf_writer_data(w, row, sizeof row, &e), 0);
    }
    assert_int_equal(gguf_writer_data(w, norm, sizeof norm, &e), 0);
    assert_int_equal(gguf_writer_end(w, &e), 0);
    gguf_writer_free(w);
}

static void test_retype(void **state) {
    (void)state;
    /* half a step of a block whose weights span about 5: rms(1) * 5 / 2 / steps, with room */
    static const struct {
        enum qtype type;
        double largest;
    } cases[] = { { QT_f32, 0 },     { QT_bf16, 0.03 }, { QT_q4_1, 0.25 },
                  { QT_q5_0, 0.35 }, { QT_q5_1, 0.13 }, { QT_q6_0, 0.2 } };
    char from[] = "/tmp/ggauge-retype-XXXXXX", to[] = "/tmp/ggauge-retype-XXXXXX";
    close(mkstemp(from));
    close(mkstemp(to));
    write_f16(from);
    struct err e = { 0 };
    struct gguf *g, *h;
    assert_int_equal(gguf_open(&g, from, &e), 0);
    assert_false(retype_knows(QT_iq4_kt));
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        enum qtype t = cases[i].type;
        assert_true(retype_knows(t));
        if (retype_model(g, t, to, &e) || gguf_open(&h, to, &e)) fail_msg("%s", e.msg);
        const struct gguf_tensor *m = gguf_find_tensor(h, "m"), *old = gguf_find_tensor(g, "m");
        assert_int_equal(m->type, t);
        assert_int_equal(gguf_find_tensor(h, "v")->type, QT_f32);
        assert_non_null(gguf_find(h, "answer"));
        float x[N0], y[N0];
        double worst = 0;
        for (size_t r = 0; r < N1; r++) {
            qkernel_find(COL_ref, QT_f16, false, NULL)
                ->dequant_row((const char *)old->data + r * qtype_row_bytes(QT_f16, N0), x, N0);
            qkernel_find(COL_ref, t, false, NULL)
                ->dequant_row((const char *)m->data + r * qtype_row_bytes(t, N0), y, N0);
            for (int k = 0; k < N0; k++)
                worst = fmax(worst, fabs((double)x[k] - y[k]));
        }
        if (!(worst <= cases[i].largest))
            fail_msg("%s: off by %g, expected %g at most", qtype_info(t)->name, worst,
                     cases[i].largest);
        gguf_close(h);
    }
    gguf_close(g);
    unlink(from);
    unlink(to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),       cmocka_unit_test(test_error_nonfinite),
        cmocka_unit_test(test_error_merge), cmocka_unit_test(test_lse_rows),
        cmocka_unit_test(test_limit_from),  cmocka_unit_test(test_limit_of),
        cmocka_unit_test(test_quantile),    cmocka_unit_test(test_retype),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
