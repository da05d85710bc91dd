/* SPDX-License-Identifier: MIT kcase.h - the cells of the tables as a list of what to check and to
 * time: for each type its products at several numbers of tokens, its dequantisation and
 * quantisation; for each op its cases.
 *
 * A new type, column or op appears by itself; a new op needs its shapes in kcheck.c. */
#ifndef GGAUGE_KCASE_H
#define GGAUGE_KCASE_H

#include "backend.h"

/*    kind       what --op calls it */
#define KCASE_LIST(X)                                                                              \
    X(MUL_MAT,  "mul_mat")                                                                         \
    X(PACKED,   "packed")   /* mul_mat of one token with a packed copy (-rtr) */                   \
    X(DEQUANT,  "dequant")  /* rows of weights to f32 */                                           \
    X(QUANTIZE, "quantize") /* rows of f32 to the type */

enum kcase_kind {
#define X(kind, name) KCASE_##kind,
    KCASE_LIST(X)
#undef X
    KCASE_OP, /* any other op, called by its own name */
};

struct kcase {
    enum kcase_kind kind;
    enum column col;
    enum qtype type; /* of weights; of the K and V cache for attn and set_rows; else QT_f32 */
    enum op op;
    int n_tok;
    int n_kv; /* cells before the first token: attn */
};

static inline bool kcase_is_product(const struct kcase *c) {
    return c->kind == KCASE_MUL_MAT || c->kind == KCASE_PACKED;
}

#define KCASE_MAX_LIST 32

struct kcase_filter {
    bool col[COL_count], type[QT_count]; /* wanted */
    const char *const *ops; /* [n_ops] "mul_mat", "dequant", "attn", ...; NULL = all */
    int n_ops;
    int n_tok[KCASE_MAX_LIST], n_n_tok;       /* tokens of products */
    int op_n_tok[KCASE_MAX_LIST], n_op_n_tok; /* of other ops */
    int n_kv[KCASE_MAX_LIST], n_n_kv;
};

/* "iq4_kt@avx2", "packed iq4_kt@avx512", "dequant iq4_kt@avx2", "attn f16@avx2",
 * "rms_norm@avx2". */
void kcase_name(const struct kcase *c, char *buf, size_t n_bytes);
/* As the user writes it: "mul_mat", "quantize", "attn". */
const char *kcase_op(const struct kcase *c);

/* Every case that passes the filter and whose cell column c has itself, in the order of the tables.
 * fn returns negative to stop. */
int kcase_each(const struct kcase_filter *f,
               int (*fn)(void *arg, const struct kcase *c, struct err *e), void *arg,
               struct err *e);

#endif
