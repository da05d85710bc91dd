/* SPDX-License-Identifier: MIT
 * arm.c - opening the arm that its parameters describe, and what all kinds of arms share; see
 * arm.h. */
#include "arm/arm.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/fp16.h"
#include "base/log.h"
#include "gguf/gguf.h"
#include "result/row.h"
#include "tok/tok.h"

int arm_open(struct arm **out, const struct arm_params *p, struct err *e) {
    if (p->kind == ARM_WORKER) return arm_open_worker(out, p, e);
    if (p->kind == ARM_FILE) return arm_open_file(out, p, e);
    if (p->kind == ARM_TOOL) {
        *out = NULL;
        return ERR(e, ERR_UNSUPPORTED,
                   "%s prints chunks, and only compare can use that: cli:PATH is no "
                   "whole arm",
                   p->path);
    }
    return p->act_like ? arm_open_act_like(out, p, e) : arm_open_builtin(out, p, e);
}

void arm_close(struct arm *a) {
    if (a) a->ops->release(a);
}

static bool is_finite_f32(float x) {
    return (f32_bits(x) & 0x7f800000u) != 0x7f800000u;
}

bool arm_row_same(const struct arm_row *a, const struct arm_row *b) {
    return memcmp(&a->max, &b->max, sizeof a->max) == 0 &&
           memcmp(&a->lse, &b->lse, sizeof a->lse) == 0 &&
           memcmp(&a->second, &b->second, sizeof a->second) == 0 && a->top1 == b->top1 &&
           a->bad == b->bad;
}

struct tok *arm_load_tok(const struct gguf *g, const char *path) {
    struct tok *t = NULL;
    struct err e = { 0 };
    if (gguf_find(g, "tokenizer.ggml.model") && tok_load(&t, g, &e) < 0)
        log_msg(LOG_WARN, "the tokenizer of %s cannot be used: %s", path, e.msg);
    return t;
}

void arm_reduce(struct arm_row *out, int64_t r, const struct arm_answer *a, int32_t n_vocab,
                int32_t target, bool logits) {
    const float *l = a->logits;
    *out = (struct arm_row){ .r = r,
                             .max = a->max,
                             .lse = a->lse,
                             .top1 = a->top1,
                             .bad = -1,
                             .second = -INFINITY,
                             .logits = logits ? l : NULL };
    for (int32_t i = 0; i < n_vocab; i++) {
        if (!is_finite_f32(l[i])) {
            out->bad = i;
            out->nll = (double)NAN;
            return;
        }
        if (l[i] > out->second && i != a->top1) out->second = l[i];
    }
    out->nll = a->lse - (double)(l[target] - (float)a->max);
}

int arm_info_row(const struct arm_info *i, struct row *r, struct err *e) {
    int rc = 0;
    TRY(row_set(r, ROW_backend, i->backend, e));
    TRY(row_set(r, ROW_model, i->name, e));
    TRY(row_set(r, ROW_arch, i->arch, e));
    TRY(row_set(r, ROW_qtype, i->qtype, e));
    TRY(row_set_num(r, ROW_bpw, i->bpw, e));
    TRY(row_set_int(r, ROW_n_ctx, i->n_ctx, e));
    TRY(row_set_int(r, ROW_n_threads, i->n_threads, e));
    TRY(row_set_int(r, ROW_n_threads_batch, i->n_threads_batch, e));
    TRY(row_set_int(r, ROW_n_batch, i->n_batch, e));
    TRY(row_set_int(r, ROW_n_ubatch, i->n_ubatch, e));
    TRY(row_set(r, ROW_type_k, i->type_k, e));
    TRY(row_set(r, ROW_type_v, i->type_v, e));
out:
    return rc;
}
