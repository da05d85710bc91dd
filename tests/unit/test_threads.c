/* SPDX-License-Identifier: MIT
 * test_threads.c - the pool: everyone runs, barriers hold everyone, chunks are claimed once. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

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

/* Chunks and rows shared out: n differs from piece to piece and is at times below the number of
 * threads, and some threads are slow. */
static void shares(void *arg, struct work *w) {
    struct shared_state *s = arg;
    for (int r = 0; r < ROUNDS; r++) {
        const int64_t n = r % (CHUNKS + 1);
        for (int64_t c = 0, end; r % 2 ? work_rows(w, n, 1 + r % 5, &c, &end)
                                       : (end = (c = work_share(w, n)) + 1) > 0;) {
            for (; c < end; c++)
                atomic_fetch_add(&s->claimed[r][c], 1);
            for (int spin = 0; spin < 200 * (w->ith % 3); spin++)
                atomic_load(&s->wrong);
        }
        if (r % 7 == 3)
            work_barrier(w);
        else
            work_piece(w);
    }
}

static void shares_are_claimed_once(void **state) {
    (void)state;
    static struct shared_state s;
    struct err e = { 0 };
    struct thread_pool *p;
    assert_int_equal(thread_pool_new(&p, 9, &e), 0);
    for (int n = 1; n <= 9; n++) { /* the pool keeps what longer and shorter runs left */
        for (int again = 0; again < 3; again++) {
            memset(&s, 0, sizeof s);
            thread_pool_run(p, n, shares, &s);
            for (int r = 0; r < ROUNDS; r++)
                for (int c = 0; c < CHUNKS; c++)
                    assert_int_equal(atomic_load(&s.claimed[r][c]), c < r % (CHUNKS + 1));
        }
    }
    thread_pool_free(p);
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

/* All on one processor: barriers that spun would take for ever. The caller is free again behind
 * every run. */
static void pinned(void *arg, struct work *w) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) || CPU_COUNT(&set) != 1)
        atomic_fetch_add((_Atomic int *)arg, 1);
    for (int i = 0; i < ROUNDS; i++)
        work_barrier(w);
}

static void threads_are_pinned(void **state) {
    (void)state;
    enum { N = 5 };
    struct err e = { 0 };
    struct thread_pool *p;
    cpu_set_t before, after;
    _Atomic int wrong = 0;
    int cpu[N], first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    for (int i = 0; i < N; i++)
        cpu[i] = first;
    assert_int_equal(thread_pool_new_on(&p, N, cpu, &e), 0);
    for (int n = 1; n <= N; n++) {
        thread_pool_run(p, n, pinned, &wrong);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
    }
    thread_pool_free(p);
    assert_int_equal(atomic_load(&wrong), 0);
}

/* Processors that do not exist, for the caller and for another thread. */
static void bad_processors_are_refused(void **state) {
    (void)state;
    static const int bad[] = { -1, CPU_SETSIZE - 1, CPU_SETSIZE };
    struct err e = { 0 };
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    if (CPU_ISSET(CPU_SETSIZE - 1, &before)) skip();
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        for (int at = 0; at < 3; at++) {
            int cpu[3] = { 0 };
            struct thread_pool *p = NULL;
            while (!CPU_ISSET(cpu[0], &before))
                cpu[0]++;
            cpu[1] = cpu[2] = cpu[0];
            cpu[at] = bad[i];
            assert_int_equal(thread_pool_new_on(&p, 3, cpu, &e), ERR_ARG);
            assert_null(p);
            assert_non_null(strstr(e.msg, "cannot be pinned to processor"));
            assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
            assert_true(CPU_EQUAL(&before, &after));
        }
    }
}

/* Pieces without a barrier between them each hand out all their chunks, however far a thread is
 * ahead; thread 0's own work is done once. */
static void pieces(void *arg, struct work *w) {
    struct shared_state *s = arg;
    for (int r = 0; r < ROUNDS; r++) {
        for (int64_t c; (c = work_next(w)) < CHUNKS;)
            atomic_fetch_add(&s->claimed[r][c], 1);
        if (w->ith == 0) {
            struct work alone = work_alone(w);
            for (int64_t c; (c = work_next(&alone)) < CHUNKS;)
                atomic_fetch_add(&s->in_round[r], 1);
            work_barrier(&alone);
            if (alone.nth != 1 || work_next(&alone) != 0) atomic_fetch_add(&s->wrong, 1);
        }
        if (r % WORK_PIECES == WORK_PIECES - 1)
            work_barrier(w);
        else
            work_piece(w);
    }
}

static void pieces_are_counted_apart(void **state) {
    (void)state;
    static struct shared_state s;
    static const int n_threads[] = { 1, 2, 5, 256 };
    struct err e = { 0 };
    for (size_t i = 0; i < sizeof n_threads / sizeof n_threads[0]; i++) {
        struct thread_pool *p;
        memset(&s, 0, sizeof s);
        assert_int_equal(thread_pool_new(&p, n_threads[i], &e), 0);
        thread_pool_run(p, n_threads[i], pieces, &s);
        thread_pool_free(p);
        assert_int_equal(atomic_load(&s.wrong), 0);
        for (int r = 0; r < ROUNDS; r++) {
            assert_int_equal(atomic_load(&s.in_round[r]), CHUNKS);
            for (int c = 0; c < CHUNKS; c++)
                assert_int_equal(atomic_load(&s.claimed[r][c]), 1);
        }
    }
}

/* Runs that follow each other at once and after a pause, in which threads fall asleep. */
static void runs_follow_each_other(void **state) {
    (void)state;
    struct err e = { 0 };
    struct thread_pool *p;
    assert_int_equal(thread_pool_new(&p, 3, &e), 0);
    for (int i = 0; i < 2000; i++) {
        _Atomic int sum = 0;
        int n = 1 + i % 3;
        thread_pool_run(p, n, count_threads, &sum);
        assert_int_equal(atomic_load(&sum), n * n);
        if (i % 100 == 0) nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
    thread_pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_and_chunks_hold),
        cmocka_unit_test(shares_are_claimed_once),
        cmocka_unit_test(a_run_uses_as_many_threads_as_asked),
        cmocka_unit_test(pieces_are_counted_apart),
        cmocka_unit_test(runs_follow_each_other),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(threads_are_pinned),
        cmocka_unit_test(bad_processors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
