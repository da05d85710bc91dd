/* SPDX-License-Identifier: MIT
 * cpu.c - the backend of all CPU columns: runs nodes in order on a thread pool.
 *
 * All nodes of a call run inside one run of the pool. Before the first node a plan is made:
 *   - a node waits for the others only if it touches memory that a node since the last barrier
 *     writes, or writes what one of them reads: q, k and v are products without a barrier between
 *     them, and the first one's rounding of their activations serves them all;
 *   - two or more small nodes in a row, each of which is worth less than a barrier, run on thread 0
 *     alone, one after the other; with a small model, that is the whole graph of one token.
 *   - where nobody looks at what is in between, the column may compute several nodes at once
 *     (struct chain_cell).
 * None of it changes a result, because no result depends on who computes it. */
#include <math.h>
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/fault.h"

/* Work of fewer ns, for each doubling of the threads, is not worth being shared. A barrier takes
 * 310 ns between two threads of a Sapphire Rapids that spin; the rest is what it costs when one of
 * them is not running just then (tg128 of tiny-qwen3-iq4_kt on 2 busy processors: 370 t/s with 500
 * here, 650 with 2500; on idle ones a node of 2500 ns gains little). */
#define BARRIER_NS 2500.0

struct step {
    const struct node *const *nodes; /* one, or those of a chain */
    const struct op_cell *cell;
    const struct chain_cell *chain; /* NULL = not one */
    bool alone;                     /* thread 0 runs it */
    bool barrier;                   /* all wait before it */
    bool kept;                      /* see struct work */
};

struct cpu {
    struct thread_pool *pool; /* borrowed */
    struct step *steps;
    int n_room;
};

struct cpu_run {
    const struct step *steps;
    int n;
};

static void run_nodes(void *arg, struct work *w) {
    const struct cpu_run *r = arg;
    for (int i = 0; i < r->n; i++) {
        const struct step *s = &r->steps[i];
        if (s->barrier)
            work_barrier(w);
        else if (i > 0)
            work_piece(w);
        w->kept = s->kept;
        if (s->chain) {
            s->chain->run(s->nodes, w);
        } else if (!s->alone) {
            s->cell->run(s->nodes[0], w);
        } else if (w->ith == 0) {
            struct work alone = work_alone(w);
            s->cell->run(s->nodes[0], &alone);
        }
    }
}

/* ---- the plan ------------------------------------------------------------------------------ */

static double attn_products(const struct node *n) {
    const int32_t *pos = n->src[4]->data;
    double cells = 0;
    for (int64_t t = 0; t < n->src[0]->ne[1]; t++)
        cells += pos[t] + 1;
    return cells * (double)(n->p.attn.n_head * (n->p.attn.n_embd_head_k + n->p.attn.n_embd_head_v));
}

/* What one thread needs for a node, roughly: the right power of two is enough. */
static double node_ns(const struct node *n) {
    double n_dst = (double)(n->dst->ne[0] * tensor_rows(n->dst));
    const struct tensor *x = n->src[0];
    double n_src = (double)(x->ne[0] * tensor_rows(x));
    switch (n->op) {
    case OP_mul_mat: { /* in a ns: 15 bytes are read, 20 weights unpacked, 100 pairs multiplied */
        double bytes = (double)tensor_bytes(x) / 15;
        double weights = n_src / 20, products = n_src * (double)tensor_rows(n->src[1]) / 100;
        return fmax(bytes, fmax(weights, products));
    }
    case OP_attn: return attn_products(n) / 20;
    case OP_lse: return n_src / 4;
    case OP_set_rows: return n_src;
    case OP_rope_table: return n_dst * 20;
    default: return n_dst / 2;
    }
}

static bool reads(const struct node *n, const struct tensor *t) {
    for (int i = 0; i < OP_MAX_SRC; i++)
        if (n->src[i] && tensors_overlap(n->src[i], t)) return true;
    return false;
}

static bool uses_shared(const struct step *s) {
    return s->cell->shared_bytes && s->cell->shared_bytes(s->nodes[0]) > 0;
}

/* Whether b must not begin before a is done. Thread 0 runs its own steps in order anyway. */
static bool conflict(const struct step *a, const struct step *b) {
    if (a->alone && b->alone) return false;
    if (a->chain || b->chain) return true; /* they are long */
    const struct node *m = a->nodes[0], *n = b->nodes[0];
    return tensors_overlap(m->dst, n->dst) || reads(n, m->dst) || reads(m, n->dst) ||
           (uses_shared(a) && uses_shared(b) && !b->kept);
}

/* Whether b, the step after a, multiplies the same activations, rounded alike. */
static bool same_acts(enum column c, const struct step *a, const struct step *b) {
    if (a->chain || b->chain || a->alone != b->alone) return false;
    const struct node *m = a->nodes[0], *n = b->nodes[0];
    if (m->op != OP_mul_mat || n->op != OP_mul_mat || m->src[1] != n->src[1]) return false;
    const struct qkernel *k = node_qkernel(c, m, NULL);
    const struct qkernel *l = node_qkernel(c, n, NULL);
    return k && l && k->act == l->act && k->act_group == l->act_group;
}

/* steps [n] with nodes and cell set. */
static void make_plan(enum column c, struct step *steps, int n, int n_threads) {
    double limit = 0;
    for (int t = n_threads; t > 1; t = (t + 1) / 2)
        limit += BARRIER_NS;
    for (int i = 0; i < n; i++)
        steps[i].alone = !steps[i].chain && node_ns(steps[i].nodes[0]) < limit;
    for (int i = 0; i < n; i++) /* one small node between two others costs the same barriers */
        if (steps[i].alone && (i == 0 || !steps[i - 1].alone) &&
            (i + 1 == n || !steps[i + 1].alone))
            steps[i].alone = false;
    for (int i = 1; i < n && !FAULTY(); i++)
        steps[i].kept = same_acts(c, &steps[i - 1], &steps[i]);
    int begin = 0; /* first step since the last barrier */
    for (int i = 0; i < n; i++) {
        steps[i].barrier = i - begin == WORK_PIECES - 1;
        for (int j = i - 1; j >= begin && !steps[i].barrier; j--)
            steps[i].barrier = conflict(&steps[j], &steps[i]);
        if (steps[i].barrier) begin = i;
    }
}

static int reserve_steps(struct cpu *cpu, int n, struct err *e) {
    if (n <= cpu->n_room) return 0;
    struct step *p = heap_realloc(cpu->steps, (size_t)n * sizeof *p, e);
    if (!p) return ERR_NOMEM;
    cpu->steps = p;
    cpu->n_room = n;
    return 0;
}

/* The chain that begins at nodes[i], if no other node reads what is in between. */
static const struct chain_cell *chain_at(enum column c, const struct node *const *nodes, int n,
                                         int i) {
    const struct chain_cell *cell = chain_cell_find(c, nodes + i, n - i);
    for (int j = i; cell && j < i + cell->n_nodes - 1; j++)
        for (int other = i + cell->n_nodes; other < n; other++)
            for (int k = 0; k < OP_MAX_SRC; k++)
                if (nodes[other]->src[k] == nodes[j]->dst) return NULL;
    return cell;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Step s for the node, or the chain, that begins at nodes[0]; returns how many nodes that are. */
static int set_step(struct step *s, enum column col, const struct node *const *nodes,
                    const struct chain_cell *chain, size_t *shared, size_t *scratch,
                    struct err *e) {
    const struct node *n = nodes[0];
    *s = (struct step){ .nodes = nodes, .chain = chain };
    if (chain) {
        *shared = larger(*shared, chain->shared_bytes(nodes));
        *scratch = larger(*scratch, chain->scratch_bytes(nodes));
        return chain->n_nodes;
    }
    s->cell = op_cell_find(col, n, NULL);
    if (!s->cell)
        return ERR(e, ERR_UNSUPPORTED, "%s: no %s cell for op %s", n->dst->name, column_name(col),
                   op_name(n->op));
    if (s->cell->shared_bytes) *shared = larger(*shared, s->cell->shared_bytes(n));
    if (s->cell->scratch_bytes) *scratch = larger(*scratch, s->cell->scratch_bytes(n));
    return 1;
}

static int cpu_run(struct backend *b, const struct node *const *nodes, int n, int n_threads,
                   bool whole, uint64_t key, struct err *e) {
    int rc = 0, n_steps = 0;
    (void)key;
    struct cpu *cpu = b->impl;
    size_t shared = 0, scratch = 0;
    const bool chains = whole && !FAULTY(); /* a fault is in a node's own cell */
    TRY(reserve_steps(cpu, n, e));
    for (int i = 0; i < n; i += rc) {
        const struct chain_cell *chain = chains ? chain_at(b->col, nodes, n, i) : NULL;
        rc = set_step(&cpu->steps[n_steps++], b->col, nodes + i, chain, &shared, &scratch, e);
        if (rc < 0) goto out;
    }
    TRY(thread_pool_reserve(cpu->pool, shared, scratch, e));
    make_plan(b->col, cpu->steps, n_steps, n_threads);
    bool all_alone = true;
    for (int i = 0; i < n_steps; i++)
        all_alone &= cpu->steps[i].alone;
    struct cpu_run r = { cpu->steps, n_steps };
    thread_pool_run(cpu->pool, all_alone ? 1 : n_threads, run_nodes, &r);
    rc = 0;
out:
    return rc;
}

static void cpu_release(struct backend *b) {
    struct cpu *cpu = b->impl;
    heap_free(cpu->steps);
    heap_free(cpu);
    b->impl = NULL;
}

static int cpu_mirror(struct backend *b, const void *p, size_t n_bytes, const char *what,
                      struct err *e) {
    (void)b, (void)p, (void)n_bytes, (void)what, (void)e;
    return 0;
}

static void cpu_unmirror(struct backend *b, const void *p) {
    (void)b, (void)p;
}

static int cpu_push(struct backend *b, const void *p, size_t n_bytes, struct err *e) {
    (void)b, (void)p, (void)n_bytes, (void)e;
    return 0;
}

static int cpu_pull(struct backend *b, void *p, size_t n_bytes, struct err *e) {
    (void)b, (void)p, (void)n_bytes, (void)e;
    return 0;
}

static int cpu_pull_end(struct backend *b, const void *p, struct err *e) {
    (void)b, (void)p, (void)e;
    return 0;
}

static int cpu_synchronize(struct backend *b, struct err *e) {
    (void)b, (void)e;
    return 0;
}

static bool cpu_supports(const struct backend *b, const struct node *n) {
    return op_cell_find(b->col, n, NULL) != NULL;
}

static const struct backend_ops cpu_ops = {
    .release = cpu_release,
    .mirror = cpu_mirror,
    .exchange = cpu_mirror,
    .unmirror = cpu_unmirror,
    .push = cpu_push,
    .pull = cpu_pull,
    .pull_begin = cpu_pull,
    .pull_end = cpu_pull_end,
    .synchronize = cpu_synchronize,
    .supports = cpu_supports,
    .run = cpu_run,
};

int backend_cpu_init(struct backend *b, enum column c, struct thread_pool *pool, struct err *e) {
    int rc = 0;
    memset(b, 0, sizeof *b);
    FAIL_IF(!column_is_cpu(c), e, ERR_ARG, "%s is not a CPU column", column_name(c));
    FAIL_IF(!column_available(c), e, ERR_UNSUPPORTED,
            "this machine or build cannot run the column %s, which needs %s", column_name(c),
            column_needs(c));
    struct cpu *cpu = heap_calloc(1, sizeof *cpu, e);
    if (!cpu) return ERR_NOMEM;
    cpu->pool = pool;
    *b = (struct backend){ .ops = &cpu_ops, .col = c, .impl = cpu };
out:
    return rc;
}
