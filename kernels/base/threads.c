/* SPDX-License-Identifier: MIT
 * threads.c - the thread pool; see threads.h.
 *
 * At the barriers inside a run, a hundred of them a few microseconds apart, and between runs that
 * follow each other closely, threads spin for a while: a thread that sleeps is woken only after
 * tens of microseconds. Then they sleep, in a futex or on a condition variable, and leave the
 * processor to others. A team with more threads than processors does not spin at all, since whoever
 * spins keeps the one that everybody waits for from running. */
#include "threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"

#define SPIN_TURNS 1000 /* of some 40 ns each, longer than most waits on a quiet machine */

/* A counter of chunks in a cache line of its own. */
struct chunks {
    _Alignas(64) _Atomic int64_t next;
};

/* How many chunks of a thread's share are gone: those from the front it took itself, those from the
 * back others took. epoch << 32 | back << 16 | front, of one piece of work; older words count as 0,
 * newer ones as a share that is used up, since nobody goes on to the next piece before. */
struct share {
    _Alignas(64) _Atomic uint64_t word;
};

#define SHARE_MAX 0xffff /* chunks */
/* What a thread claims of its own share at once, one in so many of what is left: what a call does
 * once for all of its rows it then does a few times only, and the end is left for others to help.
 */
#define OWN_PART 3

struct work_team {
    _Alignas(64) _Atomic int arrived;
    _Alignas(64) _Atomic uint32_t generation; /* counts completed barriers; the futex word */
    _Atomic int sleeping;                     /* threads in the futex */
    struct chunks pieces[WORK_PIECES];
    struct share *shares; /* [threads of the pool] */
    uint32_t epoch;       /* of piece 0; written while nobody works */
    int nth;
    int spin_turns;
};

struct worker {
    pthread_t thread;
    struct thread_pool *pool;
    void *scratch;
    int ith;
};

/* `call` is the number of the current run and how many threads take part in it, in one word, so
 * that a thread that wakes late cannot mix up two runs. */
struct thread_pool {
    _Alignas(64) _Atomic uint64_t call; /* run << 16 | threads */
    _Atomic int sleeping;               /* threads that wait for a run on `start` */
    _Atomic bool stop;
    _Alignas(64) _Atomic int n_running; /* threads besides the caller that have not finished */
    _Atomic bool caller_sleeps;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    work_fn fn;
    void *arg;
    struct work_team team, alone;
    void *shared;
    size_t shared_bytes, scratch_bytes;
    int size, n_online; /* threads, processors */
    int idle_turns;     /* to spin before a thread sleeps until the next run */
    bool pinned;
    cpu_set_t callers;      /* if pinned: where the caller's thread runs during a run */
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

static void reset_chunks(struct work_team *t) {
    for (int i = 0; i < WORK_PIECES; i++)
        atomic_store_explicit(&t->pieces[i].next, 0, memory_order_relaxed);
    t->epoch += WORK_PIECES;
}

/* The epoch is small enough for one run only. */
static void reset_shares(struct work_team *t) {
    t->epoch = 0;
    for (int i = 0; i < t->nth; i++)
        atomic_store_explicit(&t->shares[i].word, 0, memory_order_relaxed);
}

void work_barrier(struct work *w) {
    struct work_team *t = w->team;
    w->piece = 0;
    if (t->nth == 1) {
        reset_chunks(t);
        return;
    }
    uint32_t gen = atomic_load_explicit(&t->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->nth - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        reset_chunks(t);
        atomic_fetch_add(&t->generation, 1);
        if (atomic_load(&t->sleeping) > 0)
            syscall(SYS_futex, &t->generation, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
        return;
    }
    for (int turn = 0; turn < t->spin_turns; turn++) {
        if (atomic_load_explicit(&t->generation, memory_order_acquire) != gen) return;
        cpu_relax();
    }
    sleep_on(t, gen);
}

int64_t work_next(struct work *w) {
    _Atomic int64_t *next = &w->team->pieces[w->piece].next;
    if (w->nth > 1) return atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
    int64_t n = atomic_load_explicit(next, memory_order_relaxed); /* no bus lock for nobody */
    atomic_store_explicit(next, n + 1, memory_order_relaxed);
    return n;
}

/* Claim the next chunks from one end of a share of `size`: one, or, from the front, one in `part`
 * of what is left. Returns how many, from *first on; 0 = none is left. */
static int64_t take(struct share *s, uint32_t epoch, int64_t size, bool front, int64_t part,
                    int64_t *first) {
    uint64_t word = atomic_load_explicit(&s->word, memory_order_relaxed);
    for (;;) {
        uint32_t gone = (uint32_t)word;
        if (word >> 32 > epoch) return 0;
        if (word >> 32 < epoch) gone = 0;
        const int64_t at_front = gone & SHARE_MAX, at_back = gone >> 16;
        const int64_t left = size - at_front - at_back;
        if (left <= 0) return 0;
        const int64_t n = front && left > part ? left / part : 1;
        gone += front ? (uint32_t)n : 1 << 16;
        if (atomic_compare_exchange_weak_explicit(&s->word, &word, (uint64_t)epoch << 32 | gone,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            *first = front ? at_front : size - 1 - at_back;
            return n;
        }
    }
}

/* Claim chunks of n, the own ones one in `part` at a time. */
static int64_t claim(struct work *w, int64_t n, int64_t part, int64_t *first) {
    if (w->nth == 1 || n / w->nth >= SHARE_MAX) {
        *first = work_next(w);
        return *first < n;
    }
    for (int v = 0; v < w->nth; v++) {
        const int whose = (w->ith + v) % w->nth;
        const int64_t begin = n * whose / w->nth, end = n * (whose + 1) / w->nth;
        const int64_t got = take(&w->team->shares[whose], w->team->epoch + (uint32_t)w->piece,
                                 end - begin, v == 0, part, first);
        if (!got) continue;
        *first += begin;
        return got;
    }
    return 0;
}

int64_t work_share(struct work *w, int64_t n) {
    int64_t first;
    return claim(w, n, n, &first) ? first : -1;
}

bool work_rows(struct work *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end) {
    int64_t first;
    const int64_t got = claim(w, (n + grain - 1) / grain, OWN_PART, &first);
    if (!got) return false;
    *begin = first * grain;
    *end = n - *begin < got * grain ? n : *begin + got * grain;
    return true;
}

void work_piece(struct work *w) {
    w->piece++;
}

struct work work_alone(const struct work *w) {
    struct work a = *w;
    a.nth = 1;
    a.team = a.alone;
    work_barrier(&a);
    return a;
}

static void run_share(struct thread_pool *p, struct worker *me, int nth) {
    struct work w = { .ith = me->ith,
                      .nth = nth,
                      .shared = p->shared,
                      .scratch = me->scratch,
                      .team = &p->team,
                      .alone = &p->alone };
    p->fn(p->arg, &w);
}

/* Wait for another call than `seen` and return it. A thread counts itself as sleeping before it
 * looks a last time, and the caller changes the word before it looks for sleepers, so one of the
 * two notices the other. */
static uint64_t next_call(struct thread_pool *p, uint64_t seen) {
    uint64_t call = seen;
    for (int i = 0; i < p->idle_turns && !atomic_load(&p->stop); i++) {
        if ((call = atomic_load(&p->call)) != seen) return call;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    while (!atomic_load(&p->stop) && (call = atomic_load(&p->call)) == seen)
        pthread_cond_wait(&p->start, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return call;
}

static void *worker_main(void *arg) {
    struct worker *me = arg;
    struct thread_pool *p = me->pool;
    uint64_t seen = 0;
    for (;;) {
        seen = next_call(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        int nth = (int)(seen & 0xffff);
        if (me->ith >= nth) continue;
        run_share(p, me, nth);
        if (atomic_fetch_sub(&p->n_running, 1) == 1 && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

/* The caller waits for the others. */
static void wait_for_all(struct thread_pool *p, int spin_turns) {
    for (int i = 0; i < spin_turns; i++) {
        if (atomic_load(&p->n_running) == 0) return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->n_running) > 0)
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->lock);
}

static cpu_set_t one_processor(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return set;
}

/* Send the caller's thread to its processor and say in `was` where it might run before; false if it
 * has not been sent anywhere. */
static bool pin_caller(const struct thread_pool *p, cpu_set_t *was) {
    return p->pinned && sched_getaffinity(0, sizeof *was, was) == 0 &&
           sched_setaffinity(0, sizeof p->callers, &p->callers) == 0;
}

/* Check the list, and note what the pool needs of it. */
static int take_processors(struct thread_pool *p, int n_threads, const int *cpu, struct err *e) {
    int rc = 0;
    cpu_set_t all, was;
    CPU_ZERO(&all);
    for (int i = 0; i < n_threads; i++) {
        FAIL_IF(cpu[i] < 0 || cpu[i] >= CPU_SETSIZE, e, ERR_ARG,
                "thread %d cannot be pinned to processor %d: expected 0 to %d", i + 1, cpu[i],
                CPU_SETSIZE - 1);
        CPU_SET(cpu[i], &all);
    }
    p->pinned = true;
    p->callers = one_processor(cpu[0]);
    p->n_online = CPU_COUNT(&all); /* for these threads there are no others */
    FAIL_IF(!pin_caller(p, &was), e, ERR_ARG, "thread 1 cannot be pinned to processor %d: %s",
            cpu[0], strerror(errno));
    sched_setaffinity(0, sizeof was, &was);
out:
    return rc;
}

static int start_thread(struct worker *w, const int *cpu, struct err *e) {
    int rc = 0, why = 0;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    if (cpu) {
        const cpu_set_t set = one_processor(cpu[w->ith]);
        why = pthread_attr_setaffinity_np(&attr, sizeof set, &set);
    }
    if (!why) why = pthread_create(&w->thread, &attr, worker_main, w);
    pthread_attr_destroy(&attr);
    FAIL_IF(why == EINVAL && cpu, e, ERR_ARG, "thread %d cannot be pinned to processor %d: %s",
            w->ith + 1, cpu[w->ith], strerror(why));
    FAIL_IF(why, e, ERR_NOMEM, "cannot start thread %d: %s", w->ith + 1, strerror(why));
out:
    return rc;
}

int thread_pool_new(struct thread_pool **out, int n_threads, struct err *e) {
    return thread_pool_new_on(out, n_threads, NULL, e);
}

int thread_pool_new_on(struct thread_pool **out, int n_threads, const int *cpu, struct err *e) {
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
    p->team.shares = heap_calloc((size_t)n_threads, sizeof *p->team.shares, e);
    FAIL_IF(!p->team.shares, e, ERR_NOMEM, "out of memory for %d threads", n_threads);
    p->workers[0] = (struct worker){ .pool = p };
    p->size = 1;
    p->n_online = threads_online();
    if (cpu) TRY(take_processors(p, n_threads, cpu, e));
    p->idle_turns = n_threads > p->n_online ? 0 : SPIN_TURNS;
    p->alone.nth = 1;
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){ .pool = p, .ith = i };
        TRY(start_thread(&p->workers[i], cpu, e));
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
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->size; i++)
        pthread_join(p->workers[i].thread, NULL);
    for (int i = 0; i < p->size; i++)
        heap_free(p->workers[i].scratch);
    heap_free(p->workers);
    heap_free(p->team.shares);
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

/* A run with the caller's thread where it belongs. */
static void run_all(struct thread_pool *p, int n_threads, work_fn fn, void *arg) {
    p->fn = fn;
    p->arg = arg;
    p->team.nth = n_threads;
    p->team.spin_turns = n_threads > p->n_online ? 0 : SPIN_TURNS;
    atomic_store_explicit(&p->team.arrived, 0, memory_order_relaxed);
    reset_shares(&p->team);
    reset_chunks(&p->team);
    if (n_threads == 1) {
        run_share(p, &p->workers[0], 1);
        return;
    }
    atomic_store(&p->n_running, n_threads - 1);
    uint64_t run = (atomic_load_explicit(&p->call, memory_order_relaxed) >> 16) + 1;
    atomic_store(&p->call, run << 16 | (uint64_t)n_threads);
    if (atomic_load(&p->sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->start);
        pthread_mutex_unlock(&p->lock);
    }
    run_share(p, &p->workers[0], n_threads);
    wait_for_all(p, p->team.spin_turns);
}

void thread_pool_run(struct thread_pool *p, int n_threads, work_fn fn, void *arg) {
    cpu_set_t was;
    const bool moved = pin_caller(p, &was);
    run_all(p, n_threads < 1 ? 1 : n_threads > p->size ? p->size : n_threads, fn, arg);
    if (moved) sched_setaffinity(0, sizeof was, &was);
}

int threads_online(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}
