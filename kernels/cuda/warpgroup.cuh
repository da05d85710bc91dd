/* SPDX-License-Identifier: MIT
 * warpgroup.cuh - products of binary16 that a warpgroup of 4 warps starts together and that run
 * beside what it does next: wgmma of sm_90a. Elsewhere, and in the emulation, every warp does its
 * own part at once with mma.sync, with the same operands in the same places, so that one kernel
 * serves both.
 *
 * d [64, N] += a [64, 16] b [N, 16]^T in binary32. A warp has 16 rows of a and d, in registers as
 * mma_f16 (platform.cuh) has them: d[j] are columns 8 j .. 8 j + 7. b lies in shared memory: column
 * n has 128 bytes there, of which the product takes 32 (its 16 rows) from byte 32 k on; 16 bytes at
 * position c of the 128 are at c ^ (n % 8). Slots of b begin at multiples of 1024 bytes. */
#ifndef GGAUGE_WARPGROUP_CUH
#define GGAUGE_WARPGROUP_CUH

#include "cuda/platform.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1
#else
#define HAS_WGMMA 0
#endif

/* Before the first product, and whenever registers of operands have changed. */
DEV void warpgroup_arrive(void) {
#if HAS_WGMMA
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

DEV void warpgroup_commit(void) {
#if HAS_WGMMA
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/* Until at most N of the groups that were committed are under way. */
template <int N> DEV void warpgroup_wait(void) {
#if HAS_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

/* The registers are in use up to here; what is read of them from here on was not read before. */
template <int N> DEV void warpgroup_keep(float (*d)[4]) {
    (void)d;
#if HAS_WGMMA
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
#endif
}
DEV void warpgroup_keep4(uint32_t a[4]) {
    (void)a;
#if HAS_WGMMA
    asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
#endif
}

/* Where products find b: the slot, and its part k. */
struct warpgroup_b {
#if HAS_WGMMA
    uint64_t descriptor; /* rows of 128 bytes, swizzled, 8 of them every 1024 bytes */
#else
    const unsigned char *slot;
#endif
};

DEV struct warpgroup_b warpgroup_b_at(unsigned char *slot) {
#if HAS_WGMMA
    return { (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 |
             (uint64_t)(place_of(slot) >> 4) };
#else
    return { slot };
#endif
}

#if HAS_WGMMA
#define WG_D4(d) "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3])
#define WG_D16(d) WG_D4((d)[0]), WG_D4((d)[1]), WG_D4((d)[2]), WG_D4((d)[3])
#define WG_D32(d) WG_D16(d), WG_D16((d) + 4)

template <int N> struct warpgroup_product;
template <> struct warpgroup_product<64> {
    static __device__ __forceinline__ void start(float (*d)[4], const uint32_t a[4], uint64_t b) {
        asm volatile(
            "{ .reg .pred all; setp.eq.u32 all, 0, 0; "
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
            "}, {%32, %33, %34, %35}, %36, all, 1, 1, 0; }"
            : WG_D32(d)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    }
};
template <> struct warpgroup_product<128> {
    static __device__ __forceinline__ void start(float (*d)[4], const uint32_t a[4], uint64_t b) {
        asm volatile(
            "{ .reg .pred all; setp.eq.u32 all, 0, 0; "
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
            "}, {%64, %65, %66, %67}, %68, all, 1, 1, 0; }"
            : WG_D32(d), WG_D32(d + 8)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    }
};
template <> struct warpgroup_product<256> {
    static __device__ __forceinline__ void start(float (*d)[4], const uint32_t a[4], uint64_t b) {
        asm volatile(
            "{ .reg .pred all; setp.eq.u32 all, 0, 0; "
            "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
            "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
            "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
            "%96, %97, %98, %99, %100, %101, %102, %103, "
            "%104, %105, %106, %107, %108, %109, %110, %111, "
            "%112, %113, %114, %115, %116, %117, %118, %119, "
            "%120, %121, %122, %123, %124, %125, %126, %127"
            "}, {%128, %129, %130, %131}, %132, all, 1, 1, 0; }"
            : WG_D32(d), WG_D32(d + 8), WG_D32(d + 16), WG_D32(d + 24)
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    }
};
#endif

/* Starts d += a b with part k of b. */
template <int N>
DEV void warpgroup_multiply(float (*d)[4], const uint32_t a[4], const struct warpgroup_b &b,
                            int k) {
#if HAS_WGMMA
    warpgroup_product<N>::start(d, a, b.descriptor + (uint64_t)(2 * k));
#else
    const int lane = (int)(thread_now() % WARP), n = lane % 8 + lane / 16 * 8;
    const unsigned char *at = b.slot + 128 * n + 16 * ((2 * k + lane / 8 % 2) ^ (n % 8));
#pragma unroll
    for (int j = 0; j < N / 8; j += 2) {
        uint32_t m[4];
        ldmatrix4(m, at + 1024 * j);
        mma_f16(d[j], a, m);
        mma_f16(d[j + 1], a, m + 2);
    }
#endif
}

#endif
