/* SPDX-License-Identifier: MIT
 * topology.h - which processor each thread runs on, and on which NUMA nodes memory lies (--numa).
 *
 * The modes have llama.cpp's names. All of them give every thread a processor of its own, cores
 * before their hyperthreads, among those that this process may use:
 *
 *     distribute  threads take the NUMA nodes in turn, and memory is interleaved over the nodes
 *     isolate     only the node on which the caller runs now; memory comes from it if it has any
 *     numactl     in turn over what numactl (or taskset) has left; memory follows its policy alone
 *
 * Memory is what topology_place is told of: weights that -thp or -rtr has copied, the KV cache. A
 * mapped file lies in the page cache and cannot be placed: a page lies on the node of the thread
 * that made the system read it, which may have been another program's, days ago. With distribute,
 * threads that are the first to read a model spread it over the nodes; dropping the page cache
 * beforehand (echo 3 >/proc/sys/vm/drop_caches) makes them the first.
 *
 * No result depends on any of this. hwloc is found at build time; without it topology_new says
 * so. */
#ifndef GGAUGE_TOPOLOGY_H
#define GGAUGE_TOPOLOGY_H

#include <stddef.h>

#include "base/err.h"
#include "base/threads.h"

#define NUMA_MODES "distribute|isolate|numactl"

struct topology;

/* This machine as `mode` (one of NUMA_MODES) sees it. mode = NULL gives *out = NULL, which every
 * function below takes for "as the system likes it". ERR_UNSUPPORTED if the program was built
 * without hwloc. Afterwards read only, so usable from any thread. */
int topology_new(struct topology **out, const char *mode, struct err *e);
void topology_free(struct topology *t);

/* Tests: a machine in hwloc's synthetic notation ("numa:2 core:4 pu:2"), of which the process may
 * use `allowed` ("0-3,8"; NULL = all) and on whose processor `here` it runs. Not for pools or
 * memory. */
int topology_new_synthetic(struct topology **out, const char *mode, const char *machine,
                           const char *allowed, int here, struct err *e);

/* How many processors threads get, at most THREADS_MAX; what -t 0 means. */
int topology_n_cpus(const struct topology *t);

/* The processor (the system's number) and the NUMA node (-1 = it belongs to none) of thread i >= 0;
 * threads beyond n_cpus begin again with the first. t is not NULL. */
int topology_cpu(const struct topology *t, int i);
int topology_node(const struct topology *t, int i);

/* A pool of n_threads on these processors. */
int topology_pool(const struct topology *t, struct thread_pool **out, int n_threads, struct err *e);

/* Say where the whole pages among n_bytes at p shall come from when they are first written. False
 * if nothing was asked for or the system refuses, as some containers do. */
bool topology_place(const struct topology *t, void *p, size_t n_bytes);

/* "numa distribute: 16 processors of 2 nodes", "numa isolate: 8 processors of 1 node"; "" without a
 * topology. Not which node, so that a run that was stopped can go on on another. */
void topology_describe(const struct topology *t, char *buf, size_t n_bytes);

#endif
