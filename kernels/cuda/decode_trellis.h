/* SPDX-License-Identifier: MIT
 * decode_trellis.h - the decoders of IQ2_KT IQ3_KT IQ4_KT for the cuda column, host and device;
 * layouts and generator in trellis.h, form of the result in decode_words.h.
 *
 * blk is a block of 256 weights at a multiple of 4, b its sub-block, d the scale of the row. A
 * weight costs a multiplication, a mask, a sum of bytes and three quarters of a permutation; the
 * powers of the multiplier make the states of a group independent of each other. */
#ifndef GGAUGE_DECODE_TRELLIS_H
#define GGAUGE_DECODE_TRELLIS_H

#include "decode_words.h"
#include "trellis.h"

/* Four states in a row as signed bytes; p are their powers of the multiplier. */
HOST_DEVICE uint32_t kt_decode4(uint32_t x0, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t p3) {
    return hd_pack4(hd_byte_sum(x0 * p0 & KT_MASK, -KT_OFFSET),
                    hd_byte_sum(x0 * p1 & KT_MASK, -KT_OFFSET),
                    hd_byte_sum(x0 * p2 & KT_MASK, -KT_OFFSET),
                    hd_byte_sum(x0 * p3 & KT_MASK, -KT_OFFSET));
}

/* The same without their signs. */
HOST_DEVICE uint32_t kt_magnitude4(uint32_t x0, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t p3) {
    const int a = hd_byte_sum(x0 * p0 & KT_MASK, -KT_OFFSET);
    const int b = hd_byte_sum(x0 * p1 & KT_MASK, -KT_OFFSET);
    const int c = hd_byte_sum(x0 * p2 & KT_MASK, -KT_OFFSET);
    const int d = hd_byte_sum(x0 * p3 & KT_MASK, -KT_OFFSET);
    return hd_pack4(a < 0 ? -a : a, b < 0 ? -b : b, c < 0 ? -c : c, d < 0 ? -d : d);
}

/* constants, so that a multiplication has its factor in the instruction */
#define KT_P1 0xCBAC1FEDu
#define KT_P2 0xC8734169u
#define KT_P3 0xBD2B4535u
#define KT_P4 0xE50C7D11u
#define KT_P5 0x1220D7BDu
#define KT_P6 0x94839CF9u
#define KT_P7 0x58267985u
#define KT_P8 0x60B19B21u

/* Nibble b of the scales in front of a block of IQ2_KT or IQ3_KT. */
HOST_DEVICE uint32_t kt_scale_nibble(const uint8_t *blk, int b) {
    uint32_t sc;
    hd_words4(blk, &sc, 1);
    return sc >> (8 * (b & 3) + 4 * (b >> 2)) & 15u;
}

/* KT_SCALES[i]: the table as four words, chosen without memory. */
HOST_DEVICE int kt_scale_value(uint32_t i) {
    const uint32_t w[4] = { 0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u };
    const uint32_t lo = i & 4 ? w[1] : w[0], hi = i & 4 ? w[3] : w[2];
    return (int)(int8_t)((i & 8 ? hi : lo) >> 8 * (i & 3));
}

/* Index of group g of the sub-block's four. */
HOST_DEVICE uint32_t kt_index16(const uint32_t *idx, int g) {
    return idx[g / 2] >> 16 * (g % 2) & 0xFFFFu;
}

HOST_DEVICE void iq2_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    uint32_t idx[2];
    hd_words4(blk + 4 + 8 * b, idx, 2);
    for (int g = 0; g < 4; g++) {
        const uint32_t x0 = kt_index16(idx, g) + KT_BASE;
        o->q[2 * g] = kt_decode4(x0, KT_P1, KT_P2, KT_P3, KT_P4);
        o->q[2 * g + 1] = kt_decode4(x0, KT_P5, KT_P6, KT_P7, KT_P8);
    }
    o->scale = d * (float)kt_scale_value(kt_scale_nibble(blk, b));
    o->min = 0;
}

/* Bit 0 of byte j of word i is set if weight 4i + j of sub-block b is negative. */
HOST_DEVICE uint32_t iq3_kt_signs(const uint8_t *blk, int b, int i) {
    uint32_t sg;
    hd_words4(blk + 68 + 4 * i, &sg, 1);
    return sg >> b & 0x01010101u;
}

HOST_DEVICE void iq3_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    uint32_t idx[2];
    hd_words4(blk + 4 + 8 * b, idx, 2);
    for (int i = 0; i < 8; i++) {
        const uint32_t x0 = kt_index16(idx, i / 2) + KT_BASE;
        const uint32_t m = i % 2 ? kt_magnitude4(x0, KT_P5, KT_P6, KT_P7, KT_P8)
                                 : kt_magnitude4(x0, KT_P1, KT_P2, KT_P3, KT_P4);
        const uint32_t mask = iq3_kt_signs(blk, b, i) * 255u;
        /* -m: no byte borrows, because m is below 128 */
        o->q[i] = (m & ~mask) | (((0x80808080u - m) ^ 0x80808080u) & mask);
    }
    o->scale = d * (float)(int)kt_scale_nibble(blk, b);
    o->min = 0;
}

HOST_DEVICE void iq4_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    uint32_t S, ql[2], qh[2];
    hd_words4(blk + 4 * b, &S, 1);
    hd_words4(blk + 32 + 8 * b, ql, 2);
    hd_words4(blk + 96 + 8 * (b & 3), qh, 2);
    const uint32_t base = KT_BASE + KT_BASE_STEP * (S & 1u);
    const int half = 4 * (b >> 2); /* nibble of qh */
    for (int j = 0; j < 8; j++) {
        const int byte = 8 * (j % 4);
        const uint32_t low = ql[j / 4] >> byte & 255u, mid = qh[j / 4] >> (byte + half) & 15u;
        const uint32_t x0 = (low | mid << 8 | (S >> (8 + 3 * j) & 7u) << 12) + base;
        o->q[j] = kt_decode4(x0, KT_P1, KT_P2, KT_P3, KT_P4);
    }
    o->scale = d * (float)((int)(S >> 1 & 127u) - 64);
    o->min = 0;
}

#endif
