/* SPDX-License-Identifier: MIT
 * perplexity_kld.c - `ggauge perplexity --kl-divergence`: a model against saved log-probabilities
 * of another. The tokens come from the file. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arm/kld_file.h"
#include "cli/kld_print.h"
#include "cli/perplexity.h"

struct compare {
    struct perplexity *cmd;
    struct kld_reader *base;
    struct kld_run run;
    struct kld before; /* sums up to the chunk before; its arrays belong to run.kld */
};

static struct interval interval_of(struct estimate x) {
    return (struct interval){ x.value - 1.96 * x.se, x.value + 1.96 * x.se };
}

/* The values of one chunk alone, and the running perplexity. */
static int chunk_rows(struct compare *p, int64_t i, const struct kld *k, struct err *e) {
    int rc = 0;
    struct run_rows *rows = &p->cmd->rows.run;
    const struct kld *b = &p->before;
    char subject[32];
    int64_t n = k->n - b->n;
    double kld = (k->kld_sum - b->kld_sum) / (double)n;
    double top = (double)(k->n_same_top - b->n_same_top) / (double)n;
    struct estimate ppl = kld_ppl(k);
    struct interval ci = interval_of(ppl);
    snprintf(subject, sizeof subject, "chunk %" PRId64, i + 1);
    TRY(run_rows_value(rows, subject, METRIC_nll_sum, k->nll - b->nll, NULL, n, e));
    TRY(run_rows_value(rows, subject, METRIC_nll_sq_sum, k->nll_sq - b->nll_sq, NULL, n, e));
    TRY(run_rows_value(rows, subject, METRIC_n_scored, (double)n, NULL, 0, e));
    TRY(run_rows_value(rows, subject, METRIC_kld, kld, NULL, n, e));
    TRY(run_rows_value(rows, subject, METRIC_top1, top, NULL, n, e));
    TRY(run_rows_value(rows, subject, METRIC_ppl_running, ppl.value, &ci, k->n, e));
    p->before = *k;
out:
    return rc;
}

static int on_chunk(void *arg, int64_t i, const struct kld *k, struct err *e) {
    int rc = 0;
    struct compare *p = arg;
    struct perplexity *c = p->cmd;
    TRY(chunk_rows(p, i, k, e));
    progress_clear(&c->progress);
    kld_print_chunk(stdout, i, k);
    TRY(perplexity_flush(e));
    progress_update(&c->progress, i + 1);
out:
    return rc;
}

static int on_pass(void *arg, int64_t first, int n, double seconds, struct err *e) {
    struct compare *p = arg;
    (void)e;
    progress_clear(&p->cmd->progress);
    perplexity_eta(p->cmd, "kl_divergence", p->cmd->win.n - first - n, n, seconds);
    return 0;
}

static int run_rows(struct compare *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    const struct kld *k = &p->run.kld;
    const struct {
        enum metric m;
        struct estimate x;
    } v[] = { { METRIC_ppl, kld_ppl(k) },
              { METRIC_kld, kld_mean(k) },
              { METRIC_top1, kld_same_top(k) } };
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        struct interval ci = interval_of(v[i].x);
        TRY(run_rows_value(&c->rows.run, "run", v[i].m, v[i].x.value, &ci, k->n, e));
    }
    TRY(run_rows_value(&c->rows.run, "run", METRIC_ppl_se_token, kld_ppl(k).se, NULL, k->n, e));
    const struct walk *w = &p->run.walk;
    TRY(ppl_rows_cost(&c->rows, c->a, w->n_evaluated, w->seconds, e));
    TRY(ppl_rows_gpu(&c->rows, c->a, &w->gpu, w->n_evaluated, e));
out:
    return rc;
}

/* The header against the model and the options. */
static int prepare(struct compare *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    const struct kld_shape *s = kld_reader_shape(p->base);
    int64_t n_whole = kld_reader_n_whole(p->base);
    char text_fp[17], base_fp[17], arm_b[32];
    if (n_whole < s->n_chunk)
        fprintf(stderr,
                "warning: %s was cut off: it holds %" PRId64 " of the %d chunks it was made for\n",
                c->base, n_whole, s->n_chunk);
    if (c->arm.n_ctx != s->n_ctx)
        fprintf(stderr, "note: %s has chunks of %d tokens, which are used instead of -c %d\n",
                c->base, s->n_ctx, c->arm.n_ctx);
    TRY(perplexity_open_arm(c, s->n_ctx, e));
    FAIL_IF(s->n_vocab != c->a->info.n_vocab, e, ERR_MISMATCH,
            "%s: the saved logits are of a vocabulary of %d, %s has %d", c->base, s->n_vocab,
            c->arm.model, c->a->info.n_vocab);
    int64_t limit = c->chunks >= 0 && c->chunks < n_whole ? c->chunks : n_whole;
    /* A file of one chunk is fine here: the rule of two is for texts. */
    int64_t n_tokens = (int64_t)s->n_ctx * (s->n_chunk > 1 ? s->n_chunk : 2);
    TRY(windows_plain(&c->win, n_tokens, s->n_ctx, limit, e));
    const int32_t *tokens = kld_reader_tokens(p->base);
    fingerprint_bytes(tokens, (size_t)s->n_ctx * (size_t)s->n_chunk * sizeof *tokens, text_fp);
    TRY(perplexity_describe(c, "kld", c->base, text_fp, "f32", e));
    TRY(kld_reader_fingerprint(p->base, base_fp, e));
    snprintf(arm_b, sizeof arm_b, "logits %s", base_fp);
    TRY(row_set(&c->rows.run.base, ROW_arm_b, arm_b, e));
    TRY(perplexity_open_rows(c, NULL, e));
out:
    return rc;
}

static int measure(struct compare *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    p->run.base = p->base;
    p->run.chunk = on_chunk;
    p->run.pass = on_pass;
    p->run.arg = p;
    p->run.walk = (struct walk){ .arm = c->a,
                                 .win = &c->win,
                                 .tokens = kld_reader_tokens(p->base),
                                 .bos = perplexity_bos(c),
                                 .n_batch = c->n_batch,
                                 .n_seq = c->n_seq };
    fprintf(stderr, "kl_divergence: %" PRId64 " chunks, n_ctx=%d, batch_size=%d, n_seq=%d\n",
            c->win.n, c->win.n_ctx, c->n_batch, c->n_seq);
    kld_print_head(stdout);
    progress_start(&c->progress, "chunk", c->win.n, 0);
    rc = kld_run(&p->run, e);
    progress_clear(&c->progress);
    if (rc == ERR_NONFINITE && p->run.walk.bad_window >= 0) {
        struct err second = { 0 };
        err_prefix(e, "verdict NONFINITE");
        ppl_rows_nonfinite(&c->rows, p->run.walk.bad_window, &second);
    }
    return rc;
}

int perplexity_kld(struct perplexity *c, struct err *e) {
    int rc = 0;
    struct compare p = { .cmd = c };
    TRY(kld_reader_open(&p.base, c->base, e));
    TRY(prepare(&p, e));
    TRY(measure(&p, e));
    kld_print_tables(stdout, &p.run.kld);
    TRY(perplexity_flush(e));
    perplexity_speed("kl_divergence", &p.run.walk);
    perplexity_judge(c, kld_ppl(&p.run.kld).value);
    TRY(run_rows(&p, e));
out:
    kld_release(&p.run.kld);
    kld_reader_close(p.base);
    return rc;
}
