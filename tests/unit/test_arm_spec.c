/* SPDX-License-Identifier: MIT
 * test_arm_spec.c - arms written as strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "cli/arm_spec.h"

static const struct arm_params defaults = { .model = "m.gguf",
                                            .n_ctx = 512,
                                            .n_batch = 2048,
                                            .n_ubatch = 512,
                                            .type_k = "f16",
                                            .type_v = "f16" };

static void options_override_the_command_line(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm_spec s;
    if (arm_spec_parse(&s, "--a", "  avx2 -t 3   -ub 64 -ctk q8_0 -m 'a file.gguf' ", &defaults,
                       &e))
        fail_msg("%s", e.msg);
    assert_int_equal(s.params.kind, ARM_BUILTIN);
    assert_string_equal(s.params.backend, "avx2");
    assert_int_equal(s.params.n_threads, 3);
    assert_int_equal(s.params.n_ubatch, 64);
    assert_int_equal(s.params.n_batch, 2048);
    assert_string_equal(s.params.type_k, "q8_0");
    assert_string_equal(s.params.type_v, "f16");
    assert_string_equal(s.params.model, "a file.gguf");
    arm_spec_release(&s);
}

static void every_kind(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum arm_kind kind;
        const char *path, *backend, *launch;
    } table[] = {
        { "ref", ARM_BUILTIN, NULL, "ref", NULL },
        { "best", ARM_BUILTIN, NULL, NULL, NULL },
        { "worker", ARM_WORKER, NULL, NULL, NULL },
        { "worker best -t 1", ARM_WORKER, NULL, NULL, NULL },
        { "worker ref", ARM_WORKER, NULL, "ref", NULL },
        { "worker:/a/ggauge avx2", ARM_WORKER, "/a/ggauge", "avx2", NULL },
        { "worker:\"/a b/ggauge\" --launch 'ssh -p 22 host'", ARM_WORKER, "/a b/ggauge", NULL,
          "ssh -p 22 host" },
        { "file:x/logits.bin", ARM_FILE, "x/logits.bin", NULL, NULL },
        { "cli:/a/llama-perplexity -fa on", ARM_TOOL, "/a/llama-perplexity", NULL, NULL },
        { "lib:/bin/true -ngl 0 -ot exps=CPU", ARM_WORKER, "/bin/true", NULL, NULL },
    };
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        struct err e = { 0 };
        struct arm_spec s;
        if (arm_spec_parse(&s, "--b", table[i].text, &defaults, &e))
            fail_msg("%s: %s", table[i].text, e.msg);
        assert_int_equal(s.params.kind, table[i].kind);
        const char *got[] = { s.params.path, s.params.backend, s.params.launch };
        const char *want[] = { table[i].path, table[i].backend, table[i].launch };
        for (int k = 0; k < 3; k++) {
            if (!want[k] != !got[k]) fail_msg("%s: %d", table[i].text, k);
            if (want[k]) assert_string_equal(got[k], want[k]);
        }
        arm_spec_release(&s);
    }
}

/* The last one wins, and the command line's -rtr is for arms of our own. */
static void options_without_a_value(void **state) {
    (void)state;
    static const struct {
        const char *text, *rtr, *fmoe, *fug, *nkvo;
    } table[] = {
        { "ref", "on", NULL, NULL, NULL },
        { "lib:/bin/true", NULL, NULL, NULL, NULL },
        { "lib:/bin/true -rtr -nkvo", "on", NULL, NULL, "on" },
        { "lib:/bin/true -fmoe -no-fug", NULL, "on", "off", NULL },
        { "lib:/bin/true -fmoe -no-fmoe -no-fug -fug", NULL, "off", "on", NULL },
    };
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        struct err e = { 0 };
        struct arm_spec s;
        struct arm_params with_rtr = defaults;
        with_rtr.engine.rtr = "on";
        if (arm_spec_parse(&s, "--b", table[i].text, &with_rtr, &e))
            fail_msg("%s: %s", table[i].text, e.msg);
        const struct arm_engine *g = &s.params.engine;
        const char *got[] = { g->rtr, g->fmoe, g->fug, g->nkvo };
        const char *want[] = { table[i].rtr, table[i].fmoe, table[i].fug, table[i].nkvo };
        for (int k = 0; k < 4; k++) {
            if (!want[k] != !got[k]) fail_msg("%s: %d", table[i].text, k);
            if (want[k]) assert_string_equal(got[k], want[k]);
        }
        arm_spec_release(&s);
    }
}

static void mistakes_are_named(void **state) {
    (void)state;
    static const char *const table[][2] = {
        { "", "at least its kind" },
        { "   ", "at least its kind" },
        { "avx3", "'avx3' is no kind of arm" },
        { "file:", "no kind of arm" },
        { "worker: avx2", "no kind of arm" },
        { "worker avx3", "'avx3' is not a column" },
        { "ref -t", "-t" },
        { "ref -t x", "expected a number" },
        { "ref -ctk q4_0", "expected one of" },
        { "ref --nonsense", "unknown option '--nonsense'" },
        { "ref --launch 'ssh host'", "belong to a worker" },
        { "ref extra", "unexpected argument 'extra'" },
        { "ref -m 'open", "quote" },
        { "ref a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a "
          "a "
          "a a a a a a a a a a a a a a a a a a a a a a",
          "more than" },
    };
    for (size_t i = 0; i < N_ELEMS(table); i++) {
        struct err e = { 0 };
        struct arm_spec s;
        assert_int_equal(arm_spec_parse(&s, "--b", table[i][0], &defaults, &e), ERR_ARG);
        if (!strstr(e.msg, table[i][1]) || !strstr(e.msg, "--b"))
            fail_msg("'%s' gives \"%s\"", table[i][0], e.msg);
        arm_spec_release(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_override_the_command_line),
        cmocka_unit_test(every_kind),
        cmocka_unit_test(options_without_a_value),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
