/* SPDX-License-Identifier: MIT
 * exec.c - running a model; see exec.h.
 *
 * A micro-batch is two graphs: the body up to result_norm, kept from one micro-batch to the next
 * while its shape stays the same, and the head (output matrix and log-sum-exp), run over slices of
 * rows. On a device there are two heads: while the answers of one travel back and are looked at,
 * the device works on the other's slice or on the next micro-batch. */
#include "exec/exec.h"

#include "cuda_plugin.h"
#include "exec/card.h"
#include "exec/repack.h"
#include "exec/split.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Logits alive at a time: enough rows to fill all threads, few enough to stay small. */
#define HEAD_BYTES ((size_t)64 << 20)
#define HEAD_MIN_ROWS 16

struct block {
    void *raw, *data; /* allocated, and from a multiple of EXCHANGE_ALIGN on */
    size_t n_bytes;
};

struct head {
    struct graph graph;
    struct split split;
    struct block data;
    int64_t n_waiting; /* rows that were computed and not yet answered */
    int32_t *token;    /* [head_rows] theirs, in the batch */
};

#define HEADS 2

struct exec {
    const struct model *m;
    struct exec_params p;
    struct thread_pool *pool;
    struct place_map map;
    struct backend place[PLACES_MAX]; /* [0] the CPU */
    struct nvml *cards;
    struct repacked repacked;
    struct kv_cache kv;
    struct graph body;
    struct split body_split;
    struct block body_data, head_in;
    struct head head[HEADS];
    int n_heads, turn; /* in use; the next one */
    int64_t head_rows; /* rows of a slice */
    struct observer *observer;
    int64_t tokens_as; /* of the batch computed last */
    struct fault_run fault;
    int32_t *in; /* [5][n_ubatch]: token, pos, cell, first, out_rows */
    float *held; /* [n_held, n_embd] rows of result_norm, on the host */
    int64_t n_held, max_held;
    int64_t n_coming; /* further rows, on their way to the host */
};

static void release_block(struct exec *x, struct block *b) {
    for (int i = 0; b->data && i < x->map.n_places; i++)
        if (x->place[i].ops) x->place[i].ops->unmirror(&x->place[i], b->data);
    heap_free(b->raw);
    *b = (struct block){ 0 };
}

/* At least n_bytes, with an image at every place. */
static int reserve(struct exec *x, struct block *b, size_t n_bytes, const char *what,
                   struct err *e) {
    int rc = 0;
    if (n_bytes <= b->n_bytes) return 0;
    release_block(x, b);
    const size_t whole = (n_bytes + EXCHANGE_ALIGN - 1) / EXCHANGE_ALIGN * EXCHANGE_ALIGN;
    b->raw = heap_alloc(whole + EXCHANGE_ALIGN, e);
    if (!b->raw) return ERR_NOMEM;
    b->data =
        (char *)b->raw + (EXCHANGE_ALIGN - (uintptr_t)b->raw % EXCHANGE_ALIGN) % EXCHANGE_ALIGN;
    b->n_bytes = whole;
    for (int i = 0; i < x->map.n_places; i++)
        TRY(x->place[i].ops->exchange(&x->place[i], b->data, whole, what, e));
out:
    if (rc < 0) release_block(x, b);
    return rc;
}

/* Keep the rows of result_norm that are on their way behind those that are held. */
static int hold_end(struct exec *x, struct err *e) {
    int rc = 0;
    const struct tensor *norm = x->body.result_norm;
    const int64_t n = x->n_coming;
    if (n == 0) return 0;
    x->n_coming = 0;
    TRY(split_to_host_end(&x->body_split, x->body.n_nodes - 1, e));
    memcpy((char *)x->held + (size_t)x->n_held * norm->row_bytes, norm->data,
           (size_t)n * norm->row_bytes);
    x->n_held += n;
out:
    return rc;
}

/* Memory and places for a graph that was built. */
static int lay_out(struct exec *x, struct graph *g, struct split *s, struct block *b,
                   const char *what, struct err *e) {
    int rc = 0;
    TRY(reserve(x, b, g->data_bytes, what, e));
    graph_place(g, b->data);
    split_graph(s, g);
    repack_attach(&x->repacked, g);
out:
    return rc;
}

static int build_body(struct exec *x, int64_t n_tok, int64_t n_out, struct err *e) {
    int rc = 0;
    if (x->body.n_nodes && x->body.n_tok == n_tok && x->body.n_out == n_out) return 0;
    TRY(hold_end(x, e));
    TRY(graph_build(&x->body, x->m, n_tok, n_out, e));
    TRY(lay_out(x, &x->body, &x->body_split, &x->body_data, "the activations of a micro-batch", e));
out:
    if (rc < 0) x->body.n_nodes = 0;
    return rc;
}

static int build_head(struct exec *x, struct head *h, int64_t n_rows, struct err *e) {
    int rc = 0;
    if (h->graph.n_nodes && h->graph.n_out == n_rows) return 0;
    TRY(graph_build_head(&h->graph, x->m, n_rows, e));
    TRY(lay_out(x, &h->graph, &h->split, &h->data, "logits", e));
out:
    if (rc < 0) h->graph.n_nodes = 0;
    return rc;
}

static int reserve_heads(struct exec *x, struct err *e) {
    int rc = 0;
    const size_t row = (size_t)x->m->hp.n_vocab * sizeof(float);
    x->head_rows = (int64_t)(HEAD_BYTES / row);
    if (x->head_rows < HEAD_MIN_ROWS) x->head_rows = HEAD_MIN_ROWS;
    if (x->head_rows > x->p.n_ubatch) x->head_rows = x->p.n_ubatch;
    x->n_heads = 1;
    for (int i = 0; i < x->n_heads; i++) {
        struct head *h = &x->head[i];
        TRY(build_head(x, h, x->head_rows, e));
        h->token = heap_calloc((size_t)x->head_rows, sizeof *h->token, e);
        if (!h->token) return ERR_NOMEM;
        if (h->split.where[h->graph.n_nodes - 1] > 0) x->n_heads = HEADS;
    }
out:
    return rc;
}

/* Allocate everything now, so that lack of memory shows before the first token. */
static int reserve_all(struct exec *x, struct err *e) {
    int rc = 0;
    int64_t n = x->p.n_ubatch;
    const int64_t outs[] = { 0, n, n > 1 ? n - 1 : n };
    for (size_t i = 0; i < N_ELEMS(outs); i++) {
        rc = build_body(x, n, outs[i], e);
        if (rc == ERR_NOMEM) err_prefix(e, "a micro-batch of %" PRId64 " tokens (lower -ub)", n);
        TRY(rc);
    }
    TRY(reserve_heads(x, e));
out:
    return rc;
}

/* ---- devices --------------------------------------------------------------------------------- */

static_assert(NVML_CARDS_MAX >= PLACES_MAX - 1, "a card for every place but the CPU");

/* Before anything of ours is in their memory. A device without an address is one of which nothing
 * is known. */
static int open_cards(struct exec *x, struct err *e) {
    char id[NVML_CARDS_MAX][NVML_BUS_ID_BYTES];
    struct err ignored;
    for (int i = 1; i < x->map.n_places; i++)
        if (cuda_bus_id(x->map.device[i], id[i - 1], sizeof id[0], &ignored) < 0) return 0;
    return nvml_open(&x->cards, (const char(*)[NVML_BUS_ID_BYTES])id, x->map.n_places - 1, e);
}

static int open_places(struct exec *x, struct err *e) {
    int rc = 0;
    const bool cuda = x->p.place.column == COL_cuda;
    TRY(place_init(&x->map, &x->p.place, x->m->hp.n_layer, cuda ? cuda_device_count() : 0, e));
    TRY(backend_cpu_init(&x->place[0], cuda ? x->p.place.cpu_column : x->p.place.column, x->pool,
                         e));
    TRY(open_cards(x, e));
    for (int i = 1; i < x->map.n_places; i++)
        TRY(backend_cuda_init(&x->place[i], x->map.device[i], e));
out:
    return rc;
}

/* Images of the weights that a graph's nodes read where they run. */
static int mirror_weights(struct exec *x, const struct split *s, const struct graph *g,
                          struct err *e) {
    int rc = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = g->nodes[i];
        const int at = s->where[i];
        FAIL_IF(!x->place[at].ops->supports(&x->place[at], n), e, ERR_UNSUPPORTED,
                "%s: the %s column has no cell for it (%s of %s); keep it on the CPU with -ot",
                n->dst->name, column_name(x->place[at].col), op_name(n->op),
                n->src[0] ? qtype_info((enum qtype)n->src[0]->type)->name : "-");
        for (int k = 0; at > 0 && k < OP_MAX_SRC; k++) {
            const struct tensor *t = n->src[k];
            if (!t || !model_has(x->m, t)) continue;
            const size_t n_bytes = tensor_bytes(t);
            struct err none; /* a byte of it tells whether it has an image */
            if (x->place[at].ops->push(&x->place[at], t->data, 1, &none) == 0) continue;
            TRY(x->place[at].ops->mirror(&x->place[at], t->data, n_bytes, t->name, e));
            TRY(x->place[at].ops->push(&x->place[at], t->data, n_bytes, e));
        }
    }
out:
    return rc;
}

static int repack(struct exec *x, int n_threads, struct err *e) {
    int rc = 0;
    const enum column c = x->place[0].col;
    const struct topology *t = x->p.topology;
    TRY(repack_graph(&x->repacked, &x->body, &x->body_split, c, x->pool, n_threads, t, e));
    TRY(repack_graph(&x->repacked, &x->head[0].graph, &x->head[0].split, c, x->pool, n_threads, t,
                     e));
    /* All graphs that were laid out before, and not until the last copy: more of them move. */
    repack_attach(&x->repacked, &x->body);
    for (int i = 0; i < x->n_heads; i++)
        repack_attach(&x->repacked, &x->head[i].graph);
out:
    return rc;
}

size_t exec_repacked_bytes(const struct exec *x) {
    return x->repacked.n_bytes;
}

static int mirror_cache(struct exec *x, struct err *e) {
    int rc = 0;
    for (int64_t il = 0; il < x->kv.n_layer; il++) {
        struct backend *b = &x->place[x->map.layer[il]];
        const struct tensor *t[] = { &x->kv.k[il], &x->kv.v[il] };
        for (int i = 0; i < 2; i++)
            TRY(b->ops->mirror(b, t[i]->data, tensor_bytes(t[i]), t[i]->name, e));
    }
out:
    return rc;
}

int exec_new(struct exec **out, const struct model *m, const struct exec_params *p, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct exec *x = heap_calloc(1, sizeof *x, e);
    if (!x) return ERR_NOMEM;
    x->m = m;
    x->p = *p;
    x->fault = (struct fault_run){ .fault = p->fault,
                                   .n_ctx = p->n_ctx,
                                   .n_cells = (int64_t)p->n_ctx * p->n_seq };
    FAIL_IF(p->n_ubatch < 1 || p->n_ctx < 1 || p->n_seq < 1, e, ERR_ARG,
            "context, sequences and micro-batch must be positive");
    int n_threads = p->n_threads > p->n_threads_batch ? p->n_threads : p->n_threads_batch;
    TRY(topology_pool(p->topology, &x->pool, n_threads, e));
    TRY(open_places(x, e));
    TRY(kv_init(&x->kv, &m->hp, p->type_k, p->type_v, p->n_ctx, p->n_seq, e));
    topology_place(p->topology, x->kv.data, x->kv.n_bytes);
    for (int64_t il = 0; il < x->kv.n_layer; il++) /* a device has its own memory for the others */
        if (x->map.layer[il] == 0) kv_touch(&x->kv, il);
    TRY(mirror_cache(x, e));
    TRY(graph_init(&x->body, m, &x->kv, e));
    TRY(split_init(&x->body_split, &x->map, x->place, x->body.max_nodes, &x->fault, e));
    for (int i = 0; i < HEADS; i++) {
        struct head *h = &x->head[i];
        TRY(graph_init(&h->graph, m, NULL, e));
        TRY(split_init(&h->split, &x->map, x->place, h->graph.max_nodes, &x->fault, e));
    }
    x->in = heap_calloc(5 * (size_t)p->n_ubatch, sizeof *x->in, e);
    FAIL_IF(!x->in, e, ERR_NOMEM, "out of memory for a micro-batch of %d tokens", p->n_ubatch);
    TRY(reserve_all(x, e));
    TRY(mirror_weights(x, &x->body_split, &x->body, e));
    TRY(mirror_weights(x, &x->head[0].split, &x->head[0].graph, e));
    if (p->repack) TRY(repack(x, n_threads, e));
    *out = x;
out:
    if (rc < 0) exec_free(x);
    return rc;
}

void exec_free(struct exec *x) {
    if (!x) return;
    release_block(x, &x->body_data);
    for (int i = 0; i < HEADS; i++)
        release_block(x, &x->head[i].data);
    release_block(x, &x->head_in);
    for (int i = 0; i < x->map.n_places; i++)
        backend_release(&x->place[i]);
    nvml_close(x->cards);
    kv_release(&x->kv);
    split_release(&x->body_split);
    graph_release(&x->body);
    for (int i = 0; i < HEADS; i++) {
        split_release(&x->head[i].split);
        graph_release(&x->head[i].graph);
        heap_free(x->head[i].token);
    }
    place_release(&x->map);
    repack_release(&x->repacked);
    thread_pool_free(x->pool);
    heap_free(x->in);
    heap_free(x->held);
    heap_free(x);
}

void exec_observe(struct exec *x, struct observer *o) {
    x->observer = o;
}

int exec_kv_trim(struct exec *x, int32_t seq, int32_t pos, struct err *e) {
    return kv_trim(&x->kv, seq, pos, e);
}

/* Tokens of a micro-batch up to which its nodes are recorded: those of token generation. */
#define RECORD_TOKENS 8

static int run_graph(struct exec *x, struct split *s, int n_nodes, bool record, struct err *e) {
    const int64_t n_tok = s->g->n_tok;
    return split_run(s, n_nodes, n_tok > 1 ? x->p.n_threads_batch : x->p.n_threads,
                     record && n_tok <= RECORD_TOKENS && !x->tokens_as, x->observer, e);
}

static int check_token(const struct exec *x, const struct arm_batch *b, int i, const int32_t *next,
                       struct err *e) {
    int rc = 0;
    FAIL_IF(b->token[i] < 0 || b->token[i] >= x->m->hp.n_vocab, e, ERR_ARG,
            "token %d of the batch is %d, outside of the vocabulary of %lld", i, b->token[i],
            (long long)x->m->hp.n_vocab);
    FAIL_IF(b->seq[i] < 0 || b->seq[i] >= x->kv.n_seq, e, ERR_ARG,
            "token %d of the batch belongs to sequence %d of %d", i, b->seq[i], x->kv.n_seq);
    FAIL_IF(b->pos[i] != next[b->seq[i]], e, ERR_ARG,
            "token %d of the batch is at position %d of sequence %d, whose next position is %d", i,
            b->pos[i], b->seq[i], next[b->seq[i]]);
    FAIL_IF(b->pos[i] >= x->kv.n_ctx, e, ERR_ARG,
            "position %d of sequence %d does not fit in a context of %d", b->pos[i], b->seq[i],
            x->kv.n_ctx);
out:
    return rc;
}

/* Fill and upload the inputs for tokens [i0, i0 + n); returns how many are wanted. */
static int load_inputs(struct exec *x, const struct arm_batch *b, int i0, int n, int *n_out,
                       struct err *e) {
    int rc = 0;
    size_t stride = (size_t)x->p.n_ubatch;
    int32_t *token = x->in, *pos = token + stride, *cell = pos + stride, *first = cell + stride;
    int32_t *rows = first + stride;
    *n_out = 0;
    for (int i = 0; i < n; i++) {
        TRY(check_token(x, b, i0 + i, x->kv.n_used, e));
        token[i] = b->token[i0 + i];
        pos[i] = b->pos[i0 + i];
        first[i] = b->seq[i0 + i] * x->kv.n_ctx;
        cell[i] = first[i] + pos[i];
        x->kv.n_used[b->seq[i0 + i]]++;
        if (b->want && b->want[i0 + i]) rows[(*n_out)++] = i;
    }
    TRY(build_body(x, n, *n_out, e));
    const struct graph *g = &x->body;
    struct tensor *t[] = { g->in_token, g->in_pos, g->in_cell, g->in_first, g->out_rows };
    char *begin = t[0]->data, *end = begin; /* one range: the plan has put them side by side */
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        memcpy(t[i]->data, x->in + i * stride, t[i]->row_bytes);
        char *behind = (char *)t[i]->data + t[i]->row_bytes;
        if (behind > end) end = behind;
    }
    for (int i = 0; i < x->map.n_places; i++)
        TRY(x->place[i].ops->push(&x->place[i], begin, (size_t)(end - begin), e));
out:
    return rc;
}

/* Wait for the rows of a slice and hand them out. */
static int answer(struct head *h, arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    const int64_t n = h->n_waiting;
    h->n_waiting = 0;
    for (int i = 0; n > 0 && i < h->graph.n_nodes; i++) /* logits and their sum */
        TRY(split_to_host_end(&h->split, i, e));
    for (int64_t r = 0; r < n; r++) {
        const double *lse = tensor_row(h->graph.lse, r);
        struct arm_answer a = { .i = h->token[r],
                                .logits = tensor_row(h->graph.logits, r),
                                .max = lse[0],
                                .lse = lse[1],
                                .top1 = (int32_t)lse[2] };
        TRY(fn(arg, &a, e));
    }
out:
    return rc;
}

/* Of all slices, in the order in which they were computed. */
static int answer_all(struct exec *x, arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    for (int i = 0; i < x->n_heads; i++)
        TRY(answer(&x->head[(x->turn + i) % x->n_heads], fn, arg, e));
out:
    return rc;
}

/* Nobody waits for answers of an earlier call that failed. */
static void forget_answers(struct exec *x) {
    x->turn = 0;
    for (int i = 0; i < x->n_heads; i++)
        x->head[i].n_waiting = 0;
}

static void round_as(struct exec *x, struct graph *g) {
    graph_round_as(g, x->tokens_as);
    if (x->p.weights_as != COL_none) graph_weights_as(g, x->p.weights_as);
}

/* Let a head read m rows at `norm`, valid at the places `valid`; the host's own memory gets images
 * of a copy. */
static int head_source(struct exec *x, struct head *h, void *norm, int64_t m, uint32_t valid,
                       bool is_host, struct err *e) {
    int rc = 0;
    struct tensor *in = h->graph.in_norm;
    in->data = norm;
    if (is_host && x->map.n_places > 1) {
        TRY(reserve(x, &x->head_in, (size_t)x->head_rows * in->row_bytes, "rows of the head", e));
        in->data = x->head_in.data;
        memcpy(in->data, norm, (size_t)m * in->row_bytes);
    }
    h->split.outer = in;
    h->split.outer_valid = valid;
out:
    return rc;
}

/* Compute a slice of m rows; without fn the log-sum-exp is left out. */
static int run_slice(struct exec *x, struct head *h, void *norm, int64_t m, bool is_host,
                     bool has_fn, struct err *e) {
    int rc = 0;
    const struct split *s = &x->body_split;
    const uint32_t valid = is_host ? SPLIT_HOST : s->valid[x->body.n_nodes - 1];
    TRY(build_head(x, h, m, e));
    round_as(x, &h->graph);
    TRY(head_source(x, h, norm, m, valid, is_host, e));
    const int n_nodes = has_fn ? h->graph.n_nodes : h->graph.n_nodes - 1;
    TRY(run_graph(x, &h->split, n_nodes, !is_host, e));
    for (int i = 0; has_fn && i < n_nodes; i++)
        TRY(split_to_host_begin(&h->split, i, e));
out:
    return rc;
}

/* Run the head over n rows of result_norm in slices: of the body, or (is_host) of memory of the
 * host. Row r is token i0 + rows[r] of the batch, or i0 + r without rows. The last answers may be
 * left for answer_all. */
static int run_head(struct exec *x, void *norm, int64_t n, bool is_host, const int32_t *rows,
                    int64_t i0, arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    for (int64_t r = 0; r < n; r += x->head_rows) {
        struct head *h = &x->head[x->turn];
        const int64_t m = n - r < x->head_rows ? n - r : x->head_rows;
        float *from = (float *)norm + r * x->m->hp.n_embd;
        x->turn = (x->turn + 1) % x->n_heads;
        TRY(answer(h, fn, arg, e));
        TRY(run_slice(x, h, from, m, is_host, fn != NULL, e));
        for (int64_t k = 0; fn && k < m; k++)
            h->token[k] = (int32_t)(i0 + (rows ? rows[r + k] : r + k));
        h->n_waiting = fn ? m : 0;
    }
    /* a host that computes does not answer meanwhile, and who looks on gets all of it in order */
    if (x->n_heads == 1 || x->observer) TRY(answer_all(x, fn, arg, e));
out:
    return rc;
}

/* Run the body of tokens [i0, i0 + n) of the batch. */
static int run_body(struct exec *x, const struct arm_batch *b, int i0, int *n_out, struct err *e) {
    int rc = 0;
    int n = b->n - i0 < x->p.n_ubatch ? b->n - i0 : x->p.n_ubatch;
    TRY(load_inputs(x, b, i0, n, n_out, e));
    x->tokens_as = b->uniform ? TOKENS_MANY : 0;
    round_as(x, &x->body);
    TRY(run_graph(x, &x->body_split, x->body.n_nodes, true, e));
    fault_count(&x->fault, n);
out:
    return rc;
}

int exec_decode(struct exec *x, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                struct err *e) {
    int rc = 0, n_out;
    const int32_t *out_rows = x->in + 4 * (size_t)x->p.n_ubatch;
    forget_answers(x);
    for (int i0 = 0; i0 < b->n; i0 += x->p.n_ubatch) {
        TRY(run_body(x, b, i0, &n_out, e));
        if (n_out == 0) continue;
        TRY(run_head(x, x->body.result_norm->data, n_out, false, out_rows, i0, fn, arg, e));
    }
    TRY(answer_all(x, fn, arg, e));
    for (int i = 1; i < x->map.n_places; i++) /* whoever measures time measures all of it */
        TRY(x->place[i].ops->synchronize(&x->place[i], e));
out:
    return rc;
}

/* Let n rows of result_norm come to the host; they are there after hold_end. */
static int hold_begin(struct exec *x, int64_t n, struct err *e) {
    int rc = 0;
    const size_t row = x->body.result_norm->row_bytes;
    if (x->n_held + n > x->max_held) {
        int64_t max = x->n_held + n > 2 * x->max_held ? x->n_held + n : 2 * x->max_held;
        float *p = heap_realloc(x->held, (size_t)max * row, e);
        if (!p) return ERR_NOMEM;
        x->held = p;
        x->max_held = max;
    }
    TRY(split_to_host_begin(&x->body_split, x->body.n_nodes - 1, e));
    x->n_coming = n;
out:
    return rc;
}

/* Whether the body runs without a result of its nodes being written on the host. */
static bool leaves_host_alone(const struct exec *x) {
    const uint8_t *where = x->body_split.where;
    for (int i = 0; i < x->body.n_nodes; i++)
        if (where[i] == 0 || where[i] != where[0]) return false;
    return !x->observer;
}

int exec_hold(struct exec *x, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0, n_out;
    if (!append) x->n_held = 0;
    x->n_coming = 0;
    for (int i0 = 0; i0 < b->n; i0 += x->p.n_ubatch) {
        TRY(run_body(x, b, i0, &n_out, e));
        TRY(hold_end(x, e)); /* of the micro-batch before: this one runs meanwhile */
        if (n_out > 0) TRY(hold_begin(x, n_out, e));
        if (!leaves_host_alone(x)) TRY(hold_end(x, e));
    }
    TRY(hold_end(x, e));
out:
    return rc;
}

int exec_rows(struct exec *x, int64_t r0, int64_t n, arm_answer_fn fn, void *arg, struct err *e) {
    int rc = 0;
    FAIL_IF(r0 < 0 || n < 0 || n > x->n_held || r0 > x->n_held - n, e, ERR_ARG,
            "%lld rows from %lld on were asked for, %lld are held", (long long)n, (long long)r0,
            (long long)x->n_held);
    forget_answers(x);
    TRY(run_head(x, x->held + r0 * x->m->hp.n_embd, n, true, NULL, 0, fn, arg, e));
    TRY(answer_all(x, fn, arg, e));
out:
    return rc;
}

static bool has_cell(const char *list, const char *cell) {
    size_t n = strlen(cell);
    for (const char *p = list; (p = strstr(p, cell)); p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n])) return true;
    return false;
}

static int add_cells(const struct exec *x, const struct split *s, char *buf, size_t n_bytes,
                     struct err *e) {
    int rc = 0;
    for (int i = 0; i < s->g->n_nodes; i++) {
        const struct node *n = s->g->nodes[i];
        enum column c = COL_none;
        char cell[64];
        op_cell_find(x->place[s->where[i]].col, n, &c);
        snprintf(cell, sizeof cell, "%s@%s",
                 n->op == OP_mul_mat ? qtype_info((enum qtype)n->src[0]->type)->name
                                     : op_name(n->op),
                 column_name(c));
        if (has_cell(buf, cell)) continue;
        size_t used = strlen(buf);
        FAIL_IF(used + strlen(cell) + 2 > n_bytes, e, ERR_NOMEM, "the list of cells is too long");
        snprintf(buf + used, n_bytes - used, "%s%s", used ? " " : "", cell);
    }
out:
    return rc;
}

int exec_cells(struct exec *x, char *buf, size_t n_bytes, struct err *e) {
    int rc = 0;
    buf[0] = '\0';
    TRY(build_body(x, x->p.n_ubatch, x->p.n_ubatch, e));
    TRY(add_cells(x, &x->body_split, buf, n_bytes, e));
    TRY(build_head(x, &x->head[0], x->head_rows, e));
    TRY(add_cells(x, &x->head[0].split, buf, n_bytes, e));
    const struct fault_info *fault = fault_info(x->p.fault);
    size_t used = strlen(buf);
    FAIL_IF(fault && used + sizeof " FAULT:" + strlen(fault->name) > n_bytes, e, ERR_NOMEM,
            "the list of cells is too long");
    if (fault) snprintf(buf + used, n_bytes - used, " FAULT:%s", fault->name);
out:
    return rc;
}

int exec_placement(struct exec *x, char *buf, size_t n_bytes, struct err *e) {
    int rc = 0, n_nodes[PLACES_MAX] = { 0 };
    size_t used = 0;
    TRY(build_body(x, x->p.n_ubatch, x->p.n_ubatch, e));
    TRY(build_head(x, &x->head[0], x->head_rows, e));
    const struct split *s[] = { &x->body_split, &x->head[0].split };
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < s[k]->g->n_nodes; i++)
            n_nodes[s[k]->where[i]]++;
    buf[0] = '\0';
    if (x->map.n_places == 1) {
        snprintf(buf, n_bytes, "CPU");
        return 0;
    }
    for (int i = x->map.n_places - 1; i >= 0; i--) {
        struct cuda_info info = { .name = "" };
        if (!n_nodes[i]) continue;
        if (i > 0) TRY(backend_cuda_info(&x->place[i], &info, e));
        used +=
            (size_t)(i > 0 ? snprintf(buf + used, n_bytes - used, "%sCUDA%d (%s) %d nodes",
                                      used ? ", " : "", x->map.device[i], info.name, n_nodes[i])
                           : snprintf(buf + used, n_bytes - used, "%sCPU (%s) %d nodes",
                                      used ? ", " : "", column_name(x->place[0].col), n_nodes[i]));
        FAIL_IF(used >= n_bytes, e, ERR_NOMEM, "the placement is too long to name");
    }
out:
    return rc;
}

int exec_gpu_layers(const struct exec *x) {
    int n = x->map.outside[1] > 0;
    for (int64_t il = 0; il < x->map.n_layer; il++)
        n += x->map.layer[il] > 0;
    return n;
}

struct nvml *exec_cards(const struct exec *x) {
    return x->cards;
}

int exec_devices(struct exec *x, char *gpu, char *driver, size_t n_bytes, struct err *e) {
    int rc = 0;
    gpu[0] = driver[0] = '\0';
    for (int i = 1; i < x->map.n_places; i++) {
        struct cuda_info info;
        TRY(backend_cuda_info(&x->place[i], &info, e));
        const size_t used = strlen(gpu);
        snprintf(gpu + used, n_bytes - used, "%s%s", used ? ", " : "", info.name);
        card_driver(&info, nvml_driver(x->cards), driver, n_bytes);
    }
out:
    return rc;
}
