/* SPDX-License-Identifier: MIT
 * floats_ref.c - F32, F16, BF16: the definition. Conversions round to nearest, ties to even. */
#include <string.h>

#include "base/fp16.h"
#include "qtype.h"

static void f32_copy_row(const void *row, float *y, int64_t n) {
    memcpy(y, row, (size_t)n * sizeof *y);
}

static void f32_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    memcpy(row, x, (size_t)n * sizeof *x);
}

static void f16_dequant_row(const void *row, float *y, int64_t n) {
    const f16_t *h = row;
    for (int64_t i = 0; i < n; i++)
        y[i] = f16_to_f32(h[i]);
}

static void f16_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    f16_t *h = row;
    for (int64_t i = 0; i < n; i++)
        h[i] = f32_to_f16(x[i]);
}

static void bf16_dequant_row(const void *row, float *y, int64_t n) {
    const bf16_t *h = row;
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(h[i]);
}

static void bf16_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    bf16_t *h = row;
    for (int64_t i = 0; i < n; i++)
        h[i] = f32_to_bf16(x[i]);
}

const struct qkernel f32_ref = { .act = QT_f32,
                                 .dequant_row = f32_copy_row,
                                 .quantize_row = f32_quantize_row };
const struct qkernel f16_ref = { .act = QT_f32,
                                 .dequant_row = f16_dequant_row,
                                 .quantize_row = f16_quantize_row };
const struct qkernel bf16_ref = { .act = QT_f32,
                                  .dequant_row = bf16_dequant_row,
                                  .quantize_row = bf16_quantize_row };
