/* SPDX-License-Identifier: MIT
 * bpe.c - tokenizer.ggml.model = gpt2: byte-level byte pair encoding.
 *
 * Token texts and merges are stored in an alphabet of 256 printable characters, one for each byte.
 * They are decoded once, at loading; encoding then works on plain bytes. A text with any other
 * character cannot arise from merging and takes no part in it.
 *
 * Source: ik_llama.cpp 8337e4cd, src/llama-vocab.cpp and src/unicode.cpp (behaviour). */
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/utf8.h"
#include "tok/tok_impl.h"

#define BYTE_CHARS 0x144 /* first code point after the alphabet */

/* ---- the alphabet ---------------------------------------------------------------------------- */

static bool is_printable(int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* The byte that a code point stands for, or -1: printable bytes stand for themselves, the other 68
 * are 0x100, 0x101, ... in ascending order. */
static int byte_of_char(uint32_t cp) {
    if (cp < 0x100) return is_printable((int)cp) ? (int)cp : -1;
    if (cp >= BYTE_CHARS) return -1;
    if (cp <= 0x120) return (int)cp - 0x100;
    if (cp <= 0x142) return cp == 0x121 ? 0x7F : (int)cp - 0x122 + 0x80;
    return 0xAD;
}

/* The next character of s as a byte, or -1; *k is its length. */
static int next_byte(const char *s, size_t n, size_t *k) {
    const unsigned char *p = (const unsigned char *)s;
    int length = utf8_char(s, n);
    *k = length > 1 ? (size_t)length : 1;
    if (length == 1) return byte_of_char(p[0]);
    if (length != 2) return -1;
    return byte_of_char((uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F));
}

/* Decode n bytes of text into dst (room for n). Returns the length, or 0 if the text is not written
 * in the alphabet. */
static size_t decode(const char *s, size_t n, char *dst) {
    size_t out = 0;
    for (size_t at = 0, k; at < n; at += k) {
        int byte = next_byte(s + at, n - at, &k);
        if (byte < 0) return 0;
        dst[out++] = (char)byte;
    }
    return out;
}

/* ---- loading ------------------------------------------------------------------------------- */

static int load_texts(struct tok *t, char *buf, struct err *e) {
    int rc = 0;
    for (int32_t id = 0; id < t->text.n; id++) {
        size_t n;
        const char *s = strtab_at(&t->text, id, &n);
        n = decode(s, n, buf);
        if (!n) continue;
        int32_t sym = strtab_add(&t->bpe.text, buf, n, e);
        TRY(sym);
        t->bpe.sym_id[sym] = id;
    }
    t->bpe.n_sym_id = t->bpe.text.n;
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        t->bpe.byte_sym[b] = strtab_add(&t->bpe.text, &c, 1, e);
        TRY(t->bpe.byte_sym[b]);
    }
    rc = 0;
out:
    return rc;
}

/* One merge "left right"; both parts together are a symbol as well. */
static int load_merge(struct tok *t, const struct gguf_str *m, uint32_t rank, char *buf,
                      struct err *e) {
    int rc = 0;
    const char *space = m->n > 1 ? memchr(m->p + 1, ' ', m->n - 1) : NULL;
    FAIL_IF(!space, e, ERR_FORMAT,
            "tokenizer.ggml.merges[%u] is \"%.*s\", expected two parts with a space between", rank,
            (int)(m->n < 64 ? m->n : 64), m->p);
    size_t n_left = (size_t)(space - m->p), n_right = m->n - n_left - 1;
    n_left = decode(m->p, n_left, buf);
    n_right = n_left ? decode(space + 1, n_right, buf + n_left) : 0;
    if (!n_left || !n_right) return 0;
    int32_t left, right, both;
    TRY(left = strtab_add(&t->bpe.text, buf, n_left, e));
    TRY(right = strtab_add(&t->bpe.text, buf + n_left, n_right, e));
    TRY(both = strtab_add(&t->bpe.text, buf, n_left + n_right, e));
    rc = pairtab_add(&t->bpe.pair, pairtab_key((uint32_t)left, (uint32_t)right), rank, both, e);
out:
    return rc;
}

static int load_merges(struct tok *t, const struct gguf *g, char **buf, size_t *cap,
                       struct err *e) {
    int rc = 0;
    const struct gguf_kv *kv = gguf_find(g, "tokenizer.ggml.merges");
    FAIL_IF(!kv, e, ERR_MISSING, "tokenizer.ggml.merges is missing; byte pair encoding needs it");
    FAIL_IF(kv->type != GGUF_ARRAY || kv->elem_type != GGUF_STRING || kv->count > INT32_MAX, e,
            ERR_FORMAT, "tokenizer.ggml.merges is not an array of strings");
    for (uint64_t i = 0; i < kv->count; i++) {
        const struct gguf_str *m = &kv->strs[i];
        if (m->n > *cap) {
            char *p = heap_realloc(*buf, m->n, e);
            if (!p) return ERR_NOMEM;
            *buf = p;
            *cap = m->n;
        }
        TRY(load_merge(t, m, (uint32_t)i, *buf, e));
    }
out:
    return rc;
}

static int load_pretok(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    struct gguf_str pre = { "", 0 };
    TRY(gguf_get_str(g, "tokenizer.ggml.pre", &pre, e));
    if (!pre.n) {
        log_msg(LOG_WARN,
                "tokenizer.ggml.pre is missing; using the default pre-tokenizer, which is "
                "hardly the one that the model was trained with");
        pre = (struct gguf_str){ "default", 7 };
    }
    rc = pretok_new(&t->bpe.pre, pre.p, pre.n, e);
out:
    return rc;
}

static int bpe_load(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    size_t cap = 1;
    for (int32_t i = 0; i < t->text.n; i++)
        if (t->text.entry[i].n > cap) cap = t->text.entry[i].n;
    char *buf = heap_alloc(cap, e);
    if (!buf) return ERR_NOMEM;
    t->bpe.sym_id = heap_calloc((size_t)t->text.n, sizeof *t->bpe.sym_id, e);
    FAIL_IF(!t->bpe.sym_id, e, ERR_NOMEM, "no memory for %d tokens", t->text.n);
    TRY(load_pretok(t, g, e));
    TRY(load_texts(t, buf, e));
    TRY(load_merges(t, g, &buf, &cap, e));
out:
    heap_free(buf);
    return rc;
}

static void bpe_release(struct tok *t) {
    pretok_free(t->bpe.pre);
    strtab_release(&t->bpe.text);
    pairtab_release(&t->bpe.pair);
    heap_free(t->bpe.sym_id);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static bool find_pair(const void *model, const char *text, const struct merge_node *l,
                      const struct merge_node *r, uint32_t *rank, int32_t *sym) {
    const struct bpe *bpe = model;
    (void)text;
    uint64_t key = pairtab_key((uint32_t)l->sym, (uint32_t)r->sym);
    const struct pairtab_slot *slot = pairtab_find(&bpe->pair, key);
    if (!slot) return false;
    *rank = slot->rank;
    *sym = slot->sym;
    return true;
}

/* The token of a symbol. A merge may have made a symbol that is no token: then those of its bytes
 * that are themselves tokens under their own character stand for it, as in the engine measured
 * against. */
static int emit(const struct bpe *bpe, struct tok_work *w, int32_t sym, struct err *e) {
    int rc = 0;
    size_t n;
    if (sym < bpe->n_sym_id) return tok_push(w, bpe->sym_id[sym], e);
    const char *s = strtab_at(&bpe->text, sym, &n);
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        int32_t one = bpe->byte_sym[byte];
        bool ascii = byte < 0x80 && is_printable(byte);
        if (ascii && one < bpe->n_sym_id) TRY(tok_push(w, bpe->sym_id[one], e));
    }
out:
    return rc;
}

static int encode_piece(const struct bpe *bpe, struct tok_work *w, const char *s, size_t n,
                        struct err *e) {
    struct tok_cached *slot;
    int rc = tok_cache_find(w, s, n, &slot, e);
    if (rc) return rc < 0 ? rc : 0;
    int64_t id_at = w->ids.n;
    int32_t whole = pretok_ignore_merges(bpe->pre) ? strtab_find(&bpe->text, s, n) : -1;
    if (whole >= 0 && whole < bpe->n_sym_id) {
        TRY(tok_push(w, bpe->sym_id[whole], e));
    } else {
        w->merge.n_node = 0;
        for (size_t at = 0; at < n; at++)
            TRY(merge_add(&w->merge, at, 1, bpe->byte_sym[(unsigned char)s[at]], e));
        TRY(merge_run(&w->merge, s, find_pair, bpe, e));
        for (int32_t i = 0; i >= 0; i = w->merge.node[i].next)
            TRY(emit(bpe, w, w->merge.node[i].sym, e));
    }
    tok_cache_keep(w, slot, id_at);
out:
    return rc;
}

static int bpe_encode(const struct tok *t, struct tok_work *w, const char *text, size_t n,
                      bool first, struct err *e) {
    int rc = 0;
    const size_t *end;
    size_t n_end;
    (void)first;
    if (!w->pre) TRY(pretok_run_new(&w->pre, e));
    TRY(pretok_split(t->bpe.pre, w->pre, text, n, &end, &n_end, e));
    for (size_t i = 0, at = 0; i < n_end; at = end[i++])
        TRY(encode_piece(&t->bpe, w, text + at, end[i] - at, e));
out:
    return rc;
}

/* ---- decoding ------------------------------------------------------------------------------ */

static size_t bpe_piece(const struct tok *t, int32_t id, char *buf, size_t buf_bytes) {
    struct tok_out o = { buf, buf_bytes, 0 };
    size_t n;
    const char *s = strtab_at(&t->text, id, &n);
    for (size_t at = 0, k; at < n; at += k) {
        int byte = next_byte(s + at, n - at, &k);
        char c = (char)byte;
        tok_out_put(&o, byte < 0 ? s + at : &c, byte < 0 ? k : 1);
    }
    return o.n;
}

const struct tok_model tok_model_bpe = {
    .name = "gpt2",
    .load = bpe_load,
    .release = bpe_release,
    .encode = bpe_encode,
    .piece = bpe_piece,
    .repair = true,
};
