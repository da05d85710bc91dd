/* SPDX-License-Identifier: MIT
 * floats_avx2.c - products of F32, F16 and BF16 weights with f32 activations on AVX2.
 *
 * A tile is 4 rows by up to 3 tokens, in a sum of 8 lanes for each pair: 12 accumulators, and 7
 * loads for 12 multiply-adds. The lanes are added up after every K_BLOCK weights, so that a sum in
 * f32 has no more than 64 terms before it meets others, which keeps the error of long rows small.
 *
 * Many tokens read rows that were turned into f32 once and lie together; few tokens read the rows
 * where they lie. The sums are the same, so every element of dst has the same bits either way, and
 * whatever the number of tokens. */
#include "qtype.h"
#include "simd_avx2.h"
#include "tmpl/gemm_tmpl.h"

#define ROWS 4
#define TILE_TOKENS 3
#define TOKENS 6 /* two passes over the rows in the first level cache */
#define K_BLOCK 512
#define PANELS 16
#define PANEL_STRIDE (K_BLOCK + 8) /* floats; a power of two would crowd the cache's banks */
#define FEW_TOKENS 6

struct float_format {
    __m256 (*load8)(const char *row, int64_t i); /* weights i .. i + 7 */
    float (*load1)(const char *row, int64_t i);
};

/* A tile of activations is read where it lies. */
struct float_acts {
    const char *x[TOKENS]; /* element k0; missing tokens repeat the last one */
};

/* Rows that are read where they lie. */
struct float_rows {
    const char *row[ROWS];
    int64_t k0;
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

static const struct float_format f32_format = { f32_load8, f32_load1 };
static const struct float_format f16_format = { f16_load8, f16_load1 };
static const struct float_format bf16_format = { bf16_load8, bf16_load1 };

/* n < 8 weights from i on, zeros after them. */
ALWAYS_INLINE __m256 float_load_tail(const struct float_format *f, const char *row, int64_t i,
                                     int64_t n) {
    float v[8] = { 0 };
    for (int64_t j = 0; j < n; j++)
        v[j] = f->load1(row, i + j);
    return _mm256_loadu_ps(v);
}

ALWAYS_INLINE void float_fill_panel(const struct float_format *f, const char *const *row,
                                    int64_t k0, int64_t nk, void *panel) {
    float *p = panel; // [ROWS][PANEL_STRIDE]
    for (int r = 0; r < ROWS; r++, p += PANEL_STRIDE) {
        int64_t k = 0;
        for (; k + 8 <= nk; k += 8)
            _mm256_store_ps(p + k, f->load8(row[r], k0 + k));
        for (; k < nk; k++)
            p[k] = f->load1(row[r], k0 + k);
    }
}

static inline void float_point_at_rows(const char *const *row, int64_t k0, int64_t nk,
                                       void *panel) {
    struct float_rows *p = panel;
    (void)nk;
    memcpy(p->row, row, sizeof p->row);
    p->k0 = k0;
}

static inline void float_fill_acts(const char *x, size_t x_stride, int64_t n_tok, int64_t n,
                                   int64_t k0, int64_t nk, void *acts) {
    struct float_acts *a = acts;
    (void)n, (void)nk;
    for (int t = 0; t < TOKENS; t++)
        a->x[t] = x + (size_t)gemm_min(t, n_tok - 1) * x_stride + (size_t)k0 * sizeof(float);
}

/* The sums of the lanes of a, b, c, d, each in the order of hsum_f32. */
ALWAYS_INLINE __m128 float_hsum4(const __m256 v[4]) {
    __m128 h[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        h[i] = _mm_add_ps(_mm256_castps256_ps128(v[i]), _mm256_extractf128_ps(v[i], 1));
    __m128 ab = _mm_add_ps(_mm_unpacklo_ps(h[0], h[1]), _mm_unpackhi_ps(h[0], h[1]));
    __m128 cd = _mm_add_ps(_mm_unpacklo_ps(h[2], h[3]), _mm_unpackhi_ps(h[2], h[3]));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

ALWAYS_INLINE void float_store(__m128 sum, float *dst, int64_t n_rows, bool add) {
    if (LIKELY(n_rows == ROWS)) {
        if (add) sum = _mm_add_ps(_mm_loadu_ps(dst), sum);
        _mm_storeu_ps(dst, sum);
        return;
    }
    float v[ROWS];
    _mm_storeu_ps(v, sum);
    for (int64_t r = 0; r < n_rows; r++)
        dst[r] = add ? dst[r] + v[r] : v[r];
}

/* Weights from k0 on of 4 rows against nt tokens (a constant). */
ALWAYS_INLINE void float_pass(const struct float_format *f, int nt, const char *const row[ROWS],
                              int64_t k0, const char *const *x, int64_t nk, struct gemm_out out) {
    __m256 sum[TILE_TOKENS][ROWS];
    UNROLL
    for (int t = 0; t < nt; t++) {
        UNROLL
        for (int r = 0; r < ROWS; r++)
            sum[t][r] = _mm256_setzero_ps();
    }
    int64_t k = 0;
    for (; k + 8 <= nk; k += 8) {
        __m256 v[TILE_TOKENS];
        UNROLL
        for (int t = 0; t < nt; t++)
            v[t] = f32_load8(x[t], k);
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            __m256 w = f->load8(row[r], k0 + k);
            UNROLL
            for (int t = 0; t < nt; t++)
                sum[t][r] = _mm256_fmadd_ps(w, v[t], sum[t][r]);
        }
    }
    if (UNLIKELY(k < nk)) {
        UNROLL
        for (int r = 0; r < ROWS; r++) {
            __m256 w = float_load_tail(f, row[r], k0 + k, nk - k);
            UNROLL
            for (int t = 0; t < nt; t++)
                sum[t][r] =
                    _mm256_fmadd_ps(w, float_load_tail(&f32_format, x[t], k, nk - k), sum[t][r]);
        }
    }
    UNROLL
    for (int t = 0; t < nt; t++)
        float_store(float_hsum4(sum[t]), out.dst + t * out.stride, out.n_rows, out.add);
}

ALWAYS_INLINE void float_passes(const struct float_format *f, const char *const row[ROWS],
                                int64_t k0, const struct float_acts *a, int64_t nk,
                                struct gemm_out out) {
    const char *const *x = a->x;
    for (; out.n_tok >= TILE_TOKENS; out.n_tok -= TILE_TOKENS, x += TILE_TOKENS) {
        float_pass(f, TILE_TOKENS, row, k0, x, nk, out);
        out.dst += TILE_TOKENS * out.stride;
    }
    if (out.n_tok == 2) float_pass(f, 2, row, k0, x, nk, out);
    if (out.n_tok == 1) float_pass(f, 1, row, k0, x, nk, out);
}

static void float_tile(const void *panel, const void *acts, int64_t nk, struct gemm_out out) {
    const char *p = panel, *row[ROWS];
    for (int r = 0; r < ROWS; r++)
        row[r] = p + (size_t)r * PANEL_STRIDE * sizeof(float);
    float_passes(&f32_format, row, 0, acts, nk, out);
}

static size_t float_scratch(int64_t n) {
    (void)n;
    return PANELS * PANEL_STRIDE * ROWS * sizeof(float) + sizeof(struct float_acts);
}

/* The functions and the cell of type NAME. */
#define FLOAT_CELL(NAME)                                                                           \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        float_fill_panel(&NAME##_format, row, k0, nk, panel);                                      \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        const struct float_rows *p = panel;                                                        \
        float_passes(&NAME##_format, p->row, p->k0, acts, nk, out);                                \
    }                                                                                              \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        static const struct gemm panels = { .rows = ROWS,                                          \
                                            .tokens = TOKENS,                                      \
                                            .k_block = K_BLOCK,                                    \
                                            .n_panels = PANELS,                                    \
                                            .panel_bytes = PANEL_STRIDE * ROWS * sizeof(float),    \
                                            .panel = NAME##_panel,                                 \
                                            .acts = float_fill_acts,                               \
                                            .tile = float_tile };                                  \
        static const struct gemm stream = { .rows = ROWS,                                          \
                                            .tokens = TOKENS,                                      \
                                            .k_block = K_BLOCK,                                    \
                                            .n_panels = 1,                                         \
                                            .panel_bytes = sizeof(struct float_rows),              \
                                            .panel = float_point_at_rows,                          \
                                            .acts = float_fill_acts,                               \
                                            .tile = NAME##_stream_tile };                          \
        if (n_tok <= FEW_TOKENS)                                                                   \
            gemm_run(&stream, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride,         \
                     scratch);                                                                     \
        else                                                                                       \
            gemm_run(&panels, n, w, w_stride, n_rows, x, x_stride, n_tok, dst, dst_stride,         \
                     scratch);                                                                     \
    }                                                                                              \
    const struct qkernel NAME##_avx2 = { .act = QT_f32,                                            \
                                         .tol_nmse = 5e-12,                                        \
                                         .mul_mat = NAME##_mul_mat,                                \
                                         .mul_mat_scratch = float_scratch }

FLOAT_CELL(f32);
FLOAT_CELL(f16);
FLOAT_CELL(bf16);
