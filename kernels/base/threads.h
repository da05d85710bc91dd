/* SPDX-License-Identifier: MIT
 * threads.h - the one thread pool: a team runs a function together, with barriers inside.
 *
 * No result may depend on the number of threads: work is cut into chunks of a fixed size, and
 * threads only decide who computes which chunk. */
#ifndef GGAUGE_THREADS_H
#define GGAUGE_THREADS_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define THREADS_MAX 512

#define WORK_BYTES ((size_t)32 << 10)
#define WORK_PIECES 16 /* pieces of work between two barriers */

struct work_team; /* what the threads of one run share */

/* One thread's view of a run. `shared` and `scratch` are 64-byte aligned and uninitialised. */
struct work {
    int ith, nth;         /* this thread, number of threads */
    void *shared;         /* one block for the whole team */
    void *scratch;        /* this thread's own block */
    struct work_team *team, *alone;
    int piece; /* of work since the last barrier, 0 .. WORK_PIECES - 1 */
    bool kept; /* the step before left in `shared` what this one would fill it with (cpu.c) */
};

typedef void (*work_fn)(void *arg, struct work *w);

struct thread_pool;

/* A pool of n_threads (1..THREADS_MAX), the caller's own thread included. */
int thread_pool_new(struct thread_pool **out, int n_threads, struct err *e);
/* The same, but thread i keeps to processor cpu[i] (the system's number, below 1024); several may
 * share one. The caller's own thread, which is also that of others, does so during runs only. NULL
 * leaves all of it to the system. ERR_ARG if a thread may not run there. */
int thread_pool_new_on(struct thread_pool **out, int n_threads, const int *cpu, struct err *e);
void thread_pool_free(struct thread_pool *pool);

/* Make sure that shared and per-thread blocks have at least these sizes in later runs. */
int thread_pool_reserve(struct thread_pool *pool, size_t shared_bytes, size_t scratch_bytes,
                        struct err *e);

/* Run fn(arg, work) on n_threads threads (1..size) and return when all are done. Only one run at a
 * time; fn must not call thread_pool_run. */
void thread_pool_run(struct thread_pool *pool, int n_threads, work_fn fn, void *arg);

/* Wait until every thread of the team is here; resets work_next and starts piece 0. */
void work_barrier(struct work *w);

/* Claim the next chunk of this piece of work: 0, 1, 2, ... counted over the whole team. The caller
 * stops at its own number of chunks. */
int64_t work_next(struct work *w);

/* Claim one of n chunks of this piece of work, or -1 if none is left. Every thread is given
 * neighbours one after the other, which is what streams through memory want, and helps the others
 * when its own share is done. All threads say the same n and go on until there is none. */
int64_t work_share(struct work *w, int64_t n);

/* Claim rows [*begin, *end) of n as work_share does, one or more times `grain`, fewer and fewer
 * towards the end; false if none are left. */
bool work_rows(struct work *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end);

/* Rows of n_bytes that are worth claiming at once: to claim costs as much as a few KiB. */
static inline int64_t work_grain(size_t n_bytes) {
    return n_bytes < WORK_BYTES ? (int64_t)(WORK_BYTES / n_bytes) : 1;
}

/* Start the next piece of work without waiting for the others, who may still be busy with the last
 * one. At most WORK_PIECES - 1 times between two barriers, and every thread must do it alike. */
void work_piece(struct work *w);

/* A view of thread 0 alone, for work that the others would only wait for. Only thread 0 may use it,
 * and each use starts afresh. */
struct work work_alone(const struct work *w);

/* Number of processors this process may use. */
int threads_online(void);

#endif
