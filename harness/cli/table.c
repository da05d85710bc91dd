/* SPDX-License-Identifier: MIT
 * table.c - Markdown, CSV and JSON forms of speeds; see table.h. */
#include "cli/table.h"

#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "stats/interval.h"

int table_flush(FILE *f, const char *name, struct err *e) {
    int rc = 0;
    FAIL_IF(fflush(f) || ferror(f), e, ERR_IO, "%s: writing failed; is the disk full?", name);
out:
    return rc;
}

static void put_repeated(FILE *f, char c, int n) {
    while (n-- > 0)
        putc(c, f);
}

/* ---- sweep-bench ----------------------------------------------------------------------------- */

void table_sweep_head(FILE *f, int n_rep) {
    fputs("|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |", f);
    if (n_rep > 1) {
        /* Rounded down: what is claimed is covered. */
        int percent = (int)floor(100.0 * median_interval_coverage(n_rep));
        fprintf(f, "           S_PP %2d %% |           S_TG %2d %% |", percent, percent);
    }
    fputs("\n|-------|--------|--------|----------|----------|----------|----------|", f);
    if (n_rep > 1) fputs("---------------------|---------------------|", f);
    putc('\n', f);
}

static void put_interval(FILE *f, struct speed_stat tps) {
    char text[64] = "n/a";
    if (!isnan(tps.ci_low)) snprintf(text, sizeof text, "%.2f..%.2f", tps.ci_low, tps.ci_high);
    fprintf(f, " %19s |", text);
}

void table_sweep_row(FILE *f, const struct sweep_step *s, bool intervals) {
    struct speed_stat pp = speed_tps(s->pp, s->n_pp), tg = speed_tps(s->tg, s->n_tg);
    fprintf(f, "|%6d | %6d | %6d | %8.3f | %8.2f | %8.3f | %8.2f |", s->n_pp, s->n_tg, s->n_kv,
            s->pp.median, pp.median, s->tg.median, tg.median);
    if (intervals) {
        put_interval(f, pp);
        put_interval(f, tg);
    }
    putc('\n', f);
}

/* JSON knows no NaN. */
static void put_json_num(FILE *f, double v) {
    if (isfinite(v))
        fprintf(f, "%.9g", v);
    else
        fputs("null", f);
}

/* In MiB. */
static void put_json_vram(FILE *f, const struct nvml_vram *v) {
    fputs(", \"vram_delta_mib\": ", f);
    put_json_num(f, v->delta_bytes / (1024 * 1024));
    fputs(", \"vram_used_mib\": ", f);
    put_json_num(f, v->used_bytes / (1024 * 1024));
}

/* What is known of cards, with a suffix for each name; null is not known. */
static void put_json_gpu(FILE *f, const char *suffix, const struct nvml_facts *g) {
    const struct {
        const char *name;
        double value;
    } v[] = { { "gpu_sm_mhz", g->sm_mhz },
              { "gpu_mem_mhz", g->mem_mhz },
              { "gpu_w", g->watts },
              { "gpu_jpt", g->counted ? g->token_j : (double)NAN },
              { "gpu_jpt_power", g->counted ? (double)NAN : g->token_j } };
    for (size_t i = 0; i < N_ELEMS(v); i++) {
        fprintf(f, ", \"%s%s\": ", v[i].name, suffix);
        put_json_num(f, v[i].value);
    }
}

static void put_json_stat(FILE *f, const char *name, struct speed_stat s, const double *sample,
                          int n) {
    fprintf(f, ", \"t_%s_ci\": [", name);
    put_json_num(f, s.ci_low);
    fputs(", ", f);
    put_json_num(f, s.ci_high);
    fprintf(f, "], \"samples_t_%s\": [", name);
    for (int i = 0; i < n; i++) {
        if (i) fputs(", ", f);
        put_json_num(f, sample[i]);
    }
    putc(']', f);
}

void table_sweep_jsonl(FILE *f, const struct sweep_run_info *r, const struct sweep_step *s) {
    const struct arm_info *a = r->arm;
    fprintf(f,
            "{\"n_kv_max\": %d, \"n_batch\": %d, \"n_ubatch\": %d, \"flash_attn\": 1, "
            "\"n_gpu_layers\": %d, \"n_threads\": %d, \"n_threads_batch\": %d, \"pp\": %d, "
            "\"tg\": %d, \"n_kv\": %d",
            r->n_kv_max, a->n_batch, a->n_ubatch, a->n_gpu_layers, a->n_threads, a->n_threads_batch,
            s->n_pp, s->n_tg, s->n_kv);
    fputs(", \"t_pp\": ", f);
    put_json_num(f, s->pp.median);
    fputs(", \"speed_pp\": ", f);
    put_json_num(f, speed_tps(s->pp, s->n_pp).median);
    fputs(", \"t_tg\": ", f);
    put_json_num(f, s->tg.median);
    fputs(", \"speed_tg\": ", f);
    put_json_num(f, speed_tps(s->tg, s->n_tg).median);
    fprintf(f, ", \"rss_hwm_mib\": %.1f", (double)s->rss_bytes / (1024 * 1024));
    put_json_vram(f, &s->vram);
    fprintf(f, ", \"run_id\": \"%s\", \"n_rep\": %d, \"ci_coverage\": ", r->run_id, s->n_rep);
    put_json_num(f, s->n_rep > 1 ? median_interval_coverage(s->n_rep) : (double)NAN);
    put_json_stat(f, "pp", s->pp, s->pp_s, s->n_rep);
    put_json_stat(f, "tg", s->tg, s->tg_s, s->n_rep);
    put_json_gpu(f, "_pp", &s->pp_gpu);
    put_json_gpu(f, "_tg", &s->tg_gpu);
    fputs("}\n", f);
}

/* ---- bench ----------------------------------------------------------------------------------- */

void table_bench_label(const struct bench_test *t, char *buf, size_t n_bytes) {
    char pp[16] = "", tg[16] = "", depth[24] = "";
    if (t->n_prompt) snprintf(pp, sizeof pp, "pp%d", t->n_prompt);
    if (t->n_gen) snprintf(tg, sizeof tg, "%stg%d", t->n_prompt ? "+" : "", t->n_gen);
    if (t->n_depth) snprintf(depth, sizeof depth, " @ d%d", t->n_depth);
    snprintf(buf, n_bytes, "%s%s%s", pp, tg, depth);
}

/*    field        width (negative: left) */
#define MD_COLUMN_LIST(X)                                                                          \
    X("model", -30, true)                                                                          \
    X("size", 10, true)                                                                            \
    X("params", 10, true)                                                                          \
    X("backend", -10, true)                                                                        \
    X("threads", 7, true)                                                                          \
    X("n_batch", 7, c->n_batch)                                                                    \
    X("n_ubatch", 8, c->n_ubatch)                                                                  \
    X("type_k", 6, c->type_k)                                                                      \
    X("type_v", 6, c->type_v)                                                                      \
    X("rtr", 3, c->repack)                                                                         \
    X("test", c->test_width, true)                                                                 \
    X("t/s", 16, true)

void table_bench_md_head(FILE *f, const struct bench_columns *c) {
    putc('|', f);
#define X(title, width, shown)                                                                     \
    if (shown) fprintf(f, " %*s |", width, title);
    MD_COLUMN_LIST(X)
#undef X
    fputs("\n|", f);
#define X(title, width, shown)                                                                     \
    if (shown) {                                                                                   \
        int left = (width) < 0;                                                                    \
        putc(' ', f);                                                                              \
        put_repeated(f, '-', left ? -(width) : (width)-1);                                         \
        fputs(left ? " |" : ": |", f);                                                             \
    }
    MD_COLUMN_LIST(X)
#undef X
    putc('\n', f);
}

static void size_text(uint64_t bytes, char *buf, size_t n) {
    const double mib = 1024.0 * 1024.0;
    double v = (double)bytes;
    if (v < 1024 * mib)
        snprintf(buf, n, "%.2f MiB", v / mib);
    else
        snprintf(buf, n, "%.2f GiB", v / (1024 * mib));
}

static void params_text(int64_t n_params, char *buf, size_t n) {
    if (n_params < 1000000000)
        snprintf(buf, n, "%.2f M", (double)n_params * 1e-6);
    else
        snprintf(buf, n, "%.2f B", (double)n_params * 1e-9);
}

/* llama-bench's word for the device, then our column: "CPU avx2". */
static void backend_text(const struct arm_info *a, char *buf, size_t n) {
    if (!strcmp(a->backend, "cuda"))
        snprintf(buf, n, "CUDA");
    else
        snprintf(buf, n, "CPU %s", a->backend);
}

void table_bench_md_row(FILE *f, const struct bench_columns *c, const struct bench_line *l) {
    const struct arm_info *a = l->arm;
    char size[32], params[32], backend[32], test[64], tps[64];
    size_text(a->model_bytes, size, sizeof size);
    params_text(a->n_params, params, sizeof params);
    backend_text(a, backend, sizeof backend);
    table_bench_label(&l->r->test, test, sizeof test);
    snprintf(tps, sizeof tps, "%.2f ± %.2f", l->r->avg_ts, l->r->stddev_ts);
    fprintf(f, "| %-30s | %10s | %10s | %-10s | %7d |", a->desc, size, params, backend,
            a->n_threads);
    if (c->n_batch) fprintf(f, " %7d |", a->n_batch);
    if (c->n_ubatch) fprintf(f, " %8d |", a->n_ubatch);
    if (c->type_k) fprintf(f, " %6s |", a->type_k);
    if (c->type_v) fprintf(f, " %6s |", a->type_v);
    if (c->repack) fprintf(f, " %3d |", l->repack);
    fprintf(f, " %*s | %17s |\n", c->test_width, test, tps); /* the plus-minus sign has two bytes */
}

/* Fields of mainline's CSV and JSON in their order; readers go by name. A text beside a field is
 * its value wherever this engine has nothing of the kind: llama-bench's default, so that scripts
 * that join on all of them (compare-llama-bench.py) still match. */
/*    field, kind, constant */
#define BENCH_FIELD_LIST(X)                                                                        \
    X(build_commit, STR, NULL)                                                                     \
    X(build_number, INT, "0")                                                                      \
    X(cpu_info, STR, NULL)                                                                         \
    X(gpu_info, STR, NULL)                                                                         \
    X(backends, STR, NULL)                                                                         \
    X(model_filename, STR, NULL)                                                                   \
    X(model_type, STR, NULL)                                                                       \
    X(model_size, INT, NULL)                                                                       \
    X(model_n_params, INT, NULL)                                                                   \
    X(n_batch, INT, NULL)                                                                          \
    X(n_ubatch, INT, NULL)                                                                         \
    X(n_threads, INT, NULL)                                                                        \
    X(cpu_mask, STR, "0x0")                                                                        \
    X(cpu_strict, BOOL, "0")                                                                       \
    X(poll, INT, "50")                                                                             \
    X(type_k, STR, NULL)                                                                           \
    X(type_v, STR, NULL)                                                                           \
    X(n_gpu_layers, INT, NULL)                                                                     \
    X(n_cpu_moe, INT, "0")                                                                         \
    X(split_mode, STR, "layer")                                                                    \
    X(main_gpu, INT, "0")                                                                          \
    X(no_kv_offload, BOOL, "0")                                                                    \
    X(flash_attn, BOOL, "1")                                                                       \
    X(devices, STR, "auto")                                                                        \
    X(tensor_split, STR, "0.00")                                                                   \
    X(tensor_buft_overrides, STR, "none")                                                          \
    X(use_mmap, BOOL, "1")                                                                         \
    X(use_direct_io, BOOL, "0")                                                                    \
    X(embeddings, BOOL, "0")                                                                       \
    X(no_op_offload, INT, "0")                                                                     \
    X(no_host, BOOL, "0")                                                                          \
    X(repack, BOOL, NULL)                                                                          \
    X(fit_target, INT, "0")                                                                        \
    X(fit_min_ctx, INT, "0")                                                                       \
    X(n_prompt, INT, NULL)                                                                         \
    X(n_gen, INT, NULL)                                                                            \
    X(n_depth, INT, NULL)                                                                          \
    X(test_time, STR, NULL)                                                                        \
    X(avg_ns, INT, NULL)                                                                           \
    X(stddev_ns, INT, NULL)                                                                        \
    X(avg_ts, NUM, NULL)                                                                           \
    X(stddev_ts, NUM, NULL)

enum field_kind { STR, INT, BOOL, NUM };
enum field {
#define X(name, kind, constant) F_##name,
    BENCH_FIELD_LIST(X)
#undef X
        F_count,
};

static const struct {
    const char *name;
    enum field_kind kind;
    const char *constant;
} fields[F_count] = {
#define X(name, kind, constant) { #name, kind, constant },
    BENCH_FIELD_LIST(X)
#undef X
};

/* Text of a field; buf is used where it has to be written first. */
static const char *field_text(int i, const struct bench_line *l, char *buf, size_t n) {
    const struct arm_info *a = l->arm;
    const struct bench_result *r = l->r;
    switch (i) {
    case F_build_commit: snprintf(buf, n, "%.9s", l->commit_id); break;
    case F_cpu_info: return l->cpu;
    case F_gpu_info: return l->gpu;
    case F_backends: backend_text(a, buf, n); break;
    case F_model_filename: return l->model_path;
    case F_model_type: return a->desc;
    case F_model_size: snprintf(buf, n, "%llu", (unsigned long long)a->model_bytes); break;
    case F_model_n_params: snprintf(buf, n, "%lld", (long long)a->n_params); break;
    case F_n_batch: snprintf(buf, n, "%d", a->n_batch); break;
    case F_n_ubatch: snprintf(buf, n, "%d", a->n_ubatch); break;
    case F_n_threads: snprintf(buf, n, "%d", a->n_threads); break;
    case F_n_gpu_layers: snprintf(buf, n, "%d", a->n_gpu_layers); break;
    case F_type_k: return a->type_k;
    case F_type_v: return a->type_v;
    case F_repack: return l->repack ? "1" : "0";
    case F_n_prompt: snprintf(buf, n, "%d", r->test.n_prompt); break;
    case F_n_gen: snprintf(buf, n, "%d", r->test.n_gen); break;
    case F_n_depth: snprintf(buf, n, "%d", r->test.n_depth); break;
    case F_test_time: return l->time_utc;
    case F_avg_ns: snprintf(buf, n, "%.0f", r->avg_ns); break;
    case F_stddev_ns: snprintf(buf, n, "%.0f", r->stddev_ns); break;
    case F_avg_ts: snprintf(buf, n, "%.6f", r->avg_ts); break;
    case F_stddev_ts: snprintf(buf, n, "%.6f", r->stddev_ts); break;
    default: return fields[i].constant ? fields[i].constant : "";
    }
    return buf;
}

void table_bench_csv_head(FILE *f) {
    for (int i = 0; i < F_count; i++)
        fprintf(f, "%s%s", i ? "," : "", fields[i].name);
    putc('\n', f);
}

void table_bench_csv_row(FILE *f, const struct bench_line *l) {
    char buf[64];
    for (int i = 0; i < F_count; i++) {
        fputs(i ? ",\"" : "\"", f);
        for (const char *p = field_text(i, l, buf, sizeof buf); *p; p++) {
            if (*p == '"') putc('"', f);
            putc(*p, f);
        }
        putc('"', f);
    }
    putc('\n', f);
}

static void put_json_str(FILE *f, const char *s) {
    putc('"', f);
    const char *end = s + strlen(s);
    for (int len; s < end; s += len ? len : 1) {
        unsigned char c = (unsigned char)*s;
        len = utf8_char(s, (size_t)(end - s));
        if (!len)
            fputs("\\ufffd", f);
        else if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20)
            fprintf(f, "\\u%04x", c);
        else
            fwrite(s, 1, (size_t)len, f);
    }
    putc('"', f);
}

void table_bench_json(FILE *f, const struct bench_line *l) {
    const struct bench_result *r = l->r;
    char buf[64];
    for (int i = 0; i < F_count; i++) {
        const char *text = field_text(i, l, buf, sizeof buf);
        fprintf(f, "%s\"%s\": ", i ? ", " : "{", fields[i].name);
        switch (fields[i].kind) {
        case STR: put_json_str(f, text); break;
        case BOOL: fputs(*text == '1' ? "true" : "false", f); break;
        default: fputs(text, f); break;
        }
    }
    fputs(", \"samples_ns\": [", f);
    for (int i = 0; i < r->n_rep; i++)
        fprintf(f, "%s%lld", i ? ", " : "", (long long)r->sample_ns[i]);
    fputs("], \"samples_ts\": [", f);
    for (int i = 0; i < r->n_rep; i++)
        fprintf(f, "%s%.6f", i ? ", " : "",
                1e9 * (r->test.n_prompt + r->test.n_gen) / (double)r->sample_ns[i]);
    putc(']', f);
    put_json_gpu(f, "", &r->gpu);
    put_json_vram(f, &l->vram);
    putc('}', f);
}
