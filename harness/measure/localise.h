/* SPDX-License-Identifier: MIT
 * localise.h - where two arms part: the first operation that is wrong, and which arm's.
 *
 * Both arms run one window, or some together, from an empty cache. A's nodes are captured; B runs
 * with every node compared and then forced to A's data, so that each node is seen on equal inputs
 * and errors do not add up. A judge (judge.h) computes rows of every node once more with ref, from
 * the same inputs, and so says which arm is wrong and by how much of the limit of its cell
 * (limits.h). Every position is asked for, so that all nodes have a row per token.
 *
 * The window should be no longer than shows the difference: at -ub 1 every token is a run per node.
 *
 * Not thread safe; the arms are the caller's and are left unobserved with an empty cache. */
#ifndef GGAUGE_LOCALISE_H
#define GGAUGE_LOCALISE_H

#include "arm/arm.h"
#include "measure/limits.h"
#include "measure/op_error.h"

struct capsule; /* capsule.h */
struct op_report;

/* A layer whose own error is this many times the median layer's is looked at first. */
#define LAYER_SUSPICIOUS 10.0

struct localise_params {
    struct arm *a, *b;
    const char *model_a, *model_b; /* GGUF files; model_b = NULL: A's */
    const int32_t *token;  /* [n_seq][n_ctx] as fed, each window from position 0 on */
    const int32_t *target; /* [n_seq][n_ctx] what each position should predict */
    int n_seq;             /* windows that go together in a batch, as they did when they differed;
                            * 0 = 1 */
    int n_ctx, first, end; /* scored positions [first, end) */
    /* nll of the scored positions in the runs that differed, [n_seq][end - first]; NULL = not
     * known, then whether the difference survives is judged from a run of its own. */
    const double *nll_a, *nll_b;
    size_t max_bytes;     /* captured activations; 0 = 512 MiB */
    bool unforced;        /* an arm cannot be forced: only how the difference grows from layer to
                           * layer */
    double judge_seconds; /* about what the judge may take in all; 0 = 2 */
    int n_threads;        /* of the judge; 0 = all processors */
    void (*progress)(void *arg, const char *what); /* may be NULL */
    /* For measuring limits, or NULL: the judged rows of one arm (WRONG_A or WRONG_B) at one node,
     * f32 [n, n_cols] each. */
    int (*judged)(void *arg, const struct op_report *r, int arm, const float *got,
                  const float *expected, int64_t n, int64_t n_cols, struct err *e);
    void *arg; /* of both */
};

/* What is wrong with the first bad node. */
/*    kind             name                  meaning */
#define FINDING_LIST(X)                                                                            \
    X(NONE,            "none",               "no operation is outside of its limit")               \
    X(DEQUANTISATION,  "dequantisation",     "the weights that the product uses are not "          \
                                             "those of the file")                                  \
    X(PRODUCT,         "product",            "weights and activations are right, their "           \
                                             "product is not")                                     \
    X(ACTIVATION,      "activation",         "the rounding of the product's activations is wrong") \
    X(OPERATION,       "operation",          "an operation without weights is wrong")              \
    X(NONFINITE,       "non-finite",         "a NaN or infinity out of finite numbers")            \
    X(WEIGHTS,         "weights differ",     "the files hold other weights of the same type")      \
    X(FORMAT,          "format difference",  "the files hold the tensor in different types")       \
    X(NODE_MISSING,    "node missing",       "one arm does not compute this node")                 \
    X(NOT_REPRODUCIBLE, "not reproducible",  "the difference does not survive observation "        \
                                             "or repetition")

enum finding {
#define X(name, ...) FINDING_##name,
    FINDING_LIST(X)
#undef X
    FINDING_count,
};
const char *finding_name(enum finding f);
const char *finding_meaning(enum finding f);

enum { WRONG_A = 1, WRONG_B = 2 }; /* flags */

struct op_src {
    char name[TENSOR_NAME_MAX];
    enum qtype type;
    int64_t ne[2];
    bool weight; /* of the file, not computed */
};

/* One node: its key is (name, occurrence). */
struct op_report {
    char name[TENSOR_NAME_MAX];
    int occurrence, il; /* il = -1: outside of layers */
    enum op op;
    struct op_src src[OP_MAX_SRC]; /* name[0] = 0: absent */
    int64_t n_rows, n_cols;        /* of the result, over the window */
    char cell_a[48], cell_b[48];   /* "iq4_kt@avx2", "attn@avx2", "iq4_kt@NAME" of another engine */
    bool seen_a, seen_b;
    struct op_error own;      /* B against A, on A's inputs */
    struct op_error acc;      /* B against A, nothing forced */
    struct op_error err_a, err_b; /* against the judge on the same inputs and rounded activations */
    struct op_limit limit_a, limit_b;
    const char *known_a, *known_b; /* over the limit of its cell, but so the engine is: why; or
                                    * NULL */
    int64_t n_judged;         /* rows */
    int wrong;                /* WRONG_A | WRONG_B by the judge */
    enum finding files;       /* WEIGHTS or FORMAT if its weights differ between the files */
};

/* A weight of a probed product, as the arm uses it and as the file has it. */
struct probe_weight {
    int64_t row, col;
    float used, expected; /* with the type's gain */
};

struct finding_detail {
    enum finding kind;
    int wrong;           /* WRONG_A | WRONG_B */
    int node;            /* index in nodes, -1 for NONE and NOT_REPRODUCIBLE */
    int64_t seq, token;  /* window and position of the worst row, or of the first not finite */
    int64_t col;         /* worst column of the result = row of the weight */
    int64_t tile;        /* col / 32 */
    int64_t n_rows_checked, n_bad_rows; /* of some rows, the worst among them: over the limit */
    int64_t n_bad_cols;                 /* columns that are over it in any of them */
    int64_t block;       /* of the weight's row, in blocks of `block_size`; -1 = not known */
    int64_t block_size;
    int64_t n_wrong_weights; /* of the probed ones */
    int64_t n_probed;
    struct probe_weight weight; /* the worst, if n_wrong_weights > 0 */
    char tensor[TENSOR_NAME_MAX]; /* WEIGHTS, FORMAT: which, and its first differing byte */
    uint64_t byte, n_bytes_differ;
    enum qtype type_a, type_b;
    char note[256];      /* what else is known, a sentence; may be empty */
};

struct localise {
    struct op_report *nodes; /* [n_nodes] in run order */
    int n_nodes;
    int n_layer;
    /* [n_layer]: l_out of B against A with the layer before forced, and without forcing. */
    struct op_error *layer_own, *layer_acc;
    /* Mean |nll - observed nll| of B, and of B - A before and under observation. */
    double max_nll_change_a, max_nll_change_b;
    double mean_d, mean_d_observed; /* nll_B - nll_A over the scored positions */
    bool unforced;       /* nothing was forced: only layer_acc and acc are known, and nobody is
                          * blamed */
    int n_examined;      /* nodes that both arms show, compared on equal inputs; others were not
                          * reached */
    int n_hidden;        /* nodes that one arm does not show: ref makes them where later ones need
                          * them */
    struct finding_detail first;
    struct capsule *capsule; /* of the first bad node; NULL for NONE */
    double seconds;
};

/* ERR_UNSUPPORTED if an arm cannot be observed, ERR_MISMATCH if the models' graphs differ. */
int localise_run(struct localise **out, const struct localise_params *p, struct err *e);
void localise_free(struct localise *l); /* NULL is allowed */

#endif
