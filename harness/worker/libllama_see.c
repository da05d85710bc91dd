/* SPDX-License-Identifier: MIT
 * libllama_see.c - the engine's nodes shown to an observer, and forced to what it wants; see
 * libllama.h.
 *
 * The engine asks for each node in front of its run, and calls again behind it if it was wanted; it
 * then goes on from the tensor's own memory. So writing there, through the backend that owns it,
 * forces the inputs of every later node on any device. */
#include <string.h>

#include "base/arena.h"
#include "libllama.h"
#include "libllama_map.h"

#define CHECKED_BYTES 256

static int reserve(struct libllama *s, size_t n_bytes, struct err *e) {
    if (n_bytes <= s->data_bytes) return 0;
    void *p = heap_realloc(s->data, n_bytes, e);
    if (!p) return ERR_NOMEM;
    s->data = p;
    s->data_bytes = n_bytes;
    return 0;
}

static bool is_scattered(const struct ggml_tensor *t) {
    return !strcmp(ggml_op_name(t->op), "SET_ROWS");
}

/* The rows of a cache that a node has stored, to or from s->data. */
static int move_scattered(struct libllama *s, struct ggml_tensor *t, bool back, struct err *e) {
    int rc = 0;
    struct ggml_tensor *index = t->src[1];
    const int64_t n = index->ne[0];
    const size_t row_bytes = ggml_row_size(t->type, t->ne[0]);
    int64_t *row = heap_alloc((size_t)n * sizeof *row, e);
    if (!row) return ERR_NOMEM;
    FAIL_IF(index->type != GGML_TYPE_I64, e, ERR_UNSUPPORTED, "%s: its rows are counted by %s",
            t->name, ggml_type_name(index->type));
    ggml_backend_tensor_get(index, row, 0, (size_t)n * sizeof *row);
    for (int64_t i = 0; i < n; i++) {
        char *mine = (char *)s->data + (size_t)i * row_bytes;
        FAIL_IF(row[i] < 0 || row[i] >= t->ne[1], e, ERR_ARM, "%s: row %lld of %lld", t->name,
                (long long)row[i], (long long)t->ne[1]);
        const size_t at = (size_t)row[i] * t->nb[1];
        if (back)
            ggml_backend_tensor_set(t, mine, at, row_bytes);
        else
            ggml_backend_tensor_get(t, mine, at, row_bytes);
    }
out:
    heap_free(row);
    return rc;
}

/* What was written is there; its first and last bytes stand for the rest. */
static int check_forced(const struct ggml_tensor *t, const void *data, size_t n_bytes,
                        struct err *e) {
    int rc = 0;
    unsigned char back[2][CHECKED_BYTES];
    const size_t n = n_bytes < CHECKED_BYTES ? n_bytes : CHECKED_BYTES;
    ggml_backend_tensor_get(t, back[0], 0, n);
    ggml_backend_tensor_get(t, back[1], n_bytes - n, n);
    FAIL_IF(memcmp(back[0], data, n) || memcmp(back[1], (const char *)data + n_bytes - n, n), e,
            ERR_UNSUPPORTED, "%s: " ENGINE_NAME " does not let its tensors be written", t->name);
out:
    return rc;
}

static int show(struct libllama *s, struct ggml_tensor *t, struct err *e) {
    int rc = 0;
    const struct node *n = ggml_map_last(s->map);
    const size_t n_bytes = (size_t)node_rows(n) * n->dst->row_bytes;
    TRY(reserve(s, n_bytes, e));
    if (is_scattered(t)) {
        TRY(move_scattered(s, t, false, e));
        TRY(s->observer->see(s->observer->arg, n, s->data, e));
        TRY(move_scattered(s, t, true, e));
        goto out;
    }
    ggml_backend_tensor_get(t, s->data, 0, n_bytes);
    TRY(s->observer->see(s->observer->arg, n, s->data, e));
    ggml_backend_tensor_set(t, s->data, 0, n_bytes);
    TRY(check_forced(t, s->data, n_bytes, e));
out:
    return rc;
}

static int ask_for(struct libllama *s, const struct node *n, bool *wanted, struct err *e) {
    int rc = 0;
    struct observer *o = s->observer;
    if (o->graph) TRY(o->graph(o->arg, &n, 1, e));
    *wanted = o->want(o->arg, n);
out:
    return rc;
}

bool libllama_eval(struct ggml_tensor *t, bool ask, void *arg) {
    struct libllama *s = arg;
    bool wanted = false;
    if (!s->observer || s->see_rc < 0) return !ask;
    if (!ask) {
        s->see_rc = show(s, t, &s->see_err);
        return s->see_rc >= 0;
    }
    const struct node *n = ggml_map_node(s->map, t);
    if (n) s->see_rc = ask_for(s, n, &wanted, &s->see_err);
    return wanted && s->see_rc >= 0;
}

int libllama_show_logits(struct libllama *s, int64_t r0, int64_t n, struct err *e) {
    int rc = 0;
    bool wanted;
    const struct node *node = ggml_map_output(s->map, n);
    TRY(ask_for(s, node, &wanted, e));
    if (wanted)
        TRY(s->observer->see(s->observer->arg, node, s->held + r0 * s->arm.info.n_vocab, e));
out:
    return rc;
}
