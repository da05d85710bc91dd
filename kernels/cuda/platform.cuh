/* SPDX-License-Identifier: MIT
 * platform.cuh - what the kernels of the cuda column need beyond C: the CUDA runtime or its
 * emulation on the host (GGAUGE_CUDA_EMU, tests/cuda_emu), and every instruction that has no name
 * in C++ behind a function with a body for both.
 *
 * Kernels are compiled with -fmad=false and say fmaf where they mean it, so sums have the same bits
 * on every device and in the emulation. */
#ifndef GGAUGE_PLATFORM_CUH
#define GGAUGE_PLATFORM_CUH

#include <stdint.h>

#if defined(GGAUGE_CUDA_EMU)
#include "emu.h"
#else
#include <cuda_runtime.h>
#endif

#include "cuda/decode_words.h"

#define WARP 32
#define FULL_WARP 0xFFFFFFFFu

#define DEV static __device__ __forceinline__

/* ---- launches -------------------------------------------------------------------------------- */

/* Launches may overlap (LAUNCH in device.cuh): the blocks of a kernel begin when all those of the
 * one before it have begun. So every thread of every kernel calls this before it touches memory of
 * the device; but what no kernel writes, weights and the positions and cells that the host pushes,
 * it may read earlier, and fetch into a cache whatever it likes. */
DEV void await_previous(void) {
#if defined(GGAUGE_CUDA_EMU)
    emu_await_previous();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* threadIdx.x and blockIdx, read anew: no registers keep them from one call to the next. */
struct block_place {
    int x, y;
};
#if defined(GGAUGE_CUDA_EMU)
DEV unsigned thread_now(void) {
    return threadIdx.x;
}
DEV struct block_place block_now(void) {
    return { (int)blockIdx.x, (int)blockIdx.y };
}
#else
DEV unsigned thread_now(void) {
    unsigned t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    return t;
}
DEV struct block_place block_now(void) {
    struct block_place b;
    asm volatile("mov.u32 %0, %%ctaid.x; mov.u32 %1, %%ctaid.y;" : "=r"(b.x), "=r"(b.y));
    return b;
}
#endif

/* Keeps x in a register: otherwise what is cheap to compute is computed anew wherever it is
 * used. */
template <class T> DEV void keep(T &x) {
#if defined(GGAUGE_CUDA_EMU)
    (void)x;
#else
    asm volatile("" : "+r"(x));
#endif
}

/* ---- shared memory --------------------------------------------------------------------------- */

/* The block's dynamic shared memory, aligned as the operands of wgmma want it. */
#if defined(GGAUGE_CUDA_EMU)
#define SHARED(name) unsigned char *name = emu_shared()
#else
#define SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

/* A place in shared memory, in the form that copies want: keep it if there are many. */
#if defined(GGAUGE_CUDA_EMU)
typedef unsigned char *shared_place;
#else
typedef uint32_t shared_place;
#endif
DEV shared_place place_of(void *shared) {
#if defined(GGAUGE_CUDA_EMU)
    return (unsigned char *)shared;
#else
    return (uint32_t)__cvta_generic_to_shared(shared);
#endif
}

/* 16 (4) bytes from device to shared memory in the background; both 16-byte (4-byte) aligned. */
DEV void cp_async16_to(shared_place to, const void *global) {
#if defined(GGAUGE_CUDA_EMU)
    emu_cp_async(to, global, 16);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#endif
}

DEV void cp_async16(void *shared, const void *global) {
    cp_async16_to(place_of(shared), global);
}

/* The same, or 16 zeros; global may be anything then. */
DEV void cp_async16_if(bool there, void *shared, const void *global) {
#if defined(GGAUGE_CUDA_EMU)
    if (there)
        cp_async16(shared, global);
    else
        memset(shared, 0, 16);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place_of(shared)),
                 "l"(global), "r"(there ? 16 : 0)
                 : "memory");
#endif
}

DEV void cp_async4_to(shared_place to, const void *global) {
#if defined(GGAUGE_CUDA_EMU)
    emu_cp_async(to, global, 4);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(global) : "memory");
#endif
}

/* What was started since the last commit is one group; wait until at most n groups are under
 * way. */
DEV void cp_async_commit(void) {
#if defined(GGAUGE_CUDA_EMU)
    emu_cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> DEV void cp_async_wait(void) {
#if defined(GGAUGE_CUDA_EMU)
    emu_cp_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* Copies of a multiple of 16 bytes that one thread starts and all wait for. A barrier in shared
 * memory counts what has arrived, round after round: one copy each, waited for with the number of
 * the round's lowest bit. Not on cards before 9.0. */
#if defined(GGAUGE_CUDA_EMU) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define HAS_BULK 1
#else
#define HAS_BULK 0
#endif

/* By one thread, before a __syncthreads. */
DEV void bulk_init(uint64_t *barrier) {
#if defined(GGAUGE_CUDA_EMU)
    emu_bulk_init(barrier);
#elif HAS_BULK
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(place_of(barrier)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
    (void)barrier;
#endif
}

DEV void bulk_copy(void *shared, const void *global, unsigned n, uint64_t *barrier) {
#if defined(GGAUGE_CUDA_EMU)
    emu_bulk_copy(shared, global, n, barrier);
#elif HAS_BULK
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(place_of(barrier)),
                 "r"(n)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(place_of(shared)),
                 "l"(global), "r"(n), "r"(place_of(barrier))
                 : "memory");
#else
    (void)shared, (void)global, (void)n, (void)barrier;
#endif
}

DEV void bulk_wait(uint64_t *barrier, unsigned round) {
#if defined(GGAUGE_CUDA_EMU)
    emu_bulk_wait(barrier, round);
#elif HAS_BULK
    asm volatile("{ .reg .pred there;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1;\n"
                 "@!there bra again; }" ::"r"(place_of(barrier)),
                 "r"(round & 1)
                 : "memory");
#else
    (void)barrier, (void)round;
#endif
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

/* Four 8 x 8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8 (16 bytes, 16-byte
 * aligned) and gets two elements of row l / 4 of each, columns 2 (l % 4) and the next. */
DEV void ldmatrix4(uint32_t r[4], const void *row) {
#if defined(GGAUGE_CUDA_EMU)
    emu_ldmatrix4(r, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* The same with every matrix transposed. */
DEV void ldmatrix4_trans(uint32_t r[4], const void *row) {
#if defined(GGAUGE_CUDA_EMU)
    emu_ldmatrix4(r, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* d [16, 8] = a [16, 32] b [32, 8] + c of int8 in int32. Lane l, g = l / 4, t = l % 4, holds of
 * a: rows g, g + 8 at columns 4t.., then the same at 16 + 4t..; of b: rows 4t.. and 16 + 4t.. of
 * column g; of c and d: row g, columns 2t and 2t + 1, then row g + 8. */
DEV void mma_s8(int d[4], const uint32_t a[4], const uint32_t b[2], int c) {
#if defined(GGAUGE_CUDA_EMU)
    emu_mma_s8(d, a, b, c);
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c));
#endif
}

/* d [16, 8] += a [16, 16] b [16, 8] of binary16 in binary32, held as above with pairs of columns of
 * a (rows of b) where there are four. */
DEV void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if defined(GGAUGE_CUDA_EMU)
    emu_mma_f16(d, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* The warp's index in its block, which the compiler then knows to be the same in all lanes. */
DEV int warp_index(void) {
    return __shfl_sync(FULL_WARP, (int)threadIdx.x / WARP, 0);
}

/* ---- between blocks -------------------------------------------------------------------------- */

/* The line at p may come into the cache that blocks share; allowed before await_previous, since
 * that is where kernels write, too. */
DEV void prefetch_shared(const void *p) {
#if defined(GGAUGE_CUDA_EMU)
    (void)p;
#else
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

/* What another block of this launch has written. */
template <class T> DEV T load_shared(const T *p) {
#if defined(GGAUGE_CUDA_EMU)
    return *p;
#else
    return __ldcg(p);
#endif
}

/* Whether all n blocks of a group have come here; n = 1 is for the caller. True in all threads of
 * the last block alone, which then sees (load_shared) what the others wrote before. *counter is 0
 * before and after; flag is shared memory. */
DEV bool is_last_block(unsigned *counter, unsigned n, unsigned *flag) {
    __syncthreads();
    if (threadIdx.x == 0) {
#if defined(GGAUGE_CUDA_EMU)
        *flag = (*counter = (*counter + 1) % n) == 0;
#else
        unsigned before;
        asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                     : "=r"(before)
                     : "l"(counter), "r"(n - 1)
                     : "memory");
        *flag = before == n - 1;
#endif
    }
    __syncthreads();
    return *flag != 0;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

DEV uint16_t to_f16(float x) {
#if defined(GGAUGE_CUDA_EMU)
    return f32_to_f16(x);
#else
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#endif
}

DEV uint32_t pack_f16(float low, float high) {
#if defined(GGAUGE_CUDA_EMU)
    return (uint32_t)to_f16(low) | (uint32_t)to_f16(high) << 16;
#else
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
#endif
}

DEV float f32_of(uint32_t bits) {
#if defined(GGAUGE_CUDA_EMU)
    return f32_from_bits(bits);
#else
    return __uint_as_float(bits);
#endif
}

DEV uint32_t bits_of(float x) {
#if defined(GGAUGE_CUDA_EMU)
    return f32_bits(x);
#else
    return __float_as_uint(x);
#endif
}

DEV float bf16_value(uint16_t h) {
    return f32_of((uint32_t)h << 16);
}

/* 2^x within 2 units of the last place; subnormal results are 0. */
DEV float exp2_fast(float x) {
#if defined(GGAUGE_CUDA_EMU)
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

DEV float swiglu(float gate, float up) {
    return gate / (1.0f + expf(-gate)) * up;
}

/* Sums and maxima of a warp; every lane gets the result, whose order of summation is fixed. */
template <class T> DEV T warp_sum(T x) {
#pragma unroll
    for (int m = WARP / 2; m > 0; m /= 2)
        x += __shfl_xor_sync(FULL_WARP, x, m);
    return x;
}

/* The sums of N numbers of every lane, N a power of two up to 32, with the bits of warp_sum: lanes
 * from i * 32 / N on, 32 / N of them, get that of x[i]. */
template <int N, int M = WARP / 2> DEV float warp_sums(float *x, int lane) {
    if constexpr (M == 0) {
        return x[0];
    } else {
#pragma unroll
        for (int i = 0; i < (N + 1) / 2; i++) {
            const float other = N > 1 ? x[N / 2 + i] : x[i];
            x[i] = (lane & M ? other : x[i]) +
                   __shfl_xor_sync(FULL_WARP, lane & M ? x[i] : other, M);
        }
        return warp_sums<(N + 1) / 2, M / 2>(x, lane);
    }
}

/* Sum over a block of N threads; every thread gets it. `part` is shared memory for N / 32
 * numbers. */
template <int N, class T> DEV T block_sum(T x, T *part) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = x;
    __syncthreads();
    x = part[0];
    for (int i = 1; i < N / WARP; i++)
        x += part[i];
    __syncthreads();
    return x;
}

/* A NaN stays one, and wins. */
DEV float max_nan(float a, float b) {
#if defined(GGAUGE_CUDA_EMU)
    return a != a ? a : (b != b || b > a) ? b : a;
#else
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
#endif
}

DEV float warp_max_nan(float x) {
#pragma unroll
    for (int m = WARP / 2; m > 0; m /= 2)
        x = max_nan(x, __shfl_xor_sync(FULL_WARP, x, m));
    return x;
}

#endif
