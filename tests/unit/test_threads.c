/* SPDX-License-Identifier: MIT
 * test_threads.c - the pool: everyone runs, barriers hold everyone, chunks are claimed once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/threads.h"

#define ROUNDS 200
#define CHUNKS 37

struct shared_state {
    _Atomic int in_round[ROUNDS];
    _Atomic int claimed[ROUNDS][CHUNKS];
    _Atomic int wrong;
};

static void rounds(void *arg, struct work *w) {
    struct shared_state *s = arg;
    for (int r = 0; r < ROUNDS; r++) {
        for (int64_t c; (c = work_next(w)) < CHUNKS;)
            atomic_fetch_add(&s->claimed[r][c], 1);
        atomic_fetch_add(&s->in_round[r], 1);
        work_barrier(w);
        if (atomic_load(&s->in_round[r]) != w->nth) atomic_fetch_add(&s->wrong, 1);
        work_barrier(w);
    }
    ((char *)w->scratch)[63] = 1; /* a block of its own */
}

static void barriers_and_chunks_hold(void **state) {
    (void)state;
    static struct shared_state s;
    struct err e = { 0 };
    for (int n = 1; n <= 9; n += 2) { /* more threads than processors: the sleeping path */
        struct thread_pool *p;
        memset(&s, 0, sizeof s);
        assert_int_equal(thread_pool_new(&p, n, &e), 0);
        assert_int_equal(thread_pool_reserve(p, 128, 64, &e), 0);
        thread_pool_run(p, n, rounds, &s);
        thread_pool_free(p);
        assert_int_equal(atomic_load(&s.wrong), 0);
        for (int r = 0; r < ROUNDS; r++)
            for (int c = 0; c < CHUNKS; c++)
                assert_int_equal(atomic_load(&s.claimed[r][c]), 1);
    }
}

static void count_threads(void *arg, struct work *w) {
    atomic_fetch_add((_Atomic int *)arg, w->nth);
}

static void a_run_uses_as_many_threads_as_asked(void **state) {
    (void)state;
    struct err e = { 0 };
    struct thread_pool *p;
    assert_int_equal(thread_pool_new(&p, 4, &e), 0);
    for (int n = 1; n <= 4; n++) {
        _Atomic int sum = 0;
        thread_pool_run(p, n, count_threads, &sum);
        assert_int_equal(atomic_load(&sum), n * n);
    }
    thread_pool_free(p);
}

static void bad_sizes_are_refused(void **state) {
    (void)state;
    struct err e = { 0 };
    struct thread_pool *p;
    assert_int_equal(thread_pool_new(&p, 0, &e), ERR_ARG);
    assert_int_equal(thread_pool_new(&p, THREADS_MAX + 1, &e), ERR_ARG);
    heap_fail_at(2);
    assert_int_equal(thread_pool_new(&p, 2, &e), ERR_NOMEM);
    heap_fail_at(0);
    assert_true(strlen(e.msg) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_and_chunks_hold),
        cmocka_unit_test(a_run_uses_as_many_threads_as_asked),
        cmocka_unit_test(bad_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
