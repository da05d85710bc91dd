/* SPDX-License-Identifier: MIT
 * capsule.h - one operation in one file: its weight, the inputs of some rows, what both arms made
 * of them, and where it came from; enough to run just that op again on any column.
 *
 * A capsule is a GGUF file whose keys begin with "capsule.". Tensors: src0..src4 (the weight in its
 * own type; of a weight too large the rows around the worst one), out_a, out_b. */
#ifndef GGAUGE_CAPSULE_H
#define GGAUGE_CAPSULE_H

#include "gguf/gguf.h"
#include "measure/limits.h"
#include "measure/op_case.h"
#include "measure/op_error.h"

#define CAPSULE_VERSION 1

/* Parameters of ops are keys capsule.<op>.<field>, as 64-bit integers and floats. */
#define CAPSULE_PARAM_LIST(INT, REAL)                                                              \
    INT(rms_norm, n) REAL(rms_norm, eps)                                                           \
    INT(rope_table, n_rot) REAL(rope_table, freq_base) REAL(rope_table, freq_scale)                \
    REAL(rope_table, ext_factor) REAL(rope_table, attn_factor) REAL(rope_table, beta_fast)         \
    REAL(rope_table, beta_slow) INT(rope_table, n_ctx_orig)                                        \
    INT(rope, mode) INT(rope, n_rot) INT(rope, n_head) INT(rope, n_embd_head)                      \
    INT(attn, n_head) INT(attn, n_head_kv) INT(attn, n_embd_head_k) INT(attn, n_embd_head_v)       \
    REAL(attn, scale)

/* Texts, keys capsule.<member>. */
#define CAPSULE_TEXT_LIST(X)                                                                       \
    X(cell_a) X(cell_b) X(backend_a) X(backend_b) X(finding) X(model) X(model_fp) X(commit)

struct capsule {
    struct op_case c;        /* the op and its inputs */
    int64_t col0;            /* first column of the node's result that the capsule holds */
    int64_t n_cols_all;      /* columns that the node has */
    enum qtype act_a, act_b; /* activation type of the arms' cells */
    float *out_a, *out_b;    /* [n_tok, n_cols]; NULL if that arm's output is not there */
    int32_t *position;       /* [n_tok] row of the batch */
    char cell_a[48], cell_b[48], backend_a[16], backend_b[16];
    struct op_limit limit_a, limit_b;
    double err_a, err_b; /* max_rel against the judge, over the rows that were judged */
    char finding[32], model[256], model_fp[17], commit[48];
};

/* An existing file is replaced when the new one is complete. */
int capsule_save(const struct capsule *c, const char *path, struct err *e);
/* Errors name the file and the key or tensor that breaks the contract. */
int capsule_open(struct capsule **out, const char *path, struct err *e);
int capsule_open_memory(struct capsule **out, const void *data, size_t n_bytes, struct err *e);
void capsule_free(struct capsule *c); /* NULL is allowed */

#endif
