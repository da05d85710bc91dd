/* SPDX-License-Identifier: MIT
 * op_set_rows_avx512.c - stores rows of K or V in their cells of the cache, bit for bit as ref
 * does; contract in op.h. */
#include <string.h>

#include "base/fp16.h"
#include "exp_avx512.h"
#include "op.h"

static void store_f16(const float *x, f16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = lanes16(n - i);
        __m256i h = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(m, x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(y + i, m, h);
    }
}

/* To nearest, ties away from zero: below 1/2 the largest float, so that only a true half reaches
 * the next integer. */
ALWAYS_INLINE __m128i round_away(__m512 x) {
    __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    __m512 half = _mm512_or_ps(sign, _mm512_set1_ps(0x1.fffffep-2f));
    return _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(_mm512_add_ps(x, half)));
}

static void store_q8_0(const float *x, struct blk_q8_0 *b, int64_t n) {
    for (; n > 0; n -= QK_LEGACY, x += QK_LEGACY, b++) {
        __m512 lo = _mm512_loadu_ps(x), hi = _mm512_loadu_ps(x + 16);
        __mmask16 bad = _mm512_fpclass_ps_mask(lo, 0x99) | _mm512_fpclass_ps_mask(hi, 0x99);
        float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), _mm512_abs_ps(hi)));
        float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
        if (bad) { /* a NaN scale, so that it cannot pass unseen */
            memset(b->qs, 0, sizeof b->qs);
            b->d = 0x7e00;
            continue;
        }
        b->d = _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
        const __m512 s = _mm512_set1_ps(id);
        _mm_storeu_si128((__m128i *)(void *)b->qs, round_away(_mm512_mul_ps(lo, s)));
        _mm_storeu_si128((__m128i *)(void *)(b->qs + 16), round_away(_mm512_mul_ps(hi, s)));
    }
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0], *cell = node->src[1];
    int64_t n = x->ne[0], grain = work_grain(x->row_bytes);
    for (int64_t t, end; work_rows(w, x->ne[1], grain, &t, &end);)
        for (; t < end; t++) {
            void *y = tensor_row(node->dst, ((const int32_t *)cell->data)[t]);
            switch ((enum qtype)node->dst->type) {
            case QT_f32: memcpy(y, tensor_row(x, t), (size_t)n * sizeof(float)); break;
            case QT_f16: store_f16(tensor_row(x, t), y, n); break;
            default: store_q8_0(tensor_row(x, t), y, n); break;
            }
        }
}

const struct op_cell op_set_rows_avx512 = { .run = run };
