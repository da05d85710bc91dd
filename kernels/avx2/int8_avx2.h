/* SPDX-License-Identifier: MIT
 * int8_avx2.h - products of integer weights with q8_2_x4 activations; a type brings its decoder.
 *
 * A decoder gives 32 weights as 32 bytes, and a scale d. Two kinds of bytes:
 *
 *   signed    -127..127 (q8_0: -128..127). One product pair fills an int16, so each step is
 *             maddubs(|w|, x with w's sign), madd(ones), add. 127 * |-128| * 2 still fits.
 *   unsigned  weight = byte - bias, of few bits. No sign to move, and the results of `steps`
 *             maddubs can be added in int16 before they are widened; bias * sum(x) is taken off in
 *             int32, the sum of a block of x being part of q8_2_x4.
 *
 * Either way the 32 products are added up exactly. A product's share of dst is then
 * d * dx * isum + m * dx * sum(x) in f32, m being the minimum of q4_1 and q5_1.
 *
 * Two ways through the weights give every element of dst the same bits, so a token's results never
 * depend on how many others are in the call: the 32 products of a block are added up exactly, then
 * blocks in order by f32 multiply-adds, then parts of INT8_K_BLOCK weights in order.
 *
 *   panels    Many tokens. A panel of 8 rows holds bytes by [k / 4][row][k % 4]: a lane of a
 *             register is a row, and 4 activations broadcast to all lanes meet it.
 *   streaming Few tokens. 8 rows are read side by side, 4 blocks of each at a time; the 8 partial
 *             sums of a block are added across lanes for 8 rows together, which puts a row into
 *             each lane here too.
 *
 * Activations are -127..127. -128, whose sign cannot be moved, appears only where a block's scale
 * is subnormal, so that its rounded inverse is too large; signed formats read it as -127. */
#ifndef GGAUGE_INT8_AVX2_H
#define GGAUGE_INT8_AVX2_H

#include "base/fault.h"
#include "qtype.h"
#include "simd_avx2.h"
#include "tmpl/gemm_tmpl.h"

#define INT8_ROWS 8
#define INT8_TOKENS 4     /* tokens of a tile: with 8 rows, 4 int32 and 4 f32 accumulators */
#define INT8_K_BLOCK 4096 /* weights: 8 panels then take 320 KiB of the second level cache */
#define INT8_PANELS 8
#define INT8_FEW_TOKENS 2 /* streamed one after the other; panels are faster from 3 on */
/* Largest seen on random data, n up to 8448: 6.9e-13, from adding n / 32 terms in f32. */
#define INT8_TOL_NMSE 3e-12

struct int8_format {
    /* Weights 32 b .. 32 b + 31 of a row as bytes. */
    __m256i (*bytes)(const char *row, int64_t b);
    /* Scales of blocks b .. b + count - 1, b a multiple of 4 and count up to 4, and with has_min
     * their minimums; anything finite in the places of missing blocks. */
    __m128 (*scales)(const char *row, int64_t b, int count, __m128 *mins);
    /* Products of the same blocks with the activations of struct int8_stream, x[0] being block b's:
     * those of block b + j in 8 sums, at acc[8 j]. */
    void (*dots)(const char *row, int64_t b, int count, const int8_t *x, __m256i *acc);
    int steps; /* 1 = signed bytes; otherwise unsigned, 2, 4 or 8 maddubs results fit an int16 */
    int bias;
    bool has_min;
    /* 0, or what `dots` leaves in each weight, and its x is spread: each activation four times in a
     * row, so that it meets the 4 bytes whose sum is the weight. */
    int spread_bias;
    int group_bytes; /* of 4 blocks */
};

/* 8 rows x 32 weights. */
struct int8_panel {
    int8_t q[8][8][4]; // [k / 4][row][k % 4]
    float d[8], m[8];
};

/* 4 tokens x 32 activations. */
struct int8_acts {
    int8_t q[INT8_TOKENS][32];
    float d[INT8_TOKENS];
    float s[INT8_TOKENS];     /* d * sum of q */
    int32_t sum[INT8_TOKENS]; /* sum of q */
};

ALWAYS_INLINE void int8_fill_panel(const struct int8_format *f, const char *const *row, int64_t k0,
                                   int64_t nk, void *panel) {
    struct int8_panel *p = panel;
    const int64_t end = (k0 + nk) / 32;
    for (int64_t b = k0 / 32; b < end; b += 4) {
        const int count = (int)gemm_min(end - b, 4);
        float d[8][4], m[8][4];
        UNROLL
        for (int r = 0; r < 8; r++) {
            __m128 mins = _mm_setzero_ps();
            _mm_storeu_ps(d[r], f->scales(row[r], b, count, &mins));
            _mm_storeu_ps(m[r], mins);
        }
        for (int j = 0; j < count; j++, p++) {
            __m256i w[8];
            UNROLL
            for (int r = 0; r < 8; r++) {
                w[r] = f->bytes(row[r], b + j);
                p->d[r] = d[r][j];
                if (f->has_min) p->m[r] = m[r][j];
            }
            transpose8x8(w);
            UNROLL
            for (int i = 0; i < 8; i++)
                _mm256_store_si256((__m256i *)p->q[i], w[i]);
        }
    }
}

/* 32 activations as format f reads them. */
ALWAYS_INLINE __m256i int8_load_acts(const struct int8_format *f, const int8_t *q) {
    const __m256i x = load256(q);
    return f->steps == 1 ? _mm256_max_epi8(x, _mm256_set1_epi8(-127)) : x;
}

/* Pack up to 4 tokens; the places of missing ones hold zeros. */
ALWAYS_INLINE void int8_fill_acts(const struct int8_format *f, const char *x, size_t x_stride,
                                  int64_t n_tok, int64_t n, int64_t k0, int64_t nk, void *acts) {
    struct int8_acts *a = acts;
    const int64_t first = k0 / 32, end = (k0 + nk) / 32;
    if (n_tok < INT8_TOKENS) memset(a, 0, (size_t)(end - first) * sizeof *a);
    for (int t = 0; t < n_tok; t++, x += x_stride) {
        a = acts;
        for (int64_t b = first; b < end; b++, a++) {
            const struct q8_2_view v = q8_2_x4_block(x, b, n / 32);
            const float d = bf16_to_f32(v.d);
            _mm256_storeu_si256((__m256i *)a->q[t], int8_load_acts(f, v.qs));
            a->d[t] = d;
            a->sum[t] = v.s;
            a->s[t] = d * (float)v.s;
        }
    }
}

/* Exact sums of 32 products for 8 rows x 4 tokens. */
ALWAYS_INLINE void int8_block(const struct int8_format *f, const struct int8_panel *p,
                              const struct int8_acts *a, __m256i acc[INT8_TOKENS]) {
    const __m256i ones = _mm256_set1_epi16(1);
    /* Fault: signed weights as unsigned bytes, whose pairs of products overflow an int16. */
    const bool saturate = FAULT(saturation) && f->steps == 1;
    const int offset = saturate ? 128 : FAULT(act_sum) ? 0 : f->bias;
    UNROLL
    for (int i = 0; i < 8; i += f->steps) {
        __m256i sum16[INT8_TOKENS];
        UNROLL
        for (int j = 0; j < f->steps; j++) {
            __m256i w = _mm256_load_si256((const __m256i *)p->q[i + j]);
            __m256i mag = f->steps == 1 ? _mm256_abs_epi8(w) : w;
            if (saturate) mag = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            UNROLL
            for (int t = 0; t < INT8_TOKENS; t++) {
                __m256i x = _mm256_set1_epi32((int)load_u32(a->q[t] + 4 * (i + j)));
                if (f->steps == 1 && !saturate) x = _mm256_sign_epi8(x, w);
                __m256i pair = _mm256_maddubs_epi16(mag, x);
                sum16[t] = j ? _mm256_add_epi16(sum16[t], pair) : pair;
                STEP_BY_STEP(sum16[t]);
            }
        }
        UNROLL
        for (int t = 0; t < INT8_TOKENS; t++) {
            __m256i sum = _mm256_madd_epi16(sum16[t], ones);
            acc[t] = i ? _mm256_add_epi32(acc[t], sum) : sum;
            STEP_BY_STEP(acc[t]);
        }
    }
    if (offset) {
        __m256i bias = _mm256_set1_epi32(offset);
        UNROLL
        for (int t = 0; t < INT8_TOKENS; t++)
            acc[t] =
                _mm256_sub_epi32(acc[t], _mm256_mullo_epi32(_mm256_set1_epi32(a->sum[t]), bias));
    }
}

ALWAYS_INLINE void int8_store(__m256 sum, float *dst, int64_t n_rows, bool add) {
    if (LIKELY(n_rows == 8)) {
        if (add) sum = _mm256_add_ps(_mm256_loadu_ps(dst), sum);
        _mm256_storeu_ps(dst, sum);
        return;
    }
    float v[8];
    _mm256_storeu_ps(v, sum);
    for (int64_t r = 0; r < n_rows; r++)
        dst[r] = add ? dst[r] + v[r] : v[r];
}

ALWAYS_INLINE void int8_tile(const struct int8_format *f, const void *panel, const void *acts,
                             int64_t nk, struct gemm_out out) {
    const struct int8_panel *p = panel;
    const struct int8_acts *a = acts;
    __m256 sum[INT8_TOKENS];
    UNROLL
    for (int t = 0; t < INT8_TOKENS; t++)
        sum[t] = _mm256_setzero_ps();
    for (int64_t b = 0; b < nk / 32 - FAULT(k_tail); b++, p++, a++) {
        __m256i acc[INT8_TOKENS];
        int8_block(f, p, a, acc);
        __m256 d = _mm256_load_ps(p->d);
        UNROLL
        for (int t = 0; t < INT8_TOKENS; t++) {
            __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a->d[t]));
            __m256 isum = _mm256_cvtepi32_ps(acc[t]);
            if (FAULT(f16_overflow)) isum = _mm256_cvtph_ps(_mm256_cvtps_ph(isum, 0));
            sum[t] = _mm256_fmadd_ps(isum, scale, sum[t]);
            if (f->has_min && !FAULT(act_sum))
                sum[t] = _mm256_fmadd_ps(_mm256_load_ps(p->m), _mm256_set1_ps(a->s[t]), sum[t]);
        }
    }
    UNROLL
    for (int t = 0; t < INT8_TOKENS; t++)
        if (t < out.n_tok) int8_store(sum[t], out.dst + t * out.stride, out.n_rows, out.add);
}

/* One token's activations of a block of k, and what is taken off its exact sums. */
struct int8_stream {
    int8_t q[4 * INT8_K_BLOCK]; /* 32 a block, spread 128 */
    float d[INT8_K_BLOCK / 32];
    float s[INT8_K_BLOCK / 32];      /* d * sum of q */
    int32_t bias[INT8_K_BLOCK / 32]; /* bias * sum of q */
};

/* 8 rows that are read where they lie. */
struct int8_rows {
    const char *row[INT8_ROWS];
    int64_t b0;      /* first block */
    ptrdiff_t ahead; /* bytes from a row to the row after these 8 that takes its place */
};

static inline void int8_point_at_rows(const char *const *row, int64_t k0, int64_t nk, void *panel) {
    struct int8_rows *p = panel;
    (void)nk;
    memcpy(p->row, row, sizeof p->row);
    p->b0 = k0 / 32;
    p->ahead = 8 * (row[1] - row[0]);
}

/* Each activation four times in a row: those of a half of x in the same half of 4 registers. */
ALWAYS_INLINE void int8_spread(__m256i x, int8_t *q) {
    __m256i at = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 0, 0, 0, 0, 1, 1,
                                  1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    for (int i = 0; i < 4; i++, at = _mm256_add_epi8(at, _mm256_set1_epi8(4)))
        _mm256_store_si256((__m256i *)(q + 32 * i), _mm256_shuffle_epi8(x, at));
}

ALWAYS_INLINE void int8_fill_stream(const struct int8_format *f, const char *x, int64_t n,
                                    int64_t k0, int64_t nk, void *acts) {
    struct int8_stream *a = acts;
    for (int64_t b = 0; b < nk / 32; b++) {
        const struct q8_2_view v = q8_2_x4_block(x, k0 / 32 + b, n / 32);
        const __m256i q = int8_load_acts(f, v.qs);
        a->d[b] = bf16_to_f32(v.d);
        a->s[b] = a->d[b] * (float)v.s;
        a->bias[b] = f->bias * v.s;
        if (f->spread_bias) {
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
            a->bias[b] =
                f->spread_bias * hsum_i32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            int8_spread(q, a->q + 128 * b);
        } else {
            _mm256_store_si256((__m256i *)(a->q + 32 * b), q);
        }
    }
}

/* `dots` of most formats. */
ALWAYS_INLINE void int8_dots(const struct int8_format *f, const char *row, int64_t b, int count,
                             const int8_t *x, __m256i *acc) {
    UNROLL
    for (int j = 0; j < 4 && j < count; j++) {
        __m256i w = f->bytes(row, b + j), q = load256(x + 32 * j);
        if (f->steps == 1) {
            q = _mm256_sign_epi8(q, w);
            w = _mm256_abs_epi8(w);
        }
        acc[8 * j] = _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), _mm256_set1_epi16(1));
    }
}

/* Lane r = sum of the lanes of a[r]. */
ALWAYS_INLINE __m256i int8_sum_rows(const __m256i a[8]) {
    __m256i two[4], four[2];
    UNROLL
    for (int i = 0; i < 4; i++)
        two[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                                  _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 2; i++)
        four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm256_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    return _mm256_add_epi32(_mm256_blend_epi32(four[0], four[1], 0xf0),
                            _mm256_permute2x128_si256(four[0], four[1], 0x21));
}

/* Lane r of out[j] = lane j of in[r]. */
ALWAYS_INLINE void int8_scales_by_row(const __m128 in[8], __m256 out[4]) {
    __m256 a[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        a[i] = _mm256_set_m128(in[4 + i], in[i]);
    __m256 lo01 = _mm256_unpacklo_ps(a[0], a[1]), lo23 = _mm256_unpacklo_ps(a[2], a[3]);
    __m256 hi01 = _mm256_unpackhi_ps(a[0], a[1]), hi23 = _mm256_unpackhi_ps(a[2], a[3]);
    out[0] = _mm256_shuffle_ps(lo01, lo23, 0x44);
    out[1] = _mm256_shuffle_ps(lo01, lo23, 0xee);
    out[2] = _mm256_shuffle_ps(hi01, hi23, 0x44);
    out[3] = _mm256_shuffle_ps(hi01, hi23, 0xee);
}

/* Fetch what takes the place of these 4 blocks of row r in the next 8 rows: the processor does not
 * foresee 8 short streams by itself. Past the last row it is a hint that does no harm. */
ALWAYS_INLINE void int8_prefetch(const struct int8_format *f, const struct int8_rows *p, int r,
                                 int64_t b) {
    const int64_t offset = p->ahead + (p->b0 + b) / 4 * f->group_bytes;
    const uintptr_t at = (uintptr_t)p->row[r] + (uintptr_t)offset;
    for (uintptr_t i = 0; i < (uintptr_t)f->group_bytes; i += 64)
        _mm_prefetch((const void *)(at + i), _MM_HINT_T0);
}

/* Add blocks b .. b + count - 1 of 8 rows to their sums. */
ALWAYS_INLINE __m256 int8_stream_blocks(const struct int8_format *f, const struct int8_rows *p,
                                        const struct int8_stream *a, int64_t b, int count,
                                        __m256 sum) {
    __m256i acc[4][8];
    __m128 d[8], m[8];
    __m256 d8[4], m8[4];
    const int8_t *x = a->q + (f->spread_bias ? 128 : 32) * b;
    for (int r = 0; r < 8; r++) {
        m[r] = _mm_setzero_ps();
        int8_prefetch(f, p, r, b);
        d[r] = f->scales(p->row[r], p->b0 + b, count, &m[r]);
        f->dots(p->row[r], p->b0 + b, count, x, &acc[0][r]);
    }
    int8_scales_by_row(d, d8);
    if (f->has_min) int8_scales_by_row(m, m8);
    UNROLL
    for (int j = 0; j < 4 && j < count; j++) {
        __m256i isum = int8_sum_rows(acc[j]);
        if (f->bias || f->spread_bias)
            isum = _mm256_sub_epi32(isum, _mm256_set1_epi32(a->bias[b + j]));
        __m256 scale = _mm256_mul_ps(d8[j], _mm256_set1_ps(a->d[b + j]));
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum), scale, sum);
        if (f->has_min) sum = _mm256_fmadd_ps(m8[j], _mm256_set1_ps(a->s[b + j]), sum);
    }
    return sum;
}

ALWAYS_INLINE void int8_stream_tile(const struct int8_format *f, const void *panel,
                                    const void *acts, int64_t nk, struct gemm_out out) {
    const int64_t n_blocks = nk / 32 - 4 * FAULT(tg_tail);
    __m256 sum = _mm256_setzero_ps();
    int64_t b = 0;
    for (; b + 4 <= n_blocks; b += 4)
        sum = int8_stream_blocks(f, panel, acts, b, 4, sum);
    if (b < n_blocks) sum = int8_stream_blocks(f, panel, acts, b, (int)(n_blocks - b), sum);
    int8_store(sum, out.dst, out.n_rows, out.add);
}

static inline size_t int8_scratch(int64_t n) {
    (void)n;
    return INT8_PANELS * (INT8_K_BLOCK / 32) * sizeof(struct int8_panel) +
           INT8_K_BLOCK / 32 * sizeof(struct int8_acts);
}

/* The functions and the cell of type NAME from its decoder NAME_bytes, NAME_scales and NAME_dots;
 * the other arguments as in struct int8_format. */
#define INT8_CELL(NAME, STEPS, BIAS, HAS_MIN, SPREAD_BIAS, GROUP_BYTES)                            \
    static const struct int8_format NAME##_format = { .bytes = NAME##_bytes,                       \
                                                      .scales = NAME##_scales,                     \
                                                      .dots = NAME##_dots,                         \
                                                      .steps = STEPS,                              \
                                                      .bias = BIAS,                                \
                                                      .has_min = HAS_MIN,                          \
                                                      .spread_bias = SPREAD_BIAS,                  \
                                                      .group_bytes = GROUP_BYTES };                \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        int8_fill_panel(&NAME##_format, row, k0, nk, panel);                                       \
    }                                                                                              \
    static void NAME##_acts(const char *x, size_t x_stride, int64_t n_tok, int64_t n, int64_t k0,  \
                            int64_t nk, void *acts) {                                              \
        int8_fill_acts(&NAME##_format, x, x_stride, n_tok, n, k0, nk, acts);                       \
    }                                                                                              \
    static void NAME##_tile(const void *panel, const void *acts, int64_t nk,                       \
                            struct gemm_out out) {                                                 \
        int8_tile(&NAME##_format, panel, acts, nk, out);                                           \
    }                                                                                              \
    static void NAME##_stream(const char *x, size_t x_stride, int64_t n_tok, int64_t n,            \
                              int64_t k0, int64_t nk, void *acts) {                                \
        (void)x_stride, (void)n_tok;                                                               \
        int8_fill_stream(&NAME##_format, x, n, k0, nk, acts);                                      \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        int8_stream_tile(&NAME##_format, panel, acts, nk, out);                                    \
    }                                                                                              \
    static NOINLINE void NAME##_many(int64_t n, const void *w, size_t w_stride, int64_t n_rows,    \
                                     const void *x, size_t x_stride, int64_t n_tok, float *dst,    \
                                     int64_t dst_stride, void *scratch) {                          \
        static const struct gemm g = { .rows = INT8_ROWS,                                          \
                                       .tokens = INT8_TOKENS,                                      \
                                       .k_block = INT8_K_BLOCK,                                    \
                                       .n_panels = INT8_PANELS,                                    \
                                       .panel_bytes =                                              \
                                           INT8_K_BLOCK / 32 * sizeof(struct int8_panel),          \
                                       .panel = NAME##_panel,                                      \
                                       .acts = NAME##_acts,                                        \
                                       .tile = NAME##_tile };                                      \
        gemm_run(&g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);        \
    }                                                                                              \
    static NOINLINE void NAME##_few(int64_t n, const void *w, size_t w_stride, int64_t n_rows,     \
                                    const void *x, size_t x_stride, int64_t n_tok, float *dst,     \
                                    int64_t dst_stride, void *scratch) {                           \
        static const struct gemm g = { .rows = INT8_ROWS,                                          \
                                       .tokens = 1,                                                \
                                       .k_block = INT8_K_BLOCK,                                    \
                                       .n_panels = INT8_PANELS,                                    \
                                       .panel_bytes = sizeof(struct int8_rows),                    \
                                       .panel = int8_point_at_rows,                                \
                                       .acts = NAME##_stream,                                      \
                                       .tile = NAME##_stream_tile };                               \
        gemm_run(&g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);        \
    }                                                                                              \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        (n_tok <= INT8_FEW_TOKENS ? NAME##_few : NAME##_many)(                                     \
            n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);                 \
    }                                                                                              \
    const struct qkernel NAME##_avx2 = { .act = QT_q8_2_x4,                                        \
                                         .tol_nmse = INT8_TOL_NMSE,                                \
                                         .mul_mat = NAME##_mul_mat,                                \
                                         .mul_mat_scratch = int8_scratch }

/* NAME_dots of a format whose bytes are its weights. */
#define INT8_DOTS(NAME, STEPS)                                                                     \
    ALWAYS_INLINE void NAME##_dots(const char *row, int64_t b, int count, const int8_t *x,         \
                                   __m256i *acc) {                                                 \
        static const struct int8_format f = { .bytes = NAME##_bytes, .steps = STEPS };             \
        int8_dots(&f, row, b, count, x, acc);                                                      \
    }

#endif
