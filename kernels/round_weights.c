/* SPDX-License-Identifier: MIT
 * round_weights.c - weights as cells use them that do not keep all of their bits: the definition,
 * for ref and for tests; see qtype.h. */
#include <math.h>
#include <stdlib.h>

#include "base/fp16.h"
#include "qtype.h"

/* s of sub-block b of block i. */
static int kt_sub_scale(enum qtype w, const void *row, int64_t i, int b) {
    static const int8_t scales[16] = KT_SCALES;
    const struct qtype_info *q = qtype_info(w);
    const uint8_t *blk = (const uint8_t *)row + q->row_meta + (size_t)i * q->blk_bytes;
    if (w == QT_iq4_kt) return (blk[4 * b] >> 1) - 64;
    const int nibble = b < 4 ? blk[b] & 15 : blk[b - 4] >> 4;
    return w == QT_iq2_kt ? scales[nibble] : nibble;
}

/* Blocks [i, i + n) of a row as bytes, y [256 n]: see kt_q8_factor. */
static void kt_as_bytes(enum qtype w, const void *row, int64_t i, int64_t n, float *y) {
    int largest = 0;
    float d;
    memcpy(&d, row, sizeof d);
    if (d == 0 || !isfinite(d)) return;
    for (int64_t b = 0; b < 8 * n; b++) {
        const int s = abs(kt_sub_scale(w, row, i + b / 8, (int)(b % 8)));
        if (s > largest) largest = s;
    }
    const int f = kt_q8_factor(largest);
    const float back = 32768.0f / (float)f;
    for (int64_t k = 0; k < QK_KT * n; k++) {
        if (!isfinite(y[k])) continue;
        const int v = (int)rint((double)y[k] / d);
        const int sign = w == QT_iq3_kt && v < 0 ? -1 : 1; /* it stores magnitudes */
        y[k] = d * (back * (float)(sign * ((sign * v * f + (1 << 14)) >> 15)));
    }
}

/* 32 weights of a type of legacy.h: d * q + c, q below `top`, or from -top on. */
struct legacy_scale {
    float d, c, top;
};

static struct legacy_scale legacy_scale(enum qtype w, const void *row, int64_t i) {
    const uint8_t *blk = (const uint8_t *)row + (size_t)i * qtype_info(w)->blk_bytes;
    uint16_t d, m;
    memcpy(&d, blk, sizeof d);
    memcpy(&m, blk + sizeof d, sizeof m);
    const float scale = f16_to_f32(d), min = f16_to_f32(m);
    switch (w) {
    case QT_q4_0: return (struct legacy_scale){ scale, -8 * scale, 15 };
    case QT_q4_1: return (struct legacy_scale){ scale, min, 15 };
    case QT_q5_0: return (struct legacy_scale){ scale, -16 * scale, 31 };
    case QT_q5_1: return (struct legacy_scale){ scale, min, 31 };
    case QT_q6_0: return (struct legacy_scale){ scale, -32 * scale, 63 };
    default: return (struct legacy_scale){ scale, 0, -128 }; /* q8_0 */
    }
}

/* Weights [32 b, 32 (b + n)) of a row as bytes: see legacy.h. */
static void legacy_as_bytes(enum qtype w, const void *row, int64_t b, int64_t n, float *y) {
    float most = 0;
    for (int64_t i = b; i < b + n; i++) {
        const struct legacy_scale s = legacy_scale(w, row, i);
        const float one = fabsf(s.c), other = fabsf(fmaf(s.top, s.d, s.c));
        most = fmaxf(most, fmaxf(one, other));
        if (!isfinite(s.d) || !isfinite(s.c)) return; /* y says so as it is */
    }
    const float inverse = most > 0 ? 127.0f / most : 0, step = most / 127.0f;
    for (int64_t i = 32 * b; i < 32 * (b + n); i++) {
        const struct legacy_scale s = legacy_scale(w, row, i / 32);
        const double q = s.d ? rint(((double)y[i] - s.c) / s.d) : 0;
        y[i] = step * rintf(fmaf((float)q, s.d * inverse, s.c * inverse));
    }
}

/* A row as bytes, one step for Q8_K_BLOCKS blocks of 256. */
static void as_bytes(enum qtype w, const void *row, float *y, int64_t n) {
    for (int64_t i = 0; i < n / QK_Q8_K; i += Q8_K_BLOCKS) {
        const int64_t left = n / QK_Q8_K - i, n_blocks = left < Q8_K_BLOCKS ? left : Q8_K_BLOCKS;
        if (qtype_info(w)->n_blk == QK_LEGACY)
            legacy_as_bytes(w, row, 8 * i, 8 * n_blocks, y);
        else
            kt_as_bytes(w, row, i, n_blocks, y + i * QK_KT);
    }
}

/* The row's scale is left out of the rounding: what is rounded is an integer then. */
static void as_bf16(enum qtype w, const void *row, float *y, int64_t n) {
    float d = 1;
    if (qtype_info(w)->row_meta == sizeof d) memcpy(&d, row, sizeof d);
    if (d == 0 || !isfinite(d)) return;
    for (int64_t i = 0; i < n; i++) {
        float v = d == 1 ? y[i] : (float)rint((double)y[i] / d);
        uint32_t u;
        if (isnan(v)) continue;
        memcpy(&u, &v, sizeof u);
        u = (u + (i % 2 ? 0x8000u : 0x7fffu)) & 0xffff0000u;
        memcpy(&v, &u, sizeof v);
        y[i] = d * v;
    }
}

void qtype_round_weights(enum qtype w, enum qtype act, const void *row, float *y, int64_t n) {
    if (!qtype_rounds_weights(w, act)) return;
    if (act == QT_q8_k_tile)
        as_bytes(w, row, y, n);
    else
        as_bf16(w, row, y, n);
}
