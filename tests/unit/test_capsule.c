/* SPDX-License-Identifier: MIT
 * test_capsule.c - an op written to a capsule, read back and run again gives the same bits; what
 * does not fit together is one error that says where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/rng.h"
#include "measure/replay_op.h"

#define N 64   /* columns of the weight */
#define ROWS 5 /* of it: columns of the result */
#define TOK 3

static char path[64];

static void put(struct op_case *c, int s, enum qtype type, int64_t ne0, int64_t ne1) {
    struct err e = { 0 };
    struct tensor *t = &c->src[s];
    *t = (struct tensor){ .type = type, .ne = { ne0, ne1, 1, 1 } };
    t->row_bytes = qtype_row_bytes(type, ne0);
    t->data = c->owned[s] = heap_calloc((size_t)ne1, t->row_bytes, &e);
    assert_non_null(t->data);
}

/* A product of q8_0 weights, with what ref makes of it as A's result. */
static struct capsule *product(void) {
    struct err e = { 0 };
    struct rng rng = { 5 };
    float row[N];
    const struct qkernel *k = qkernel_find(COL_ref, QT_q8_0, false, NULL);
    struct capsule *c = heap_calloc(1, sizeof *c, &e);
    assert_non_null(c);
    c->c = (struct op_case){ .name = "ffn_out-3",
                             .il = 3,
                             .op = OP_mul_mat,
                             .n_tok = TOK,
                             .dst_type = QT_f32,
                             .n_cols = ROWS };
    put(&c->c, 0, QT_q8_0, N, ROWS);
    put(&c->c, 1, QT_f32, N, TOK);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < N; i++)
            row[i] = (float)rng_normal(&rng);
        k->quantize_row(row, tensor_row(&c->c.src[0], r), N, NULL);
    }
    for (int i = 0; i < N * TOK; i++)
        ((float *)c->c.src[1].data)[i] = (float)rng_normal(&rng);
    c->n_cols_all = 100;
    c->col0 = 32;
    c->act_a = c->act_b = QT_f32;
    c->position = heap_calloc(TOK, sizeof *c->position, &e);
    for (int t = 0; t < TOK; t++)
        c->position[t] = 10 + t;
    c->out_a = heap_calloc(TOK * ROWS, sizeof *c->out_a, &e);
    c->limit_a = c->limit_b = (struct op_limit){ 1e-5, 1e-12, true };
    snprintf(c->cell_a, sizeof c->cell_a, "q8_0@ref");
    snprintf(c->backend_a, sizeof c->backend_a, "ref");
    snprintf(c->finding, sizeof c->finding, "product");
    struct thread_pool *pool;
    struct backend b;
    assert_int_equal(thread_pool_new(&pool, 1, &e), 0);
    assert_int_equal(backend_cpu_init(&b, COL_ref, pool, &e), 0);
    assert_int_equal(op_case_run(&c->c, &b, 1, QT_f32, c->out_a, &e), 0);
    backend_release(&b);
    thread_pool_free(pool);
    return c;
}

static int setup(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/ggauge-capsule-XXXXXX");
    close(mkstemp(path));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

static void test_round_trip(void **state) {
    (void)state;
    struct err e = { 0 };
    struct capsule *c = product(), *d = NULL;
    if (capsule_save(c, path, &e) || capsule_open(&d, path, &e)) fail_msg("%s", e.msg);
    assert_string_equal(d->c.name, "ffn_out-3");
    assert_int_equal(d->c.il, 3);
    assert_int_equal(d->col0, 32);
    assert_int_equal(d->n_cols_all, 100);
    assert_int_equal(d->position[2], 12);
    assert_true(d->limit_a.max_rel == 1e-5 && d->limit_b.row_nmse == 1e-12);
    assert_string_equal(d->cell_a, "q8_0@ref");
    assert_null(d->out_b);
    for (int s = 0; s < 2; s++)
        assert_memory_equal(d->c.src[s].data, c->c.src[s].data,
                            c->c.src[s].row_bytes * (size_t)tensor_rows(&c->c.src[s]));
    capsule_free(c);
    capsule_free(d);
}

static void test_replay(void **state) {
    (void)state;
    struct err e = { 0 };
    struct replay r;
    struct capsule *c = product();
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        assert_int_equal(replay_op(c, COL_ref, n_threads, FAULT_none, &r, &e), 0);
        assert_string_equal(r.cell, "q8_0@ref");
        assert_true(r.within && r.error.max_rel == 0);
        assert_int_equal(r.n_differ_a, 0);
        assert_int_equal(r.n_differ_b, -1);
    }
    for (int col = COL_avx2; column_is_cpu((enum column)col); col++) {
        if (!column_available((enum column)col)) continue;
        if (replay_op(c, (enum column)col, 2, FAULT_none, &r, &e)) fail_msg("%s", e.msg);
        assert_true(r.within && r.error.n == TOK * ROWS && r.diff_a < 0.1);
    }
    c->out_a[4] += 1; /* an arm that made something else */
    assert_int_equal(replay_op(c, COL_ref, 1, FAULT_none, &r, &e), 0);
    assert_int_equal(r.n_differ_a, 1);
    assert_true(r.diff_a > 0.01 && r.within);
    capsule_free(c);
}

/* However few rows of a text a case holds, they are computed as the text was. */
static void test_cell_of_one_row(void **state) {
    (void)state;
    struct tensor dst;
    const struct op_case c = {
        .op = OP_attn, .n_tok = 1, .dst_type = QT_f32, .n_cols = 64, .name = "kqv_out-0"
    };
    const struct node n = op_case_node(&c, QT_f32, &dst);
    enum column col = COL_none;
    assert_non_null(op_cell_find(COL_amx, &n, &col));
    assert_int_equal(col, COL_amx);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void spoil_rows(struct capsule *c) {
    c->c.n_cols = ROWS - 1;
}
static void spoil_inner(struct capsule *c) {
    c->c.src[1].ne[0] = N / 2;
    c->c.src[1].ne[1] = TOK * 2;
}
static void spoil_type(struct capsule *c) {
    c->c.src[1].type = QT_i32;
}
static void spoil_dst(struct capsule *c) {
    c->c.dst_type = QT_f16;
}
static void spoil_missing(struct capsule *c) {
    heap_free(c->c.owned[1]);
    c->c.owned[1] = c->c.src[1].data = NULL;
}
static void spoil_op(struct capsule *c) {
    c->c.op = OP_attn;
}
static void spoil_columns(struct capsule *c) {
    c->n_cols_all = 2;
}
static void spoil_index(struct capsule *c) {
    c->c.op = OP_get_rows;
    c->c.n_cols = N;
    heap_free(c->c.owned[1]);
    heap_free(c->out_a);
    c->out_a = NULL;
    put(&c->c, 1, QT_i32, TOK, 1);
    ((int32_t *)c->c.src[1].data)[1] = ROWS;
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        void (*spoil)(struct capsule *c);
        const char *says;
    } cases[] = {
        { spoil_rows, "source 0 is" },   { spoil_inner, "source 1 is" },
        { spoil_type, "expected f32" },  { spoil_dst, "its result is f16" },
        { spoil_missing, "is missing" }, { spoil_op, "make no attention" },
        { spoil_columns, "n_cols_all" }, { spoil_index, "outside of [0, 5)" },
    };
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct err e = { 0 };
        struct capsule *c = product(), *d;
        cases[i].spoil(c);
        if (capsule_save(c, path, &e)) fail_msg("%s", e.msg);
        int rc = capsule_open(&d, path, &e);
        if (rc >= 0 || !strstr(e.msg, cases[i].says) || !strstr(e.msg, path))
            fail_msg("case %zu: %d, '%s', expected '%s'", i, rc, e.msg, cases[i].says);
        assert_null(d);
        capsule_free(c);
    }
}

static void test_no_capsule(void **state) {
    (void)state;
    struct err e = { 0 };
    struct gguf_writer *w;
    struct capsule *d;
    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    assert_int_equal(gguf_writer_begin(w, &e), 0);
    assert_int_equal(gguf_writer_end(w, &e), 0);
    gguf_writer_free(w);
    assert_int_equal(capsule_open(&d, path, &e), ERR_MISSING);
    assert_non_null(strstr(e.msg, "no capsule: capsule.version is missing"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_replay),
        cmocka_unit_test(test_cell_of_one_row), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_capsule),
    };
    return cmocka_run_group_tests_name("capsule", tests, setup, teardown);
}
