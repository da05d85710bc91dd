/* SPDX-License-Identifier: MIT
 * model.h - a GGUF file opened for computing: hyper-parameters and weights by role.
 *
 * Matrices borrow the mapped file; vectors (norms, biases, frequency divisors) are copied as f32.
 * A model is read-only after model_open and may serve several contexts. */
#ifndef GGAUGE_MODEL_H
#define GGAUGE_MODEL_H

#include "base/arena.h"
#include "base/tensor.h"
#include "model/hparams.h"

/* Weights of one layer; NULL = the architecture or the file does not have it. */
struct layer {
    const struct tensor *attn_norm, *attn_q, *attn_k, *attn_v, *attn_output;
    const struct tensor *attn_q_bias, *attn_k_bias, *attn_v_bias, *attn_output_bias;
    const struct tensor *attn_q_norm, *attn_k_norm;
    const struct tensor *ffn_norm, *ffn_gate, *ffn_up, *ffn_down;
    const struct tensor *ffn_gate_bias, *ffn_up_bias, *ffn_down_bias;
};

struct model {
    struct gguf *g;
    struct hparams hp;
    const struct tensor *token_embd, *output_norm, *output; /* output = token_embd when tied */
    const struct tensor *rope_freqs;
    struct layer *layers;  /* [n_layer] */
    struct arena mem;      /* tensors and converted vectors */
    bool *used;            /* [n_tensors] tensors that the architecture asked for */
    int64_t n_params;      /* elements of all tensors */
    uint64_t n_bytes;      /* of all tensors */
    enum qtype main_type;  /* the type that holds most elements of matrices */
    const struct model_lister *lister; /* of model_list; NULL = weights are loaded */
};

int model_open(struct model *m, const char *path, struct err *e);
void model_close(struct model *m);

/* Whether t is one of the model's own tensors: a weight. */
bool model_has(const struct model *m, const struct tensor *t);

enum need { NEED_OPTIONAL, NEED_REQUIRED };

/* See model_list. fn gets each tensor, [n1, n0]; n1 is 1 for a vector. */
struct model_lister {
    int (*fn)(void *arg, const char *name, enum need need, int64_t n0, int64_t n1, struct err *e);
    void *arg;
};

/* Every tensor that a file with these hyper-parameters may hold, in the order in which a model asks
 * for them: what the architecture's own file says, for whoever writes one. fn returns negative to
 * stop. */
int model_list(const struct hparams *hp, const struct model_lister *l, struct err *e);

/* For arch_<name>.c: weight matrix [n_out, n_in], or vector [n], by name; layer tensors are
 * blk.<il>.<suffix>. *out = NULL if optional and absent. Wrong shapes and types that no column
 * computes with are errors that name the tensor. */
int model_matrix(struct model *m, int il, const char *suffix, enum need need, int64_t n_in,
                 int64_t n_out, const struct tensor **out, struct err *e);
int model_vector(struct model *m, int il, const char *suffix, enum need need, int64_t n,
                 const struct tensor **out, struct err *e);

#endif
