/* SPDX-License-Identifier: MIT
 * peak_cuda.cu - what the card can do: loops that do one kind of work and nothing else, which
 * speeds of cells are compared with. See peak_cell.h for the kinds.
 *
 *   read  bytes a second of a copy from device memory to device memory, read and written ones
 *   i8    multiply-adds of tensor cores on int8;  bf16  on binary16, summed in binary32: wgmma from
 *         shared memory in code for sm_90a, where mma.sync reaches some 60 %, elsewhere mma.sync
 *   f32   of fma on binary32
 *
 * Every product is added to the one before it in its chain and the sums are stored, so that none
 * can be left out; operands are many different numbers, because power, and with it the clock,
 * depends on them. Compute loops: 4 blocks of 256 threads an SM. In the emulation a peak says
 * nothing. */
#include "cuda/run.cuh"

#define THREADS 256
#define CHAINS 8
/* Products of [16, .] with [., 8] that a warp makes in a turn, .: 32 bytes. */
#define TURN 128
#define LEAST_S 0.02
#define COPY_BYTES ((size_t)1 << 30)

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA
#endif

/* Of wgmma: A [64, 32 bytes] and a B [32 bytes, 256] for each of STEPS products of a turn. The host
 * does not know which code it starts: shared memory and the length of a turn are the same. */
#define A_BYTES (64 * 32)
#define B_BYTES (256 * 32)
#define STEPS 4
#define TENSOR_SHARED (A_BYTES + STEPS * B_BYTES)
static_assert(STEPS * 64 * 256 == 4 * TURN * 16 * 8, "4 warps make a product of wgmma");

/* ---- tensor cores ---------------------------------------------------------------------------- */

DEV uint32_t scrambled(uint32_t x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

/* Four bytes; two binary16 between 0.5 and 1, of either sign. */
DEV uint32_t operand(uint32_t, uint32_t i) {
    return scrambled(i);
}
DEV uint32_t operand(float, uint32_t i) {
    return (scrambled(i) & 0x83FF83FFu) | 0x38003800u;
}

#if defined(HAS_WGMMA)

/* A and B lie in matrices of 8 rows (of A, columns of B) of 16 bytes, two side by side. */
DEV uint64_t matrix_at(uint32_t shared) {
    const uint64_t beside = 128 >> 4, below = 256 >> 4;
    return (uint64_t)(shared & 0x3FFFF) >> 4 | beside << 16 | below << 32;
}

#define SUMS_128                                                                                   \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                      \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
    "%127}"
#define OUT_8(c, i)                                                                                \
    c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]),         \
        c(d[i + 7])
#define OUT_32(c, i) OUT_8(c, i), OUT_8(c, i + 8), OUT_8(c, i + 16), OUT_8(c, i + 24)
#define OUT_128(c) OUT_32(c, 0), OUT_32(c, 32), OUT_32(c, 64), OUT_32(c, 96)

/* d [64, 256] += A B by 4 warps, in the background. */
DEV void wgmma(uint32_t d[128], uint64_t a, uint64_t b) {
    asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; "
                 "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " SUMS_128 ", %128, %129, p; }"
                 : OUT_128("+r")
                 : "l"(a), "l"(b));
}
DEV void wgmma(float d[128], uint64_t a, uint64_t b) {
    asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; "
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 " SUMS_128
                 ", %128, %129, p, 1, 1, 0, 0; }"
                 : OUT_128("+f")
                 : "l"(a), "l"(b));
}

template <class T> DEV T tensor_turns(uint32_t *shared, int turns) {
    for (unsigned i = threadIdx.x; i < TENSOR_SHARED / 4; i += THREADS)
        shared[i] = operand(T(0), i);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    const uint32_t at = place_of(shared);
    const uint64_t a = matrix_at(at);
    T d[128] = { 0 };
    for (int t = 0; t < turns; t++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            wgmma(d, a, matrix_at(at + A_BYTES + i * B_BYTES));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    T sum = 0;
#pragma unroll
    for (int i = 0; i < 128; i++)
        sum += d[i];
    return sum;
}

#else

/* d [16, 8] += a b, held as those of mma_s8 and mma_f16. */
DEV void chain(uint32_t d[4], const uint32_t a[4], const uint32_t b[2]) {
#if defined(GGAUGE_CUDA_EMU)
    int product[4];
    emu_mma_s8(product, a, b, 0);
    for (int i = 0; i < 4; i++)
        d[i] += (uint32_t)product[i];
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
DEV void chain(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    mma_f16(d, a, b);
}

template <class T> DEV T tensor_turns(uint32_t *, int turns) {
    T d[CHAINS][4] = { { 0 } };
    uint32_t a[4], b[CHAINS][2];
    for (unsigned i = 0; i < 4; i++)
        a[i] = operand(T(0), threadIdx.x * 4 + i);
    for (unsigned i = 0; i < 2 * CHAINS; i++)
        b[i / 2][i % 2] = operand(T(0), (threadIdx.x + THREADS) * 2 * CHAINS + i);
    for (int t = 0; t < turns; t++)
#pragma unroll
        for (int i = 0; i < TURN; i++)
            chain(d[i % CHAINS], a, b[i % CHAINS]);
    T sum = 0;
    for (int i = 0; i < CHAINS; i++)
        sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    return sum;
}

#endif

template <class T> static __global__ void peak_tensor_kernel(int *out, int turns) {
    SHARED(shared);
    await_previous();
    out[blockIdx.x * THREADS + threadIdx.x] = (int)tensor_turns<T>((uint32_t *)shared, turns);
}

/* ---- other loops ----------------------------------------------------------------------------- */

static __global__ void peak_f32_kernel(int *out, int turns) {
    await_previous();
    float d[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        d[i] = (float)(threadIdx.x + i);
#pragma unroll 16
    for (int t = 0; t < turns; t++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++)
            d[i] = fmaf(d[i], 0.999f, 0.5f);
    float sum = 0;
    for (int i = 0; i < CHAINS; i++)
        sum += d[i];
    out[blockIdx.x * THREADS + threadIdx.x] = (int)sum;
}

static __global__ void peak_copy_kernel(uint4 *to, const uint4 *from, size_t n) {
    await_previous();
    const size_t step = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step)
        to[i] = from[i];
}

/* Seconds of `turns` turns of a loop, by the device's clock. */
static int time_loop(struct cuda_device *d, void (*kernel)(int *, int), int *out, int turns,
                     double *seconds, struct err *e) {
    int rc = 0;
    float ms = 0;
    CU_TRY(cudaEventRecord(d->mark[0], d->stream));
    LAUNCH(kernel, 4 * (unsigned)d->prop.multiProcessorCount, THREADS, TENSOR_SHARED, out, turns);
    CU_TRY(cudaEventRecord(d->mark[1], d->stream));
    CU_TRY(cudaEventSynchronize(d->mark[1]));
    CU_TRY(cudaEventElapsedTime(&ms, d->mark[0], d->mark[1]));
    *seconds = (double)ms * 1e-3;
out:
    return rc;
}

/* Best of 5 after the loop was made long enough. macs: of a warp in one turn. */
static int compute_peak(struct cuda_device *d, void (*kernel)(int *, int), double macs,
                        double *per_second, struct err *e) {
    int rc = 0, turns = 1;
    char *out = NULL;
    double s = 0, best = 0;
    const double warps = 4.0 * d->prop.multiProcessorCount * (THREADS / WARP);
    TRY(device_malloc(d, 4 * (size_t)d->prop.multiProcessorCount * THREADS * sizeof(int), "a peak",
                      &out, e));
    for (; turns < 1 << 24; turns *= 2) {
        TRY(time_loop(d, kernel, (int *)out, turns, &s, e));
        if (s >= LEAST_S) break;
    }
    for (int i = 0; i < 5; i++) {
        TRY(time_loop(d, kernel, (int *)out, turns, &s, e));
        if (s > 0 && warps * macs * turns / s > best) best = warps * macs * turns / s;
    }
    *per_second = best;
out:
    cudaFree(out);
    return rc;
}

static int copy_peak(struct cuda_device *d, double *per_second, struct err *e) {
    int rc = 0;
    float ms = 0;
    size_t n_free = 0, total = 0, n = COPY_BYTES;
    char *from = NULL, *to = NULL;
    *per_second = 0;
    CU_TRY(cudaMemGetInfo(&n_free, &total));
    while (n > n_free / 4)
        n /= 2;
#if defined(GGAUGE_CUDA_EMU)
    n = (size_t)1 << 20; /* says nothing in any case */
#endif
    TRY(device_malloc(d, n, "a peak", &from, e));
    TRY(device_malloc(d, n, "a peak", &to, e));
    CU_TRY(cudaMemsetAsync(from, 1, n, d->stream));
    for (int i = 0; i < 8; i++) {
        CU_TRY(cudaEventRecord(d->mark[0], d->stream));
        LAUNCH(peak_copy_kernel, 16 * (unsigned)d->prop.multiProcessorCount, THREADS, 0,
               (uint4 *)to, (const uint4 *)from, n / 16);
        CU_TRY(cudaEventRecord(d->mark[1], d->stream));
        CU_TRY(cudaEventSynchronize(d->mark[1]));
        CU_TRY(cudaEventElapsedTime(&ms, d->mark[0], d->mark[1]));
        const double rate = ms > 0 ? 2 * (double)n / ((double)ms * 1e-3) : 0;
        if (rate > *per_second) *per_second = rate;
    }
out:
    cudaFree(from);
    cudaFree(to);
    return rc;
}

int peak_measure(struct cuda_device *d, enum peak p, double *per_second, struct err *e) {
    *per_second = 0;
    switch (p) {
    case PEAK_f32: return compute_peak(d, peak_f32_kernel, CHAINS * WARP, per_second, e);
    case PEAK_i8:
        return compute_peak(d, peak_tensor_kernel<uint32_t>, TURN * 16 * 8 * 32, per_second, e);
    case PEAK_bf16:
        return compute_peak(d, peak_tensor_kernel<float>, TURN * 16 * 8 * 16, per_second, e);
    case PEAK_read: return copy_peak(d, per_second, e);
    default: return 0;
    }
}
