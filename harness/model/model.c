/* SPDX-License-Identifier: MIT
 * model.c - weights by role; see model.h. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

#include "backend.h"

static void tensor_name(char *buf, int il, const char *suffix) {
    if (il < 0)
        snprintf(buf, TENSOR_NAME_MAX, "%s", suffix);
    else
        snprintf(buf, TENSOR_NAME_MAX, "blk.%d.%s", il, suffix);
}

/* Look a tensor up, mark it used, and check its shape [n1, n0]; *out = NULL if optional and absent.
 */
static int find(struct model *m, const char *name, enum need need, int64_t n0, int64_t n1,
                const struct gguf_tensor **out, struct err *e) {
    int rc = 0;
    *out = gguf_find_tensor(m->g, name);
    FAIL_IF(!*out && need == NEED_REQUIRED, e, ERR_MISSING, "tensor %s is missing", name);
    if (!*out) return 0;
    const struct gguf_tensor *t = *out;
    m->used[t - gguf_tensor_at(m->g, 0)] = true;
    FAIL_IF(t->ne[0] != n0 || t->ne[1] != n1 || t->ne[2] != 1 || t->ne[3] != 1, e, ERR_FORMAT,
            "%s: shape is [%lld, %lld, %lld, %lld], expected [%lld, %lld]", name,
            (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3],
            (long long)n0, (long long)n1);
    FAIL_IF(t->type == QT_none, e, ERR_UNSUPPORTED, "%s: type id %u is unknown to this build", name,
            t->type_id);
    FAIL_IF(!qkernel_find(COL_ref, t->type, false, NULL), e, ERR_UNSUPPORTED,
            "%s: no kernels for type %s in this build", name, qtype_info(t->type)->name);
out:
    return rc;
}

static struct tensor *new_tensor(struct model *m, const char *name, enum qtype type, int64_t n0,
                                 int64_t n1, struct err *e) {
    struct tensor *t = arena_push(&m->mem, sizeof *t, e);
    if (!t) return NULL;
    *t = (struct tensor){ .type = type, .ne = { n0, n1, 1, 1 } };
    t->row_bytes = qtype_row_bytes(type, n0);
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

int model_matrix(struct model *m, int il, const char *suffix, enum need need, int64_t n_in,
                 int64_t n_out, const struct tensor **out, struct err *e) {
    int rc = 0;
    char name[TENSOR_NAME_MAX];
    const struct gguf_tensor *src;
    *out = NULL;
    tensor_name(name, il, suffix);
    if (m->lister) return m->lister->fn(m->lister->arg, name, need, n_in, n_out, e);
    TRY(find(m, name, need, n_in, n_out, &src, e));
    if (!src) return 0;
    struct tensor *t = new_tensor(m, name, src->type, n_in, n_out, e);
    if (!t) return ERR_NOMEM;
    /* Kernels only read weights; struct tensor serves outputs too, hence no const. */
    memcpy(&t->data, &src->data, sizeof t->data);
    *out = t;
out:
    return rc;
}

int model_vector(struct model *m, int il, const char *suffix, enum need need, int64_t n,
                 const struct tensor **out, struct err *e) {
    int rc = 0;
    char name[TENSOR_NAME_MAX];
    const struct gguf_tensor *src;
    *out = NULL;
    tensor_name(name, il, suffix);
    if (m->lister) return m->lister->fn(m->lister->arg, name, need, n, 1, e);
    TRY(find(m, name, need, n, 1, &src, e));
    if (!src) return 0;
    struct tensor *t = new_tensor(m, name, QT_f32, n, 1, e);
    if (!t) return ERR_NOMEM;
    t->data = arena_push(&m->mem, (size_t)n * sizeof(float), e);
    if (!t->data) return ERR_NOMEM;
    qkernel_find(COL_ref, src->type, false, NULL)->dequant_row(src->data, t->data, n);
    *out = t;
out:
    return rc;
}

/* Room for a tensor record and an f32 copy of every vector. */
static size_t arena_bytes(const struct gguf *g) {
    size_t n = 4096;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        n += sizeof(struct tensor) + 4 * MEM_ALIGN;
        if (t->ne[1] == 1 && t->ne[0] <= (1 << 24)) n += (size_t)t->ne[0] * 4 + 4 * MEM_ALIGN;
    }
    /* the output matrix may be a second view of the embedding */
    return n + sizeof(struct tensor);
}

static void count(struct model *m) {
    m->main_type = gguf_main_type(m->g);
    for (int64_t i = 0; i < gguf_n_tensors(m->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(m->g, i);
        m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
        m->n_bytes += t->n_bytes;
    }
}

/* A tensor that nobody asked for means that the file is something else than what would be computed.
 */
static int check_all_used(const struct model *m, struct err *e) {
    for (int64_t i = 0; i < gguf_n_tensors(m->g); i++)
        if (!m->used[i])
            return ERR(e, ERR_UNSUPPORTED,
                       "tensor %s is not part of the %s architecture as this "
                       "build runs it",
                       gguf_tensor_at(m->g, i)->name, arch_ops(m->hp.arch)->name);
    return 0;
}

static int ask_for_weights(struct model *m, struct err *e) {
    int rc = 0;
    const struct hparams *hp = &m->hp;
    TRY(model_matrix(m, -1, "token_embd.weight", NEED_REQUIRED, hp->n_embd, hp->n_vocab,
                     &m->token_embd, e));
    TRY(model_vector(m, -1, "output_norm.weight", NEED_REQUIRED, hp->n_embd, &m->output_norm, e));
    TRY(model_matrix(m, -1, "output.weight", NEED_OPTIONAL, hp->n_embd, hp->n_vocab, &m->output,
                     e));
    if (!m->output) m->output = m->token_embd;
    TRY(model_vector(m, -1, "rope_freqs.weight", NEED_OPTIONAL, hp->n_rot / 2, &m->rope_freqs, e));
    for (int il = 0; il < hp->n_layer; il++)
        TRY(arch_ops(hp->arch)->load_layer(m, il, &m->layers[il], e));
out:
    return rc;
}

int model_list(const struct hparams *hp, const struct model_lister *l, struct err *e) {
    struct model m = { .hp = *hp, .lister = l };
    m.layers = heap_calloc((size_t)hp->n_layer, sizeof *m.layers, e);
    if (!m.layers) return ERR_NOMEM;
    int rc = ask_for_weights(&m, e);
    heap_free(m.layers);
    return rc;
}

int model_open(struct model *m, const char *path, struct err *e) {
    int rc = 0;
    memset(m, 0, sizeof *m);
    FAIL_IF(!path, e, ERR_ARG, "no model: give a GGUF file with -m");
    TRY(gguf_open(&m->g, path, e));
    TRY(hparams_load(&m->hp, m->g, e));
    if (m->hp.n_vocab == 0) { /* a file without vocabulary still computes */
        const struct gguf_tensor *t = gguf_find_tensor(m->g, "token_embd.weight");
        m->hp.n_vocab = t ? t->ne[1] : 0;
    }
    TRY(arena_init(&m->mem, arena_bytes(m->g), e));
    m->layers = heap_calloc((size_t)m->hp.n_layer, sizeof *m->layers, e);
    m->used = heap_calloc((size_t)gguf_n_tensors(m->g) + 1, sizeof *m->used, e);
    FAIL_IF(!m->layers || !m->used, e, ERR_NOMEM, "out of memory for %lld layers",
            (long long)m->hp.n_layer);
    TRY(ask_for_weights(m, e));
    TRY(check_all_used(m, e));
    count(m);
out:
    if (rc < 0) {
        if (path && e && !strstr(e->msg, path)) err_prefix(e, "%s", path);
        model_close(m);
    }
    return rc;
}

bool model_has(const struct model *m, const struct tensor *t) {
    const uintptr_t at = (uintptr_t)t, base = (uintptr_t)m->mem.base;
    return at >= base && at < base + m->mem.used;
}

void model_close(struct model *m) {
    arena_release(&m->mem);
    heap_free(m->layers);
    heap_free(m->used);
    gguf_close(m->g);
    memset(m, 0, sizeof *m);
}
