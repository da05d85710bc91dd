/* SPDX-License-Identifier: MIT
 * act_avx2.c - quantisation of activations on AVX2, bit for bit as act_ref.c; layouts in act.h.
 *
 * The largest magnitude is found on bit patterns: as integers NaN > infinity > every number, so a
 * NaN reaches the scale whatever its place in the block. A block with such a scale has quants of 1:
 * every product with it is then NaN or infinite. */
#include "base/fault.h"
#include "qtype.h"
#include "simd_avx2.h"

static inline void q8_2_block(const float *x, uint16_t *d, int16_t *s, int8_t *qs) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 v[4];
    __m256i top = _mm256_setzero_si256();
    UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epi32(top, _mm256_castps_si256(_mm256_and_ps(v[i], magnitude)));
    }
    const uint32_t amax = (uint32_t)hmax_i32(top);
    *d = f32_to_bf16(f32_from_bits(amax) / 127.0f);
    if (UNLIKELY(amax >= 0x7f800000u)) {
        memset(qs, 1, QK_Q8_2);
        *s = QK_Q8_2;
        return;
    }
    const float scale = bf16_to_f32(*d);
    const __m256 inverse = _mm256_set1_ps(scale != 0.0f ? 1.0f / scale : 0.0f);
    __m256i q[4], sum = _mm256_setzero_si256();
    UNROLL
    for (int i = 0; i < 4; i++) {
        /* minps and maxps give the second operand for a NaN (0 times an inverse that overflowed).
         */
        __m256 r = _mm256_min_ps(_mm256_mul_ps(v[i], inverse), _mm256_set1_ps(127.0f));
        r = _mm256_max_ps(r, _mm256_set1_ps(-128.0f));
        q[i] = FAULT(act_truncate) ? _mm256_cvttps_epi32(r) : _mm256_cvtps_epi32(r);
        sum = _mm256_add_epi32(sum, q[i]);
    }
    *s = (int16_t)hsum_i32(sum);
    /* Packing works on halves of registers; the permutation puts the groups of four in order. */
    __m256i words01 = _mm256_packs_epi32(q[0], q[1]), words23 = _mm256_packs_epi32(q[2], q[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words01, words23), order);
    _mm256_storeu_si256((__m256i *)qs, bytes);
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

const struct qkernel q8_2_x4_avx2 = { .act = QT_f32, .quantize_row = q8_2_x4_quantize_row };
