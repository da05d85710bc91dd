/* SPDX-License-Identifier: MIT
 * trellis.h - layouts and generator of the trellis types IQ2_KT, IQ3_KT, IQ4_KT; the one definition
 * that every column shares, readable from C and CUDA.
 *
 * Each group of 8 (IQ4_KT: 4) weights has an index that seeds a tiny generator; its first outputs
 * are the weights, times a sub-block scale s and the row scale d:
 *
 *   seed   x0     = index + base
 *   step   x(k+1) = KT_MULTIPLIER * x(k)  mod 2^32
 *   value  r(k+1) = sum of the four bytes of (x(k+1) & KT_MASK) - 126, in -126..126
 *   weight y      = (d * s) * r, each product rounded to binary32
 *
 * A row starts with d as binary32; blocks of 256 weights follow, in 8 sub-blocks of 32. Blocks are
 * therefore only 4-byte aligned. g numbers the groups of a block in weight order, b the sub-blocks.
 *
 *   iq2_kt  base 4096; s = KT_SCALES[nibble b of sc]; r signed
 *   iq3_kt  base 4096; s = nibble b of sc; |r|, then the sign: bit b of sg[j] negates weight 32b +
 * j
 *   iq4_kt  S[b]: bit 0 = o, bits 1-7 = s + 64, bits 8+3j..10+3j = index bits 12-14 of group j of
 *           sub-block b; ql[g] = index bits 0-7; qh = index bits 8-11 (low nibble of qh[g] for
 *           g < 32, high nibble of qh[g-32] otherwise); base 4096 + 32768 o
 *   nibble b of sc: low half of sc[b] for b < 4, high half of sc[b-4] for b >= 4
 *
 * Source: ik_llama.cpp 8337e4cd, ggml/src/iqk/iqk_quantize.cpp (format). */
#ifndef GGAUGE_TRELLIS_H
#define GGAUGE_TRELLIS_H

#include <assert.h>
#include <stdint.h>

#define QK_KT 256
#define KT_ROW_META 4 /* bytes: the binary32 row scale */

#define KT_MULTIPLIER 0xCBAC1FEDu
#define KT_MASK 0x3F3F3F3Fu
#define KT_OFFSET 126
#define KT_BASE 4096u
#define KT_BASE_STEP 32768u /* added to the base of IQ4_KT by bit 0 of S[b] */

/* KT_MULTIPLIER^1 .. ^8: the k-th state is KT_POWER_k * x0. */
#define KT_POWERS                                                                                  \
    { 0xCBAC1FEDu, 0xC8734169u, 0xBD2B4535u, 0xE50C7D11u,                                          \
      0x1220D7BDu, 0x94839CF9u, 0x58267985u, 0x60B19B21u }

/* Scales of IQ2_KT by nibble; the same 16 numbers are the values of IQ4_NL and IQ4_K. */
#define KT_SCALES                                                                                  \
    { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 }

/* Compute-time gain: what every product with the weights is multiplied by, and what the stored row
 * scale therefore lacks. A plain dequantisation does not contain it. ik_llama.cpp, x86 and CUDA. */
#define IQ2_KT_GAIN 1.05
#define IQ3_KT_GAIN 1.01
#define IQ4_KT_GAIN 1.0

struct blk_iq2_kt {
    uint8_t sc[4];
    uint8_t idx[64]; /* 32 little-endian u16 */
};
struct blk_iq3_kt {
    uint8_t sc[4];
    uint8_t idx[64];
    uint8_t sg[32];
};
struct blk_iq4_kt {
    uint8_t S[32]; /* 8 little-endian u32 */
    uint8_t ql[64];
    uint8_t qh[32];
};

static_assert(sizeof(struct blk_iq2_kt) == 68, "iq2_kt");
static_assert(sizeof(struct blk_iq3_kt) == 100, "iq3_kt");
static_assert(sizeof(struct blk_iq4_kt) == 128, "iq4_kt");

/* Sum of the masked bytes of one state, less the offset: the weight. */
static inline int kt_value(uint32_t x) {
    uint32_t m = x & KT_MASK;
    return (int)((m & 255u) + (m >> 8 & 255u) + (m >> 16 & 255u) + (m >> 24)) - KT_OFFSET;
}

/* Weights as 8 bits. Without the row's scale a weight is an integer, s * r. In 512 weights
 * of a row whose largest |s| is S it is rounded to q = round(s * r * f / 2^15), at most 127; the
 * factor f depends on S alone. What stands for the weight is q * 2^15 / f, times the row's
 * scale. */
#define KT_Q8_MOST (32768.0f * 127.0f / KT_OFFSET)

static inline int kt_q8_factor(int largest) {
    const float f = largest > 0 ? KT_Q8_MOST / (float)largest : 32767.0f;
    return (int)(f < 32767.0f ? f : 32767.0f);
}

#endif
