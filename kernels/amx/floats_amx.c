/* SPDX-License-Identifier: MIT
 * floats_amx.c - products of F16 and BF16 weights with f32 activations in bf16 tiles, and the
 * rounding of activations to BF16 for the other types.
 *
 * A number is the sum of an upper and a lower bf16 part: 16 bits, all that an F16 has, and of an
 * f32 activation 2^-17 is lost. Upper times upper, lower activations times upper weights and upper
 * activations times lower weights are added up; lower times lower would be 2^-18 of the product.
 * BF16 weights have no lower part.
 *
 * F32 weights stay with the parent column: who keeps them wants their bits, and three parts of each
 * factor would take as long as vectors do. */
#include "gemm_amx.h"

/* Largest seen of a row: 2.1e-10 on random data, n 4096, 512 tokens; 3.9e-11 on real activations.
 */
#define FLOAT_TOL_NMSE 1e-9
#define FLOAT_MIN_TOKENS 16

static void bf16_quantize_row(const float *x, void *row, int64_t n, const float *imatrix) {
    struct blk_bf16 *out = row;
    (void)imatrix;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(out + i), bf16_of(_mm512_loadu_ps(x + i)));
    const __mmask16 tail = (__mmask16)((1 << (n - i)) - 1);
    if (tail) _mm256_mask_storeu_epi16(out + i, tail, bf16_of(_mm512_maskz_loadu_ps(tail, x + i)));
}

static void bf16_quantize_pieces(const float *x, void *pieces, size_t apart, int64_t n) {
    char *to = pieces;
    for (int64_t i = 0; i < n; i += TILE_K, to += apart)
        bf16_quantize_row(x + i, to, TILE_K, NULL);
}

/* x less its upper part; none of infinity or NaN. */
ALWAYS_INLINE __m512 lower_part(__m512 x, __m512 upper) {
    enum { NOT_FINITE = 0x99 }; /* quiet NaN, infinities, signalling NaN */
    return _mm512_maskz_sub_ps((__mmask16)~_mm512_fpclass_ps_mask(upper, NOT_FINITE), x, upper);
}

/* The upper part of x as an f32, the lower part as one whose upper half is to be taken. Rounds to
 * nearest, ties away from zero. */
ALWAYS_INLINE __m512i split_bf16(__m512 x, __m512i *low) {
    const __m512i keep = _mm512_set1_epi32((int)0xffff0000u), half = _mm512_set1_epi32(0x8000);
    const __m512i u = _mm512_castps_si512(canonical_nan(x));
    const __m512i high = _mm512_and_si512(_mm512_add_epi32(u, half), keep);
    const __m512 rest = lower_part(x, _mm512_castsi512_ps(high));
    *low = _mm512_add_epi32(_mm512_castps_si512(rest), half);
    return high;
}

static void float_pack(const float *x, int64_t nk, char *high, char *low) {
    static const uint16_t upper_halves[32] = { 1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                               23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                               45, 47, 49, 51, 53, 55, 57, 59, 61, 63 };
    const __m512i pick = _mm512_loadu_si512(upper_halves);
    for (int64_t k = 0; k < nk; k += TILE_K, high += TILE_BYTES, low += TILE_BYTES) {
        const int64_t left = nk - k;
        const uint32_t lanes = left >= 32 ? 0xffffffffu : (1u << left) - 1;
        __m512i l[2], h[2];
        h[0] = split_bf16(_mm512_maskz_loadu_ps((__mmask16)lanes, x + k), &l[0]);
        h[1] = split_bf16(_mm512_maskz_loadu_ps((__mmask16)(lanes >> 16), x + k + 16), &l[1]);
        _mm512_store_si512(high, _mm512_permutex2var_epi16(h[0], pick, h[1]));
        _mm512_store_si512(low, _mm512_permutex2var_epi16(l[0], pick, l[1]));
    }
}

/* Pairs of weights as bf16 pairs of upper and lower parts. */
ALWAYS_INLINE void store_parts(__m512 lo, __m512 hi, char *out) {
    const __m512i keep = _mm512_set1_epi32((int)0xffff0000u);
    __m512i low_l, low_h;
    const __m512i l = split_bf16(lo, &low_l), h = split_bf16(hi, &low_h);
    _mm512_store_si512(out, _mm512_or_si512(_mm512_srli_epi32(l, 16), h));
    _mm512_store_si512(out + AMX_PANELS * AMX_PANEL_BYTES,
                       _mm512_ternarylogic_epi32(keep, low_h, _mm512_srli_epi32(low_l, 16), 0xca));
}

/* Pairs 2 i and 2 i + 1 of 32 weights of 2 bytes: a dword of a row is a pair. */
ALWAYS_INLINE void bf16_step(const __m512i *kept, int64_t i, char *out) {
    _mm512_store_si512(out, kept[2 * i]);
    _mm512_store_si512(out + 64, kept[2 * i + 1]);
}

ALWAYS_INLINE void f16_step(const __m512i *kept, int64_t i, char *out) {
    UNROLL
    for (int j = 0; j < 2; j++) {
        const __m512i d = kept[2 * i + j];
        store_parts(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(d)),
                    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(d, 16))), out + 64 * j);
    }
}

/* Weights [k, k + n) of every row, n < 32, with zeros after them. */
static struct rows16 padded(const struct rows16 *r, int64_t at, size_t n_bytes,
                            char block[16][128]) {
    struct rows16 p;
    int32_t offset[16];
    memset(block, 0, 16 * sizeof block[0]);
    for (int i = 0; i < 16; i++) {
        memcpy(block[i], r->row[i] + at, n_bytes);
        p.row[i] = block[i];
        offset[i] = 128 * i;
    }
    p.offset = _mm512_loadu_si512(offset);
    return p;
}

static void two_bytes_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    char block[16][128];
    struct rows16 tail;
    if (n < TILE_K) tail = padded(r, b * TILE_K * 2, (size_t)n * 2, block);
    for (int64_t q = 0; q < 4; q++)
        rows_4_dwords(n < TILE_K ? &tail : r, (n < TILE_K ? 0 : b * TILE_K * 2) + 16 * q,
                      kept + 4 * q);
}

/* The cell of type NAME. */
#define FLOAT_CELL(NAME, SPLIT, ...)                                                               \
    static const struct amx_format NAME##_format = {                                               \
        .begin = two_bytes_begin, .step = NAME##_step, .pack = float_pack, .split = SPLIT          \
    };                                                                                             \
    AMX_CELL(NAME, .act = QT_f32, .tol_nmse = FLOAT_TOL_NMSE, .min_tokens = FLOAT_MIN_TOKENS,      \
             __VA_ARGS__)

FLOAT_CELL(f16, true, .quantize_row = NULL);
FLOAT_CELL(bf16, false, .quantize_row = bf16_quantize_row, .quantize_pieces = bf16_quantize_pieces);
