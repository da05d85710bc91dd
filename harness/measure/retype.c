/* SPDX-License-Identifier: MIT
 * retype.c - rounding matrices to simple types; see retype.h. Layouts: legacy.h. */
#include "measure/retype.h"

#include <math.h>
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/fp16.h"

bool retype_knows(enum qtype t) {
    return t == QT_f32 || t == QT_bf16 || t == QT_q4_1 || t == QT_q5_0 || t == QT_q5_1 ||
           t == QT_q6_0;
}

/* The integers of a block: x = d q + m, q in [0, max]. */
struct rounded {
    float d, m;
    int q[QK_LEGACY];
};

static struct rounded round_block(const float *x, int max, bool with_min) {
    struct rounded r = { 0 };
    float lo = x[0], hi = x[0];
    for (int i = 1; i < QK_LEGACY; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    if (with_min) {
        r.m = f16_to_f32(f32_to_f16(lo));
        r.d = f16_to_f32(f32_to_f16((hi - lo) / (float)max));
    } else { /* an offset of half the range: the larger end is exact */
        float end = -lo > hi ? lo : hi;
        r.d = f16_to_f32(f32_to_f16(end / -(float)((max + 1) / 2)));
        r.m = -r.d * (float)((max + 1) / 2);
    }
    for (int i = 0; i < QK_LEGACY; i++) {
        float q = r.d != 0 ? rintf((x[i] - r.m) / r.d) : 0;
        r.q[i] = (int)fminf(fmaxf(q, 0), (float)max);
    }
    return r;
}

static void put_nibbles(const struct rounded *r, uint8_t *qs) {
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)((r->q[j] & 15) | (r->q[j + 16] & 15) << 4);
}

static void put_fifth_bits(const struct rounded *r, uint8_t *qh) {
    memset(qh, 0, 4);
    for (int w = 0; w < QK_LEGACY; w++)
        qh[w / 8] |= (uint8_t)((r->q[w] >> 4 & 1) << w % 8);
}

static void put_block(enum qtype t, const float *x, void *out) {
    struct rounded r = round_block(x,
                                   t == QT_q4_1   ? 15
                                   : t == QT_q6_0 ? 63
                                                  : 31,
                                   t == QT_q4_1 || t == QT_q5_1);
    if (t == QT_q4_1) {
        struct blk_q4_1 *b = out;
        b->d = f32_to_f16(r.d);
        b->m = f32_to_f16(r.m);
        put_nibbles(&r, b->qs);
    } else if (t == QT_q5_0) {
        struct blk_q5_0 *b = out;
        b->d = f32_to_f16(r.d);
        put_fifth_bits(&r, b->qh);
        put_nibbles(&r, b->qs);
    } else if (t == QT_q5_1) {
        struct blk_q5_1 *b = out;
        b->d = f32_to_f16(r.d);
        b->m = f32_to_f16(r.m);
        put_fifth_bits(&r, b->qh);
        put_nibbles(&r, b->qs);
    } else {
        struct blk_q6_0 *b = out;
        b->d = f32_to_f16(r.d);
        memset(b->qh, 0, sizeof b->qh);
        for (int j = 0; j < 16; j++)
            b->qh[j % 8] |= (uint8_t)((r.q[j] >> 4 | r.q[j + 16] >> 4 << 2) << (j / 8 ? 4 : 0));
        put_nibbles(&r, b->qs);
    }
}

static void put_row(enum qtype t, const float *x, int64_t n, char *out) {
    size_t size = qtype_info(t)->blk_bytes;
    int step = qtype_info(t)->n_blk;
    for (int64_t i = 0; i < n; i += step, out += size) {
        if (t == QT_f32) {
            memcpy(out, x + i, sizeof *x);
        } else if (t == QT_bf16) {
            uint16_t v = f32_to_bf16(x[i]);
            memcpy(out, &v, sizeof v);
        } else {
            put_block(t, x + i, out);
        }
    }
}

static bool is_matrix(const struct gguf_tensor *f, enum qtype t) {
    return f->type == QT_f16 && f->n_dims == 2 && f->ne[1] > 1 &&
           f->ne[0] % qtype_info(t)->n_blk == 0;
}

static int write_tensor(struct gguf_writer *w, const struct gguf_tensor *f, enum qtype t,
                        struct err *e) {
    int rc = 0;
    if (!is_matrix(f, t)) return gguf_writer_data(w, f->data, (size_t)f->n_bytes, e);
    const struct qkernel *k = qkernel_find(COL_ref, f->type, false, NULL);
    size_t in = qtype_row_bytes(f->type, f->ne[0]), out = qtype_row_bytes(t, f->ne[0]);
    float *x = heap_alloc((size_t)f->ne[0] * sizeof *x, e);
    char *row = heap_alloc(out, e);
    if (!x || !row) rc = ERR_NOMEM;
    for (int64_t r = 0; r < f->ne[1] && rc >= 0; r++) {
        k->dequant_row((const char *)f->data + (size_t)r * in, x, f->ne[0]);
        put_row(t, x, f->ne[0], row);
        rc = gguf_writer_data(w, row, out, e);
    }
    heap_free(x);
    heap_free(row);
    return rc;
}

int retype_model(const struct gguf *g, enum qtype t, const char *path, struct err *e) {
    int rc = 0;
    struct gguf_writer *w = NULL;
    TRY(gguf_writer_new(&w, path, e));
    for (int64_t i = 0; i < gguf_n_kv(g); i++)
        TRY(gguf_put_kv(w, gguf_kv_at(g, i), e));
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *f = gguf_tensor_at(g, i);
        FAIL_IF(f->type == QT_none, e, ERR_UNSUPPORTED, "%s: %s: its type is not known",
                gguf_path(g), f->name);
        TRY(gguf_put_tensor(w, f->name, f->n_dims, f->ne, is_matrix(f, t) ? t : f->type, e));
    }
    TRY(gguf_writer_begin(w, e));
    for (int64_t i = 0; i < gguf_n_tensors(g); i++)
        TRY(write_tensor(w, gguf_tensor_at(g, i), t, e));
    TRY(gguf_writer_end(w, e));
out:
    gguf_writer_free(w);
    return rc;
}
