/* SPDX-License-Identifier: MIT
 * compare_print.c - a comparison in words and figures; see compare_cmd.h. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/compare_cmd.h"
#include "stats/proportion.h"
#include "stats/quantile.h"

static const char side_letter[] = { 'A', 'B' };

static void arm_name(const struct compare_cmd *c, int side, char *buf, size_t n) {
    const struct arm_params *p = &c->spec[side].params;
    const struct arm_info *i = &c->arm[side]->info;
    size_t k = 0;
    if (p->kind == ARM_FILE) {
        snprintf(buf, n, "file:%s", p->path);
        return;
    }
    if (p->foreign) {
        const char *commit = row_get(&c->what[side], ROW_engine_commit);
        snprintf(buf, n, "%s%slib: %s %.12s -t %d -ub %d %s/%s, %s", p->launch ? p->launch : "",
                 p->launch ? " " : "", i->backend, commit, i->n_threads, i->n_ubatch, i->type_k,
                 i->type_v, row_get(&c->what[side], ROW_placement));
        return;
    }
    if (p->launch) k += (size_t)snprintf(buf + k, n - k, "%s ", p->launch);
    if (k < n && p->kind == ARM_WORKER)
        k += (size_t)snprintf(buf + k, n - k, "worker%s%s ", p->path ? ":" : "",
                              p->path ? p->path : "");
    if (k < n)
        k += (size_t)snprintf(buf + k, n - k, "%s -t %d -ub %d %s/%s", i->backend, i->n_threads,
                              i->n_ubatch, i->type_k, i->type_v);
    if (k < n && p->numa) k += (size_t)snprintf(buf + k, n - k, " numa %s", p->numa);
    if (k < n && p->engine.rtr) k += (size_t)snprintf(buf + k, n - k, " -rtr");
    if (k < n && p->act_like) k += (size_t)snprintf(buf + k, n - k, " act-like %s", p->act_like);
    if (k < n && p->fault) snprintf(buf + k, n - k, " FAULT:%s", p->fault);
}

void compare_arm_name(const struct compare_cmd *c, int side, char *buf, size_t n) {
    char any_bytes[1024];
    arm_name(c, side, any_bytes, sizeof any_bytes);
    utf8_repair(buf, n, any_bytes, strlen(any_bytes));
}

void compare_print_arms(const struct compare_cmd *c) {
    char name[512];
    for (int s = 0; s < SIDE_count; s++) {
        compare_arm_name(c, s, name, sizeof name);
        printf("arm %c             %s   %s %s\n", side_letter[s], name,
               row_get(&c->what[s], ROW_model), row_get(&c->what[s], ROW_model_fp));
    }
    printf("text              %s, %" PRId64 " chunks of %d tokens\n", c->text, c->win.n,
           c->win.n_ctx);
    fflush(stdout);
}

static void print_floor(const struct compare_cmd *c, FILE *out) {
    for (int s = 0; s < SIDE_count; s++) {
        const struct floor *f = &c->floor[s];
        if (!c->has_floor[s]) continue;
        if (f->n == 0) {
            fprintf(out, "floor %c           recorded logits cannot be repeated\n", side_letter[s]);
            continue;
        }
        fprintf(out, "floor %c           -ub %d, %d threads: ", side_letter[s], f->n_ubatch,
                f->n_threads);
        if (f->n_different == 0)
            fprintf(out, "equal bit for bit at %" PRId64 " positions", f->n);
        else
            fprintf(out, "%" PRId64 " of %" PRId64 " positions differ, |d nll| mean %.3g, max %.3g",
                    f->n_different, f->n, f->d_mean, f->d_max);
        fputs(f->remembered ? " (remembered)\n" : "\n", out);
    }
}

static void print_figures(const struct compare_cmd *c, FILE *out) {
    const struct compare *r = &c->run;
    const double n = (double)r->n_positions;
    const int64_t np = r->n_positions;
    struct ppl_stats a = compare_ppl(r, SIDE_A), b = compare_ppl(r, SIDE_B);
    fprintf(out, "PPL               A %.4f", ppl_stats_ppl(&a));
    if (r->n_chunks > 1) fprintf(out, " +/- %.4f", ppl_stats_se_chunk(&a));
    fprintf(out, "   B %.4f", ppl_stats_ppl(&b));
    if (r->n_chunks > 1) fprintf(out, " +/- %.4f", ppl_stats_se_chunk(&b));
    fprintf(out, "   (%" PRId64 " chunk%s, %" PRId64 " positions)\n", r->n_chunks,
            r->n_chunks == 1 ? "" : "s", np);
    struct interval ci = confseq_interval(&r->d, c->alpha);
    fprintf(out, "ln(PPL_B/PPL_A)   %+.6f", r->d.mean);
    if (r->n_chunks > 1)
        fprintf(out, "   in [%+.6f, %+.6f] at %g %%", ci.low, ci.high, 100 * (1 - c->alpha));
    fprintf(out, ", margin +/- %g\n", c->margin);
    fprintf(out, "|d nll|           median %.3g   99 %% %.3g   99.9 %% %.3g   max %.3g\n",
            quantile_sorted(r->d_abs, np, 0.5), quantile_sorted(r->d_abs, np, 0.99),
            quantile_sorted(r->d_abs, np, 0.999), quantile_sorted(r->d_abs, np, 1.0));
    if (!c->no_kld)
        fprintf(out,
                "KL divergence     A||B mean %.3g   median %.3g   99.9 %% %.3g   max %.3g   "
                "B||A mean %.3g\n",
                r->kld_ab / n, quantile_sorted(r->kld_at, np, 0.5),
                quantile_sorted(r->kld_at, np, 0.999), quantile_sorted(r->kld_at, np, 1.0),
                r->kld_ba / n);
    struct interval top = wilson_interval95(r->n_same_top, np);
    fprintf(out,
            "same top token    %.3f %% in [%.3f, %.3f]   wide flips %" PRId64
            "   right: only A %" PRId64 ", only B %" PRId64 " (McNemar %.2f)\n",
            100 * (double)r->n_same_top / n, 100 * top.low, 100 * top.high, r->n_wide_flips,
            r->only[SIDE_A], r->only[SIDE_B], mcnemar_chi2(r->only[SIDE_A], r->only[SIDE_B]));
}

static void print_verdict(const struct compare_cmd *c, FILE *out) {
    const struct verdict *v = &c->verdict;
    fprintf(out, "verdict           %s", status_name(v->status));
    if (v->reason) fprintf(out, " (%s)", reason_name(v->reason));
    fprintf(out, ": %s\n", v->text);
}

int compare_print_result(const struct compare_cmd *c, struct err *e) {
    int rc = 0;
    if (c->run.n_positions > 0) print_figures(c, stdout);
    print_floor(c, stdout);
    compare_ops_print(c, stdout);
    print_verdict(c, stdout);
    if (c->t_verdict > 0)
        printf("time              %.2f s to the first chunk, %.2f s to the verdict, %.2f s in all; "
               "computing: A %.2f s, B %.2f s\n",
               c->t_first, c->t_verdict, c->t_end, c->run.walk.seconds[SIDE_A],
               c->run.walk.seconds[SIDE_B]);
    FAIL_IF(fflush(stdout) || ferror(stdout), e, ERR_IO, "writing to stdout: %s", strerror(errno));
out:
    return rc;
}

void compare_print_report(const struct compare_cmd *c, FILE *out) {
    char name[512];
    const struct verdict *v = &c->verdict;
    fprintf(out, "### ggauge compare: %s%s%s\n\n%s.\n\n", status_name(v->status),
            v->reason ? ", " : "", v->reason ? reason_name(v->reason) : "", v->text);
    fputs("| arm | what | model | fingerprint |\n|---|---|---|---|\n", out);
    for (int s = 0; s < SIDE_count && c->arm[s]; s++) {
        compare_arm_name(c, s, name, sizeof name);
        fprintf(out, "| %c | `%s` | %s | %s |\n", side_letter[s], name,
                row_get(&c->what[s], ROW_model), row_get(&c->what[s], ROW_model_fp));
    }
    fprintf(out, "\n```\ntext              %s, %" PRId64 " chunks of %d tokens\n", c->text_name,
            c->win.n, c->win.n_ctx);
    if (c->run.n_positions > 0) print_figures(c, out);
    print_floor(c, out);
    if (!c->where || c->where->first.kind == FINDING_NONE) compare_ops_print(c, out);
    fputs("```\n", out);
    if (c->where && c->where->first.kind != FINDING_NONE) compare_ops_print(c, out);
}
