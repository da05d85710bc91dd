/* SPDX-License-Identifier: MIT
 * fake_llama.c - an engine for the tests of harness/worker: the interface of llama.cpp, the
 * arithmetic of our own avx2 column (or ref), so that what must come out is known to the bit.
 *
 * Nodes of our graph become tensors as ggml has them: other names, other operations, some of them
 * fused. FAKE_LLAMA in the environment makes it ill:
 *
 *     scale=WEIGHT     the product with this weight is 3 % too large
 *     die=N hang=N     killed, or asleep for ever, in its N-th decode
 *     stop=N           stopped (SIGSTOP) there
 *     refuse=N         llama_decode gives 1 there
 *     deaf=1           its tensors cannot be written */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "arm/arm.h"
#include "exec/observer.h"
#include "gguf/gguf.h"
#define gguf_find_tensor engine_gguf_find_tensor
#include "llama.h"
#undef gguf_find_tensor

#define NODES_MAX 512
#define FAULT_FACTOR 1.03f

struct llama_vocab {
    int32_t n;
};

struct llama_model {
    char path[4096];
    struct llama_vocab vocab;
    int32_t n_ctx_train;
    uint64_t n_bytes, n_params;
};

struct llama_context {
    struct arm *arm;
    struct llama_context_params p;
    float *logits; /* [n_batch, n_vocab] */
    struct observer observer;
    /* Tensors of the graph that runs; helpers (norms that are not yet scaled, reshapes) behind
     * them. */
    const struct node *node[NODES_MAX];
    struct ggml_tensor tensor[NODES_MAX], helper[NODES_MAX], weight[NODES_MAX], rows;
    int64_t row[1 << 16];
    int n, n_helpers, n_weights;
    bool asked[NODES_MAX];
};

/* ---- illness --------------------------------------------------------------------------------- */

static const char *illness(const char *name) {
    const char *text = getenv("FAKE_LLAMA");
    size_t n = strlen(name);
    return text && !strncmp(text, name, n) && text[n] == '=' ? text + n + 1 : NULL;
}

static bool strikes(const char *name, int n_decodes) {
    const char *at = illness(name);
    return at && atoi(at) == n_decodes;
}

/* ---- small things ---------------------------------------------------------------------------- */

const char *ggml_op_name(enum ggml_op op) {
    static const char *const names[GGML_OP_COUNT] = {
        "NONE",    "GET_ROWS", "RMS_NORM", "FUSED_RMS_NORM", "MUL",           "ADD", "MUL_MAT",
        "RESHAPE", "ROPE",     "SET_ROWS", "FLASH_ATTN_EXT", "FUSED_UP_GATE", "GLU",
    };
    return names[op];
}

const char *ggml_type_name(enum ggml_type type) {
    switch (type) {
    case GGML_TYPE_F32: return "f32";
    case GGML_TYPE_F16: return "f16";
    case GGML_TYPE_Q8_0: return "q8_0";
    default: return NULL;
    }
}

int64_t ggml_nelements(const struct ggml_tensor *t) {
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}
int ggml_n_dims(const struct ggml_tensor *t) {
    return t->ne[3] > 1 ? 4 : t->ne[2] > 1 ? 3 : t->ne[1] > 1 ? 2 : 1;
}
bool ggml_is_contiguous(const struct ggml_tensor *t) {
    (void)t;
    return true;
}
size_t ggml_row_size(enum ggml_type type, int64_t ne) {
    return qtype_row_bytes(qtype_from_gguf((uint32_t)type), ne);
}
void ggml_backend_tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t n) {
    memcpy(data, (const char *)t->data + offset, n);
}
void ggml_backend_tensor_set(struct ggml_tensor *t, const void *data, size_t offset, size_t n) {
    if (!illness("deaf")) memcpy((char *)t->data + offset, data, n);
}
const char *ggml_backend_buft_name(ggml_backend_buffer_type_t t) {
    (void)t;
    return "CPU";
}
static int one_device;
#ifdef FAKE_OLD
size_t ggml_backend_reg_get_count(void) {
    return 1;
}
ggml_backend_buffer_type_t ggml_backend_reg_get_default_buffer_type(size_t i) {
    (void)i;
    return (ggml_backend_buffer_type_t)&one_device;
}
#else
size_t ggml_backend_dev_count(void) {
    return 1;
}
ggml_backend_dev_t ggml_backend_dev_get(size_t i) {
    (void)i;
    return (ggml_backend_dev_t)&one_device;
}
ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t d) {
    return (ggml_backend_buffer_type_t)d;
}
#endif

void llama_backend_init(void) {
}
void llama_backend_free(void) {
}
void llama_log_set(void (*fn)(enum ggml_log_level level, const char *text, void *arg), void *arg) {
    (void)fn, (void)arg;
}
const char *llama_print_system_info(void) {
    return "FAKE = 1 | ";
}
struct llama_model_params llama_model_default_params(void) {
    return (struct llama_model_params){ 0 };
}
struct llama_context_params llama_context_default_params(void) {
    return (struct llama_context_params){ .n_ctx = 512, .n_batch = 2048, .n_ubatch = 512 };
}

struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max) {
    const size_t n = (size_t)n_tokens;
    struct llama_batch b = { .token = calloc(n, sizeof *b.token),
                             .pos = calloc(n, sizeof *b.pos),
                             .n_seq_id = calloc(n, sizeof *b.n_seq_id),
                             .seq_id = calloc(n, sizeof *b.seq_id),
                             .logits = calloc(n, 1) };
    (void)embd;
    b.seq_id[0] = calloc(n * (size_t)n_seq_max, sizeof *b.seq_id[0]);
    for (int32_t i = 1; i < n_tokens; i++)
        b.seq_id[i] = b.seq_id[0] + (size_t)i * (size_t)n_seq_max;
    return b;
}
void llama_batch_free(struct llama_batch b) {
    free(b.seq_id[0]);
    free(b.token);
    free(b.pos);
    free(b.n_seq_id);
    free(b.seq_id);
    free(b.logits);
}

/* ---- the model ------------------------------------------------------------------------------- */

static struct llama_model *model_load(const char *path) {
    struct arm *a = NULL;
    struct err e = { 0 };
    struct llama_model *m = calloc(1, sizeof *m);
    const struct arm_params p = {
        .model = path, .backend = "ref", .n_ctx = 8, .n_seq = 1, .n_batch = 8, .n_ubatch = 8
    };
    snprintf(m->path, sizeof m->path, "%s", path);
    if (arm_open_builtin(&a, &p, &e) < 0) {
        fprintf(stderr, "fake: %s\n", e.msg);
        free(m);
        return NULL;
    }
    m->vocab.n = a->info.n_vocab;
    m->n_ctx_train = a->info.n_ctx_train;
    m->n_bytes = a->info.model_bytes;
    m->n_params = (uint64_t)a->info.n_params;
    arm_close(a);
    return m;
}
uint64_t llama_model_size(const struct llama_model *m) {
    return m->n_bytes;
}
uint64_t llama_model_n_params(const struct llama_model *m) {
    return m->n_params;
}
int32_t llama_model_desc(const struct llama_model *m, char *buf, size_t n) {
    (void)m;
    return snprintf(buf, n, "fake model");
}

/* ---- the graph as ggml would have it --------------------------------------------------------- */

static void fill(struct ggml_tensor *t, enum ggml_op op, const struct tensor *like,
                 const char *name) {
    *t =
        (struct ggml_tensor){ .op = op,
                              .type = (enum ggml_type)qtype_info((enum qtype)like->type)->gguf_id };
    for (int i = 0; i < 4; i++)
        t->ne[i] = like->ne[i];
    t->nb[1] = like->row_bytes;
    snprintf(t->name, sizeof t->name, "%s", name);
}

static struct ggml_tensor *find(struct llama_context *c, const struct tensor *t) {
    for (int i = 0; i < c->n; i++)
        if (c->node[i]->dst == t) return &c->tensor[i];
    struct ggml_tensor *w = &c->weight[c->n_weights++ % NODES_MAX];
    fill(w, GGML_OP_NONE, t, t->name);
    return w;
}

/* A step between a tensor and its reader that no node of ours is. */
static struct ggml_tensor *step(struct llama_context *c, enum ggml_op op,
                                struct ggml_tensor *from) {
    struct ggml_tensor *t = &c->helper[c->n_helpers++ % NODES_MAX];
    *t = *from;
    t->op = op;
    memset(t->src, 0, sizeof t->src);
    t->src[0] = from;
    snprintf(t->name, sizeof t->name, "step-%d", c->n_helpers);
    return t;
}

/* Nodes that the old spelling computes inside of another one. */
static bool is_fused(const struct node *n) {
#ifdef FAKE_OLD
    return !strncmp(n->dst->name, "ffn_gate-", 9) || !strncmp(n->dst->name, "ffn_up-", 7);
#else
    (void)n;
    return false;
#endif
}

UNUSED static const struct node *writer(const struct llama_context *c, const struct tensor *t) {
    for (int i = 0; i < c->n; i++)
        if (c->node[i]->dst == t) return c->node[i];
    return NULL;
}

static void make(struct llama_context *c, int i) {
    const struct node *n = c->node[i];
    struct ggml_tensor *t = &c->tensor[i];
    char name[GGML_MAX_NAME];
    snprintf(name, sizeof name, "node_%d", i);
    fill(t, GGML_OP_NONE, n->dst, name);
    struct ggml_tensor *a = n->src[0] ? find(c, n->src[0]) : NULL,
                       *b = n->src[1] ? find(c, n->src[1]) : NULL;
    t->src[0] = a;
    t->src[1] = b;
    switch (n->op) {
    case OP_get_rows: t->op = GGML_OP_GET_ROWS; break;
    case OP_mul_mat: t->op = GGML_OP_MUL_MAT; break;
    case OP_add: t->op = GGML_OP_ADD; break;
    case OP_rope: t->op = GGML_OP_ROPE; break;
    case OP_attn:
        t->op = GGML_OP_FLASH_ATTN_EXT;
        t->src[0] = step(c, GGML_OP_RESHAPE, a);
        break;
    case OP_set_rows:
        t->op = GGML_OP_SET_ROWS;
        t->src[1] = &c->rows; /* which rows of data it has written: one behind the other */
        c->rows = (struct ggml_tensor){ .type = GGML_TYPE_I64, .ne = { node_rows(n), 1, 1, 1 } };
        c->rows.data = c->row;
        for (int64_t k = 0; k < node_rows(n); k++)
            c->row[k] = k;
        t->ne[1] = node_rows(n);
        break;
#ifdef FAKE_OLD
    case OP_rms_norm: t->op = GGML_OP_FUSED_RMS_NORM; break;
    case OP_swiglu: {
        const struct node *gate = writer(c, n->src[0]), *up = writer(c, n->src[1]);
        t->op = GGML_OP_FUSED_UP_GATE;
        t->src[0] = find(c, up->src[0]);
        t->src[1] = find(c, gate->src[0]);
        t->src[2] = find(c, up->src[1]);
        break;
    }
#else
    case OP_rms_norm:
        t->op = GGML_OP_MUL;
        t->src[0] = step(c, GGML_OP_RMS_NORM, a);
        break;
    case OP_swiglu: t->op = GGML_OP_GLU; break;
#endif
    default: t->op = GGML_OP_NONE; break;
    }
}

/* ---- running --------------------------------------------------------------------------------- */

static int on_graph(void *arg, const struct node *const *nodes, int n, struct err *e) {
    struct llama_context *c = arg;
    (void)e;
    c->n = n < NODES_MAX ? n : NODES_MAX;
    c->n_helpers = c->n_weights = 0;
    for (int i = 0; i < c->n; i++)
        c->node[i] = nodes[i];
    for (int i = 0; i < c->n; i++)
        make(c, i);
    return 0;
}

static int index_of(const struct llama_context *c, const struct node *n) {
    for (int i = 0; i < c->n; i++)
        if (c->node[i] == n) return i;
    return -1;
}

static bool is_scaled(const struct node *n) {
    const char *weight = illness("scale");
    return weight && n->op == OP_mul_mat && !strcmp(n->src[0]->name, weight);
}

static bool want(void *arg, const struct node *n) {
    struct llama_context *c = arg;
    int i = index_of(c, n);
    if (i < 0) return false;
    c->asked[i] = false;
    if (c->p.cb_eval && !is_fused(n))
        c->asked[i] = c->p.cb_eval(&c->tensor[i], true, c->p.cb_eval_user_data);
    return c->asked[i] || is_scaled(n);
}

static int see(void *arg, const struct node *n, void *data, struct err *e) {
    int rc = 0;
    struct llama_context *c = arg;
    int i = index_of(c, n);
    struct ggml_tensor *t = &c->tensor[i];
    if (is_scaled(n))
        for (int64_t k = 0; k < tensor_rows(n->dst) * n->dst->ne[0]; k++)
            ((float *)data)[k] *= FAULT_FACTOR;
    if (!c->asked[i]) return 0;
    t->data = data;
    FAIL_IF(!c->p.cb_eval(t, false, c->p.cb_eval_user_data), e, ERR_ARM, "fake: stopped");
out:
    return rc;
}

static struct llama_context *context_new(struct llama_model *m, struct llama_context_params p) {
    struct err e = { 0 };
    struct llama_context *c = calloc(1, sizeof *c);
    const char *backend = getenv("FAKE_LLAMA_BACKEND");
    const int n_seq = p.n_seq_max > 0 ? (int)p.n_seq_max : 1;
    const struct arm_params a = { .model = m->path,
                                  .backend = backend ? backend : "ref",
                                  .n_ctx = (int)p.n_ctx / n_seq,
                                  .n_seq = n_seq,
                                  .n_batch = (int)p.n_batch,
                                  .n_ubatch = (int)p.n_ubatch,
                                  .n_threads = (int)p.n_threads,
                                  .n_threads_batch = (int)p.n_threads_batch,
                                  .type_k = ggml_type_name(p.type_k),
                                  .type_v = ggml_type_name(p.type_v) };
    c->p = p;
    c->logits = calloc((size_t)p.n_batch * (size_t)m->vocab.n, sizeof *c->logits);
    if (!c->logits || arm_open_builtin(&c->arm, &a, &e) < 0) {
        fprintf(stderr, "fake: %s\n", e.msg);
        free(c->logits);
        free(c);
        return NULL;
    }
    c->observer = (struct observer){ .arg = c, .want = want, .see = see, .graph = on_graph };
    return c;
}

void llama_free(struct llama_context *c) {
    arm_close(c->arm);
    free(c->logits);
    free(c);
}

static int on_answer(void *arg, const struct arm_answer *a, struct err *e) {
    struct llama_context *c = arg;
    const size_t n = (size_t)c->arm->info.n_vocab;
    (void)e;
    memcpy(c->logits + (size_t)a->i * n, a->logits, n * sizeof *a->logits);
    return 0;
}

static void fall_ill(void) {
    static int n_decodes;
    n_decodes++;
    if (strikes("die", n_decodes)) raise(SIGKILL);
    if (strikes("stop", n_decodes)) raise(SIGSTOP);
    while (strikes("hang", n_decodes))
        sleep(1000);
    if (strikes("refuse", n_decodes)) errno = ENOSPC;
}

int32_t llama_decode(struct llama_context *c, struct llama_batch b) {
    struct err e = { 0 };
    errno = 0;
    fall_ill();
    if (errno == ENOSPC) return 1;
    int32_t *seq = calloc((size_t)b.n_tokens, sizeof *seq);
    bool *wanted = calloc((size_t)b.n_tokens, sizeof *wanted);
    for (int32_t i = 0; i < b.n_tokens; i++) {
        seq[i] = b.seq_id[i][0];
        wanted[i] = b.logits[i];
    }
    struct arm_batch x = { b.n_tokens, b.token, b.pos, seq, wanted, true };
    bool watched = c->p.cb_eval || illness("scale");
    int rc = arm_observe(c->arm, watched ? &c->observer : NULL, &e);
    if (rc >= 0) rc = arm_decode(c->arm, &x, on_answer, c, &e);
    if (rc < 0) fprintf(stderr, "fake: %s\n", e.msg);
    free(seq);
    free(wanted);
    return rc < 0 ? -1 : 0;
}

void llama_synchronize(struct llama_context *c) {
    (void)c;
}

float *llama_get_logits_ith(struct llama_context *c, int32_t i) {
    return c->logits + (size_t)i * (size_t)c->arm->info.n_vocab;
}

static bool forget(struct llama_context *c, int32_t seq, int32_t pos) {
    struct err e;
    return arm_kv_trim(c->arm, seq, pos, &e) == 0;
}

/* ---- two spellings --------------------------------------------------------------------------- */

#ifdef FAKE_OLD
struct llama_model *llama_load_model_from_file(const char *path, struct llama_model_params p) {
    (void)p;
    return model_load(path);
}
void llama_free_model(struct llama_model *m) {
    free(m);
}
struct llama_context *llama_new_context_with_model(struct llama_model *m,
                                                   struct llama_context_params p) {
    return context_new(m, p);
}
int32_t llama_n_vocab(const struct llama_model *m) {
    return m->vocab.n;
}
int32_t llama_n_ctx_train(const struct llama_model *m) {
    return m->n_ctx_train;
}
void llama_kv_cache_clear(struct llama_context *c) {
    forget(c, -1, 0);
}
bool llama_kv_cache_seq_rm(struct llama_context *c, int32_t seq, int32_t p0, int32_t p1) {
    (void)p1;
    return forget(c, seq, p0);
}
#else
struct llama_model *llama_model_load_from_file(const char *path, struct llama_model_params p) {
    (void)p;
    return model_load(path);
}
void llama_model_free(struct llama_model *m) {
    free(m);
}
struct llama_context *llama_init_from_model(struct llama_model *m, struct llama_context_params p) {
    return context_new(m, p);
}
const struct llama_vocab *llama_model_get_vocab(const struct llama_model *m) {
    return &m->vocab;
}
int32_t llama_vocab_n_tokens(const struct llama_vocab *v) {
    return v->n;
}
int32_t llama_model_n_ctx_train(const struct llama_model *m) {
    return m->n_ctx_train;
}
llama_memory_t llama_get_memory(const struct llama_context *c) {
    return (llama_memory_t)(uintptr_t)c;
}
void llama_memory_clear(llama_memory_t m, bool data) {
    (void)data;
    forget((struct llama_context *)m, -1, 0);
}
bool llama_memory_seq_rm(llama_memory_t m, int32_t seq, int32_t p0, int32_t p1) {
    (void)p1;
    return forget((struct llama_context *)m, seq, p0);
}
#endif
