/* SPDX-License-Identifier: MIT
 * tiny_model.c - random models for tests; see tiny_model.h. */
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/rng.h"
#include "gguf/gguf.h"

struct tiny_model tiny_model_default(const char *arch) {
    return (struct tiny_model){
        .arch = arch,
        .n_vocab = 300,
        .n_embd = 64,
        .n_layer = 2,
        .n_head = 4,
        .n_head_kv = 2,
        .n_embd_head = strcmp(arch, "qwen3") ? 16 : 32,
        .n_ff = 96,
        .n_ctx = 128,
        .rms_eps = 1e-5,
        .freq_base = 10000,
        .tied = !strcmp(arch, "qwen2"),
        .seed = 1,
    };
}

struct spec {
    char name[64];
    int64_t n0, n1; /* n1 = 1: a vector */
    double mean, sd;
};

static int add(struct spec *s, int n, const char *name, int64_t n0, int64_t n1, double mean,
               double sd) {
    s[n] = (struct spec){ .n0 = n0, .n1 = n1, .mean = mean, .sd = sd };
    snprintf(s[n].name, sizeof s[n].name, "%s", name);
    return n + 1;
}

static int add_layer(const struct tiny_model *t, struct spec *s, int n, int il) {
    int64_t d = t->n_embd, q = (int64_t)t->n_head * t->n_embd_head;
    int64_t kv = (int64_t)t->n_head_kv * t->n_embd_head, ff = t->n_ff;
    struct {
        const char *suffix;
        int64_t n0, n1;
        double mean;
        const char *arch; /* NULL: all */
    } const all[] = {
        { "attn_norm.weight", d, 1, 1, NULL },
        { "attn_q.weight", d, q, 0, NULL },
        { "attn_k.weight", d, kv, 0, NULL },
        { "attn_v.weight", d, kv, 0, NULL },
        { "attn_output.weight", q, d, 0, NULL },
        { "attn_q.bias", q, 1, 0, "qwen2" },
        { "attn_k.bias", kv, 1, 0, "qwen2" },
        { "attn_v.bias", kv, 1, 0, "qwen2" },
        { "attn_q_norm.weight", t->n_embd_head, 1, 1, "qwen3" },
        { "attn_k_norm.weight", t->n_embd_head, 1, 1, "qwen3" },
        { "ffn_norm.weight", d, 1, 1, NULL },
        { "ffn_gate.weight", d, ff, 0, NULL },
        { "ffn_up.weight", d, ff, 0, NULL },
        { "ffn_down.weight", ff, d, 0, NULL },
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].arch && strcmp(all[i].arch, t->arch)) continue;
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", il, all[i].suffix);
        double sd = all[i].n1 > 1 ? 1.5 / sqrt((double)all[i].n0) : 0.2;
        n = add(s, n, name, all[i].n0, all[i].n1, all[i].mean, sd);
    }
    return n;
}

static int list_tensors(const struct tiny_model *t, struct spec *s) {
    int n = add(s, 0, "token_embd.weight", t->n_embd, t->n_vocab, 0, 0.5);
    n = add(s, n, "output_norm.weight", t->n_embd, 1, 1, 0.2);
    if (!t->tied) n = add(s, n, "output.weight", t->n_embd, t->n_vocab, 0, 0.3);
    if (t->rope_freqs) n = add(s, n, "rope_freqs.weight", t->n_embd_head / 2, 1, 3, 0.5);
    for (int il = 0; il < t->n_layer; il++)
        n = add_layer(t, s, n, il);
    return n;
}

static int put_keys(const struct tiny_model *t, struct gguf_writer *w, struct err *e) {
    int rc = 0;
    struct {
        const char *key;
        uint32_t v;
    } const ints[] = {
        { "vocab_size", (uint32_t)t->n_vocab },
        { "block_count", (uint32_t)t->n_layer },
        { "context_length", (uint32_t)t->n_ctx },
        { "embedding_length", (uint32_t)t->n_embd },
        { "feed_forward_length", (uint32_t)t->n_ff },
        { "attention.head_count", (uint32_t)t->n_head },
        { "attention.head_count_kv", (uint32_t)t->n_head_kv },
        { "attention.key_length", (uint32_t)t->n_embd_head },
        { "attention.value_length", (uint32_t)t->n_embd_head },
        { "rope.scaling.original_context_length", (uint32_t)t->n_ctx_orig },
    };
    char key[96];
    TRY(gguf_put_str(w, "general.architecture", t->arch, strlen(t->arch), e));
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        if (!ints[i].v) continue;
        snprintf(key, sizeof key, "%s.%s", t->arch, ints[i].key);
        TRY(gguf_put_u32(w, key, ints[i].v, e));
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", t->arch);
    TRY(gguf_put_f32(w, key, (float)t->rms_eps, e));
    snprintf(key, sizeof key, "%s.rope.freq_base", t->arch);
    TRY(gguf_put_f32(w, key, (float)t->freq_base, e));
    if (t->scaling) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", t->arch);
        TRY(gguf_put_str(w, key, t->scaling, strlen(t->scaling), e));
    }
    if (t->scale_factor != 0) {
        snprintf(key, sizeof key, "%s.rope.scaling.factor", t->arch);
        TRY(gguf_put_f32(w, key, (float)t->scale_factor, e));
    }
out:
    return rc;
}

static enum qtype type_of(const struct tiny_model *t, const struct spec *s) {
    return t->quantised && s->n1 > 1 ? QT_q8_0 : QT_f32;
}

/* One row at a time; row and bytes hold the longest. */
static int put_data(const struct tiny_model *t, const struct spec *s, struct rng *rng,
                    struct gguf_writer *w, float *row, void *bytes, struct err *e) {
    int rc = 0;
    enum qtype type = type_of(t, s);
    const struct qkernel *k = qkernel_find(COL_ref, QT_q8_0, false, NULL);
    for (int64_t r = 0; r < s->n1; r++) {
        for (int64_t i = 0; i < s->n0; i++)
            row[i] = (float)(s->mean + s->sd * rng_normal(rng));
        if (type == QT_q8_0) k->quantize_row(row, bytes, s->n0, NULL);
        TRY(gguf_writer_data(w, type == QT_f32 ? row : bytes, qtype_row_bytes(type, s->n0), e));
    }
out:
    return rc;
}

int tiny_model_write(const struct tiny_model *t, const char *path, struct err *e) {
    int rc = 0;
    struct spec specs[64];
    int n = list_tensors(t, specs);
    struct gguf_writer *w = NULL;
    struct rng rng = { t->seed };
    int64_t longest = 0;
    float *row = NULL;
    TRY(gguf_writer_new(&w, path, e));
    TRY(put_keys(t, w, e));
    for (int i = 0; i < n; i++)
        TRY(gguf_put_tensor(w, specs[i].name, specs[i].n1 > 1 ? 2 : 1,
                            (int64_t[]){ specs[i].n0, specs[i].n1 }, type_of(t, &specs[i]), e));
    TRY(gguf_writer_begin(w, e));
    for (int i = 0; i < n; i++)
        longest = specs[i].n0 > longest ? specs[i].n0 : longest;
    row = heap_alloc(2 * (size_t)longest * sizeof *row, e); /* a quantised row is shorter */
    if (!row) rc = ERR_NOMEM;
    TRY(rc);
    for (int i = 0; i < n; i++)
        TRY(put_data(t, &specs[i], &rng, w, row, row + longest, e));
    TRY(gguf_writer_end(w, e));
out:
    heap_free(row);
    gguf_writer_free(w);
    return rc;
}
