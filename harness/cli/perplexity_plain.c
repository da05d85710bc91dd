/* SPDX-License-Identifier: MIT
 * perplexity_plain.c - `ggauge perplexity` on a text: chunks or strides, the running values, going
 * on from earlier rows, and saving logits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arm/kld_file.h"
#include "base/arena.h"
#include "base/timer.h"
#include "cli/perplexity.h"
#include "cli/text.h"
#include "tok/tok.h"

#define LINE_BYTES 96 /* of the longest value that stdout gets for a chunk */

/* One run over one text. */
struct plain {
    struct perplexity *cmd;
    struct text text;
    struct tok_ids ids;
    struct ppl_known known;
    int64_t n_csv; /* chunks that --csv holds */
    struct ppl_run run;
    /* Values of the first pass: in the rows already, but printed only after its message about the
     * remaining time, which would otherwise split their line. */
    char *held;
    size_t n_held;
};

static int tokenize(struct plain *p, struct err *e) {
    int rc = 0;
    const struct perplexity *c = p->cmd;
    fputs("perplexity: tokenizing the input ..\n", stderr);
    double t0 = timer_s();
    TRY(tok_encode(c->a->tok, p->text.data, p->text.n, true, false, &p->ids, e));
    fprintf(stderr, "perplexity: tokenization took %g ms\n", (timer_s() - t0) * 1e3);
    for (int64_t i = 0; i < p->ids.n; i++)
        FAIL_IF(p->ids.id[i] < 0 || p->ids.id[i] >= c->a->info.n_vocab, e, ERR_FORMAT,
                "%s: token %d is outside of the model's %d outputs", c->arm.model, p->ids.id[i],
                c->a->info.n_vocab);
out:
    return rc;
}

static int cut_windows(struct plain *p, struct err *e) {
    struct perplexity *c = p->cmd;
    if (c->stride) return windows_strided(&c->win, p->ids.n, c->arm.n_ctx, c->stride, c->chunks, e);
    return windows_plain(&c->win, p->ids.n, c->arm.n_ctx, c->chunks, e);
}

/* Rows and logits of an earlier run: what of them can be gone on with. */
static int read_known(struct plain *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    if (!c->resume) goto out;
    TRY(ppl_rows_read(c->csv, &c->rows.run.base, c->win.n, &p->known, e));
    p->n_csv = p->known.n;
    if (p->known.same_run) {
        /* One run, one name: its chunks stay together wherever rows are grouped. */
        TRY(row_set(&c->rows.run.base, ROW_run_id, p->known.run_id, e));
        TRY(row_set(&c->rows.run.base, ROW_time_utc, p->known.time_utc, e));
    }
    fprintf(stderr, "perplexity: %s holds %" PRId64 " of %" PRId64 " chunks\n", c->csv, p->known.n,
            c->win.n);
out:
    return rc;
}

/* Logits are gone on with only if they belong to the rows. */
static int resume_save(struct plain *p, const struct kld_shape *shape, struct err *e) {
    int rc = 0;
    const struct perplexity *c = p->cmd;
    double *nll_sum = heap_alloc((size_t)p->known.n * sizeof *nll_sum, e);
    if (!nll_sum) return ERR_NOMEM;
    for (int64_t i = 0; i < p->known.n; i++)
        nll_sum[i] = p->known.chunk[i].nll_sum;
    TRY(kld_writer_resume(&p->run.save, c->base, shape, p->ids.id, c->kl_floor, nll_sum,
                          &p->known.n, e));
out:
    heap_free(nll_sum);
    return rc;
}

static int open_save(struct plain *p, struct err *e) {
    int rc = 0;
    const struct perplexity *c = p->cmd;
    if (!c->base) goto out;
    const struct kld_shape shape = { c->win.n_ctx, c->a->info.n_vocab, (int32_t)c->win.n };
    if (c->resume)
        TRY(resume_save(p, &shape, e));
    else
        TRY(kld_writer_open(&p->run.save, c->base, &shape, p->ids.id, c->kl_floor, e));
    if (p->known.n < p->n_csv)
        fprintf(stderr, "perplexity: %s holds %" PRId64 " of them\n", c->base, p->known.n);
out:
    return rc;
}

/* ---- while running --------------------------------------------------------------------------- */

static void format_chunk(const struct plain *p, int64_t i, const struct ppl_stats *s, char *line) {
    const struct perplexity *c = p->cmd;
    double ppl = ppl_stats_ppl(s);
    if (c->output_type == 0) {
        snprintf(line, LINE_BYTES, "[%" PRId64 "]%.4f,", i + 1, ppl);
    } else if (c->stride) {
        snprintf(line, LINE_BYTES, "%8" PRId64 "  %.4f\n", i * c->stride, ppl);
    } else {
        int64_t group = i / c->n_seq * c->n_seq;
        snprintf(line, LINE_BYTES, "%8" PRId64 "  %.4f  %4f  %4f\n", group * c->win.n_ctx, ppl,
                 s->nll_sum / (double)s->n_tokens, ppl_stats_se_token(s) / ppl);
    }
}

static int print_held(struct plain *p, struct err *e) {
    struct perplexity *c = p->cmd;
    if (!p->n_held) return 0;
    fputs(p->held, stdout);
    c->mid_line = c->output_type == 0;
    p->n_held = 0;
    return perplexity_flush(e);
}

static int on_chunk(void *arg, int64_t i, const struct ppl_chunk *chunk, const struct ppl_stats *s,
                    struct err *e) {
    int rc = 0;
    struct plain *p = arg;
    struct perplexity *c = p->cmd;
    TRY(ppl_rows_chunk(&c->rows, i, chunk, s, e));
    char line[LINE_BYTES];
    format_chunk(p, i, s, line);
    p->n_held += (size_t)snprintf(p->held + p->n_held, LINE_BYTES, "%s", line);
    if (c->passed || i < p->known.n) TRY(print_held(p, e));
    progress_update(&c->progress, i + 1);
out:
    return rc;
}

static int on_pass(void *arg, int64_t first, int n, double seconds, struct err *e) {
    struct plain *p = arg;
    progress_clear(&p->cmd->progress);
    perplexity_eta(p->cmd, "perplexity", p->cmd->win.n - first - n, n, seconds);
    return print_held(p, e);
}

/* A logit that is not finite: the row that says so, and what was held back. */
static int on_error(struct plain *p, int rc, struct err *e) {
    struct err second = { 0 };
    print_held(p, &second);
    if (rc == ERR_NONFINITE && p->run.walk.bad_window >= 0) {
        err_prefix(e, "verdict NONFINITE");
        ppl_rows_nonfinite(&p->cmd->rows, p->run.walk.bad_window, &second);
    }
    return rc;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int print_final(struct plain *p, struct err *e) {
    const struct ppl_stats *s = &p->run.stats;
    struct perplexity *c = p->cmd;
    progress_clear(&c->progress);
    if (c->mid_line) putchar('\n');
    c->mid_line = false;
    double se = ppl_stats_se_token(s);
    /* The peer prints nothing more for strides. */
    if (!c->stride && se > 0)
        printf("Final estimate: PPL = %.4f +/- %.5f\n", ppl_stats_ppl(s), se);
    else if (!c->stride)
        puts("Unexpected negative standard deviation of log(prob)");
    if (!c->stride && s->n_chunks > 1) {
        struct interval ci = ppl_stats_interval95(s);
        printf("Chunk-clustered error: +/- %.5f (95 %% interval %.4f .. %.4f, %" PRId64
               " chunks)\n",
               ppl_stats_se_chunk(s), ci.low, ci.high, s->n_chunks);
    }
    return perplexity_flush(e);
}

static int measure(struct plain *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    p->held = heap_alloc(((size_t)c->n_seq + 1) * LINE_BYTES, e);
    if (!p->held) return ERR_NOMEM;
    fprintf(stderr,
            "perplexity: calculating perplexity over %" PRId64
            " chunks, n_ctx=%d, batch_size=%d, n_seq=%d\n",
            c->win.n, c->win.n_ctx, c->n_batch, c->n_seq);
    p->run.walk = (struct walk){
        .arm = c->a,
        .win = &c->win,
        .tokens = p->ids.id,
        .bos = c->stride ? -1 : perplexity_bos(c), /* strides: as the peer, none but the text's */
        .n_batch = c->n_batch,
        .n_seq = c->n_seq,
    };
    p->run.known = p->known.chunk;
    p->run.n_known = p->known.n;
    p->run.chunk = on_chunk;
    p->run.pass = on_pass;
    p->run.arg = p;
    progress_start(&c->progress, "chunk", c->win.n, p->known.n);
    rc = ppl_run(&p->run, e);
    progress_clear(&c->progress);
    return rc < 0 ? on_error(p, rc, e) : 0;
}

static int finish(struct plain *p, struct err *e) {
    int rc = 0;
    struct perplexity *c = p->cmd;
    const struct walk *w = &p->run.walk;
    TRY(print_final(p, e));
    perplexity_speed("perplexity", w);
    perplexity_judge(c, ppl_stats_ppl(&p->run.stats));
    TRY(ppl_rows_estimate(&c->rows, &p->run.stats, e));
    TRY(ppl_rows_cost(&c->rows, c->a, w->n_evaluated, w->seconds, e));
    TRY(ppl_rows_gpu(&c->rows, c->a, &w->gpu, w->n_evaluated, e));
out:
    return rc;
}

int perplexity_plain(struct perplexity *c, struct err *e) {
    int rc = 0;
    struct plain p = { .cmd = c };
    TRY(text_load(&p.text, c->text, c->escape, e));
    TRY(perplexity_open_arm(c, c->arm.n_ctx + c->stride / 2, e));
    TRY(tokenize(&p, e));
    TRY(cut_windows(&p, e));
    TRY(perplexity_describe(c, "perplexity", c->text, p.text.fingerprint, c->base ? "f32" : "f64",
                            e));
    TRY(read_known(&p, e));
    TRY(perplexity_open_rows(c, &p.known, e));
    TRY(open_save(&p, e));
    if (c->stride)
        fprintf(stderr, "perplexity: strides of %d, windows of %d + %d/2 = %d tokens\n", c->stride,
                c->arm.n_ctx, c->stride, c->win.n_ctx);
    TRY(measure(&p, e));
    rc = kld_writer_close(p.run.save, e);
    p.run.save = NULL;
    TRY(rc);
    TRY(finish(&p, e));
out:
    kld_writer_close(p.run.save, NULL);
    text_release(&p.text);
    tok_ids_free(&p.ids);
    ppl_known_release(&p.known);
    heap_free(p.held);
    return rc;
}
