/* SPDX-License-Identifier: MIT
 * kv.c - the KV cache; see kv.h. */
#include "model/kv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/memory.h"

static int check_type(const char *what, enum qtype t, int64_t n_embd_head, struct err *e) {
    int rc = 0;
    FAIL_IF(t != QT_f32 && t != QT_f16 && t != QT_q8_0, e, ERR_UNSUPPORTED,
            "%s cache of type %s: expected f32, f16 or q8_0", what, qtype_info(t)->name);
    FAIL_IF(n_embd_head % qtype_info(t)->n_blk, e, ERR_UNSUPPORTED,
            "%s cache of type %s needs a head size that is a multiple of %d, not %lld", what,
            qtype_info(t)->name, qtype_info(t)->n_blk, (long long)n_embd_head);
out:
    return rc;
}

static struct tensor cache_tensor(const char *what, int64_t il, enum qtype t, int64_t n,
                                  int64_t n_cells, char **data) {
    struct tensor c = { .type = t, .ne = { n, n_cells, 1, 1 } };
    c.row_bytes = qtype_row_bytes(t, n);
    c.data = *data;
    *data += c.row_bytes * (size_t)n_cells;
    snprintf(c.name, sizeof c.name, "cache_%s_l%lld", what, (long long)il);
    return c;
}

int kv_init(struct kv_cache *kv, const struct hparams *hp, enum qtype type_k, enum qtype type_v,
            int32_t n_ctx, int32_t n_seq, struct err *e) {
    int rc = 0;
    *kv = (struct kv_cache){
        .type_k = type_k, .type_v = type_v, .n_layer = hp->n_layer, .n_ctx = n_ctx, .n_seq = n_seq
    };
    TRY(check_type("K", type_k, hp->n_embd_head_k, e));
    TRY(check_type("V", type_v, hp->n_embd_head_v, e));
    int64_t n_k = hp->n_head_kv * hp->n_embd_head_k, n_v = hp->n_head_kv * hp->n_embd_head_v;
    int64_t n_cells = (int64_t)n_ctx * n_seq;
    FAIL_IF(n_ctx < 1 || n_seq < 1 || n_cells > INT32_MAX, e, ERR_ARG,
            "a KV cache of %d sequences of %d positions is out of range", n_seq, n_ctx);
    size_t row = qtype_row_bytes(type_k, n_k) + qtype_row_bytes(type_v, n_v);
    FAIL_IF(row > SIZE_MAX / (size_t)n_cells / (size_t)hp->n_layer, e, ERR_ARG,
            "a KV cache of %lld layers with %zu bytes a position is out of range",
            (long long)hp->n_layer, row);
    kv->n_bytes = row * (size_t)n_cells * (size_t)hp->n_layer;
    kv->k = heap_calloc((size_t)hp->n_layer, sizeof *kv->k, e);
    kv->v = heap_calloc((size_t)hp->n_layer, sizeof *kv->v, e);
    kv->n_used = heap_calloc((size_t)n_seq, sizeof *kv->n_used, e);
    FAIL_IF(!kv->k || !kv->v || !kv->n_used, e, ERR_NOMEM, "out of memory for the KV cache");
    kv->data = heap_alloc(kv->n_bytes, e);
    FAIL_IF(!kv->data, e, ERR_NOMEM,
            "out of memory: a KV cache of %d x %d positions needs %zu MiB of the %" PRIu64
            " MiB available; shorten it (-c, -d), or use a smaller -ctk and -ctv",
            n_seq, n_ctx, kv->n_bytes >> 20, memory_available() >> 20);
    char *p = kv->data;
    for (int64_t il = 0; il < hp->n_layer; il++) {
        kv->k[il] = cache_tensor("k", il, type_k, n_k, n_cells, &p);
        kv->v[il] = cache_tensor("v", il, type_v, n_v, n_cells, &p);
    }
out:
    if (rc < 0) kv_release(kv);
    return rc;
}

void kv_touch(struct kv_cache *kv, int64_t il) {
    enum { PAGE = 4096 };
    const struct tensor *t[] = { &kv->k[il], &kv->v[il] };
    for (size_t s = 0; s < N_ELEMS(t); s++) {
        volatile char *p = t[s]->data;
        const size_t n_bytes = tensor_bytes(t[s]);
        for (size_t i = 0; i < n_bytes; i += PAGE)
            p[i] = 0;
        p[n_bytes - 1] = 0; /* may lie one page further */
    }
}

void kv_release(struct kv_cache *kv) {
    heap_free(kv->data);
    heap_free(kv->k);
    heap_free(kv->v);
    heap_free(kv->n_used);
    *kv = (struct kv_cache){ 0 };
}

int kv_trim(struct kv_cache *kv, int32_t seq, int32_t pos, struct err *e) {
    int rc = 0;
    FAIL_IF(seq < -1 || seq >= kv->n_seq || pos < 0, e, ERR_ARG,
            "cannot trim sequence %d at position %d: there are %d sequences", seq, pos, kv->n_seq);
    for (int32_t s = seq < 0 ? 0 : seq; s < (seq < 0 ? kv->n_seq : seq + 1); s++)
        if (kv->n_used[s] > pos) kv->n_used[s] = pos;
out:
    return rc;
}
