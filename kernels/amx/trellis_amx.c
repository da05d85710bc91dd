/* SPDX-License-Identifier: MIT
 * trellis_amx.c - IQ2_KT IQ3_KT IQ4_KT for the tiles of gemm_amx.h. What is rounded to bf16 is the
 * integer s * r of trellis_amx.h; the row scale multiplies the sums in f32. */
#include "trellis_amx.h"
#include "gemm_amx.h"

static_assert(sizeof(struct kt_kept) <= AMX_KEPT * sizeof(__m512i), "room for what is kept");

ALWAYS_INLINE __m512i kt_pair(__m512i seed, const uint32_t power[2], const struct kt_scale *s) {
    return bf16_pair(_mm512_cvtepi32_ps(kt_weight(seed, power[0], s)),
                     _mm512_cvtepi32_ps(kt_weight(seed, power[1], s)));
}

ALWAYS_INLINE void iq2_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct kt_kept *k = (const struct kt_kept *)kept;
    const uint32_t *power = powers + i % 2 * 4;
    _mm512_store_si512(out, kt_pair(k->seed[i / 2], power, &k->scale));
    _mm512_store_si512(out + 64, kt_pair(k->seed[i / 2], power + 2, &k->scale));
}

/* The sign bytes of a block as lanes of (0, byte of weight 2p, 0, byte of weight 2p + 1). */
ALWAYS_INLINE void iq3_kt_signs(const struct rows16 *r, int64_t at, __m512i signs[16]) {
    const __m512i pairs[2] = { _mm512_broadcast_i32x4(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1,
                                                                    8, -1, 9, -1, 12, -1, 13)),
                               _mm512_broadcast_i32x4(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1,
                                                                    10, -1, 11, -1, 14, -1, 15)) };
    for (int q = 0; q < 2; q++) {
        __m512i d[4];
        rows_4_dwords(r, at + 16 * q, d);
        UNROLL
        for (int p = 0; p < 8; p++)
            signs[8 * q + p] = _mm512_shuffle_epi8(d[p / 2], pairs[p % 2]);
    }
}

static void iq3_kt_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    struct kt_kept *k = (struct kt_kept *)kept;
    const int64_t at = iq3_kt_magnitudes(r, b, k);
    (void)n;
    b %= KT_PIECES;
    if (b == 0) iq3_kt_signs(r, at, k->k23.signs);
    k->sign = _mm512_castsi128_si512(_mm_cvtsi32_si128(7 - (int)b)); /* to the top */
}

ALWAYS_INLINE void iq3_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct kt_kept *k = (const struct kt_kept *)kept;
    const __m512i top = _mm512_set1_epi16((short)0x8000);
    const __m128i up = _mm512_castsi512_si128(k->sign);
    UNROLL
    for (int j = 0; j < 2; j++) {
        /* top bit ? sign : magnitude */
        const __m512i sign = _mm512_sll_epi16(k->k23.signs[2 * i + j], up);
        const __m512i pair = kt_pair(k->seed[i / 2], powers + i % 2 * 4 + 2 * j, &k->scale);
        _mm512_store_si512(out + 64 * j, _mm512_ternarylogic_epi32(top, sign, pair, 0xca));
    }
}

ALWAYS_INLINE void iq4_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct kt_kept *k = (const struct kt_kept *)kept;
    _mm512_store_si512(out, kt_pair(k->seed[i], powers, &k->scale));
    _mm512_store_si512(out + 64, kt_pair(k->seed[i], powers + 2, &k->scale));
}

ALWAYS_INLINE float kt_row_scale(const char *row, double gain) {
    return (float)(load_f32(row) * gain);
}

static float iq2_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ2_KT_GAIN);
}

static float iq3_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ3_KT_GAIN);
}

static float iq4_kt_row_scale(const char *row) {
    return kt_row_scale(row, IQ4_KT_GAIN);
}

AMX_QUANT_CELL(iq2_kt, iq2_kt_row_scale);
AMX_QUANT_CELL(iq3_kt, iq3_kt_row_scale);
AMX_QUANT_CELL(iq4_kt, iq4_kt_row_scale);
