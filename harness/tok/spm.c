/* SPDX-License-Identifier: MIT
 * spm.c - tokenizer.ggml.model = llama: merging by score, as SentencePiece does.
 *
 * Two characters that stand side by side in no token text can never end up in one symbol, so the
 * text is cut there first. The words that remain are short, repeat, and are merged one by one.
 *
 * Source: ik_llama.cpp 8337e4cd, src/llama-vocab.cpp (behaviour). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "tok/tok_impl.h"

#define SPACE "\xE2\x96\x81" /* U+2581 stands for a space */
#define SPACE_BYTES 3

/* The bytes of a character as a number. */
static uint32_t char_code(const char *s, size_t n) {
    uint32_t code = 0;
    for (size_t i = 0; i < n; i++)
        code = code << 8 | (unsigned char)s[i];
    return code;
}

/* ---- loading ------------------------------------------------------------------------------- */

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int load_ranks(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    const struct gguf_kv *kv = NULL;
    int32_t n = t->text.n;
    struct scored *s = heap_calloc((size_t)n, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    t->spm.rank = heap_calloc((size_t)n, sizeof *t->spm.rank, e);
    FAIL_IF(!t->spm.rank, e, ERR_NOMEM, "no memory for %d scores", n);
    TRY(tok_array(g, "tokenizer.ggml.scores", n, &kv, e));
    for (int32_t i = 0; i < n; i++) {
        s[i] = (struct scored){ .score = kv ? (float)gguf_kv_f64(kv, (uint64_t)i) : 0, .id = i };
        FAIL_IF(isnan(s[i].score), e, ERR_FORMAT, "tokenizer.ggml.scores[%d] is not a number", i);
    }
    qsort(s, (size_t)n, sizeof *s, by_score);
    uint32_t rank = 0;
    for (int32_t i = 0; i < n; i++) {
        if (i && s[i].score != s[i - 1].score) rank++;
        t->spm.rank[s[i].id] = rank;
    }
    rc = 0;
out:
    heap_free(s);
    return rc;
}

static int load_neighbours(struct tok *t, struct err *e) {
    int rc = 0;
    for (int32_t id = 0; id < t->text.n; id++) {
        size_t n;
        const char *s = strtab_at(&t->text, id, &n);
        if (n > t->spm.max_bytes) t->spm.max_bytes = (uint32_t)n;
        uint32_t left = 0;
        for (size_t at = 0, k; at < n; at += k) {
            k = utf8_lead_length(s + at, n - at);
            uint32_t right = char_code(s + at, k);
            if (at) TRY(pairtab_add(&t->spm.beside, pairtab_key(left, right), 0, 0, e));
            left = right;
        }
    }
out:
    return rc;
}

static int spm_load(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    for (int b = 0; b < 256; b++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", b);
        t->spm.byte_id[b] = strtab_find(&t->text, name, (size_t)n);
        char byte = (char)b;
        if (t->spm.byte_id[b] < 0) t->spm.byte_id[b] = strtab_find(&t->text, &byte, 1);
    }
    TRY(load_ranks(t, g, e));
    TRY(load_neighbours(t, e));
out:
    return rc;
}

static void spm_release(struct tok *t) {
    heap_free(t->spm.rank);
    pairtab_release(&t->spm.beside);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static bool find_pair(const void *model, const char *text, const struct merge_node *l,
                      const struct merge_node *r, uint32_t *rank, int32_t *sym) {
    const struct tok *t = model;
    size_t n = (size_t)l->n + r->n;
    if (n > t->spm.max_bytes) return false;
    *sym = strtab_find(&t->text, text + l->at, n);
    if (*sym < 0) return false;
    *rank = t->spm.rank[*sym];
    return true;
}

/* Append the token of a symbol that nothing merged any more, or those of its bytes. */
static int emit(const struct tok *t, struct tok_work *w, const char *s, const struct merge_node *m,
                struct err *e) {
    int rc = 0;
    int32_t id = m->sym >= 0 ? m->sym : strtab_find(&t->text, s, m->n);
    if (id >= 0) return tok_push(w, id, e);
    for (uint32_t i = 0; i < m->n; i++) {
        unsigned char byte = (unsigned char)s[i];
        id = t->spm.byte_id[byte];
        FAIL_IF(id < 0, e, ERR_UNSUPPORTED,
                "the vocabulary has no token for byte 0x%02X: neither <0x%02X> nor the byte itself",
                byte, byte);
        TRY(tok_push(w, id, e));
    }
out:
    return rc;
}

static int encode_word(const struct tok *t, struct tok_work *w, const char *s, size_t n,
                       struct err *e) {
    struct tok_cached *slot;
    int rc = tok_cache_find(w, s, n, &slot, e);
    if (rc) return rc < 0 ? rc : 0;
    int64_t id_at = w->ids.n;
    w->merge.n_node = 0;
    for (size_t at = 0, k; at < n; at += k) {
        k = utf8_lead_length(s + at, n - at);
        TRY(merge_add(&w->merge, at, (uint32_t)k, -1, e));
    }
    TRY(merge_run(&w->merge, s, find_pair, t, e));
    for (int32_t i = 0; i >= 0; i = w->merge.node[i].next)
        TRY(emit(t, w, s + w->merge.node[i].at, &w->merge.node[i], e));
    tok_cache_keep(w, slot, id_at);
out:
    return rc;
}

/* The text with U+2581 for each space, and one in front if `prefix`, as a part of w->text. */
static int replace_spaces(struct tok_work *w, const char *text, size_t n, bool prefix,
                          const char **out, size_t *n_out, struct err *e) {
    if (!w->text) {
        /* Room for all fragments at once: the cache points into it. */
        size_t room = 0;
        for (size_t i = 0; i < w->n_fragment; i++)
            room += w->fragment[i].id < 0 ? (w->fragment[i].n + 1) * SPACE_BYTES : 0;
        w->text = heap_alloc(room, e);
        if (!w->text) return ERR_NOMEM;
    }
    char *first = w->text + w->text_n, *p = first;
    if (prefix) p = (char *)memcpy(p, SPACE, SPACE_BYTES) + SPACE_BYTES;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ')
            p = (char *)memcpy(p, SPACE, SPACE_BYTES) + SPACE_BYTES;
        else
            *p++ = text[i];
    }
    *out = first;
    *n_out = (size_t)(p - first);
    w->text_n += *n_out;
    return 0;
}

static int spm_encode(const struct tok *t, struct tok_work *w, const char *text, size_t n,
                      bool first, struct err *e) {
    int rc = 0;
    const char *s;
    size_t word = 0;
    TRY(replace_spaces(w, text, n, first && t->add_space_prefix, &s, &n, e));
    uint32_t left = 0;
    for (size_t at = 0, k; at < n; at += k) {
        k = utf8_lead_length(s + at, n - at);
        uint32_t right = char_code(s + at, k);
        if (at && !pairtab_find(&t->spm.beside, pairtab_key(left, right))) {
            TRY(encode_word(t, w, s + word, at - word, e));
            word = at;
        }
        left = right;
    }
    if (word < n) TRY(encode_word(t, w, s + word, n - word, e));
out:
    return rc;
}

/* ---- decoding ------------------------------------------------------------------------------ */

/* The byte that <0xHH> names, or -1. */
static int byte_of(const char *s, size_t n) {
    int byte = 0;
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEF", *d = s[i] ? strchr(digits, s[i]) : NULL;
        if (!d) return -1;
        byte = byte << 4 | (int)(d - digits);
    }
    return byte;
}

static size_t spm_piece(const struct tok *t, int32_t id, char *buf, size_t buf_bytes) {
    struct tok_out o = { buf, buf_bytes, 0 };
    size_t n;
    const char *s = strtab_at(&t->text, id, &n);
    int byte = t->info[id].type == TOK_BYTE ? byte_of(s, n) : -1;
    if (byte >= 0) {
        char c = (char)byte;
        tok_out_put(&o, &c, 1);
        return o.n;
    }
    for (size_t at = 0, k; at < n; at += k) {
        bool space = n - at >= SPACE_BYTES && !memcmp(s + at, SPACE, SPACE_BYTES);
        k = space ? SPACE_BYTES : 1;
        tok_out_put(&o, space ? " " : s + at, 1);
    }
    return o.n;
}

const struct tok_model tok_model_spm = {
    .name = "llama",
    .load = spm_load,
    .release = spm_release,
    .encode = spm_encode,
    .piece = spm_piece,
};
