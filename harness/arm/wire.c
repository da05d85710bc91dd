/* SPDX-License-Identifier: MIT
 * wire.c - the messages of arms and workers; see wire.h. */
#include "arm/wire.h"

#include <assert.h>
#include <string.h>

#include "base/arena.h"

#define ELEMENTS_MAX ((int64_t)1 << 40) /* of one dimension: products of two cannot overflow */

/* Parameters of nodes travel as they lie in memory: whoever changes them raises FRAME_PROTOCOL. */
static_assert(FRAME_PROTOCOL == 2 && sizeof(union op_params) == 64, "node parameters changed");

static int get_int(struct payload *p, int low, int high) {
    int32_t v = get_i32(p);
    if (v >= low && v <= high) return v;
    p->torn = true;
    return low;
}

/* Where layers go is sent only if something was asked for: a worker from before there was a cuda
 * column then says that it cannot. */
static void put_placement(struct payload *p, const struct arm_params *a) {
    if (!a->cpu_backend && !a->n_gpu_layers && !a->tensor_split && !a->main_gpu && !a->rules.n)
        return;
    put_str(p, a->cpu_backend);
    put_str(p, a->n_gpu_layers);
    put_str(p, a->tensor_split);
    put_i32(p, a->main_gpu);
    put_u8(p, (uint8_t)a->rules.n);
    for (int i = 0; i < a->rules.n; i++)
        put_str(p, a->rules.v[i]);
}

static void get_placement(struct payload *p, struct arm_params *a) {
    if (payload_left(p) == 0) return;
    a->cpu_backend = get_str(p);
    a->n_gpu_layers = get_str(p);
    a->tensor_split = get_str(p);
    a->main_gpu = get_int(p, 0, 1 << 16);
    const int n = get_u8(p);
    if (n > ARM_RULES_MAX) p->torn = true;
    for (int i = 0; i < n && !p->torn; i++) {
        a->rules.v[i] = get_str(p);
        if (!a->rules.v[i]) p->torn = true;
        a->rules.n = i + 1;
    }
}

void put_params(struct payload *p, const struct arm_params *a) {
    put_str(p, a->model);
    put_str(p, a->backend);
    put_str(p, a->act_like);
    put_str(p, a->type_k);
    put_str(p, a->type_v);
    put_str(p, a->fault);
    put_i32(p, a->n_ctx);
    put_i32(p, a->n_seq);
    put_i32(p, a->n_batch);
    put_i32(p, a->n_ubatch);
    put_i32(p, a->n_threads);
    put_i32(p, a->n_threads_batch);
    put_u8(p, a->huge_pages);
    put_str(p, a->numa);
#define X(name) put_str(p, a->engine.name);
    ARM_ENGINE_LIST(X)
#undef X
    put_placement(p, a);
}

void get_params(struct payload *p, struct arm_params *a) {
    *a = (struct arm_params){ .kind = ARM_BUILTIN };
    a->model = get_str(p);
    a->backend = get_str(p);
    a->act_like = get_str(p);
    a->type_k = get_str(p);
    a->type_v = get_str(p);
    a->fault = get_str(p);
    a->n_ctx = get_i32(p);
    a->n_seq = get_i32(p);
    a->n_batch = get_i32(p);
    a->n_ubatch = get_i32(p);
    a->n_threads = get_i32(p);
    a->n_threads_batch = get_i32(p);
    a->huge_pages = get_u8(p) == 1;
    a->numa = get_str(p);
#define X(name) a->engine.name = get_str(p);
    ARM_ENGINE_LIST(X)
#undef X
    get_placement(p, a);
    if (!a->model) p->torn = true;
}

static void get_text(struct payload *p, char *buf, size_t n) {
    const char *s = get_str(p);
    if (!s || strlen(s) >= n) {
        p->torn = true;
        s = "";
    }
    memcpy(buf, s, strlen(s) + 1);
}

void put_info(struct payload *p, const struct arm_info *i) {
    put_i32(p, i->promise);
    put_i32(p, i->n_vocab);
    put_i32(p, i->n_ctx_train);
    put_i32(p, i->n_ctx);
    put_i32(p, i->n_seq);
    put_i32(p, i->n_batch);
    put_i32(p, i->n_ubatch);
    put_i32(p, i->n_threads);
    put_i32(p, i->n_threads_batch);
    put_i64(p, i->n_params);
    put_u64(p, i->model_bytes);
    put_f64(p, i->bpw);
    const char *text[] = { i->arch, i->qtype, i->type_k, i->type_v, i->backend, i->name, i->desc };
    for (size_t k = 0; k < N_ELEMS(text); k++)
        put_str(p, text[k]);
}

void get_info(struct payload *p, struct arm_info *i) {
    *i = (struct arm_info){ .promise = (enum arm_promise)get_int(p, ARM_BITWISE, ARM_RECORDED) };
    i->n_vocab = get_int(p, 1, WIRE_VOCAB_MAX);
    i->n_ctx_train = get_i32(p);
    i->n_ctx = get_int(p, 1, INT32_MAX);
    i->n_seq = get_int(p, 1, INT32_MAX);
    i->n_batch = get_int(p, 1, 1 << 24);
    i->n_ubatch = get_int(p, 1, 1 << 24);
    i->n_threads = get_int(p, 1, 1 << 16);
    i->n_threads_batch = get_int(p, 1, 1 << 16);
    i->n_params = get_i64(p);
    i->model_bytes = get_u64(p);
    i->bpw = get_f64(p);
    get_text(p, i->arch, sizeof i->arch);
    get_text(p, i->qtype, sizeof i->qtype);
    get_text(p, i->type_k, sizeof i->type_k);
    get_text(p, i->type_v, sizeof i->type_v);
    get_text(p, i->backend, sizeof i->backend);
    get_text(p, i->name, sizeof i->name);
    get_text(p, i->desc, sizeof i->desc);
}

static const enum row_field what[] = {
#define X(name, type) ROW_##name,
    ROW_WHAT_FIELDS(X)
#undef X
};

void put_what(struct payload *p, const struct row *r) {
    uint32_t n = 0;
    for (size_t i = 0; i < N_ELEMS(what); i++)
        n += r->field[what[i]] != NULL;
    put_u32(p, n);
    for (size_t i = 0; i < N_ELEMS(what); i++) {
        if (!r->field[what[i]]) continue;
        put_str(p, row_field_name(what[i]));
        put_str(p, r->field[what[i]]);
    }
}

int get_what(struct payload *p, struct row *r, struct err *e) {
    int rc = 0;
    uint32_t n = get_u32(p);
    for (uint32_t k = 0; k < n && !p->torn; k++) {
        const char *name = get_str(p), *value = get_str(p);
        if (!name || !value) p->torn = true;
        for (size_t i = 0; !p->torn && i < N_ELEMS(what); i++)
            if (!strcmp(row_field_name(what[i]), name)) TRY(row_set(r, what[i], value, e));
    }
out:
    return rc;
}

void put_batch(struct payload *p, const struct arm_batch *b) {
    const size_t n = (size_t)b->n;
    put_i32(p, b->n);
    put_bytes(p, b->token, n * sizeof *b->token);
    put_bytes(p, b->pos, n * sizeof *b->pos);
    put_bytes(p, b->seq, n * sizeof *b->seq);
    put_u8(p, b->want != NULL);
    for (size_t i = 0; b->want && i < n; i++)
        put_u8(p, b->want[i]);
    put_u8(p, b->uniform);
}

/* The bytes of a bool may only be 0 and 1. */
static const bool *get_bools(struct payload *p, size_t n) {
    const unsigned char *v = get_bytes(p, n);
    for (size_t i = 0; v && i < n; i++)
        if (v[i] > 1) p->torn = true;
    return (const bool *)v;
}

int get_batch(struct payload *p, struct arm_batch *b, struct payload *store, struct err *e) {
    *b = (struct arm_batch){ 0 };
    size_t n = (size_t)get_int(p, 0, INT32_MAX / 16);
    const void *numbers = get_bytes(p, 3 * n * sizeof(int32_t));
    const bool *want = get_u8(p) ? get_bools(p, n) : NULL;
    const bool uniform = get_u8(p) == 1;
    if (p->torn) return 0;
    payload_clear(store);
    put_bytes(store, numbers, 3 * n * sizeof(int32_t)); /* aligned, unlike the payload */
    put_bytes(store, want, want ? n : 0);
    put_u8(store, 0); /* so that there is memory for no tokens too */
    if (store->failed) return ERR(e, ERR_NOMEM, "out of memory for a batch of %zu tokens", n);
    const int32_t *v = (const int32_t *)(const void *)store->p;
    *b = (struct arm_batch){
        (int)n, v, v + n, v + 2 * n, want ? (const bool *)(store->p + 3 * n * sizeof *v) : NULL,
        uniform
    };
    return 0;
}

void put_row(struct payload *p, const struct arm_row *r, uint32_t n_logits) {
    put_i64(p, r->r);
    put_f64(p, r->nll);
    put_f64(p, r->max);
    put_f64(p, r->lse);
    put_f32(p, r->second);
    put_i32(p, r->top1);
    put_i32(p, r->bad);
    put_u32(p, n_logits);
}

void get_row(struct payload *p, struct arm_row *r, uint32_t *n_logits, int32_t n_vocab) {
    *r = (struct arm_row){ .r = get_i64(p) };
    r->nll = get_f64(p);
    r->max = get_f64(p);
    r->lse = get_f64(p);
    r->second = get_f32(p);
    r->top1 = get_i32(p); /* without a meaning where logits are not finite */
    r->bad = get_int(p, -1, n_vocab - 1);
    *n_logits = get_u32(p);
    if (r->bad < 0 && (r->top1 < 0 || r->top1 >= n_vocab)) p->torn = true;
}

/* ---- graphs ---------------------------------------------------------------------------------- */

static void put_tensor(struct payload *p, const struct tensor *t) {
    put_str(p, t ? t->name : NULL);
    if (!t) return;
    put_u32(p, qtype_info((enum qtype)t->type)->gguf_id);
    for (int i = 0; i < 4; i++)
        put_i64(p, t->ne[i]);
}

/* NULL, or t filled. A row is as long as its type says. */
static struct tensor *get_tensor(struct payload *p, struct tensor *t) {
    const char *name = get_str(p);
    if (!name || p->torn) return NULL;
    if (strlen(name) >= sizeof t->name) {
        p->torn = true;
        return NULL;
    }
    memcpy(t->name, name, strlen(name) + 1);
    enum qtype type = qtype_from_gguf(get_u32(p));
    t->type = type;
    for (int i = 0; i < 4; i++) {
        t->ne[i] = get_i64(p);
        if (t->ne[i] < 0 || t->ne[i] > ELEMENTS_MAX) p->torn = true;
    }
    if (type == QT_none || p->torn || t->ne[0] % qtype_info(type)->n_blk)
        p->torn = true;
    else
        t->row_bytes = qtype_row_bytes(type, t->ne[0]);
    return t;
}

void put_graph(struct payload *p, const struct node *const *nodes, int n) {
    put_i32(p, n);
    for (int i = 0; i < n; i++) {
        const struct node *x = nodes[i];
        put_str(p, op_name(x->op));
        put_i32(p, x->il);
        put_i32(p, x->occurrence);
        put_bytes(p, &x->p, sizeof x->p);
        put_tensor(p, x->dst);
        for (int s = 0; s < OP_MAX_SRC; s++)
            put_tensor(p, x->src[s]);
    }
}

static int op_from_name(const char *name, enum op *op) {
    for (int i = 0; name && i < OP_count; i++) {
        if (strcmp(op_name((enum op)i), name)) continue;
        *op = (enum op)i;
        return 0;
    }
    return ERR_ARM;
}

bool wire_node_bytes(const struct node *n, uint64_t *n_bytes) {
    const uint64_t most = (uint64_t)1 << 36;
    if (n->op == OP_set_rows && !n->src[1]) return false;
    const int64_t *ne = n->dst->ne;
    uint64_t rows = (uint64_t)ne[1];
    for (int i = 2; i < 4; i++) {
        if (ne[i] && rows > most / (uint64_t)ne[i]) return false;
        rows *= (uint64_t)ne[i];
    }
    rows = n->op == OP_set_rows ? (uint64_t)n->src[1]->ne[0] : rows;
    if (n->dst->row_bytes && rows > most / n->dst->row_bytes) return false;
    *n_bytes = rows * n->dst->row_bytes;
    return true;
}

static int get_node(struct payload *p, struct wire_node *w, struct err *e) {
    int rc = 0;
    uint64_t n_bytes;
    struct node *n = &w->node;
    const char *op = get_str(p);
    FAIL_IF(!p->torn && op_from_name(op, &n->op), e, ERR_ARM,
            "the worker has an operation '%s' that this program does not know", op ? op : "");
    n->il = get_i32(p);
    n->occurrence = get_i32(p);
    const void *params = get_bytes(p, sizeof n->p);
    if (params) memcpy(&n->p, params, sizeof n->p);
    n->dst = get_tensor(p, &w->t[0]);
    for (int s = 0; s < OP_MAX_SRC; s++)
        n->src[s] = get_tensor(p, &w->t[1 + s]);
    if (!n->dst || p->torn || !wire_node_bytes(n, &n_bytes)) p->torn = true;
out:
    return rc;
}

int get_graph(struct payload *p, struct wire_node **out, int *n, struct err *e) {
    int rc = 0;
    *out = NULL;
    *n = get_int(p, 0, WIRE_NODES_MAX);
    if ((size_t)*n > payload_left(p) / sizeof(union op_params)) p->torn = true;
    TRY(payload_end(&(struct payload){ .torn = p->torn, .n = p->n, .at = p->n }, FRAME_graph, e));
    struct wire_node *w = heap_calloc((size_t)*n, sizeof *w, e);
    if (!w) return ERR_NOMEM;
    for (int i = 0; i < *n && !p->torn && rc == 0; i++)
        rc = get_node(p, &w[i], e);
    if (rc == 0) rc = payload_end(p, FRAME_graph, e);
    if (rc < 0)
        heap_free(w);
    else
        *out = w;
out:
    return rc;
}
