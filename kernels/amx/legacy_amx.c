/* SPDX-License-Identifier: MIT
 * legacy_amx.c - Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0 for the tiles of gemm_amx.h: weights of
 * legacy_amx.h, rounded to bf16. */
#include "legacy_amx.h"
#include "gemm_amx.h"

ALWAYS_INLINE void store_pairs(const __m512 w[4], char *out) {
    _mm512_store_si512(out, bf16_pair(w[0], w[1]));
    _mm512_store_si512(out + 64, bf16_pair(w[2], w[3]));
}

#define NIBBLE_CELL(NAME)                                                                          \
    static void NAME##_begin(const struct rows16 *r, int64_t b, int64_t n, __m512i *kept) {        \
        (void)n;                                                                                   \
        nibble_begin(&NAME##_nibbles, r, b, (struct nibble_kept *)kept);                           \
    }                                                                                              \
    ALWAYS_INLINE void NAME##_step(const __m512i *kept, int64_t i, char *out) {                    \
        __m512 w[4];                                                                               \
        nibble_weights(&NAME##_nibbles, (const struct nibble_kept *)kept, i, w);                   \
        store_pairs(w, out);                                                                       \
    }                                                                                              \
    AMX_QUANT_CELL(NAME, NULL)

NIBBLE_CELL(q4_0);
NIBBLE_CELL(q4_1);
NIBBLE_CELL(q5_0);
NIBBLE_CELL(q5_1);
NIBBLE_CELL(q6_0);

ALWAYS_INLINE void q8_0_step(const __m512i *kept, int64_t i, char *out) {
    __m512 w[4];
    q8_0_weights((const struct q8_0_kept *)kept, i, w);
    store_pairs(w, out);
}

AMX_QUANT_CELL(q8_0, NULL);
