/* SPDX-License-Identifier: MIT
 * synth_vocab.c - a made-up vocabulary of any size; see synth.h.
 *
 * Ids 0..255 are the bytes in the alphabet of byte-level BPE. Then come words: the children of a
 * word are the word and one more letter, in order of length, so every word has its parent before it
 * and the merge "parent letter" makes it. Roots are the space and the letters; all words up to
 * three letters are 19 thousand, so a text is cut in pieces of three to four bytes, as with real
 * ones. BOS and EOS are the last two. */
#include <string.h>

#include "base/arena.h"
#include "quant/synth.h"

#define LETTERS "etaoinshrdlcumwfgypbvkjxqz" /* by frequency in English */
#define N_LETTERS 26
#define N_ROOTS (N_LETTERS + 1)
#define SPACE "\xC4\xA0" /* U+0120, the space in that alphabet */
#define WORD_MAX 16      /* bytes of a word; 9 letters would make a tree of 10^12 words */

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3 }; /* tokenizer.ggml.token_type */

struct vocab {
    int64_t n, n_words, n_text;
    char *text;                       /* [.] bytes of all words and merges */
    struct gguf_str *tokens, *merges; /* [n], [n_words] */
    int32_t *types;                   /* [n] */
};

/* The character of the alphabet that stands for byte b, as UTF-8: printable Latin-1 stands for
 * itself, the other 68 bytes are U+0100 and on. */
static size_t byte_char(int b, int *n_other, char *out) {
    bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    int cp = printable ? b : 0x100 + (*n_other)++;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3F));
    return 2;
}

static struct gguf_str push(struct vocab *v, const char *s, size_t n) {
    struct gguf_str str = { v->text + v->n_text, n };
    memcpy(v->text + v->n_text, s, n);
    v->n_text += (int64_t)n;
    return str;
}

/* Word i is the parent and one letter; the first parents are the roots themselves. */
static void add_word(struct vocab *v, int64_t i, const struct gguf_str *words) {
    static const char letters[] = LETTERS;
    int64_t parent = i / N_LETTERS;
    const char letter = letters[i % N_LETTERS];
    char buf[2 * WORD_MAX + 4];
    struct gguf_str p = { SPACE, 2 };
    if (parent > 0 && parent < N_ROOTS) p = (struct gguf_str){ letters + parent - 1, 1 };
    if (parent >= N_ROOTS) p = words[parent - N_ROOTS];
    memcpy(buf, p.p, p.n);
    buf[p.n] = letter;
    v->tokens[256 + i] = push(v, buf, p.n + 1);
    buf[p.n] = ' ';
    buf[p.n + 1] = letter;
    v->merges[i] = push(v, buf, p.n + 2);
}

static int init(struct vocab *v, int64_t n, struct err *e) {
    int rc = 0, n_other = 0;
    *v = (struct vocab){ .n = n, .n_words = n - SYNTH_MIN_VOCAB };
    v->text = heap_alloc(1024 + (size_t)v->n_words * (2 * WORD_MAX + 4), e);
    v->tokens = heap_calloc((size_t)n, sizeof *v->tokens, e);
    v->merges = heap_calloc((size_t)v->n_words + 1, sizeof *v->merges, e);
    v->types = heap_calloc((size_t)n, sizeof *v->types, e);
    FAIL_IF(!v->text || !v->tokens || !v->merges || !v->types, e, ERR_NOMEM,
            "no memory for a vocabulary of %lld tokens", (long long)n);
    for (int b = 0; b < 256; b++) {
        char c[2];
        size_t len = byte_char(b, &n_other, c);
        v->tokens[b] = push(v, c, len);
    }
    for (int64_t i = 0; i < v->n_words; i++)
        add_word(v, i, v->tokens + 256);
    v->tokens[n - 2] = (struct gguf_str){ "<|begin_of_text|>", 17 };
    v->tokens[n - 1] = (struct gguf_str){ "<|end_of_text|>", 15 };
    for (int64_t i = 0; i < n; i++)
        v->types[i] = i < n - 2 ? TYPE_NORMAL : TYPE_CONTROL;
out:
    return rc;
}

int synth_put_vocab(struct gguf_writer *w, int64_t n, const char *pre, bool add_bos,
                    struct err *e) {
    int rc = 0;
    struct vocab v = { 0 };
    FAIL_IF(n < SYNTH_MIN_VOCAB, e, ERR_ARG,
            "a vocabulary of %lld tokens: expected at least %d, 256 bytes and two control tokens",
            (long long)n, SYNTH_MIN_VOCAB);
    TRY(init(&v, n, e));
    TRY(gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4, e));
    TRY(gguf_put_str(w, "tokenizer.ggml.pre", pre, strlen(pre), e));
    TRY(gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_STRING, v.tokens, (uint64_t)n, e));
    TRY(gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_INT32, v.types, (uint64_t)n, e));
    TRY(gguf_put_array(w, "tokenizer.ggml.merges", GGUF_STRING, v.merges, (uint64_t)v.n_words, e));
    TRY(gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)(n - 2), e));
    TRY(gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)(n - 1), e));
    TRY(gguf_put_bool(w, "tokenizer.ggml.add_bos_token", add_bos, e));
out:
    heap_free(v.text);
    heap_free(v.tokens);
    heap_free(v.merges);
    heap_free(v.types);
    return rc;
}
