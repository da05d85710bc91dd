/* SPDX-License-Identifier: MIT
 * decode_half.h - weights of trellis types as binary16, for tensor cores that multiply those: what
 * one lane holds of a tile, 8 weights in a row. Host and device; see decode_words.h.
 *
 * Lane t of the four that share a row has weights 8 t .. 8 t + 7 of a sub-block, each times the
 * scale of the sub-block, an integer (IQ4_KT: twice that, HALF_TIMES): at most 126 * 128, rounded
 * to binary16 once (IQ3_KT's need no rounding). The scale of the row is left to the result.
 *
 * Sub-block b is named by lo = b % 4 and up = b / 4, a constant: with it, shifts are. */
#ifndef GGAUGE_DECODE_HALF_H
#define GGAUGE_DECODE_HALF_H

#include "decode_trellis.h"

/* What differs between the four lanes, so that a sub-block needs no branch. */
struct half_lane {
    int t, word;       /* word: of two, where the lane's indices are */
    uint32_t zip;      /* selector of bytes for two indices of IQ4_KT */
    uint32_t half;     /* dp2a factors of the lane's index of IQ2_KT and IQ3_KT */
    uint32_t base;     /* KT_BASE, in a register */
    unsigned turn[2];  /* by how much bits 12-14 of both indices of IQ4_KT are turned */
};

HOST_DEVICE struct half_lane half_lane_of(int t) {
    struct half_lane l;
    l.t = t;
    l.word = t / 2;
    l.base = KT_BASE;
    l.zip = t % 2 ? 0x7362u : 0x5140u;
    l.half = t % 2 ? 0x0100u : 0x0001u;
    l.turn[0] = (unsigned)(4 - 6 * t) & 31u;
    l.turn[1] = (unsigned)(17 - 6 * t) & 31u;
    return l;
}

/* Pairs of binary16. */
HOST_DEVICE uint32_t hd_half2_add(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    uint32_t y;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
#else
    return (uint32_t)f32_to_f16(f16_to_f32((uint16_t)a) + f16_to_f32((uint16_t)b)) |
           (uint32_t)f32_to_f16(f16_to_f32((uint16_t)(a >> 16)) + f16_to_f32((uint16_t)(b >> 16)))
               << 16;
#endif
}
HOST_DEVICE uint32_t hd_half2_mul(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    uint32_t y;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
#else
    return (uint32_t)f32_to_f16(f16_to_f32((uint16_t)a) * f16_to_f32((uint16_t)b)) |
           (uint32_t)f32_to_f16(f16_to_f32((uint16_t)(a >> 16)) * f16_to_f32((uint16_t)(b >> 16)))
               << 16;
#endif
}

#define HALF_1024 0x6400u           /* below 1024 a number is the low bits of 1024 + it */
#define HALF2_1024 0x64006400u
#define HALF2_LESS_1024 0xE400E400u
#define HALF2_LESS_1150 0xE47EE47Eu /* -(1024 + KT_OFFSET) */
#define HALF2_LESS_1152 0xE480E480u /* -(1024 + 128) */

/* n + less as a pair of the same, for n below 1024. */
HOST_DEVICE uint32_t half2_of(uint32_t n, uint32_t less) {
    return hd_half2_add(n * 0x10001u + HALF2_1024, less);
}

/* Two states as a pair of binary16. */
HOST_DEVICE uint32_t half2_states(uint32_t a, uint32_t b) {
    const int low = hd_byte_sum(a & KT_MASK, HALF_1024), high = hd_byte_sum(b & KT_MASK, HALF_1024);
    return hd_half2_add(hd_permute((uint32_t)low, (uint32_t)high, 0x5410u), HALF2_LESS_1150);
}

/* Words of the block that the lane wants, from word `at` on. */
HOST_DEVICE uint32_t half_word(const uint8_t *blk, int at) {
    uint32_t w;
    hd_words4(blk + 4 * at, &w, 1);
    return w;
}

HOST_DEVICE uint32_t hd_dp2a(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDA_ARCH__)
    return __dp2a_lo(a, b, c);
#else
    return c + (a & 0xFFFFu) * (b & 255u) + (a >> 16) * (b >> 8 & 255u);
#endif
}

/* The eight states of a seed, in pairs. */
HOST_DEVICE void half_states8(uint32_t seed, uint32_t w[4]) {
    w[0] = half2_states(seed * KT_P1, seed * KT_P2);
    w[1] = half2_states(seed * KT_P3, seed * KT_P4);
    w[2] = half2_states(seed * KT_P5, seed * KT_P6);
    w[3] = half2_states(seed * KT_P7, seed * KT_P8);
}

HOST_DEVICE uint32_t half_seed(const struct half_lane *l, const uint8_t *blk, int lo, int up) {
    return hd_dp2a(half_word(blk, 1 + 2 * lo + 8 * up + l->word), l->half, KT_BASE);
}

#define HALF_TIMES_iq2_kt 1
#define HALF_TIMES_iq3_kt 1
#define HALF_TIMES_iq4_kt 2

HOST_DEVICE void iq2_kt_halves(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                               uint32_t w[4]) {
    const uint32_t scale = half2_of(kt_scale_plus(kt_nibble(blk, lo, up)), HALF2_LESS_1152);
    half_states8(half_seed(l, blk, lo, up), w);
    for (int i = 0; i < 4; i++)
        w[i] = hd_half2_mul(w[i], scale);
}

/* A magnitude with the sign bit of the weight, which a zero has as well. */
HOST_DEVICE void iq3_kt_halves(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                               uint32_t w[4]) {
    const uint32_t scale = half2_of(kt_nibble(blk, lo, up), HALF2_LESS_1024);
    uint32_t sign[2];
    half_states8(half_seed(l, blk, lo, up), w);
    hd_words4(blk + 68 + 8 * l->t, sign, 2);
    for (int i = 0; i < 4; i++) {
        const uint32_t s =
            hd_permute(sign[i / 2] << (7 - lo - 4 * up), 0, i % 2 ? 0x3424u : 0x1404u);
        w[i] = hd_half2_mul((w[i] & 0x7FFF7FFFu) | (s & 0x80008000u), scale);
    }
}

HOST_DEVICE uint32_t hd_turn_left(uint32_t x, unsigned n) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_l(x, x, n);
#else
    return x << (n & 31u) | x >> ((32u - n) & 31u);
#endif
}

/* Of groups 2 t and 2 t + 1 of a sub-block of IQ4_KT. */
struct half_seeds {
    uint32_t seed[2], scale; /* the scale twice, as binary16 */
};

HOST_DEVICE void iq4_kt_half_seeds(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                                   struct half_seeds *s) {
    const uint32_t S = half_word(blk, lo + 4 * up);
    const uint32_t ql = half_word(blk, 8 + 2 * lo + 8 * up + l->word);
    const uint32_t qh = half_word(blk, 24 + 2 * lo + l->word) >> 4 * up & 0x0F0F0F0Fu;
    const uint32_t base = hd_or_masked(l->base, S << 15, KT_BASE_STEP);
    uint32_t pair = hd_permute(ql, qh, l->zip);
    pair = hd_or_masked(pair, hd_turn_left(S, l->turn[0]), 0x7000u);
    pair = hd_or_masked(pair, hd_turn_left(S, l->turn[1]), 0x70000000u);
    s->seed[0] = hd_half_plus(pair, 0, base);
    s->seed[1] = hd_half_plus(pair, 1, base);
    s->scale = half2_of(S & 254u, HALF2_LESS_1152);
}

HOST_DEVICE void iq4_kt_halves(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                               uint32_t w[4]) {
    struct half_seeds s;
    iq4_kt_half_seeds(l, blk, lo, up, &s);
    for (int i = 0; i < 4; i++) {
        const uint32_t x = s.seed[i / 2];
        w[i] = hd_half2_mul(i % 2 ? half2_states(x * KT_P3, x * KT_P4)
                                  : half2_states(x * KT_P1, x * KT_P2),
                            s.scale);
    }
}

#endif
