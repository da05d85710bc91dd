/* SPDX-License-Identifier: MIT
 * legacy_ref.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0: the definition; layouts in legacy.h.
 *
 * Each written product or sum is one binary32 operation, so the bits are those of the peers. */
#include <math.h>

#include "base/fp16.h"
#include "qtype.h"

static int nibble(const uint8_t *qs, int w) {
    return w < 16 ? qs[w] & 15 : qs[w - 16] >> 4;
}

static int bit5(const uint8_t *qh, int w) {
    return (qh[w / 8] >> (w % 8) & 1) << 4;
}

static void q4_0_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q4_0 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d);
        for (int w = 0; w < QK_LEGACY; w++)
            y[w] = (float)(nibble(b->qs, w) - 8) * d;
    }
}

static void q4_1_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q4_1 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
        for (int w = 0; w < QK_LEGACY; w++)
            y[w] = (float)nibble(b->qs, w) * d + m;
    }
}

static void q5_0_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q5_0 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d);
        for (int w = 0; w < QK_LEGACY; w++)
            y[w] = (float)((nibble(b->qs, w) | bit5(b->qh, w)) - 16) * d;
    }
}

static void q5_1_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q5_1 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d), m = f16_to_f32(b->m);
        for (int w = 0; w < QK_LEGACY; w++)
            y[w] = (float)(nibble(b->qs, w) | bit5(b->qh, w)) * d + m;
    }
}

static void q6_0_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q6_0 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d);
        for (int w = 0; w < QK_LEGACY; w++) {
            int j = w % 16;
            int h = b->qh[j % 8] >> 4 * (j / 8);
            int top = w < 16 ? h & 3 : h >> 2 & 3;
            y[w] = (float)(nibble(b->qs, w) + 16 * top - 32) * d;
        }
    }
}

static void q8_0_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q8_0 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, y += QK_LEGACY) {
        float d = f16_to_f32(b->d);
        for (int w = 0; w < QK_LEGACY; w++)
            y[w] = (float)b->qs[w] * d;
    }
}

/* The weight variant: q = x / d rounded half away from zero, d = amax / 127 before its own rounding
 * to binary16. A block with a NaN or infinity gets a NaN scale, so that it cannot pass unseen. */
static void q8_0_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    struct blk_q8_0 *b = row;
    for (int64_t i = 0; i < n / QK_LEGACY; i++, b++, x += QK_LEGACY) {
        float amax = 0;
        bool finite = true;
        for (int w = 0; w < QK_LEGACY; w++) {
            amax = fmaxf(amax, fabsf(x[w]));
            finite &= isfinite(x[w]) != 0;
        }
        float d = amax / 127.0f, id = d ? 1.0f / d : 0.0f;
        b->d = f32_to_f16(finite ? d : NAN);
        for (int w = 0; w < QK_LEGACY; w++)
            b->qs[w] = finite ? (int8_t)roundf(x[w] * id) : 0;
    }
}

const struct qkernel q4_0_ref = { .act = QT_f32, .dequant_row = q4_0_dequant_row };
const struct qkernel q4_1_ref = { .act = QT_f32, .dequant_row = q4_1_dequant_row };
const struct qkernel q5_0_ref = { .act = QT_f32, .dequant_row = q5_0_dequant_row };
const struct qkernel q5_1_ref = { .act = QT_f32, .dequant_row = q5_1_dequant_row };
const struct qkernel q6_0_ref = { .act = QT_f32, .dequant_row = q6_0_dequant_row };
const struct qkernel q8_0_ref = { .act = QT_f32,
                                  .dequant_row = q8_0_dequant_row,
                                  .quantize_row = q8_0_quantize_row };
