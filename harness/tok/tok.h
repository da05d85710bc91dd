/* SPDX-License-Identifier: MIT
 * tok.h - text to token ids, as the vocabulary inside a GGUF file says.
 *
 * TOK_LIST is the only registration of a tokenizer model (`tokenizer.ggml.model`); the
 * pre-tokenizer expressions of byte-level BPE are data in pretok.c. A loaded tokenizer is read-only
 * and may be used from several threads. */
#ifndef GGAUGE_TOK_H
#define GGAUGE_TOK_H

#include "gguf/gguf.h"

/*    name  tokenizer.ggml.model */
#define TOK_LIST(X)                                                                                \
    X(spm, "llama")                                                                                \
    X(bpe, "gpt2")

struct tok;

/* Copies what it needs; g may be closed afterwards. */
int tok_load(struct tok **out, const struct gguf *g, struct err *e);
void tok_free(struct tok *t); /* NULL is allowed */

struct tok_ids {
    int32_t *id; /* released by tok_ids_free */
    int64_t n;
};

/* Tokenise n bytes of text, appending nothing but what the vocabulary asks for: BOS and EOS if
 * add_special. parse_special also matches control tokens written in the text. *out is
 * overwritten. */
int tok_encode(const struct tok *t, const char *text, size_t n, bool add_special,
               bool parse_special, struct tok_ids *out, struct err *e);
void tok_ids_free(struct tok_ids *ids);

int32_t tok_n_vocab(const struct tok *t);
int32_t tok_bos(const struct tok *t); /* -1 if the vocabulary has none */
int32_t tok_eos(const struct tok *t);
bool tok_add_bos(const struct tok *t);
bool tok_add_eos(const struct tok *t);

/* The bytes that id stands for, NUL terminated in buf and cut to its size; returns the full
 * length. */
size_t tok_piece(const struct tok *t, int32_t id, char *buf, size_t buf_bytes);

#endif
