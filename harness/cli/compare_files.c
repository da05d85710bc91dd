/* SPDX-License-Identifier: MIT
 * compare_files.c - the files of `ggauge compare --out`; see compare_cmd.h.
 *
 * compare.csv grows with every chunk and is on disk before the next one starts; the others are
 * written when the verdict stands, each to a temporary name first. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/utf8.h"
#include "cli/compare_cmd.h"
#include "cli/ops_print.h"
#include "stats/proportion.h"
#include "stats/quantile.h"

static int out_path(const struct compare_cmd *c, const char *name, char *buf, size_t n,
                    struct err *e) {
    int rc = 0;
    FAIL_IF(snprintf(buf, n, "%s/%s", c->out, name) >= (int)n, e, ERR_ARG,
            "%s: the path is too long", c->out);
out:
    return rc;
}

int compare_files_folder(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    if (c->out_fd >= 0) return 0;
    FAIL_IF(mkdir(c->out, 0777) && errno != EEXIST, e, ERR_IO, "%s: %s", c->out, strerror(errno));
    c->out_fd = open(c->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FAIL_IF(c->out_fd < 0, e, ERR_IO, "%s: %s", c->out, strerror(errno));
    TRY(file_lock(c->out_fd, c->out, e));
out:
    return rc;
}

int compare_files_open(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char path[4096];
    TRY(compare_files_folder(c, e));
    TRY(out_path(c, "compare.csv", path, sizeof path, e));
    c->chunk_csv = fopen(path, "we");
    FAIL_IF(!c->chunk_csv, e, ERR_IO, "%s: %s", path, strerror(errno));
    fputs("chunk,tokens,nll_a,nll_b,d,d_abs_max,kld_mean,kld_max,top1,wide_flips,nonfinite,t_a_s,"
          "t_b_s,ln_ratio,ci_low,ci_high,status\n",
          c->chunk_csv);
    FAIL_IF(fflush(c->chunk_csv), e, ERR_IO, "%s: %s", path, strerror(errno));
out:
    return rc;
}

int compare_files_chunk(struct compare_cmd *c, const struct compare_chunk *k, struct err *e) {
    int rc = 0;
    const double n = (double)(k->n ? k->n : 1);
    const struct compare *r = &c->run;
    struct interval ci = confseq_interval(&r->d, c->alpha);
    fprintf(c->chunk_csv,
            "%" PRId64 ",%" PRId64 ",%.17g,%.17g,%.9g,%.9g,%.9g,%.9g,%.9g,%" PRId64
            ",%d,%.6f,%.6f,%.9g,%.9g,%.9g,%s\n",
            k->window + 1, k->n, k->nll[SIDE_A] / n, k->nll[SIDE_B] / n,
            (k->nll[SIDE_B] - k->nll[SIDE_A]) / n, k->d_max, k->kld_ab / n, k->kld_max,
            (double)k->n_same_top / n, k->n_wide_flips,
            (k->bad[SIDE_A].pos >= 0) + 2 * (k->bad[SIDE_B].pos >= 0), k->seconds[SIDE_A],
            k->seconds[SIDE_B], r->d.mean, ci.low, ci.high, status_name(r->verdict.status));
    FAIL_IF(fflush(c->chunk_csv), e, ERR_IO, "%s/compare.csv: %s", c->out, strerror(errno));
out:
    return rc;
}

/* ---- at the end ------------------------------------------------------------------------------ */

static int write_file(struct compare_cmd *c, const char *name,
                      void (*fill)(const struct compare_cmd *c, FILE *out), struct err *e) {
    int rc = 0;
    char path[4096], tmp[4100];
    FILE *f = NULL;
    TRY(out_path(c, name, path, sizeof path, e));
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    f = fopen(tmp, "we");
    FAIL_IF(!f, e, ERR_IO, "%s: %s", tmp, strerror(errno));
    fill(c, f);
    bool bad = fflush(f) || ferror(f);
    bad = fclose(f) || bad;
    f = NULL;
    FAIL_IF(bad || rename(tmp, path), e, ERR_IO, "%s: %s", path, strerror(errno));
out:
    if (rc < 0) unlink(tmp);
    return rc;
}

static void fill_ops(const struct compare_cmd *c, FILE *out) {
    ops_csv(c->where, out);
}

static json_t *number(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *arm_json(const struct compare_cmd *c, int s) {
    char name[512];
    if (!c->arm[s]) return json_null();
    compare_arm_name(c, s, name, sizeof name);
    struct ppl_stats p = compare_ppl(&c->run, (enum side)s);
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s}", "arm", name, "model", row_get(&c->what[s], ROW_model),
        "model_fp", row_get(&c->what[s], ROW_model_fp), "engine", row_get(&c->what[s], ROW_engine),
        "engine_commit", row_get(&c->what[s], ROW_engine_commit), "cells",
        row_get(&c->what[s], ROW_cells));
    json_object_set_new(j, "ppl", number(ppl_stats_ppl(&p)));
    json_object_set_new(j, "ppl_se_chunk", number(ppl_stats_se_chunk(&p)));
    json_object_set_new(j, "seconds", number(c->run.walk.seconds[s]));
    const struct floor *f = &c->floor[s];
    if (c->has_floor[s])
        json_object_set_new(j, "floor",
                            json_pack("{s:I, s:I, s:f, s:b, s:b}", "positions", (json_int_t)f->n,
                                      "different", (json_int_t)f->n_different, "d_max", f->d_max,
                                      "kept", f->kept, "remembered", f->remembered));
    return j;
}

static void fill_summary(const struct compare_cmd *c, FILE *out) {
    const struct compare *r = &c->run;
    const double n = (double)r->n_positions;
    struct interval ci = confseq_interval(&r->d, c->alpha);
    json_t *j =
        json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:f, s:f}", "schema", 1, "verdict",
                  status_name(c->verdict.status), "reason", reason_name(c->verdict.reason), "text",
                  c->verdict.text, "text_file", c->text_name, "n_ctx", c->common.n_ctx, "chunks",
                  (json_int_t)r->n_chunks, "positions", (json_int_t)r->n_positions, "margin",
                  c->margin, "alpha", c->alpha);
    json_object_set_new(j, "ln_ratio", number(r->d.mean));
    json_object_set_new(j, "ci_low", number(ci.low));
    json_object_set_new(j, "ci_high", number(ci.high));
    json_object_set_new(j, "kld_ab", number(r->kld_ab / n));
    json_object_set_new(j, "kld_ba", number(r->kld_ba / n));
    json_object_set_new(j, "same_top", number((double)r->n_same_top / n));
    json_object_set_new(j, "wide_flips", json_integer(r->n_wide_flips));
    json_object_set_new(j, "d_abs_p999", number(quantile_sorted(r->d_abs, r->n_positions, 0.999)));
    json_object_set_new(j, "seconds_to_first_chunk", number(c->t_first));
    json_object_set_new(j, "seconds_to_verdict", number(c->t_verdict));
    json_object_set_new(j, "a", arm_json(c, SIDE_A));
    json_object_set_new(j, "b", arm_json(c, SIDE_B));
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
    fprintf(out, "%s\n", text ? text : "{}");
    free(text);
    json_decref(j);
}

static void put_xml(FILE *out, const char *s) {
    for (; *s; s++) {
        switch (*s) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        default: /* XML 1.0 has no other control characters */
            fputc((unsigned char)*s < ' ' && *s != '\n' && *s != '\t' ? '?' : *s, out);
        }
    }
}

/* One test case: FAIL is a failure, UNDECIDED and MISTRUSTED are skipped. */
static void fill_junit(const struct compare_cmd *c, FILE *out) {
    const struct verdict *v = &c->verdict;
    const bool failed = v->status == STATUS_FAIL, passed = v->status == STATUS_PASS;
    char b[512] = "";
    if (c->arm[SIDE_A] && c->arm[SIDE_B]) compare_arm_name(c, SIDE_B, b, sizeof b);
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"ggauge compare\" "
            "tests=\"1\" failures=\"%d\" skipped=\"%d\">\n  <testcase classname=\"compare.",
            failed, !failed && !passed);
    put_xml(out, row_get(&c->what[SIDE_A], ROW_model));
    fputs("\" name=\"", out);
    put_xml(out, c->spec_text[SIDE_A]);
    fputs(" against ", out);
    put_xml(out, *b ? b : c->spec_text[SIDE_B]);
    fprintf(out, "\" time=\"%.3f\"", c->t_verdict);
    if (passed) {
        fputs("/>\n</testsuite>\n", out);
        return;
    }
    fprintf(out, ">\n    <%s message=\"%s ", failed ? "failure" : "skipped",
            failed ? reason_name(v->reason) : status_name(v->status));
    put_xml(out, v->text);
    fputs("\"/>\n  </testcase>\n</testsuite>\n", out);
}

int compare_files_close(struct compare_cmd *c, struct err *e) {
    int rc = 0;
    char said[sizeof c->verdict.text]; /* what a worker says is any bytes */
    memcpy(said, c->verdict.text, sizeof said);
    utf8_repair(c->verdict.text, sizeof said, said, strlen(said));
    if (c->chunk_csv) {
        bool bad = ferror(c->chunk_csv);
        bad = fclose(c->chunk_csv) || bad;
        c->chunk_csv = NULL;
        FAIL_IF(bad, e, ERR_IO, "%s/compare.csv: %s", c->out, strerror(errno));
    } else { /* no chunk was ever measured */
        TRY(compare_files_folder(c, e));
    }
    if (c->where) TRY(write_file(c, "ops.csv", fill_ops, e));
    TRY(write_file(c, "report.md", compare_print_report, e));
    TRY(write_file(c, "summary.json", fill_summary, e));
    TRY(write_file(c, "junit.xml", fill_junit, e));
out:
    return rc;
}
