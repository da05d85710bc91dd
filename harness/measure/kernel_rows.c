/* SPDX-License-Identifier: MIT
 * kernel_rows.c - result rows of kernel-bench; see kernel_rows.h. */
#include "measure/kernel_rows.h"

#include <math.h>
#include <stdio.h>

/* x / time, whose interval turns round. */
static struct speed_stat over(double x, struct speed_stat seconds) {
    return (struct speed_stat){ x / seconds.median, x / seconds.ci_high, x / seconds.ci_low };
}

struct speed_stat kernel_gbs(const struct kernel_report *r) {
    const struct kwork *w = &r->work;
    return over((w->cold_bytes > 0 ? w->cold_bytes : w->warm_bytes) * 1e-9, r->time.call_s);
}

struct speed_stat kernel_gmacs(const struct kernel_report *r) {
    return over(r->work.macs * 1e-9, r->time.call_s);
}

struct speed_stat kernel_roof(const struct kernel_report *r) {
    return over(100 * r->roof.seconds, r->time.call_s);
}

int kernel_rows_describe(struct run_rows *rows, const struct kcheck_params *p, size_t cache_bytes,
                         const struct card *card, struct err *e) {
    char settings[384], sms[32] = "";
    int rc = 0;
    const struct kshape *s = &p->shape;
    struct row *b = &rows->base;
    if (card->n_sm > 0) snprintf(sms, sizeof sms, ",\"n_sm\":%d", card->n_sm);
    snprintf(settings, sizeof settings,
             "{\"cold_bytes\":%zu,\"last_cache_bytes\":%zu,\"n\":%lld,\"n_embd_head\":%lld,"
             "\"n_ff\":%lld,\"n_head\":%lld,\"n_head_kv\":%lld,\"n_rows\":%lld%s,\"n_vocab\":%lld}",
             p->cold_bytes, cache_bytes, (long long)s->n, (long long)s->n_embd_head,
             (long long)s->n_ff, (long long)s->n_head, (long long)s->n_head_kv,
             (long long)s->n_rows, sms, (long long)s->n_vocab);
    TRY(row_set(b, ROW_engine, "ggauge", e));
    TRY(row_set(b, ROW_engine_commit, row_get(b, ROW_commit_id), e));
    TRY(row_set(b, ROW_test, "kernel-bench", e));
    TRY(row_set(b, ROW_settings, settings, e));
    TRY(row_set_int(b, ROW_seed, (long long)p->seed, e));
out:
    return rc;
}

static bool has_cache(const struct kcase *c) {
    return c->kind == KCASE_OP && (c->op == OP_attn || c->op == OP_set_rows);
}

static int set_case(struct row *b, const struct kernel_report *r, struct err *e) {
    int rc = 0;
    const struct kcase *c = &r->c;
    const bool cache = has_cache(c), typed = c->kind != KCASE_OP;
    const char *type = qtype_info(c->type)->name;
    TRY(row_set(b, ROW_backend, column_name(c->col), e));
    TRY(row_set(b, ROW_cells, r->name, e));
    TRY(row_set(b, ROW_qtype, typed ? type : NULL, e));
    TRY(row_set(b, ROW_type_k, cache ? type : NULL, e));
    TRY(row_set(b, ROW_type_v, cache ? type : NULL, e));
    TRY(row_set_int(b, ROW_n_threads, r->n_threads, e));
    TRY(row_set(b, ROW_gpu, r->card ? r->card->gpu : NULL, e));
    TRY(row_set(b, ROW_driver, r->card ? r->card->driver : NULL, e));
    TRY(row_set(b, ROW_n_ubatch, NULL, e));
    TRY(row_set(b, ROW_n_kv, NULL, e));
    if (r->work.n_tok > 0) TRY(row_set_int(b, ROW_n_ubatch, r->work.n_tok, e));
    if (c->kind == KCASE_OP && c->op == OP_attn) TRY(row_set_int(b, ROW_n_kv, c->n_kv, e));
out:
    return rc;
}

static int put(struct run_rows *rows, const struct kernel_report *r, enum metric m,
               struct speed_stat s, struct err *e) {
    const struct interval ci = { s.ci_low, s.ci_high };
    return run_rows_value(rows, r->name, m, s.median, &ci, r->time.n_rep, e);
}

int kernel_rows_put(struct run_rows *rows, const struct kernel_report *r, struct err *e) {
    char status[192];
    int rc = 0;
    const struct speed_stat us = { r->time.call_s.median * 1e6, r->time.call_s.ci_low * 1e6,
                                   r->time.call_s.ci_high * 1e6 };
    snprintf(status, sizeof status, r->check.passed ? "PASS" : "FAIL %s", r->check.why);
    TRY(set_case(&rows->base, r, e));
    TRY(run_rows_put(rows, RUN_ROWS_ALL, r->name, METRIC_kernel_nmse, r->check.nmse, NULL, 0,
                     status, e));
    if (!r->timed) return 0;
    TRY(put(rows, r, METRIC_kernel_us, us, e));
    TRY(put(rows, r, METRIC_kernel_gbs, kernel_gbs(r), e));
    if (r->work.macs > 0) TRY(put(rows, r, METRIC_kernel_gmacs, kernel_gmacs(r), e));
    if (r->roof.seconds > 0) TRY(put(rows, r, METRIC_kernel_roof, kernel_roof(r), e));
    if (!isnan(r->sm_mhz))
        TRY(run_rows_value(rows, r->name, METRIC_gpu_sm_mhz, r->sm_mhz, NULL, 0, e));
out:
    return rc;
}

int kernel_rows_peaks(struct run_rows *rows, const struct peaks *peaks, const struct card *card,
                      struct err *e) {
    char name[64];
    int rc = 0;
    struct kernel_report none = { .c = { .kind = KCASE_OP, .op = OP_add }, .name = "" };
    for (int i = 0; i < peaks->n_known; i++) {
        const struct peak_value *v = &peaks->known[i];
        const bool read = v->peak == PEAK_read;
        none.c.col = v->col;
        none.n_threads = v->n_threads;
        none.card = column_is_cpu(v->col) ? NULL : card;
        TRY(set_case(&rows->base, &none, e));
        if (read)
            snprintf(name, sizeof name, "read %zu KiB@%s", v->n_bytes >> 10, column_name(v->col));
        else
            snprintf(name, sizeof name, "%s@%s", peak_name(v->peak), column_name(v->col));
        TRY(row_set(&rows->base, ROW_cells, name, e));
        const bool all = v->n_bytes == peaks->memory_bytes || none.card;
        TRY(run_rows_value(rows, read && all ? "read" : name,
                           read ? METRIC_peak_gbs : METRIC_peak_gmacs, v->value, NULL, 0, e));
    }
out:
    return rc;
}
