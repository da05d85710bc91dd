/* SPDX-License-Identifier: MIT
 * decode_legacy.h - the decoders of Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 for the cuda column, host and
 * device; layouts in legacy.h, form of the result in decode_words.h.
 *
 * blk is one block, at an even address. The other two parameters are those of the trellis types:
 * the sub-block, here always 0, and the scale of the row, of which these types have none. */
#ifndef GGAUGE_DECODE_LEGACY_H
#define GGAUGE_DECODE_LEGACY_H

#include "decode_words.h"
#include "legacy.h"

/* Low nibbles of qs are weights 0 to 15, high ones 16 to 31. */
HOST_DEVICE void nibbles_decode(const uint8_t *qs, uint32_t *q) {
    uint32_t w[4];
    hd_words2(qs, w, 4);
    for (int i = 0; i < 4; i++) {
        q[i] = w[i] & 0x0F0F0F0Fu;
        q[4 + i] = w[i] >> 4 & 0x0F0F0F0Fu;
    }
}

/* Fifth bits: bit w of qh belongs to weight w. */
HOST_DEVICE void fifth_bits_decode(const uint8_t *qh, uint32_t *q) {
    uint32_t h;
    hd_words2(qh, &h, 1);
    for (int i = 0; i < 8; i++)
        q[i] |= hd_spread4(h >> 4 * i) << 4;
}

/* Bytes below 2 * `half`, a power of two, become signed: byte - half. No byte borrows. */
HOST_DEVICE void centre_decode(uint32_t *q, uint32_t half) {
    const uint32_t add = (128u - half) * 0x01010101u;
    for (int i = 0; i < 8; i++)
        q[i] = (q[i] + add) ^ 0x80808080u;
}

HOST_DEVICE void q4_0_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    nibbles_decode(blk + 2, o->q);
    centre_decode(o->q, 8);
    o->scale = hd_f16(hd_u16(blk));
    o->min = 0;
}

HOST_DEVICE void q4_1_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    nibbles_decode(blk + 4, o->q);
    o->scale = hd_f16(hd_u16(blk));
    o->min = hd_f16(hd_u16(blk + 2));
}

HOST_DEVICE void q5_0_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    nibbles_decode(blk + 6, o->q);
    fifth_bits_decode(blk + 2, o->q);
    centre_decode(o->q, 16);
    o->scale = hd_f16(hd_u16(blk));
    o->min = 0;
}

HOST_DEVICE void q5_1_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    nibbles_decode(blk + 8, o->q);
    fifth_bits_decode(blk + 4, o->q);
    o->scale = hd_f16(hd_u16(blk));
    o->min = hd_f16(hd_u16(blk + 2));
}

HOST_DEVICE void q6_0_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    uint32_t h[2];
    nibbles_decode(blk + 10, o->q);
    hd_words2(blk + 2, h, 2);
    for (int i = 0; i < 4; i++) { /* weights 4i.. and 16 + 4i..: two bits each of the same bytes */
        const uint32_t top = h[i % 2] >> (i < 2 ? 0 : 4);
        o->q[i] |= (top & 0x03030303u) << 4;
        o->q[4 + i] |= (top >> 2 & 0x03030303u) << 4;
    }
    centre_decode(o->q, 32);
    o->scale = hd_f16(hd_u16(blk));
    o->min = 0;
}

HOST_DEVICE void q8_0_decode(const uint8_t *blk, int b, float d, struct decoded *o) {
    (void)b, (void)d;
    hd_words2(blk + 2, o->q, 8);
    o->scale = hd_f16(hd_u16(blk));
    o->min = 0;
}

#endif
