/* SPDX-License-Identifier: MIT
 * test_memory.c - what is available; what is larger is refused before any of it is filled: a block,
 * a KV cache, packed copies of weights (-rtr). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../tiny/tiny_model.h"
#include "arm/arm.h"
#include "backend.h"
#include "base/arena.h"
#include "base/memory.h"
#include "quant/synth.h"

static size_t of_the_machine(void) {
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_available(void **state) {
    (void)state;
    const uint64_t n = memory_available();
    assert_true(n > 0);
    assert_true(n <= of_the_machine());
}

static void test_too_large(void **state) {
    (void)state;
    struct err e = { 0 };
    const size_t n = of_the_machine() + ((size_t)1 << 20);
    assert_null(heap_alloc(n, &e));
    assert_int_equal(e.code, ERR_NOMEM);
    assert_non_null(strstr(e.msg, " MiB are available"));
    assert_null(heap_calloc(n, 1, &e));
}

static void test_large(void **state) {
    (void)state;
    struct err e = { 0 };
    void *p = heap_alloc((size_t)65 << 20, &e);
    assert_non_null(p);
    heap_free(p);
}

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct synth_params p = { 0 };
    snprintf(path, sizeof path, "/tmp/ggauge-memory-XXXXXX");
    close(mkstemp(path));
    if (synth_preset(&p, "qwen3-0.6b", &e)) fail_msg("%s", e.msg);
    p.type = QT_iq4_kt;
    p.type_embd = p.type_output = QT_none;
    p.random_bits = true;
    p.n_threads = 1;
    p.hp.n_layer = 1;
    p.hp.n_vocab = 1000;
    if (synth_write(&p, path, NULL, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    memory_pretend(0);
    return unlink(path);
}

/* Open the model while n_bytes are available. */
static int open_in(uint64_t n_bytes, int n_ctx, bool rtr, struct err *e) {
    struct arm *a = NULL;
    struct arm_params p = { .model = path,
                            .backend = column_available(COL_avx512) ? "avx512" : "ref",
                            .engine.rtr = rtr ? "on" : NULL,
                            .n_ctx = n_ctx,
                            .n_seq = 1,
                            .n_batch = 1,
                            .n_ubatch = 1,
                            .n_threads = 1 };
    memory_pretend(n_bytes);
    const int rc = arm_open(&a, &p, e);
    memory_pretend(0);
    if (rc == 0) arm_close(a);
    return rc;
}

/* 4 KiB a token: 128 MiB. */
static void test_cache(void **state) {
    (void)state;
    struct err e = { 0 };
    assert_int_equal(open_in((uint64_t)100 << 20, 32768, false, &e), ERR_NOMEM);
    assert_non_null(strstr(e.msg, "KV cache of 1 x 32768 positions needs 128 MiB of the 100 MiB"));
    if (open_in((uint64_t)150 << 20, 32768, false, &e)) fail_msg("%s", e.msg);
}

/* No copy is large, all of them are 10 MiB and more. */
static void test_copies(void **state) {
    (void)state;
    struct err e = { 0 };
    if (!column_available(COL_avx512)) skip();
    if (open_in((uint64_t)8 << 20, 64, false, &e)) fail_msg("%s", e.msg);
    assert_int_equal(open_in((uint64_t)8 << 20, 64, true, &e), ERR_NOMEM);
    assert_non_null(strstr(e.msg, "of which 8 MiB are available; leave out -rtr"));
    if (open_in((uint64_t)64 << 20, 64, true, &e)) fail_msg("%s", e.msg);
}

/* Each allocation of opening fails once; each time it is said what for. Some are for what an arm
 * can do without. */
static void test_every_allocation(void **state) {
    (void)state;
    struct err e = { 0 };
    const struct tiny_model without_vocabulary = tiny_model_default("qwen3");
    if (tiny_model_write(&without_vocabulary, path, &e)) fail_msg("%s", e.msg);
    for (int64_t n = 1, opened = 0; opened < 20; n++) {
        e = (struct err){ 0 };
        heap_fail_at(n);
        const int rc = open_in(0, 64, false, &e);
        heap_fail_at(0);
        opened += rc == 0;
        if (rc == 0) continue;
        assert_int_equal(rc, ERR_NOMEM);
        if (!strstr(e.msg, "memory")) fail_msg("allocation %lld: '%s'", (long long)n, e.msg);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_available), cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_large),     cmocka_unit_test(test_cache),
        cmocka_unit_test(test_copies),    cmocka_unit_test(test_every_allocation),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
