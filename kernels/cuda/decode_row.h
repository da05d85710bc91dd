/* SPDX-License-Identifier: MIT
 * decode_row.h - one row of any type with a decoder as f32, in one thread: the definition that the
 * kernels of the cuda column are held against, bit for bit the golden vectors. Without the gain. */
#ifndef GGAUGE_DECODE_ROW_H
#define GGAUGE_DECODE_ROW_H

#include "decode_legacy.h"
#include "decode_trellis.h"

/*    name    weights of a block, bytes of a block, bytes in front of the row, has minima */
#define DECODER_LIST(X)                                                                            \
    X(q4_0,   32,  18, 0, 0)                                                                       \
    X(q4_1,   32,  20, 0, 1)                                                                       \
    X(q5_0,   32,  22, 0, 0)                                                                       \
    X(q5_1,   32,  24, 0, 1)                                                                       \
    X(q6_0,   32,  26, 0, 0)                                                                       \
    X(q8_0,   32,  34, 0, 0)                                                                       \
    X(iq2_kt, 256, 68, 4, 0)                                                                       \
    X(iq3_kt, 256, 100, 4, 0)                                                                      \
    X(iq4_kt, 256, 128, 4, 0)

#define X(name, n_blk, bytes, meta, has_min)                                                       \
    static_assert(sizeof(struct blk_##name) == bytes, #name);
DECODER_LIST(X)
#undef X

/* Weight i of a decoded sub-block. negative: its sign bit is set, which only a zero needs. */
HOST_DEVICE float decoded_value(const struct decoded *o, int i, int has_min, int negative) {
    const float y = o->scale * (float)decoded_int(o, i);
    if (has_min) return y + o->min; /* of a type without minima a zero keeps its sign */
    return negative && decoded_int(o, i) == 0 ? -y : y;
}

/* Whether weight i of sub-block b of an IQ3_KT block has its sign bit set. */
HOST_DEVICE int iq3_kt_negative(const uint8_t *blk, int b, int i) {
    return (int)(iq3_kt_signs(blk, b, i / 4) >> 8 * (i % 4) & 1u);
}

#endif
