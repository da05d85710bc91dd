/* SPDX-License-Identifier: MIT
 * ppl.c - perplexity; see ppl.h. */
#include "measure/ppl.h"

#include "arm/kld_file.h"

static int on_score(void *arg, const struct walk_answer *s, struct err *e) {
    int rc = 0;
    struct ppl_run *r = arg;
    double nll = s->nll;
    if (r->save) {
        float max = (float)s->a->max;
        nll = max + (float)s->a->lse - s->a->logits[s->target];
        TRY(kld_writer_add(r->save, s->a->logits, max, s->a->lse, e));
    }
    r->now.nll_sum += nll;
    r->now.nll_sq_sum += nll * nll;
    r->now.n_scored++;
out:
    return rc;
}

static int finish_chunk(struct ppl_run *r, int64_t i, const struct ppl_chunk *c, struct err *e) {
    ppl_stats_add_chunk(&r->stats, c->nll_sum, c->nll_sq_sum, c->n_scored);
    return r->chunk(r->arg, i, c, &r->stats, e);
}

static int on_done(void *arg, int64_t window, struct err *e) {
    int rc = 0;
    struct ppl_run *r = arg;
    struct ppl_chunk c = r->now;
    r->now = (struct ppl_chunk){ 0 };
    if (r->save) TRY(kld_writer_flush(r->save, e));
    TRY(finish_chunk(r, window, &c, e));
out:
    return rc;
}

static int on_pass(void *arg, int64_t first, int n, double seconds, struct err *e) {
    struct ppl_run *r = arg;
    return r->pass ? r->pass(r->arg, first, n, seconds, e) : 0;
}

int ppl_run(struct ppl_run *r, struct err *e) {
    int rc = 0;
    r->stats = (struct ppl_stats){ 0 };
    r->now = (struct ppl_chunk){ 0 };
    for (int64_t i = 0; i < r->n_known; i++)
        TRY(finish_chunk(r, i, &r->known[i], e));
    r->walk.arg = r;
    r->walk.score = on_score;
    r->walk.done = on_done;
    r->walk.pass = on_pass;
    r->walk.skip = r->n_known;
    TRY(walk_run(&r->walk, e));
out:
    return rc;
}
