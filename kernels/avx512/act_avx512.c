/* SPDX-License-Identifier: MIT
 * act_avx512.c - quantisation of activations on AVX-512, bit for bit as act_ref.c; layouts in
 * act.h.
 *
 * The largest magnitude is found on bit patterns: as integers NaN > infinity > every number, so a
 * NaN reaches the scale whatever its place in the block. A block with such a scale has quants of 1:
 * every product with it is then NaN or infinite. */
#include "act_avx512.h"

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
    const __m512i q[2] = { to_int8(v[0], inverse, -128.0f, qs),
                           to_int8(v[1], inverse, -128.0f, qs + 16) };
    *s = (int16_t)_mm512_reduce_add_epi32(_mm512_add_epi32(q[0], q[1]));
}

ALWAYS_INLINE __m512i larger_or_sum(bool larger, __m512i a, __m512i b) {
    return larger ? _mm512_max_epi32(a, b) : _mm512_add_epi32(a, b);
}

/* Lane j = the largest lane, or the sum of the lanes, of a[j]. */
ALWAYS_INLINE __m128i fold4(bool larger, const __m512i a[4]) {
    const __m512i ab =
        larger_or_sum(larger, _mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
    const __m512i cd =
        larger_or_sum(larger, _mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
    __m512i q = larger_or_sum(larger, _mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    q = larger_or_sum(larger, q, _mm512_shuffle_i64x2(q, q, 0x4e));
    q = larger_or_sum(larger, q, _mm512_shuffle_i64x2(q, q, 0xb1));
    return _mm512_castsi512_si128(q);
}

/* Four blocks with one division each for their scales and inverses. False, with nothing written, if
 * one of them is not finite. */
static inline bool q8_2_group(const float *x, struct blk_q8_2_x4 *g) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 v[8];
    __m512i top[4], sum[4];
    UNROLL
    for (int j = 0; j < 4; j++) {
        v[2 * j] = _mm512_loadu_ps(x + 32 * j);
        v[2 * j + 1] = _mm512_loadu_ps(x + 32 * j + 16);
        top[j] = _mm512_and_si512(_mm512_castps_si512(v[2 * j]), magnitude);
        top[j] = _mm512_max_epi32(top[j],
                                  _mm512_and_si512(_mm512_castps_si512(v[2 * j + 1]), magnitude));
    }
    const __m128i amax = fold4(true, top);
    if (_mm_movemask_epi8(_mm_cmpgt_epi32(amax, _mm_set1_epi32(0x7f7fffff)))) return false;
    /* As f32_to_bf16: to nearest, ties to even. */
    __m128i d = _mm_castps_si128(_mm_div_ps(_mm_castsi128_ps(amax), _mm_set1_ps(127.0f)));
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(d, 16), _mm_set1_epi32(1));
    d = _mm_srli_epi32(_mm_add_epi32(d, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff))), 16);
    _mm_storel_epi64((__m128i *)g->d, _mm_cvtepi32_epi16(d));
    const __m128 scale = _mm_castsi128_ps(_mm_slli_epi32(d, 16));
    const __mmask8 nonzero = _mm_cmp_ps_mask(scale, _mm_setzero_ps(), _CMP_NEQ_OQ);
    const __m512 inverse =
        _mm512_castps128_ps512(_mm_maskz_div_ps(nonzero, _mm_set1_ps(1.0f), scale));
    UNROLL
    for (int j = 0; j < 4; j++) {
        const __m512 inv = _mm512_permutexvar_ps(_mm512_set1_epi32(j), inverse);
        __m512i q[2];
        UNROLL
        for (int i = 0; i < 2; i++)
            q[i] = to_int8(v[2 * j + i], inv, -128.0f, g->qs + 32 * j + 16 * i);
        sum[j] = _mm512_add_epi32(q[0], q[1]);
    }
    _mm_storel_epi64((__m128i *)g->s, _mm_cvtepi32_epi16(fold4(false, sum)));
    return true;
}

static void q8_2_x4_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    const int64_t n_blocks = n / QK_Q8_2, n_grouped = n_blocks / 4 * 4;
    struct blk_q8_2_x4 *g = row;
    struct blk_q8_2 *t = row;
    (void)imatrix;
    for (int64_t i = 0; i < n_grouped / 4; i++)
        if (!q8_2_group(x + 4 * QK_Q8_2 * i, &g[i]))
            for (int j = 0; j < 4; j++)
                q8_2_block(x + QK_Q8_2 * (4 * i + j), &g[i].d[j], &g[i].s[j],
                           g[i].qs + QK_Q8_2 * j);
    for (int64_t b = n_grouped; b < n_blocks; b++)
        q8_2_block(x + QK_Q8_2 * b, &t[b].d, &t[b].s, t[b].qs);
}

const struct qkernel q8_2_x4_avx512 = { .act = QT_f32, .quantize_row = q8_2_x4_quantize_row };

static void q8_k_tile_quantize_pieces(const float *x, void *pieces, size_t apart, int64_t n) {
    const int64_t n_blocks = n / QK_Q8_K, n_lines = sizeof(struct blk_q8_k_tile) / 64;
    for (int64_t b = 0; b < n_blocks; b += Q8_K_BLOCKS) {
        const int64_t left = n_blocks - b;
        q8_k_tile_blocks(x + b * QK_Q8_K, left < Q8_K_BLOCKS ? (int)left : Q8_K_BLOCKS,
                         (char *)pieces + (size_t)(b * n_lines) * apart, apart);
    }
}

static void q8_k_tile_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    (void)imatrix;
    q8_k_tile_quantize_pieces(x, row, 64, n);
}

const struct qkernel q8_k_tile_avx512 = { .act = QT_f32,
                                          .quantize_row = q8_k_tile_quantize_row,
                                          .quantize_pieces = q8_k_tile_quantize_pieces };
