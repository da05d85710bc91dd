/* SPDX-License-Identifier: MIT
 * qtype.h - the rows of the table of quantised types, and what a cell of the table is.
 *
 * QTYPE_LIST is the only registration of a type. Y = the column has its own cell, a constant named
 * <type>_<column> of struct qkernel in kernels/<column>/<family>_<column>.c; _ = the parent column
 * of BACKEND_LIST serves. Tests, benchmarks, the command line and the coverage table of the README
 * are all made from this list. */
#ifndef GGAUGE_QTYPE_H
#define GGAUGE_QTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "act.h"
#include "floats.h"
#include "legacy.h"
#include "trellis.h"

/*    name     gguf n_blk block           row_meta gain         ref avx2 avx512 amx requant cuda */
#define QTYPE_LIST(X)                                                                              \
    X(f32,       0,   1, struct blk_f32,     0, 1.0,         Y, Y, Y, _, _, Y)                     \
    X(f16,       1,   1, struct blk_f16,     0, 1.0,         Y, Y, Y, Y, _, Y)                     \
    X(bf16,     30,   1, struct blk_bf16,    0, 1.0,         Y, Y, Y, Y, _, Y)                     \
    X(f64,      28,   1, struct blk_f64,     0, 1.0,         _, _, _, _, _, _)                     \
    X(i32,      26,   1, struct blk_i32,     0, 1.0,         _, _, _, _, _, _)                     \
    X(q4_0,      2,  32, struct blk_q4_0,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(q4_1,      3,  32, struct blk_q4_1,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(q5_0,      6,  32, struct blk_q5_0,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(q5_1,      7,  32, struct blk_q5_1,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(q6_0,    133,  32, struct blk_q6_0,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(q8_0,      8,  32, struct blk_q8_0,    0, 1.0,         Y, Y, Y, Y, Y, Y)                     \
    X(iq2_kt,  153, 256, struct blk_iq2_kt,  4, IQ2_KT_GAIN, Y, Y, Y, Y, Y, Y)                     \
    X(iq3_kt,  154, 256, struct blk_iq3_kt,  4, IQ3_KT_GAIN, Y, Y, Y, Y, Y, Y)                     \
    X(iq4_kt,  155, 256, struct blk_iq4_kt,  4, IQ4_KT_GAIN, Y, Y, Y, Y, Y, Y)                     \
    X(q8_2_x4,  99,  32, struct blk_q8_2,    0, 1.0,         Y, Y, Y, _, _, _)                     \
    X(q8_k_tile, 1000, 256, struct blk_q8_k_tile, 0, 1.0,    Y, _, Y, _, _, _)

/* Formats whose size is known, so that a file that uses them can be inspected, but which no column
 * computes with yet. A type that gets its cells moves from here into QTYPE_LIST. */
/*    name         gguf n_blk bytes row_meta */
#define QTYPE_SIZE_LIST(X)                                                                         \
    X(i8,           24,   1,   1, 0)                                                               \
    X(i16,          25,   1,   2, 0)                                                               \
    X(i64,          27,   1,   8, 0)                                                               \
    X(q8_1,          9,  32,  36, 0)                                                               \
    X(q2_K,         10, 256,  84, 0)                                                               \
    X(q3_K,         11, 256, 110, 0)                                                               \
    X(q4_K,         12, 256, 144, 0)                                                               \
    X(q5_K,         13, 256, 176, 0)                                                               \
    X(q6_K,         14, 256, 210, 0)                                                               \
    X(iq3_xxs,      18, 256,  98, 0)                                                               \
    X(iq4_nl,       20,  32,  18, 0)                                                               \
    X(iq4_xs,       23, 256, 136, 0)                                                               \
    X(mxfp4,        39,  32,  17, 0)                                                               \
    X(iq2_k,       137, 256,  76, 0)                                                               \
    X(iq3_k,       138, 256, 110, 0)                                                               \
    X(iq4_k,       139, 256, 144, 0)                                                               \
    X(iq5_k,       140, 256, 176, 0)                                                               \
    X(iq6_k,       141, 256, 212, 0)                                                               \
    X(iq4_ks,      144, 256, 136, 4)                                                               \
    X(iq2_ks,      145, 256,  70, 2)                                                               \
    X(iq4_kss,     146, 256, 128, 4)                                                               \
    X(iq5_ks,      152, 256, 168, 4)                                                               \
    X(iq3_ks,      156, 256, 102, 2)                                                               \
    X(iq2_kl,      157, 256,  86, 2)                                                               \
    X(iq1_kt,      158, 256,  56, 4)                                                               \
    X(q5_0_r4,     206,  32,  22, 0)                                                               \
    X(q8_0_r8,     208,  32,  34, 0)                                                               \
    X(iq3_xxs_r4,  218, 256,  98, 0)                                                               \
    X(iq4_nl_r4,   220,  32,  18, 0)                                                               \
    X(q6_0_r4,     233,  32,  26, 0)                                                               \
    X(iq4_ks_r4,   344, 256, 136, 4)                                                               \
    X(iq5_ks_r4,   352, 256, 168, 4)                                                               \
    X(q8_k_r8,     399, 256, 258, 0)

enum qtype {
    QT_none = -1,
#define X(name, ...) QT_##name,
    QTYPE_LIST(X)
    QTYPE_SIZE_LIST(X)
#undef X
    QT_count,
};

struct qtype_info {
    const char *name; /* the field's own spelling: "q4_0", "iq4_kt" */
    uint32_t gguf_id;
    int n_blk;         /* weights per block */
    size_t blk_bytes;  /* bytes per block */
    size_t row_meta;   /* bytes in front of the first block of every row */
    double gain;       /* compute-time factor of every product with these weights */
};

/* t must be a valid type (not QT_none). */
const struct qtype_info *qtype_info(enum qtype t);
/* QT_none if nothing has that id / that name (case is ignored). */
enum qtype qtype_from_gguf(uint32_t gguf_id);
enum qtype qtype_from_name(const char *name);
/* Whether it is a type of activations, which no file holds (act.h). */
static inline bool qtype_is_act(enum qtype t) {
    return t == QT_q8_2_x4 || t == QT_q8_k_tile;
}
/* Bytes of a row of n weights; n must be a multiple of n_blk. */
size_t qtype_row_bytes(enum qtype t, int64_t n);

/* What a cell of the type table offers; a member that a column does not have is NULL.
 *
 * Shapes: a weight matrix W is [n_rows, n], row stride w_stride bytes; activations X are
 * [n_tok, n] of type `act`, row stride x_stride bytes; dst is f32 [n_tok, n_rows], row stride
 * dst_stride floats: dst[t * dst_stride + r] = gain * sum_i W[r, i] X[t, i]. */
struct qkernel {
    enum qtype act;  /* activation type that mul_mat wants */
    int64_t act_group; /* activations come in groups of so many rows, the last one perhaps not
                          filled: pieces of 64 bytes of its rows alternate, so that tiles lie in one
                          piece (act_in_group); a row's bytes and the stride are multiples of 64.
                          0 = row after row */
    double tol_nmse; /* promise: normalised mean square error of mul_mat against ref fed the same
                        quantised activations */
    double tol_nmse_many; /* the same of a device's product of many tokens (qkernel_promise), which
                             may round otherwise; 0 = tol_nmse */
    int64_t min_tokens;  /* mul_mat works for any number of tokens, but is no gain below this one:
                            the op then takes the parent column's cell (qkernel_for) */
    int64_t row_multiple; /* rows of another length are left to the parent column, too; 0 = any */
    int64_t chunk_rows;  /* rows that the op should hand over in one call, if there are enough to
                            keep many threads busy; 0 = as few as it likes */

    /* n weights of one row as f32, without the gain. */
    void (*dequant_row)(const void *row, float *y, int64_t n);
    /* The inverse; imatrix [n] weights the error of each column, or NULL. n is a multiple of
     * n_blk. */
    void (*quantize_row)(const float *x, void *row, int64_t n, const float *imatrix);
    /* Of types of activations that come in groups (act_group): the same row in pieces of 64 bytes,
     * one every `apart` bytes. */
    void (*quantize_pieces)(const float *x, void *pieces, size_t apart, int64_t n);
    /* Any n_rows >= 1 and n_tok >= 1. scratch: mul_mat_scratch(n) bytes, 64-byte aligned. Chooses
     * between streaming the weights (few tokens) and decoding a panel once (many). */
    void (*mul_mat)(int64_t n, const void *w, size_t w_stride, int64_t n_rows, const void *x,
                    size_t x_stride, int64_t n_tok, float *dst, int64_t dst_stride, void *scratch);
    /* Or NULL: a copy of weights in the order in which one token's product streams them. Rows lie
     * there in groups of PACK_ROWS, the last group always whole, pack_row_bytes(n) bytes a row;
     * both pack and mul_packed begin with the first row of a group. mul_packed is mul_mat of one
     * token: the bits are the same. */
    size_t (*pack_row_bytes)(int64_t n);
    void (*pack)(int64_t n, const void *w, size_t w_stride, int64_t n_rows, void *packed);
    void (*mul_packed)(int64_t n, const void *packed, size_t row_bytes, int64_t n_rows,
                       const void *x, size_t x_stride, float *dst, void *scratch);
    /* Or NULL: silu(gate) * up of the products with rows of two matrices, as activations that the
     * same kind of cell wants (act_group): y is where token 0 has the first of them, y_stride bytes
     * from group to group / act_group; both are multiples of 64. A call begins at a multiple of
     * glu_rows and has one, unless it reaches the end of the matrix. The bits are those of mul_mat,
     * swiglu and quantize_row. */
    void (*glu)(int64_t n, const void *gate, const void *up, size_t w_stride, int64_t n_rows,
                const void *x, size_t x_stride, int64_t n_tok, void *y, size_t y_stride,
                void *scratch);
    int64_t glu_rows;
    size_t (*mul_mat_scratch)(int64_t n);
    bool on_device; /* a cell of cuda: mul_mat is in the plug-in, and the functions here are NULL */
};

#define PACK_ROWS 16

/* A packed copy of a matrix, and whose order it is in; 64-byte aligned. */
struct packed {
    const struct qkernel *cell;
    size_t row_bytes;
    void *data; /* owned by whoever made it */
};

static inline size_t packed_bytes(const struct packed *p, int64_t n_rows) {
    return p->row_bytes * (size_t)((n_rows + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS);
}

/* Whether a cell that wants activations of type `act` rounds weights of type w, too: products in
 * bf16 and those with weights of 8 bits do. Types that are no quants keep all their bits. */
static inline bool qtype_rounds_weights(enum qtype w, enum qtype act) {
    return (act == QT_bf16 || act == QT_q8_k_tile) && qtype_info(w)->n_blk > 1;
}

/* A dequantised row of weights, y [n], as such a cell uses it; others leave it as it is. What is
 * rounded to bf16 is the weight without the scale of the whole row; to nearest, and a tie goes
 * towards zero in even columns, away from it in odd ones. Those of 8 bits are described in
 * trellis.h and legacy.h. */
void qtype_round_weights(enum qtype w, enum qtype act, const void *row, float *y, int64_t n);

/* Rows of activations that n_tok tokens need room for. */
static inline int64_t qkernel_act_rows(const struct qkernel *k, int64_t n_tok) {
    const int64_t g = k->act_group ? k->act_group : 1;
    return (n_tok + g - 1) / g * g;
}

/* Where the first piece of token t's activations is in groups of g rows; the next is 64 g bytes
 * on. */
static inline char *act_in_group(void *x, size_t x_stride, int64_t t, int64_t g) {
    return (char *)x + (size_t)(t - t % g) * x_stride + (size_t)(t % g) * 64;
}

#endif
