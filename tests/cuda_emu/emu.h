/* SPDX-License-Identifier: MIT
 * emu.h - the part of the CUDA runtime that the cuda column uses, on the host: the same kernels run
 * without a compiler for CUDA and without a card, slowly, and with checks that no card makes.
 *
 * Blocks run one after another. The threads of a block are fibers that run until they meet others:
 * at __syncthreads, or at a collective of their warp (shuffles, ldmatrix, mma), which the last lane
 * to arrive carries out for all. What stops the program with a message:
 *   - lanes of a warp in different collectives, threads that wait for others that are gone;
 *   - an access behind (rounded up to 16 bytes) an allocation or the dynamic shared memory;
 *   - host code that touches device memory, which is only accessible while work is carried out, up
 *     to the next synchronisation;
 *   - copies in the background that are not aligned, or that nobody waits for;
 *   - threads that never wait for the kernel before theirs (await_previous);
 *   - page-locked memory that is given up while a copy from or to it is under way.
 * Shared memory starts out as NaN. GGAUGE_EMU_ORDER=reverse runs threads from the last to the
 * first, so that a missing barrier changes results; a warp runs until the block has to wait.
 *
 * Work of a stream is queued, and carried out as late as it may: when the host waits for it, or for
 * what waits for it. With GGAUGE_EMU_SEED=number it is carried out at times of its own, in an order
 * of the streams that the number decides, so that a dependency that nobody declared shows in the
 * results, for some number or without. A copy from page-locked memory reads it when it is carried
 * out; one from other memory has read it when the call returns, one to other memory is complete
 * then, as on a card.
 *
 * GGAUGE_EMU_MEMORY=bytes limits the device's memory, GGAUGE_EMU_LOCKED=bytes what can be
 * page-locked. GGAUGE_EMU_TRACE=file gets a line for every wait of the host: what for, and how much
 * was carried out and is left. emu_launches() tells a test that opens the library how many kernels
 * have run.
 *
 * One host thread at a time. x86-64 alone. */
#ifndef GGAUGE_EMU_H
#define GGAUGE_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return uint4{ x, y, z, w };
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return float4{ x, y, z, w };
}

/* ---- threads --------------------------------------------------------------------------------- */

struct emu_grid {
    dim3 thread, block, block_dim, grid_dim;
};
extern emu_grid emu_now; /* of the thread that runs */
#define threadIdx emu_now.thread
#define blockIdx emu_now.block
#define blockDim emu_now.block_dim
#define gridDim emu_now.grid_dim

unsigned char *emu_shared(void);
/* Kernels may overlap on a card; a thread that ends without it stops the program. */
void emu_await_previous(void);
/* Happens when it is waited for, and not before. */
void emu_cp_async(void *shared, const void *global, unsigned n);
void emu_cp_async_commit(void);
void emu_cp_async_wait(int n_groups);
/* Like a copy in the background, but of one thread for all. */
void emu_bulk_init(uint64_t *barrier);
void emu_bulk_copy(void *shared, const void *global, unsigned n, uint64_t *barrier);
void emu_bulk_wait(uint64_t *barrier, unsigned round);
void __syncthreads(void);

/* Meet the other lanes of the warp: the last one calls fn(lanes), where lanes[i] is lane i's
 * args. */
void emu_warp(void *args, void (*fn)(void **lanes));

static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
    (void)mask;
    emu_warp(NULL, [](void **) {});
}

template <class T> struct emu_shuffle {
    T in, out;
    int from;
};
template <class T> static inline T emu_shuffle_from(T x, int from) {
    emu_shuffle<T> a = { x, x, from };
    emu_warp(&a, [](void **l) {
        for (int i = 0; i < 32; i++) {
            emu_shuffle<T> *me = (emu_shuffle<T> *)l[i];
            me->out = ((emu_shuffle<T> *)l[me->from & 31])->in;
        }
    });
    return a.out;
}
int emu_lane(void);
template <class T> static inline T __shfl_xor_sync(unsigned, T x, int mask) {
    return emu_shuffle_from(x, emu_lane() ^ mask);
}
template <class T> static inline T __shfl_sync(unsigned, T x, int lane) {
    return emu_shuffle_from(x, lane);
}
int __any_sync(unsigned mask, int pred);
int __syncthreads_or(int pred);

void emu_ldmatrix4(uint32_t r[4], const void *row, bool trans);
void emu_mma_s8(int d[4], const uint32_t a[4], const uint32_t b[2], int c);
void emu_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]);

/* ---- runtime --------------------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNotReady = 600,
    cudaErrorHostMemoryAlreadyRegistered = 712,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum { cudaHostRegisterPortable = 1, cudaHostAllocPortable = 1 };

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, l2CacheSize, memoryBusWidth;
};
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t, *cudaGraphExec_t;

/* Visible outside of the plug-in, for the test of the emulation itself. */
#pragma GCC visibility push(default)
extern "C" {
const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int i);
cudaError_t cudaDeviceGetPCIBusId(char *buf, int n, int i);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *n_free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p); /* when all work is done */
cudaError_t cudaHostRegister(void *p, size_t n, unsigned flags);
cudaError_t cudaHostUnregister(void *p);
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind k, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *dst, int v, size_t n, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode m);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x);
}
#pragma GCC visibility pop

#define EMU_MAX_SHARED ((size_t)227 << 10)

template <class F> static inline cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int n) {
    return (size_t)n <= EMU_MAX_SHARED ? cudaSuccess : cudaErrorInvalidValue;
}

/* cublasGemmEx for A transposed, B not, and float results; products are added in binary32. The
 * handle is the stream. */
int emu_gemm(struct cublasContext *h, int op_a, int op_b, int m, int n, int k, const void *alpha,
             const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
             const void *beta, void *c, int type_c, int ldc, int compute, int algo);

/* Run fn once per thread; while a stream is captured, keep it for cudaGraphLaunch. fn is copied. */
struct emu_task {
    virtual void run(void) = 0;
    virtual ~emu_task() {}
};
struct emu_kernel {
    dim3 grid, block;
    size_t shared;
    std::shared_ptr<emu_task> task;
};
void emu_submit(cudaStream_t s, const struct emu_kernel *k);
template <class F>
static inline void emu_launch(cudaStream_t s, dim3 grid, dim3 block, size_t shared, F fn) {
    struct task : emu_task {
        F f;
        explicit task(F g) : f(g) {}
        void run(void) override { f(); }
    };
    const struct emu_kernel k = { grid, block, shared, std::make_shared<task>(fn) };
    emu_submit(s, &k);
}

/* ---- between emu.cc and emu_runtime.cc ------------------------------------------------------- */

void emu_run(const struct emu_kernel *k);
[[noreturn]] void emu_stop(const char *what);

#endif
