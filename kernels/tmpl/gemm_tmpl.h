/* SPDX-License-Identifier: MIT
 * gemm_tmpl.h - the loop nest of a matrix product with many tokens, for any column and weight type.
 *
 *   for blocks of rows            n_panels panels of `rows` rows
 *     for blocks of k             so that the panels stay in the second level cache
 *       decode the panels         once per block, whatever the number of tokens
 *       for tiles of tokens       `tokens` at a time, packed into the first level cache
 *         for panels              the tile kernel: rows x tokens sums in registers
 *
 * Each dst element is the sum over blocks of k, in order, of what the tile kernel adds up for its
 * row and token alone: it depends neither on n_rows nor on how rows are split among calls.
 *
 * The nest is inlined into its caller, where `g` is a constant, so the calls through it are direct.
 */
#ifndef GGAUGE_GEMM_TMPL_H
#define GGAUGE_GEMM_TMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define GEMM_MAX_ROWS 32 /* of one panel */

/* What a tile writes: [n_tok, n_rows] of dst, n_tok and n_rows up to the size of a tile. */
struct gemm_out {
    float *dst;
    int64_t stride; /* floats from one token to the next */
    int64_t n_tok, n_rows;
    bool add; /* add to what is there; otherwise overwrite */
};

struct gemm {
    int64_t rows, tokens; /* of a tile */
    int64_t k_block;      /* weights of a row that are decoded at a time */
    int64_t n_panels;     /* panels decoded at a time */
    size_t panel_bytes;   /* one panel of k_block weights a row */
    size_t acts_bytes;    /* one packed tile of k_block activations a token */

    /* Decode weights [k0, k0 + nk) of `rows` rows. */
    void (*panel)(const char *const *row, int64_t k0, int64_t nk, void *panel);
    /* Pack activations [k0, k0 + nk) of n_tok <= tokens rows of n; missing tokens count as zero. */
    void (*acts)(const char *x, size_t x_stride, int64_t n_tok, int64_t n, int64_t k0, int64_t nk,
                 void *acts);
    void (*tile)(const void *panel, const void *acts, int64_t nk, struct gemm_out out);
};

ALWAYS_INLINE size_t gemm_scratch(const struct gemm *g) {
    return (size_t)g->n_panels * g->panel_bytes + g->acts_bytes;
}

ALWAYS_INLINE int64_t gemm_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Panels of n_rows rows; the last one repeats its last row to be full. */
ALWAYS_INLINE void gemm_panels(const struct gemm *g, const char *w, size_t w_stride, int64_t n_rows,
                               int64_t k0, int64_t nk, char *panels) {
    const char *row[GEMM_MAX_ROWS];
    for (int64_t r0 = 0; r0 < n_rows; r0 += g->rows, panels += g->panel_bytes) {
        for (int64_t i = 0; i < g->rows; i++)
            row[i] = w + (size_t)gemm_min(r0 + i, n_rows - 1) * w_stride;
        g->panel(row, k0, nk, panels);
    }
}

ALWAYS_INLINE void gemm_run(const struct gemm *g, int64_t n, const void *w, size_t w_stride,
                            int64_t n_rows, const void *x, size_t x_stride, int64_t n_tok,
                            float *dst, int64_t dst_stride, void *scratch) {
    char *panels = scratch, *acts = panels + (size_t)g->n_panels * g->panel_bytes;
    for (int64_t r0 = 0; r0 < n_rows; r0 += g->rows * g->n_panels) {
        int64_t nr = gemm_min(n_rows - r0, g->rows * g->n_panels);
        for (int64_t k0 = 0; k0 < n; k0 += g->k_block) {
            int64_t nk = gemm_min(n - k0, g->k_block);
            gemm_panels(g, (const char *)w + (size_t)r0 * w_stride, w_stride, nr, k0, nk, panels);
            for (int64_t t0 = 0; t0 < n_tok; t0 += g->tokens) {
                struct gemm_out out = { dst + t0 * dst_stride + r0, dst_stride,
                                        gemm_min(n_tok - t0, g->tokens), 0, k0 > 0 };
                g->acts((const char *)x + (size_t)t0 * x_stride, x_stride, out.n_tok, n, k0, nk,
                        acts);
                const char *panel = panels;
                for (int64_t r = 0; r < nr; r += g->rows, panel += g->panel_bytes) {
                    out.n_rows = gemm_min(nr - r, g->rows);
                    g->tile(panel, acts, nk, out);
                    out.dst += g->rows;
                }
            }
        }
    }
}

#endif
