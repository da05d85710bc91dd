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
 * One token streams the weights. From two tokens on they go through panels, which is as fast at two
 * and twice as fast at four. The panel of 8 rows holds bytes by [k / 4][row][k % 4]: a lane of a
 * register is a row, and 4 activations broadcast to all lanes meet it.
 *
 * Activations are -127..127; -128, whose sign cannot be moved, appears only with scales below
 * 2^-128, the inverse of which overflows. */
#ifndef GGAUGE_INT8_AVX2_H
#define GGAUGE_INT8_AVX2_H

#include "qtype.h"
#include "simd_avx2.h"
#include "tmpl/gemm_tmpl.h"

#define INT8_ROWS 8
#define INT8_TOKENS 4     /* tokens of a tile: with 8 rows, 4 int32 and 4 f32 accumulators */
#define INT8_K_BLOCK 4096 /* weights: 8 panels then take 320 KiB of the second level cache */
#define INT8_PANELS 8
/* Largest seen on random data, n up to 8448: 6.9e-13, from adding n / 32 terms in f32. */
#define INT8_TOL_NMSE 3e-12

struct int8_format {
    /* Weights 32 b .. 32 b + 31 of a row as bytes. */
    __m256i (*bytes)(const char *row, int64_t b);
    /* Scales of blocks b .. b + count - 1, b a multiple of 4 and count up to 4, and with has_min
     * their minimums; anything finite in the places of missing blocks. */
    __m128 (*scales)(const char *row, int64_t b, int count, __m128 *mins);
    int steps; /* 1 = signed bytes; otherwise unsigned, 2, 4 or 8 maddubs results fit an int16 */
    int bias;
    bool has_min;
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

/* Pack up to 4 tokens; the places of missing ones hold zeros. */
static inline void int8_fill_acts(const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                                  int64_t k0, int64_t nk, void *acts) {
    struct int8_acts *a = acts;
    const int64_t first = k0 / 32, end = (k0 + nk) / 32;
    if (n_tok < INT8_TOKENS) memset(a, 0, (size_t)(end - first) * sizeof *a);
    for (int t = 0; t < n_tok; t++, x += x_stride) {
        a = acts;
        for (int64_t b = first; b < end; b++, a++) {
            const struct q8_2_view v = q8_2_x4_block(x, b, n / 32);
            const float d = bf16_to_f32(v.d);
            _mm256_storeu_si256((__m256i *)a->q[t], load256(v.qs));
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
    UNROLL
    for (int i = 0; i < 8; i += f->steps) {
        __m256i sum16[INT8_TOKENS];
        UNROLL
        for (int j = 0; j < f->steps; j++) {
            __m256i w = _mm256_load_si256((const __m256i *)p->q[i + j]);
            __m256i mag = f->steps == 1 ? _mm256_abs_epi8(w) : w;
            UNROLL
            for (int t = 0; t < INT8_TOKENS; t++) {
                __m256i x = _mm256_set1_epi32((int)load_u32(a->q[t] + 4 * (i + j)));
                if (f->steps == 1) x = _mm256_sign_epi8(x, w);
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
    if (f->bias) {
        __m256i bias = _mm256_set1_epi32(f->bias);
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
    for (int64_t b = 0; b < nk / 32; b++, p++, a++) {
        __m256i acc[INT8_TOKENS];
        int8_block(f, p, a, acc);
        __m256 d = _mm256_load_ps(p->d);
        UNROLL
        for (int t = 0; t < INT8_TOKENS; t++) {
            __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a->d[t]));
            sum[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t]), scale, sum[t]);
            if (f->has_min)
                sum[t] = _mm256_fmadd_ps(_mm256_load_ps(p->m), _mm256_set1_ps(a->s[t]), sum[t]);
        }
    }
    UNROLL
    for (int t = 0; t < INT8_TOKENS; t++)
        if (t < out.n_tok) int8_store(sum[t], out.dst + t * out.stride, out.n_rows, out.add);
}

/* The 32 products of block b of a row with the activations q, in 8 sums as f32. */
ALWAYS_INLINE __m256 int8_dot(const struct int8_format *f, const char *row, int64_t b,
                              const int8_t *q) {
    __m256i w = f->bytes(row, b), x = load256(q);
    if (f->bias) w = _mm256_sub_epi8(w, _mm256_set1_epi8((char)f->bias));
    if (f->steps == 1 || f->bias) {
        x = _mm256_sign_epi8(x, w);
        w = _mm256_abs_epi8(w);
    }
    __m256i acc = _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(acc);
}

/* One row against one token: groups of four blocks in two sums, so that an addition need not wait
 * for the one before it, then the tail. */
ALWAYS_INLINE float int8_row(const struct int8_format *f, int64_t n, const char *row,
                             const void *x) {
    const struct blk_q8_2_x4 *g = x;
    __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    __m128 mins = _mm_setzero_ps();
    const int64_t n_blocks = n / 32, n_grouped = n_blocks / 4 * 4;
    for (int64_t b = 0; b < n_grouped; b += 4, g++) {
        __m128 m4, d4 = f->scales(row, b, 4, &m4);
        __m128i dx = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)g->d));
        __m128 dx4 = _mm_castsi128_ps(_mm_slli_epi32(dx, 16));
        d4 = _mm_mul_ps(d4, dx4);
        if (f->has_min) {
            __m128i s = _mm_cvtepi16_epi32(_mm_loadl_epi64((const __m128i *)g->s));
            mins = _mm_fmadd_ps(m4, _mm_mul_ps(dx4, _mm_cvtepi32_ps(s)), mins);
        }
        __m256 d = _mm256_set_m128(d4, d4);
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m256 dj = _mm256_permutevar_ps(d, _mm256_set1_epi32(j));
            sum[j % 2] = _mm256_fmadd_ps(int8_dot(f, row, b + j, g->qs + 32 * j), dj, sum[j % 2]);
        }
    }
    float d[4], m[4], tail = 0.0f;
    if (n_grouped < n_blocks) {
        __m128 m4 = _mm_setzero_ps();
        _mm_storeu_ps(d, f->scales(row, n_grouped, (int)(n_blocks - n_grouped), &m4));
        _mm_storeu_ps(m, m4);
    }
    for (int64_t b = n_grouped; b < n_blocks; b++) {
        const struct q8_2_view v = q8_2_x4_block(x, b, n_blocks);
        const float dx = bf16_to_f32(v.d);
        __m256 dj = _mm256_set1_ps(d[b - n_grouped] * dx);
        sum[0] = _mm256_fmadd_ps(int8_dot(f, row, b, v.qs), dj, sum[0]);
        if (f->has_min) tail += m[b - n_grouped] * (dx * (float)v.s);
    }
    sum[0] = _mm256_add_ps(sum[0], sum[1]);
    return hsum_f32(_mm256_add_ps(sum[0], _mm256_zextps128_ps256(mins))) + tail;
}

ALWAYS_INLINE void int8_mul_mat(const struct int8_format *f, const struct gemm *g, int64_t n,
                                const void *w, size_t w_stride, int64_t n_rows, const void *x,
                                size_t x_stride, int64_t n_tok, float *dst, int64_t dst_stride,
                                void *scratch) {
    if (n_tok > 1) {
        gemm_run(g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);
        return;
    }
    for (int64_t r = 0; r < n_rows; r++)
        dst[r] = int8_row(f, n, (const char *)w + (size_t)r * w_stride, x);
}

static inline size_t int8_scratch(int64_t n) {
    (void)n;
    return INT8_PANELS * (INT8_K_BLOCK / 32) * sizeof(struct int8_panel) +
           INT8_K_BLOCK / 32 * sizeof(struct int8_acts);
}

/* The functions and the cell of type NAME from its decoder NAME_bytes and NAME_scales; STEPS, BIAS
 * and HAS_MIN as in struct int8_format. */
#define INT8_CELL(NAME, STEPS, BIAS, HAS_MIN)                                                      \
    static const struct int8_format NAME##_format = { .bytes = NAME##_bytes,                       \
                                                      .scales = NAME##_scales,                     \
                                                      .steps = STEPS,                              \
                                                      .bias = BIAS,                                \
                                                      .has_min = HAS_MIN };                        \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        int8_fill_panel(&NAME##_format, row, k0, nk, panel);                                       \
    }                                                                                              \
    static void NAME##_tile(const void *panel, const void *acts, int64_t nk,                       \
                            struct gemm_out out) {                                                 \
        int8_tile(&NAME##_format, panel, acts, nk, out);                                           \
    }                                                                                              \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        static const struct gemm g = { .rows = INT8_ROWS,                                          \
                                       .tokens = INT8_TOKENS,                                      \
                                       .k_block = INT8_K_BLOCK,                                    \
                                       .n_panels = INT8_PANELS,                                    \
                                       .panel_bytes =                                              \
                                           INT8_K_BLOCK / 32 * sizeof(struct int8_panel),          \
                                       .acts_bytes = INT8_K_BLOCK / 32 * sizeof(struct int8_acts), \
                                       .panel = NAME##_panel,                                      \
                                       .acts = int8_fill_acts,                                     \
                                       .tile = NAME##_tile };                                      \
        int8_mul_mat(&NAME##_format, &g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst,          \
                     dst_stride, scratch);                                                         \
    }                                                                                              \
    const struct qkernel NAME##_avx2 = { .act = QT_q8_2_x4,                                        \
                                         .tol_nmse = INT8_TOL_NMSE,                                \
                                         .mul_mat = NAME##_mul_mat,                                \
                                         .mul_mat_scratch = int8_scratch }

#endif
