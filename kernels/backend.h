/* SPDX-License-Identifier: MIT
 * backend.h - the columns of both tables: which exist, what this machine can run, who serves a
 * cell.
 *
 * A column without a cell of its own uses its parent's; ref and cuda have no parent, so a hole in
 * cuda means UNSUPPORTED and work never moves to another device in silence.
 *
 * amx_requant is for speed at the price of the weights' last bits: with many tokens its cells round
 * them to 8 bits again, as other engines do. It is a column of its own, so that every row says so,
 * and nobody gets it without asking. */
#ifndef GGAUGE_BACKEND_H
#define GGAUGE_BACKEND_H

#include "op.h"
#include "peak_cell.h"

/*    column       parent  by name only  needs */
#define BACKEND_LIST(X)                                                                            \
    X(ref,         none,   false,        "nothing")                                                \
    X(avx2,        ref,    false,        "AVX2, FMA, F16C")                                        \
    X(avx512,      avx2,   false,        "AVX-512 F, BW, DQ, VL, VNNI, VBMI")                      \
    X(amx,         avx512, false,        "AMX int8 and bf16 tiles")                                \
    X(amx_requant, amx,    true,         "AMX int8 and bf16 tiles")                                \
    X(cuda,        none,   false,        "an NVIDIA GPU and libggauge-cuda.so")

enum column {
    COL_none = -1,
#define X(name, ...) COL_##name,
    BACKEND_LIST(X)
#undef X
    COL_count,
};

const char *column_name(enum column c);
enum column column_from_name(const char *name); /* COL_none if there is none */
const char *column_needs(enum column c);
/* True if the machine and this build can run the column; column_check says why not. */
bool column_available(enum column c);
int column_check(enum column c, struct err *e);
/* Whether its cells are functions of this program that run on host memory (cuda's are not). */
static inline bool column_is_cpu(enum column c) {
    return c >= COL_ref && c < COL_cuda;
}
/* Whether this machine can run it, it computes on the CPU and is not by name only. */
bool column_goes_unasked(enum column c);
/* The last of these. */
enum column column_best_cpu(void);

/* The cell that serves type t in column c, walking up the parents; *found (may be NULL) says whose
 * it is. NULL if there is none. need_mul_mat skips cells without mul_mat (ref has none: its op
 * multiplies any pair of types through dequant_row). */
const struct qkernel *qkernel_find(enum column c, enum qtype t, bool need_mul_mat,
                                   enum column *found);
/* The cell that multiplies n_tok tokens by rows of n weights of type t in column c: as qkernel_find
 * with need_mul_mat, but a cell that wants more tokens or other rows leaves them to its parent. */
const struct qkernel *qkernel_for(enum column c, enum qtype t, int64_t n, int64_t n_tok,
                                  enum column *found);
/* True if column c has a cell of its own for type t / op. */
bool qtype_has_cell(enum column c, enum qtype t);
bool op_has_cell(enum column c, enum op op);
/* Fewest tokens that column c's own cell of an op takes (min_tokens of struct op_cell); 0 = any. */
int64_t op_min_tokens(enum column c, enum op op);

/* Most tokens for which a device streams weights: those of generation. */
#define DEVICE_FEW_TOKENS 8

/* What cell q promises for a product of n_tok tokens. */
static inline double qkernel_promise(const struct qkernel *q, int64_t n_tok) {
    return n_tok > DEVICE_FEW_TOKENS && q->tol_nmse_many > 0 ? q->tol_nmse_many : q->tol_nmse;
}

/* Tokens by which the cell of a mul_mat or attn node is chosen. */
#define TOKENS_MANY INT64_MAX
static inline int64_t node_tokens(const struct node *n) {
    if (n->op == OP_attn) return n->p.attn.n_tok_as ? n->p.attn.n_tok_as : tensor_rows(n->src[0]);
    return n->p.mul_mat.n_tok_as ? n->p.mul_mat.n_tok_as : tensor_rows(n->src[1]);
}

/* The cell that multiplies in mul_mat node n, as qkernel_for. */
static inline const struct qkernel *node_qkernel(enum column c, const struct node *n,
                                                 enum column *found) {
    return qkernel_for(c, (enum qtype)n->src[0]->type, n->src[0]->ne[0], node_tokens(n), found);
}

/* The op cell that serves node n in column c. mul_mat is served by the column that has a mul_mat
 * for the weight's type and this many tokens, attn by one whose cell is for this many. */
const struct op_cell *op_cell_find(enum column c, const struct node *n, enum column *found);

/* The chain that begins at nodes [n] and that column c, or the parent that all its products are
 * left to, computes at once; or NULL. */
const struct chain_cell *chain_cell_find(enum column c, const struct node *const *nodes, int n);

/* The loop that measures peak p in column c, walking up the parents; *found (may be NULL) says
 * whose it is. NULL if there is none. */
const struct peak_cell *peak_cell_find(enum column c, enum peak p, enum column *found);

/* One device that runs graphs. The CPU columns share one implementation (cpu.c), cuda is cuda.c.
 *
 * Nodes name memory of the host. A device has images of ranges of it (cuda_plugin.h); for a CPU
 * column memory is its own image, and the calls about images do nothing. */
struct backend {
    const struct backend_ops *ops;
    enum column col;
    void *impl; /* owned by the implementation */
};

/* Page-locking is by whole pages, of any size a machine has, which nobody else may have a part
 * of. */
#define EXCHANGE_ALIGN ((size_t)64 << 10)

struct backend_ops {
    void (*release)(struct backend *b);
    /* Give host memory [p, p + n_bytes) an uninitialised image; ERR_NOMEM says what to lower.
     * `what` names it in messages. */
    int (*mirror)(struct backend *b, const void *p, size_t n_bytes, const char *what,
                  struct err *e);
    /* The same for memory that goes back and forth all the time; both p and n_bytes are best
     * multiples of EXCHANGE_ALIGN. */
    int (*exchange)(struct backend *b, const void *p, size_t n_bytes, const char *what,
                    struct err *e);
    void (*unmirror)(struct backend *b, const void *p);
    /* Copy bytes of one image from the host, or to it. After push the host's bytes may be changed;
     * pull returns when they are there. From pull_begin to pull_end nobody touches them. In order
     * with what runs: see cuda_plugin.h. */
    int (*push)(struct backend *b, const void *p, size_t n_bytes, struct err *e);
    int (*pull)(struct backend *b, void *p, size_t n_bytes, struct err *e);
    int (*pull_begin)(struct backend *b, void *p, size_t n_bytes, struct err *e);
    int (*pull_end)(struct backend *b, const void *p, struct err *e);
    int (*synchronize)(struct backend *b, struct err *e);
    bool (*supports)(const struct backend *b, const struct node *n);
    /* Run n nodes in order on n_threads threads (of the CPU); results are complete, in the images,
     * after synchronize. whole: nobody but these nodes reads what they only hand to each other, so
     * it need not be written. key != 0: see run in cuda_plugin.h. */
    int (*run)(struct backend *b, const struct node *const *nodes, int n, int n_threads, bool whole,
               uint64_t key, struct err *e);
};

/* A backend of column c, for cuda of its first device. The pool, which the CPU columns need, is
 * kept alive by the caller. ERR_UNSUPPORTED if the machine cannot run the column. */
int backend_init(struct backend *b, enum column c, struct thread_pool *pool, struct err *e);
int backend_cpu_init(struct backend *b, enum column c, struct thread_pool *pool, struct err *e);
static inline void backend_release(struct backend *b) {
    if (b->ops) b->ops->release(b);
    b->ops = NULL;
}

/* ---- cuda.c ---------------------------------------------------------------------------------- */

struct cuda_info;

/* 0 if the plug-in is there and knows a device, else ERR_UNSUPPORTED with the reason. The plug-in
 * is the file that GGAUGE_CUDA_PLUGIN names, or libggauge-cuda.so beside the program or where the
 * linker looks; it is opened once. */
int cuda_available(struct err *e);
int cuda_device_count(void); /* 0 if not available */
/* PCI address of a device that need not be open: "0000:17:00.0". */
int cuda_bus_id(int index, char *buf, size_t n_bytes, struct err *e);
int backend_cuda_init(struct backend *b, int index, struct err *e);
/* Facts of the device of a cuda backend. */
int backend_cuda_info(const struct backend *b, struct cuda_info *info, struct err *e);
/* What the first device can do: multiply-adds a second, or bytes that a copy reads and writes. */
int cuda_peak(enum peak p, double *per_second, struct err *e);
/* Device seconds of what ran between two marks, 0 before and 1 behind it. */
int backend_cuda_mark(const struct backend *b, int which, struct err *e);
int backend_cuda_elapsed(const struct backend *b, double *seconds, struct err *e);

#endif
