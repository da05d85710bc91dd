/* SPDX-License-Identifier: MIT
 * fuzz_tok.c - the input is a small vocabulary, then a text. With a sound vocabulary that covers
 * every byte, decoding gives the text back; with any vocabulary there is an error or ids in range.
 * The first byte chooses the kind, the second an allocation that fails (0 = none). */
#include <stdlib.h>

#include "base/utf8.h"
#include "tok/tok.h"
#include "vocab_image.h"

#define MAX_TOKENS 400
#define MAX_TEXT 24 /* bytes of a token */
#define KEY "tokenizer.ggml."

struct source {
    const uint8_t *p;
    size_t n;
};

static uint8_t take(struct source *s) {
    if (!s->n) return 0;
    s->n--;
    return *s->p++;
}

struct vocab {
    struct gguf_str text[MAX_TOKENS], merge[MAX_TOKENS];
    float score[MAX_TOKENS];
    int32_t type[MAX_TOKENS];
    char store[2 * MAX_TOKENS][2 * MAX_TEXT + 2];
    uint32_t n, n_merge, n_store;
};

static void check(bool ok) {
    if (!ok) abort();
}

static bool add(struct vocab *v, const char *s, size_t n, int type, float score, bool unique) {
    if (v->n == MAX_TOKENS || n > MAX_TEXT) return false;
    for (uint32_t i = 0; unique && i < v->n; i++)
        if (v->text[i].n == n && !memcmp(v->text[i].p, s, n)) return false;
    char *copy = v->store[v->n_store++];
    memcpy(copy, s, n);
    v->text[v->n] = (struct gguf_str){ copy, n };
    v->type[v->n] = type;
    v->score[v->n++] = score;
    return true;
}

static void make_spm(struct vocab *v, struct source *s) {
    char t[MAX_TEXT];
    add(v, "<unk>", 5, 2, 0, true);
    add(v, "<s>", 3, 3, 0, true);
    add(v, "</s>", 4, 3, 0, true);
    for (int b = 0; b < 256; b++)
        add(v, t, (size_t)snprintf(t, sizeof t, "<0x%02X>", b), 6, 0, true);
    for (int k = take(s) % 64; k > 0; k--) {
        size_t n = 1 + take(s) % 8;
        for (size_t i = 0; i < n; i++)
            t[i] = (char)take(s);
        add(v, t, n, take(s) % 8 ? 1 : 4, (float)(int8_t)take(s), true);
    }
}

static void make_bpe(struct vocab *v, struct source *s) {
    char t[2 * MAX_TEXT + 1];
    for (int b = 0; b < 256; b++)
        add(v, t, (size_t)image_byte_char(b, t), 1, 0, true);
    for (int k = take(s) % 64; k > 0; k--) {
        struct gguf_str l = v->text[(take(s) + 256u * (take(s) & 1)) % v->n];
        struct gguf_str r = v->text[(take(s) + 256u * (take(s) & 1)) % v->n];
        memcpy(t, l.p, l.n);
        memcpy(t + l.n, r.p, r.n);
        if (!add(v, t, l.n + r.n, 1, 0, true)) continue;
        char *m = v->store[v->n_store++];
        memcpy(m, l.p, l.n);
        m[l.n] = ' ';
        memcpy(m + l.n + 1, r.p, r.n);
        v->merge[v->n_merge++] = (struct gguf_str){ m, l.n + r.n + 1 };
    }
}

static void make_any(struct vocab *v, struct source *s) {
    char t[MAX_TEXT];
    for (int k = take(s) % 64; k > 0; k--) {
        size_t n = take(s) % 8;
        for (size_t i = 0; i < n; i++)
            t[i] = (char)take(s);
        add(v, t, n, (int8_t)take(s) % 9, (float)(int8_t)take(s), false);
        if (take(s) & 1) v->merge[v->n_merge++] = v->text[v->n - 1];
    }
}

static void make_image(struct image *im, const struct vocab *v, struct source *s, int kind) {
    static const char *const pre[] = { "gpt-2",  "qwen2",  "llama-bpe",   "deepseek-llm",
                                       "tekken", "falcon", "deepseek-v3", "deepseek-coder",
                                       "smollm", "no",     "default" };
    bool bpe = kind == 1 || kind == 3;
    image_str(im, KEY "model", bpe ? "gpt2" : "llama");
    image_str(im, KEY "pre", pre[take(s) % (kind == 1 ? 9 : 11)]);
    image_strs(im, KEY "tokens", v->text, v->n);
    image_numbers(im, KEY "scores", GGUF_FLOAT32, v->score, v->n);
    image_numbers(im, KEY "token_type", GGUF_INT32, v->type, v->n);
    if (bpe) image_strs(im, KEY "merges", v->merge, v->n_merge);
    image_bool(im, KEY "add_space_prefix", kind > 1);
    if (kind < 2) {
        image_bool(im, KEY "add_bos_token", false);
        return;
    }
    image_u32(im, KEY "bos_token_id", take(s));
    image_bool(im, KEY "add_eos_token", take(s) & 1);
}

/* U+2581 and the space are the same to SPM. */
static size_t normalise(char *s, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        bool space = n - i >= 3 && !memcmp(s + i, "\xE2\x96\x81", 3);
        s[out++] = space ? ' ' : s[i];
        if (space) i += 2;
    }
    return out;
}

/* Texts that spell a control or byte token decode to something else, so they are left out. */
static void check_decoded(const struct tok *t, const struct tok_ids *ids, const char *text,
                          size_t n) {
    size_t cap = (size_t)ids->n * (MAX_TEXT + 1) + 1, out = 0;
    if (!utf8_valid(text, n) || memmem(text, n, "<0x", 3)) return;
    char *got = heap_alloc(cap, NULL), *want = heap_strndup(text, n, NULL);
    for (int64_t i = 0; i < ids->n; i++) {
        size_t k = tok_piece(t, ids->id[i], got + out, cap - out);
        if (!k) goto out;
        out += k;
    }
    check(normalise(got, out) == (n = normalise(want, n)) && !memcmp(got, want, n));
out:
    heap_free(got);
    heap_free(want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct vocab v;
    struct source s = { data, n };
    struct image im = { 0 };
    struct gguf *g = NULL;
    struct tok *t = NULL;
    struct tok_ids ids = { 0 };
    struct err e = { 0 };
    int kind = take(&s) % 4, fail_at = take(&s);
    bool parse_special = fail_at & 1;

    v.n = v.n_merge = v.n_store = 0;
    if (kind == 0)
        make_spm(&v, &s);
    else if (kind == 1)
        make_bpe(&v, &s);
    else
        make_any(&v, &s);
    make_image(&im, &v, &s, kind);
    const char *text = (const char *)s.p;
    if (image_open(&im, &g, &e) < 0) goto out;
    heap_fail_at(fail_at);
    int rc = tok_load(&t, g, &e);
    if (rc == 0) rc = tok_encode(t, text, s.n, kind > 1, kind > 1 && parse_special, &ids, &e);
    heap_fail_at(0);
    check(rc <= 0 && (rc == 0 || e.msg[0]));
    check(rc == 0 || kind > 1 || fail_at);
    for (int64_t i = 0; i < ids.n; i++)
        check(ids.id[i] >= 0 && ids.id[i] < tok_n_vocab(t));
    if (rc == 0 && kind < 2) check_decoded(t, &ids, text, s.n);
out:
    tok_ids_free(&ids);
    tok_free(t);
    gguf_close(g);
    image_release(&im);
    return 0;
}
