/* SPDX-License-Identifier: MIT
 * tok_impl.h - what the files of this folder know of each other; everybody else includes tok.h. */
#ifndef GGAUGE_TOK_IMPL_H
#define GGAUGE_TOK_IMPL_H

#include "tok/merge.h"
#include "tok/pairtab.h"
#include "tok/pretok.h"
#include "tok/strtab.h"
#include "tok/tok.h"

/* `tokenizer.ggml.token_type` */
enum tok_type {
    TOK_UNDEFINED,
    TOK_NORMAL,
    TOK_UNKNOWN,
    TOK_CONTROL,
    TOK_USER_DEFINED,
    TOK_UNUSED,
    TOK_BYTE,
    TOK_TYPE_COUNT
};

struct tok_info {
    uint8_t type; /* enum tok_type, after the corrections of vocab.c */
    bool rstrip;  /* as a special token it swallows the white space to its right */
};

#define TOK_PREFIX_BYTES (65536 / 8)

struct tok_special {
    int32_t *id; /* control, unknown and user-defined tokens, longest text first */
    int32_t n, n_plain; /* n_plain: user-defined ones, matched in any text */
    int32_t *order;   /* [n_vocab] index in id, or -1 */
    uint32_t *length; /* the different text lengths */
    int32_t n_length;
    uint8_t *prefix; /* [TOK_PREFIX_BYTES] a set of the first two bytes */
};

struct spm {
    uint32_t *rank;        /* [n_vocab] 0 = highest score; equal scores share a rank */
    uint32_t max_bytes;    /* of a token text */
    struct pairtab beside; /* neighbouring characters inside some token text */
    int32_t byte_id[256];  /* the token for a byte that nothing else covers, or -1 */
};

struct bpe {
    struct pretok *pre;
    struct strtab text;  /* texts of tokens and merges as plain bytes; the index is the symbol */
    int32_t *sym_id;     /* [n_sym_id] token id of the first symbols; the others have none */
    int32_t n_sym_id;
    int32_t byte_sym[256];
    struct pairtab pair; /* (symbol, symbol) -> rank, symbol */
};

struct tok;
struct tok_work;

/* One row of TOK_LIST. */
struct tok_model {
    const char *name;
    int (*load)(struct tok *t, const struct gguf *g, struct err *e);
    void (*release)(struct tok *t);
    /* Append the ids of n bytes of text; first: the text begins here or follows a special token.
     * The bytes live as long as w. */
    int (*encode)(const struct tok *t, struct tok_work *w, const char *text, size_t n, bool first,
                  struct err *e);
    size_t (*piece)(const struct tok *t, int32_t id, char *buf, size_t buf_bytes);
    bool repair; /* text must be valid UTF-8 */
};

struct tok {
    const struct tok_model *model;
    struct strtab text; /* token texts as stored; the index is the id */
    struct tok_info *info;
    int32_t bos, eos; /* -1 = none */
    bool add_bos, add_eos, add_space_prefix;
    struct tok_special special;
    struct spm spm;
    struct bpe bpe;
};

/* ---- one call of tok_encode ------------------------------------------------------------------ */

struct tok_cached {
    uint64_t hash;
    const char *text; /* NULL = free */
    uint32_t n, n_id;
    int64_t id_at; /* where in ids the result stands already */
};

/* A stretch of text, or one special token. */
struct tok_fragment {
    size_t at, n;
    int32_t id; /* -1 = text */
};

struct tok_work {
    struct tok_ids ids;
    int64_t cap_ids;
    struct tok_fragment *fragment;
    size_t n_fragment, cap_fragment;
    char *text; /* the repaired copy (BPE) or the copy without spaces (SPM), if any */
    size_t text_n;
    struct merge merge;
    struct pretok_run *pre;
    struct tok_cached *cache; /* direct-mapped */
    size_t n_cache;           /* a power of two */
};

int tok_push(struct tok_work *w, int32_t id, struct err *e);

/* Words repeat: append the ids of an equal word seen before in this call and return 1, or return 0
 * and tell where tok_cache_keep shall note the new one (NULL: nowhere). */
int tok_cache_find(struct tok_work *w, const char *text, size_t n, struct tok_cached **slot,
                   struct err *e);
/* The ids from id_at on are the result for the word looked up last. */
void tok_cache_keep(struct tok_work *w, struct tok_cached *slot, int64_t id_at);

/* vocab.c: texts, types and settings of the file; t->model is set. */
int tok_vocab_load(struct tok *t, const struct gguf *g, struct err *e);
/* An array key that must have n entries of an integer/float type. 1 = found, 0 = absent. */
int tok_array(const struct gguf *g, const char *key, int64_t n, const struct gguf_kv **out,
              struct err *e);

/* special.c */
int tok_special_load(struct tok *t, struct err *e);
void tok_special_release(struct tok_special *s);
/* Cut text into w->fragment. */
int tok_special_split(const struct tok *t, struct tok_work *w, const char *text, size_t n,
                      bool parse_special, struct err *e);

/* How a piece is returned: copy what fits, always terminate, count everything. */
struct tok_out {
    char *buf;
    size_t cap, n;
};
void tok_out_put(struct tok_out *o, const char *s, size_t n);

#define X(name, model) extern const struct tok_model tok_model_##name;
TOK_LIST(X)
#undef X

#endif
