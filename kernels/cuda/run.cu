/* SPDX-License-Identifier: MIT
 * run.cu - runs nodes in order on a device's stream; see cuda_plugin.h.
 *
 * Before the first kernel every tensor has an image and scratch memory is large enough, so that the
 * kernels of a key can be recorded as a graph: nothing is allocated and nothing waits while they
 * are submitted. What a launch depends on besides the nodes, the number of cache cells that
 * attention walks over, is rounded up to a power of two and part of the key. */
#include "cuda/run.cuh"

#include "cuda/fuse.cuh"
#include "cuda/halves.cuh"

const struct mul_cell *mul_cell(enum qtype t) {
    const struct mul_cell *c = FAULTY() ? mul_cell_faulty(t) : NULL;
    if (!c) c = mul_cell_trellis(t);
    if (!c) c = mul_cell_legacy(t);
    return c ? c : mul_cell_floats(t);
}

bool mul_wants_halves(const struct node *n) {
    return mul_cell((enum qtype)n->src[0]->type)->wants_halves && node_tokens(n) > FEW_TOKENS;
}

typedef int (*op_fn)(struct cuda_device *d, const struct node *n, struct err *e);

static op_fn op_of(enum op op) {
    switch (op) {
#define X(name)                                                                                    \
    case OP_##name: return op_##name##_run;
        CUDA_OP_LIST(X)
#undef X
    default: return NULL;
    }
}

void run_cells(bool *type_cell, bool *op_cell) {
    for (int t = 0; t < QT_count; t++)
        type_cell[t] = mul_cell((enum qtype)t) != NULL;
    for (int o = 0; o < OP_count; o++)
        op_cell[o] = o == OP_mul_mat || op_of((enum op)o) != NULL;
}

static const char *name_of(enum op op) {
    static const char *const names[OP_count] = {
#define X(name, ...) #name,
        OP_LIST(X)
#undef X
    };
    return names[op];
}

static bool is_cache_type(int t) {
    return t == QT_f32 || t == QT_f16 || t == QT_q8_0;
}

bool run_supports(const struct node *n) {
    switch (n->op) {
    case OP_mul_mat: return mul_cell((enum qtype)n->src[0]->type) != NULL;
    case OP_get_rows: return rows_type_supported((enum qtype)n->src[0]->type);
    case OP_set_rows: return is_cache_type(n->dst->type);
    case OP_rope: return n->p.rope.n_embd_head <= HEADS_MAX;
    case OP_rms_norm: return !norms_heads(n) || n->p.rms_norm.n <= HEADS_MAX;
    case OP_attn: return is_cache_type(n->src[1]->type) && is_cache_type(n->src[2]->type);
    default: return op_of(n->op) != NULL;
    }
}

/* ---- memory ----------------------------------------------------------------------------------
 */

struct temporary {
    const struct tensor *t;
    bool written;
};

static const struct tensor *operand(const struct node *n, int i) {
    return i < OP_MAX_SRC ? n->src[i] : n->dst;
}

static int grow(struct cuda_device *d, struct scratch *s, size_t n, const char *what,
                struct err *e) {
    int rc = 0;
    if (n <= s->n) return 0;
    run_forget(d);
    CU_TRY(cudaStreamSynchronize(d->stream));
    CU_TRY(cudaFree(s->p));
    *s = { NULL, 0 };
    d->acts_of = NULL;
    TRY(device_malloc(d, n, what, &s->p, e));
    s->n = n;
out:
    return rc;
}

/* A text is rounded alike however it is cut, which cuBLAS does not promise. */
static bool uses_blas(struct cuda_device *d, const struct node *n) {
    if (n->op != OP_mul_mat || mul_cell((enum qtype)n->src[0]->type)->needs_acts) return false;
    const int64_t n_tok = tensor_rows(n->src[1]);
    return n_tok >= BLAS_TOKENS && n_tok <= 65535 && n->p.mul_mat.n_tok_as != TOKENS_MANY &&
           n->src[0]->row_bytes % 4 == 0 && blas_has(d);
}

static int reserve(struct cuda_device *d, const struct node *const *nodes, int n, struct err *e) {
    int rc = 0;
    size_t acts = 0, parts = 0;
    for (int i = 0; i < n; i++) {
        const struct node *k = nodes[i];
        FAIL_IF(!run_supports(k), e, ERR_UNSUPPORTED, "%s: no cuda cell for op %s with %s",
                k->dst->name, name_of(k->op),
                qtype_info((enum qtype)(k->src[0] ? k->src[0]->type : k->dst->type))->name);
        if (k->op == OP_mul_mat && mul_cell((enum qtype)k->src[0]->type)->needs_acts) {
            const size_t m = (mul_wants_halves(k) ? halves_bytes : acts_bytes)(
                tensor_rows(k->src[1]), k->src[1]->ne[0]);
            if (m > acts) acts = m;
        }
        if (uses_blas(d, k)) {
            const size_t m = blas_bytes((enum qtype)k->src[0]->type, tensor_rows(k->src[1]),
                                        k->src[1]->ne[0]);
            if (m > acts) acts = m;
        }
        if (k->op == OP_attn && attn_parts_bytes(k) > parts) parts = attn_parts_bytes(k);
    }
    TRY(grow(d, &d->acts, acts, "quantised activations", e));
    if (parts > d->parts.n) {
        TRY(grow(d, &d->parts, parts, "partial results of attention", e));
        CU_TRY(cudaMemsetAsync(d->parts.p, 0, ATTN_COUNTER_BYTES, d->stream));
    }
out:
    return rc;
}

static bool has_images(const struct cuda_device *d, const struct node *n) {
    for (int i = 0; i <= OP_MAX_SRC; i++) {
        const struct tensor *t = operand(n, i);
        if (t && !device_image(d, t->data, tensor_bytes(t))) return false;
    }
    return true;
}

/* ---- one node --------------------------------------------------------------------------------
 */

int mul_job_of(struct cuda_device *d, const struct node *n, struct mul_job *j, struct err *e) {
    int rc = 0;
    j->w = device_tensor(d, n->src[0]);
    j->x = device_tensor(d, n->src[1]);
    j->dst = device_tensor(d, n->dst);
    j->gain = (float)qtype_info(j->w.type)->gain;
    j->few = node_tokens(n) <= FEW_TOKENS;
    if (FAULT(kt_gain)) j->gain = 1;
    if (FAULT(same_logits) && n->il < 0) j->x.stride = 0;
    if (mul_wants_halves(n))
        TRY(halves_make(d, &j->x, &j->halves, e));
    else if (mul_cell(j->w.type)->needs_acts)
        TRY(acts_quantize(d, &j->x, &j->acts, e));
out:
    return rc;
}

static int run_mul_mat(struct cuda_device *d, const struct node *n, struct err *e) {
    int rc = 0;
    struct mul_job j;
    TRY(mul_job_of(d, n, &j, e));
    TRY(uses_blas(d, n) ? blas_mul(d, &j, e) : mul_cell(j.w.type)->run(d, &j, e));
    if (FAULTY()) TRY(mul_faults(d, n, &j.dst, e));
out:
    return rc;
}

static int run_node(struct cuda_device *d, const struct node *n, struct err *e) {
    return n->op == OP_mul_mat ? run_mul_mat(d, n, e) : op_of(n->op)(d, n, e);
}

/* q, k and v are products of the same rows: those stay quantised until they are overwritten. */
static void overwrite(struct cuda_device *d, const struct node *n) {
    const struct dtensor y = device_tensor(d, n->dst);
    const char *acts_of = (const char *)d->acts_of;
    if (acts_of && acts_of >= y.p && acts_of < y.p + y.stride * (size_t)y.rows) d->acts_of = NULL;
}

static int run_nodes(struct cuda_device *d, const struct node *const *nodes, int n,
                     struct err *e) {
    int rc = 0;
    d->acts_of = NULL;
    for (int i = 0; i < n;) {
        const struct fusion f = fuse_find(nodes + i, n - i);
        TRY(f.run ? f.run(d, &f, e) : run_node(d, nodes[i], e));
        for (int k = 0; k < f.n_nodes && !f.acts; k++)
            overwrite(d, nodes[i + k]);
        i += f.n_nodes;
    }
out:
    d->acts_of = NULL;
    return rc;
}

/* ---- tensors without images ------------------------------------------------------------------
 */

/* One node on host memory: images for its length. */
static int run_alone(struct cuda_device *d, const struct node *n, const struct cuda_api *api,
                     struct err *e) {
    int rc = 0, n_temp = 0;
    struct temporary temp[OP_MAX_SRC + 1];
    for (int i = 0; i <= OP_MAX_SRC; i++) {
        const struct tensor *t = operand(n, i);
        if (!t || device_image(d, t->data, tensor_bytes(t))) continue;
        TRY(api->mirror(d, t->data, tensor_bytes(t), t->name, e));
        temp[n_temp++] = { t, i == OP_MAX_SRC };
        TRY(api->push(d, t->data, tensor_bytes(t), e));
    }
    TRY(run_nodes(d, &n, 1, e));
    for (int i = 0; i < n_temp; i++)
        if (temp[i].written) TRY(api->pull(d, temp[i].t->data, tensor_bytes(temp[i].t), e));
out:
    for (int i = 0; i < n_temp; i++)
        api->unmirror(d, temp[i].t->data);
    return rc;
}

/* ---- graphs ----------------------------------------------------------------------------------
 */

void run_forget(struct cuda_device *d) {
    for (int i = 0; i < KEPT_GRAPHS; i++) {
        if (d->graphs[i].exec) cudaGraphExecDestroy(d->graphs[i].exec);
        d->graphs[i] = { 0, 0, NULL };
    }
}

/* The key of these nodes at the present depth of the cache. */
static uint64_t key_now(uint64_t key, const struct node *const *nodes, int n) {
    for (int i = 0; i < n; i++)
        if (nodes[i]->op == OP_attn) return key * 64 + (uint64_t)attn_depth(nodes[i]);
    return key * 64;
}

static struct kept_graph *find_graph(struct cuda_device *d, uint64_t key) {
    struct kept_graph *oldest = &d->graphs[0];
    for (int i = 0; i < KEPT_GRAPHS; i++) {
        if (d->graphs[i].exec && d->graphs[i].key == key) return &d->graphs[i];
        if (d->graphs[i].last_use < oldest->last_use) oldest = &d->graphs[i];
    }
    if (oldest->exec) cudaGraphExecDestroy(oldest->exec);
    *oldest = { key, 0, NULL };
    return oldest;
}

static int record(struct cuda_device *d, struct kept_graph *g, const struct node *const *nodes,
                  int n, struct err *e) {
    int rc = 0;
    cudaGraph_t graph = NULL;
    CU_TRY(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeRelaxed));
    rc = run_nodes(d, nodes, n, e);
    {
        const cudaError_t code = cudaStreamEndCapture(d->stream, &graph);
        if (rc < 0) goto out;
        CU_TRY(code);
    }
    CU_TRY(cudaGraphInstantiate(&g->exec, graph, 0));
out:
    if (graph) cudaGraphDestroy(graph);
    return rc;
}

int device_run(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
               struct err *e) {
    int rc = 0;
    CU_TRY(cudaSetDevice(d->index));
    TRY(reserve(d, nodes, n, e));
    d->n_runs++;
    for (int i = 0; i < n; i++) /* cuBLAS may allocate, which a recording cannot */
        if (uses_blas(d, nodes[i])) key = 0;
    if (FAULTY()) key = 0; /* a fault may begin late, which a recording would not show */
    if (key) {
        struct kept_graph *g = find_graph(d, key_now(key, nodes, n));
        for (int i = 0; !g->exec && i < n; i++)
            FAIL_IF(!has_images(d, nodes[i]), e, ERR_ARG, "%s: recorded without images",
                    nodes[i]->dst->name);
        if (!g->exec) TRY(record(d, g, nodes, n, e));
        g->last_use = d->n_runs;
        CU_TRY(cudaGraphLaunch(g->exec, d->stream));
        goto out;
    }
    for (int i = 0; i < n;) {
        int end = i;
        while (end < n && has_images(d, nodes[end]))
            end++;
        TRY(run_nodes(d, nodes + i, end - i, e));
        if (end < n) TRY(run_alone(d, nodes[end++], ggauge_cuda_api(), e));
        i = end;
    }
out:
    return rc;
}
