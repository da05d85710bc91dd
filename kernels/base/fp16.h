/* SPDX-License-Identifier: MIT
 * fp16.h - binary16 and bfloat16 as bit patterns, without hardware support.
 *
 * Conversions round to nearest, ties to even, and keep NaN a NaN. Columns with F16C use the
 * instruction, which gives the same bits. */
#ifndef GGAUGE_FP16_H
#define GGAUGE_FP16_H

#include <stdint.h>
#include <string.h>

typedef uint16_t f16_t;
typedef uint16_t bf16_t;

static inline uint32_t f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float f16_to_f32(f16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = (h >> 10) & 31u;
    uint32_t man = h & 1023u;
    if (exp == 31) return f32_from_bits(sign | 0x7f800000u | man << 13 | (man ? 0x400000u : 0u));
    if (exp == 0) { /* zero and subnormals: man * 2^-24 is exact in binary32 */
        float mag = (float)man * 0x1p-24f;
        return f32_from_bits(sign | f32_bits(mag));
    }
    return f32_from_bits(sign | (exp + 112u) << 23 | man << 13);
}

static inline f16_t f32_to_f16(float x) {
    uint32_t u = f32_bits(x);
    uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (f16_t)(sign | 0x7e00u | ((u >> 13) & 0x1ffu)); /* quiet NaN */
    if (u >= 0x477ff000u) return (f16_t)(sign | 0x7c00u);                      /* rounds to inf */
    if (u < 0x38800000u) { /* subnormal: adding 0.5 lets the adder round at bit 2^-24 */
        float r = f32_from_bits(u) + 0.5f;
        return (f16_t)(sign | (f32_bits(r) - 0x3f000000u));
    }
    u += 0xfffu + ((u >> 13) & 1u); /* to nearest even on 13 discarded bits */
    return (f16_t)(sign | (u - 0x38000000u) >> 13);
}

static inline float bf16_to_f32(bf16_t h) {
    return f32_from_bits((uint32_t)h << 16);
}

static inline bf16_t f32_to_bf16(float x) {
    uint32_t u = f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16_t)((u >> 16) | 64u); /* quiet NaN */
    return (bf16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#endif
