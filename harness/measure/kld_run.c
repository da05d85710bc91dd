/* SPDX-License-Identifier: MIT
 * kld_run.c - a model against a file of saved log-probabilities; see kld.h.
 *
 * Answers come in the order of the file's records, so one record is in memory at a time. */
#include "arm/kld_file.h"
#include "base/arena.h"
#include "measure/kld.h"

static int on_score(void *arg, const struct walk_answer *s, struct err *e) {
    int rc = 0;
    struct kld_run *r = arg;
    struct kld_position p;
    TRY(kld_reader_next(r->base, r->log_prob, e));
    kld_position(&p, r->log_prob, r->walk.arm->info.n_vocab, s->target, s->a);
    kld_add(&r->kld, &p);
out:
    return rc;
}

static int on_done(void *arg, int64_t window, struct err *e) {
    struct kld_run *r = arg;
    return r->chunk(r->arg, window, &r->kld, e);
}

static int on_pass(void *arg, int64_t first, int n, double seconds, struct err *e) {
    struct kld_run *r = arg;
    return r->pass ? r->pass(r->arg, first, n, seconds, e) : 0;
}

int kld_run(struct kld_run *r, struct err *e) {
    int rc = 0;
    int32_t n_vocab = r->walk.arm->info.n_vocab;
    const struct kld_shape *shape = kld_reader_shape(r->base);
    r->log_prob = NULL;
    FAIL_IF(shape->n_vocab != n_vocab, e, ERR_MISMATCH,
            "the saved logits are of a vocabulary of %d, the model has %d", shape->n_vocab,
            n_vocab);
    TRY(kld_reserve(&r->kld, r->walk.win->n * windows_n_scored(r->walk.win), e));
    r->log_prob = heap_alloc((size_t)n_vocab * sizeof *r->log_prob, e);
    if (!r->log_prob) {
        rc = ERR_NOMEM;
        goto out;
    }
    r->walk.arg = r;
    r->walk.score = on_score;
    r->walk.done = on_done;
    r->walk.pass = on_pass;
    r->walk.skip = 0;
    TRY(walk_run(&r->walk, e));
out:
    heap_free(r->log_prob);
    r->log_prob = NULL;
    return rc;
}
