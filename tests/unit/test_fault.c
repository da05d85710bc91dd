/* SPDX-License-Identifier: MIT
 * test_fault.c - seeded faults are absent from a normal build; in the build that has them, one arm
 * of two in a process is faulty and the other keeps its bits. Shows the faults for which no shared
 * model exists: biases, and the minimum of Q4_1. */
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
#include "backend.h"
#include "base/fault.h"
#include "base/fp16.h"
#include "legacy.h"
#include "result/row.h"

#define N_TOK 24
#define N_VOCAB 300

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen2");
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

static int open_arm(struct arm **a, const char *fault, struct err *e) {
    struct arm_params p = { .model = path,
                            .backend = "ref",
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

static void decode(struct arm *a, float *logits) {
    int32_t token[N_TOK], pos[N_TOK], seq[N_TOK] = { 0 };
    bool want[N_TOK];
    struct err e = { 0 };
    for (int i = 0; i < N_TOK; i++) {
        token[i] = (i * i * 7 + 3 * i) % N_VOCAB;
        pos[i] = i;
        want[i] = true;
    }
    struct arm_batch b = { N_TOK, token, pos, seq, want, true };
    if (arm_kv_trim(a, -1, 0, &e) || arm_decode(a, &b, keep, logits, &e)) fail_msg("%s", e.msg);
}

static void one_arm_of_two(void **state) {
    (void)state;
    static float before[N_TOK * N_VOCAB], faulty[N_TOK * N_VOCAB], after[N_TOK * N_VOCAB];
    struct arm *good = NULL, *bad = NULL;
    struct err e = { 0 };
    if (open_arm(&good, NULL, &e) || open_arm(&bad, "bias", &e)) fail_msg("%s", e.msg);
    decode(good, before);
    decode(bad, faulty);
    decode(good, after);
    assert_memory_equal(before, after, sizeof before);
    float largest = 0;
    for (int i = 0; i < N_TOK * N_VOCAB; i++)
        largest = fmaxf(largest, fabsf(faulty[i] - before[i]));
    if (!(largest > 1e-3f)) fail_msg("biases change no logit by more than %g", (double)largest);
    arm_close(good);
    arm_close(bad);
}

static void the_row_names_it(void **state) {
    (void)state;
    struct arm *a;
    struct row r;
    struct err e = { 0 };
    row_init(&r);
    if (open_arm(&a, "bias", &e) || arm_describe(a, &r, &e)) fail_msg("%s", e.msg);
    assert_non_null(strstr(row_get(&r, ROW_cells), "FAULT:bias"));
    row_release(&r);
    arm_close(a);
}

/* A row of one block with scale 1, minimum 2 and quants 3, and 4 tokens of ones: 32 * (3 + 2), and
 * without the minimum 32 * 3. */
static void minimum_of_q4_1(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    const struct qkernel *k = qkernel_find(COL_avx2, QT_q4_1, true, NULL);
    const struct qkernel *q = qkernel_find(COL_avx2, k->act, false, NULL);
    struct blk_q4_1 row = { .d = f32_to_f16(1), .m = f32_to_f16(2) };
    memset(row.qs, 0x33, sizeof row.qs);
    float x[32], dst[2][4];
    for (int i = 0; i < 32; i++)
        x[i] = 1;
    size_t stride = qtype_row_bytes(k->act, 32);
    char *acts = malloc(4 * stride);
    for (size_t t = 0; t < 4; t++)
        q->quantize_row(x, acts + t * stride, 32, NULL);
    void *scratch = aligned_alloc(64, (k->mul_mat_scratch(32) + 63) / 64 * 64);
    struct fault_run f = { .fault = FAULT_act_sum, .n_ctx = 1, .n_cells = 1 };
    for (int faulty = 0; faulty < 2; faulty++) {
        if (faulty) fault_begin(&f);
        k->mul_mat(32, &row, sizeof row, 1, acts, stride, 4, dst[faulty], 1, scratch);
        fault_end();
    }
    free(acts);
    free(scratch);
    for (int t = 0; t < 4; t++) {
        assert_true(fabsf(dst[0][t] - 160) < 1);
        assert_true(fabsf(dst[1][t] - 96) < 1);
    }
}

/* Every row names a cell that exists, and a name once. */
static void the_catalogue(void **state) {
    (void)state;
    assert_null(fault_info(FAULT_none));
    assert_null(fault_info(FAULT_count));
    for (int f = FAULT_none + 1; f < FAULT_count; f++) {
        const struct fault_info *i = fault_info((enum fault)f);
        const char *at = strchr(i->cell, '@');
        char what[32];
        bool found = false;
        assert_int_equal(fault_from_name(i->name), f);
        assert_non_null(at);
        snprintf(what, sizeof what, "%.*s", (int)(at - i->cell), i->cell);
        enum column c = column_from_name(at + 1);
        for (int t = 0; t < QT_count; t++)
            found |=
                !strcmp(qtype_info((enum qtype)t)->name, what) && qtype_has_cell(c, (enum qtype)t);
        for (int o = 0; o < OP_count; o++)
            found |= !strcmp(op_name((enum op)o), what) && op_has_cell(c, (enum op)o);
        if (!found) fail_msg("%s: there is no cell %s", i->name, i->cell);
    }
}

#endif

static void unknown_names(void **state) {
    (void)state;
    struct arm *a;
    struct err e = { 0 };
    assert_int_equal(open_arm(&a, "no_such", &e), ERR_ARG);
    assert_null(a);
    assert_string_equal(e.msg, "'no_such' is not a fault of this build");
#ifndef GGAUGE_FAULTS
    assert_int_equal(open_arm(&a, "bias", &e), ERR_ARG);
    assert_string_equal(e.msg, "'bias' is not a fault of this build");
    assert_int_equal(FAULT(bias), 0);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names),
#ifdef GGAUGE_FAULTS
        cmocka_unit_test(one_arm_of_two),  cmocka_unit_test(the_row_names_it),
        cmocka_unit_test(minimum_of_q4_1), cmocka_unit_test(the_catalogue),
#endif
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
