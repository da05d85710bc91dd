/* SPDX-License-Identifier: MIT
 * floats_amx.c - rounding of activations to BF16, to nearest even as floats_ref.c. The conversion
 * instruction would not do: it takes subnormals for zero. */
#include "qtype.h"
#include "simd_amx.h"

ALWAYS_INLINE __m256i bf16_of(__m512 x) {
    const __m512i u = _mm512_castps_si512(x);
    const __m512i top = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(top, _mm512_set1_epi32(64));
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), is_nan, quiet));
}

static void bf16_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    struct blk_bf16 *out = row;
    (void)imatrix;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(out + i), bf16_of(_mm512_loadu_ps(x + i)));
    const __mmask16 tail = (__mmask16)((1 << (n - i)) - 1);
    if (tail) _mm256_mask_storeu_epi16(out + i, tail, bf16_of(_mm512_maskz_loadu_ps(tail, x + i)));
}

const struct qkernel bf16_amx = { .act = QT_f32, .quantize_row = bf16_quantize_row };
