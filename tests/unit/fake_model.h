/* SPDX-License-Identifier: MIT
 * fake_model.h - an arm whose logits are a known function, for tests of what measures them.
 *
 * logit(v) after the tokens c_0 .. c_p of a sequence is peak if v == (c_p + 1) % n_vocab, plus
 * wobble * ((c_0 + ... + c_p + 3 v) % 7): with wobble = 0 everything has a closed form, with a
 * wobble everything depends on the whole context, so that sequences must not mix. */
#ifndef GGAUGE_TEST_FAKE_MODEL_H
#define GGAUGE_TEST_FAKE_MODEL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "arm/arm.h"

#define FAKE_VOCAB_MAX 64
#define FAKE_SEQ_MAX 8

struct fake_model {
    struct arm base; /* first: ops get this pointer */
    float peak, wobble;
    int depth[FAKE_SEQ_MAX];
    int64_t sum[FAKE_SEQ_MAX]; /* of the tokens in the cache */
    int n_decodes, n_trims, max_n;
    int32_t bad_token, bad_pos; /* after this token at this position logit 1 is `bad`; -1 = never */
    float bad;
};

static inline float fake_logit(const struct fake_model *m, int32_t token, int64_t sum, int32_t v) {
    float peak = v == (token + 1) % m->base.info.n_vocab ? m->peak : 0;
    return peak + m->wobble * (float)((sum + 3 * v) % 7);
}

/* max, lse and top1 of logits, as arm.h defines them. */
static inline void fake_reduce(struct arm_answer *a, const float *l, int n_vocab) {
    a->logits = l;
    a->top1 = 0;
    for (int v = 1; v < n_vocab; v++)
        if (l[v] > l[a->top1]) a->top1 = v;
    a->max = l[a->top1];
    double s = 0;
    for (int v = 0; v < n_vocab; v++) s += expf(l[v] - l[a->top1]);
    a->lse = log(s);
}

static inline int fake_model_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn,
                                    void *arg, struct err *e) {
    int rc = 0;
    struct fake_model *m = (struct fake_model *)a;
    float l[FAKE_VOCAB_MAX];
    FAIL_IF(b->n < 1 || b->n > a->info.n_batch, e, ERR_ARG, "fake: batch of %d", b->n);
    m->n_decodes++;
    m->max_n = b->n > m->max_n ? b->n : m->max_n;
    for (int i = 0; i < b->n; i++) {
        int s = b->seq[i];
        FAIL_IF(s < 0 || s >= a->info.n_seq || b->pos[i] != m->depth[s] ||
                    b->pos[i] >= a->info.n_ctx,
                e, ERR_ARG, "fake: sequence %d, position %d", s, b->pos[i]);
        FAIL_IF(b->token[i] < 0 || b->token[i] >= a->info.n_vocab, e, ERR_ARG, "fake: token %d",
                b->token[i]);
        m->depth[s]++;
        m->sum[s] += b->token[i];
        if (!b->want || !b->want[i]) continue;
        for (int v = 0; v < a->info.n_vocab; v++) l[v] = fake_logit(m, b->token[i], m->sum[s], v);
        if (b->token[i] == m->bad_token && b->pos[i] == m->bad_pos) l[1] = m->bad;
        struct arm_answer ans = { .i = i };
        fake_reduce(&ans, l, a->info.n_vocab);
        TRY(fn(arg, &ans, e));
    }
out:
    return rc;
}

static inline int fake_model_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    int rc = 0;
    struct fake_model *m = (struct fake_model *)a;
    FAIL_IF(seq != -1 || pos != 0, e, ERR_ARG, "fake: trim of %d at %d", seq, pos);
    memset(m->depth, 0, sizeof m->depth);
    memset(m->sum, 0, sizeof m->sum);
    m->n_trims++;
out:
    return rc;
}

static inline void fake_model_init(struct fake_model *m, int n_vocab, int n_ctx, int n_seq,
                                   int n_batch) {
    static const struct arm_ops ops = { .decode = fake_model_decode, .kv_trim = fake_model_trim };
    *m = (struct fake_model){ .bad_token = -1, .bad_pos = -1 };
    m->base.ops = &ops;
    m->base.info = (struct arm_info){ .n_vocab = n_vocab, .n_ctx = n_ctx, .n_seq = n_seq,
                                      .n_batch = n_batch, .n_ubatch = n_batch, .bpw = 4.5,
                                      .model_bytes = 1000 };
}

#endif
