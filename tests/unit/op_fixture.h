/* SPDX-License-Identifier: MIT
 * op_fixture.h - tensors with guarded padding, and running a node in every column, for tests of
 * ops.
 *
 * The cuda column is there without a card, too: see emulated.h.
 *
 * Every row of a tensor is followed by padding and the whole by guards, all filled with GUARD; no
 * cell may write there. A check runs the node in ref, then in every column of this machine that has
 * a cell of its own, with one and with two threads, whose bits must agree. */
#ifndef GGAUGE_TEST_OP_FIXTURE_H
#define GGAUGE_TEST_OP_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend.h"
#include "base/fp16.h"
#include "base/rng.h"
#include "emulated.h"

#define GUARD 0xA5
#define GUARD_BYTES 64 /* before, behind and between rows */
#define FIXTURE_MAX 16 /* tensors of one test case */

struct op_fixture {
    struct thread_pool *pool;
    struct rng rng;
    const char *what; /* the case, for messages */
    double limit[COL_count]; /* of a column that promises less than the others, else 0 */
    struct tensor tensors[FIXTURE_MAX];
    int n;
};

static inline void fixture_reset(struct op_fixture *f) {
    for (int i = 0; i < f->n; i++)
        free((char *)f->tensors[i].data - GUARD_BYTES);
    f->n = 0;
}

static inline int fixture_setup(void **state) {
    static struct op_fixture f;
    struct err e;
    use_emulated_cuda();
    f = (struct op_fixture){ .rng = { 20250622 }, .what = "" };
    *state = &f;
    for (int c = COL_ref; c < COL_count; c++)
        if (!column_available((enum column)c))
            print_message("# column %s skipped: it needs %s\n", column_name((enum column)c),
                          column_needs((enum column)c));
    return thread_pool_new(&f.pool, 2, &e);
}

static inline int fixture_teardown(void **state) {
    struct op_fixture *f = *state;
    fixture_reset(f);
    thread_pool_free(f->pool);
    return 0;
}

static inline size_t payload_bytes(const struct tensor *t) {
    return qtype_row_bytes((enum qtype)t->type, t->ne[0]);
}

/* [n_rows, n], every byte GUARD. */
static inline struct tensor *new_tensor(struct op_fixture *f, enum qtype type, int64_t n_rows,
                                        int64_t n) {
    assert_true(f->n < FIXTURE_MAX);
    struct tensor *t = &f->tensors[f->n++];
    *t = (struct tensor){ .type = type, .ne = { n, n_rows, 1, 1 }, .name = "x" };
    t->row_bytes = (payload_bytes(t) + 7) / 8 * 8 + GUARD_BYTES;
    size_t bytes = (size_t)n_rows * t->row_bytes + 2 * GUARD_BYTES;
    char *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    memset(p, GUARD, bytes);
    t->data = p + GUARD_BYTES;
    return t;
}

static inline float *f32_row(const struct tensor *t, int64_t r) {
    return tensor_row(t, r);
}

/* f32 [n_rows, n] of normal numbers. */
static inline struct tensor *new_normal(struct op_fixture *f, int64_t n_rows, int64_t n,
                                        double sigma) {
    struct tensor *t = new_tensor(f, QT_f32, n_rows, n);
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n; i++)
            f32_row(t, r)[i] = (float)(sigma * rng_normal(&f->rng));
    return t;
}

/* i32 [n], one row. */
static inline struct tensor *new_ids(struct op_fixture *f, int64_t n, const int32_t *ids) {
    struct tensor *t = new_tensor(f, QT_i32, 1, n);
    memcpy(t->data, ids, (size_t)n * sizeof *ids);
    return t;
}

static inline void check_guards(const struct op_fixture *f, const struct tensor *t) {
    const unsigned char *p = t->data;
    size_t n_rows = (size_t)tensor_rows(t), payload = payload_bytes(t);
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (p[(ptrdiff_t)i - GUARD_BYTES] != GUARD || p[n_rows * t->row_bytes + i] != GUARD)
            fail_msg("%s: byte %zu around the tensor was written", f->what, i);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = payload; i < t->row_bytes; i++)
            if (p[r * t->row_bytes + i] != GUARD)
                fail_msg("%s: row %zu, byte %zu behind the row was written", f->what, r,
                         i - payload);
}

/* Whether column c has a cell for the node itself, not for its op alone. */
static inline bool can_run(struct op_fixture *f, enum column c, const struct node *n) {
    struct backend b;
    struct err e = { 0 };
    if (!column_available(c) || !op_has_cell(c, n->op)) return false;
    if (column_is_cpu(c)) return true;
    if (backend_init(&b, c, f->pool, &e)) fail_msg("%s: %s", f->what, e.msg);
    const bool can = b.ops->supports(&b, n);
    backend_release(&b);
    return can;
}

static inline void run_node(struct op_fixture *f, enum column c, const struct node *n,
                            int n_threads) {
    struct backend b;
    struct err e = { 0 };
    if (backend_init(&b, c, f->pool, &e) || b.ops->run(&b, &n, 1, n_threads, false, 0, &e) ||
        b.ops->synchronize(&b, &e))
        fail_msg("%s: %s", f->what, e.msg);
    backend_release(&b);
}

/* Run the node in column c on one and on two threads; the content of dst before is `before`. */
static inline void run_twice(struct op_fixture *f, enum column c, const struct node *n,
                             const void *before) {
    size_t bytes = (size_t)tensor_rows(n->dst) * n->dst->row_bytes;
    memcpy(n->dst->data, before, bytes);
    run_node(f, c, n, 1);
    check_guards(f, n->dst);
    void *one = malloc(bytes);
    assert_non_null(one);
    memcpy(one, n->dst->data, bytes);
    memcpy(n->dst->data, before, bytes);
    run_node(f, c, n, 2);
    check_guards(f, n->dst);
    if (memcmp(one, n->dst->data, bytes) != 0)
        fail_msg("%s, %s: one and two threads disagree", f->what, column_name(c));
    free(one);
}

static inline double element(const struct tensor *t, int64_t r, int64_t i) {
    const void *row = tensor_row(t, r);
    return t->type == QT_f64 ? ((const double *)row)[i] : (double)((const float *)row)[i];
}

/* got against want [n_rows, n]: NaN and infinities at the same places, and of the others the root
 * mean square error within `limit` of that of want, no single one 30 times above. */
static inline void compare(const struct op_fixture *f, const char *column, const struct tensor *got,
                           const double *want, double limit) {
    int64_t n = got->ne[0], total = n * tensor_rows(got), finite = 0;
    double err2 = 0, want2 = 0, worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < total; i++) {
        double x = element(got, i / n, i % n), y = want[i];
        if (isnan(x) != isnan(y) || (isinf(y) && x != y) || (isinf(x) && !isinf(y)))
            fail_msg("%s, %s: row %lld, element %lld: got %g, expected %g", f->what, column,
                     (long long)(i / n), (long long)(i % n), x, y);
        if (!isfinite(y)) continue;
        finite++;
        err2 += (x - y) * (x - y);
        want2 += y * y;
        if (fabs(x - y) > worst) worst = fabs(x - y), at = i;
    }
    if (finite == 0) return;
    double rms = sqrt(want2 / (double)finite), err = sqrt(err2 / (double)finite);
    if (err > limit * rms || worst > 30 * limit * fmax(rms, fabs(want[at])))
        fail_msg(
            "%s, %s: error %.3g rms, limit %.3g; worst %.9g for %.9g in row %lld, element %lld",
            f->what, column, err / rms, limit, element(got, at / n, at % n), want[at],
            (long long)(at / n), (long long)(at % n));
}

/* ref against want (NULL = nothing known) within limit_ref, every other column against ref within
 * limit. dst starts out as it is. */
static inline void check_node(struct op_fixture *f, const struct node *n, const double *want,
                              double limit_ref, double limit) {
    size_t rows = (size_t)tensor_rows(n->dst), bytes = rows * n->dst->row_bytes;
    size_t width = (size_t)n->dst->ne[0];
    void *before = malloc(bytes);
    double *ref = malloc(rows * width * sizeof *ref);
    assert_true(before && ref);
    memcpy(before, n->dst->data, bytes);
    run_twice(f, COL_ref, n, before);
    if (want) compare(f, "ref", n->dst, want, limit_ref);
    for (size_t i = 0; i < rows * width; i++)
        ref[i] = element(n->dst, (int64_t)(i / width), (int64_t)(i % width));
    for (int c = COL_ref + 1; c < COL_count; c++) {
        if (!can_run(f, (enum column)c, n)) continue;
        run_twice(f, (enum column)c, n, before);
        compare(f, column_name((enum column)c), n->dst, ref, f->limit[c] > 0 ? f->limit[c] : limit);
    }
    free(before);
    free(ref);
}

#endif
