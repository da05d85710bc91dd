/* SPDX-License-Identifier: MIT
 * act_ref.c - activation types: the definition; layouts in act.h. */
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "qtype.h"

/* One block of 32. The quotient uses the rounded scale. A NaN or infinity in x becomes the block's
 * scale (as bf16), so every product with the block is non-finite: it cannot pass unseen. */
static void q8_2_block(const float *x, uint16_t *d, int16_t *s, int8_t *qs) {
    float amax = 0;
    for (int i = 0; i < QK_Q8_2; i++) {
        float a = fabsf(x[i]);
        amax = isnan(a) || isnan(amax) ? NAN : fmaxf(amax, a);
    }
    *d = f32_to_bf16(amax / 127.0f);
    float scale = bf16_to_f32(*d);
    float inverse = scale ? 1.0f / scale : 0.0f;
    int sum = 0;
    for (int i = 0; i < QK_Q8_2; i++) {
        float q = nearbyintf(x[i] * inverse);
        qs[i] = isfinite(amax) ? (int8_t)fmaxf(-128.0f, fminf(127.0f, q)) : 1;
        sum += qs[i];
    }
    *s = (int16_t)sum;
}

static void q8_2_x4_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    int64_t n_blocks = n / QK_Q8_2, n_packed = n_blocks / 4 * 4;
    struct blk_q8_2_x4 *g = row;
    for (int64_t b = 0; b < n_packed; b++)
        q8_2_block(x + QK_Q8_2 * b, &g[b / 4].d[b % 4], &g[b / 4].s[b % 4],
                   g[b / 4].qs + QK_Q8_2 * (b % 4));
    struct blk_q8_2 *t = row;
    for (int64_t b = n_packed; b < n_blocks; b++)
        q8_2_block(x + QK_Q8_2 * b, &t[b].d, &t[b].s, t[b].qs);
}

static void q8_2_x4_dequant_row(const void *row, float *y, int64_t n) {
    int64_t n_blocks = n / QK_Q8_2;
    for (int64_t b = 0; b < n_blocks; b++) {
        struct q8_2_view v = q8_2_x4_block(row, b, n_blocks);
        float d = bf16_to_f32(v.d);
        for (int i = 0; i < QK_Q8_2; i++)
            *y++ = d * (float)v.qs[i];
    }
}

/* n_blocks blocks with one scale. A NaN or an infinity becomes the scale, as above. */
static void q8_k_tile_blocks(const float *x, struct blk_q8_k_tile *blk, int64_t n_blocks) {
    float amax = 0;
    for (int64_t i = 0; i < n_blocks * QK_Q8_K; i++) {
        float a = fabsf(x[i]);
        amax = isnan(a) || isnan(amax) ? NAN : fmaxf(amax, a);
    }
    float d = amax / 127.0f, inverse = d ? 1.0f / d : 0.0f;
    for (int64_t b = 0; b < n_blocks; b++, blk++, x += QK_Q8_K) {
        memset(blk, 0, sizeof *blk);
        blk->d = d;
        for (int i = 0; i < QK_Q8_K; i++) {
            float q = nearbyintf(x[i] * inverse);
            blk->qs[i] = isfinite(amax) ? (int8_t)fmaxf(-127.0f, fminf(127.0f, q)) : 1;
        }
    }
}

static void q8_k_tile_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    struct blk_q8_k_tile *blk = row;
    const int64_t n_blocks = n / QK_Q8_K;
    (void)imatrix;
    for (int64_t b = 0; b < n_blocks; b += Q8_K_BLOCKS)
        q8_k_tile_blocks(x + b * QK_Q8_K, blk + b,
                         n_blocks - b < Q8_K_BLOCKS ? n_blocks - b : Q8_K_BLOCKS);
}

static void q8_k_tile_dequant_row(const void *row, float *y, int64_t n) {
    const struct blk_q8_k_tile *blk = row;
    for (int64_t i = 0; i < n; i++)
        y[i] = blk[i / QK_Q8_K].d * (float)blk[i / QK_Q8_K].qs[i % QK_Q8_K];
}

const struct qkernel q8_2_x4_ref = { .act = QT_f32,
                                     .dequant_row = q8_2_x4_dequant_row,
                                     .quantize_row = q8_2_x4_quantize_row };

const struct qkernel q8_k_tile_ref = { .act = QT_f32,
                                       .dequant_row = q8_k_tile_dequant_row,
                                       .quantize_row = q8_k_tile_quantize_row };
