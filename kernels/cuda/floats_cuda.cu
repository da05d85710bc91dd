/* SPDX-License-Identifier: MIT
 * floats_cuda.cu - products with F32, F16 and BF16 in binary32: activations are not rounded.
 *
 * gemv: a warp a row, 16 bytes of it a lane and turn; memory bound. gemm: tiles of 64 rows x 64
 * tokens on the ordinary cores, 16 products a thread and weight; compute bound at the binary32
 * rate, for texts, whose bits must not depend on how they are cut. Speed with many tokens comes
 * from cuBLAS (blas_cuda.cu).
 *
 * A result adds its products in an order that depends on n and alignment alone. */
#include "cuda/device.cuh"
#include "cuda/elements.cuh"

#define GEMV_WARPS 4

struct float_args {
    const char *w;
    size_t w_stride;
    int64_t n_rows, n;
    const char *x;
    size_t x_stride;
    int64_t n_tok;
    char *dst;
    size_t dst_stride;
    bool vec; /* rows of w and x are aligned to 16 bytes, n is a multiple of 8 */
};

template <class W, int NT>
static __global__ void __launch_bounds__(GEMV_WARPS *WARP, 1)
    float_gemv_kernel(struct float_args a) {
    await_previous();
    const int lane = (int)threadIdx.x % WARP;
    const int64_t r = (int64_t)blockIdx.x * GEMV_WARPS + threadIdx.x / WARP;
    if (r >= a.n_rows) return; /* a whole warp */
    const char *row = a.w + (size_t)r * a.w_stride;
    float acc[NT];
#pragma unroll
    for (int t = 0; t < NT; t++)
        acc[t] = 0;
    if (a.vec) {
#pragma unroll 2
        for (int64_t i = 8 * lane; i < a.n; i += 8 * WARP) {
            float w[8], x[8];
            W::get8(row, i, w);
#pragma unroll
            for (int t = 0; t < NT; t++) {
                el_f32::get8(a.x + (size_t)(t < a.n_tok ? t : 0) * a.x_stride, i, x);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    acc[t] = fmaf(w[k], x[k], acc[t]);
            }
        }
    } else {
        for (int64_t i = lane; i < a.n; i += WARP) {
            const float w = W::get(row, i);
#pragma unroll
            for (int t = 0; t < NT; t++)
                acc[t] = fmaf(
                    w, el_f32::get(a.x + (size_t)(t < a.n_tok ? t : 0) * a.x_stride, i), acc[t]);
        }
    }
#pragma unroll
    for (int t = 0; t < NT; t++) {
        const float sum = warp_sum(acc[t]);
        if (lane == 0 && t < a.n_tok) ((float *)(a.dst + (size_t)t * a.dst_stride))[r] = sum;
    }
}

#define TILE 64  /* rows and tokens of a tile */
#define TILE_K 32
#define PITCH 68 /* floats */
#define GEMM_THREADS 256

template <class W>
static __global__ void __launch_bounds__(GEMM_THREADS) float_gemm_kernel(struct float_args a) {
    await_previous();
    SHARED(shared);
    float *ws = (float *)shared, *xs = ws + TILE_K * PITCH; /* [TILE_K, PITCH] */
    const int64_t t0 = (int64_t)blockIdx.x * TILE, r0 = (int64_t)blockIdx.y * TILE;
    const int m = (int)threadIdx.x % 16 * 4, n = (int)threadIdx.x / 16 * 4;
    float acc[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++)
        acc[i / 4][i % 4] = 0;
    for (int64_t k0 = 0; k0 < a.n; k0 += TILE_K) {
        for (int i = (int)threadIdx.x; i < TILE * TILE_K; i += GEMM_THREADS) {
            const int k = i % TILE_K, j = i / TILE_K;
            const bool in = k0 + k < a.n;
            ws[k * PITCH + j] =
                in && r0 + j < a.n_rows ? W::get(a.w + (size_t)(r0 + j) * a.w_stride, k0 + k) : 0;
            xs[k * PITCH + j] =
                in && t0 + j < a.n_tok ? el_f32::get(a.x + (size_t)(t0 + j) * a.x_stride, k0 + k)
                                       : 0;
        }
        __syncthreads();
        const int left = a.n - k0 < TILE_K ? (int)(a.n - k0) : TILE_K;
#pragma unroll 4
        for (int k = 0; k < left; k++) {
            const float4 w = *(const float4 *)(ws + k * PITCH + m);
            const float4 x = *(const float4 *)(xs + k * PITCH + n);
            const float wv[4] = { w.x, w.y, w.z, w.w }, xv[4] = { x.x, x.y, x.z, x.w };
#pragma unroll
            for (int i = 0; i < 16; i++)
                acc[i / 4][i % 4] = fmaf(wv[i % 4], xv[i / 4], acc[i / 4][i % 4]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int64_t t = t0 + n + i / 4, r = r0 + m + i % 4;
        if (t < a.n_tok && r < a.n_rows)
            ((float *)(a.dst + (size_t)t * a.dst_stride))[r] = acc[i / 4][i % 4];
    }
}

template <class W> static int mul_floats(struct cuda_device *d, const struct mul_job *j,
                                         struct err *e) {
    int rc = 0;
    const bool vec =
        ((uintptr_t)j->w.p | j->w.stride | (uintptr_t)j->x.p | j->x.stride) % 16 == 0 &&
        j->w.n % 8 == 0;
    const struct float_args a = { j->w.p, j->w.stride, j->w.rows,    j->w.n, j->x.p, j->x.stride,
                                  j->x.rows, j->dst.p, j->dst.stride, vec };
    void (*const few)(struct float_args) = a.n_tok <= 1   ? &float_gemv_kernel<W, 1>
                                           : a.n_tok <= 2 ? &float_gemv_kernel<W, 2>
                                           : a.n_tok <= 4 ? &float_gemv_kernel<W, 4>
                                                          : &float_gemv_kernel<W, 8>;
    auto many = &float_gemm_kernel<W>;
    if (j->few)
        LAUNCH(few, div_up(a.n_rows, GEMV_WARPS), GEMV_WARPS * WARP, 0, a);
    else
        LAUNCH(many, dim3(div_up(a.n_tok, TILE), div_up(a.n_rows, TILE)), GEMM_THREADS,
               2 * TILE_K * PITCH * sizeof(float), a);
out:
    return rc;
}

const struct mul_cell *mul_cell_floats(enum qtype t) {
    static const struct mul_cell f32 = { false, false, mul_floats<el_f32>, NULL };
    static const struct mul_cell f16 = { false, false, mul_floats<el_f16>, NULL };
    static const struct mul_cell bf16 = { false, false, mul_floats<el_bf16>, NULL };
    switch (t) {
    case QT_f32: return &f32;
    case QT_f16: return &f16;
    case QT_bf16: return &bf16;
    default: return NULL;
    }
}
