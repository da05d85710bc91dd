/* SPDX-License-Identifier: MIT
 * trellis_ref.c - IQ2_KT IQ3_KT IQ4_KT: the definition; generator and layouts in trellis.h.
 *
 * y = F(F(d * s) * r), F = one rounding to binary32. The compute-time gain is not part of it. */
#include <stdlib.h>
#include <string.h>

#include "qtype.h"

static float row_scale(const void *row) {
    float d;
    memcpy(&d, row, sizeof d);
    return d;
}

static uint32_t load_u16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t load_u32(const uint8_t *p) {
    return load_u16(p) | load_u16(p + 2) << 16;
}

static int scale_nibble(const uint8_t sc[4], int b) {
    return b < 4 ? sc[b] & 15 : sc[b - 4] >> 4;
}

static void iq2_kt_dequant_row(const void *row, float *y, int64_t n) {
    static const int8_t scales[16] = KT_SCALES;
    const struct blk_iq2_kt *blk = (const void *)((const char *)row + KT_ROW_META);
    float d = row_scale(row);
    for (int64_t i = 0; i < n / QK_KT; i++, blk++) {
        for (int g = 0; g < 32; g++) {
            float ds = d * (float)scales[scale_nibble(blk->sc, g / 4)];
            uint32_t x = load_u16(blk->idx + 2 * g) + KT_BASE;
            for (int k = 0; k < 8; k++) {
                x *= KT_MULTIPLIER;
                *y++ = ds * (float)kt_value(x);
            }
        }
    }
}

static void iq3_kt_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_iq3_kt *blk = (const void *)((const char *)row + KT_ROW_META);
    float d = row_scale(row);
    for (int64_t i = 0; i < n / QK_KT; i++, blk++) {
        for (int g = 0; g < 32; g++) {
            int b = g / 4;
            float ds = d * (float)scale_nibble(blk->sc, b);
            uint32_t x = load_u16(blk->idx + 2 * g) + KT_BASE;
            for (int k = 0; k < 8; k++) {
                x *= KT_MULTIPLIER;
                float mag = ds * (float)abs(kt_value(x));
                *y++ = blk->sg[8 * (g % 4) + k] >> b & 1 ? -mag : mag;
            }
        }
    }
}

static void iq4_kt_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_iq4_kt *blk = (const void *)((const char *)row + KT_ROW_META);
    float d = row_scale(row);
    for (int64_t i = 0; i < n / QK_KT; i++, blk++) {
        for (int g = 0; g < 64; g++) {
            int b = g / 8, j = g % 8;
            uint32_t S = load_u32(blk->S + 4 * b);
            float ds = d * (float)((int)(S >> 1 & 127) - 64);
            uint32_t mid = g < 32 ? blk->qh[g] & 15 : blk->qh[g - 32] >> 4;
            uint32_t index = blk->ql[g] | mid << 8 | (S >> (8 + 3 * j) & 7) << 12;
            uint32_t x = index + KT_BASE + KT_BASE_STEP * (S & 1);
            for (int k = 0; k < 4; k++) {
                x *= KT_MULTIPLIER;
                *y++ = ds * (float)kt_value(x);
            }
        }
    }
}

const struct qkernel iq2_kt_ref = { .act = QT_f32, .dequant_row = iq2_kt_dequant_row };
const struct qkernel iq3_kt_ref = { .act = QT_f32, .dequant_row = iq3_kt_dequant_row };
const struct qkernel iq4_kt_ref = { .act = QT_f32, .dequant_row = iq4_kt_dequant_row };
