/* SPDX-License-Identifier: MIT
 * test_stats_interval.c - intervals and Student's t against published tables, the statistics of
 * perplexity against their definitions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "stats/confseq.h"
#include "stats/interval.h"
#include "stats/ppl_stats.h"
#include "stats/proportion.h"
#include "stats/quantile.h"

static void assert_near(double got, double want, double rel) {
    if (!(fabs(got - want) <= rel * fabs(want))) fail_msg("got %.17g, expected %.17g", got, want);
}

/* The usual table of t(0.975), here to 10 digits. */
static void test_student(void **state) {
    (void)state;
    static const struct {
        int64_t dof;
        double t;
    } table[] = {
        { 1, 12.70620474 },   { 2, 4.302652730 },    { 3, 3.182446305 },  { 4, 2.776445105 },
        { 5, 2.570581836 },   { 6, 2.446911851 },    { 9, 2.262157163 },  { 10, 2.228138852 },
        { 20, 2.085963447 },  { 30, 2.042272456 },   { 60, 2.000297822 }, { 100, 1.983971519 },
        { 120, 1.979930405 }, { 1000, 1.962339081 },
    };
    for (size_t i = 0; i < N_ELEMS(table); i++)
        assert_near(student_t975(table[i].dof), table[i].t, 4e-10);
    assert_near(student_t975(INT64_MAX), 1.959963984540054, 1e-14);
    assert_true(isnan(student_t975(0)));
    assert_true(isnan(student_t975(-3)));
}

/* t(0.975) has closed forms for 1, 2 and 4 degrees of freedom. */
static void test_student_closed(void **state) {
    (void)state;
    double pi = acos(-1), p = 0.975, a = 4 * p * (1 - p);
    assert_near(student_t975(1), tan(pi * (p - 0.5)), 1e-13);
    assert_near(student_t975(2), 2 * (p - 0.5) * sqrt(2 / a), 1e-14);
    double q = cos(acos(sqrt(a)) / 3) / sqrt(a);
    assert_near(student_t975(4), 2 * sqrt(q - 1), 1e-13);
}

/* Where the finite series hands over to the expansion nothing may jump. */
static void test_student_handover(void **state) {
    (void)state;
    double before = student_t975(199) - student_t975(200);
    double across = student_t975(200) - student_t975(201);
    double after = student_t975(201) - student_t975(202);
    assert_near(across, sqrt(before * after), 1e-4);
    for (int64_t d = 1; d < 400; d++)
        assert_true(student_t975(d) > student_t975(d + 1));
}

/* Ranks and coverage as printed in tables of the sign test's interval. */
static void test_median_interval(void **state) {
    (void)state;
    static const struct {
        int n, low, high;
        double coverage;
    } table[] = {
        { 1, 1, 1, 0 },           { 2, 1, 2, 0.5 },          { 3, 1, 3, 0.75 },
        { 4, 1, 4, 0.875 },       { 5, 1, 5, 0.9375 },       { 6, 1, 6, 0.96875 },
        { 7, 1, 7, 0.984375 },    { 8, 1, 8, 0.9921875 },    { 9, 2, 8, 0.9609375 },
        { 10, 2, 9, 0.978516 },   { 11, 2, 10, 0.988281 },   { 12, 3, 10, 0.961426 },
        { 15, 4, 12, 0.964844 },  { 20, 6, 15, 0.958611 },   { 25, 8, 18, 0.956715 },
        { 50, 18, 33, 0.967161 }, { 100, 40, 61, 0.964800 },
    };
    double v[100];
    for (int i = 0; i < 100; i++)
        v[i] = i + 1;
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        struct interval c = median_interval95(v, table[i].n);
        if (c.low != table[i].low || c.high != table[i].high)
            fail_msg("n %d: ranks %g..%g, expected %d..%d", table[i].n, c.low, c.high, table[i].low,
                     table[i].high);
        if (fabs(median_interval_coverage(table[i].n) - table[i].coverage) > 5e-7)
            fail_msg("n %d: coverage %.9f, expected %.6f", table[i].n,
                     median_interval_coverage(table[i].n), table[i].coverage);
    }
}

static void test_median_interval_edges(void **state) {
    (void)state;
    assert_true(isnan(median_interval95(NULL, 0).low));
    assert_true(isnan(median_interval95(NULL, 0).high));
    assert_true(isnan(median_interval_coverage(0)));
    double v[] = { 1, 2, NAN };
    assert_true(isnan(median_interval95(v, 3).low));
    assert_true(isnan(median_interval95(v, 3).high));
    /* far beyond where 2^-n underflows: coverage stays just above 95 % */
    for (int64_t n = 6; n < 3000; n++)
        assert_true(median_interval_coverage(n) >= 0.95);
    assert_near(median_interval_coverage(1000001), 0.95, 1e-3);
}

/* 2000 samples of 15: the interval must cover the true median as often as it says. */
static void test_median_interval_covers(void **state) {
    (void)state;
    struct rng r = { 7 };
    int hit = 0;
    for (int i = 0; i < 2000; i++) {
        double v[15];
        for (size_t k = 0; k < N_ELEMS(v); k++)
            v[k] = exp(rng_normal(&r)); /* median 1 */
        sort_f64(v, N_ELEMS(v));
        struct interval c = median_interval95(v, N_ELEMS(v));
        hit += c.low <= 1 && 1 <= c.high;
    }
    /* 0.9648 +- 4 standard errors of a proportion */
    assert_true(fabs(hit / 2000.0 - median_interval_coverage(15)) < 4 * 0.0041);
}

static void test_ppl_definition(void **state) {
    (void)state;
    enum { CHUNKS = 7, TOKENS = 255 };
    struct rng r = { 3 };
    struct ppl_stats s = { 0 };
    double a = 0, b = 0, mean[CHUNKS], mm = 0, ss = 0;
    for (int c = 0; c < CHUNKS; c++) {
        double sum = 0, sq = 0, level = 2 + 0.3 * rng_normal(&r);
        for (int t = 0; t < TOKENS; t++) {
            double x = fabs(level + 2 * rng_normal(&r));
            sum += x, sq += x * x;
        }
        ppl_stats_add_chunk(&s, sum, sq, TOKENS);
        a += sum, b += sq, mean[c] = sum / TOKENS;
        assert_near(ppl_stats_ppl(&s), exp(a / ((c + 1) * TOKENS)), 1e-14);
    }
    double n = CHUNKS * TOKENS, ppl = exp(a / n);
    assert_int_equal(s.n_tokens, CHUNKS * TOKENS);
    assert_int_equal(s.n_chunks, CHUNKS);
    assert_near(ppl_stats_se_token(&s), ppl * sqrt((b / n - a / n * (a / n)) / (n - 1)), 1e-13);
    for (int c = 0; c < CHUNKS; c++)
        mm += mean[c] / CHUNKS;
    for (int c = 0; c < CHUNKS; c++)
        ss += (mean[c] - mm) * (mean[c] - mm);
    double se = sqrt(ss / (CHUNKS - 1) / CHUNKS);
    assert_near(ppl_stats_se_chunk(&s), ppl * se, 1e-12);
    struct interval ci = ppl_stats_interval95(&s);
    assert_near(ci.low, exp(a / n - 2.446911851 * se), 1e-9);
    assert_near(ci.high, exp(a / n + 2.446911851 * se), 1e-9);
}

static void test_ppl_few(void **state) {
    (void)state;
    struct ppl_stats s = { 0 };
    assert_true(isnan(ppl_stats_ppl(&s)));
    assert_true(isnan(ppl_stats_se_token(&s)));
    assert_true(isnan(ppl_stats_se_chunk(&s)));
    ppl_stats_add_chunk(&s, 2 * log(10), 2 * log(10) * log(10), 2);
    assert_near(ppl_stats_ppl(&s), 10, 1e-15);
    assert_true(ppl_stats_se_token(&s) < 1e-6);
    assert_true(isnan(ppl_stats_se_chunk(&s)));
    assert_true(isnan(ppl_stats_interval95(&s).low));
    assert_true(isnan(ppl_stats_interval95(&s).high));
}

static void test_ppl_nonfinite(void **state) {
    (void)state;
    static const double bad[] = { NAN, INFINITY };
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        struct ppl_stats s = { 0 };
        ppl_stats_add_chunk(&s, 100, 300, 50);
        ppl_stats_add_chunk(&s, bad[i], bad[i], 50);
        ppl_stats_add_chunk(&s, 120, 350, 50);
        assert_false(isfinite(ppl_stats_ppl(&s)));
        assert_true(isnan(ppl_stats_se_token(&s)));
        assert_true(isnan(ppl_stats_se_chunk(&s)));
        assert_true(isnan(ppl_stats_interval95(&s).low));
        assert_true(isnan(ppl_stats_interval95(&s).high));
    }
}

/* ---- confidence sequence --------------------------------------------------------------------- */

static void test_confseq_formula(void **state) {
    (void)state;
    struct welford w = { 0 };
    welford_add(&w, 1.0);
    assert_true(isinf(confseq_radius(&w, 0.001)));
    welford_add(&w, 3.0);
    /* n = 2, s^2 = 2 * 1.5^2 = 4.5, rho = 8 s^2 = 36, V = 9 */
    assert_near(confseq_radius(&w, 0.001), sqrt(45 * (log(45.0 / 36) + 2 * log(1000.0))) / 2,
                1e-12);
    struct interval ci = confseq_interval(&w, 0.001);
    assert_near(ci.high + ci.low, 4.0, 1e-12);
    struct welford same = { 0 };
    for (int i = 0; i < 5; i++)
        welford_add(&same, 0.25);
    assert_true(confseq_radius(&same, 0.001) == 0.0);
    welford_add(&same, (double)NAN);
    assert_true(isnan(confseq_radius(&same, 0.001)));
}

/* The promise: the true mean is outside at any look of a whole run with probability alpha. */
static void test_confseq_coverage(void **state) {
    (void)state;
    const double alpha = 0.05;
    const int runs = 2000;
    struct rng r = { 42 };
    int missed = 0, wide = 0;
    for (int k = 0; k < runs; k++) {
        struct welford w = { 0 };
        bool miss = false;
        for (int n = 1; n <= 300; n++) {
            welford_add(&w, 0.7 + rng_normal(&r));
            if (n < CONFSEQ_MIN_N) continue;
            struct interval ci = confseq_interval(&w, alpha);
            if (ci.low > 0.7 || ci.high < 0.7) miss = true;
        }
        missed += miss;
        wide += confseq_radius(&w, alpha) > 0.5;
    }
    if (missed > alpha * runs) fail_msg("%d of %d sequences miss the mean", missed, runs);
    assert_int_equal(wide, 0); /* and it closes in */
}

/* ---- shares ---------------------------------------------------------------------------------- */

static void test_wilson(void **state) {
    (void)state;
    static const struct {
        int64_t k, n;
        double low, high; /* R: binom::binom.wilson */
    } table[] = {
        { 0, 10, 0.0, 0.2775328 },
        { 5, 10, 0.2365931, 0.7634069 },
        { 10, 10, 0.7224672, 1.0 },
        { 1, 100, 0.001767, 0.0544862 },
    };
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        struct interval ci = wilson_interval95(table[i].k, table[i].n);
        assert_float_equal(ci.low, table[i].low, 2e-6);
        assert_float_equal(ci.high, table[i].high, 2e-6);
    }
    assert_true(isnan(wilson_interval95(0, 0).low));
}

static void test_mcnemar(void **state) {
    (void)state;
    assert_near(mcnemar_chi2(12, 2), 100.0 / 14, 1e-15);
    assert_true(mcnemar_chi2(2, 12) == mcnemar_chi2(12, 2));
    assert_true(mcnemar_chi2(0, 0) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_confseq_formula),
        cmocka_unit_test(test_confseq_coverage),
        cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_mcnemar),
        cmocka_unit_test(test_student),
        cmocka_unit_test(test_student_closed),
        cmocka_unit_test(test_student_handover),
        cmocka_unit_test(test_median_interval),
        cmocka_unit_test(test_median_interval_edges),
        cmocka_unit_test(test_median_interval_covers),
        cmocka_unit_test(test_ppl_definition),
        cmocka_unit_test(test_ppl_few),
        cmocka_unit_test(test_ppl_nonfinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
