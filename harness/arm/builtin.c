/* SPDX-License-Identifier: MIT
 * builtin.c - the arm of our own engine on a column of kernels; see arm.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arm/arm.h"
#include "exec/exec.h"
#include "fault_cell.h"
#include "gguf/gguf.h"
#include "result/row.h"
#include "tok/tok.h"

struct builtin {
    struct arm arm;
    struct model model;
    struct tok *tok;
    struct topology *topology; /* NULL without --numa */
    struct exec *exec;
    bool huge_pages; /* the weights are a copy in them */
    bool placed;     /* on nodes of the topology, every part of it */
    bool repack;     /* weights were to be copied for single tokens */
};

static struct builtin *self(struct arm *a) {
    return (struct builtin *)a;
}

static void release(struct arm *a) {
    struct builtin *s = self(a);
    exec_free(s->exec);
    topology_free(s->topology);
    tok_free(s->tok);
    model_close(&s->model);
    heap_free(s);
}

static int decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    return exec_decode(self(a)->exec, b, fn, arg, e);
}

static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    return exec_hold(self(a)->exec, b, append, e);
}

struct rows_call {
    const int32_t *target;
    int64_t r0;
    int32_t n_vocab;
    bool logits;
    arm_row_fn fn;
    void *arg;
};

static int on_held(void *arg, const struct arm_answer *a, struct err *e) {
    const struct rows_call *c = arg;
    struct arm_row row;
    arm_reduce(&row, c->r0 + a->i, a, c->n_vocab, c->target[a->i], c->logits);
    return c->fn(c->arg, &row, e);
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    struct rows_call c = { target, r0, a->info.n_vocab, logits, fn, arg };
    return exec_rows(self(a)->exec, r0, n, on_held, &c, e);
}

static int kv_trim_arm(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    return exec_kv_trim(self(a)->exec, seq, pos, e);
}

static int observe(struct arm *a, struct observer *o, struct err *e) {
    (void)e;
    exec_observe(self(a)->exec, o);
    return 0;
}

/* What is said behind where it runs: ", numa distribute: 16 processors of 2 nodes, weights in huge
 * pages there, 497 MiB of weights repacked". */
static void add_memory(const struct builtin *s, char *buf, size_t n) {
    char numa[96];
    size_t used = strlen(buf);
    topology_describe(s->topology, numa, sizeof numa);
    snprintf(buf + used, n - used, "%s%s%s%s", numa[0] ? ", " : "", numa,
             s->huge_pages ? ", weights in huge pages" : "",
             s->huge_pages && s->placed ? " there" : "");
    if (!s->repack) return;
    const double mib = (double)s->arm.info.repacked_bytes / 0x1p20;
    used = strlen(buf);
    if (mib > 0)
        snprintf(buf + used, n - used, ", %.*f MiB of weights repacked", mib < 10 ? 1 : 0, mib);
    else
        snprintf(buf + used, n - used, ", no weights to repack");
}

static int describe(const struct arm *a, struct row *r, struct err *e) {
    int rc = 0;
    const struct builtin *s = (const struct builtin *)a;
    char fp[17], cells[1024], where[640], gpu[256], driver[256];
    gguf_fingerprint(s->model.g, fp);
    TRY(exec_cells(s->exec, cells, sizeof cells, e));
    TRY(arm_info_row(&a->info, r, e));
    TRY(row_set(r, ROW_engine, "ggauge", e));
    TRY(row_set(r, ROW_engine_commit, row_get(r, ROW_commit_id), e));
    TRY(exec_placement(s->exec, where, 480, e));
    add_memory(s, where, sizeof where);
    TRY(row_set(r, ROW_placement, where, e));
    TRY(exec_devices(s->exec, gpu, driver, sizeof gpu, e));
    if (gpu[0]) {
        TRY(row_set(r, ROW_gpu, gpu, e));
        TRY(row_set(r, ROW_driver, driver, e));
    }
    TRY(row_set(r, ROW_cells, cells, e));
    TRY(row_set(r, ROW_model_fp, fp, e));
out:
    return rc;
}

static const struct arm_ops builtin_ops = {
    .release = release,
    .decode = decode,
    .hold = hold,
    .rows = rows,
    .kv_trim = kv_trim_arm,
    .observe = observe,
    .describe = describe,
};

/* Where layers go. */
static int resolve_place(const struct arm_params *p, struct place_params *pl, struct err *e) {
    int rc = 0;
    char *end = NULL;
    *pl = (struct place_params){ .main_gpu = p->main_gpu,
                                 .tensor_split = p->tensor_split,
                                 .n_gpu_layers = INT32_MAX,
                                 .n_rules = p->rules.n };
    for (int i = 0; i < p->rules.n; i++)
        pl->rule[i] = p->rules.v[i];
    pl->column = p->backend ? column_from_name(p->backend) : column_best_cpu();
    FAIL_IF(pl->column == COL_none, e, ERR_ARG, "'%s' is not a backend", p->backend);
    TRY(column_check(pl->column, e));
    pl->cpu_column = p->cpu_backend ? column_from_name(p->cpu_backend) : column_best_cpu();
    FAIL_IF(!column_is_cpu(pl->cpu_column), e, ERR_ARG, "--cpu-backend: '%s' is not a CPU column",
            p->cpu_backend);
    if (p->n_gpu_layers) {
        const long n = strtol(p->n_gpu_layers, &end, 10);
        FAIL_IF(*end || end == p->n_gpu_layers || n < 0, e, ERR_ARG,
                "-ngl: expected a number of layers, not '%s'", p->n_gpu_layers);
        FAIL_IF(pl->column != COL_cuda && n > 0, e, ERR_ARG,
                "-ngl %ld: only --backend cuda has devices for layers", n);
        pl->n_gpu_layers = n < INT32_MAX ? (int)n : INT32_MAX;
    }
out:
    return rc;
}

static int resolve(const struct arm_params *p, const struct topology *t, struct exec_params *x,
                   struct err *e) {
    int rc = 0;
    TRY(resolve_place(p, &x->place, e));
    x->weights_as = p->weights_as ? column_from_name(p->weights_as) : COL_none;
    x->type_k = p->type_k ? qtype_from_name(p->type_k) : QT_f16;
    x->type_v = p->type_v ? qtype_from_name(p->type_v) : QT_f16;
    FAIL_IF(x->type_k == QT_none || x->type_v == QT_none, e, ERR_ARG, "unknown KV cache type");
    TRY(fault_choose(p->fault, x->place.column, &x->fault, e));
    x->repack = p->engine.rtr != NULL;
    x->n_ctx = p->n_ctx;
    x->n_seq = p->n_seq;
    x->n_ubatch = p->n_ubatch < p->n_batch ? p->n_ubatch : p->n_batch;
    x->topology = t;
    x->n_threads = p->n_threads ? p->n_threads : topology_n_cpus(t);
    x->n_threads_batch = p->n_threads_batch ? p->n_threads_batch : x->n_threads;
out:
    return rc;
}

static void copy_name(const struct model *m, char *buf, size_t n) {
    struct gguf_str s = { 0 };
    struct err ignored;
    if (gguf_get_str(m->g, "general.name", &s, &ignored) == 1 && s.n > 0) {
        snprintf(buf, n, "%.*s", (int)(s.n < n ? s.n : n - 1), s.p);
        return;
    }
    const char *path = gguf_path(m->g), *slash = strrchr(path, '/');
    snprintf(buf, n, "%s", slash ? slash + 1 : path);
}

/* Billions of weights by two digits, which is how families name their sizes; the files have no key
 * for it. "?B" below a tenth, as llama-bench has it for what it does not know. */
static void size_label(int64_t n_params, char *buf, size_t n_bytes) {
    const double billions = (double)n_params * 1e-9;
    if (billions < 0.095)
        snprintf(buf, n_bytes, "?B");
    else
        snprintf(buf, n_bytes, billions < 99.5 ? "%.2gB" : "%.0fB", billions);
}

static void fill_info(struct arm_info *i, const struct model *m, const struct arm_params *p,
                      const struct exec_params *x) {
    i->promise = ARM_BITWISE;
    i->n_vocab = (int32_t)m->hp.n_vocab;
    i->n_ctx_train = (int32_t)m->hp.n_ctx_train;
    i->n_ctx = x->n_ctx;
    i->n_seq = x->n_seq;
    i->n_batch = p->n_batch;
    i->n_ubatch = x->n_ubatch;
    i->n_threads = x->n_threads;
    i->n_threads_batch = x->n_threads_batch;
    i->n_params = m->n_params;
    i->model_bytes = m->n_bytes;
    i->bpw = m->n_params ? 8.0 * (double)m->n_bytes / (double)m->n_params : 0;
    snprintf(i->arch, sizeof i->arch, "%s", arch_ops(m->hp.arch)->name);
    snprintf(i->qtype, sizeof i->qtype, "%s", qtype_info(m->main_type)->name);
    snprintf(i->type_k, sizeof i->type_k, "%s", qtype_info(x->type_k)->name);
    snprintf(i->type_v, sizeof i->type_v, "%s", qtype_info(x->type_v)->name);
    snprintf(i->backend, sizeof i->backend, "%s", column_name(x->place.column));
    copy_name(m, i->name, sizeof i->name);
    char upper[32];
    snprintf(upper, sizeof upper, "%s", i->qtype);
    for (char *c = upper; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    char size[16];
    size_label(i->n_params, size, sizeof size);
    snprintf(i->desc, sizeof i->desc, "%s %s %s", i->arch, size, upper);
}

/* For gguf_to_huge_pages. */
static void place_weights(void *arg, void *p, size_t n_bytes) {
    struct builtin *s = arg;
    if (!topology_place(s->topology, p, n_bytes)) s->placed = false;
}

int arm_open_builtin(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct exec_params x;
    *out = NULL;
    struct builtin *s = heap_calloc(1, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    s->arm.ops = &builtin_ops;
    TRY(topology_new(&s->topology, p->numa, e));
    TRY(resolve(p, s->topology, &x, e));
    TRY(model_open(&s->model, p->model, e));
    if (x.n_ctx == 0) x.n_ctx = (int)s->model.hp.n_ctx_train;
    s->tok = arm_load_tok(s->model.g, p->model);
    s->arm.tok = s->tok;
    TRY(exec_new(&s->exec, &s->model, &x, e));
    s->placed = true;
    s->repack = x.repack;
    if (p->huge_pages) s->huge_pages = gguf_to_huge_pages(s->model.g, place_weights, s);
    fill_info(&s->arm.info, &s->model, p, &x);
    s->arm.info.repacked_bytes = exec_repacked_bytes(s->exec);
    s->arm.info.n_gpu_layers = exec_gpu_layers(s->exec);
    s->arm.cards = exec_cards(s->exec);
    *out = &s->arm;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}
