/* SPDX-License-Identifier: MIT
 * test_topology.c - which processor each thread gets, on machines of hwloc's synthetic notation:
 * every processor once before any twice, cores before hyperthreads, nodes in turn, nothing that the
 * process may not use; then this machine. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "exec/topology.h"

#define MAX_THREADS 256
#define N_MODES 3

static const char *const modes[N_MODES] = { "distribute", "isolate", "numactl" };

static struct topology *machine(const char *mode, const char *what, const char *allowed, int here) {
    struct topology *t = NULL;
    struct err e = { 0 };
    if (topology_new_synthetic(&t, mode, what, allowed, here, &e) < 0) fail_msg("%s", e.msg);
    assert_non_null(t);
    return t;
}

/* Processors of threads 0, 1, ... as a text, as many as there are and one more. */
static void expect(const char *mode, const char *what, const char *allowed, int here,
                   const char *cpus, const char *text) {
    char got[1024] = "", name[96];
    size_t n = 0;
    struct topology *t = machine(mode, what, allowed, here);
    for (int i = 0; i <= topology_n_cpus(t); i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%d", i ? " " : "", topology_cpu(t, i));
    topology_describe(t, name, sizeof name);
    if (strcmp(got, cpus) || strcmp(name, text))
        fail_msg("%s of %s (%s): %s: %s, expected %s: %s", mode, what, allowed ? allowed : "all",
                 name, got, text, cpus);
    topology_free(t);
}

/* Processors are numbered node by node, core by core. */
static void two_nodes_with_hyperthreads(void **state) {
    (void)state;
    const char *m = "numa:2 core:4 pu:2";
    expect("distribute", m, NULL, 3, "0 8 2 10 4 12 6 14 1 9 3 11 5 13 7 15 0",
           "numa distribute: 16 processors of 2 nodes");
    expect("numactl", m, NULL, 3, "0 8 2 10 4 12 6 14 1 9 3 11 5 13 7 15 0",
           "numa numactl: 16 processors of 2 nodes");
    expect("isolate", m, NULL, 3, "0 2 4 6 1 3 5 7 0", "numa isolate: 8 processors of 1 node");
    expect("isolate", m, NULL, 8, "8 10 12 14 9 11 13 15 8",
           "numa isolate: 8 processors of 1 node");
    expect("isolate", m, NULL, -1, "0 2 4 6 1 3 5 7 0", "numa isolate: 8 processors of 1 node");
}

static void one_node(void **state) {
    (void)state;
    for (int i = 0; i < N_MODES; i++) {
        char text[96];
        snprintf(text, sizeof text, "numa %s: 2 processors of 1 node", modes[i]);
        expect(modes[i], "core:2 pu:1", NULL, 1, "0 1 0", text);
        snprintf(text, sizeof text, "numa %s: 1 processor of 1 node", modes[i]);
        expect(modes[i], "core:1 pu:1", NULL, 0, "0 0", text);
        snprintf(text, sizeof text, "numa %s: 8 processors of 1 node", modes[i]);
        expect(modes[i], "core:4 pu:2", NULL, 0, "0 2 4 6 1 3 5 7 0", text);
    }
}

static void eight_nodes(void **state) {
    (void)state;
    const char *m = "pack:2 numa:4 core:2 pu:1";
    expect("distribute", m, NULL, 0, "0 2 4 6 8 10 12 14 1 3 5 7 9 11 13 15 0",
           "numa distribute: 16 processors of 8 nodes");
    expect("isolate", m, NULL, 11, "10 11 10", "numa isolate: 2 processors of 1 node");
}

/* Nodes of different sizes, holes, cores of which one hyperthread is not ours. */
static void some_processors_are_not_ours(void **state) {
    (void)state;
    const char *m = "numa:2 core:4 pu:2";
    expect("distribute", m, "0-1,8-15", 0, "0 8 10 12 14 1 9 11 13 15 0",
           "numa distribute: 10 processors of 2 nodes");
    expect("distribute", m, "1,3,4-5,9", 0, "1 9 3 4 5 1",
           "numa distribute: 5 processors of 2 nodes");
    expect("numactl", m, "8-15", 9, "8 10 12 14 9 11 13 15 8",
           "numa numactl: 8 processors of 1 node");
    expect("isolate", m, "0-1,8-15", 0, "0 1 0", "numa isolate: 2 processors of 1 node");
    /* Where it ran is not among them: it has been moved since. */
    expect("isolate", m, "8-11", 0, "8 10 9 11 8", "numa isolate: 4 processors of 1 node");
}

/* A second node with the same processors is memory of another kind, not a place for threads. */
static void memory_of_another_kind(void **state) {
    (void)state;
    expect("distribute", "pack:2 [numa] [numa] core:2 pu:1", NULL, 0, "0 2 1 3 0",
           "numa distribute: 4 processors of 2 nodes");
}

static void check_threads(const char *mode, const char *what, const char *allowed, int n_cpus) {
    struct topology *t = machine(mode, what, allowed, 0);
    assert_int_equal(topology_n_cpus(t), n_cpus);
    for (int n = 1; n <= MAX_THREADS; n++) {
        int load[MAX_THREADS] = { 0 }, per_node[8] = { 0 }, used = 0;
        for (int i = 0; i < n; i++) {
            const int cpu = topology_cpu(t, i), node = topology_node(t, i);
            assert_in_range(cpu, 0, MAX_THREADS - 1);
            assert_in_range(node, 0, 7);
            used += load[cpu]++ == 0;
            per_node[node]++;
        }
        /* Processors are shared only when all are in use, and then evenly. */
        assert_int_equal(used, n < n_cpus ? n : n_cpus);
        for (int c = 0; c < MAX_THREADS; c++)
            if (load[c]) assert_in_range(load[c], n / n_cpus, (n + n_cpus - 1) / n_cpus);
        if (!strcmp(mode, "isolate")) assert_int_equal(per_node[topology_node(t, 0)], n);
        if (strcmp(mode, "distribute") || allowed) continue;
        int least = n, most = 0;
        for (int k = 0; k < 8; k++) {
            if (per_node[k] < least && strstr(what, "numa:8")) least = per_node[k];
            if (per_node[k] > most) most = per_node[k];
        }
        if (strstr(what, "numa:8")) assert_in_range(most - least, 0, 1);
    }
    topology_free(t);
}

static void one_to_256_threads(void **state) {
    (void)state;
    check_threads("distribute", "numa:8 core:16 pu:2", NULL, 256);
    check_threads("numactl", "numa:8 core:16 pu:2", NULL, 256);
    check_threads("isolate", "numa:8 core:16 pu:2", NULL, 32);
    check_threads("distribute", "numa:8 core:3 pu:1", NULL, 24);
    check_threads("distribute", "numa:2 core:4 pu:2", "0-2,7-15", 12);
    check_threads("isolate", "numa:2 core:4 pu:2", "0-2,7-15", 4);
    check_threads("distribute", "core:1 pu:1", NULL, 1);
    check_threads("isolate", "core:2 pu:1", NULL, 2);
}

static void refusals(void **state) {
    (void)state;
    struct topology *t = (struct topology *)(uintptr_t)1;
    struct err e = { 0 };
    assert_int_equal(topology_new(&t, "mirror", &e), ERR_ARG);
    assert_null(t);
    assert_string_equal(e.msg, "--numa: expected one of distribute|isolate|numactl, not 'mirror'");
    assert_int_equal(topology_new_synthetic(&t, "isolate", "numa:two", NULL, 0, &e), ERR_ARG);
    assert_int_equal(topology_new_synthetic(&t, "isolate", "core:2 pu:1", "4-7", 0, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "no processor that this process may use"));
    assert_null(t);
}

static void no_topology(void **state) {
    (void)state;
    struct topology *t = (struct topology *)(uintptr_t)1;
    struct err e = { 0 };
    char text[16] = "x", memory[16384];
    assert_int_equal(topology_new(&t, NULL, &e), 0);
    assert_null(t);
    assert_int_equal(topology_n_cpus(t), threads_online());
    topology_describe(t, text, sizeof text);
    assert_string_equal(text, "");
    assert_false(topology_place(t, memory, sizeof memory));
    topology_free(t);
}

/* ---- this machine ---------------------------------------------------------------------------- */

struct where {
    const struct topology *t;
    _Atomic int n, wrong;
};

static void see_where(void *arg, struct work *w) {
    struct where *s = arg;
    cpu_set_t set;
    const int cpu = topology_cpu(s->t, w->ith);
    if (sched_getaffinity(0, sizeof set, &set) || CPU_COUNT(&set) != 1 || !CPU_ISSET(cpu, &set) ||
        sched_getcpu() != cpu)
        atomic_fetch_add(&s->wrong, 1);
    atomic_fetch_add(&s->n, 1);
}

static void this_machine(void **state) {
    (void)state;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int m = 0; m < N_MODES; m++) {
        struct topology *t = NULL;
        struct thread_pool *p = NULL;
        struct err e = { 0 };
        if (topology_new(&t, modes[m], &e) < 0) fail_msg("%s", e.msg);
        const int n = topology_n_cpus(t);
        assert_in_range(n, 1, threads_online());
        for (int i = 0; i < n; i++)
            assert_true(CPU_ISSET(topology_cpu(t, i), &before));
        for (int k = 1; k <= 2 * n + 1; k += n) { /* one, as many as processors and one, more */
            struct where s = { .t = t };
            if (topology_pool(t, &p, k, &e) < 0) fail_msg("%s", e.msg);
            for (int again = 0; again < 3; again++)
                thread_pool_run(p, k, see_where, &s);
            thread_pool_free(p);
            assert_int_equal(s.n, 3 * k);
            assert_int_equal(s.wrong, 0);
            assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
            assert_true(CPU_EQUAL(&before, &after)); /* the caller is free again */
        }
        topology_free(t);
    }
}

/* Memory keeps what is in it, whether or not the system lets us say where it lies; odd ranges are
 * cut to whole pages. */
static void memory_is_only_placed(void **state) {
    (void)state;
    const size_t n = (size_t)8 << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    for (int m = 0; m < N_MODES; m++) {
        struct topology *t = NULL;
        struct err e = { 0 };
        unsigned char *p = heap_alloc(n, &e);
        assert_non_null(p);
        assert_int_equal(topology_new(&t, modes[m], &e), 0);
        memset(p, 7, n / 2);
        const bool placed = topology_place(t, p + 3, n - 9);
        if (!strcmp(modes[m], "numactl")) assert_false(placed);
        assert_false(topology_place(t, p + 1, page - 1));
        memset(p + n / 2, 7, n / 2);
        for (size_t i = 0; i < n; i++)
            if (p[i] != 7) fail_msg("byte %zu", i);
        heap_free(p);
        topology_free(t);
    }
}

static void short_of_memory(void **state) {
    (void)state;
    for (int n = 1; n <= 2; n++) {
        struct topology *t = (struct topology *)(uintptr_t)1;
        struct err e = { 0 };
        heap_fail_at(n);
        assert_int_equal(topology_new(&t, "distribute", &e), ERR_NOMEM);
        heap_fail_at(0);
        assert_null(t);
    }
}

/* A build without hwloc: one clear error. */
static void without_hwloc(void **state) {
    (void)state;
    struct topology *t = (struct topology *)(uintptr_t)1;
    struct err e = { 0 };
    assert_int_equal(topology_new(&t, "isolate", &e), ERR_UNSUPPORTED);
    assert_null(t);
    assert_non_null(strstr(e.msg, "--numa needs hwloc"));
}

int main(void) {
    const struct CMUnitTest without[] = {
        cmocka_unit_test(no_topology),
        cmocka_unit_test(without_hwloc),
    };
    const struct CMUnitTest with[] = {
        cmocka_unit_test(no_topology),
        cmocka_unit_test(two_nodes_with_hyperthreads),
        cmocka_unit_test(one_node),
        cmocka_unit_test(eight_nodes),
        cmocka_unit_test(some_processors_are_not_ours),
        cmocka_unit_test(memory_of_another_kind),
        cmocka_unit_test(one_to_256_threads),
        cmocka_unit_test(refusals),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(memory_is_only_placed),
        cmocka_unit_test(short_of_memory),
    };
    struct topology *t = NULL;
    struct err e = { 0 };
    const bool lacks = topology_new(&t, "numactl", &e) == ERR_UNSUPPORTED;
    topology_free(t);
    return lacks ? cmocka_run_group_tests(without, NULL, NULL)
                 : cmocka_run_group_tests(with, NULL, NULL);
}
