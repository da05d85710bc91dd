/* SPDX-License-Identifier: MIT
 * legacy.h - layouts of the 32-weight types Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0.
 *
 * In every nibble type byte j of qs (j = 0..15) holds weight j in its low nibble and weight j + 16
 * in its high nibble. n = nibble of weight w.
 *
 *   q4_0  y = (n - 8) d                 q4_1  y = n d + m
 *   q5_0  y = (n + 16 bit(qh, w) - 16) d    q5_1  y = (n + 16 bit(qh, w)) d + m
 *   q6_0  y = (n + 16 t - 32) d, t = two bits of h = qh[j % 8] >> 4 (j / 8):
 *         bits 0-1 for weight j, bits 2-3 for weight j + 16
 *   q8_0  y = qs[w] d
 *
 * d and m are binary16. Source: ggml's block formats; Q6_0 is ik_llama.cpp's.
 *
 * Weights as 8 bits (trellis.h has those of its types): let M be the largest magnitude that the
 * scales and minima of 512 weights of a row allow. A weight n d + m becomes q = round(n (d i) + m
 * i) in one multiply-add, i = 127 / M, and what stands for it is q M / 127. */
#ifndef GGAUGE_LEGACY_H
#define GGAUGE_LEGACY_H

#include <assert.h>
#include <stdint.h>

#define QK_LEGACY 32 /* weights per block */

struct blk_q4_0 {
    uint16_t d;
    uint8_t qs[16];
};
struct blk_q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
};
struct blk_q5_0 {
    uint16_t d;
    uint8_t qh[4]; /* little-endian u32: bit w = fifth bit of weight w */
    uint8_t qs[16];
};
struct blk_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
};
struct blk_q6_0 {
    uint16_t d;
    uint8_t qh[8];
    uint8_t qs[16];
};
struct blk_q8_0 {
    uint16_t d;
    int8_t qs[32];
};

static_assert(sizeof(struct blk_q4_0) == 18, "q4_0");
static_assert(sizeof(struct blk_q4_1) == 20, "q4_1");
static_assert(sizeof(struct blk_q5_0) == 22, "q5_0");
static_assert(sizeof(struct blk_q5_1) == 24, "q5_1");
static_assert(sizeof(struct blk_q6_0) == 26, "q6_0");
static_assert(sizeof(struct blk_q8_0) == 34, "q8_0");

#endif
