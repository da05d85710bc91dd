/* SPDX-License-Identifier: MIT
 * test_act_like.c - ref fed the rounded activations of avx2 agrees with avx2 where ref alone does
 * not, on a small quantised model; and what is refused. */
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
#include "exec/observer.h"

#define N_TOK 40
#define N_VOCAB 300

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen3");
    assert_int_equal(t.n_vocab, N_VOCAB);
    t.quantised = true;
    snprintf(path, sizeof path, "/tmp/ggauge-tiny-XXXXXX");
    close(mkstemp(path));
    if (tiny_model_write(&t, path, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

static struct arm_params params(const char *backend, const char *act_like) {
    return (struct arm_params){ .model = path,
                                .backend = backend,
                                .act_like = act_like,
                                .n_ctx = 64,
                                .n_seq = 1,
                                .n_batch = 64,
                                .n_ubatch = 16,
                                .n_threads = 2,
                                .type_k = "f32",
                                .type_v = "f32" };
}

/* ln p [N_TOK, N_VOCAB] */
static int keep(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    double *out = (double *)arg + (size_t)a->i * N_VOCAB;
    for (int v = 0; v < N_VOCAB; v++)
        out[v] = (double)a->logits[v] - a->max - a->lse;
    return 0;
}

/* The text in three batches, the second longer than a micro-batch. */
static void run(const char *backend, const char *act_like, double *log_prob) {
    static const int from[] = { 0, 1, 37, N_TOK };
    int32_t token[N_TOK], pos[N_TOK], seq[N_TOK] = { 0 };
    bool want[N_TOK];
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = params(backend, act_like);
    for (int i = 0; i < N_TOK; i++) {
        token[i] = (i * i * 7 + 3 * i) % N_VOCAB;
        pos[i] = i;
        want[i] = true;
    }
    if (arm_open(&a, &p, &e)) fail_msg("%s", e.msg);
    for (int k = 0; k < 3; k++) {
        int i = from[k];
        struct arm_batch b = { from[k + 1] - i, token + i, pos + i, seq + i, want + i, true };
        if (arm_decode(a, &b, keep, log_prob + (size_t)i * N_VOCAB, &e)) fail_msg("%s", e.msg);
    }
    arm_close(a);
}

static double largest_difference(const double *a, const double *b) {
    double d = 0;
    for (int i = 0; i < N_TOK * N_VOCAB; i++)
        d = fmax(d, fabs(a[i] - b[i]));
    return d;
}

static void ref_follows_avx2(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    size_t n = sizeof(double) * N_TOK * N_VOCAB;
    double *avx2 = malloc(n), *like = malloc(n), *plain = malloc(n);
    run("avx2", NULL, avx2);
    run("ref", "avx2", like);
    run("ref", NULL, plain);
    assert_true(largest_difference(like, avx2) < 1e-4);
    assert_true(largest_difference(plain, avx2) > 1e-3);
    free(avx2);
    free(like);
    free(plain);
}

/* A column that rounds no activations changes nothing. */
static void ref_like_itself(void **state) {
    (void)state;
    size_t n = sizeof(double) * N_TOK * N_VOCAB;
    double *like = malloc(n), *plain = malloc(n);
    run("ref", "ref", like);
    run("ref", NULL, plain);
    assert_memory_equal(like, plain, n);
    free(like);
    free(plain);
}

static void refused(const char *backend, const char *act_like, int code, const char *word) {
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = params(backend, act_like);
    assert_int_equal(arm_open(&a, &p, &e), code);
    assert_null(a);
    assert_non_null(strstr(e.msg, word));
}

static void wrong_combinations(void **state) {
    (void)state;
    refused(NULL, "avx2", ERR_ARG, "--act-like goes with --backend ref");
    refused("avx2", "avx2", ERR_ARG, "--act-like goes with --backend ref");
    refused("ref", "avx1", ERR_ARG, "'avx1' is not a column");
    if (!column_available(COL_cuda)) refused("ref", "cuda", ERR_UNSUPPORTED, "cannot run here");
}

static bool want_all(void *arg, const struct node *n) {
    (void)arg, (void)n;
    return true;
}

static int see_nothing(void *arg, const struct node *n, void *data, struct err *e) {
    (void)arg, (void)n, (void)data, (void)e;
    return 0;
}

static void it_cannot_be_observed(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    struct err e = { 0 };
    struct arm *a;
    struct observer o = { .want = want_all, .see = see_nothing };
    struct arm_params p = params("ref", "avx2");
    assert_int_equal(arm_open(&a, &p, &e), 0);
    assert_int_equal(arm_observe(a, NULL, &e), 0);
    assert_int_equal(arm_observe(a, &o, &e), ERR_UNSUPPORTED);
    arm_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_follows_avx2),
        cmocka_unit_test(ref_like_itself),
        cmocka_unit_test(wrong_combinations),
        cmocka_unit_test(it_cannot_be_observed),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
