/* SPDX-License-Identifier: MIT
 * test_stats_basic.c - mean, variance and quantiles against closed forms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "stats/quantile.h"
#include "stats/welford.h"

static void assert_near(double got, double want, double rel) {
    if (!(fabs(got - want) <= rel * fabs(want))) fail_msg("got %.17g, expected %.17g", got, want);
}

static void test_welford(void **state) {
    (void)state;
    struct welford w = { 0 };
    assert_true(isnan(welford_var(&w)));
    assert_true(isnan(welford_stddev(&w)));
    welford_add(&w, 7);
    assert_true(isnan(welford_var(&w)));
    assert_true(welford_stddev(&w) == 0);
    /* 1..n has mean (n+1)/2 and sample variance n(n+1)/12 */
    w = (struct welford){ 0 };
    for (int i = 1; i <= 1000; i++)
        welford_add(&w, i);
    assert_near(w.mean, 500.5, 1e-15);
    assert_near(welford_var(&w), 1000.0 * 1001 / 12, 1e-14);
    assert_near(welford_stddev(&w), sqrt(1000.0 * 1001 / 12), 1e-14);
}

/* The textbook formula loses every digit here. */
static void test_welford_offset(void **state) {
    (void)state;
    static const double x[] = { 4, 7, 13, 16 }; /* variance 30 */
    struct welford w = { 0 };
    for (size_t i = 0; i < N_ELEMS(x); i++)
        welford_add(&w, 1e9 + x[i]);
    assert_near(welford_var(&w), 30, 1e-12);
}

/* avg_ts and stddev_ts of llama-bench: sqrt(sum ts^2/(n-1) - mean^2 n/(n-1)). */
static void test_welford_bench(void **state) {
    (void)state;
    static const double t_ns[] = { 21e6, 20e6, 25e6, 22e6, 20.5e6 };
    struct welford w = { 0 };
    double sum = 0, sq = 0, n = N_ELEMS(t_ns);
    for (size_t i = 0; i < N_ELEMS(t_ns); i++) {
        double ts = 1e9 * 512 / t_ns[i];
        welford_add(&w, ts);
        sum += ts, sq += ts * ts;
    }
    double mean = sum / n;
    assert_near(w.mean, mean, 1e-14);
    assert_near(welford_stddev(&w), sqrt(sq / (n - 1) - mean * mean * n / (n - 1)), 1e-9);
}

static void test_welford_nan(void **state) {
    (void)state;
    static const double bad[] = { NAN, INFINITY, -INFINITY };
    for (size_t b = 0; b < N_ELEMS(bad); b++) {
        struct welford w = { 0 };
        welford_add(&w, bad[b]);
        assert_true(isnan(welford_stddev(&w)));
        welford_add(&w, 1);
        welford_add(&w, 2);
        assert_false(isfinite(w.mean));
        assert_true(isnan(welford_var(&w)));
    }
}

static void test_quantile(void **state) {
    (void)state;
    /* R: quantile(c(1, 2, 4, 8), c(0, .1, .25, .5, .9, 1)) */
    static const double v[] = { 1, 2, 4, 8 };
    static const double p[] = { 0, 0.1, 0.25, 0.5, 0.9, 1 };
    static const double want[] = { 1, 1.3, 1.75, 3, 6.8, 8 };
    for (size_t i = 0; i < N_ELEMS(p); i++)
        assert_near(quantile_sorted(v, N_ELEMS(v), p[i]), want[i], 1e-14);
    assert_near(quantile_sorted(v, 1, 0.3), 1, 0);
    assert_true(isnan(quantile_sorted(v, 0, 0.5)));
    assert_true(isnan(quantile_sorted(v, 4, -0.01)));
    assert_true(isnan(quantile_sorted(v, 4, 1.01)));
    assert_true(isnan(quantile_sorted(v, 4, NAN)));
}

static void test_quantile_nonfinite(void **state) {
    (void)state;
    double v[] = { 3, NAN, 1, -INFINITY, 2 };
    sort_f64(v, 5);
    assert_true(v[0] == -INFINITY && v[1] == 1 && v[2] == 2 && v[3] == 3 && isnan(v[4]));
    assert_true(isnan(quantile_sorted(v, 5, 0)));
    assert_true(isnan(median_f64(v, 5)));
    double w[] = { -INFINITY, -INFINITY, 5, INFINITY, INFINITY, INFINITY };
    assert_true(quantile_sorted(w, 6, 0.1) == -INFINITY);
    assert_true(quantile_sorted(w, 6, 0.4) == 5);
    assert_true(quantile_sorted(w, 6, 0.7) == INFINITY);
}

static void test_median(void **state) {
    (void)state;
    double odd[] = { 9, 1, 5 }, even[] = { 9, 1, 5, 3 };
    assert_near(median_f64(odd, 3), 5, 0);
    assert_near(median_f64(even, 4), 4, 0);
    assert_true(isnan(median_f64(odd, 0)));
}

static void test_sort(void **state) {
    (void)state;
    double v[1000];
    struct rng r = { 1 };
    for (size_t i = 0; i < N_ELEMS(v); i++)
        v[i] = rng_below(&r, 8) ? rng_normal(&r) : NAN;
    sort_f64(v, N_ELEMS(v));
    for (size_t i = 1; i < N_ELEMS(v); i++)
        if (!(v[i - 1] <= v[i]) && !isnan(v[i])) fail_msg("seed 1: not in order at %zu", i);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_welford),       cmocka_unit_test(test_welford_offset),
        cmocka_unit_test(test_welford_bench), cmocka_unit_test(test_welford_nan),
        cmocka_unit_test(test_quantile),      cmocka_unit_test(test_quantile_nonfinite),
        cmocka_unit_test(test_median),        cmocka_unit_test(test_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
