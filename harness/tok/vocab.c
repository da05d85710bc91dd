/* SPDX-License-Identifier: MIT
 * vocab.c - what a GGUF file says about its vocabulary: token texts, types, special ids, settings.
 *
 * Source: ik_llama.cpp 8337e4cd, src/llama-vocab.cpp (keys, defaults, texts of control tokens). */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "tok/tok_impl.h"

/* bytes; the longest text in use is 512 spaces, and longer ones would only make loading slow */
#define MAX_TEXT_BYTES 65536

/* Tokens that end or steer generation, whatever type the file gives them: as control tokens they
 * are not matched in plain text. */
static const char *const control_texts[] = {
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<\xEF\xBD\x9C"
    "fim\xE2\x96\x81"
    "begin\xEF\xBD\x9C>",
    "<PRE>",
    "\xE2\x96\x81<PRE>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<\xEF\xBD\x9C"
    "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
    "<SUF>",
    "\xE2\x96\x81<SUF>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<\xEF\xBD\x9C"
    "fim\xE2\x96\x81"
    "end\xEF\xBD\x9C>",
    "<MID>",
    "\xE2\x96\x81<MID>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

int tok_array(const struct gguf *g, const char *key, int64_t n, const struct gguf_kv **out,
              struct err *e) {
    int rc = 0;
    const struct gguf_kv *kv = gguf_find(g, key);
    *out = NULL;
    if (!kv) return 0;
    FAIL_IF(kv->type != GGUF_ARRAY || kv->elem_type == GGUF_STRING || kv->elem_type == GGUF_ARRAY,
            e, ERR_FORMAT, "%s is not an array of numbers", key);
    FAIL_IF(kv->count != (uint64_t)n, e, ERR_MISMATCH,
            "%s has %llu entries, expected one for each of %lld tokens", key,
            (unsigned long long)kv->count, (long long)n);
    *out = kv;
    rc = 1;
out:
    return rc;
}

static int load_texts(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    const struct gguf_kv *kv = gguf_find(g, "tokenizer.ggml.tokens");
    FAIL_IF(!kv, e, ERR_MISSING, "tokenizer.ggml.tokens is missing: the file has no vocabulary");
    FAIL_IF(kv->type != GGUF_ARRAY || kv->elem_type != GGUF_STRING, e, ERR_FORMAT,
            "tokenizer.ggml.tokens is not an array of strings");
    FAIL_IF(!kv->count, e, ERR_FORMAT, "tokenizer.ggml.tokens is empty: a vocabulary of no tokens");
    FAIL_IF(kv->count > INT32_MAX / 4, e, ERR_FORMAT, "tokenizer.ggml.tokens has %llu entries",
            (unsigned long long)kv->count);
    for (int32_t id = 0; id < (int32_t)kv->count; id++) {
        char empty[32];
        struct gguf_str s = kv->strs[id];
        FAIL_IF(s.n > MAX_TEXT_BYTES, e, ERR_FORMAT,
                "tokenizer.ggml.tokens[%d] is %zu bytes long, expected at most %d", id, s.n,
                MAX_TEXT_BYTES);
        if (!s.n) {
            s.n = (size_t)snprintf(empty, sizeof empty, "[EMPTY_%d]", id);
            s.p = empty;
        }
        int32_t at = strtab_add(&t->text, s.p, s.n, e);
        TRY(at);
        FAIL_IF(at != id, e, ERR_FORMAT, "tokenizer.ggml.tokens[%d] repeats the text of token %d",
                id, at);
    }
    rc = 0;
out:
    return rc;
}

static int load_types(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    const struct gguf_kv *kv;
    t->info = heap_calloc((size_t)t->text.n, sizeof *t->info, e);
    if (!t->info) return ERR_NOMEM;
    TRY(tok_array(g, "tokenizer.ggml.token_type", t->text.n, &kv, e));
    FAIL_IF(kv && (kv->elem_type == GGUF_FLOAT32 || kv->elem_type == GGUF_FLOAT64), e, ERR_FORMAT,
            "tokenizer.ggml.token_type is not an array of integers");
    for (int32_t id = 0; id < t->text.n; id++) {
        int64_t type = kv ? gguf_kv_i64(kv, (uint64_t)id) : TOK_NORMAL;
        FAIL_IF(type < 0 || type >= TOK_TYPE_COUNT, e, ERR_FORMAT,
                "tokenizer.ggml.token_type[%d] is %lld, expected 0 to %d", id, (long long)type,
                TOK_TYPE_COUNT - 1);
        t->info[id].type = (uint8_t)type;
    }
    for (size_t i = 0; i < N_ELEMS(control_texts); i++) {
        int32_t id = strtab_find(&t->text, control_texts[i], strlen(control_texts[i]));
        if (id >= 0) t->info[id].type = TOK_CONTROL;
    }
    rc = 0;
out:
    return rc;
}

static bool contains(struct gguf_str s, const char *lower) {
    size_t n = strlen(lower), k;
    for (size_t at = 0; at + n <= s.n; at++) {
        for (k = 0; k < n && tolower((unsigned char)s.p[at + k]) == lower[k]; k++) {
        }
        if (k == n) return true;
    }
    return false;
}

/* Phi-3 was trained with special tokens that swallow the white space after them; no key says so. */
static int load_rstrip(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    static const char *const keep[] = { "<unk>", "<s>", "<|endoftext|>" };
    struct gguf_str name = { "", 0 };
    TRY(gguf_get_str(g, "general.name", &name, e));
    rc = 0;
    if (!contains(name, "phi-3") && !contains(name, "phi3")) goto out;
    for (int32_t id = 0; id < t->text.n; id++)
        t->info[id].rstrip = true; /* looked at only for special tokens */
    for (size_t i = 0; i < N_ELEMS(keep); i++) {
        int32_t id = strtab_find(&t->text, keep[i], strlen(keep[i]));
        if (id >= 0) t->info[id].rstrip = false;
    }
out:
    return rc;
}

/* A special id: of the file, or the default if the vocabulary has so many tokens. */
static int load_id(const struct tok *t, const struct gguf *g, const char *key, int32_t otherwise,
                   int32_t *out, struct err *e) {
    int rc = 0;
    uint64_t id = UINT32_MAX; /* files write -1 for "none" */
    int found;
    TRY(found = gguf_get_u64(g, key, &id, e));
    FAIL_IF(id != UINT32_MAX && id >= (uint64_t)t->text.n, e, ERR_FORMAT,
            "%s is %llu, but the vocabulary has %d tokens", key, (unsigned long long)id, t->text.n);
    *out = id == UINT32_MAX ? -1 : (int32_t)id;
    if (!found && otherwise < t->text.n) *out = otherwise;
    rc = 0;
out:
    return rc;
}

static int load_settings(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0, set_bos, set_eos;
    bool spm = t->model == &tok_model_spm;
    t->add_space_prefix = spm;
    t->add_bos = spm || pretok_add_bos(t->bpe.pre);
    TRY(load_id(t, g, "tokenizer.ggml.bos_token_id", spm ? 1 : 11, &t->bos, e));
    TRY(load_id(t, g, "tokenizer.ggml.eos_token_id", spm ? 2 : 11, &t->eos, e));
    TRY(set_bos = gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, e));
    TRY(set_eos = gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, e));
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, e));
    FAIL_IF(t->add_bos && t->bos < 0, e, ERR_FORMAT,
            "texts begin with BOS (%s), but the vocabulary has no such token",
            set_bos ? "tokenizer.ggml.add_bos_token" : "the default of this tokenizer");
    FAIL_IF(t->add_eos && t->eos < 0, e, ERR_FORMAT,
            "texts end with EOS (%s), but the vocabulary has no such token",
            set_eos ? "tokenizer.ggml.add_eos_token" : "the default of this tokenizer");
    rc = 0;
out:
    return rc;
}

int tok_vocab_load(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    TRY(load_texts(t, g, e));
    TRY(load_types(t, g, e));
    TRY(load_rstrip(t, g, e));
    TRY(t->model->load(t, g, e));
    TRY(load_settings(t, g, e)); /* a pre-tokenizer brings defaults with it */
out:
    return rc;
}
