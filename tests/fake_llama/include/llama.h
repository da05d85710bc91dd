/* SPDX-License-Identifier: MIT
 * llama.h - of the fake engine: the part of the interface that harness/worker uses. Plain, it is
 * spelled as llama.cpp spells it today; with FAKE_OLD as llama.cpp did in 2024 and ik_llama.cpp in
 * part still does. */
#ifndef LLAMA_H
#define LLAMA_H

#include "ggml-backend.h"

struct llama_model;
struct llama_context;
struct llama_vocab;
typedef struct llama_memory *llama_memory_t;

struct llama_model_tensor_buft_override {
    const char *pattern;
    ggml_backend_buffer_type_t buft;
};

struct llama_model_params {
    int32_t n_gpu_layers;
#ifdef FAKE_OLD
    bool repack_tensors;
#else
    const struct llama_model_tensor_buft_override *tensor_buft_overrides;
#endif
};

enum llama_flash_attn_type {
    LLAMA_FLASH_ATTN_TYPE_AUTO = -1,
    LLAMA_FLASH_ATTN_TYPE_DISABLED = 0,
    LLAMA_FLASH_ATTN_TYPE_ENABLED = 1,
};

struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max;
    int32_t n_threads, n_threads_batch;
    enum ggml_type type_k, type_v;
    ggml_backend_sched_eval_callback cb_eval;
    void *cb_eval_user_data;
    bool offload_kqv;
#ifdef FAKE_OLD
    bool flash_attn;
    int mla_attn;
#else
    enum llama_flash_attn_type flash_attn_type;
    bool kv_unified;
#endif
};

struct llama_batch {
    int32_t n_tokens;
    int32_t *token;
    float *embd;
    int32_t *pos, *n_seq_id, **seq_id;
    int8_t *logits;
};

struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
void llama_backend_init(void);
void llama_backend_free(void);
void llama_log_set(void (*fn)(enum ggml_log_level level, const char *text, void *arg), void *arg);
void llama_free(struct llama_context *c);
uint64_t llama_model_size(const struct llama_model *m);
uint64_t llama_model_n_params(const struct llama_model *m);
int32_t llama_model_desc(const struct llama_model *m, char *buf, size_t n);
const char *llama_print_system_info(void);
struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
void llama_batch_free(struct llama_batch b);
int32_t llama_decode(struct llama_context *c, struct llama_batch b);
void llama_synchronize(struct llama_context *c);
float *llama_get_logits_ith(struct llama_context *c, int32_t i);

#ifdef FAKE_OLD
struct llama_model *llama_load_model_from_file(const char *path, struct llama_model_params p);
void llama_free_model(struct llama_model *m);
struct llama_context *llama_new_context_with_model(struct llama_model *m,
                                                   struct llama_context_params p);
int32_t llama_n_vocab(const struct llama_model *m);
int32_t llama_n_ctx_train(const struct llama_model *m);
void llama_kv_cache_clear(struct llama_context *c);
bool llama_kv_cache_seq_rm(struct llama_context *c, int32_t seq, int32_t p0, int32_t p1);
#else
struct llama_model *llama_model_load_from_file(const char *path, struct llama_model_params p);
void llama_model_free(struct llama_model *m);
struct llama_context *llama_init_from_model(struct llama_model *m, struct llama_context_params p);
const struct llama_vocab *llama_model_get_vocab(const struct llama_model *m);
int32_t llama_vocab_n_tokens(const struct llama_vocab *v);
int32_t llama_model_n_ctx_train(const struct llama_model *m);
llama_memory_t llama_get_memory(const struct llama_context *c);
void llama_memory_clear(llama_memory_t m, bool data);
bool llama_memory_seq_rm(llama_memory_t m, int32_t seq, int32_t p0, int32_t p1);
#endif

#endif
