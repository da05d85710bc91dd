/* SPDX-License-Identifier: MIT
 * kcheck_ops.c - shapes, data and limits of every op but mul_mat, for kcheck.c.
 *
 * A new op gets a function here and its line in `makers`; the contracts are in op.h. */
#include <math.h>

#include "measure/kcheck_impl.h"

#define LOGIT_BYTES ((size_t)64 << 20) /* as many as the engine keeps at a time */
#define CACHE_CELLS 4096
#define N_EMBD(k) ((k)->p.shape.n_head * (k)->p.shape.n_embd_head)

/* Sets *slot, or returns the error. */
#define MAKE(slot, call)                                                                           \
    do {                                                                                           \
        (slot) = (call);                                                                           \
        if (!(slot)) return e->code;                                                               \
    } while (0)

static int make_get_rows(struct kcheck *k, struct err *e) {
    const int64_t n = N_EMBD(k), n_table = 32000;
    MAKE(k->node.src[0], kcheck_random(k, QT_q8_0, n_table, n, e));
    /* A step that is prime to the number of rows: no row twice. */
    struct tensor *ids;
    MAKE(ids, kcheck_ints(k, k->n_tok, 0, 1, e));
    for (int64_t i = 0; i < k->n_tok; i++)
        ((int32_t *)ids->data)[i] = (int32_t)(i * 7919 % n_table);
    k->node.src[1] = ids;
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, n, e));
    k->token_mask = 1u << 1;
    k->sparse_mask = 1u << 0;
    return 0;
}

static int make_rms_norm(struct kcheck *k, struct err *e) {
    const int64_t n = N_EMBD(k);
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, n, e));
    MAKE(k->node.src[1], kcheck_random(k, QT_f32, 1, n, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, n, e));
    k->node.p.rms_norm.n = n;
    k->node.p.rms_norm.eps = 1e-5f;
    k->token_mask = 1u << 0;
    return 0;
}

/* Two sources of the same shape. */
static int make_pair(struct kcheck *k, int64_t n, struct err *e) {
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, n, e));
    MAKE(k->node.src[1], kcheck_random(k, QT_f32, k->n_tok, n, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, n, e));
    k->token_mask = 3;
    return 0;
}

static int make_add(struct kcheck *k, struct err *e) {
    return make_pair(k, N_EMBD(k), e);
}

static int make_swiglu(struct kcheck *k, struct err *e) {
    return make_pair(k, k->p.shape.n_ff, e);
}

static int make_rope_table(struct kcheck *k, struct err *e) {
    const int n_rot = (int)k->p.shape.n_embd_head;
    MAKE(k->node.src[0], kcheck_ints(k, k->n_tok, 1000, 1, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, n_rot, e));
    k->node.p.rope_table.n_rot = n_rot;
    k->node.p.rope_table.freq_base = 500000;
    k->node.p.rope_table.freq_scale = 1;
    k->node.p.rope_table.attn_factor = 1;
    k->node.p.rope_table.beta_fast = 32;
    k->node.p.rope_table.beta_slow = 1;
    k->node.p.rope_table.n_ctx_orig = 8192;
    k->token_mask = 1u << 0;
    return 0;
}

static int make_rope(struct kcheck *k, struct err *e) {
    const struct kshape *s = &k->p.shape;
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, N_EMBD(k), e));
    MAKE(k->node.src[1], kcheck_random(k, QT_f32, k->n_tok, s->n_embd_head, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, N_EMBD(k), e));
    k->node.p.rope.mode = ROPE_NEOX;
    k->node.p.rope.n_rot = (int)s->n_embd_head;
    k->node.p.rope.n_head = s->n_head;
    k->node.p.rope.n_embd_head = s->n_embd_head;
    k->token_mask = 3;
    return 0;
}

static int make_set_rows(struct kcheck *k, struct err *e) {
    const int64_t n = k->p.shape.n_head_kv * k->p.shape.n_embd_head;
    const int64_t n_cells = k->n_tok > CACHE_CELLS ? k->n_tok : CACHE_CELLS;
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, n, e));
    MAKE(k->node.src[1], kcheck_ints(k, k->n_tok, (int32_t)(n_cells - k->n_tok), 1, e));
    MAKE(k->node.dst, kcheck_tensor(k, k->c.type, n_cells, n, e));
    k->sparse_mask = 1u << OP_MAX_SRC;
    return 0;
}

/* One sequence: token t is at position n_kv + t. */
static int make_attn(struct kcheck *k, struct err *e) {
    const struct kshape *s = &k->p.shape;
    const int64_t n_cells = k->c.n_kv + k->n_tok, n_kv_row = s->n_head_kv * s->n_embd_head;
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, N_EMBD(k), e));
    MAKE(k->node.src[1], kcheck_random(k, k->c.type, n_cells, n_kv_row, e));
    MAKE(k->node.src[2], kcheck_random(k, k->c.type, n_cells, n_kv_row, e));
    MAKE(k->node.src[3], kcheck_ints(k, k->n_tok, 0, 0, e));
    MAKE(k->node.src[4], kcheck_ints(k, k->n_tok, k->c.n_kv, 1, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f32, k->n_tok, N_EMBD(k), e));
    k->node.p.attn.n_head = s->n_head;
    k->node.p.attn.n_head_kv = s->n_head_kv;
    k->node.p.attn.n_embd_head_k = k->node.p.attn.n_embd_head_v = s->n_embd_head;
    k->node.p.attn.scale = 1.0f / sqrtf((float)s->n_embd_head);
    k->cold_mask = 1u << 1 | 1u << 2;
    k->token_mask = 1u << 0 | 1u << 3 | 1u << 4;
    const double seen = (double)k->n_tok * ((double)k->c.n_kv + 0.5 * ((double)k->n_tok + 1));
    k->macs = seen * 2 * (double)N_EMBD(k);
    return 0;
}

static int make_lse(struct kcheck *k, struct err *e) {
    const int64_t n = k->p.shape.n_vocab;
    const int64_t most = (int64_t)(LOGIT_BYTES / ((size_t)n * sizeof(float)));
    if (k->n_tok > most) k->n_tok = most > 0 ? most : 1;
    MAKE(k->node.src[0], kcheck_random(k, QT_f32, k->n_tok, n, e));
    MAKE(k->node.dst, kcheck_tensor(k, QT_f64, k->n_tok, 3, e));
    k->token_mask = 1u << 0;
    return 0;
}

/* Limits are squares of the errors that tests/unit/test_ops.c and test_op_attn.c accept: what
 * rounding of f32 arithmetic leaves. 0: the same bits. */
static const struct {
    int (*make)(struct kcheck *k, struct err *e);
    double nmse;
} makers[OP_count] = {
    [OP_get_rows] = { make_get_rows, 0 },
    [OP_rms_norm] = { make_rms_norm, 9e-14 },
    [OP_add] = { make_add, 0 },
    [OP_swiglu] = { make_swiglu, 9e-14 },
    [OP_rope_table] = { make_rope_table, 9e-14 },
    [OP_rope] = { make_rope, 9e-14 },
    [OP_set_rows] = { make_set_rows, 0 },
    [OP_attn] = { make_attn, 1e-12 },
    [OP_lse] = { make_lse, 1e-14 },
};

bool kcheck_has_op(enum op op) {
    return op == OP_mul_mat || makers[op].make;
}

/* Up to 8 tokens a device computes in binary32. Its tensor cores align what they add to its largest
 * and cut the rest off, the sum so far included: the more cells, the smaller are the terms of a sum
 * beside it. An H100 has an NMSE of 7e-12 at a depth of 512 and of 1.3e-10 at 4096; a q8_0 cache is
 * rounded to binary16 for them. */
static double cuda_attn_limit(enum qtype type, int64_t n_tok) {
    if (n_tok <= DEVICE_FEW_TOKENS) return makers[OP_attn].nmse;
    return type == QT_q8_0 ? 1e-6 : type == QT_f16 ? 1e-9 : makers[OP_attn].nmse;
}

double kcheck_op_limit(enum op op, enum column c, enum qtype type, int64_t n_tok) {
    if (op == OP_attn && c == COL_cuda) return cuda_attn_limit(type, n_tok);
    /* Tiles of bf16 multiply numbers of 16 bits: 3e-5 of the mean square root. */
    if (op == OP_attn && c == COL_amx) return 9e-10;
    return makers[op].nmse;
}

int kcheck_load_op(struct kcheck *k, struct err *e) {
    if (!makers[k->c.op].make)
        return ERR(e, ERR_UNSUPPORTED, "kcheck_ops.c has no shapes for op %s", op_name(k->c.op));
    k->node.op = k->c.op;
    k->n_tok = k->c.n_tok;
    return makers[k->c.op].make(k, e);
}
