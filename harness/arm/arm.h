/* SPDX-License-Identifier: MIT
 * arm.h - all that a measurement sees of an engine: token batches in, answers out.
 *
 * An arm answers at the level asked for and reduces on its own side, so that a vocabulary of
 * 150,000 logits is never copied unless its logits are asked for. Kinds of arm share this
 * interface: builtin.c (our engine on a backend column); worker processes and saved files have
 * their own. Another engine is a worker too: harness/worker/ serves llama.cpp and ik_llama.cpp. */
#ifndef GGAUGE_ARM_H
#define GGAUGE_ARM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "exec/batch.h"

struct row; /* result/row.h */

enum arm_kind {
    ARM_BUILTIN, /* our engine in this process */
    ARM_WORKER,  /* our engine in a process of its own, ours or another build's */
    ARM_FILE,    /* logits saved earlier */
    ARM_TOOL,    /* a program that prints the perplexities of chunks: no arm, compare reads it */
};

/* What other engines have; text as on their command line, NULL = the engine's own default. An
 * engine that lacks one says so when it is given. Ours has rtr: weights are packed for single
 * tokens (exec/repack.h). */
#define ARM_ENGINE_LIST(X)                                                                         \
    X(ngl)  /* layers on accelerators */                                                           \
    X(ot)   /* "regex=buffer type,...": where tensors go */                                        \
    X(fa)   /* flash attention: on, off, auto */                                                   \
    X(mla)  /* ik_llama.cpp: how multi-head latent attention is computed */                        \
    X(amb)  /* ik_llama.cpp: MiB that attention may take */                                        \
    X(fmoe) /* ik_llama.cpp: fused experts, on or off */                                           \
    X(fug)  /* ik_llama.cpp: fused up and gate of a dense layer, on or off */                      \
    X(rtr)  /* copies of weights: ours for single tokens, ik_llama.cpp's of interleaved rows */    \
    X(nkvo) /* keep the cache off accelerators */

struct arm_engine {
#define X(name) const char *name;
    ARM_ENGINE_LIST(X)
#undef X
};

#define ARM_RULES_MAX 16

/* Values of an option that may be given several times. */
struct arm_rules {
    int n;
    const char *v[ARM_RULES_MAX];
};

/* How to build an arm; the fields mean what the llama.cpp options of these names mean. */
struct arm_params {
    enum arm_kind kind;
    const char *path;      /* ARM_WORKER, ARM_TOOL: its program, NULL = this one; ARM_FILE: saved
                            * logits */
    const char *launch;    /* ARM_WORKER: words in front of the program ("ssh host"), or NULL */
    int timeout_s;         /* ARM_WORKER: longest wait for one answer; 0 = 600 */
    const char *model;     /* -m */
    const char *backend;   /* --backend: a column, NULL = the best CPU column */
    /* With the backend cuda; place.h says what they mean. */
    const char *cpu_backend;  /* --cpu-backend: of what stays on the CPU, NULL = the best column */
    const char *n_gpu_layers; /* -ngl: layers on devices, NULL = all and what is around them */
    const char *tensor_split; /* -ts: shares of devices, NULL = all on main_gpu */
    int main_gpu;             /* -mg */
    struct arm_rules rules;   /* -ot: "regex=CPU", "regex=CUDA0"; the first match wins */
    const char *act_like;  /* --act-like: column whose rounded activations ref is given, or NULL */
    const char *weights_as; /* builtin ref: column whose rounded weights it takes, or NULL */
    int n_ctx;             /* positions per sequence; 0 = what the model was trained for */
    int n_seq;             /* sequences that can be alive together */
    int n_batch;           /* -b: most tokens in one arm_decode */
    int n_ubatch;          /* -ub: most tokens computed at a time */
    int n_threads;         /* -t: for single tokens; 0 = all processors */
    int n_threads_batch;   /* -tb: for batches; 0 = as n_threads */
    bool huge_pages;       /* -thp: weights are copied into huge pages, where there is room */
    const char *numa;      /* --numa: where threads and memory go (exec/topology.h);
                            * NULL = anywhere */
    const char *type_k;    /* -ctk: f32, f16, q8_0 (another engine: what it has); NULL = f16 */
    const char *type_v;    /* -ctv */
    const char *fault;     /* --fault: a seeded fault (base/fault.h), NULL = none */
    bool foreign;          /* ARM_WORKER: the program serves another engine */
    struct arm_engine engine;
};

/* See harness/exec/observer.h; an arm that cannot show its nodes refuses a non-NULL observer. */
struct observer;

/* What an arm promises of its logits when -ub, -b and the threads change. */
enum arm_promise {
    ARM_BITWISE,  /* not a bit changes */
    ARM_NOISE,    /* they differ by rounding */
    ARM_RECORDED, /* nothing can be changed: they are in a file */
};

/* What every arm knows of its model; fixed after opening. */
struct arm_info {
    enum arm_promise promise;
    int32_t n_vocab, n_ctx_train;
    int n_ctx, n_seq, n_batch, n_ubatch, n_threads, n_threads_batch;
    int n_gpu_layers; /* layers on devices, with the output as one more; 0 of arms elsewhere */
    int64_t n_chunks; /* ARM_RECORDED: windows of the text that it has, from the first on; else 0 */
    int64_t n_params;
    uint64_t model_bytes;    /* of all tensors */
    uint64_t repacked_bytes; /* of the weights that this program copied for -rtr */
    double bpw;
    char arch[32], qtype[32], type_k[16], type_v[16], backend[16];
    char name[256];        /* general.name, or the file name */
    char desc[80];         /* as llama-bench's model column: "llama 8B IQ4_KT" */
};

struct tok;
struct nvml;

struct arm {
    const struct arm_ops *ops;
    struct arm_info info;
    /* Of an arm that computes elsewhere, after a decode: how long that took there, and the most
     * memory it has had resident; 0 = the caller's own clock and process tell. */
    int64_t decode_ns, rss_bytes;
    struct nvml *cards; /* on which it computes in this process (exec/nvml.h), its own; mostly
                         * NULL */
    const struct tok *tok; /* of the model, owned by the arm; NULL if the file has no vocabulary */
};

/* One held row, reduced on the arm's side: what the logits of one position say. */
struct arm_row {
    int64_t r;           /* 0 = the first row held */
    double nll;          /* -ln softmax(logits)[target]; NaN if a logit is not finite */
    double max, lse;     /* as in struct arm_answer */
    float second;        /* largest logit beside top1's: max - second is top1's margin */
    int32_t top1;
    int32_t bad;         /* first token whose logit is not finite, or -1 */
    const float *logits; /* [n_vocab] if asked for, else NULL; valid during the call only */
};
typedef int (*arm_row_fn)(void *arg, const struct arm_row *row, struct err *e);

struct arm_ops {
    void (*release)(struct arm *a);
    int (*decode)(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e);
    /* As decode, but the wanted rows are held for rows() instead of being answered: behind those
     * that are held already if `append`, in their place otherwise. Two arms can so be asked for
     * the same rows in turn, and neither keeps [rows, n_vocab] of anything. */
    int (*hold)(struct arm *a, const struct arm_batch *b, bool append, struct err *e);
    /* Held rows [r0, r0 + n) in order, with the nll of target[0..n); logits only if asked for. */
    int (*rows)(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e);
    /* Forget positions >= pos of a sequence; seq = -1: of all sequences. */
    int (*kv_trim)(struct arm *a, int32_t seq, int32_t pos, struct err *e);
    int (*observe)(struct arm *a, struct observer *o, struct err *e); /* NULL switches it off */
    /* Fill the engine and model fields of a result row. */
    int (*describe)(const struct arm *a, struct row *r, struct err *e);
};

/* The arm that the parameters describe: by kind, and arm_open_act_like if act_like is set. */
int arm_open(struct arm **out, const struct arm_params *p, struct err *e);

/* The embedded engine on one column. */
int arm_open_builtin(struct arm **out, const struct arm_params *p, struct err *e);

/* The engine of another process (worker.c). A process that dies, hangs, or does not speak the
 * protocol is ERR_ARM with a message that begins "arm": "arm died: signal 11"; "arm does not
 * answer: ..."; "arm broke the protocol: ...". Observers see nodes without the data of their
 * sources. tok is NULL if this program cannot read the model's file. */
int arm_open_worker(struct arm **out, const struct arm_params *p, struct err *e);
/* The same for a worker that is there already (tests, fuzzing): `in` and `out_fd` are O_NONBLOCK
 * and belong to the arm, also when this fails, but for ERR_ARG and ERR_NOMEM. */
int arm_attach_worker(struct arm **out, int in, int out_fd, const struct arm_params *p,
                      struct err *e);

/* Logits saved as kld_file.h says (file.c): log-probabilities, for whole chunks of the file's n_ctx
 * and its scored positions only; position 0 may hold a BOS that the file does not. Tokens that the
 * file does not have are ERR_MISMATCH. A record with a NaN gives rows of NaN. p->model is optional:
 * its vocabulary becomes tok. n_ctx = 0 is the file's, another one ERR_MISMATCH. No observers. */
int arm_open_file(struct arm **out, const struct arm_params *p, struct err *e);

/* ref, with the rounding of activations of another column (act_like.c). No observers. */
int arm_open_act_like(struct arm **out, const struct arm_params *p, struct err *e);

void arm_close(struct arm *a); /* NULL is allowed */

/* Equal bits of everything that two rows say of their logits, which stands for equal logits. The
 * nll is left out: it depends on the target, too. */
bool arm_row_same(const struct arm_row *a, const struct arm_row *b);

/* For the arms themselves: the tokenizer of a model file, NULL if it has none or, with a warning,
 * one that cannot be used. */
struct gguf;
struct tok *arm_load_tok(const struct gguf *g, const char *path);

/* For the arms themselves: answer a of held row r as a struct arm_row. */
void arm_reduce(struct arm_row *out, int64_t r, const struct arm_answer *a, int32_t n_vocab,
                int32_t target, bool logits);

static inline int arm_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                             struct err *e) {
    return a->ops->decode(a, b, fn, arg, e);
}
static inline int arm_hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    return a->ops->hold(a, b, append, e);
}
static inline int arm_rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                           arm_row_fn fn, void *arg, struct err *e) {
    return a->ops->rows(a, r0, n, target, logits, fn, arg, e);
}
static inline int arm_kv_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    return a->ops->kv_trim(a, seq, pos, e);
}
static inline int arm_observe(struct arm *a, struct observer *o, struct err *e) {
    return a->ops->observe(a, o, e);
}
/* For describe: the fields of a row that an arm's info has. */
int arm_info_row(const struct arm_info *i, struct row *r, struct err *e);
static inline int arm_describe(const struct arm *a, struct row *r, struct err *e) {
    return a->ops->describe(a, r, e);
}

#endif
