/* SPDX-License-Identifier: MIT
 * libllama_load.c - the parameters of an arm in the words of the engine: model and contexts; see
 * libllama.h. An option that this engine does not have is an error, never passed over. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/threads.h"
#include "libllama.h"

/* ---- values ---------------------------------------------------------------------------------- */

static inline int no_option(const char *name, struct err *e) {
    return ERR(e, ERR_UNSUPPORTED, "%s %s has no option %s", ENGINE_NAME, ENGINE_COMMIT, name);
}

static int get_int(const char *name, const char *text, int *out, struct err *e) {
    int rc = 0;
    char *end;
    long v = strtol(text, &end, 10);
    FAIL_IF(end == text || *end || v < INT_MIN || v > INT_MAX, e, ERR_ARG,
            "%s %s: expected a number", name, text);
    *out = (int)v;
out:
    return rc;
}

static int get_on(const char *name, const char *text, bool *out, struct err *e) {
    int rc = 0;
    bool on = !strcmp(text, "on") || !strcmp(text, "1"),
         off = !strcmp(text, "off") || !strcmp(text, "0");
    FAIL_IF(!on && !off, e, ERR_ARG, "%s %s: expected on or off", name, text);
    *out = on;
out:
    return rc;
}

static int get_type(const char *text, enum ggml_type *out, struct err *e) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *name = ggml_type_name((enum ggml_type)t);
        if (!name || strcmp(name, text)) continue;
        *out = (enum ggml_type)t;
        return 0;
    }
    return ERR(e, ERR_ARG, "%s has no cache type '%s'", ENGINE_NAME, text);
}

/* ---- the model ------------------------------------------------------------------------------- */

#if LL_OVERRIDES
static ggml_backend_buffer_type_t find_buffer_type(const char *name) {
    for (size_t i = 0; ll_buffer_type(i); i++)
        if (!strcmp(ggml_backend_buft_name(ll_buffer_type(i)), name)) return ll_buffer_type(i);
    return NULL;
}

/* "regex=type,regex=type" */
static int set_overrides(struct libllama *s, const char *text, struct err *e) {
    int rc = 0, n = 0;
    char *rest = s->patterns = heap_strndup(text, strlen(text), e), *one;
    if (!rest) return ERR_NOMEM;
    while ((one = strsep(&rest, ","))) {
        char *type = strrchr(one, '=');
        FAIL_IF(!type || type == one, e, ERR_ARG, "-ot %s: expected regex=buffer type", one);
        FAIL_IF(n == OVERRIDES_MAX, e, ERR_ARG, "-ot: more than %d patterns", OVERRIDES_MAX);
        *type++ = '\0';
        s->overrides[n].pattern = one;
        s->overrides[n].buft = find_buffer_type(type);
        FAIL_IF(!s->overrides[n++].buft, e, ERR_ARG, "-ot: this build of %s has no buffer type %s",
                ENGINE_NAME, type);
    }
    s->overrides[n].pattern = NULL;
out:
    return rc;
}
#endif

static int model_engine(struct libllama *s, const struct arm_params *p,
                        struct llama_model_params *m, struct err *e) {
    int rc = 0;
    const struct arm_engine *o = &p->engine;
    if (o->ngl) TRY(get_int("-ngl", o->ngl, &m->n_gpu_layers, e));
#if LL_OVERRIDES
    if (o->ot) {
        TRY(set_overrides(s, o->ot, e));
        m->tensor_buft_overrides = s->overrides;
    }
#else
    (void)s;
    if (o->ot) TRY(no_option("-ot", e));
#endif
#if LL_RTR
    if (o->rtr) TRY(get_on("-rtr", o->rtr, &m->repack_tensors, e));
#else
    if (o->rtr) TRY(no_option("-rtr", e));
#endif
#if LL_THP
    m->use_thp = p->huge_pages;
#else
    if (p->huge_pages) TRY(no_option("-thp", e));
#endif
#if LL_MLA_MODEL
    if (o->mla) TRY(get_int("-mla", o->mla, &m->mla, e));
#endif
#if LL_AMB_MODEL
    if (o->amb) TRY(get_int("-amb", o->amb, &m->amb, e));
#endif
#if LL_FA_MODEL
    if (o->fa) m->flash_attn = strcmp(o->fa, "off") && strcmp(o->fa, "0");
#endif
out:
    return rc;
}

/* ik_llama.cpp plans its memory before there is a context. */
static void model_shape(const struct libllama *s, struct llama_model_params *m) {
#if LL_MODEL_SHAPE
    m->max_ctx_size = s->cparams.n_ctx;
    m->n_seq_max = (int32_t)s->cparams.n_seq_max;
    m->n_ubatch = (int32_t)s->cparams.n_ubatch;
#endif
#if LL_MODEL_KV_TYPES
    m->type_k = s->cparams.type_k;
    m->type_v = s->cparams.type_v;
#endif
    (void)s, (void)m;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static int context_engine(const struct arm_engine *o, struct llama_context_params *c,
                          struct err *e) {
    int rc = 0;
    bool on = false;
#if LL_FA_TYPE
    if (o->fa && !strcmp(o->fa, "auto")) {
        c->flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
    } else if (o->fa) {
        TRY(get_on("-fa", o->fa, &on, e));
        c->flash_attn_type = on ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
#elif LL_FA_BOOL
    if (o->fa && strcmp(o->fa, "auto")) {
        TRY(get_on("-fa", o->fa, &on, e));
        c->flash_attn = on;
    }
#else
    if (o->fa) TRY(no_option("-fa", e));
#endif
#if LL_MLA
    if (o->mla) TRY(get_int("-mla", o->mla, &c->mla_attn, e));
#else
    if (o->mla) TRY(no_option("-mla", e));
#endif
#if LL_AMB
    if (o->amb) TRY(get_int("-amb", o->amb, &c->attn_max_batch, e));
#else
    if (o->amb) TRY(no_option("-amb", e));
#endif
#if LL_FMOE
    if (o->fmoe) TRY(get_on("-fmoe", o->fmoe, &c->fused_moe_up_gate, e));
#else
    if (o->fmoe) TRY(no_option("-fmoe", e));
#endif
#if LL_FUG
    if (o->fug) TRY(get_on("-fug", o->fug, &c->fused_up_gate, e));
#else
    if (o->fug) TRY(no_option("-fug", e));
#endif
    if (o->nkvo) {
        TRY(get_on("-nkvo", o->nkvo, &on, e));
        c->offload_kqv = !on;
    }
    (void)on;
out:
    return rc;
}

static int context_params(struct libllama *s, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct llama_context_params *c = &s->cparams;
    const int n_seq = p->n_seq > 0 ? p->n_seq : 1;
    const int n_threads = p->n_threads ? p->n_threads : threads_online();
    FAIL_IF((int64_t)p->n_ctx * n_seq > INT32_MAX, e, ERR_ARG,
            "%d sequences of %d positions are too many", n_seq, p->n_ctx);
    *c = llama_context_default_params();
    c->n_ctx = (uint32_t)(p->n_ctx * n_seq);
    c->n_batch = (uint32_t)p->n_batch;
    c->n_ubatch = (uint32_t)(p->n_ubatch < p->n_batch ? p->n_ubatch : p->n_batch);
    c->n_threads = n_threads;
    c->n_threads_batch = p->n_threads_batch ? p->n_threads_batch : n_threads;
    TRY(get_type(p->type_k ? p->type_k : "f16", &c->type_k, e));
    TRY(get_type(p->type_v ? p->type_v : "f16", &c->type_v, e));
#if LL_N_SEQ_MAX
    c->n_seq_max = (uint32_t)n_seq;
#endif
#if LL_KV_UNIFIED
    c->kv_unified = true; /* tokens stay in their order, as in llama-perplexity */
#endif
    TRY(context_engine(&p->engine, c, e));
out:
    return rc;
}

#if LL_EVAL
static ll_eval_result on_eval(struct ggml_tensor *t, bool ask, void *arg) {
    return libllama_eval(t, ask, arg);
}
#endif

struct llama_context *libllama_context(struct libllama *s, bool watched, struct err *e) {
    struct llama_context_params c = s->cparams;
    if (watched) {
#if LL_EVAL
        c.cb_eval = on_eval;
        c.cb_eval_user_data = s;
#else
        ERR(e, ERR_UNSUPPORTED, "%s %s shows no operations: it has no cb_eval", ENGINE_NAME,
            ENGINE_COMMIT);
        return NULL;
#endif
    }
    struct llama_context *x = ll_context_new(s->model, c);
    if (!x)
        ERR(e, ERR_UNSUPPORTED,
            "%s %s gives no context of %u positions, K %s, V %s (its own message is above)",
            ENGINE_NAME, ENGINE_COMMIT, c.n_ctx, ggml_type_name(c.type_k),
            ggml_type_name(c.type_v));
    return x;
}

int libllama_load(struct libllama *s, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct arm_params q = *p;
    struct llama_model_params m = llama_model_default_params();
    TRY(context_params(s, p, e));
    TRY(model_engine(s, p, &m, e));
    model_shape(s, &m);
    s->model = ll_model_load(p->model, m);
    FAIL_IF(!s->model, e, ERR_FORMAT, "%s: %s %s cannot load it (its own message is above)",
            p->model, ENGINE_NAME, ENGINE_COMMIT);
    if (q.n_ctx == 0) {
        q.n_ctx = ll_n_ctx_train(s->model);
        TRY(context_params(s, &q, e));
    }
    s->plain = libllama_context(s, false, e);
    if (!s->plain) rc = e ? e->code : ERR_UNSUPPORTED;
out:
    return rc;
}
