/* SPDX-License-Identifier: MIT
 * fake_arm.h - an engine without arithmetic, for tests of measurements.
 *
 * Decoding n tokens at position p advances its clock by n * (token_ns + p * pos_ns), plus `slow_ns`
 * for the first `n_slow` decodes. Its largest logit is `max`, whoever asks. It checks that
 * positions follow each other without a gap and that batches keep to n_batch, and it keeps a log of
 * its calls as text. */
#ifndef GGAUGE_TEST_FAKE_ARM_H
#define GGAUGE_TEST_FAKE_ARM_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "arm/arm.h"

#define FAKE_SEQS 8

struct fake_arm {
    struct arm base; /* first: ops get this pointer */
    int64_t now_ns, token_ns, pos_ns, slow_ns;
    int n_slow, n_decodes, fail_at; /* fail_at: the n-th decode fails; 0 = none */
    int depth[FAKE_SEQS];           /* tokens in the cache */
    uint64_t token_hash;
    double max;
    int n_answers;
    size_t n_log;
    char log[16384]; /* "pSEQ:POS+N" prompt, "g" one wanted token, "tSEQ:POS" trim */
};

static inline int64_t fake_clock(void *arg) {
    return ((struct fake_arm *)arg)->now_ns;
}

static inline void fake_log(struct fake_arm *f, const char *text) {
    size_t n = strlen(text);
    if (f->n_log + n + 2 > sizeof f->log) return;
    if (f->n_log) f->log[f->n_log++] = ' ';
    memcpy(f->log + f->n_log, text, n + 1);
    f->n_log += n;
}

static inline int fake_check(struct fake_arm *f, const struct arm_batch *b, struct err *e) {
    int rc = 0, seq = b->seq[0];
    FAIL_IF(b->n < 1 || b->n > f->base.info.n_batch, e, ERR_ARG, "fake: batch of %d", b->n);
    for (int i = 0; i < b->n; i++) {
        FAIL_IF(b->seq[i] != seq || seq < 0 || seq >= f->base.info.n_seq, e, ERR_ARG,
                "fake: sequence %d", b->seq[i]);
        FAIL_IF(b->pos[i] != f->depth[seq] + i || b->pos[i] >= f->base.info.n_ctx, e, ERR_ARG,
                "fake: position %d where %d is next", b->pos[i], f->depth[seq] + i);
        FAIL_IF(b->token[i] < 0 || b->token[i] >= f->base.info.n_vocab, e, ERR_ARG,
                "fake: token %d", b->token[i]);
        f->token_hash = (f->token_hash ^ (uint64_t)b->token[i]) * 0x100000001b3u;
    }
out:
    return rc;
}

static inline int fake_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                              struct err *e) {
    struct fake_arm *f = (struct fake_arm *)a;
    char text[64];
    int rc = 0, n_want = 0;
    TRY(fake_check(f, b, e));
    FAIL_IF(++f->n_decodes == f->fail_at, e, ERR_DEVICE, "fake: broken");
    for (int i = 0; i < b->n; i++)
        n_want += b->want && b->want[i];
    snprintf(text, sizeof text, "%s%d:%d+%d", b->n == 1 && n_want ? "g" : n_want ? "P" : "p",
             b->seq[0], b->pos[0], b->n);
    fake_log(f, text);
    f->now_ns += b->n * (f->token_ns + b->pos[0] * f->pos_ns);
    if (f->n_slow > 0) f->n_slow--, f->now_ns += f->slow_ns;
    f->depth[b->seq[0]] += b->n;
    for (int i = 0; fn && i < b->n; i++) {
        if (!b->want || !b->want[i]) continue;
        f->n_answers++;
        TRY(fn(arg, &(struct arm_answer){ .i = i, .max = f->max }, e));
    }
out:
    return rc;
}

static inline int fake_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    struct fake_arm *f = (struct fake_arm *)a;
    char text[64];
    (void)e;
    for (int s = 0; s < FAKE_SEQS; s++)
        if ((seq == s || seq == -1) && f->depth[s] > pos) f->depth[s] = pos;
    snprintf(text, sizeof text, "t%d:%d", (int)seq, (int)pos);
    fake_log(f, text);
    return 0;
}

static inline void fake_arm_init(struct fake_arm *f, int n_ctx, int n_batch) {
    static const struct arm_ops ops = { .decode = fake_decode, .kv_trim = fake_trim };
    *f = (struct fake_arm){ .token_ns = 1000000 };
    f->base.ops = &ops;
    f->base.info = (struct arm_info){ .n_vocab = 100, .n_ctx = n_ctx, .n_seq = 4,
                                      .n_batch = n_batch, .n_ubatch = n_batch, .n_threads = 2,
                                      .n_threads_batch = 2, .n_params = 5771264,
                                      .model_bytes = 6131712, .type_k = "f16", .type_v = "f16",
                                      .backend = "avx2", .name = "fake model",
                                      .desc = "qwen3 ?B Q8_0" };
}

#endif
