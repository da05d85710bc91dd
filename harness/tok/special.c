/* SPDX-License-Identifier: MIT
 * special.c - cuts special tokens out of a text before anything else looks at it.
 *
 * Defined as: for each special token, the longest first, search every stretch of text not yet taken
 * from left to right. With thousands of such tokens that is slow, so all places where any of them
 * occurs are found in one pass, sorted into that order, and taken if still free. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "tok/tok_impl.h"

/* ---- loading ------------------------------------------------------------------------------- */

static bool is_special(const struct tok *t, int32_t id) {
    size_t n;
    const char *s = strtab_at(&t->text, id, &n);
    int type = t->info[id].type;
    if (type != TOK_CONTROL && type != TOK_UNKNOWN && type != TOK_USER_DEFINED) return false;
    return !t->model->repair || utf8_valid(s, n); /* repaired text contains no other */
}

struct by_length {
    uint32_t n;
    int32_t id;
};

static int compare_length(const void *a, const void *b) {
    const struct by_length *x = a, *y = b;
    if (x->n != y->n) return x->n > y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void add_prefix(uint8_t *set, const char *s, size_t n) {
    unsigned first = (unsigned char)s[0], low = n > 1 ? (unsigned char)s[1] : 0;
    unsigned high = n > 1 ? low : 255;
    for (unsigned second = low; second <= high; second++)
        set[(first << 8 | second) / 8] |= (uint8_t)(1u << (second & 7));
}

int tok_special_load(struct tok *t, struct err *e) {
    int rc = 0;
    struct tok_special *s = &t->special;
    size_t n_vocab = (size_t)t->text.n;
    struct by_length *list = heap_calloc(n_vocab, sizeof *list, e);
    s->id = heap_calloc(n_vocab, sizeof *s->id, e);
    s->order = heap_calloc(n_vocab, sizeof *s->order, e);
    s->length = heap_calloc(n_vocab, sizeof *s->length, e);
    s->prefix = heap_calloc(TOK_PREFIX_BYTES, 1, e);
    FAIL_IF(!list || !s->id || !s->order || !s->length || !s->prefix, e, ERR_NOMEM,
            "no memory for %zu tokens", n_vocab);
    for (int32_t id = 0; id < t->text.n; id++) {
        s->order[id] = -1;
        if (!is_special(t, id)) continue;
        list[s->n++] = (struct by_length){ .n = t->text.entry[id].n, .id = id };
        s->n_plain += t->info[id].type == TOK_USER_DEFINED;
    }
    qsort(list, (size_t)s->n, sizeof *list, compare_length);
    for (int32_t i = 0; i < s->n; i++) {
        size_t n;
        const char *text = strtab_at(&t->text, list[i].id, &n);
        s->id[i] = list[i].id;
        s->order[list[i].id] = i;
        if (!i || list[i].n != list[i - 1].n) s->length[s->n_length++] = list[i].n;
        add_prefix(s->prefix, text, n);
    }
out:
    heap_free(list);
    return rc;
}

void tok_special_release(struct tok_special *s) {
    heap_free(s->id);
    heap_free(s->order);
    heap_free(s->length);
    heap_free(s->prefix);
}

/* ---- searching ----------------------------------------------------------------------------- */

/* A place where a special token stands in the text. */
struct place {
    int32_t order; /* in the list of special tokens */
    size_t at, end;
};

struct places {
    struct place *p;
    size_t n, cap;
};

static int places_push(struct places *v, struct place x, struct err *e) {
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 16;
        struct place *p = heap_realloc(v->p, cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        v->p = p;
        v->cap = cap;
    }
    v->p[v->n++] = x;
    return 0;
}

static int find_places(const struct tok *t, const char *text, size_t n, bool parse_special,
                       struct places *v, struct err *e) {
    int rc = 0;
    const struct tok_special *s = &t->special;
    for (size_t at = 0; at < n; at++) {
        unsigned first = (unsigned char)text[at];
        unsigned second = at + 1 < n ? (unsigned char)text[at + 1] : 0;
        if (!(s->prefix[(first << 8 | second) / 8] >> (second & 7) & 1)) continue;
        for (int32_t i = 0; i < s->n_length; i++) {
            if (s->length[i] > n - at) continue;
            int32_t id = strtab_find(&t->text, text + at, s->length[i]);
            if (id < 0 || s->order[id] < 0) continue;
            if (!parse_special && t->info[id].type != TOK_USER_DEFINED) continue;
            TRY(places_push(v, (struct place){ s->order[id], at, at + s->length[i] }, e));
        }
    }
out:
    return rc;
}

static int by_order(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int by_place(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Keep the places that nothing earlier in the order has taken. Whatever was taken before is at
 * least as long, so it overlaps a place only if it covers one of its ends. */
static int take_places(const struct tok *t, const char *text, size_t n, struct places *v,
                       struct err *e) {
    size_t kept = 0;
    uint8_t *taken = heap_calloc(n, 1, e);
    if (!taken) return ERR_NOMEM;
    qsort(v->p, v->n, sizeof *v->p, by_order);
    for (size_t i = 0; i < v->n; i++) {
        struct place x = v->p[i];
        if (taken[x.at] || taken[x.end - 1]) continue;
        if (t->info[t->special.id[x.order]].rstrip)
            while (x.end < n && !taken[x.end] && is_space(text[x.end]))
                x.end++;
        memset(taken + x.at, 1, x.end - x.at);
        v->p[kept++] = x;
    }
    v->n = kept;
    heap_free(taken);
    qsort(v->p, v->n, sizeof *v->p, by_place);
    return 0;
}

static int fragment_push(struct tok_work *w, size_t at, size_t n, int32_t id, struct err *e) {
    if (w->n_fragment == w->cap_fragment) {
        size_t cap = w->cap_fragment ? w->cap_fragment * 2 : 16;
        struct tok_fragment *p = heap_realloc(w->fragment, cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        w->fragment = p;
        w->cap_fragment = cap;
    }
    w->fragment[w->n_fragment++] = (struct tok_fragment){ .at = at, .n = n, .id = id };
    return 0;
}

int tok_special_split(const struct tok *t, struct tok_work *w, const char *text, size_t n,
                      bool parse_special, struct err *e) {
    int rc = 0;
    struct places v = { 0 };
    const struct tok_special *s = &t->special;
    size_t done = 0;
    if (parse_special ? s->n : s->n_plain) TRY(find_places(t, text, n, parse_special, &v, e));
    if (v.n) TRY(take_places(t, text, n, &v, e));
    for (size_t i = 0; i < v.n; i++) {
        const struct place *x = &v.p[i];
        if (x->at > done) TRY(fragment_push(w, done, x->at - done, -1, e));
        TRY(fragment_push(w, x->at, x->end - x->at, s->id[x->order], e));
        done = x->end;
    }
    if (done < n) TRY(fragment_push(w, done, n - done, -1, e));
out:
    heap_free(v.p);
    return rc;
}
