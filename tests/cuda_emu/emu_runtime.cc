/* SPDX-License-Identifier: MIT
 * emu_runtime.cc - memory, streams, events, graphs and cuBLAS of the emulated device; see emu.h. */
#include "emu.h"

#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include <deque>
#include <functional>
#include <vector>

#include "base/fp16.h"

#define PAGE ((size_t)4096)

/* ---- device memory ----------------------------------------------------------------------------- */

#define MAX_ALLOCATIONS 8192

struct allocation {
    char *map, *data;
    size_t map_bytes, n;
};

static struct allocation allocations[MAX_ALLOCATIONS];
static int n_allocations;
static size_t n_allocated;
static bool is_open; /* device memory is accessible */

static void access_device(bool on) {
    if (on == is_open) return;
    is_open = on;
    for (int i = 0; i < n_allocations; i++)
        mprotect(allocations[i].map, allocations[i].map_bytes - PAGE,
                 on ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static size_t limit_of(const char *variable) {
    const char *s = getenv(variable);
    return s ? (size_t)strtoull(s, NULL, 10) : (size_t)8 << 30;
}

static size_t memory_limit(void) {
    return limit_of("GGAUGE_EMU_MEMORY");
}

cudaError_t cudaMemGetInfo(size_t *n_free, size_t *total) {
    *total = memory_limit();
    *n_free = *total > n_allocated ? *total - n_allocated : 0;
    return cudaSuccess;
}

/* The end is at a page that cannot be touched, the begin at a multiple of 16 bytes. */
cudaError_t cudaMalloc(void **p, size_t n) {
    const size_t bytes = (n + 15) / 16 * 16;
    *p = NULL;
    if (n_allocated + n > memory_limit()) return cudaErrorMemoryAllocation;
    if (n_allocations == MAX_ALLOCATIONS) emu_stop("too many allocations");
    const size_t map_bytes = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
    char *m = (char *)mmap(NULL, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) return cudaErrorMemoryAllocation;
    if (is_open) mprotect(m, map_bytes - PAGE, PROT_READ | PROT_WRITE);
    allocations[n_allocations++] = { m, m + map_bytes - PAGE - bytes, map_bytes, n };
    n_allocated += n;
    *p = m + map_bytes - PAGE - bytes;
    return cudaSuccess;
}

/* ---- streams -----------------------------------------------------------------------------------
 */

/* One recording of an event. */
struct recording {
    bool done;
    struct timespec t;
    cudaStream_t stream;
};
typedef std::shared_ptr<struct recording> recording_ref;

struct work {
    std::function<void()> run;
    recording_ref wait; /* NULL, or what has to be done before */
    const char *host;   /* page-locked memory that it uses, [n] */
    size_t n;
};

struct emu_stream {
    std::deque<struct work> queue;
};

struct emu_event {
    recording_ref last;
};

struct emu_graph {
    std::vector<struct emu_kernel> kernels;
    int n_refs;
};

static std::vector<cudaStream_t> streams;
static emu_graph *capture;
static cudaStream_t captured;
static size_t n_done; /* pieces of work, since the last wait */

static bool is_ready(const emu_stream *s) {
    return !s->queue.empty() && (!s->queue.front().wait || s->queue.front().wait->done);
}

static void step(cudaStream_t s) {
    struct work w = s->queue.front();
    s->queue.pop_front();
    access_device(true);
    if (w.run) w.run();
    n_done++;
}

/* A number below n that GGAUGE_EMU_SEED decides; without it there is no choice. */
static bool has_seed(void) {
    return getenv("GGAUGE_EMU_SEED") != NULL;
}

static size_t choice(size_t n) {
    static uint64_t seed, state;
    const uint64_t now = strtoull(getenv("GGAUGE_EMU_SEED"), NULL, 10) + 1;
    if (seed != now) state = seed = now;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)((state >> 33) % n);
}

static cudaStream_t any_ready(void) {
    std::vector<cudaStream_t> ready;
    for (cudaStream_t s : streams)
        if (is_ready(s)) ready.push_back(s);
    return ready.empty() ? NULL : ready[choice(ready.size())];
}

/* The stream in which the first work of s that is not done lies, or what it waits for. */
static cudaStream_t needed(cudaStream_t s) {
    while (!s->queue.empty() && !is_ready(s))
        s = s->queue.front().wait->stream;
    return s->queue.empty() ? NULL : s;
}

static void run_until(cudaStream_t s, const std::function<bool()> &done) {
    while (!done()) {
        const cudaStream_t next = has_seed() ? any_ready() : needed(s);
        if (!next) emu_stop("streams that wait for each other");
        step(next);
    }
}

static void finish(cudaStream_t s) {
    run_until(s, [=]() { return s->queue.empty(); });
}

static void finish_all(void) {
    for (cudaStream_t s : streams)
        finish(s);
}

/* Behind a wait of the host: what it was for, and how much is not done. */
static void trace(const char *what) {
    const char *path = getenv("GGAUGE_EMU_TRACE");
    FILE *f = path ? fopen(path, "a") : NULL;
    size_t left = 0;
    for (cudaStream_t s : streams)
        left += s->queue.size();
    if (f) {
        fprintf(f, "%s: done %zu, left %zu\n", what, n_done, left);
        fclose(f);
    }
    n_done = 0;
}

static void enqueue(cudaStream_t s, struct work w) {
    s->queue.push_back(w);
    if (!has_seed()) return;
    while (choice(3) == 0)
        if (const cudaStream_t next = any_ready()) step(next);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    *s = new emu_stream;
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    finish(s);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == s) streams.erase(streams.begin() + (long)i);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    if (capture) emu_stop("a synchronisation while a graph is captured");
    finish(s);
    access_device(false);
    trace("stream");
    return cudaSuccess;
}

/* Work that is queued could still use it: all of that comes first, as on a card. */
cudaError_t cudaFree(void *p) {
    if (p) finish_all();
    for (int i = 0; i < n_allocations; i++) {
        if (allocations[i].data != p) continue;
        munmap(allocations[i].map, allocations[i].map_bytes);
        n_allocated -= allocations[i].n;
        allocations[i] = allocations[--n_allocations];
        return cudaSuccess;
    }
    return p ? cudaErrorInvalidValue : cudaSuccess;
}

/* ---- events ------------------------------------------------------------------------------------
 */

cudaError_t cudaEventCreate(cudaEvent_t *e) {
    *e = new emu_event;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    return cudaEventCreate(e);
}

cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    if (capture && s == captured) emu_stop("an event while a graph is captured");
    const recording_ref r = std::make_shared<struct recording>();
    r->stream = s;
    e->last = r;
    enqueue(s, { [r]() {
                    clock_gettime(CLOCK_MONOTONIC, &r->t);
                    r->done = true;
                },
                 NULL, NULL, 0 });
    return cudaSuccess;
}

/* For what has been recorded so far. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    if (capture && s == captured) emu_stop("an event while a graph is captured");
    if (e->last && !e->last->done) enqueue(s, { NULL, e->last, NULL, 0 });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    if (capture) emu_stop("a synchronisation while a graph is captured");
    const recording_ref r = e->last;
    if (r) run_until(r->stream, [r]() { return r->done; });
    access_device(false);
    trace("event");
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t x, cudaEvent_t y) {
    if (!x->last || !y->last) return cudaErrorInvalidValue;
    if (!x->last->done || !y->last->done) return cudaErrorNotReady;
    const struct timespec *a = &x->last->t, *b = &y->last->t;
    *ms = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 +
                  (double)(b->tv_nsec - a->tv_nsec) * 1e-6);
    return cudaSuccess;
}

/* ---- memory of the host that stays where it is --------------------------------------------------
 */

struct locked {
    const char *p;
    size_t n;
    bool allocated;
};

static std::vector<struct locked> locked_memory;

/* Locked memory that [p, p + n) begins in. */
static const struct locked *locked_at(const void *p) {
    for (const struct locked &l : locked_memory)
        if ((const char *)p >= l.p && (const char *)p < l.p + l.n) return &l;
    return NULL;
}

static cudaError_t lock(const char *p, size_t n, bool allocated) {
    size_t sum = n;
    for (const struct locked &l : locked_memory) {
        sum += l.n;
        if ((uintptr_t)p / PAGE <= ((uintptr_t)l.p + l.n - 1) / PAGE &&
            (uintptr_t)l.p / PAGE <= ((uintptr_t)p + n - 1) / PAGE) /* pages are what is locked */
            return cudaErrorHostMemoryAlreadyRegistered;
    }
    if (sum > limit_of("GGAUGE_EMU_LOCKED")) return cudaErrorMemoryAllocation;
    locked_memory.push_back({ p, n, allocated });
    return cudaSuccess;
}

static cudaError_t unlock(const void *p, bool allocated) {
    for (size_t i = 0; i < locked_memory.size(); i++) {
        const struct locked l = locked_memory[i];
        if (l.p != p || l.allocated != allocated) continue;
        for (cudaStream_t s : streams)
            for (const struct work &w : s->queue)
                if (w.host >= l.p && w.host < l.p + l.n)
                    emu_stop("page-locked memory is given up while it is copied");
        locked_memory.erase(locked_memory.begin() + (long)i);
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned) {
    return n ? lock((const char *)p, n, false) : cudaErrorInvalidValue;
}

cudaError_t cudaHostUnregister(void *p) {
    return unlock(p, false);
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned) {
    *p = aligned_alloc(PAGE, (n + PAGE - 1) / PAGE * PAGE);
    if (!*p) return cudaErrorMemoryAllocation;
    const cudaError_t code = lock((const char *)*p, n, true);
    if (code != cudaSuccess) free(*p);
    return code;
}

cudaError_t cudaFreeHost(void *p) {
    finish_all();
    const cudaError_t code = p ? unlock(p, true) : cudaSuccess;
    if (code == cudaSuccess) free(p);
    return code;
}

/* ---- copies ------------------------------------------------------------------------------------
 */

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s) {
    if (capture && s == captured) emu_stop("copies in a graph are not emulated");
    const struct work copy = { [=]() { memmove(dst, src, n); }, NULL, NULL, 0 };
    if (kind == cudaMemcpyDeviceToDevice) {
        enqueue(s, copy);
        return cudaSuccess;
    }
    const char *host = (const char *)(kind == cudaMemcpyHostToDevice ? src : dst);
    if (const struct locked *l = locked_at(host)) {
        if (host + n > l->p + l->n) return cudaErrorInvalidValue;
        enqueue(s, { copy.run, NULL, host, n });
    } else if (kind == cudaMemcpyHostToDevice) {
        const auto bytes = std::make_shared<std::vector<char>>(host, host + n);
        enqueue(s, { [=]() { memcpy(dst, bytes->data(), n); }, NULL, NULL, 0 });
    } else {
        enqueue(s, copy);
        finish(s);
        trace("copy");
    }
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int v, size_t n, cudaStream_t s) {
    if (capture && s == captured) emu_stop("memset in a graph is not emulated");
    enqueue(s, { [=]() { memset(dst, v, n); }, NULL, NULL, 0 });
    return cudaSuccess;
}

/* ---- launches, alone or kept in a graph ---------------------------------------------------------
 */

static cudaError_t last_error;

void emu_submit(cudaStream_t s, const struct emu_kernel *kernel) {
    const struct emu_kernel k = *kernel;
    if (k.grid.x < 1 || k.grid.y < 1 || k.grid.z < 1 || k.grid.y > 65535 || k.grid.z > 65535 ||
        k.grid.x > 2147483647u) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    if (capture && s == captured)
        capture->kernels.push_back(k);
    else
        enqueue(s, { [k]() { emu_run(&k); }, NULL, NULL, 0 });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (capture) return cudaErrorInvalidValue;
    capture = new emu_graph;
    capture->n_refs = 1;
    captured = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    *g = s == captured ? capture : NULL;
    if (!*g) return cudaErrorInvalidValue;
    capture = NULL;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    g->n_refs++;
    *x = g;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    for (const struct emu_kernel &k : x->kernels)
        emu_submit(s, &k);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    if (--g->n_refs == 0) delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    return cudaGraphDestroy(x);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorHostMemoryAlreadyRegistered:
        return "part or all of the requested memory range is already mapped";
    default: return "invalid argument";
    }
}

cudaError_t cudaGetLastError(void) {
    const cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaGetDeviceCount(int *n) {
    const char *s = getenv("GGAUGE_EMU_DEVICES");
    *n = s ? atoi(s) : 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}

/* Where no card can be, so that nobody takes the facts of one for those of the emulation. */
cudaError_t cudaDeviceGetPCIBusId(char *buf, int n, int i) {
    snprintf(buf, (size_t)n, "FFFF:%02X:00.0", (unsigned)i & 0xFF);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated on the host");
    p->totalGlobalMem = memory_limit();
    p->sharedMemPerBlockOptin = EMU_MAX_SHARED;
    p->major = 9;
    p->multiProcessorCount = 4;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *v) {
    *v = 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = 0;
    return cudaSuccess;
}

/* ---- cuBLAS -----------------------------------------------------------------------------------
 */

static float blas_element(const void *p, int type, size_t i) {
    switch (type) {
    case 0: return ((const float *)p)[i];
    case 2: return f16_to_f32(((const f16_t *)p)[i]);
    case 14: return bf16_to_f32(((const bf16_t *)p)[i]);
    default: emu_stop("a type that the emulated cuBLAS does not know");
    }
}

int emu_gemm(struct cublasContext *h, int op_a, int op_b, int m, int n, int k, const void *alpha,
             const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
             const void *beta, void *c, int type_c, int ldc, int compute, int algo) {
    if (op_a != 1 || op_b != 0 || type_c != 0 || compute != 68 || algo != -1 || lda < k ||
        ldb < k || ldc < m || type_a != type_b)
        return 7; /* CUBLAS_STATUS_INVALID_VALUE */
    const cudaStream_t s = (cudaStream_t)h;
    if (capture && s == captured) emu_stop("cuBLAS while a graph is captured");
    const float al = *(const float *)alpha, be = *(const float *)beta;
    enqueue(s, { [=]() {
                    for (int j = 0; j < n; j++)
                        for (int i = 0; i < m; i++) {
                            float sum = 0;
                            for (int x = 0; x < k; x++)
                                sum += blas_element(a, type_a, (size_t)i * lda + x) *
                                       blas_element(b, type_b, (size_t)j * ldb + x);
                            float *y = (float *)c + i + (size_t)j * ldc;
                            *y = al * sum + (be != 0 ? be * *y : 0); /* else C is not read */
                        }
                },
                 NULL, NULL, 0 });
    return 0;
}
