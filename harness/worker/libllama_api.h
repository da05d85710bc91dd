/* SPDX-License-Identifier: MIT
 * libllama_api.h - one spelling of the engine's API for all its versions, from November 2024 on
 * (and of ik_llama.cpp from June 2025 on). Each choice is a line of libllama_config.h. */
#ifndef GGAUGE_LIBLLAMA_API_H
#define GGAUGE_LIBLLAMA_API_H

#include "libllama_config.h"

/* ggml reads GGUF files with a function of a name that we use, too; nobody here calls theirs. */
#define gguf_find_tensor engine_gguf_find_tensor
#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"
#undef gguf_find_tensor

#if LL_EVAL_RETURNS_INT
typedef int ll_eval_result;
#else
typedef bool ll_eval_result;
#endif
#define LL_EVAL (LL_EVAL_RETURNS_INT || LL_EVAL_RETURNS_BOOL)

static inline struct llama_model *ll_model_load(const char *path, struct llama_model_params p) {
#if LL_LOAD_FROM_FILE
    return llama_model_load_from_file(path, p);
#else
    return llama_load_model_from_file(path, p);
#endif
}

static inline void ll_model_free(struct llama_model *m) {
#if LL_MODEL_FREE
    llama_model_free(m);
#else
    llama_free_model(m);
#endif
}

static inline struct llama_context *ll_context_new(struct llama_model *m,
                                                   struct llama_context_params p) {
#if LL_INIT_FROM_MODEL
    return llama_init_from_model(m, p);
#else
    return llama_new_context_with_model(m, p);
#endif
}

static inline int32_t ll_n_vocab(const struct llama_model *m) {
#if LL_VOCAB
    return llama_vocab_n_tokens(llama_model_get_vocab(m));
#else
    return llama_n_vocab(m);
#endif
}

static inline int32_t ll_n_ctx_train(const struct llama_model *m) {
#if LL_MODEL_N_CTX_TRAIN
    return llama_model_n_ctx_train(m);
#else
    return llama_n_ctx_train(m);
#endif
}

static inline void ll_kv_clear(struct llama_context *c) {
#if LL_MEMORY
    llama_memory_clear(llama_get_memory(c), true);
#elif LL_KV_SELF
    llama_kv_self_clear(c);
#else
    llama_kv_cache_clear(c);
#endif
}

/* Positions >= pos of a sequence; false where the model's state cannot forget a part. */
static inline bool ll_kv_seq_rm(struct llama_context *c, int32_t seq, int32_t pos) {
#if LL_MEMORY
    return llama_memory_seq_rm(llama_get_memory(c), seq, pos, -1);
#elif LL_KV_SELF
    return llama_kv_self_seq_rm(c, seq, pos, -1);
#else
    return llama_kv_cache_seq_rm(c, seq, pos, -1);
#endif
}

/* Backends that are plug-ins. */
static inline void ll_backends_load(void) {
#if LL_BACKEND_LOAD_ALL
    ggml_backend_load_all();
#endif
}

/* Buffer types by index, NULL behind the last. */
static inline ggml_backend_buffer_type_t ll_buffer_type(size_t i) {
#if LL_DEVICES
    return i < ggml_backend_dev_count() ? ggml_backend_dev_buffer_type(ggml_backend_dev_get(i)) : 0;
#elif LL_REGISTRY
    return i < ggml_backend_reg_get_count() ? ggml_backend_reg_get_default_buffer_type(i) : 0;
#else
    (void)i;
    return 0;
#endif
}

#endif
