/* SPDX-License-Identifier: MIT
 * topology.c - processors and NUMA nodes through hwloc; see topology.h.
 *
 * WITHOUT_HWLOC is given by the Makefile to this file alone, where the headers are missing. */
#include "exec/topology.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"

#if !defined(WITHOUT_HWLOC) && __has_include(<hwloc.h>)
#define HAVE_HWLOC 1
#include <hwloc.h>
#endif

enum mode { MODE_distribute, MODE_isolate, MODE_numactl, MODE_count };

static const char *const mode_names[] = { "distribute", "isolate", "numactl" };

/* A processor and its place in line: the rank-th of its core, the k-th of its node with that rank.
 */
struct processor {
    int cpu, node; /* the system's numbers; node -1 = of none */
    int rank, k;
    int group; /* node in hwloc's order */
};

struct topology {
    enum mode mode;
    int n, n_nodes;
    struct processor *p; /* [n] in the order in which threads take them */
#ifdef HAVE_HWLOC
    hwloc_topology_t h;
    hwloc_bitmap_t nodes; /* those of p */
#endif
};

int topology_n_cpus(const struct topology *t) {
    const int n = t ? t->n : threads_online();
    return n < THREADS_MAX ? n : THREADS_MAX;
}

int topology_cpu(const struct topology *t, int i) {
    return t->p[i % t->n].cpu;
}

int topology_node(const struct topology *t, int i) {
    return t->p[i % t->n].node;
}

void topology_describe(const struct topology *t, char *buf, size_t n_bytes) {
    buf[0] = '\0';
    if (!t) return;
    snprintf(buf, n_bytes, "numa %s: %d processor%s of %d node%s", mode_names[t->mode], t->n,
             t->n == 1 ? "" : "s", t->n_nodes, t->n_nodes == 1 ? "" : "s");
}

int topology_pool(const struct topology *t, struct thread_pool **out, int n_threads,
                  struct err *e) {
    int cpu[THREADS_MAX];
    if (!t) return thread_pool_new(out, n_threads, e);
    for (int i = 0; i < n_threads && i < THREADS_MAX; i++)
        cpu[i] = topology_cpu(t, i);
    if (n_threads > t->n && n_threads <= threads_online()) /* else all commands have said it */
        log_msg(LOG_WARN, "%d threads on the %d processors of --numa %s take turns", n_threads,
                t->n, mode_names[t->mode]);
    return thread_pool_new_on(out, n_threads, cpu, e);
}

#ifdef HAVE_HWLOC

/* ---- the machine ----------------------------------------------------------------------------- */

/* The node of a processor: the first that has it, because memory of another kind (HBM) is a second
 * node with the same processors. Processors of none, whose node has no memory, are a group behind
 * the others. */
static void find_node(hwloc_topology_t h, struct processor *p) {
    hwloc_obj_t node = NULL;
    p->node = -1;
    for (p->group = 0; (node = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, node));
         p->group++) {
        if (!hwloc_bitmap_isset(node->cpuset, (unsigned)p->cpu)) continue;
        p->node = (int)node->os_index;
        return;
    }
}

/* How many of the allowed processors of its core come before it. */
static int rank_in_core(hwloc_topology_t h, hwloc_obj_t pu, hwloc_const_cpuset_t allowed) {
    const hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(h, HWLOC_OBJ_CORE, pu);
    hwloc_obj_t o = NULL;
    int rank = 0;
    while (core &&
           (o = hwloc_get_next_obj_inside_cpuset_by_type(h, core->cpuset, HWLOC_OBJ_PU, o)) &&
           o != pu)
        rank += hwloc_bitmap_isset(allowed, o->os_index);
    return rank;
}

static int in_line(const void *a, const void *b) {
    const struct processor *p = a, *q = b;
    if (p->rank != q->rank) return p->rank - q->rank;
    return p->k != q->k ? p->k - q->k : p->group - q->group;
}

/* With isolate, only those of the group that has processor `here`, or of the first one. */
static void keep_one_group(struct topology *t, int here) {
    int group = t->n ? t->p[0].group : 0, n = 0;
    for (int i = 0; i < t->n; i++)
        if (t->p[i].cpu == here) group = t->p[i].group;
    for (int i = 0; i < t->n; i++)
        if (t->p[i].group == group) t->p[n++] = t->p[i];
    t->n = n;
}

static int line_up(struct topology *t, hwloc_const_cpuset_t allowed, int here, struct err *e) {
    int rc = 0;
    const int n_all = hwloc_get_nbobjs_by_type(t->h, HWLOC_OBJ_PU);
    t->p = heap_calloc(n_all > 0 ? (size_t)n_all : 1, sizeof *t->p, e);
    if (!t->p) return ERR_NOMEM;
    for (hwloc_obj_t pu = NULL; (pu = hwloc_get_next_obj_by_type(t->h, HWLOC_OBJ_PU, pu));) {
        if (!hwloc_bitmap_isset(allowed, pu->os_index)) continue;
        struct processor *p = &t->p[t->n++];
        p->cpu = (int)pu->os_index;
        p->rank = rank_in_core(t->h, pu, allowed);
        find_node(t->h, p);
    }
    FAIL_IF(t->n == 0, e, ERR_IO, "--numa: hwloc finds no processor that this process may use");
    if (t->mode == MODE_isolate) keep_one_group(t, here);
    for (int i = 0; i < t->n; i++) {
        struct processor *p = &t->p[i];
        bool first = true;
        for (int j = 0; j < i; j++) {
            if (t->p[j].group != p->group) continue;
            p->k += t->p[j].rank == p->rank;
            first = false;
        }
        t->n_nodes += first;
        if (p->node >= 0) hwloc_bitmap_set(t->nodes, (unsigned)p->node);
    }
    qsort(t->p, (size_t)t->n, sizeof *t->p, in_line);
out:
    return rc;
}

/* Read the machine, or the description of one. */
static int load(struct topology **out, const char *mode, const char *machine, struct err *e) {
    int rc = 0;
    struct topology *t = heap_calloc(1, sizeof *t, e);
    *out = NULL;
    if (!t) return ERR_NOMEM;
    while (t->mode < MODE_count && strcmp(mode_names[t->mode], mode) != 0)
        t->mode++;
    FAIL_IF(t->mode == MODE_count, e, ERR_ARG, "--numa: expected one of " NUMA_MODES ", not '%s'",
            mode);
    t->nodes = hwloc_bitmap_alloc();
    FAIL_IF(!t->nodes || hwloc_topology_init(&t->h) != 0, e, ERR_NOMEM, "out of memory in hwloc");
    FAIL_IF(machine && hwloc_topology_set_synthetic(t->h, machine) != 0, e, ERR_ARG,
            "'%s' is not the description of a machine", machine);
    FAIL_IF(hwloc_topology_load(t->h) != 0, e, ERR_IO, "--numa: hwloc cannot read this machine: %s",
            strerror(errno));
    *out = t;
out:
    if (rc < 0) topology_free(t);
    return rc;
}

int topology_new(struct topology **out, const char *mode, struct err *e) {
    int rc = 0;
    struct topology *t = NULL;
    hwloc_bitmap_t allowed = NULL, here = NULL;
    *out = NULL;
    if (!mode) return 0;
    TRY(load(&t, mode, NULL, e));
    allowed = hwloc_bitmap_alloc();
    here = hwloc_bitmap_alloc();
    FAIL_IF(!allowed || !here, e, ERR_NOMEM, "out of memory in hwloc");
    FAIL_IF(hwloc_get_cpubind(t->h, allowed, HWLOC_CPUBIND_THREAD) != 0, e, ERR_IO,
            "--numa: the system does not tell on which processors this process may run: %s",
            strerror(errno));
    if (hwloc_get_last_cpu_location(t->h, here, HWLOC_CPUBIND_THREAD) != 0) hwloc_bitmap_zero(here);
    TRY(line_up(t, allowed, hwloc_bitmap_first(here), e));
    *out = t;
    t = NULL;
out:
    hwloc_bitmap_free(allowed);
    hwloc_bitmap_free(here);
    topology_free(t);
    return rc;
}

int topology_new_synthetic(struct topology **out, const char *mode, const char *machine,
                           const char *allowed, int here, struct err *e) {
    int rc = 0;
    struct topology *t = NULL;
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    *out = NULL;
    FAIL_IF(!set, e, ERR_NOMEM, "out of memory in hwloc");
    TRY(load(&t, mode, machine, e));
    hwloc_bitmap_fill(set);
    FAIL_IF(allowed && hwloc_bitmap_list_sscanf(set, allowed) != 0, e, ERR_ARG,
            "'%s' is not a list of processors", allowed);
    TRY(line_up(t, set, here, e));
    *out = t;
    t = NULL;
out:
    hwloc_bitmap_free(set);
    topology_free(t);
    return rc;
}

void topology_free(struct topology *t) {
    if (!t) return;
    if (t->h) hwloc_topology_destroy(t->h);
    hwloc_bitmap_free(t->nodes);
    heap_free(t->p);
    heap_free(t);
}

bool topology_place(const struct topology *t, void *p, size_t n_bytes) {
    if (!t || t->mode == MODE_numactl || hwloc_bitmap_iszero(t->nodes)) return false;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p;
    const uintptr_t begin = (at + page - 1) / page * page, end = (at + n_bytes) / page * page;
    if (begin >= end) return false;
    /* Not strictly: a node that is full must not end the program. */
    return hwloc_set_area_membind(t->h, (const void *)begin, end - begin, t->nodes,
                                  t->mode == MODE_isolate ? HWLOC_MEMBIND_BIND
                                                          : HWLOC_MEMBIND_INTERLEAVE,
                                  HWLOC_MEMBIND_BYNODESET) == 0;
}

#else

int topology_new(struct topology **out, const char *mode, struct err *e) {
    *out = NULL;
    if (!mode) return 0;
    return ERR(e, ERR_UNSUPPORTED,
               "--numa needs hwloc, which this program was built without; install libhwloc-dev "
               "(make setup) and build again");
}

int topology_new_synthetic(struct topology **out, const char *mode, const char *machine,
                           const char *allowed, int here, struct err *e) {
    (void)machine, (void)allowed, (void)here;
    return topology_new(out, mode, e);
}

void topology_free(struct topology *t) {
    heap_free(t);
}

bool topology_place(const struct topology *t, void *p, size_t n_bytes) {
    (void)t, (void)p, (void)n_bytes;
    return false;
}

#endif
