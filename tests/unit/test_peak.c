/* SPDX-License-Identifier: MIT
 * test_peak.c - the loops that measure peaks: they do the work that they say, on every column that
 * this machine runs, and the measured values are kept. Speeds cannot be tested here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/threads.h"
#include "measure/peak.h"

/* The sum of all multiply-adds is their number. */
static void compute_counts(void **state) {
    (void)state;
    int n = 0;
    for (int c = COL_ref; column_is_cpu((enum column)c); c++)
        for (int p = 0; p < PEAK_count; p++) {
            enum column found = COL_none;
            const struct peak_cell *k = peak_cell_find((enum column)c, (enum peak)p, &found);
            if (!k || (int)found != c || !k->compute || !column_available((enum column)c)) continue;
            for (int64_t turns = 0; turns < 300; turns += 99)
                if (k->compute(turns) != (double)(turns * k->macs))
                    fail_msg("%s@%s: %lld turns of %lld multiply-adds sum to %.17g",
                             peak_name((enum peak)p), column_name((enum column)c), (long long)turns,
                             (long long)k->macs, k->compute(turns));
            n++;
        }
    print_message("# %d compute loops\n", n);
    assert_true(n > 0 || !column_available(COL_avx2));
}

/* Every word of the memory is read: a change anywhere changes the result. */
static void read_sees_all(void **state) {
    (void)state;
    const size_t n_bytes = 8192;
    uint64_t *m = heap_alloc(n_bytes, NULL);
    assert_non_null(m);
    for (int c = COL_ref; column_is_cpu((enum column)c); c++) {
        enum column found = COL_none;
        const struct peak_cell *k = peak_cell_find((enum column)c, PEAK_read, &found);
        if ((int)found != c || !column_available((enum column)c)) continue;
        for (size_t i = 0; i < n_bytes / sizeof *m; i++)
            m[i] = i * 0x9E3779B97F4A7C15u;
        const uint64_t all = k->read(m, n_bytes);
        for (size_t i = 0; i < n_bytes / sizeof *m; i++) {
            m[i] ^= 1;
            if (k->read(m, n_bytes) == all)
                fail_msg("read@%s: word %zu is not read", column_name((enum column)c), i);
            m[i] ^= 1;
        }
        assert_true(k->read(m, n_bytes) == all);
    }
    heap_free(m);
}

static void values_are_kept(void **state) {
    (void)state;
    struct thread_pool *pool;
    struct err e;
    assert_int_equal(thread_pool_new(&pool, 2, &e), 0);
    struct peaks *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->pool = pool;
    p->memory_bytes = 1 << 20;
    p->memory = heap_alloc(p->memory_bytes, NULL);
    assert_non_null(p->memory);
    memset(p->memory, 1, p->memory_bytes);
    const double first = peak_gbs(p, COL_ref, 100 << 10, 1);
    assert_true(first > 0);
    assert_int_equal(p->n_known, 1);
    assert_int_equal(p->known[0].n_bytes, 128 << 10);
    assert_true(peak_gbs(p, COL_ref, 120 << 10, 1) == first);
    assert_int_equal(p->n_known, 1);
    assert_true(peak_gbs(p, COL_ref, SIZE_MAX / 4, 2) > 0);
    assert_int_equal(p->known[1].n_bytes, 1 << 20);
    assert_true(peak_gmacs(p, COL_ref, PEAK_bf16, 1) == 0);
    if (column_available(COL_amx)) { /* inherits what it does not have */
        assert_true(peak_gmacs(p, COL_amx, PEAK_f32, 2) > 0);
        assert_int_equal(p->known[2].col, COL_avx512);
        assert_true(peak_gmacs(p, COL_avx512, PEAK_f32, 2) > 0);
        assert_int_equal(p->n_known, 3);
    }
    heap_free(p->memory);
    free(p);
    thread_pool_free(pool);
}

static void cold_memory(void **state) {
    (void)state;
    const size_t n = peak_cold_bytes();
    assert_true(n > 0 && n <= (size_t)1 << 30);
    assert_int_equal(n % 4096, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compute_counts),
        cmocka_unit_test(read_sees_all),
        cmocka_unit_test(values_are_kept),
        cmocka_unit_test(cold_memory),
    };
    return cmocka_run_group_tests_name("peak", tests, NULL, NULL);
}
