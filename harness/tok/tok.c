/* SPDX-License-Identifier: MIT
 * tok.c - loading a tokenizer and the procedure around the two models; see tok.h. */
#include "tok/tok.h"

#include <string.h>
#include <xxhash.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "tok/tok_impl.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30) /* of one call: symbols are counted in 32 bits */
#define MAX_CACHED_BYTES 64              /* longer words hardly repeat */
#define MIN_CACHE 16                     /* entries; a power of two, as is MAX_CACHE */
#define MAX_CACHE 65536

/* ---- loading ------------------------------------------------------------------------------- */

static const struct tok_model *const models[] = {
#define X(name, model) &tok_model_##name,
    TOK_LIST(X)
#undef X
};

#define X(name, model) " " model
static const char model_names[] = TOK_LIST(X);
#undef X

static int find_model(struct tok *t, const struct gguf *g, struct err *e) {
    int rc = 0;
    struct gguf_str s = { "", 0 };
    TRY(gguf_get_str(g, "tokenizer.ggml.model", &s, e));
    FAIL_IF(!rc, e, ERR_MISSING, "tokenizer.ggml.model is missing: the file has no vocabulary");
    for (size_t i = 0; i < N_ELEMS(models); i++)
        if (strlen(models[i]->name) == s.n && !memcmp(models[i]->name, s.p, s.n))
            t->model = models[i];
    FAIL_IF(!t->model, e, ERR_UNSUPPORTED, "tokenizer.ggml.model is \"%.*s\", expected one of%s",
            (int)(s.n < 64 ? s.n : 64), s.p, model_names);
    rc = 0;
out:
    return rc;
}

int tok_load(struct tok **out, const struct gguf *g, struct err *e) {
    int rc = 0;
    struct tok *t = heap_calloc(1, sizeof *t, e);
    *out = NULL;
    if (!t) return ERR_NOMEM;
    TRY(find_model(t, g, e));
    TRY(tok_vocab_load(t, g, e));
    TRY(tok_special_load(t, e));
out:
    if (rc < 0)
        tok_free(t);
    else
        *out = t;
    return rc;
}

void tok_free(struct tok *t) {
    if (!t) return;
    if (t->model) t->model->release(t);
    strtab_release(&t->text);
    tok_special_release(&t->special);
    heap_free(t->info);
    heap_free(t);
}

/* ---- one call ------------------------------------------------------------------------------ */

static int reserve_ids(struct tok_work *w, int64_t more, struct err *e) {
    if (w->cap_ids - w->ids.n >= more) return 0;
    int64_t cap = (w->ids.n + more) * 2;
    int32_t *p = heap_realloc(w->ids.id, (size_t)cap * sizeof *p, e);
    if (!p) return ERR_NOMEM;
    w->ids.id = p;
    w->cap_ids = cap;
    return 0;
}

int tok_push(struct tok_work *w, int32_t id, struct err *e) {
    int rc = reserve_ids(w, 1, e);
    if (rc < 0) return rc;
    w->ids.id[w->ids.n++] = id;
    return 0;
}

int tok_cache_find(struct tok_work *w, const char *text, size_t n, struct tok_cached **slot,
                   struct err *e) {
    *slot = NULL;
    if (n > MAX_CACHED_BYTES) return 0;
    uint64_t hash = XXH3_64bits(text, n);
    struct tok_cached *c = &w->cache[hash & (w->n_cache - 1)];
    if (c->text && c->hash == hash && c->n == n && !memcmp(c->text, text, n)) {
        if (!c->n_id) return 1; /* a vocabulary that covers none of its bytes */
        int rc = reserve_ids(w, c->n_id, e);
        if (rc < 0) return rc;
        memcpy(w->ids.id + w->ids.n, w->ids.id + c->id_at, c->n_id * sizeof *w->ids.id);
        w->ids.n += c->n_id;
        return 1;
    }
    /* Not found unless tok_cache_keep completes it. */
    *c = (struct tok_cached){ .hash = hash, .text = text, .n = (uint32_t)n, .id_at = -1 };
    *slot = c;
    return 0;
}

void tok_cache_keep(struct tok_work *w, struct tok_cached *slot, int64_t id_at) {
    if (!slot) return;
    slot->id_at = id_at;
    slot->n_id = (uint32_t)(w->ids.n - id_at);
}

static int work_init(struct tok_work *w, size_t n, struct err *e) {
    w->n_cache = MIN_CACHE;
    while (w->n_cache < MAX_CACHE && w->n_cache < n / 16)
        w->n_cache *= 2;
    w->cache = heap_calloc(w->n_cache, sizeof *w->cache, e);
    return w->cache ? 0 : ERR_NOMEM;
}

static void work_release(struct tok_work *w) {
    heap_free(w->ids.id);
    heap_free(w->fragment);
    heap_free(w->text);
    heap_free(w->cache);
    merge_release(&w->merge);
    pretok_run_free(w->pre);
}

static int encode_fragments(const struct tok *t, struct tok_work *w, const char *text,
                            struct err *e) {
    int rc = 0;
    bool first = true;
    for (size_t i = 0; i < w->n_fragment; i++) {
        const struct tok_fragment *f = &w->fragment[i];
        if (f->id >= 0)
            TRY(tok_push(w, f->id, e));
        else
            TRY(t->model->encode(t, w, text + f->at, f->n, first, e));
        first = f->id >= 0;
    }
out:
    return rc;
}

int tok_encode(const struct tok *t, const char *text, size_t n, bool add_special,
               bool parse_special, struct tok_ids *out, struct err *e) {
    int rc = 0;
    struct tok_work w = { 0 };
    *out = (struct tok_ids){ 0 };
    FAIL_IF(n > MAX_TEXT_BYTES, e, ERR_UNSUPPORTED, "a text of %zu bytes, at most %zu at once", n,
            MAX_TEXT_BYTES);
    TRY(work_init(&w, n, e));
    if (t->model->repair && !utf8_valid(text, n)) {
        const size_t cap = 3 * n + 1;
        w.text = heap_alloc(cap, e);
        if (!w.text) rc = ERR_NOMEM;
        TRY(rc);
        n = utf8_repair(w.text, cap, text, n);
        text = w.text;
    }
    TRY(tok_special_split(t, &w, text, n, parse_special, e));
    if (add_special && t->add_bos) TRY(tok_push(&w, t->bos, e));
    TRY(encode_fragments(t, &w, text, e));
    if (add_special && t->add_eos) TRY(tok_push(&w, t->eos, e));
    *out = w.ids;
    w.ids.id = NULL;
out:
    work_release(&w);
    return rc;
}

void tok_ids_free(struct tok_ids *ids) {
    heap_free(ids->id);
    *ids = (struct tok_ids){ 0 };
}

/* ---- questions ----------------------------------------------------------------------------- */

int32_t tok_n_vocab(const struct tok *t) {
    return t->text.n;
}

int32_t tok_bos(const struct tok *t) {
    return t->bos;
}

int32_t tok_eos(const struct tok *t) {
    return t->eos;
}

bool tok_add_bos(const struct tok *t) {
    return t->add_bos;
}

bool tok_add_eos(const struct tok *t) {
    return t->add_eos;
}

void tok_out_put(struct tok_out *o, const char *s, size_t n) {
    size_t room = o->cap > o->n + 1 ? o->cap - o->n - 1 : 0;
    if (room) memcpy(o->buf + o->n, s, n < room ? n : room);
    o->n += n;
    if (o->cap) o->buf[o->n < o->cap ? o->n : o->cap - 1] = '\0';
}

size_t tok_piece(const struct tok *t, int32_t id, char *buf, size_t buf_bytes) {
    if (buf_bytes) buf[0] = '\0';
    if (id < 0 || id >= t->text.n) return 0;
    int type = t->info[id].type;
    if (type == TOK_CONTROL || type == TOK_UNKNOWN) return 0;
    if (type != TOK_USER_DEFINED) return t->model->piece(t, id, buf, buf_bytes);
    struct tok_out o = { buf, buf_bytes, 0 };
    size_t n;
    const char *s = strtab_at(&t->text, id, &n);
    tok_out_put(&o, s, n);
    return o.n;
}
