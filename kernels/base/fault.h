/* SPDX-License-Identifier: MIT
 * fault.h - seeded faults: errors of the kinds that real engines had, put into our own kernels so
 * that `compare` can be shown to find them.
 *
 * They exist in CONFIG=faults alone (GGAUGE_FAULTS, `make faults`). FAULT(name) is the constant 0
 * in every other build, so nothing of a fault is left in its code. With faults it asks whether the
 * arm that computes just now has that one. A fault belongs to an arm: exec.c calls fault_begin
 * before its nodes run and fault_end after them, so of two arms in a process one can be faulty; two
 * arms must not compute at the same time. The plug-in of the cuda column has a fault_now of its
 * own, which cuda.c sets before its nodes run. */
#ifndef GGAUGE_FAULT_H
#define GGAUGE_FAULT_H

#include <stdint.h>

/* Of each fault:
 *
 *   thread   the bug of the field that it models ("design": a class that no thread documents)
 *   model    the shared model to show it on; "tiny_qwen2" is made by tests/tiny
 *   options  of perplexity under which it shows on a CPU
 *   hidden   options of the same model under which not a bit changes: why one run is not enough;
 *            "" if it shows always
 *   cell     type or op of the operation that compare has to name
 *   columns  CPU columns whose own cell of it has the fault; a column that takes one of these cells
 *            has it, too. Of the cuda column FAULT_CUDA_LIST speaks
 *
 *    name, thread, model, options
 *    hidden, cell, columns
 *    what is wrong */
#define FAULT_LIST(X)                                                                              \
    X(kt_generator, "ik#529", "tiny-qwen3-iq4_kt", "-c 512 --chunks 2",                            \
      "", "iq4_kt", "avx2",                                                                        \
      "trellis states by the multiplier pair of the older trellis")                                \
    X(kt_row_scale, "ik#529", "tiny-qwen3-iq4_kt", "-c 512 --chunks 2",                            \
      "", "iq4_kt", "avx2",                                                                        \
      "the scale of a row is lost and counts as 1")                                                \
    X(kt_gain, "ik#529", "tiny-qwen3-iq3_kt", "-c 512 --chunks 8",                                 \
      "", "iq3_kt", "avx2",                                                                        \
      "the compute-time gain of IQ2_KT and IQ3_KT is left out")                                    \
    X(nibble_swap, "lc#19561", "tiny-qwen3-q4_0", "-c 512 --chunks 2",                             \
      "", "q4_0", "avx2",                                                                          \
      "low and high nibbles of a block change places")                                             \
    X(act_sum, "ik#2224", "tiny-qwen3-q4_0", "-c 512 --chunks 2",                                  \
      "", "q4_0", "avx2",                                                                          \
      "the term with the sum of a block's activations (offset or minimum) is dropped")             \
    X(k_tail, "ik#2224", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                                   \
      "-c 512 --chunks 1 -ub 2", "q8_0", "avx2",                                                   \
      "the last 32 weights of a row do not count when there are many tokens")                      \
    X(tg_tail, "lc#9186", "tiny-qwen3-q8_0", "-c 64 --chunks 4 -ub 1",                             \
      "-c 64 --chunks 4", "q8_0", "avx2",                                                          \
      "the last 4 blocks of a row do not count, for 1 or 2 tokens only")                           \
    X(packed_rows, "lc#19561", "tiny-qwen3-iq4_kt", "-c 64 --chunks 4 -ub 1 -rtr",                 \
      "-c 64 --chunks 4 -ub 1", "iq4_kt", "avx512",                                                \
      "rows of a packed copy have their neighbours' places")                                       \
    X(saturation, "ik#427", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                \
      "-c 512 --chunks 1 -ub 2", "q8_0", "avx2",                                                   \
      "pairs of products saturate in int16")                                                       \
    X(f16_overflow, "ik#285", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                              \
      "-c 512 --chunks 1 -ub 2", "q8_0", "avx2",                                                   \
      "sums of a block go through binary16 and overflow")                                          \
    X(nan_late, "ik#245", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                  \
      "-c 512 --chunks 4", "q8_0", "avx2 avx512 amx",                                              \
      "one NaN in ffn_out of layer 1, from the fifth chunk on")                                    \
    X(act_truncate, "lc#13287", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                            \
      "", "q8_0", "avx2",                                                                          \
      "activations are rounded towards zero")                                                      \
    X(cols_2_3, "ik#446", "tiny-qwen3-q8_0", "-c 64 --chunks 4 -ub 3",                             \
      "-c 64 --chunks 4", "q8_0", "avx2 avx512 amx",                                               \
      "of 2 or 3 tokens the last gets the products of the one before")                             \
    X(cols_17, "ik#170", "tiny-qwen3-q8_0", "-c 128 --chunks 4 -ub 17",                            \
      "-c 128 --chunks 4", "q8_0", "avx2 avx512 amx",                                              \
      "tokens after the last whole 16 get the products of the one before")                         \
    X(one_row, "lc#17089", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                 \
      "", "q8_0", "avx2 avx512 amx",                                                               \
      "one row of ffn_out of layer 5 has its neighbour's product in a tile of 32 tokens")          \
    X(race, "ik#192", "tiny-qwen3-q8_0", "-c 512 --chunks 2 -t 2",                                 \
      "-c 512 --chunks 2 -t 1", "q8_0", "avx2 avx512 amx",                                         \
      "no barrier for one row of activations: products may read what was there before")            \
    X(same_logits, "lc#6758", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                              \
      "", "q8_0", "avx2 avx512 amx",                                                               \
      "the output matrix reads the first token's activations for all")                             \
    X(rope_base, "lc#4219", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                                \
      "", "rope_table", "ref",                                                                     \
      "base 10000 whatever the model says")                                                        \
    X(rope_pairing, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                            \
      "", "rope", "ref",                                                                           \
      "NORM pairs where NEOX pairs are right, and the reverse")                                    \
    X(v_is_k, "ik#1592", "tiny-qwen3-q8_0", "-c 512 --chunks 2 -ctk q8_0 -ctv q8_0",               \
      "-c 512 --chunks 2", "attn", "avx2",                                                         \
      "K is used as V if V is quantised")                                                          \
    X(q8_cache_scale, "ik#364", "tiny-qwen3-q8_0", "-c 512 --chunks 8 -ctk q8_0",                  \
      "-c 512 --chunks 2", "attn", "avx2",                                                         \
      "every block of a quantised head has the scale of the head's first")                         \
    X(q8_cache_pp, "ik#103", "tiny-qwen3-q8_0", "-c 512 --chunks 2 -ctk q8_0",                     \
      "-c 512 --chunks 1 -ctk q8_0 -ub 2", "attn", "avx2",                                         \
      "a NaN where a quantised K is unpacked for many tokens")                                     \
    X(kv_head_order, "lc#13280", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                           \
      "", "attn", "avx2",                                                                          \
      "groups of heads read the kv heads in reverse order")                                        \
    X(attn_scale, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                              \
      "", "attn", "avx2",                                                                          \
      "scores are divided by the head size, not by its root")                                      \
    X(attn_beyond_256, "ik#1205", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                          \
      "-c 256 --chunks 4", "attn", "avx2",                                                         \
      "sums of earlier ranges keep the scale of their own maximum: beyond 256 cells")              \
    X(causal_mask, "design", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                               \
      "-c 512 --chunks 1 -ub 1", "attn", "avx2",                                                   \
      "a token sees the next one, too")                                                            \
    X(seq_offset, "lc#13155", "tiny-qwen3-q8_0", "-c 128 -ub 512 --chunks 8",                      \
      "-c 128 -b 128 --chunks 8", "attn", "avx2",                                                  \
      "later sequences of a micro-batch read the cells of its first")                              \
    X(stale_kv, "design", "tiny-qwen3-q8_0", "-c 512 -b 512 --chunks 8",                           \
      "-c 512 -b 512 --chunks 1", "set_rows", "ref",                                               \
      "every eighth cell keeps what an earlier chunk stored")                                      \
    X(embd_rows, "ik#296", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                                 \
      "", "get_rows", "ref",                                                                       \
      "rows of the token embedding are read as if interleaved by four")                            \
    X(norm_mean, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                               \
      "", "rms_norm", "avx2",                                                                      \
      "the root of the sum of squares, not of their mean")                                         \
    X(norm_eps, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                \
      "", "rms_norm", "avx2",                                                                      \
      "a thousand times the epsilon")                                                              \
    X(swiglu_swap, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                             \
      "", "swiglu", "avx2",                                                                        \
      "gate and up change places")                                                                 \
    X(swiglu_gelu, "lc#14939", "tiny-qwen3-q8_0", "-c 512 --chunks 2",                             \
      "", "swiglu", "avx2",                                                                        \
      "x / (1 + exp(-1.702 x)), the quick GELU, instead of SiLU")                                  \
    X(residual, "ik#249", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                  \
      "", "add", "ref",                                                                            \
      "one token of a micro-batch loses its residual")                                             \
    X(bias, "lc#14939", "tiny_qwen2", "",                                                          \
      "", "add", "ref",                                                                            \
      "biases are not added")                                                                      \
    X(lse_tail, "ik#325", "tiny-qwen3-q8_0", "-c 512 --chunks 8",                                  \
      "", "lse", "avx2 avx512",                                                                    \
      "the last sixteenth of the vocabulary is left out of the log-sum-exp")                       \
    X(last_range, "design", "tiny-qwen3-q8_0", "",                                                 \
      "", "attn", "",                                                                              \
      "the last of several ranges of cells of a row is not added to the others")                   \
    X(grid_tail, "design", "tiny-qwen3-q8_0", "",                                                  \
      "", "q8_0", "",                                                                              \
      "a grid is rounded down: nobody computes tokens behind the last whole tile of 128")

/* The faults that the cuda column has, with options and hidden of its own. Its texts are short, so
 * that an emulated device can show them; and its products of a text are those of many tokens even
 * where there is one, so that other things hide a fault.
 *
 *    name, options, hidden */
#define FAULT_CUDA_LIST(X)                                                                         \
    X(kt_generator, "-c 128 --chunks 2", "")                                                       \
    X(kt_row_scale, "-c 128 --chunks 2", "")                                                       \
    X(kt_gain, "-c 128 --chunks 4", "")                                                            \
    X(nibble_swap, "-c 128 --chunks 2", "")                                                        \
    X(act_sum, "", "") /* of the minimum alone: no shared model has a type with one */             \
    X(k_tail, "-c 128 --chunks 2", "-c 32 --chunks 1 -ub 2")                                       \
    X(tg_tail, "-c 32 --chunks 2 -ub 2", "-c 64 --chunks 2")                                       \
    X(f16_overflow, "-c 128 --chunks 2", "")                                                       \
    X(nan_late, "-c 64 -b 64 --chunks 8", "-c 64 -b 64 --chunks 4")                                \
    X(act_truncate, "-c 128 --chunks 4", "")                                                       \
    X(cols_2_3, "-c 32 --chunks 2 -ub 3", "-c 64 --chunks 2")                                      \
    X(cols_17, "-c 64 --chunks 2 -ub 17", "-c 128 --chunks 2")                                     \
    X(one_row, "-c 128 --chunks 4", "")                                                            \
    X(same_logits, "-c 128 --chunks 2", "")                                                        \
    X(rope_base, "-c 128 --chunks 2", "")                                                          \
    X(rope_pairing, "-c 128 --chunks 2", "")                                                       \
    X(v_is_k, "-c 128 --chunks 2 -ctk q8_0 -ctv q8_0", "-c 128 --chunks 2")                        \
    X(q8_cache_scale, "-c 128 --chunks 4 -ctk q8_0", "-c 128 --chunks 2")                          \
    X(q8_cache_pp, "-c 128 --chunks 2 -ctk q8_0", "-c 128 --chunks 1 -ctk q8_0 -ctv f32")          \
    X(kv_head_order, "-c 128 --chunks 2", "")                                                      \
    X(attn_scale, "-c 128 --chunks 2", "")                                                         \
    X(attn_beyond_256, "-c 320 --chunks 1", "-c 256 --chunks 1")                                   \
    X(causal_mask, "-c 128 --chunks 2", "-c 32 --chunks 1 -ub 1")                                  \
    X(seq_offset, "-c 64 --chunks 4", "-c 64 -b 64 --chunks 4")                                    \
    X(stale_kv, "-c 64 -b 64 --chunks 4", "-c 64 -b 64 --chunks 1")                                \
    X(embd_rows, "-c 128 --chunks 2", "")                                                          \
    X(norm_mean, "-c 128 --chunks 2", "")                                                          \
    X(norm_eps, "-c 128 --chunks 4", "")                                                           \
    X(swiglu_swap, "-c 128 --chunks 2", "")                                                        \
    X(swiglu_gelu, "-c 128 --chunks 2", "")                                                        \
    X(residual, "-c 128 --chunks 4", "")                                                           \
    X(bias, "", "")                                                                                \
    X(lse_tail, "-c 128 --chunks 4", "")                                                           \
    X(last_range, "-c 320 --chunks 1 -ctk f32 -ctv f32", "-c 256 --chunks 1 -ctk f32 -ctv f32")    \
    X(grid_tail, "-c 200 --chunks 1", "-c 128 --chunks 2")

enum fault {
    FAULT_none,
#define X(name, ...) FAULT_##name,
    FAULT_LIST(X)
#undef X
    FAULT_count,
};

struct fault_info {
    const char *name, *thread, *model, *options, *hidden, *cell, *columns, *what;
};

/* What a column has other than the list says. */
struct fault_shown {
    const char *options, *hidden;
};

/* A fault of an arm and how far the arm has come; owned by its exec. */
struct fault_run {
    enum fault fault;
    int64_t n_ctx, n_cells; /* of a sequence; of all of them */
    int64_t n_done;         /* tokens of finished micro-batches */
};

#ifdef GGAUGE_FAULTS

/* NULL for FAULT_none and out of range. */
const struct fault_info *fault_info(enum fault f);

/* FAULT_none if there is no fault of that name. */
enum fault fault_from_name(const char *name);

/* NULL if the cuda column has not got it. */
const struct fault_shown *fault_on_cuda(enum fault f);

extern struct fault_run fault_now; /* of the arm that computes just now */

#define FAULT(name) (fault_now.fault == FAULT_##name)
#define FAULTY() (fault_now.fault != FAULT_none)
#define FAULTS_BUILT ((int)FAULT_count) /* 0 in a build without */

static inline void fault_begin(const struct fault_run *r) {
    fault_now = *r;
}
static inline void fault_end(void) {
    fault_now.fault = FAULT_none;
}
static inline void fault_count(struct fault_run *r, int64_t n_tok) {
    r->n_done += n_tok;
}
/* Texts of n_ctx tokens that the arm has finished. */
static inline int64_t fault_chunk(void) {
    return fault_now.n_done / fault_now.n_ctx;
}
/* Has every cell of the cache been used? */
static inline int fault_wrapped(void) {
    return fault_now.n_done >= fault_now.n_cells;
}
/* Where this program or plug-in keeps its fault_now, NULL if it has none; and to set another's. */
static inline struct fault_run *fault_place(void) {
    return &fault_now;
}
static inline void fault_pass(struct fault_run *to) {
    *to = fault_now;
}

#else

/* None exists. The constant is made from the name, so that a wrong name is an error here, too. */
#define FAULT(name) ((int)FAULT_##name < 0)
#define FAULTY() 0
#define FAULTS_BUILT 0

static inline const struct fault_info *fault_info(enum fault f) {
    (void)f;
    return 0;
}
static inline enum fault fault_from_name(const char *name) {
    (void)name;
    return FAULT_none;
}
static inline const struct fault_shown *fault_on_cuda(enum fault f) {
    (void)f;
    return 0;
}
static inline void fault_begin(const struct fault_run *r) {
    (void)r;
}
static inline void fault_end(void) {
}
static inline void fault_count(struct fault_run *r, int64_t n_tok) {
    (void)r, (void)n_tok;
}
static inline int64_t fault_chunk(void) {
    return 0;
}
static inline int fault_wrapped(void) {
    return 0;
}
static inline struct fault_run *fault_place(void) {
    return 0;
}
static inline void fault_pass(struct fault_run *to) {
    (void)to;
}

#endif

#endif
