/* SPDX-License-Identifier: MIT
 * legacy_amx_requant.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 as 8 bits for gemm_amx_requant.h: weights of
 * legacy_amx.h, whose scale and minimum are multiplied by 127 / M (legacy.h) before. */
#include "amx/legacy_amx.h"
#include "gemm_amx_requant.h"

struct rq_nibble_kept {
    struct nibble_kept k;
    __m512 inverse;
};
struct rq_q8_0_kept {
    struct q8_0_kept k;
    __m512 inverse;
};
static_assert(sizeof(struct rq_nibble_kept) <= RQ_KEPT * sizeof(__m512i) &&
                  sizeof(struct rq_q8_0_kept) <= RQ_KEPT * sizeof(__m512i),
              "room for what is kept");

/* As integers, which order NaN above infinity above numbers. */
ALWAYS_INLINE __m512 larger_size(__m512 a, __m512 b) {
    const __m512i size = _mm512_set1_epi32(0x7fffffff);
    return _mm512_castsi512_ps(
        _mm512_max_epi32(_mm512_castps_si512(a), _mm512_and_si512(_mm512_castps_si512(b), size)));
}

/* 127 / most, or 0, to inverse; returns most / 127. */
ALWAYS_INLINE __m512 set_inverse(__m512 most, __m512 *inverse) {
    const __m512 top = _mm512_set1_ps(127.0f);
    const __mmask16 some = _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    *inverse = _mm512_maskz_div_ps(some, top, most);
    return _mm512_div_ps(most, top);
}

/* Rounded to nearest even and packed; what is no number becomes 0. */
ALWAYS_INLINE void store_bytes(const __m512 w[4], char *out) {
    const __m512i low = _mm512_set1_epi32(0xff), half = _mm512_set1_epi32(0xffff);
    __m512i q[4], pair[2];
    UNROLL
    for (int j = 0; j < 4; j++)
        q[j] = _mm512_cvtps_epi32(w[j]);
    UNROLL
    for (int j = 0; j < 2; j++)
        pair[j] =
            _mm512_ternarylogic_epi32(low, q[2 * j], _mm512_slli_epi32(q[2 * j + 1], 8), 0xca);
    _mm512_store_si512(
        out, _mm512_ternarylogic_epi32(half, pair[0], _mm512_slli_epi32(pair[1], 16), 0xca));
}

ALWAYS_INLINE __m512 nibble_open(const struct nibble_format *f, const struct rows16 *r, int64_t i,
                                 int64_t n, __m512i *kept) {
    struct rq_nibble_kept *k = (struct rq_nibble_kept *)kept;
    const __m512 top = _mm512_set1_ps((float)((16 << f->n_high) - 1));
    __m512 most = _mm512_setzero_ps();
    for (int64_t b = 8 * i; b < 8 * (i + n); b++) {
        const __m512i head = rows_dword(r, b * f->n_bytes);
        const __m512 d = f16_of_dword(head, false);
        if (!f->has_min) {
            most = larger_size(most, _mm512_mul_ps(d, _mm512_set1_ps(f->bias)));
            continue;
        }
        const __m512 min = f16_of_dword(head, true);
        most = larger_size(larger_size(most, min), _mm512_fmadd_ps(top, d, min));
    }
    return set_inverse(most, &k->inverse);
}

ALWAYS_INLINE void rq_nibble_begin(const struct nibble_format *f, const struct rows16 *r, int64_t b,
                                   __m512i *kept) {
    struct rq_nibble_kept *k = (struct rq_nibble_kept *)kept;
    nibble_begin(f, r, b, &k->k);
    k->k.d = _mm512_mul_ps(k->k.d, k->inverse);
    k->k.c = _mm512_mul_ps(k->k.c, k->inverse);
}

#define NIBBLE_CELL(NAME)                                                                          \
    static __m512 NAME##_open(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept) {       \
        return nibble_open(&NAME##_nibbles, r, i, n, kept);                                        \
    }                                                                                              \
    static void NAME##_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {        \
        (void)n;                                                                                   \
        rq_nibble_begin(&NAME##_nibbles, r, b, kept);                                              \
    }                                                                                              \
    ALWAYS_INLINE void NAME##_step(const __m512i *kept, int64_t i, char *out) {                    \
        __m512 w[4];                                                                               \
        nibble_weights(&NAME##_nibbles, (const struct nibble_kept *)kept, i, w);                   \
        store_bytes(w, out);                                                                       \
    }                                                                                              \
    RQ_CELL(NAME, NAME##_begin)

NIBBLE_CELL(q4_0);
NIBBLE_CELL(q4_1);
NIBBLE_CELL(q5_0);
NIBBLE_CELL(q5_1);
NIBBLE_CELL(q6_0);

static __m512 q8_0_open(const struct rows16 *r, int64_t i, int64_t n, __m512i *kept) {
    struct rq_q8_0_kept *k = (struct rq_q8_0_kept *)kept;
    __m512 most = _mm512_setzero_ps();
    for (int64_t b = 8 * i; b < 8 * (i + n); b++) {
        const __m512i head = rows_dword(r, b * (int64_t)sizeof(struct blk_q8_0));
        most = larger_size(most, _mm512_mul_ps(f16_of_dword(head, false), _mm512_set1_ps(128.0f)));
    }
    return set_inverse(most, &k->inverse);
}

static void rq_q8_0_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {
    struct rq_q8_0_kept *k = (struct rq_q8_0_kept *)kept;
    q8_0_begin(r, b, n, kept);
    k->k.d = _mm512_mul_ps(k->k.d, k->inverse);
}

ALWAYS_INLINE void q8_0_step(const __m512i *kept, int64_t i, char *out) {
    __m512 w[4];
    q8_0_weights((const struct q8_0_kept *)kept, i, w);
    store_bytes(w, out);
}

RQ_CELL(q8_0, rq_q8_0_begin);
