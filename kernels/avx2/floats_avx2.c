/* SPDX-License-Identifier: MIT
 * floats_avx2.c - products of F32, F16 and BF16 weights with f32 activations on AVX2.
 *
 * Many tokens: panels of 16 rows as f32, [k][16], against tiles of 6 tokens: 12 accumulators, 2
 * loads of weights and 6 broadcasts for 12 multiply-adds. A panel holds 256 weights a row, so that
 * it stays in the first level cache and a sum in f32 has no more than 256 terms before it is added
 * to the others, which keeps the error of long rows small.
 *
 * Few tokens: each row is streamed once, in two sums of 8 lanes a token. */
#include "qtype.h"
#include "simd_avx2.h"
#include "tmpl/gemm_tmpl.h"

#define ROWS 16
#define TOKENS 6
#define K_BLOCK 256
#define PANELS 4
#define FEW_TOKENS 4

struct float_format {
    __m256 (*load8)(const char *row, int64_t i); /* weights i .. i + 7 */
    float (*load1)(const char *row, int64_t i);
};

/* A tile of activations is read where it lies. */
struct float_acts {
    const char *x[TOKENS]; /* element k0; missing tokens repeat the last one */
};

ALWAYS_INLINE __m256 f32_load8(const char *row, int64_t i) {
    return _mm256_loadu_ps((const float *)row + i);
}
ALWAYS_INLINE float f32_load1(const char *row, int64_t i) {
    return load_f32((const float *)row + i);
}
ALWAYS_INLINE __m256 f16_load8(const char *row, int64_t i) {
    return load8_f16((const f16_t *)row + i);
}
ALWAYS_INLINE float f16_load1(const char *row, int64_t i) {
    return load_f16((const f16_t *)row + i);
}
ALWAYS_INLINE __m256 bf16_load8(const char *row, int64_t i) {
    return load8_bf16((const bf16_t *)row + i);
}
ALWAYS_INLINE float bf16_load1(const char *row, int64_t i) {
    return bf16_to_f32(load_u16((const bf16_t *)row + i));
}

ALWAYS_INLINE void float_fill_panel(const struct float_format *f, const char *const *row,
                                    int64_t k0, int64_t nk, void *panel) {
    float *p = panel; // [nk][ROWS]
    int64_t k = 0;
    for (; k + 8 <= nk; k += 8, p += 8 * ROWS) {
        for (int half = 0; half < ROWS; half += 8) {
            __m256i w[8];
            UNROLL
            for (int r = 0; r < 8; r++)
                w[r] = _mm256_castps_si256(f->load8(row[half + r], k0 + k));
            transpose8x8(w);
            UNROLL
            for (int i = 0; i < 8; i++)
                _mm256_store_ps(p + i * ROWS + half, _mm256_castsi256_ps(w[i]));
        }
    }
    for (; k < nk; k++, p += ROWS)
        for (int r = 0; r < ROWS; r++)
            p[r] = f->load1(row[r], k0 + k);
}

static inline void float_fill_acts(const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                                   int64_t k0, int64_t nk, void *acts) {
    struct float_acts *a = acts;
    (void)n, (void)nk;
    for (int t = 0; t < TOKENS; t++)
        a->x[t] = x + (size_t)gemm_min(t, n_tok - 1) * x_stride + (size_t)k0 * sizeof(float);
}

ALWAYS_INLINE void float_store(const __m256 sum[2], float *dst, int64_t n_rows, bool add) {
    if (LIKELY(n_rows == ROWS)) {
        for (int h = 0; h < 2; h++) {
            __m256 v = add ? _mm256_add_ps(_mm256_loadu_ps(dst + 8 * h), sum[h]) : sum[h];
            _mm256_storeu_ps(dst + 8 * h, v);
        }
        return;
    }
    float v[ROWS];
    _mm256_storeu_ps(v, sum[0]);
    _mm256_storeu_ps(v + 8, sum[1]);
    for (int64_t r = 0; r < n_rows; r++)
        dst[r] = add ? dst[r] + v[r] : v[r];
}

static void float_tile(const void *panel, const void *acts, int64_t nk, struct gemm_out out) {
    const float *w = panel;
    const struct float_acts *a = acts;
    const float *x0 = (const float *)a->x[0], *x1 = (const float *)a->x[1],
                *x2 = (const float *)a->x[2], *x3 = (const float *)a->x[3],
                *x4 = (const float *)a->x[4], *x5 = (const float *)a->x[5];
    __m256 sum[TOKENS][2];
    UNROLL
    for (int t = 0; t < TOKENS; t++)
        sum[t][0] = sum[t][1] = _mm256_setzero_ps();
    for (int64_t k = 0; k < nk; k++, w += ROWS) {
        const float x[TOKENS] = { x0[k], x1[k], x2[k], x3[k], x4[k], x5[k] };
        __m256 lo = _mm256_load_ps(w), hi = _mm256_load_ps(w + 8);
        UNROLL
        for (int t = 0; t < TOKENS; t++) {
            __m256 v = _mm256_set1_ps(x[t]);
            sum[t][0] = _mm256_fmadd_ps(lo, v, sum[t][0]);
            sum[t][1] = _mm256_fmadd_ps(hi, v, sum[t][1]);
        }
    }
    UNROLL
    for (int t = 0; t < TOKENS; t++)
        if (t < out.n_tok) float_store(sum[t], out.dst + t * out.stride, out.n_rows, out.add);
}

/* One row against nt tokens (a constant, up to FEW_TOKENS). */
ALWAYS_INLINE void float_row(const struct float_format *f, int nt, int64_t n, const char *row,
                             const char *x, size_t x_stride, float *dst, int64_t dst_stride) {
    __m256 sum[FEW_TOKENS][2];
    UNROLL
    for (int t = 0; t < nt; t++)
        sum[t][0] = sum[t][1] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) {
        __m256 lo = f->load8(row, k), hi = f->load8(row, k + 8);
        UNROLL
        for (int t = 0; t < nt; t++) {
            const float *xt = (const float *)(x + (size_t)t * x_stride) + k;
            sum[t][0] = _mm256_fmadd_ps(lo, _mm256_loadu_ps(xt), sum[t][0]);
            sum[t][1] = _mm256_fmadd_ps(hi, _mm256_loadu_ps(xt + 8), sum[t][1]);
        }
    }
    UNROLL
    for (int t = 0; t < nt; t++) {
        const float *xt = (const float *)(x + (size_t)t * x_stride);
        float tail = 0.0f;
        for (int64_t i = k; i < n; i++)
            tail += f->load1(row, i) * xt[i];
        dst[t * dst_stride] = hsum_f32(_mm256_add_ps(sum[t][0], sum[t][1])) + tail;
    }
}

ALWAYS_INLINE void float_mul_mat(const struct float_format *f, const struct gemm *g, int64_t n,
                                 const void *w, size_t w_stride, int64_t n_rows, const void *x,
                                 size_t x_stride, int64_t n_tok, float *dst, int64_t dst_stride,
                                 void *scratch) {
    if (n_tok > FEW_TOKENS) {
        gemm_run(g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride, scratch);
        return;
    }
    for (int64_t r = 0; r < n_rows; r++, dst++) {
        const char *row = (const char *)w + (size_t)r * w_stride;
        switch (n_tok) {
        case 1: float_row(f, 1, n, row, x, x_stride, dst, dst_stride); break;
        case 2: float_row(f, 2, n, row, x, x_stride, dst, dst_stride); break;
        case 3: float_row(f, 3, n, row, x, x_stride, dst, dst_stride); break;
        default: float_row(f, 4, n, row, x, x_stride, dst, dst_stride); break;
        }
    }
}

static size_t float_scratch(int64_t n) {
    (void)n;
    return PANELS * K_BLOCK * ROWS * sizeof(float) + sizeof(struct float_acts);
}

/* The functions and the cell of type NAME from NAME_load8 and NAME_load1. */
#define FLOAT_CELL(NAME)                                                                           \
    static const struct float_format NAME##_format = { NAME##_load8, NAME##_load1 };               \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        float_fill_panel(&NAME##_format, row, k0, nk, panel);                                      \
    }                                                                                              \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        static const struct gemm g = { .rows = ROWS,                                               \
                                       .tokens = TOKENS,                                           \
                                       .k_block = K_BLOCK,                                         \
                                       .n_panels = PANELS,                                         \
                                       .panel_bytes = K_BLOCK * ROWS * sizeof(float),              \
                                       .acts_bytes = sizeof(struct float_acts),                    \
                                       .panel = NAME##_panel,                                      \
                                       .acts = float_fill_acts,                                    \
                                       .tile = float_tile };                                       \
        float_mul_mat(&NAME##_format, &g, n, w, w_stride, n_rows, x, x_stride, n_tok, dst,         \
                      dst_stride, scratch);                                                        \
    }                                                                                              \
    const struct qkernel NAME##_avx2 = { .act = QT_f32,                                            \
                                         .tol_nmse = 5e-12,                                        \
                                         .mul_mat = NAME##_mul_mat,                                \
                                         .mul_mat_scratch = float_scratch }

FLOAT_CELL(f32);
FLOAT_CELL(f16);
FLOAT_CELL(bf16);
