/* SPDX-License-Identifier: MIT
 * test_verdict.c - the rules of a comparison, one case for each side of every limit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "measure/verdict.h"

#define N 255

static const struct relation same = { true, false, 0.002, 1e-3, 4096 };
static const struct relation other_weights = { false, false, 0.002, 1e-3, 4096 };
static const struct relation equal_bits = { true, true, 0.002, 1e-3, 4096 };

/* A healthy chunk of mean nll a and b. */
static struct compare_chunk chunk(double a, double b) {
    struct compare_chunk c = { .window = 6, .n = N, .nll = { N * a, N * b }, .n_same_top = N };
    c.bad[SIDE_A].pos = c.bad[SIDE_B].pos = -1;
    return c;
}

static void expect(struct verdict v, enum status s, enum reason r, const char *text) {
    if (v.status != s || v.reason != r || (text && !strstr(v.text, text)))
        fail_msg("%s %s \"%s\", expected %s %s with \"%s\"", status_name(v.status),
                 reason_name(v.reason), v.text, status_name(s), reason_name(r), text ? text : "");
}

static void healthy_chunks_say_nothing(void **state) {
    (void)state;
    struct compare_chunk c = chunk(4.0, 4.001);
    expect(verdict_chunk(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
    c.n_different = N;
    expect(verdict_chunk(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
}

static void numbers_must_be_finite(void **state) {
    (void)state;
    struct compare_chunk c = chunk(4.0, 4.0);
    c.bad[SIDE_B].pos = 300;
    c.bad[SIDE_B].token = 17;
    expect(verdict_chunk(&other_weights, &c), STATUS_FAIL, REASON_NONFINITE,
           "arm B: the logit of token 17 at position 300 of chunk 7");
    c.bad[SIDE_A].pos = 301;
    expect(verdict_chunk(&same, &c), STATUS_MISTRUSTED, REASON_REFERENCE, NULL);
    c.bad[SIDE_B].pos = -1;
    expect(verdict_chunk(&same, &c), STATUS_FAIL, REASON_NONFINITE, "arm A");
}

static void promised_bits_must_be_equal(void **state) {
    (void)state;
    struct compare_chunk c = chunk(4.0, 4.0);
    expect(verdict_chunk(&equal_bits, &c), STATUS_OPEN, REASON_NONE, NULL);
    c.n_different = 1;
    c.d_max = 1e-7;
    expect(verdict_chunk(&equal_bits, &c), STATUS_FAIL, REASON_NOT_BITWISE, "1 of 255");
}

static void guessing_is_worse_than_any_model(void **state) {
    (void)state;
    double uniform = log(4096.0);
    struct compare_chunk c = chunk(4.0, uniform + 1);
    expect(verdict_positions(&other_weights, &c), STATUS_FAIL, REASON_WORSE_THAN_UNIFORM, "arm B");
    c = chunk(uniform + 1, 4.0);
    expect(verdict_positions(&other_weights, &c), STATUS_FAIL, REASON_WORSE_THAN_UNIFORM, "arm A");
    /* A model of random weights guesses, in both arms: no alarm on either side of the line. */
    c = chunk(uniform + 0.01, uniform - 0.01);
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
    c = chunk(uniform + 3, uniform + 3.2);
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
    c = chunk(4.0, uniform + 1); /* too few positions to say */
    c.n = 3;
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
}

static void logits_must_depend_on_something(void **state) {
    (void)state;
    struct compare_chunk c = chunk(4.0, 4.0);
    c.constant[SIDE_B] = true;
    expect(verdict_positions(&other_weights, &c), STATUS_FAIL, REASON_CONSTANT_LOGITS, "arm B");
    c.constant[SIDE_A] = true;
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
}

static void one_set_of_weights_stays_together(void **state) {
    (void)state;
    struct compare_chunk c = chunk(4.0, 4.0 + log(1.49));
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
    c = chunk(4.0, 4.0 + log(1.51));
    expect(verdict_positions(&same, &c), STATUS_FAIL, REASON_PPL_RATIO, NULL);
    expect(verdict_positions(&other_weights, &c), STATUS_OPEN, REASON_NONE, NULL);
    c = chunk(4.0 + log(1.51), 4.0);
    expect(verdict_positions(&same, &c), STATUS_FAIL, REASON_PPL_RATIO, NULL);
    c = chunk(4.0, 4.0);
    c.n_same_top = 179;
    expect(verdict_positions(&same, &c), STATUS_OPEN, REASON_NONE, NULL);
    c.n_same_top = 178; /* 69.8 % */
    expect(verdict_positions(&same, &c), STATUS_FAIL, REASON_TOP1, NULL);
}

/* n chunks of mean +- spread in turn. */
static struct welford chunks(int n, double mean, double spread) {
    struct welford w = { 0 };
    for (int i = 0; i < n; i++)
        welford_add(&w, mean + (i % 2 ? spread : -spread));
    return w;
}

static void the_mean_waits_for_eight_chunks(void **state) {
    (void)state;
    struct welford w = chunks(7, 0.5, 1e-6);
    expect(verdict_mean(&same, &w), STATUS_OPEN, REASON_NONE, NULL);
    w = chunks(8, 0.5, 1e-6);
    expect(verdict_mean(&same, &w), STATUS_FAIL, REASON_MEAN, "after 8 chunks");
    w = chunks(8, -0.5, 1e-6);
    expect(verdict_mean(&same, &w), STATUS_FAIL, REASON_MEAN, NULL);
    w = chunks(8, 1e-4, 1e-6);
    expect(verdict_mean(&same, &w), STATUS_PASS, REASON_NONE, NULL);
}

static void the_mean_decides_with_its_interval(void **state) {
    (void)state;
    struct welford w = chunks(40, 0.0019, 1e-3);
    expect(verdict_mean(&same, &w), STATUS_OPEN, REASON_NONE, NULL);
    double u = confseq_radius(&w, 1e-3);
    w = chunks(40, 0.002 + 1.01 * u, 1e-3);
    expect(verdict_mean(&same, &w), STATUS_FAIL, REASON_MEAN, NULL);
    w = chunks(40, 0.002 + 0.99 * u, 1e-3);
    expect(verdict_mean(&same, &w), STATUS_OPEN, REASON_NONE, NULL);
    assert_true(u < 0.002);
    w = chunks(40, 0.99 * (0.002 - u), 1e-3);
    expect(verdict_mean(&same, &w), STATUS_PASS, REASON_NONE, NULL);
}

static void single_positions_are_judged_by_the_others(void **state) {
    (void)state;
    struct tail t = { .n = 10200,
                      .p50 = 0.013,
                      .p99 = 0.09,
                      .p999 = 0.15,
                      .max = 0.3,
                      .max_chunk = 3,
                      .max_pos = 400,
                      .gap_max = 0.4 };
    expect(verdict_tail(&same, &t), STATUS_OPEN, REASON_NONE, NULL);
    t.max = 15 * 0.09 + 0.01;
    expect(verdict_tail(&same, &t), STATUS_FAIL, REASON_TAIL, "position 400 of chunk 4");
    expect(verdict_tail(&other_weights, &t), STATUS_OPEN, REASON_NONE, NULL);
    t.p50 = t.p99 = t.p999 = 1e-7; /* far from the others, but nothing */
    t.max = 0.019;
    expect(verdict_tail(&same, &t), STATUS_OPEN, REASON_NONE, NULL);
    t.max = 0.021;
    expect(verdict_tail(&same, &t), STATUS_FAIL, REASON_TAIL, NULL);
    t.max = 0.01;
    t.gap_max = 1.01;
    expect(verdict_tail(&same, &t), STATUS_FAIL, REASON_TAIL, "prefers");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy_chunks_say_nothing),
        cmocka_unit_test(numbers_must_be_finite),
        cmocka_unit_test(promised_bits_must_be_equal),
        cmocka_unit_test(guessing_is_worse_than_any_model),
        cmocka_unit_test(logits_must_depend_on_something),
        cmocka_unit_test(one_set_of_weights_stays_together),
        cmocka_unit_test(the_mean_waits_for_eight_chunks),
        cmocka_unit_test(the_mean_decides_with_its_interval),
        cmocka_unit_test(single_positions_are_judged_by_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
