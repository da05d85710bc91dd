/* SPDX-License-Identifier: MIT
 * test_exp_avx2.c - the vector exponential against that of the C library in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend.h"
#include "base/fp16.h"

/* Tests are built with plain flags; only what touches the header gets the instruction set. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "avx2/exp_avx2.h"

static void exp8(const float *x, float *y) {
    _mm256_storeu_ps(y, exp_f32x8(_mm256_loadu_ps(x)));
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define STEP 1021u /* a prime, so that all low bits of a significand occur */

static float exp_one(float x) {
    float in[8] = { 0, 1, -1, x, 2, -2, 3, -3 }, out[8];
    exp8(in, out);
    return out[3];
}

/* Units in the last place of a float of this size, the smallest subnormal at least. */
static double ulp(double y) {
    int e;
    frexp(y, &e);
    return ldexp(1, (e < -125 ? -125 : e) - 24);
}

/* Every 1021st float of either sign up to 104 in size. */
static void test_error(void **state) {
    if (!column_available(COL_avx2)) skip();
    (void)state;
    double worst = 0;
    float worst_at = 0;
    for (int sign = 0; sign < 2; sign++) {
        for (uint32_t u = 0; u < f32_bits(104.0f); u += 8 * STEP) {
            float x[8], y[8];
            for (uint32_t i = 0; i < 8; i++)
                x[i] = f32_from_bits((u + i * STEP) | (uint32_t)sign << 31);
            exp8(x, y);
            for (int i = 0; i < 8; i++) {
                double want = exp((double)x[i]);
                if (want >= 0x1.ffffffp127) {
                    assert_true(isinf(y[i]));
                    continue;
                }
                double err = fabs((double)y[i] - want) / ulp(want);
                if (err > worst) worst = err, worst_at = x[i];
            }
        }
    }
    if (worst > 1.01) fail_msg("error of %.3f ulp at %a", worst, (double)worst_at);
}

static void test_edges(void **state) {
    if (!column_available(COL_avx2)) skip();
    (void)state;
    assert_true(exp_one(0.0f) == 1.0f);
    assert_true(exp_one(-0.0f) == 1.0f);
    assert_true(exp_one(-INFINITY) == 0.0f);
    assert_true(exp_one(-3.4e38f) == 0.0f);
    assert_true(exp_one(-1e6f) == 0.0f);
    assert_true(exp_one(-104.0f) == 0.0f);
    assert_true(exp_one(-103.0f) > 0.0f);
    assert_true(isfinite(exp_one(88.7f)));
    assert_true(isinf(exp_one(88.73f)));
    assert_true(isinf(exp_one(3.4e38f)));
    assert_true(isinf(exp_one(INFINITY)));
    assert_true(isnan(exp_one(NAN)));
    assert_true(isnan(exp_one(-NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_error),
                                        cmocka_unit_test(test_edges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
