/* SPDX-License-Identifier: MIT
 * qtype.c - facts about types, made from the lists in qtype.h. */
#include "qtype.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

static const struct qtype_info infos[QT_count] = {
#define X(name, id, n_blk, block, row_meta, gain, ...)                                             \
    [QT_##name] = { #name, id, n_blk, sizeof(block), row_meta, gain },
    QTYPE_LIST(X)
#undef X
#define X(name, id, n_blk, bytes, row_meta)                                                        \
    [QT_##name] = { #name, id, n_blk, bytes, row_meta, 1.0 },
        QTYPE_SIZE_LIST(X)
#undef X
};

const struct qtype_info *qtype_info(enum qtype t) {
    assert(t >= 0 && t < QT_count);
    return &infos[t];
}

enum qtype qtype_from_gguf(uint32_t gguf_id) {
    for (int t = 0; t < QT_count; t++)
        if (infos[t].gguf_id == gguf_id) return (enum qtype)t;
    return QT_none;
}

enum qtype qtype_from_name(const char *name) {
    for (int t = 0; t < QT_count; t++)
        if (strcasecmp(infos[t].name, name) == 0) return (enum qtype)t;
    return QT_none;
}

size_t qtype_row_bytes(enum qtype t, int64_t n) {
    const struct qtype_info *i = qtype_info(t);
    assert(n % i->n_blk == 0);
    return i->row_meta + (size_t)(n / i->n_blk) * i->blk_bytes;
}

/* s of sub-block b of block i. */
static int kt_sub_scale(enum qtype w, const void *row, int64_t i, int b) {
    static const int8_t scales[16] = KT_SCALES;
    const struct qtype_info *q = qtype_info(w);
    const uint8_t *blk = (const uint8_t *)row + q->row_meta + (size_t)i * q->blk_bytes;
    if (w == QT_iq4_kt) return (blk[4 * b] >> 1) - 64;
    const int nibble = b < 4 ? blk[b] & 15 : blk[b - 4] >> 4;
    return w == QT_iq2_kt ? scales[nibble] : nibble;
}

/* n weights as bytes times a factor: see kt_q8_factor. */
static void round_to_q8(enum qtype type, float *y, int n, float d, int f) {
    const float w = 32768.0f / (float)f;
    for (int i = 0; i < n; i++) {
        const int v = (int)rint((double)y[i] / d);
        const int sign = type == QT_iq3_kt && v < 0 ? -1 : 1; /* it stores magnitudes */
        y[i] = d * (w * (float)(sign * ((sign * v * f + (1 << 14)) >> 15)));
    }
}

void qtype_round_weights(enum qtype w, enum qtype act, const void *row, float *y, int64_t n) {
    float d = 1; /* the row's scale; what is rounded is an integer then */
    if (qtype_info(w)->row_meta == sizeof d) memcpy(&d, row, sizeof d);
    if (d == 0 || !isfinite(d)) return;
    for (int64_t i = 0; act == QT_q8_k_tile && i < n / QK_KT; i += Q8_K_BLOCKS) {
        const int64_t left = n / QK_KT - i;
        const int n_sub = 8 * (int)(left < Q8_K_BLOCKS ? left : Q8_K_BLOCKS);
        int largest = 0;
        for (int b = 0; b < n_sub; b++) {
            const int s = abs(kt_sub_scale(w, row, i + b / 8, b % 8));
            if (s > largest) largest = s;
        }
        round_to_q8(w, y + i * QK_KT, 32 * n_sub, d, kt_q8_factor(largest));
    }
    if (act == QT_q8_k_tile) return;
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
