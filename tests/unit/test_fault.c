/* SPDX-License-Identifier: MIT
 * test_fault.c - seeded faults are absent from a normal build; in the build that has them, one arm
 * of two in a process is faulty and the other keeps its bits, on a CPU and on the cuda column (the
 * emulated one, or that of GGAUGE_CUDA_PLUGIN). Shows the faults for which no shared model exists:
 * biases, and the minimum of Q4_1. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../tiny/tiny_model.h"
#include "arm/arm.h"
#include "base/fp16.h"
#include "emulated.h"
#include "fault_cell.h"
#include "legacy.h"
#include "result/row.h"

#define N_TOK 24
#define N_VOCAB 300

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen2");
    use_emulated_cuda();
    assert_int_equal(t.n_vocab, N_VOCAB);
    snprintf(path, sizeof path, "/tmp/ggauge-tiny-XXXXXX");
    close(mkstemp(path));
    if (tiny_model_write(&t, path, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

static int open_arm(struct arm **a, const char *backend, const char *fault, struct err *e) {
    struct arm_params p = { .model = path,
                            .backend = backend,
                            .fault = fault,
                            .n_ctx = 32,
                            .n_seq = 1,
                            .n_batch = N_TOK,
                            .n_ubatch = N_TOK,
                            .n_threads = 2 };
    return arm_open(a, &p, e);
}

#ifdef GGAUGE_FAULTS

/* Logits [N_TOK, N_VOCAB]. */
static int keep(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    memcpy((float *)arg + (size_t)a->i * N_VOCAB, a->logits, N_VOCAB * sizeof(float));
    return 0;
}

/* The first n tokens at once, the others one by one, which the cuda column records. */
static void decode(struct arm *a, int n, float *logits) {
    int32_t token[N_TOK], pos[N_TOK], seq[N_TOK] = { 0 };
    bool want[N_TOK];
    struct err e = { 0 };
    for (int i = 0; i < N_TOK; i++) {
        token[i] = (i * i * 7 + 3 * i) % N_VOCAB;
        pos[i] = i;
        want[i] = true;
    }
    if (arm_kv_trim(a, -1, 0, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < N_TOK; i += n, n = 1) {
        struct arm_batch b = { n, token + i, pos + i, seq, want, false };
        if (arm_decode(a, &b, keep, logits + (size_t)i * N_VOCAB, &e)) fail_msg("%s", e.msg);
    }
}

static float logits_before[N_TOK * N_VOCAB], logits_faulty[N_TOK * N_VOCAB],
    logits_after[N_TOK * N_VOCAB];

static void one_arm_of_two_on(const char *backend) {
    struct arm *good = NULL, *bad = NULL;
    struct err e = { 0 };
    if (open_arm(&good, backend, NULL, &e) || open_arm(&bad, backend, "bias", &e))
        fail_msg("%s", e.msg);
    decode(good, N_TOK / 2, logits_before);
    decode(bad, N_TOK / 2, logits_faulty);
    decode(good, N_TOK / 2, logits_after);
    assert_memory_equal(logits_before, logits_after, sizeof logits_before);
    float largest = 0;
    for (int i = 0; i < N_TOK * N_VOCAB; i++)
        largest = fmaxf(largest, fabsf(logits_faulty[i] - logits_before[i]));
    if (!(largest > 1e-3f)) fail_msg("biases change no logit by more than %g", (double)largest);
    arm_close(good);
    arm_close(bad);
}

static void one_arm_of_two(void **state) {
    (void)state;
    one_arm_of_two_on("ref");
}

static void one_arm_of_two_on_cuda(void **state) {
    (void)state;
    if (!column_available(COL_cuda)) skip();
    one_arm_of_two_on("cuda");
}

/* What was recorded while all was well is not played when the fault has come: the NaN is there from
 * the fifth text of 32 tokens on. */
static void late_on_cuda(void **state) {
    (void)state;
    struct arm *a;
    struct err e = { 0 };
    if (!column_available(COL_cuda)) skip();
    if (open_arm(&a, "cuda", "nan_late", &e)) fail_msg("%s", e.msg);
    for (int n_done = 0; n_done < 200; n_done += N_TOK) {
        decode(a, 1, logits_faulty);
        int n_nan = 0;
        for (int i = 0; i < N_VOCAB; i++)
            n_nan += isnan(logits_faulty[(N_TOK - 1) * N_VOCAB + i]);
        if (n_nan != (n_done + N_TOK > 4 * 32 ? N_VOCAB : 0))
            fail_msg("%d NaN among the last logits after %d tokens", n_nan, n_done + N_TOK);
    }
    arm_close(a);
}

static void the_row_names_it(void **state) {
    (void)state;
    struct arm *a;
    struct row r;
    struct err e = { 0 };
    row_init(&r);
    if (open_arm(&a, "ref", "bias", &e) || arm_describe(a, &r, &e)) fail_msg("%s", e.msg);
    assert_non_null(strstr(row_get(&r, ROW_cells), "FAULT:bias"));
    row_release(&r);
    arm_close(a);
}

/* A row of one block with scale 1, minimum 2 and quants 3, and 4 tokens of ones: 32 * (3 + 2), and
 * without the minimum 32 * 3. */
static void minimum_of_q4_1(enum column c) {
    if (!column_available(c)) skip();
    struct blk_q4_1 row = { .d = f32_to_f16(1), .m = f32_to_f16(2) };
    memset(row.qs, 0x33, sizeof row.qs);
    float ones[4][32], y[4];
    for (int i = 0; i < 4 * 32; i++)
        ones[i / 32][i % 32] = 1;
    struct tensor w = { .type = QT_q4_1, .ne = { 32, 1, 1, 1 }, .row_bytes = sizeof row };
    struct tensor x = { .type = QT_f32, .ne = { 32, 4, 1, 1 }, .row_bytes = sizeof ones[0] };
    struct tensor dst = { .type = QT_f32, .ne = { 1, 4, 1, 1 }, .row_bytes = sizeof y[0] };
    w.data = &row, x.data = ones, dst.data = y;
    const struct node n = { .op = OP_mul_mat, .dst = &dst, .src = { &w, &x } }, *nodes = &n;
    const struct fault_run f = { .fault = FAULT_act_sum, .n_ctx = 1, .n_cells = 1 };
    struct thread_pool *pool;
    struct backend b;
    struct err e = { 0 };
    if (thread_pool_new(&pool, 1, &e) || backend_init(&b, c, pool, &e)) fail_msg("%s", e.msg);
    for (int faulty = 0; faulty < 2; faulty++) {
        if (faulty) fault_begin(&f);
        if (b.ops->run(&b, &nodes, 1, 1, false, 0, &e)) fail_msg("%s", e.msg);
        fault_end();
        for (int t = 0; t < 4; t++)
            assert_true(fabsf(y[t] - (faulty ? 96 : 160)) < 1);
    }
    backend_release(&b);
    thread_pool_free(pool);
}

static void minimum_on_avx2(void **state) {
    (void)state;
    minimum_of_q4_1(COL_avx2);
}

static void minimum_on_cuda(void **state) {
    (void)state;
    minimum_of_q4_1(COL_cuda);
}

/* Every fault is in a column, under a name of its own; a column that is named has a cell for it. */
static void the_catalogue(void **state) {
    (void)state;
    assert_null(fault_info(FAULT_none));
    assert_null(fault_info(FAULT_count));
    for (int k = FAULT_none + 1; k < FAULT_count; k++) {
        const enum fault f = (enum fault)k;
        const struct fault_info *i = fault_info(f);
        bool found = false;
        assert_int_equal(fault_from_name(i->name), f);
        for (int c = 0; c < COL_count; c++) {
            const bool own = fault_column(f, (enum column)c) == (enum column)c;
            const bool named = c == COL_cuda
                                   ? fault_on_cuda(f) != NULL
                                   : strstr(i->columns, column_name((enum column)c)) != NULL;
            if (named != own)
                fail_msg("%s: no cell %s@%s", i->name, i->cell, column_name((enum column)c));
            found |= own;
        }
        if (!found) fail_msg("%s is in no column", i->name);
    }
    /* avx2 takes the cell of ref, avx512 has one of its own */
    assert_int_equal(fault_column(FAULT_residual, COL_avx2), COL_ref);
    assert_int_equal(fault_column(FAULT_residual, COL_avx512), COL_none);
}

/* An arm whose column is without the fault would be healthy. */
static void in_other_columns(void **state) {
    (void)state;
    struct arm *a;
    struct err e = { 0 };
    assert_int_equal(open_arm(&a, "ref", "kt_gain", &e), ERR_ARG);
    assert_null(a);
    assert_non_null(
        strstr(e.msg, "the ref column has no fault 'kt_gain': iq3_kt@ref is without it"));
    if (!column_available(COL_cuda)) skip();
    assert_int_equal(open_arm(&a, "cuda", "race", &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "the cuda column has no fault 'race': q8_0@cuda is without it"));
}

#endif

static void unknown_names(void **state) {
    (void)state;
    struct arm *a;
    struct err e = { 0 };
    assert_int_equal(open_arm(&a, "ref", "no_such", &e), ERR_ARG);
    assert_null(a);
    assert_string_equal(e.msg, "'no_such' is not a fault of this build");
#ifndef GGAUGE_FAULTS
    assert_int_equal(open_arm(&a, "ref", "bias", &e), ERR_ARG);
    assert_string_equal(e.msg, "'bias' is not a fault of this build");
    assert_int_equal(FAULT(bias), 0);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names),
#ifdef GGAUGE_FAULTS
        cmocka_unit_test(one_arm_of_two),  cmocka_unit_test(one_arm_of_two_on_cuda),
        cmocka_unit_test(late_on_cuda),    cmocka_unit_test(the_row_names_it),
        cmocka_unit_test(minimum_on_avx2), cmocka_unit_test(minimum_on_cuda),
        cmocka_unit_test(the_catalogue),   cmocka_unit_test(in_other_columns),
#endif
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
