/* SPDX-License-Identifier: MIT
 * test_cuda_emu.c - the emulated device's streams by raw calls: that work nobody waits for comes
 * late, that a dependency which is not declared shows in results for some order, and that copies
 * read and write the host's memory when those of a card do. */
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "emulated.h"

enum { HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE };
enum { OK, INVALID, NO_MEMORY, ALREADY_LOCKED = 712 };
enum { N = 4096, N_SEEDS = 24 };

static struct {
    int (*cudaMalloc)(void **p, size_t n);
    int (*cudaFree)(void *p);
    int (*cudaHostRegister)(void *p, size_t n, unsigned flags);
    int (*cudaHostUnregister)(void *p);
    int (*cudaMemcpyAsync)(void *to, const void *from, size_t n, int kind, void *s);
    int (*cudaMemsetAsync)(void *p, int v, size_t n, void *s);
    int (*cudaStreamCreateWithFlags)(void **s, unsigned flags);
    int (*cudaStreamDestroy)(void *s);
    int (*cudaStreamSynchronize)(void *s);
    int (*cudaStreamWaitEvent)(void *s, void *e, unsigned flags);
    int (*cudaEventCreate)(void **e);
    int (*cudaEventDestroy)(void *e);
    int (*cudaEventRecord)(void *e, void *s);
    int (*cudaEventSynchronize)(void *e);
} cu;

static void *stream[2], *event, *a, *b; /* a and b: N bytes of the device */
static char *host;                      /* N bytes, whole pages */

static void find(void *so, const char *name, void *fn) {
    void *symbol = dlsym(so, name);
    if (!symbol) fail_msg("%s", dlerror());
    memcpy(fn, &symbol, sizeof symbol);
}

static int setup(void **state) {
    (void)state;
    void *so = dlopen(built_library("libggauge-cuda-emu.so"), RTLD_NOW | RTLD_LOCAL);
    if (!so) fail_msg("%s", dlerror());
#define FIND(name) find(so, #name, &cu.name)
    FIND(cudaMalloc), FIND(cudaFree), FIND(cudaHostRegister), FIND(cudaHostUnregister);
    FIND(cudaMemcpyAsync), FIND(cudaMemsetAsync), FIND(cudaStreamCreateWithFlags);
    FIND(cudaStreamDestroy), FIND(cudaStreamSynchronize), FIND(cudaStreamWaitEvent);
    FIND(cudaEventCreate), FIND(cudaEventDestroy), FIND(cudaEventRecord);
    FIND(cudaEventSynchronize);
#undef FIND
    host = aligned_alloc(N, N);
    return !host || cu.cudaMalloc(&a, N) || cu.cudaMalloc(&b, N) ||
           cu.cudaStreamCreateWithFlags(&stream[0], 1) ||
           cu.cudaStreamCreateWithFlags(&stream[1], 1) || cu.cudaEventCreate(&event);
}

static int teardown(void **state) {
    (void)state;
    free(host);
    return cu.cudaStreamDestroy(stream[0]) || cu.cudaStreamDestroy(stream[1]) ||
           cu.cudaEventDestroy(event) || cu.cudaFree(a) || cu.cudaFree(b);
}

static void wait_for_both(void) {
    assert_int_equal(cu.cudaStreamSynchronize(stream[0]), OK);
    assert_int_equal(cu.cudaStreamSynchronize(stream[1]), OK);
}

/* The order of a seed, or without one (-1). */
static void choose(int seed) {
    char text[16];
    snprintf(text, sizeof text, "%d", seed);
    if (seed < 0)
        unsetenv("GGAUGE_EMU_SEED");
    else
        setenv("GGAUGE_EMU_SEED", text, 1);
}

/* One stream writes a, the other copies it to b and b to the host. */
static char copied_by_other(bool waits) {
    char out[N];
    assert_int_equal(cu.cudaMemsetAsync(a, 1, N, stream[0]), OK);
    wait_for_both();
    assert_int_equal(cu.cudaMemsetAsync(a, 2, N, stream[0]), OK);
    assert_int_equal(cu.cudaEventRecord(event, stream[0]), OK);
    if (waits) assert_int_equal(cu.cudaStreamWaitEvent(stream[1], event, 0), OK);
    assert_int_equal(cu.cudaMemcpyAsync(b, a, N, DEVICE_TO_DEVICE, stream[1]), OK);
    assert_int_equal(cu.cudaMemcpyAsync(out, b, N, DEVICE_TO_HOST, stream[1]), OK);
    wait_for_both();
    return out[N / 2];
}

static void missing_wait(void **state) {
    (void)state;
    int n_wrong = 0;
    for (int seed = -1; seed < N_SEEDS; seed++) {
        choose(seed);
        assert_int_equal(copied_by_other(true), 2);
        n_wrong += copied_by_other(false) != 2;
    }
    choose(-1);
    if (n_wrong == 0 || n_wrong == N_SEEDS + 1)
        fail_msg("without the wait %d of %d orders are wrong", n_wrong, N_SEEDS + 1);
}

/* The other way round: a is overwritten by the next work while it is still to be read. */
static void missing_wait_before_overwriting(void **state) {
    (void)state;
    int n_wrong = 0;
    for (int seed = -1; seed < 2 * N_SEEDS; seed++) {
        char out[N] = { 0 };
        const bool waits = seed % 2 == 0;
        choose(seed / 2);
        assert_int_equal(cu.cudaMemsetAsync(a, 1, N, stream[0]), OK);
        wait_for_both();
        assert_int_equal(cu.cudaMemcpyAsync(b, a, N, DEVICE_TO_DEVICE, stream[1]), OK);
        assert_int_equal(cu.cudaEventRecord(event, stream[1]), OK);
        if (waits) assert_int_equal(cu.cudaStreamWaitEvent(stream[0], event, 0), OK);
        assert_int_equal(cu.cudaMemsetAsync(a, 2, N, stream[0]), OK);
        assert_int_equal(cu.cudaStreamSynchronize(stream[0]), OK);
        assert_int_equal(cu.cudaMemcpyAsync(out, b, N, DEVICE_TO_HOST, stream[1]), OK);
        if (waits) assert_int_equal(out[0], 1);
        n_wrong += out[0] != 1;
    }
    choose(-1);
    assert_true(n_wrong > 0);
}

/* A wait is for what had been recorded when it was called, and an event that was never recorded
 * is no reason to wait. */
static void recorded_before(void **state) {
    (void)state;
    void *fresh = NULL;
    char out = 0;
    assert_int_equal(cu.cudaEventCreate(&fresh), OK);
    assert_int_equal(cu.cudaEventSynchronize(fresh), OK);
    assert_int_equal(cu.cudaStreamWaitEvent(stream[1], fresh, 0), OK);
    assert_int_equal(cu.cudaMemsetAsync(a, 3, N, stream[0]), OK);
    assert_int_equal(cu.cudaEventRecord(fresh, stream[0]), OK);
    assert_int_equal(cu.cudaStreamWaitEvent(stream[1], fresh, 0), OK);
    assert_int_equal(cu.cudaMemcpyAsync(b, a, N, DEVICE_TO_DEVICE, stream[1]), OK);
    assert_int_equal(cu.cudaMemsetAsync(a, 4, N, stream[0]), OK);
    assert_int_equal(cu.cudaEventRecord(fresh, stream[0]), OK);
    assert_int_equal(cu.cudaMemcpyAsync(&out, b, 1, DEVICE_TO_HOST, stream[1]), OK);
    assert_int_equal(out, 3); /* nothing but the wait made stream[0] run, and not too far */
    wait_for_both();
    assert_int_equal(cu.cudaEventDestroy(fresh), OK);
}

/* From page-locked memory bytes leave when the copy is carried out, from other memory before the
 * call returns; the other direction alike. */
static void times_of_copies(void **state) {
    (void)state;
    for (int is_locked = 0; is_locked < 2; is_locked++) {
        if (is_locked) assert_int_equal(cu.cudaHostRegister(host, N, 1), OK);
        memset(host, 5, N);
        assert_int_equal(cu.cudaMemcpyAsync(a, host, N, HOST_TO_DEVICE, stream[0]), OK);
        memset(host, 6, N);
        wait_for_both();
        assert_int_equal(cu.cudaMemcpyAsync(host, a, N, DEVICE_TO_HOST, stream[0]), OK);
        assert_int_equal(host[0], is_locked ? 6 : 5);
        wait_for_both();
        assert_int_equal(host[0], is_locked ? 6 : 5);
        assert_int_equal(cu.cudaMemsetAsync(a, 7, N, stream[0]), OK);
        assert_int_equal(cu.cudaMemcpyAsync(host, a, N, DEVICE_TO_HOST, stream[0]), OK);
        assert_int_equal(host[0], is_locked ? 6 : 7);
        wait_for_both();
        assert_int_equal(host[0], 7);
        if (is_locked) assert_int_equal(cu.cudaHostUnregister(host), OK);
    }
}

static void locking(void **state) {
    (void)state;
    char *p = aligned_alloc(N, 3 * N);
    assert_non_null(p);
    assert_int_equal(cu.cudaHostRegister(p, N + 1, 1), OK);
    assert_int_equal(cu.cudaHostRegister(p + N + 8, 8, 1), ALREADY_LOCKED); /* the same page */
    assert_int_equal(cu.cudaMemcpyAsync(a, p + N, 8, HOST_TO_DEVICE, stream[0]), INVALID);
    assert_int_equal(cu.cudaHostRegister(p + 2 * N, N, 1), OK);
    setenv("GGAUGE_EMU_LOCKED", "8192", 1);
    assert_int_equal(cu.cudaHostRegister(host, N, 1), NO_MEMORY);
    unsetenv("GGAUGE_EMU_LOCKED");
    assert_int_equal(cu.cudaHostUnregister(host), INVALID);
    assert_int_equal(cu.cudaHostUnregister(p), OK);
    assert_int_equal(cu.cudaHostUnregister(p + 2 * N), OK);
    wait_for_both();
    free(p);
}

/* The program is stopped. */
static void given_up_under_a_copy(void **state) {
    (void)state;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        signal(SIGABRT, SIG_DFL);
        if (cu.cudaHostRegister(host, N, 1)) _exit(2);
        if (cu.cudaMemcpyAsync(a, host, N, HOST_TO_DEVICE, stream[0])) _exit(3);
        cu.cudaHostUnregister(host);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_wait),    cmocka_unit_test(missing_wait_before_overwriting),
        cmocka_unit_test(recorded_before), cmocka_unit_test(times_of_copies),
        cmocka_unit_test(locking),         cmocka_unit_test(given_up_under_a_copy),
    };
    return cmocka_run_group_tests_name("cuda_emu", tests, setup, teardown);
}
