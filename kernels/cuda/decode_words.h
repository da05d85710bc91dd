/* SPDX-License-Identifier: MIT
 * decode_words.h - what the decoders of the cuda column are written in: C that gcc, g++ and nvcc
 * compile alike, so that tests on the host run the very code of the kernels.
 *
 * A decoder turns 32 weights in a row, a sub-block, into 8 words of 4 signed bytes in weight order,
 * a scale and a minimum: weight i = scale * q[i] + min, each operation rounded to binary32. */
#ifndef GGAUGE_DECODE_WORDS_H
#define GGAUGE_DECODE_WORDS_H

#include <stdint.h>
#include <string.h>

#include "base/compiler.h"
#include "base/fp16.h"

#if defined(__CUDACC__)
#define HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define HOST_DEVICE ALWAYS_INLINE
#endif

/* Memory of a device and of its emulation may be read up to this many bytes behind its last. */
#define DECODE_SLACK 16

struct decoded {
    uint32_t q[8]; /* 32 int8, the first weight in the lowest byte */
    float scale, min;
};

HOST_DEVICE float hd_f16(uint16_t h) {
#if defined(__CUDA_ARCH__)
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#else
    return f16_to_f32(h);
#endif
}

HOST_DEVICE uint16_t hd_u16(const uint8_t *p) {
#if defined(__CUDA_ARCH__)
    return *(const uint16_t *)p;
#else
    return (uint16_t)(p[0] | p[1] << 8);
#endif
}

/* n words at p, a multiple of 4. */
HOST_DEVICE void hd_words4(const uint8_t *p, uint32_t *w, int n) {
#if defined(__CUDA_ARCH__)
#pragma unroll
    for (int i = 0; i < n; i++)
        w[i] = ((const uint32_t *)p)[i];
#else
    memcpy(w, p, 4 * (size_t)n);
#endif
}

/* The low word of hi:lo >> shift, shift below 32. */
HOST_DEVICE uint32_t hd_funnel(uint32_t lo, uint32_t hi, unsigned shift) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_r(lo, hi, shift);
#else
    return (uint32_t)(((uint64_t)hi << 32 | lo) >> shift);
#endif
}

/* n words at p, a multiple of 2: aligned words, shifted where p is between two of them; so up to 4
 * bytes behind the last one are read on a device. */
HOST_DEVICE void hd_words2(const uint8_t *p, uint32_t *w, int n) {
#if defined(__CUDA_ARCH__) || defined(GGAUGE_CUDA_EMU)
    const unsigned shift = 8 * (unsigned)((uintptr_t)p & 2);
    const uint8_t *a = p - ((uintptr_t)p & 2);
    uint32_t lo, hi;
    hd_words4(a, &lo, 1);
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (int i = 0; i < n; i++, lo = hi) {
        hd_words4(a + 4 * (i + 1), &hi, 1);
        w[i] = hd_funnel(lo, hi, shift);
    }
#else
    memcpy(w, p, 4 * (size_t)n);
#endif
}

/* c + the four bytes of a, each below 128. */
HOST_DEVICE int hd_byte_sum(uint32_t a, int c) {
#if defined(__CUDA_ARCH__)
    return __dp4a((int)a, 0x01010101, c);
#else
    return c + (int)((a & 255u) + (a >> 8 & 255u) + (a >> 16 & 255u) + (a >> 24));
#endif
}

/* c + the products of four signed bytes. */
HOST_DEVICE int hd_dot4(uint32_t a, uint32_t b, int c) {
#if defined(__CUDA_ARCH__)
    return __dp4a((int)a, (int)b, c);
#else
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
#endif
}

/* c + the lower or the upper half of a pair of 16-bit numbers. */
HOST_DEVICE uint32_t hd_half_plus(uint32_t pair, int upper, uint32_t c) {
#if defined(__CUDA_ARCH__)
    return upper ? c + (pair >> 16) : __dp2a_lo(pair, 0x0001u, c);
#else
    return c + (upper ? pair >> 16 : pair & 0xFFFFu);
#endif
}

/* y | (x & mask) as one instruction, which a compiler that moves constants about does not find. */
HOST_DEVICE uint32_t hd_or_masked(uint32_t y, uint32_t x, uint32_t mask) {
#if defined(__CUDA_ARCH__)
    asm("lop3.b32 %0, %1, %2, %0, 0xEA;" : "+r"(y) : "r"(x), "r"(mask));
    return y;
#else
    return y | (x & mask);
#endif
}

/* PTX prmt: nibble i of the selector says which byte of b:a is byte i of the result, 0..3 of a and
 * 4..7 of b; with its top bit it is the sign of that byte, eight times. (CUDA's __byte_perm ignores
 * that bit.) The selectors below are the same on the host, where they are tested. */
HOST_DEVICE uint32_t hd_permute(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(__CUDA_ARCH__)
    uint32_t y;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(selector));
    return y;
#else
    const uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t y = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t s = selector >> 4 * i & 15u, byte = (uint32_t)(bytes >> 8 * (s & 7u)) & 255u;
        y |= (s & 8u ? byte >> 7 ? 255u : 0u : byte) << 8 * i;
    }
    return y;
#endif
}

/* Byte k of x, four times. */
HOST_DEVICE uint32_t hd_repeat4(uint32_t x, int k) {
    return hd_permute(x, 0, 0x1111u * (unsigned)k);
}

/* Bytes 2 i and 2 i + 1 of low as the lower, those of high as the upper halves of two 16-bit
 * numbers. */
HOST_DEVICE uint32_t hd_zip2(uint32_t low, uint32_t high, int i) {
    return hd_permute(low, high, i ? 0x7362u : 0x5140u);
}

/* 255 in every byte of x whose top bit is set, 0 in the others. */
HOST_DEVICE uint32_t hd_sign_mask(uint32_t x) {
    return hd_permute(x, 0, 0xBA98u);
}

/* The low bytes of four numbers as one word. */
HOST_DEVICE uint32_t hd_pack4(int a, int b, int c, int d) {
    return hd_permute(hd_permute((uint32_t)a, (uint32_t)b, 0x0040u),
                      hd_permute((uint32_t)c, (uint32_t)d, 0x0040u), 0x5410u);
}

/* Bits 0..3 of x as the low bits of four bytes. */
HOST_DEVICE uint32_t hd_spread4(uint32_t x) {
    return (x & 15u) * 0x00204081u & 0x01010101u;
}

/* Weight i of a decoded sub-block as an integer. */
HOST_DEVICE int decoded_int(const struct decoded *o, int i) {
    return (int)(int8_t)(o->q[i / 4] >> 8 * (i % 4));
}

#endif
