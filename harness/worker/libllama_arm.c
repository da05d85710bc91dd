/* SPDX-License-Identifier: MIT
 * libllama_arm.c - the operations of arm.h on another engine; see libllama.h.
 *
 * The engine computes the logits of all wanted tokens inside of its decode, so holding rows means
 * keeping their logits. They are reduced here, before anything crosses the pipe. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/timer.h"
#include "libllama.h"
#include "libllama_map.h"
#include "result/row.h"

static struct libllama *self(struct arm *a) {
    return (struct libllama *)a;
}

static void release(struct arm *a) {
    struct libllama *s = self(a);
    ggml_map_free(s->map);
    if (s->batch.token) llama_batch_free(s->batch);
    if (s->watched) llama_free(s->watched);
    if (s->plain) llama_free(s->plain);
    if (s->model) ll_model_free(s->model);
    gguf_close(s->g);
    heap_free(s->system_info);
    heap_free(s->patterns);
    heap_free(s->held);
    heap_free(s->data);
    heap_free(s);
}

/* ---- computing ------------------------------------------------------------------------------- */

static int fill_batch(struct libllama *s, const struct arm_batch *b, struct err *e) {
    int rc = 0;
    struct llama_batch *x = &s->batch;
    const struct arm_info *info = &s->arm.info;
    FAIL_IF(b->n < 1 || b->n > info->n_batch, e, ERR_ARG, "a batch of %d tokens; expected 1 to %d",
            b->n, info->n_batch);
    for (int i = 0; i < b->n; i++) {
        FAIL_IF(b->token[i] < 0 || b->token[i] >= info->n_vocab || b->seq[i] < 0 ||
                    b->seq[i] >= info->n_seq || b->pos[i] < 0 || b->pos[i] >= info->n_ctx,
                e, ERR_ARG, "token %d at position %d of sequence %d: outside of the context",
                b->token[i], b->pos[i], b->seq[i]);
        x->token[i] = b->token[i];
        x->pos[i] = b->pos[i];
        x->n_seq_id[i] = 1;
        x->seq_id[i][0] = b->seq[i];
        /* llama-perplexity asks for the last position of a window too, whose target is in the next
         * one. So do we: an expert's share of the tokens can decide how an engine multiplies. */
        bool last = i + 1 == b->n || b->seq[i + 1] != b->seq[i];
        x->logits[i] = b->want && (b->want[i] || (last && i > 0 && b->want[i - 1]));
    }
    x->n_tokens = b->n;
out:
    return rc;
}

static int run(struct libllama *s, struct llama_context *x, struct err *e) {
    int rc = 0;
    s->see_rc = 0;
    const int64_t start = timer_ns();
    int got = llama_decode(x, s->batch);
    llama_synchronize(x);
    s->arm.decode_ns = timer_ns() - start;
    if (s->see_rc < 0) { /* the observer, or the way to it, has failed */
        if (e) *e = s->see_err;
        return s->see_rc;
    }
    FAIL_IF(got, e, ERR_ARM, "llama_decode of %s gives %d for %d tokens%s", ENGINE_NAME, got,
            s->batch.n_tokens, got == 1 ? ": no place in the cache" : "");
out:
    return rc;
}

static struct llama_context *context(struct libllama *s) {
    return s->observer ? s->watched : s->plain;
}

static int compute(struct libllama *s, const struct arm_batch *b, struct err *e) {
    int rc = 0;
    TRY(fill_batch(s, b, e));
    if (s->map) ggml_map_begin(s->map);
    TRY(run(s, context(s), e));
    /* Nobody wants anything of it: what is stored is meant for whichever context comes next. */
    if (!b->want && s->watched && !s->observer) TRY(run(s, s->watched, e));
out:
    return rc;
}

static const float *logits_of(struct libllama *s, int i, struct err *e) {
    const float *l = llama_get_logits_ith(context(s), i);
    if (!l) ERR(e, ERR_ARM, "%s has no logits for token %d of the batch", ENGINE_NAME, i);
    return l;
}

/* As llama-perplexity: exponentials in f32, their sum in f64. arm_reduce looks for logits that are
 * not finite. */
static struct arm_answer answer_of(const struct libllama *s, int i, const float *logits) {
    struct arm_answer a = { .i = i, .logits = logits };
    float max = logits[0];
    double sum = 0;
    for (int32_t v = 1; v < s->arm.info.n_vocab; v++) {
        if (!(logits[v] > max)) continue;
        max = logits[v];
        a.top1 = v;
    }
    for (int32_t v = 0; v < s->arm.info.n_vocab; v++)
        sum += (double)expf(logits[v] - max);
    a.max = (double)max;
    a.lse = log(sum);
    return a;
}

static int decode(struct arm *arm, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    int rc = 0;
    struct libllama *s = self(arm);
    TRY(compute(s, b, e));
    for (int i = 0; fn && b->want && i < b->n; i++) {
        if (!b->want[i]) continue;
        const float *l = logits_of(s, i, e);
        if (!l) return ERR_ARM;
        struct arm_answer a = answer_of(s, i, l);
        TRY(fn(arg, &a, e));
    }
out:
    return rc;
}

static int reserve(struct libllama *s, int64_t n, struct err *e) {
    if (n <= s->max_held) return 0;
    float *p = heap_realloc(s->held, (size_t)(n * s->arm.info.n_vocab) * sizeof *p, e);
    if (!p) return ERR_NOMEM;
    s->held = p;
    s->max_held = n;
    return 0;
}

static int hold(struct arm *arm, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0;
    struct libllama *s = self(arm);
    const size_t n_vocab = (size_t)s->arm.info.n_vocab;
    int64_t n = append ? s->n_held : 0;
    s->n_held = 0;
    for (int i = 0; b->want && i < b->n; i++)
        n += b->want[i];
    TRY(reserve(s, n, e));
    TRY(compute(s, b, e));
    for (int i = b->n - 1, k = (int)n; b->want && i >= 0; i--) {
        if (!b->want[i]) continue;
        const float *l = logits_of(s, i, e);
        if (!l) return ERR_ARM;
        memcpy(s->held + (size_t)--k * n_vocab, l, n_vocab * sizeof *l);
    }
    s->n_held = n;
out:
    return rc;
}

static int rows(struct arm *arm, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct libllama *s = self(arm);
    const int32_t n_vocab = s->arm.info.n_vocab;
    FAIL_IF(r0 < 0 || n < 0 || r0 + n > s->n_held, e, ERR_ARG,
            "rows %" PRId64 " to %" PRId64 ", but %" PRId64 " are held", r0, r0 + n, s->n_held);
    if (s->observer) TRY(libllama_show_logits(s, r0, n, e));
    for (int64_t i = 0; i < n; i++) {
        struct arm_row row;
        struct arm_answer a = answer_of(s, (int)i, s->held + (r0 + i) * n_vocab);
        arm_reduce(&row, r0 + i, &a, n_vocab, target[i], logits);
        TRY(fn(arg, &row, e));
    }
out:
    return rc;
}

static int trim(struct libllama *s, struct llama_context *x, int32_t seq, int32_t pos,
                struct err *e) {
    int rc = 0;
    if (!x) return 0;
    if (seq < 0 && pos == 0) {
        ll_kv_clear(x);
        return 0;
    }
    for (int32_t q = seq < 0 ? 0 : seq; q < (seq < 0 ? s->arm.info.n_seq : seq + 1); q++)
        FAIL_IF(!ll_kv_seq_rm(x, q, pos), e, ERR_UNSUPPORTED,
                "%s cannot forget a part of a sequence of this model", ENGINE_NAME);
out:
    return rc;
}

static int kv_trim(struct arm *arm, int32_t seq, int32_t pos, struct err *e) {
    int rc = 0;
    struct libllama *s = self(arm);
    TRY(trim(s, s->plain, seq, pos, e));
    TRY(trim(s, s->watched, seq, pos, e));
out:
    return rc;
}

static int observe(struct arm *arm, struct observer *o, struct err *e) {
    int rc = 0;
    struct libllama *s = self(arm);
    if (o && !s->map)
        TRY(ggml_map_open(&s->map, gguf_path(s->g), s->arm.info.type_k, s->arm.info.type_v, e));
    if (o && !s->watched) {
        s->watched = libllama_context(s, true, e);
        if (!s->watched) return e ? e->code : ERR_UNSUPPORTED;
    }
    s->observer = o;
out:
    return rc;
}

/* ---- what it is ------------------------------------------------------------------------------ */

static int describe(const struct arm *arm, struct row *r, struct err *e) {
    int rc = 0;
    char fp[17], build[4096];
    const struct libllama *s = (const struct libllama *)arm;
    gguf_fingerprint(s->g, fp);
    snprintf(build, sizeof build, "build: %s; system: %s", ENGINE_FLAGS, s->system_info);
    TRY(arm_info_row(&arm->info, r, e));
    TRY(row_set(r, ROW_engine, ENGINE_NAME, e));
    TRY(row_set(r, ROW_engine_commit, ENGINE_COMMIT, e));
    TRY(row_set(r, ROW_placement, s->placement, e));
    TRY(row_set(r, ROW_cells, build, e));
    TRY(row_set(r, ROW_model_fp, fp, e));
out:
    return rc;
}

static const struct arm_ops libllama_ops = {
    .release = release,
    .decode = decode,
    .hold = hold,
    .rows = rows,
    .kv_trim = kv_trim,
    .observe = observe,
    .describe = describe,
};

static void copy_key(const struct gguf *g, const char *key, const char *otherwise, char *buf,
                     size_t n) {
    struct gguf_str s = { 0 };
    struct err ignored;
    if (gguf_get_str(g, key, &s, &ignored) == 1 && s.n > 0)
        snprintf(buf, n, "%.*s", (int)(s.n < n ? s.n : n - 1), s.p);
    else
        snprintf(buf, n, "%s", otherwise);
}

static void fill_info(struct libllama *s, const struct arm_params *p) {
    struct arm_info *i = &s->arm.info;
    const char *slash = strrchr(p->model, '/');
    const int n_seq = p->n_seq > 0 ? p->n_seq : 1;
    i->promise = ARM_NOISE;
    i->n_vocab = ll_n_vocab(s->model);
    i->n_ctx_train = ll_n_ctx_train(s->model);
    i->n_ctx = (int)s->cparams.n_ctx / n_seq;
    i->n_seq = n_seq;
    i->n_batch = (int)s->cparams.n_batch;
    i->n_ubatch = (int)s->cparams.n_ubatch;
    i->n_threads = (int)s->cparams.n_threads;
    i->n_threads_batch = (int)s->cparams.n_threads_batch;
    i->n_params = (int64_t)llama_model_n_params(s->model);
    i->model_bytes = llama_model_size(s->model);
    i->bpw = i->n_params ? 8.0 * (double)i->model_bytes / (double)i->n_params : 0;
    copy_key(s->g, "general.architecture", "?", i->arch, sizeof i->arch);
    copy_key(s->g, "general.name", slash ? slash + 1 : p->model, i->name, sizeof i->name);
    const enum qtype t = gguf_main_type(s->g);
    snprintf(i->qtype, sizeof i->qtype, "%s", t == QT_none ? "?" : qtype_info(t)->name);
    snprintf(i->type_k, sizeof i->type_k, "%s", ggml_type_name(s->cparams.type_k));
    snprintf(i->type_v, sizeof i->type_v, "%s", ggml_type_name(s->cparams.type_v));
    snprintf(i->backend, sizeof i->backend, "%s", ENGINE_NAME);
    llama_model_desc(s->model, i->desc, sizeof i->desc);
}

/* "CPU, -fa on -rtr on": the devices that this build has, and what was asked of it. */
static void note_placement(struct libllama *s, const struct arm_params *p) {
    size_t n = 0;
    for (size_t i = 0; ll_buffer_type(i) && n < sizeof s->placement; i++)
        n += (size_t)snprintf(s->placement + n, sizeof s->placement - n, "%s%s", i ? " " : "",
                              ggml_backend_buft_name(ll_buffer_type(i)));
    if (n == 0) n = (size_t)snprintf(s->placement, sizeof s->placement, "CPU");
    const char *comma = ",";
#define X(name)                                                                                    \
    if (p->engine.name && n < sizeof s->placement) {                                               \
        n += (size_t)snprintf(s->placement + n, sizeof s->placement - n, "%s -" #name " %s",       \
                              comma, p->engine.name);                                              \
        comma = "";                                                                                \
    }
    ARM_ENGINE_LIST(X)
#undef X
}

int libllama_open(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct libllama *s = heap_calloc(1, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    s->arm.ops = &libllama_ops;
    FAIL_IF(p->act_like || p->fault || p->backend, e, ERR_UNSUPPORTED,
            "%s has no columns of kernels, seeded faults or roundings to choose from", ENGINE_NAME);
    TRY(gguf_open(&s->g, p->model, e));
    TRY(libllama_load(s, p, e));
    fill_info(s, p);
    note_placement(s, p);
    const char *info = llama_print_system_info();
    s->system_info = heap_strndup(info, strlen(info), e);
    if (!s->system_info) {
        rc = ERR_NOMEM;
        goto out;
    }
    s->batch = llama_batch_init(p->n_batch, 0, 1);
    *out = &s->arm;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}
