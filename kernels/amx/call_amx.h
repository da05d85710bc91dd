/* SPDX-License-Identifier: MIT
 * call_amx.h - a product of many tokens on tiles as its cells see it: one call's matrices, and what
 * the ways of multiplying them (gemm_amx.h, gemm_amx_requant.h) share. */
#ifndef GGAUGE_CALL_AMX_H
#define GGAUGE_CALL_AMX_H

#include "qtype.h"
#include "simd_amx.h"
#include "tile_amx.h"

#define TILE_ROWS 16

/* Rows of a panel, and tokens that pass by it at once: 2 x 2 tiles of sums. */
#define AMX_PANEL_ROWS 32
#define AMX_TOKENS 32
#define AMX_TOKEN_GROUP 512
#define AMX_CHUNK_ROWS 1024 /* in which the first block alone has no products to hide behind */
/* Results of this size and more would be gone from the second level cache before anybody reads
 * them. */
#define AMX_STREAM_BYTES ((size_t)8 << 20)

/* Against ref with weights rounded alike (qtype_round_weights); largest seen of a row: 9e-13 in
 * bf16, 3e-14 in bytes. */
#define AMX_TOL_NMSE 1e-11

ALWAYS_INLINE int64_t amx_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

ALWAYS_INLINE int64_t amx_parts(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}

/* One call's matrices. With `up` there are two, w being the gate: 32 rows of the one and 32 of the
 * other alternate in what is counted as rows, and y gets what glu of struct qkernel leaves. */
struct amx_call {
    const char *w, *up, *x;
    size_t w_stride, x_stride;
    int64_t n, n_rows, n_tok; /* n: weights of a row */
    char *y; /* of token 0 */
    size_t y_stride;
    bool stream; /* y goes past the caches */
};

ALWAYS_INLINE const char *amx_row(const struct amx_call *c, int64_t r) {
    if (!c->up) return c->w + r * (int64_t)c->w_stride;
    const int64_t at = r / (2 * AMX_PANEL_ROWS) * AMX_PANEL_ROWS + r % AMX_PANEL_ROWS;
    return (r / AMX_PANEL_ROWS % 2 ? c->up : c->w) + at * (int64_t)c->w_stride;
}

ALWAYS_INLINE struct rows16 amx_rows16(const struct amx_call *c, int64_t r0) {
    struct rows16 r;
    int32_t offset[16];
    for (int i = 0; i < 16; i++) {
        r.row[i] = amx_row(c, amx_min(r0 + i, c->n_rows - 1));
        offset[i] = (int32_t)(r.row[i] - r.row[0]);
    }
    r.offset = _mm512_loadu_si512(offset);
    return r;
}

/* Up to max_rows rows and max_k weights of each; whether they are the first and the last of k. */
struct amx_block {
    int64_t r0, nr, k0, nk;
    bool first, last;
    int half; /* of two places for panels */
};

ALWAYS_INLINE struct amx_block amx_block_at(const struct amx_call *c, int64_t r0, int64_t k0,
                                            int half, int64_t max_rows, int64_t max_k) {
    const int64_t nk = amx_min(c->n - k0, max_k);
    return (struct amx_block){ .r0 = r0,
                               .nr = amx_min(c->n_rows - r0, max_rows),
                               .k0 = k0,
                               .nk = nk,
                               .first = k0 == 0,
                               .last = k0 + nk == c->n,
                               .half = half };
}

/* The one after b: the next weights of its rows, or the first of the next rows. */
ALWAYS_INLINE struct amx_block amx_next_block(const struct amx_call *c, const struct amx_block *b,
                                              int64_t max_rows, int64_t max_k) {
    const int64_t r0 = b->last ? b->r0 + b->nr : b->r0, k0 = b->last ? 0 : b->k0 + b->nk;
    return amx_block_at(c, r0, k0, !b->half, max_rows, max_k);
}

/* The four sums, or those of the first 16 tokens, one tile after the other. */
ALWAYS_INLINE void amx_store_tiles(void *to, bool two) {
    TILE_STORE(0, to, 64);
    TILE_STORE(1, (char *)to + TILE_BYTES, 64);
    if (!two) return;
    TILE_STORE(2, (char *)to + 2 * TILE_BYTES, 64);
    TILE_STORE(3, (char *)to + 3 * TILE_BYTES, 64);
}

/* Hints that bring n_bytes at `at` of rows i and i + 1, i even, into the first or the second level
 * cache; they may lie behind the matrix. */
ALWAYS_INLINE void amx_fetch_rows(const struct amx_call *c, int64_t i, int64_t at, int64_t n_bytes,
                                  bool first) {
    const char *p = amx_row(c, i) + at, *end = p + n_bytes;
    for (; p < end; p += 64) {
        if (first) {
            _mm_prefetch(p, _MM_HINT_T0);
            _mm_prefetch(p + c->w_stride, _MM_HINT_T0);
        } else {
            _mm_prefetch(p, _MM_HINT_T1);
            _mm_prefetch(p + c->w_stride, _MM_HINT_T1);
        }
    }
}

/* Whether a result is large and whole lines of it are. */
ALWAYS_INLINE bool amx_streams(const struct amx_call *c) {
    return ((uintptr_t)c->y | c->y_stride) % 64 == 0 &&
           (size_t)c->n_tok * c->y_stride >= AMX_STREAM_BYTES;
}

/* The call for up to AMX_TOKEN_GROUP tokens from t on. */
ALWAYS_INLINE struct amx_call amx_group_of(const struct amx_call *c, int64_t t) {
    struct amx_call part = *c;
    part.n_tok = amx_min(c->n_tok - t, AMX_TOKEN_GROUP);
    part.x += (size_t)t * c->x_stride;
    part.y += (size_t)t * c->y_stride;
    part.stream = amx_streams(&part);
    return part;
}

/* What a cell of type NAME offers, through NAME_run, which takes a call. */
#define AMX_MUL_MAT(NAME)                                                                          \
    static void NAME##_mul_mat(int64_t n, const void *w, size_t w_stride, int64_t n_rows,          \
                               const void *x, size_t x_stride, int64_t n_tok, float *dst,          \
                               int64_t dst_stride, void *scratch) {                                \
        const struct amx_call c = { .w = w,                                                        \
                                    .x = x,                                                        \
                                    .w_stride = w_stride,                                          \
                                    .x_stride = x_stride,                                          \
                                    .n = n,                                                        \
                                    .n_rows = n_rows,                                              \
                                    .n_tok = n_tok,                                                \
                                    .y = (char *)dst,                                              \
                                    .y_stride = (size_t)dst_stride * sizeof *dst };                \
        NAME##_run(&c, scratch);                                                                   \
    }
#define AMX_GLU(NAME)                                                                              \
    static void NAME##_glu(int64_t n, const void *gate, const void *up, size_t w_stride,           \
                           int64_t n_rows, const void *x, size_t x_stride, int64_t n_tok, void *y, \
                           size_t y_stride, void *scratch) {                                       \
        const struct amx_call c = { .w = gate,                                                     \
                                    .up = up,                                                      \
                                    .x = x,                                                        \
                                    .w_stride = w_stride,                                          \
                                    .x_stride = x_stride,                                          \
                                    .n = n,                                                        \
                                    .n_rows = 2 * n_rows,                                          \
                                    .n_tok = n_tok,                                                \
                                    .y = y,                                                        \
                                    .y_stride = y_stride };                                        \
        NAME##_run(&c, scratch);                                                                   \
    }

#endif
