/* SPDX-License-Identifier: MIT
 * int8_avx512.c - panels of integer weights by tiles of tokens, for all types; the arithmetic
 * and its order are described in int8_avx512.h. */
#include "int8_avx512.h"

void int8_fill_acts_avx512(int bias, const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                           int64_t k0, int64_t nk, struct int8_acts *a) {
    a->x = x;
    a->stride = x_stride;
    a->first = k0 / 32;
    for (int64_t t = 0; t < n_tok; t++, x += x_stride)
        for (int64_t b = 0; b < nk / 32; b += 4)
            int8_fill_blocks(bias, x, a->first + b, (int)gemm_min(nk / 32 - b, 4), n / 32,
                             a->d[t] + b, a->s[t] + b, a->start[t] + b);
}

/* Add block b of the tile to the sums of nt tokens, whose activations are at q[t] + offset; p[h]
 * are the panels. */
ALWAYS_INLINE void add_block(int nt, int nh, bool has_min, const struct int8_panel *const *p,
                             const struct int8_acts *a, int64_t b, const int8_t *const *q,
                             size_t offset, __m512 sum[2][INT8_TOKENS]) {
    __m512i acc[2][INT8_TOKENS];
    UNROLL
    for (int t = 0; t < nt; t++) {
        UNROLL
        for (int h = 0; h < nh; h++)
            acc[h][t] = _mm512_set1_epi32(a->start[t][b]);
    }
    UNROLL
    for (int i = 0; i < 8; i++) {
        __m512i w[2];
        UNROLL
        for (int h = 0; h < nh; h++)
            w[h] = load512(p[h][b].q[i]);
        UNROLL
        for (int t = 0; t < nt; t++) {
            const __m512i x = spread_u32(q[t] + offset + 4 * i);
            UNROLL
            for (int h = 0; h < nh; h++)
                acc[h][t] = _mm512_dpbusd_epi32(acc[h][t], w[h], x);
        }
    }
    UNROLL
    for (int h = 0; h < nh; h++) {
        const __m512 d = _mm512_loadu_ps(p[h][b].d);
        UNROLL
        for (int t = 0; t < nt; t++) {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(a->d[t][b]));
            sum[h][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[h][t]), scale, sum[h][t]);
        }
    }
    if (!has_min) return;
    UNROLL
    for (int h = 0; h < nh; h++) {
        const __m512 m = _mm512_loadu_ps(p[h][b].m);
        UNROLL
        for (int t = 0; t < nt; t++)
            sum[h][t] = _mm512_fmadd_ps(m, _mm512_set1_ps(a->s[t][b]), sum[h][t]);
    }
}

/* nt tokens by nh panels; both are constants. */
ALWAYS_INLINE void tile(int nt, int nh, bool has_min, const struct int8_panel *panel,
                        const struct int8_acts *a, int64_t nk, struct gemm_out out) {
    const int64_t n_blocks = nk / 32;
    const struct int8_panel *p[2] = { panel, panel + n_blocks };
    const int8_t *q[INT8_TOKENS];
    const int64_t rows[2] = { gemm_min(out.n_rows, INT8_ROWS), out.n_rows - INT8_ROWS };
    UNROLL
    for (int t = 0; t < nt; t++)
        q[t] = (const int8_t *)a->x + (size_t)t * a->stride +
               (size_t)a->first / 4 * sizeof(struct blk_q8_2_x4);
    for (int64_t b = 0; b < n_blocks; out.add = true) {
        const int64_t end = gemm_min(b + INT8_PART / 32, n_blocks);
        __m512 sum[2][INT8_TOKENS];
        UNROLL
        for (int t = 0; t < nt; t++) {
            UNROLL
            for (int h = 0; h < nh; h++)
                sum[h][t] = _mm512_setzero_ps();
        }
        for (; b + 4 <= end; b += 4) {
            for (int j = 0; j < 4; j++)
                add_block(nt, nh, has_min, p, a, b + j, q,
                          offsetof(struct blk_q8_2_x4, qs) + 32 * (size_t)j, sum);
            UNROLL
            for (int t = 0; t < nt; t++)
                q[t] += sizeof(struct blk_q8_2_x4);
        }
        for (size_t offset = offsetof(struct blk_q8_2, qs); b < end; b++) {
            add_block(nt, nh, has_min, p, a, b, q, offset, sum);
            offset += sizeof(struct blk_q8_2);
        }
        UNROLL
        for (int t = 0; t < nt; t++) {
            UNROLL
            for (int h = 0; h < nh; h++)
                int8_store(sum[h][t], out.dst + t * out.stride + INT8_ROWS * h, rows[h], out.add);
        }
    }
}

ALWAYS_INLINE void tile_of(int nh, bool has_min, const void *panel, const void *acts, int64_t nk,
                           struct gemm_out out) {
    switch (out.n_tok) {
    case 1: tile(1, nh, has_min, panel, acts, nk, out); break;
    case 2: tile(2, nh, has_min, panel, acts, nk, out); break;
    case 3: tile(3, nh, has_min, panel, acts, nk, out); break;
    case 4: tile(4, nh, has_min, panel, acts, nk, out); break;
    case 5: tile(5, nh, has_min, panel, acts, nk, out); break;
    case 6: tile(6, nh, has_min, panel, acts, nk, out); break;
    }
}

void int8_tile_avx512(bool has_min, const void *panel, const void *acts, int64_t nk,
                      struct gemm_out out) {
    if (out.n_rows > INT8_ROWS)
        tile_of(2, has_min, panel, acts, nk, out);
    else
        tile_of(1, has_min, panel, acts, nk, out);
}
