/* SPDX-License-Identifier: MIT
 * floats_avx512.c - products of F32, F16 and BF16 weights with f32 activations on AVX-512.
 *
 * A tile is 4 rows by up to 6 tokens, in a sum of 16 lanes for each pair: 24 accumulators, and 10
 * loads for 24 multiply-adds. The lanes are added up after every K_BLOCK weights, so that a sum in
 * f32 has no more than 32 terms before it meets others, which keeps the error of long rows small.
 *
 * Many tokens read rows that were turned into f32 once and lie together; few tokens read the rows
 * where they lie. The sums are the same, so every element of dst has the same bits either way, and
 * whatever the number of tokens.
 *
 * BF16 weights become f32 by a shift; vdpbf16ps is not used, because it would round the activations
 * and flush small sums to zero. */
#include "qtype.h"
#include "simd_avx512.h"
#include "tmpl/gemm_tmpl.h"

#define ROWS 4
#define TOKENS 6
#define K_BLOCK 512
#define PANELS 16
#define PANEL_STRIDE (K_BLOCK + 16) /* floats; a power of two would crowd the cache's banks */
#define FEW_TOKENS 6

/* A tile of activations is read where it lies. */
struct float_acts {
    const float *x[TOKENS]; /* element k0; missing tokens repeat the last one */
};

/* Rows that are read where they lie. */
struct float_rows {
    const char *row[ROWS];
    int64_t k0;
};

/* Weights i .. i + 15 of a row, zeros in lanes that are not in `lanes`. */
typedef __m512 (*load_fn)(const char *row, int64_t i, __mmask16 lanes);

ALWAYS_INLINE __m512 f32_load(const char *row, int64_t i, __mmask16 lanes) {
    return _mm512_maskz_loadu_ps(lanes, (const float *)row + i);
}
ALWAYS_INLINE __m512 f16_load(const char *row, int64_t i, __mmask16 lanes) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, (const f16_t *)row + i));
}
ALWAYS_INLINE __m512 bf16_load(const char *row, int64_t i, __mmask16 lanes) {
    return bf16_as_f32(_mm256_maskz_loadu_epi16(lanes, (const bf16_t *)row + i));
}

ALWAYS_INLINE void float_fill_panel(load_fn load, const char *const *row, int64_t k0, int64_t nk,
                                    void *panel) {
    float *p = panel; // [ROWS][PANEL_STRIDE]
    for (int r = 0; r < ROWS; r++, p += PANEL_STRIDE)
        for (int64_t k = 0; k < nk; k += 16)
            _mm512_store_ps(p + k, load(row[r], k0 + k, first_lanes(gemm_min(nk - k, 16))));
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
        a->x[t] = (const float *)(x + (size_t)gemm_min(t, n_tok - 1) * x_stride) + k0;
}

/* The sums of the lanes of 4 vectors: lanes of 128 bits first, then 4 lanes in pairs. */
ALWAYS_INLINE __m128 float_hsum4(const __m512 v[4]) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 q = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(q), _mm512_extractf32x8_ps(q, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

ALWAYS_INLINE void float_store(__m128 sum, float *dst, int64_t n_rows, bool add) {
    const __mmask8 lanes = (__mmask8)first_lanes(n_rows);
    if (add) sum = _mm_add_ps(_mm_maskz_loadu_ps(lanes, dst), sum);
    _mm_mask_storeu_ps(dst, lanes, sum);
}

/* 16 weights of 4 rows by nt tokens. */
ALWAYS_INLINE void float_step(load_fn load, int nt, const char *const row[ROWS], int64_t k0,
                              const float *const *x, int64_t k, __mmask16 lanes,
                              __m512 sum[TOKENS][ROWS]) {
    __m512 w[ROWS];
    UNROLL
    for (int r = 0; r < ROWS; r++)
        w[r] = load(row[r], k0 + k, lanes);
    UNROLL
    for (int t = 0; t < nt; t++) {
        const __m512 v = _mm512_maskz_loadu_ps(lanes, x[t] + k);
        UNROLL
        for (int r = 0; r < ROWS; r++)
            sum[t][r] = _mm512_fmadd_ps(w[r], v, sum[t][r]);
    }
}

/* Weights from k0 on of 4 rows against nt tokens (a constant). */
ALWAYS_INLINE void float_pass(load_fn load, int nt, const char *const row[ROWS], int64_t k0,
                              const struct float_acts *a, int64_t nk, struct gemm_out out) {
    __m512 sum[TOKENS][ROWS];
    UNROLL
    for (int t = 0; t < nt; t++) {
        UNROLL
        for (int r = 0; r < ROWS; r++)
            sum[t][r] = _mm512_setzero_ps();
    }
    int64_t k = 0;
    for (; k + 16 <= nk; k += 16)
        float_step(load, nt, row, k0, a->x, k, 0xffff, sum);
    if (UNLIKELY(k < nk)) float_step(load, nt, row, k0, a->x, k, first_lanes(nk - k), sum);
    UNROLL
    for (int t = 0; t < nt; t++)
        float_store(float_hsum4(sum[t]), out.dst + t * out.stride, out.n_rows, out.add);
}

ALWAYS_INLINE void float_passes(load_fn load, const char *const row[ROWS], int64_t k0,
                                const struct float_acts *a, int64_t nk, struct gemm_out out) {
    switch (out.n_tok) {
    case 1: float_pass(load, 1, row, k0, a, nk, out); break;
    case 2: float_pass(load, 2, row, k0, a, nk, out); break;
    case 3: float_pass(load, 3, row, k0, a, nk, out); break;
    case 4: float_pass(load, 4, row, k0, a, nk, out); break;
    case 5: float_pass(load, 5, row, k0, a, nk, out); break;
    case 6: float_pass(load, 6, row, k0, a, nk, out); break;
    }
}

static void float_tile(const void *panel, const void *acts, int64_t nk, struct gemm_out out) {
    const char *p = panel, *row[ROWS];
    for (int r = 0; r < ROWS; r++)
        row[r] = p + (size_t)r * PANEL_STRIDE * sizeof(float);
    float_passes(f32_load, row, 0, acts, nk, out);
}

static size_t float_scratch(int64_t n) {
    (void)n;
    return PANELS * PANEL_STRIDE * ROWS * sizeof(float) + sizeof(struct float_acts);
}

/* The functions and the cell of type NAME. */
#define FLOAT_CELL(NAME)                                                                           \
    static void NAME##_panel(const char *const *row, int64_t k0, int64_t nk, void *panel) {        \
        float_fill_panel(NAME##_load, row, k0, nk, panel);                                         \
    }                                                                                              \
    static void NAME##_stream_tile(const void *panel, const void *acts, int64_t nk,                \
                                   struct gemm_out out) {                                          \
        const struct float_rows *p = panel;                                                        \
        float_passes(NAME##_load, p->row, p->k0, acts, nk, out);                                   \
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
    const struct qkernel NAME##_avx512 = { .act = QT_f32,                                          \
                                           .tol_nmse = 5e-12,                                      \
                                           .mul_mat = NAME##_mul_mat,                              \
                                           .mul_mat_scratch = float_scratch }

FLOAT_CELL(f32);
FLOAT_CELL(f16);
FLOAT_CELL(bf16);
