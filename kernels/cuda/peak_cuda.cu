/* SPDX-License-Identifier: MIT
 * peak_cuda.cu - what the card can do: loops that do one kind of work and nothing else, which speeds
 * of cells are compared with. See peak_cell.h for the kinds.
 *
 *   read  bytes a second of a copy from device memory to device memory, read and written ones
 *   i8    multiply-adds of mma.sync m16n8k32 on int8;  bf16  of mma.sync m16n8k16 on binary16
 *   f32   of fma on binary32
 *
 * Compute loops: 4 blocks of 256 threads an SM, 8 independent chains each. */
#include "cuda/run.cuh"

#define THREADS 256
#define CHAINS 8
#define LEAST_S 0.02
#define COPY_BYTES ((size_t)1 << 30)

static __global__ void peak_i8_kernel(int *out, int turns) {
    await_previous();
    int d[CHAINS][4] = { { 0 } };
    const uint32_t a[4] = { 0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u };
    const uint32_t b[2] = { 0x01010101u * (threadIdx.x & 1), 0x01010101u };
    for (int t = 0; t < turns; t++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++)
            mma_s8(d[i], a, b, t);
    int sum = 0;
    for (int i = 0; i < CHAINS; i++)
        sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    out[blockIdx.x * THREADS + threadIdx.x] = sum;
}

static __global__ void peak_f16_kernel(int *out, int turns) {
    await_previous();
    float d[CHAINS][4] = { { 0 } };
    const uint32_t a[4] = { 0x3C003C00u, 0x3C003C00u, 0x3C003C00u, 0x3C003C00u };
    const uint32_t b[2] = { 0x3C003C00u * (threadIdx.x & 1), 0x3C003C00u };
    for (int t = 0; t < turns; t++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++)
            mma_f16(d[i], a, b);
    float sum = 0;
    for (int i = 0; i < CHAINS; i++)
        sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    out[blockIdx.x * THREADS + threadIdx.x] = (int)sum;
}

static __global__ void peak_f32_kernel(int *out, int turns) {
    await_previous();
    float d[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        d[i] = (float)(threadIdx.x + i);
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
    LAUNCH(kernel, 4 * (unsigned)d->prop.multiProcessorCount, THREADS, 0, out, turns);
    CU_TRY(cudaEventRecord(d->mark[1], d->stream));
    CU_TRY(cudaEventSynchronize(d->mark[1]));
    CU_TRY(cudaEventElapsedTime(&ms, d->mark[0], d->mark[1]));
    *seconds = (double)ms * 1e-3;
out:
    return rc;
}

/* Best of 5 after the loop was made long enough. macs: of a warp and chain in one turn. */
static int compute_peak(struct cuda_device *d, void (*kernel)(int *, int), double macs,
                        double *per_second, struct err *e) {
    int rc = 0, turns = 16;
    char *out = NULL;
    double s = 0, best = 0;
    const double warps = 4.0 * d->prop.multiProcessorCount * (THREADS / WARP);
    TRY(device_malloc(d, 4 * (size_t)d->prop.multiProcessorCount * THREADS * sizeof(int),
                      "a peak", &out, e));
    for (; turns < 1 << 24; turns *= 2) {
        TRY(time_loop(d, kernel, (int *)out, turns, &s, e));
        if (s >= LEAST_S) break;
    }
    for (int i = 0; i < 5; i++) {
        TRY(time_loop(d, kernel, (int *)out, turns, &s, e));
        if (s > 0 && warps * CHAINS * macs * turns / s > best)
            best = warps * CHAINS * macs * turns / s;
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
    case PEAK_f32: return compute_peak(d, peak_f32_kernel, 32, per_second, e);
    case PEAK_i8: return compute_peak(d, peak_i8_kernel, 16 * 8 * 32, per_second, e);
    case PEAK_bf16: return compute_peak(d, peak_f16_kernel, 16 * 8 * 16, per_second, e);
    case PEAK_read: return copy_peak(d, per_second, e);
    default: return 0;
    }
}
