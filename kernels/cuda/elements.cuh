/* SPDX-License-Identifier: MIT
 * elements.cuh - elements of rows of F32, F16 and BF16 as f32, one by one or eight at a time; those
 * start at multiples of eight, in rows aligned to 16 bytes. Rows of F32 also by four, from a
 * multiple of four on, if they are wide (row_is_wide) or not. */
#ifndef GGAUGE_ELEMENTS_CUH
#define GGAUGE_ELEMENTS_CUH

#include "cuda/platform.cuh"

/* Whether elements of these rows, or NULL, can be moved four at a time. */
static inline bool row_is_wide(const char *row, size_t stride, int64_t n) {
    return ((uintptr_t)row | stride) % 16 == 0 && n % 4 == 0;
}

/* Elements i .. i + 3 of a row of n; those behind its end are 0. */
template <bool WIDE> DEV float4 row_get4(const char *row, int64_t i, int64_t n) {
    const float *x = (const float *)row;
    if (WIDE) return i < n ? *(const float4 *)(x + i) : make_float4(0, 0, 0, 0);
    return make_float4(i < n ? x[i] : 0, i + 1 < n ? x[i + 1] : 0, i + 2 < n ? x[i + 2] : 0,
                       i + 3 < n ? x[i + 3] : 0);
}

template <bool WIDE> DEV void row_put4(char *row, int64_t i, int64_t n, const float4 &v) {
    float *x = (float *)row;
    if (WIDE) {
        if (i < n) *(float4 *)(x + i) = v;
        return;
    }
    if (i < n) x[i] = v.x;
    if (i + 1 < n) x[i + 1] = v.y;
    if (i + 2 < n) x[i + 2] = v.z;
    if (i + 3 < n) x[i + 3] = v.w;
}

struct el_f32 {
    static __device__ __forceinline__ float get(const char *row, int64_t i) {
        return ((const float *)row)[i];
    }
    static __device__ __forceinline__ void get8(const char *row, int64_t i, float *y) {
        const float4 a = ((const float4 *)row)[i / 4], b = ((const float4 *)row)[i / 4 + 1];
        y[0] = a.x, y[1] = a.y, y[2] = a.z, y[3] = a.w;
        y[4] = b.x, y[5] = b.y, y[6] = b.z, y[7] = b.w;
    }
};

/* What two types share; E::value is what 16 bits stand for. */
template <class E> struct el_16_bits {
    static __device__ __forceinline__ float get(const char *row, int64_t i) {
        return E::value(((const uint16_t *)row)[i]);
    }
    static __device__ __forceinline__ void get8(const char *row, int64_t i, float *y) {
        const uint4 v = ((const uint4 *)row)[i / 8];
        const uint32_t p[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
        for (int k = 0; k < 8; k++)
            y[k] = E::value((uint16_t)(p[k / 2] >> 16 * (k % 2)));
    }
};
struct el_f16 : el_16_bits<el_f16> {
    static __device__ __forceinline__ float value(uint16_t h) {
        return hd_f16(h);
    }
};
struct el_bf16 : el_16_bits<el_bf16> {
    static __device__ __forceinline__ float value(uint16_t h) {
        return bf16_value(h);
    }
};

#endif
