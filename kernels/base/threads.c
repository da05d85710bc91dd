/* SPDX-License-Identifier: MIT
 * threads.c - the thread pool; see threads.h.
 *
 * Workers sleep on a condition variable between runs. At the barriers inside a run, hundreds of
 * them a few microseconds apart, they spin first; on a busy machine, where the others may not even
 * be running, they then sleep in a futex and leave the processor to them. */
#include "threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"

#define SPIN_TURNS 4000 /* some 50 us, longer than most waits on a quiet machine */

struct work_team {
    _Alignas(64) _Atomic int arrived;
    _Alignas(64) _Atomic uint32_t generation; /* counts completed barriers; the futex word */
    _Atomic int sleeping;                     /* threads in the futex */
    _Alignas(64) _Atomic int64_t next;
    int nth;
};

struct worker {
    pthread_t thread;
    struct thread_pool *pool;
    void *scratch;
    int ith;
};

struct thread_pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    unsigned run;  /* number of the current run */
    int n_started; /* threads that take part in it */
    int n_running; /* of those, not finished */
    bool stop;
    work_fn fn;
    void *arg;
    struct work_team team;
    void *shared;
    size_t shared_bytes, scratch_bytes;
    int size;
    struct worker *workers; /* [size]; number 0 is the caller and has no thread */
};

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Sleep until the generation is no longer `gen`. The kernel compares before it sleeps, so a barrier
 * that completes in between is not missed. */
static void sleep_on(struct work_team *t, uint32_t gen) {
    atomic_fetch_add(&t->sleeping, 1);
    while (atomic_load(&t->generation) == gen)
        syscall(SYS_futex, &t->generation, FUTEX_WAIT_PRIVATE, gen, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleeping, 1);
}

void work_barrier(struct work *w) {
    struct work_team *t = w->team;
    if (t->nth == 1) {
        atomic_store_explicit(&t->next, 0, memory_order_relaxed);
        return;
    }
    uint32_t gen = atomic_load_explicit(&t->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->nth - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&t->next, 0, memory_order_relaxed);
        atomic_fetch_add(&t->generation, 1);
        if (atomic_load(&t->sleeping) > 0)
            syscall(SYS_futex, &t->generation, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
        return;
    }
    for (int turn = 0; turn < SPIN_TURNS; turn++) {
        if (atomic_load_explicit(&t->generation, memory_order_acquire) != gen) return;
        cpu_relax();
    }
    sleep_on(t, gen);
}

int64_t work_next(struct work *w) {
    return atomic_fetch_add_explicit(&w->team->next, 1, memory_order_relaxed);
}

static void run_share(struct thread_pool *p, struct worker *me, int nth) {
    struct work w = {
        .ith = me->ith, .nth = nth, .shared = p->shared, .scratch = me->scratch, .team = &p->team
    };
    p->fn(p->arg, &w);
}

static void *worker_main(void *arg) {
    struct worker *me = arg;
    struct thread_pool *p = me->pool;
    unsigned seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->run == seen)
            pthread_cond_wait(&p->start, &p->lock);
        if (p->stop) break;
        seen = p->run;
        if (me->ith >= p->n_started) continue;
        int nth = p->n_started;
        pthread_mutex_unlock(&p->lock);
        run_share(p, me, nth);
        pthread_mutex_lock(&p->lock);
        if (--p->n_running == 0) pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int thread_pool_new(struct thread_pool **out, int n_threads, struct err *e) {
    int rc = 0;
    struct thread_pool *p = NULL;
    *out = NULL;
    FAIL_IF(n_threads < 1 || n_threads > THREADS_MAX, e, ERR_ARG,
            "number of threads must be 1 to %d, not %d", THREADS_MAX, n_threads);
    p = heap_calloc(1, sizeof *p, e);
    if (!p) return ERR_NOMEM;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    p->workers = heap_calloc((size_t)n_threads, sizeof *p->workers, e);
    FAIL_IF(!p->workers, e, ERR_NOMEM, "out of memory for %d threads", n_threads);
    p->workers[0] = (struct worker){ .pool = p };
    p->size = 1;
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){ .pool = p, .ith = i };
        int err = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        FAIL_IF(err, e, ERR_NOMEM, "cannot start thread %d of %d: %s", i + 1, n_threads,
                strerror(err));
        p->size = i + 1;
    }
    *out = p;
    return 0;
out:
    thread_pool_free(p);
    return rc;
}

void thread_pool_free(struct thread_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->size; i++)
        pthread_join(p->workers[i].thread, NULL);
    for (int i = 0; i < p->size; i++)
        heap_free(p->workers[i].scratch);
    heap_free(p->workers);
    heap_free(p->shared);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->done);
    heap_free(p);
}

int thread_pool_reserve(struct thread_pool *p, size_t shared_bytes, size_t scratch_bytes,
                        struct err *e) {
    if (shared_bytes > p->shared_bytes) {
        void *q = heap_alloc(shared_bytes, e);
        if (!q) return ERR_NOMEM;
        heap_free(p->shared);
        p->shared = q;
        p->shared_bytes = shared_bytes;
    }
    if (scratch_bytes > p->scratch_bytes) {
        for (int i = 0; i < p->size; i++) {
            void *q = heap_alloc(scratch_bytes, e);
            if (!q) return ERR_NOMEM;
            heap_free(p->workers[i].scratch);
            p->workers[i].scratch = q;
        }
        p->scratch_bytes = scratch_bytes;
    }
    return 0;
}

void thread_pool_run(struct thread_pool *p, int n_threads, work_fn fn, void *arg) {
    if (n_threads < 1) n_threads = 1;
    if (n_threads > p->size) n_threads = p->size;
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->team.nth = n_threads;
    atomic_store(&p->team.arrived, 0);
    atomic_store(&p->team.next, 0);
    p->n_started = n_threads;
    p->n_running = n_threads - 1;
    p->run++;
    if (n_threads > 1) pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);

    run_share(p, &p->workers[0], n_threads);

    pthread_mutex_lock(&p->lock);
    while (p->n_running > 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

int threads_online(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}
