/* SPDX-License-Identifier: MIT
 * act_avx512.c - quantisation of activations on AVX-512, bit for bit as act_ref.c; layouts in
 * act.h.
 *
 * The largest magnitude is found on bit patterns: as integers NaN > infinity > every number, so a
 * NaN reaches the scale whatever its place in the block. A block with such a scale has quants of 1:
 * every product with it is then NaN or infinite. */
#include "qtype.h"
#include "simd_avx512.h"

static inline void q8_2_block(const float *x, uint16_t *d, int16_t *s, int8_t *qs) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512 v[2] = { _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16) };
    const uint32_t amax = (uint32_t)_mm512_reduce_max_epi32(
        _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(v[0]), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(v[1]), magnitude)));
    *d = f32_to_bf16(f32_from_bits(amax) / 127.0f);
    if (UNLIKELY(amax >= 0x7f800000u)) {
        memset(qs, 1, QK_Q8_2);
        *s = QK_Q8_2;
        return;
    }
    const float scale = bf16_to_f32(*d);
    const __m512 inverse = _mm512_set1_ps(scale != 0.0f ? 1.0f / scale : 0.0f);
    __m512i q[2];
    UNROLL
    for (int i = 0; i < 2; i++) {
        /* minps and maxps give the second operand for a NaN (0 times an inverse that overflowed).
         */
        __m512 r = _mm512_min_ps(_mm512_mul_ps(v[i], inverse), _mm512_set1_ps(127.0f));
        q[i] = _mm512_cvtps_epi32(_mm512_max_ps(r, _mm512_set1_ps(-128.0f)));
        _mm_storeu_si128((__m128i *)(qs + 16 * i), _mm512_cvtepi32_epi8(q[i]));
    }
    *s = (int16_t)_mm512_reduce_add_epi32(_mm512_add_epi32(q[0], q[1]));
}

static void q8_2_x4_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    const int64_t n_blocks = n / QK_Q8_2, n_grouped = n_blocks / 4 * 4;
    struct blk_q8_2_x4 *g = row;
    struct blk_q8_2 *t = row;
    (void)imatrix;
    for (int64_t b = 0; b < n_grouped; b++)
        q8_2_block(x + QK_Q8_2 * b, &g[b / 4].d[b % 4], &g[b / 4].s[b % 4],
                   g[b / 4].qs + QK_Q8_2 * (b % 4));
    for (int64_t b = n_grouped; b < n_blocks; b++)
        q8_2_block(x + QK_Q8_2 * b, &t[b].d, &t[b].s, t[b].qs);
}

const struct qkernel q8_2_x4_avx512 = { .act = QT_f32, .quantize_row = q8_2_x4_quantize_row };
