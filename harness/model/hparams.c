/* SPDX-License-Identifier: MIT
 * hparams.c - keys of a GGUF file to hyper-parameters; see hparams.h. */
#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bounds that no real model comes near; they keep every later product far from overflow. */
#define DIM_MAX (INT64_C(1) << 24)
#define LAYERS_MAX 4096

struct keys {
    const struct gguf *g;
    const char *arch;
    char key[128];
};

static const char *arch_key(struct keys *k, const char *name) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, name);
    return k->key;
}

/* A whole number, or an array that holds the same number for every layer. */
static int get_dim(struct keys *k, const char *name, bool required, int64_t max, int64_t *out,
                   struct err *e) {
    int rc = 0;
    const char *key = arch_key(k, name);
    const struct gguf_kv *kv = gguf_find(k->g, key);
    FAIL_IF(!kv && required, e, ERR_MISSING, "key %s is missing", key);
    if (!kv) return 0;
    int64_t v = 0;
    if (kv->type == GGUF_ARRAY) {
        FAIL_IF(kv->elem_type == GGUF_STRING || kv->count == 0, e, ERR_FORMAT,
                "key %s: expected a number or an array of numbers", key);
        v = gguf_kv_i64(kv, 0);
        for (uint64_t i = 1; i < kv->count; i++)
            FAIL_IF(gguf_kv_i64(kv, i) != v, e, ERR_UNSUPPORTED,
                    "key %s differs between layers, which this build does not run", key);
    } else {
        TRY(gguf_get_i64(k->g, key, &v, e));
    }
    FAIL_IF(v < 0 || v > max, e, ERR_FORMAT, "key %s: %lld is outside of 0 to %lld", key,
            (long long)v, (long long)max);
    *out = v;
    rc = 0;
out:
    return rc;
}

static int get_real(struct keys *k, const char *name, bool required, double *out, struct err *e) {
    int rc = 0;
    const char *key = arch_key(k, name);
    TRY(gguf_get_f64(k->g, key, out, e));
    FAIL_IF(rc == 0 && required, e, ERR_MISSING, "key %s is missing", key);
    FAIL_IF(!isfinite(*out), e, ERR_FORMAT, "key %s is not a finite number", key);
    rc = 0;
out:
    return rc;
}

static int load_arch(struct hparams *hp, const struct gguf *g, char *name, size_t cap,
                     struct err *e) {
    int rc = 0;
    struct gguf_str s = { 0 };
    TRY(gguf_get_str(g, "general.architecture", &s, e));
    FAIL_IF(rc == 0, e, ERR_MISSING, "key general.architecture is missing");
    rc = 0;
    FAIL_IF(s.n >= cap, e, ERR_FORMAT, "key general.architecture is %zu bytes long", s.n);
    memcpy(name, s.p, s.n);
    name[s.n] = '\0';
    for (int a = 0; a < ARCH_count; a++) {
        hp->arch = (enum arch)a;
        if (strcmp(name, arch_ops(hp->arch)->name) == 0) goto out;
    }
    FAIL_IF(true, e, ERR_UNSUPPORTED, "architecture '%s' is not one that this build runs", name);
out:
    return rc;
}

static int load_rope(struct hparams *hp, struct keys *k, struct err *e) {
    int rc = 0;
    hp->rope_freq_base = 10000.0;
    TRY(get_real(k, "rope.freq_base", false, &hp->rope_freq_base, e));
    double factor = 0;
    TRY(get_real(k, "rope.scale_linear", false, &factor, e));
    TRY(get_real(k, "rope.scaling.factor", false, &factor, e));
    FAIL_IF(factor < 0 || hp->rope_freq_base <= 0, e, ERR_FORMAT,
            "rope: frequency base %g and scaling factor %g must be positive", hp->rope_freq_base,
            factor);
    hp->rope_freq_scale = factor == 0 ? 1.0 : 1.0 / factor;
    hp->rope_attn_factor = 1.0;
    TRY(get_real(k, "rope.scaling.attn_factor", false, &hp->rope_attn_factor, e));
    hp->n_ctx_orig = hp->n_ctx_train;
    TRY(get_dim(k, "rope.scaling.original_context_length", false, DIM_MAX, &hp->n_ctx_orig, e));

    struct gguf_str type = { "linear", 6 };
    TRY(gguf_get_str(k->g, arch_key(k, "rope.scaling.type"), &type, e));
    rc = 0;
    if (type.n == 4 && !memcmp(type.p, "none", 4)) {
        hp->rope_scaling = ROPE_SCALING_NONE;
        hp->rope_freq_scale = 1.0;
    } else if (type.n == 4 && !memcmp(type.p, "yarn", 4)) {
        hp->rope_scaling = ROPE_SCALING_YARN;
    } else {
        FAIL_IF(type.n != 6 || memcmp(type.p, "linear", 6), e, ERR_UNSUPPORTED,
                "rope scaling type '%.*s' is not none, linear or yarn", (int)type.n, type.p);
        hp->rope_scaling = ROPE_SCALING_LINEAR;
    }
out:
    return rc;
}

static int check(const struct hparams *hp, struct err *e) {
    int rc = 0;
    FAIL_IF(hp->n_layer < 1 || hp->n_embd < 1 || hp->n_head < 1 || hp->n_head_kv < 1, e, ERR_FORMAT,
            "layers, embedding length and heads must be positive");
    FAIL_IF(hp->n_embd_head_k < 1 || hp->n_embd_head_v < 1 || hp->n_ff < 1 || hp->n_ctx_train < 1,
            e, ERR_FORMAT, "head sizes, feed-forward length and context length must be positive");
    FAIL_IF(hp->n_head % hp->n_head_kv, e, ERR_FORMAT,
            "%lld heads cannot be shared evenly by %lld kv heads", (long long)hp->n_head,
            (long long)hp->n_head_kv);
    FAIL_IF(hp->n_rot < 2 || hp->n_rot % 2 || hp->n_rot > hp->n_embd_head_k, e, ERR_FORMAT,
            "rope.dimension_count %lld must be even and at most the head size %lld",
            (long long)hp->n_rot, (long long)hp->n_embd_head_k);
    FAIL_IF(!(hp->rms_eps >= 0), e, ERR_FORMAT, "the norm's epsilon %g is negative", hp->rms_eps);
out:
    return rc;
}

int hparams_load(struct hparams *hp, const struct gguf *g, struct err *e) {
    int rc = 0;
    char name[64];
    memset(hp, 0, sizeof *hp);
    TRY(load_arch(hp, g, name, sizeof name, e));
    struct keys k = { .g = g, .arch = name };
    TRY(get_dim(&k, "block_count", true, LAYERS_MAX, &hp->n_layer, e));
    TRY(get_dim(&k, "context_length", true, DIM_MAX, &hp->n_ctx_train, e));
    TRY(get_dim(&k, "embedding_length", true, DIM_MAX, &hp->n_embd, e));
    TRY(get_dim(&k, "feed_forward_length", true, DIM_MAX, &hp->n_ff, e));
    TRY(get_dim(&k, "attention.head_count", true, DIM_MAX, &hp->n_head, e));
    hp->n_head_kv = hp->n_head;
    TRY(get_dim(&k, "attention.head_count_kv", false, DIM_MAX, &hp->n_head_kv, e));
    if (hp->n_head > 0) hp->n_embd_head_k = hp->n_embd_head_v = hp->n_embd / hp->n_head;
    TRY(get_dim(&k, "attention.key_length", false, DIM_MAX, &hp->n_embd_head_k, e));
    TRY(get_dim(&k, "attention.value_length", false, DIM_MAX, &hp->n_embd_head_v, e));
    hp->n_rot = hp->n_embd_head_k;
    TRY(get_dim(&k, "rope.dimension_count", false, DIM_MAX, &hp->n_rot, e));
    TRY(get_real(&k, "attention.layer_norm_rms_epsilon", true, &hp->rms_eps, e));
    int64_t n_expert = 0;
    TRY(get_dim(&k, "expert_count", false, DIM_MAX, &n_expert, e));
    FAIL_IF(n_expert > 0, e, ERR_UNSUPPORTED,
            "a %s model with %lld experts is not one that this build runs", name,
            (long long)n_expert);
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    if (tokens && tokens->type == GGUF_ARRAY) hp->n_vocab = (int64_t)tokens->count;
    TRY(get_dim(&k, "vocab_size", false, DIM_MAX, &hp->n_vocab, e));
    TRY(load_rope(hp, &k, e));
    TRY(check(hp, e));
out:
    return rc;
}

void hparams_print(const struct hparams *hp, void (*fn)(void *arg, const char *line), void *arg) {
    static const char *const scaling[] = { "none", "linear", "yarn" };
    char line[128];
#define PRINT(fmt, name, value)                                                                    \
    do {                                                                                           \
        snprintf(line, sizeof line, "%-18s = " fmt, name, value);                                  \
        fn(arg, line);                                                                             \
    } while (0)
    PRINT("%s", "arch", arch_ops(hp->arch)->name);
    PRINT("%lld", "n_vocab", (long long)hp->n_vocab);
    PRINT("%lld", "n_ctx_train", (long long)hp->n_ctx_train);
    PRINT("%lld", "n_embd", (long long)hp->n_embd);
    PRINT("%lld", "n_layer", (long long)hp->n_layer);
    PRINT("%lld", "n_head", (long long)hp->n_head);
    PRINT("%lld", "n_head_kv", (long long)hp->n_head_kv);
    PRINT("%lld", "n_embd_head_k", (long long)hp->n_embd_head_k);
    PRINT("%lld", "n_embd_head_v", (long long)hp->n_embd_head_v);
    PRINT("%lld", "n_rot", (long long)hp->n_rot);
    PRINT("%lld", "n_ff", (long long)hp->n_ff);
    PRINT("%.1e", "f_norm_rms_eps", hp->rms_eps);
    PRINT("%.1f", "freq_base_train", hp->rope_freq_base);
    PRINT("%g", "freq_scale_train", hp->rope_freq_scale);
    PRINT("%s", "rope_scaling", scaling[hp->rope_scaling]);
    PRINT("%lld", "n_ctx_orig_yarn", (long long)hp->n_ctx_orig);
#undef PRINT
}
