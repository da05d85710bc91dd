/* SPDX-License-Identifier: MIT
 * test_foreign.c - what is known of the cells of other engines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "measure/foreign.h"

static void known_by_type_and_engine(void **state) {
    (void)state;
    struct op_limit kt, any, attn, plain;
    assert_non_null(strstr(foreign_known("ik_llama.cpp", false, false, QT_iq4_kt, &kt), "q8_0_r8"));
    assert_non_null(strstr(foreign_known("llama.cpp", false, false, QT_iq4_kt, &any), "8 bits"));
    assert_non_null(
        strstr(foreign_known("ik_llama.cpp", true, false, QT_iq4_kt, &attn), "attention"));
    assert_non_null(
        strstr(foreign_known("llama.cpp", false, false, QT_f16, &plain), "half precision"));
    assert_true(kt.max_rel < plain.max_rel && plain.max_rel < any.max_rel);
    assert_non_null(foreign_known("ik_llama.cpp", false, true, QT_iq4_kt, &attn));
    assert_true(attn.max_rel > kt.max_rel);
    assert_null(foreign_known("llama.cpp", false, false, QT_none, &any));
}

/* "q4_1" is no "iq4_1" and "iq4_k" no "iq4_ks": names are whole. */
static void names_are_whole(void **state) {
    (void)state;
    struct op_limit q6, q60;
    assert_non_null(strstr(foreign_known("ik_llama.cpp", false, false, QT_q4_1, &q6), "q8_1"));
    assert_non_null(
        strstr(foreign_known("ik_llama.cpp", false, false, QT_q6_0, &q60), "of their own"));
    assert_non_null(
        strstr(foreign_known("ik_llama.cpp", false, false, QT_q4_0, &q60), "of their own"));
}

/* Noise is rounding, a factor is not. */
static void only_noise_is_rounding(void **state) {
    (void)state;
    float want[4096], noisy[4096], scaled[4096];
    uint32_t x = 1;
    for (int i = 0; i < 4096; i++) {
        x = x * 1664525u + 1013904223u;
        want[i] = (float)(x >> 8) / (1 << 24) - 0.5f;
        x = x * 1664525u + 1013904223u;
        noisy[i] = want[i] + 0.005f * ((float)(x >> 8) / (1 << 24) - 0.5f);
        scaled[i] = want[i] * 1.003f;
    }
    struct op_error noise = OP_ERROR_NONE, factor = OP_ERROR_NONE, nothing = OP_ERROR_NONE;
    op_error_add(&noise, 0, noisy, want, 4096);
    op_error_add(&factor, 0, scaled, want, 4096);
    assert_true(foreign_only_rounds(&noise));
    assert_false(foreign_only_rounds(&factor));
    assert_true(noise.nmse > factor.nmse / 4); /* the size does not tell them apart */
    assert_false(foreign_only_rounds(&nothing));
}

static void activations_can_be_used(void **state) {
    (void)state;
    assert_int_equal(foreign_act(0), QT_f32);
    int n = 0;
    for (; foreign_act(n) != QT_none; n++)
        assert_non_null(qkernel_find(COL_ref, foreign_act(n), false, NULL));
    assert_true(n >= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_by_type_and_engine),
        cmocka_unit_test(names_are_whole),
        cmocka_unit_test(only_noise_is_rounding),
        cmocka_unit_test(activations_can_be_used),
    };
    return cmocka_run_group_tests_name("foreign", tests, NULL, NULL);
}
