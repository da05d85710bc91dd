/* SPDX-License-Identifier: MIT
 * decode_trellis.h - the decoders of IQ2_KT IQ3_KT IQ4_KT for the cuda column, host and device;
 * layouts and generator in trellis.h, form of the result in decode_words.h.
 *
 * blk is a block of 256 weights at a multiple of 4, b its sub-block, d the scale of the row. A
 * weight costs a multiplication, a mask, a sum of bytes, three quarters of a permutation, and its
 * share of an index; the powers of the multiplier make the states of a group independent of each
 * other. */
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
HOST_DEVICE uint32_t kt_magnitude4(uint32_t x0, uint32_t p0, uint32_t p1, uint32_t p2,
                                   uint32_t p3) {
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

/* Nibble lo + 4 up of the scales in front of a block of IQ2_KT or IQ3_KT. */
HOST_DEVICE uint32_t kt_nibble(const uint8_t *blk, int lo, int up) {
    uint32_t sc;
    hd_words4(blk, &sc, 1);
    return sc >> 8 * lo >> 4 * up & 15u;
}

HOST_DEVICE uint32_t kt_scale_nibble(const uint8_t *blk, int b) {
    return kt_nibble(blk, b & 3, b >> 2);
}

/* KT_SCALES[i] + 128: the table as four words, chosen without memory. */
HOST_DEVICE uint32_t kt_scale_plus(uint32_t i) {
    const uint32_t w[4] = { 0x3F2D1801u, 0x766A5D4Fu, 0xA6998D81u, 0xF1D9C5B5u };
    const uint32_t lo = i & 4 ? w[1] : w[0], hi = i & 4 ? w[3] : w[2];
    return (i & 8 ? hi : lo) >> 8 * (i & 3) & 255u;
}

HOST_DEVICE int kt_scale_value(uint32_t i) {
    return (int)kt_scale_plus(i) - 128;
}

/* The sub-block's scale, that of the row included. */
HOST_DEVICE float iq2_kt_scale(const uint8_t *blk, int b, float d) {
    return d * (float)kt_scale_value(kt_scale_nibble(blk, b));
}
HOST_DEVICE float iq3_kt_scale(const uint8_t *blk, int b, float d) {
    return d * (float)(int)kt_scale_nibble(blk, b);
}
HOST_DEVICE float iq4_kt_scale(const uint8_t *blk, int b, float d) {
    uint32_t S;
    hd_words4(blk + 4 * b, &S, 1);
    return d * (float)((int)(S >> 1 & 127u) - 64);
}

/* Seeds of the sub-block's four groups of 8, of IQ2_KT and IQ3_KT. */
HOST_DEVICE void kt_seeds4(const uint8_t *blk, int b, uint32_t *seed) {
    uint32_t idx[2];
    hd_words4(blk + 4 + 8 * b, idx, 2);
    for (int g = 0; g < 4; g++)
        seed[g] = hd_half_plus(idx[g / 2], g % 2, KT_BASE);
}

/* x moved up by n bits, down by -n. */
HOST_DEVICE uint32_t kt_move(uint32_t x, int n) {
    return n >= 0 ? x << (n & 31) : x >> (-n & 31);
}

/* What the indices of a sub-block of IQ4_KT are put together from. */
struct iq4_kt_parts {
    uint32_t S, ql[2], qh[2], base;
};

HOST_DEVICE struct iq4_kt_parts iq4_kt_load(const uint8_t *blk, int b) {
    struct iq4_kt_parts p;
    hd_words4(blk + 4 * b, &p.S, 1);
    hd_words4(blk + 32 + 8 * b, p.ql, 2);
    hd_words4(blk + 96 + 8 * (b & 3), p.qh, 2);
    for (int i = 0; i < 2; i++)
        p.qh[i] = p.qh[i] >> (b & 4) & 0x0F0F0F0Fu;
    p.base = hd_or_masked(KT_BASE, p.S << 15, KT_BASE_STEP);
    return p;
}

/* Seeds of groups 2 i and 2 i + 1 of the eight groups of 4: bits 0-7 and 8-11 of both indices as
 * bytes, then bits 12-14, of which group j has bits 8 + 3 j .. 10 + 3 j of S. */
HOST_DEVICE void iq4_kt_seeds(const struct iq4_kt_parts *p, int i, uint32_t seed[2]) {
    uint32_t pair = hd_zip2(p->ql[i / 2], p->qh[i / 2], i % 2);
    pair = hd_or_masked(pair, kt_move(p->S, 12 - (8 + 6 * i)), 0x7000u);
    pair = hd_or_masked(pair, kt_move(p->S, 28 - (11 + 6 * i)), 0x70000000u);
    seed[0] = hd_half_plus(pair, 0, p->base);
    seed[1] = hd_half_plus(pair, 1, p->base);
}

HOST_DEVICE void iq2_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    uint32_t seed[4];
    kt_seeds4(blk, b, seed);
    for (int g = 0; g < 4; g++) {
        o->q[2 * g] = kt_decode4(seed[g], KT_P1, KT_P2, KT_P3, KT_P4);
        o->q[2 * g + 1] = kt_decode4(seed[g], KT_P5, KT_P6, KT_P7, KT_P8);
    }
    o->scale = iq2_kt_scale(blk, b, d);
    o->min = 0;
}

/* Bit 0 of byte j of word i is set if weight 4i + j of sub-block b is negative. */
HOST_DEVICE uint32_t iq3_kt_signs(const uint8_t *blk, int b, int i) {
    uint32_t sg;
    hd_words4(blk + 68 + 4 * i, &sg, 1);
    return sg >> b & 0x01010101u;
}

HOST_DEVICE void iq3_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    uint32_t seed[4];
    kt_seeds4(blk, b, seed);
    for (int i = 0; i < 8; i++) {
        const uint32_t m = i % 2 ? kt_magnitude4(seed[i / 2], KT_P5, KT_P6, KT_P7, KT_P8)
                                 : kt_magnitude4(seed[i / 2], KT_P1, KT_P2, KT_P3, KT_P4);
        const uint32_t mask = iq3_kt_signs(blk, b, i) * 255u;
        /* -m: no byte borrows, because m is below 128 */
        o->q[i] = (m & ~mask) | (((0x80808080u - m) ^ 0x80808080u) & mask);
    }
    o->scale = iq3_kt_scale(blk, b, d);
    o->min = 0;
}

HOST_DEVICE void iq4_kt_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    const struct iq4_kt_parts p = iq4_kt_load(blk, b);
    for (int i = 0; i < 4; i++) {
        uint32_t seed[2];
        iq4_kt_seeds(&p, i, seed);
        for (int k = 0; k < 2; k++)
            o->q[2 * i + k] = kt_decode4(seed[k], KT_P1, KT_P2, KT_P3, KT_P4);
    }
    o->scale = iq4_kt_scale(blk, b, d);
    o->min = 0;
}

/* ---- products with one token ------------------------------------------------------------------
 *
 * NAME_dot: sum[r] = the 32 products of sub-block b of blk[r] with activations x [8] (int8, in
 * weight order), for n <= KT_DOT_ROWS rows, the same integers as from decoded weights. A state's
 * four bytes, whose sum is the weight, meet the weight's activation four times: that saves the
 * packing of weights, and the activation is repeated once for all rows. */

#define KT_DOT_ROWS 4

HOST_DEVICE void kt_repeat(uint32_t x, uint32_t four[4]) {
    for (int k = 0; k < 4; k++)
        four[k] = hd_repeat4(x, k);
}

/* Four states of row r by activations that are repeated, [4]. */
HOST_DEVICE int kt_dot4(uint32_t x0, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t p3,
                        const uint32_t *x, int sum) {
    sum = hd_dot4(x0 * p0 & KT_MASK, x[0], sum);
    sum = hd_dot4(x0 * p1 & KT_MASK, x[1], sum);
    sum = hd_dot4(x0 * p2 & KT_MASK, x[2], sum);
    return hd_dot4(x0 * p3 & KT_MASK, x[3], sum);
}

/* What the sums start from: the offset of the weights. */
HOST_DEVICE void kt_dot_start(int n, const uint32_t *x, int *sum) {
    int all = 0;
    for (int i = 0; i < 8; i++)
        all = hd_dot4(x[i], 0x01010101u, all);
    for (int r = 0; r < n; r++)
        sum[r] = -KT_OFFSET * all;
}

HOST_DEVICE void iq2_kt_dot(int n, const uint8_t *const *blk, int b, const uint32_t *x,
                            int *sum) {
    uint32_t seed[KT_DOT_ROWS][4];
    kt_dot_start(n, x, sum);
    for (int r = 0; r < n; r++)
        kt_seeds4(blk[r], b, seed[r]);
    for (int i = 0; i < 8; i++) {
        uint32_t four[4];
        kt_repeat(x[i], four);
        for (int r = 0; r < n; r++)
            sum[r] = i % 2 ? kt_dot4(seed[r][i / 2], KT_P5, KT_P6, KT_P7, KT_P8, four, sum[r])
                           : kt_dot4(seed[r][i / 2], KT_P1, KT_P2, KT_P3, KT_P4, four, sum[r]);
    }
}

HOST_DEVICE void iq4_kt_dot(int n, const uint8_t *const *blk, int b, const uint32_t *x,
                            int *sum) {
    struct iq4_kt_parts p[KT_DOT_ROWS];
    uint32_t seed[KT_DOT_ROWS][2];
    kt_dot_start(n, x, sum);
    for (int r = 0; r < n; r++)
        p[r] = iq4_kt_load(blk[r], b);
    for (int i = 0; i < 8; i++) {
        uint32_t four[4];
        kt_repeat(x[i], four);
        for (int r = 0; r < n; r++) {
            if (i % 2 == 0) iq4_kt_seeds(&p[r], i / 2, seed[r]);
            sum[r] = kt_dot4(seed[r][i % 2], KT_P1, KT_P2, KT_P3, KT_P4, four, sum[r]);
        }
    }
}

/* The sign is not that of the state: products that have to change it count once, and are taken away
 * twice. */
HOST_DEVICE void iq3_kt_dot(int n, const uint8_t *const *blk, int b, const uint32_t *x,
                            int *sum) {
    for (int r = 0; r < n; r++) {
        uint32_t seed[4], sg[8];
        int all = 0, wrong = 0;
        kt_seeds4(blk[r], b, seed);
        hd_words4(blk[r] + 68, sg, 8);
        for (int i = 0; i < 8; i++) {
            const uint32_t v = i % 2 ? kt_decode4(seed[i / 2], KT_P5, KT_P6, KT_P7, KT_P8)
                                     : kt_decode4(seed[i / 2], KT_P1, KT_P2, KT_P3, KT_P4);
            const uint32_t negative = hd_sign_mask(sg[i] << (7 - b));
            all = hd_dot4(v, x[i], all);
            wrong = hd_dot4(v & (hd_sign_mask(v) ^ negative), x[i], wrong);
        }
        sum[r] = all - 2 * wrong;
    }
}

#endif
