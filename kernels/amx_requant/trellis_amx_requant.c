/* SPDX-License-Identifier: MIT
 * trellis_amx_requant.c - IQ2_KT IQ3_KT IQ4_KT as 8 bits for gemm_amx_requant.h.
 *
 * A weight without the row's scale is the integer s * r; what is rounded to a byte is that times
 * kt_q8_factor of the block (trellis.h). */
#include "amx/trellis_amx.h"
#include "gemm_amx_requant.h"

struct rq_kept {
    struct kt_kept kt;
    __m512i factor; /* two words in each lane */
};
static_assert(sizeof(struct rq_kept) <= RQ_KEPT * sizeof(__m512i), "room for what is kept");

/* kt_q8_factor of 16 rows whose largest |s| is given. Returns what their bytes are to be multiplied
 * by. */
ALWAYS_INLINE __m512 set_factor(__m512i *kept, __m512i largest, const struct rows16 *r,
                                double gain) {
    struct rq_kept *k = (struct rq_kept *)kept;
    const __m512 most = _mm512_cvtepi32_ps(largest),
                 row_scale = _mm512_castsi512_ps(rows_dword(r, 0));
    const __m512 limit = _mm512_set1_ps(32767.0f);
    const __m512i factor =
        _mm512_cvttps_epi32(_mm512_min_ps(_mm512_div_ps(_mm512_set1_ps(KT_Q8_MOST), most), limit));
    const __m512 back = _mm512_div_ps(_mm512_set1_ps(32768.0f), _mm512_cvtepi32_ps(factor));
    k->factor = _mm512_or_si512(factor, _mm512_slli_epi32(factor, 16));
    return _mm512_mul_ps(back, _mm512_mul_ps(row_scale, _mm512_set1_ps((float)gain)));
}

/* The integers of four weights as words: 0 and 2, 1 and 3. */
ALWAYS_INLINE void words_of(__m512i seed, const uint32_t power[4], const struct kt_scale *s,
                            __m512i out[2]) {
    const __m512i low = _mm512_set1_epi32(0xffff);
    UNROLL
    for (int i = 0; i < 2; i++)
        out[i] = _mm512_ternarylogic_epi32(low, kt_weight(seed, power[i], s),
                                           _mm512_slli_epi32(kt_weight(seed, power[i + 2], s), 16),
                                           0xca);
}

ALWAYS_INLINE __m512i bytes_of(const __m512i words[2], __m512i factor) {
    const __m512i even = _mm512_mulhrs_epi16(words[0], factor);
    const __m512i odd = _mm512_mulhrs_epi16(words[1], factor);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0x00ff00ff), even, _mm512_slli_epi16(odd, 8),
                                     0xca);
}

/* The largest |s| of blocks [i, i + n) of n_bytes each, whose nibbles stand for scales. */
ALWAYS_INLINE __m512i largest_scale(const struct rows16 *r, int64_t i, int64_t n, size_t n_bytes,
                                    const int32_t scales[16]) {
    const __m512i sizes = _mm512_abs_epi32(_mm512_loadu_si512(scales));
    __m512i most = _mm512_setzero_si512();
    for (const int64_t end = i + n; i < end; i++) {
        const __m512i sc = rows_dword(r, kt_block_at(i * KT_PIECES, n_bytes));
        for (int b = 0; b < KT_PIECES; b++)
            most = _mm512_max_epi32(most, _mm512_permutexvar_epi32(kt_nibble(sc, b), sizes));
    }
    return most;
}

static __m512 iq2_kt_open(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept) {
    static const int32_t scales[16] = KT_SCALES;
    return set_factor(kept, largest_scale(r, i, n, sizeof(struct blk_iq2_kt), scales), r,
                      IQ2_KT_GAIN);
}

ALWAYS_INLINE void iq2_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct rq_kept *k = (const struct rq_kept *)kept;
    __m512i words[2];
    words_of(k->kt.seed[i / 2], powers + i % 2 * 4, &k->kt.scale, words);
    _mm512_store_si512(out, bytes_of(words, k->factor));
}

static __m512 iq3_kt_open(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept) {
    static const int32_t scales[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    return set_factor(kept, largest_scale(r, i, n, sizeof(struct blk_iq3_kt), scales), r,
                      IQ3_KT_GAIN);
}

/* A dword of signs is of four weights. */
static void iq3_kt_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    struct kt_kept *k = (struct kt_kept *)kept;
    const int64_t at = iq3_kt_magnitudes(r, b, k);
    (void)n;
    b %= KT_PIECES;
    if (b == 0) kt_dwords(r, at, 8, k->k23.signs);
    k->sign = _mm512_set1_epi8((char)(1 << b));
}

ALWAYS_INLINE void iq3_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct rq_kept *k = (const struct rq_kept *)kept;
    __m512i words[2];
    words_of(k->kt.seed[i / 2], powers + i % 2 * 4, &k->kt.scale, words);
    for (int j = 0; j < 2; j++)
        words[j] = _mm512_abs_epi16(words[j]);
    const __m512i q = bytes_of(words, k->factor);
    const __mmask64 negative = _mm512_test_epi8_mask(k->kt.k23.signs[i], k->kt.sign);
    _mm512_store_si512(out, _mm512_mask_sub_epi8(q, negative, _mm512_setzero_si512(), q));
}

static __m512 iq4_kt_open(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept) {
    __m512i most = _mm512_setzero_si512();
    for (const int64_t end = i + n; i < end; i++) {
        __m512i S[KT_PIECES];
        kt_dwords(r, kt_block_at(i * KT_PIECES, sizeof(struct blk_iq4_kt)), KT_PIECES, S);
        for (int b = 0; b < KT_PIECES; b++)
            most = _mm512_max_epi32(most, _mm512_abs_epi32(iq4_kt_scale(S[b])));
    }
    return set_factor(kept, most, r, IQ4_KT_GAIN);
}

ALWAYS_INLINE void iq4_kt_step(const __m512i *kept, int64_t i, char *out) {
    const struct rq_kept *k = (const struct rq_kept *)kept;
    __m512i words[2];
    words_of(k->kt.seed[i], powers, &k->kt.scale, words);
    _mm512_store_si512(out, bytes_of(words, k->factor));
}

RQ_CELL(iq2_kt, iq2_kt_begin);
RQ_CELL(iq3_kt, iq3_kt_begin);
RQ_CELL(iq4_kt, iq4_kt_begin);
