/* SPDX-License-Identifier: MIT
 * test_kcheck.c - checking and timing cells: every cell of the tables has a case and passes at
 * small shapes, wrong weights and wrong results are seen, and times and roofs follow from a made-up
 * clock and made-up peaks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "measure/kcheck_impl.h"
#include "measure/ktime.h"

#define COLD ((size_t)4 << 20)

static struct kcheck_params params;

static int setup(void **state) {
    struct err e;
    (void)state;
    params = (struct kcheck_params){ .shape = { 512, 70, 300, 4, 2, 64, 1000 },
                                     .n_threads = 2,
                                     .cold_bytes = COLD,
                                     .tolerance = 1,
                                     .seed = 5 };
    params.cold = heap_alloc(COLD, &e);
    return params.cold ? thread_pool_new(&params.pool, 2, &e) : -1;
}

static int teardown(void **state) {
    (void)state;
    thread_pool_free(params.pool);
    heap_free(params.cold);
    return 0;
}

static struct kcase_filter all_cells(void) {
    struct kcase_filter f = { .n_tok = { 1, 5, 33 },
                              .n_n_tok = 3,
                              .op_n_tok = { 1, 33 },
                              .n_op_n_tok = 2,
                              .n_kv = { 0, 70 },
                              .n_n_kv = 2 };
    for (int t = 0; t < QT_count; t++)
        f.type[t] = true;
    for (int c = 0; c < COL_count; c++)
        f.col[c] = column_available((enum column)c);
    return f;
}

/* ---- the list ---------------------------------------------------------------------------------
 */

struct seen {
    bool type[QT_count][COL_count], op[OP_count][COL_count];
    int n;
};

static int note(void *arg, const struct kcase *c, struct err *e) {
    struct seen *s = arg;
    (void)e;
    s->n++;
    if (c->kind == KCASE_OP)
        s->op[c->op][c->col] = true;
    else
        s->type[c->type][c->col] = true;
    return 0;
}

/* No cell of an available column is left out, and nothing else is listed. */
static void every_cell_is_listed(void **state) {
    (void)state;
    struct seen s = { .n = 0 };
    struct err e = { 0 };
    const struct kcase_filter f = all_cells();
    assert_int_equal(kcase_each(&f, note, &s, &e), 0);
    for (int c = 0; c < COL_count; c++) {
        const bool here = column_available((enum column)c);
        for (int t = 0; t < QT_count; t++)
            assert_int_equal(s.type[t][c], here && qtype_has_cell((enum column)c, (enum qtype)t));
        for (int o = 0; o < OP_count; o++)
            assert_int_equal(s.op[o][c],
                             here && o != OP_mul_mat && op_has_cell((enum column)c, (enum op)o));
    }
    for (int o = 0; o < OP_count; o++)
        if (!kcheck_has_op((enum op)o)) fail_msg("kcheck_ops.c has no shapes for %s", op_name(o));
}

static void filters(void **state) {
    (void)state;
    static const char *const ops[] = { "mul_mat", "attn" };
    struct kcase_filter f = all_cells();
    struct seen s = { .n = 0 };
    struct err e = { 0 };
    memset(f.type, 0, sizeof f.type);
    memset(f.col, 0, sizeof f.col);
    f.type[QT_q8_0] = f.col[COL_ref] = true;
    f.ops = ops;
    f.n_ops = 2;
    assert_int_equal(kcase_each(&f, note, &s, &e), 0);
    assert_int_equal(s.n, 3 + 2 * 2); /* tokens of the product; tokens and depths of attention */
    assert_true(s.type[QT_q8_0][COL_ref] && s.op[OP_attn][COL_ref]);
    char name[64];
    struct kcase c = { KCASE_QUANTIZE, COL_ref, QT_q8_0, OP_get_rows, 1, 0 };
    kcase_name(&c, name, sizeof name);
    assert_string_equal(name, "quantize q8_0@ref");
    c = (struct kcase){ KCASE_OP, COL_avx2, QT_f16, OP_attn, 1, 0 };
    kcase_name(&c, name, sizeof name);
    assert_string_equal(name, "attn f16@avx2");
}

/* ---- errors -----------------------------------------------------------------------------------
 */

static void nmse(void **state) {
    (void)state;
    const double want[] = { 3, 4, 0, 0 }, near[] = { 3, 4.5, 0, 0 }, off[] = { 3, 4, 0.5, 0 };
    assert_true(kcheck_nmse(want, want, 2, 2) == 0);
    assert_true(kcheck_nmse(near, want, 1, 4) == 0.25 / 25);
    /* The second row is all zero: judged by the mean square of all, 25 / 4. */
    assert_true(kcheck_nmse(off, want, 2, 2) == 0.25 / 12.5);
    const double nan[] = { 3, NAN, 0, 0 }, inf[] = { 3, INFINITY, 0, 0 };
    assert_true(isinf(kcheck_nmse(nan, want, 2, 2)));
    assert_true(isinf(kcheck_nmse(want, nan, 2, 2)));
    assert_true(isinf(kcheck_nmse(nan, inf, 2, 2)));
    assert_true(kcheck_nmse(nan, nan, 2, 2) == 0);
    assert_true(kcheck_nmse(inf, inf, 2, 2) == 0);
    const double zero[] = { 0, 0 }, one[] = { 0, 1 };
    assert_true(isinf(kcheck_nmse(one, zero, 1, 2)));
}

struct tally {
    int n, n_failed, n_skipped;
};

static int check_case(void *arg, const struct kcase *c, struct err *e) {
    struct tally *t = arg;
    struct kcheck *k;
    struct kresult r;
    char name[64];
    kcase_name(c, name, sizeof name);
    int rc = kcheck_new(&k, &params, c, e);
    if (rc == ERR_UNSUPPORTED) {
        t->n_skipped++;
        return 0;
    }
    if (rc < 0 || kcheck_run(k, &r, e) < 0) fail_msg("%s: %s", name, e->msg);
    t->n++;
    t->n_failed += !r.passed;
    if (!r.passed && params.tolerance > 0) fail_msg("%s, %d tokens: %s", name, c->n_tok, r.why);
    if (!r.passed) assert_true(r.why[0]);
    struct kwork w;
    kcheck_work(k, &w);
    assert_true(w.cold_bytes + w.warm_bytes > 0 && w.footprint > 0 && w.n_copies >= 1);
    assert_true((double)w.n_copies * w.cold_bytes <= (double)COLD);
    assert_int_equal(kcheck_call(k, c->n_tok == 1 ? w.n_copies + 1 : 2, e), 0);
    kcheck_free(k);
    return 0;
}

static void every_cell_passes(void **state) {
    (void)state;
    struct tally t = { 0 };
    struct err e = { 0 };
    const struct kcase_filter f = all_cells();
    assert_int_equal(kcase_each(&f, check_case, &t, &e), 0);
    print_message("# %d cells, %d skipped\n", t.n, t.n_skipped);
    assert_true(t.n > 100);
    assert_int_equal(t.n_skipped, 0);
}

/* A limit of nothing fails every cell that rounds. */
static void no_tolerance(void **state) {
    (void)state;
    struct tally t = { 0 };
    struct err e = { 0 };
    struct kcase_filter f = all_cells();
    if (!column_available(COL_avx2)) skip();
    f.col[COL_ref] = false;
    params.tolerance = 0;
    int rc = kcase_each(&f, check_case, &t, &e);
    params.tolerance = 1;
    assert_int_equal(rc, 0);
    assert_true(t.n_failed > t.n / 2);
}

/* One byte of one row of weights that the cell gets, but ref does not. */
static void wrong_weights_are_seen(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    static const enum qtype types[] = { QT_q4_0, QT_q8_0, QT_iq4_kt };
    for (size_t i = 0; i < N_ELEMS(types); i++) {
        const struct kcase c = { KCASE_MUL_MAT, COL_avx2, types[i], OP_mul_mat, 5, 0 };
        struct kcheck *k;
        struct kresult r;
        struct err e = { 0 };
        assert_int_equal(kcheck_new(&k, &params, &c, &e), 0);
        ((char *)tensor_row(k->nodes[0].src[0], params.shape.n_rows - 1))[70] ^= 0x55;
        assert_int_equal(kcheck_run(k, &r, &e), 0);
        assert_false(r.passed);
        assert_true(r.nmse > r.limit);
        assert_non_null(strstr(r.why, "promised"));
        kcheck_free(k);
    }
}

/* A position that the cell gets one too small. */
static void wrong_attention_is_seen(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    const struct kcase c = { KCASE_OP, COL_avx2, QT_f16, OP_attn, 3, 20 };
    struct kcheck *k;
    struct kresult r;
    struct err e = { 0 };
    assert_int_equal(kcheck_new(&k, &params, &c, &e), 0);
    struct tensor pos = *k->node.src[4];
    int32_t numbers[3];
    memcpy(numbers, pos.data, sizeof numbers);
    numbers[2]--;
    pos.data = numbers;
    k->nodes[0].src[4] = &pos;
    assert_int_equal(kcheck_run(k, &r, &e), 0);
    assert_false(r.passed);
    kcheck_free(k);
}

static void data_that_cannot_be_made(void **state) {
    (void)state;
    struct kcheck *k;
    struct err e = { 0 };
    struct kcheck_params p = params;
    const struct kcase c = { KCASE_MUL_MAT, COL_ref, QT_iq4_kt, OP_mul_mat, 1, 0 };
    p.shape.n = 96;
    assert_int_equal(kcheck_new(&k, &p, &c, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "rows of 96 are not a multiple of 256"));
    for (int64_t n = 1;; n++) {
        p.shape.n = 256;
        heap_fail_at(n);
        int rc = kcheck_new(&k, &p, &c, &e);
        heap_fail_at(0);
        if (rc == 0) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_null(k);
    }
    kcheck_free(k);
}

/* ---- time -------------------------------------------------------------------------------------
 */

/* Every reading is `step` later; every second sample takes `slow` more. */
struct fake_clock {
    int64_t now, step, slow;
    int n;
};

static int64_t tick(void *arg) {
    struct fake_clock *c = arg;
    c->n++;
    c->now += c->step + (c->n % 4 == 0 ? c->slow : 0);
    return c->now;
}

static void repeats(void **state) {
    (void)state;
    const struct kcase c = { KCASE_QUANTIZE, COL_ref, QT_q8_0, OP_get_rows, 1, 0 };
    struct kcheck *k;
    struct ktime t;
    struct err e = { 0 };
    struct fake_clock clock = { .step = 1000000 };
    struct ktime_params p = { 0.1, 0.01, 1e-3, { tick, &clock } };
    assert_int_equal(kcheck_new(&k, &params, &c, &e), 0);
    /* All alike: narrow at once, but a fifth of the time is spent. */
    assert_int_equal(ktime_run(k, &p, &t, &e), 0);
    assert_int_equal(t.calls, 1);
    assert_int_equal(t.n_rep, 20);
    assert_true(fabs(t.call_s.median - 1e-3) < 1e-12);
    /* Never narrow: all of the time. */
    clock.slow = 3000000;
    assert_int_equal(ktime_run(k, &p, &t, &e), 0);
    assert_true(t.n_rep > 35 && t.n_rep < 45);
    /* However little time, there are enough for an interval. */
    p.seconds = 0;
    assert_int_equal(ktime_run(k, &p, &t, &e), 0);
    assert_int_equal(t.n_rep, KTIME_MIN_REP);
    /* Short calls are timed together. */
    clock.step = 1000, clock.slow = 0;
    p.sample_s = 0.9e-6;
    assert_int_equal(ktime_run(k, &p, &t, &e), 0);
    assert_int_equal(t.calls, 1);
    kcheck_free(k);
}

static void roofs(void **state) {
    (void)state;
    struct peaks *p = calloc(1, sizeof *p);
    assert_non_null(p);
    struct kroof r;
    enum column f32 = COL_none, read = COL_none;
    if (!peak_cell_find(COL_avx2, PEAK_f32, &f32) || !peak_cell_find(COL_avx2, PEAK_read, &read))
        skip();
    p->memory_bytes = 1 << 30;
    p->known[0] = (struct peak_value){ f32, PEAK_f32, 2, 0, 100 };        /* G MAC/s */
    p->known[1] = (struct peak_value){ read, PEAK_read, 2, 1 << 30, 20 }; /* GB/s */
    p->n_known = 2;
    struct kwork w = { .macs = 1e9, .cold_bytes = 1e9, .footprint = 1e12, .peak = PEAK_f32 };
    ktime_roof(p, COL_avx2, &w, 2, &r);
    assert_true(r.by_memory && fabs(r.seconds - 0.05) < 1e-9 && r.gmacs == 100 && r.gbs == 20);
    w.macs = 1e10;
    ktime_roof(p, COL_avx2, &w, 2, &r);
    assert_true(!r.by_memory && fabs(r.seconds - 0.1) < 1e-9);
    assert_int_equal(p->n_known, 2);
    free(p);
}

/* Which compute peak a cell has; none of these runs. */
static void peaks_of_cells(void **state) {
    (void)state;
    static const struct {
        struct kcase c;
        enum peak peak;
    } want[] = {
        { { KCASE_MUL_MAT, COL_avx2, QT_f16, OP_mul_mat, 512, 0 }, PEAK_f32 },
        { { KCASE_MUL_MAT, COL_avx2, QT_q8_0, OP_mul_mat, 512, 0 }, PEAK_i8 },
        { { KCASE_MUL_MAT, COL_cuda, QT_f32, OP_mul_mat, 512, 0 }, PEAK_f32 },
        { { KCASE_MUL_MAT, COL_cuda, QT_f16, OP_mul_mat, 512, 0 }, PEAK_bf16 },
        { { KCASE_MUL_MAT, COL_cuda, QT_bf16, OP_mul_mat, 512, 0 }, PEAK_bf16 },
        { { KCASE_MUL_MAT, COL_cuda, QT_iq4_kt, OP_mul_mat, 512, 0 }, PEAK_i8 },
        { { KCASE_OP, COL_avx2, QT_f16, OP_attn, 512, 512 }, PEAK_f32 },
        { { KCASE_OP, COL_amx, QT_f16, OP_attn, 512, 512 }, PEAK_bf16 },
        { { KCASE_OP, COL_cuda, QT_f32, OP_attn, 512, 512 }, PEAK_f32 },
        { { KCASE_OP, COL_cuda, QT_f16, OP_attn, 512, 512 }, PEAK_bf16 },
        { { KCASE_OP, COL_cuda, QT_q8_0, OP_attn, 512, 512 }, PEAK_bf16 },
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const struct kcheck k = { .c = want[i].c };
        struct kwork w;
        char name[64];
        kcheck_work(&k, &w);
        kcase_name(&k.c, name, sizeof name);
        if (w.peak != want[i].peak) fail_msg("%s: %s", name, peak_name(w.peak));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_listed),
        cmocka_unit_test(filters),
        cmocka_unit_test(nmse),
        cmocka_unit_test(every_cell_passes),
        cmocka_unit_test(no_tolerance),
        cmocka_unit_test(wrong_weights_are_seen),
        cmocka_unit_test(wrong_attention_is_seen),
        cmocka_unit_test(data_that_cannot_be_made),
        cmocka_unit_test(repeats),
        cmocka_unit_test(roofs),
        cmocka_unit_test(peaks_of_cells),
    };
    return cmocka_run_group_tests_name("kcheck", tests, setup, teardown);
}
