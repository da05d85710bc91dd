/* SPDX-License-Identifier: MIT
 * fuse.cu - finds nodes that one launch computes; see fuse.cuh.
 *
 *   sum       mul_mat, add                      the residual
 *   products  mul_mat, mul_mat (, mul_mat)      q k v
 *   glu       mul_mat, mul_mat, swiglu          gate and up; of many tokens, these three of a
 *                                               trellis alone
 *   norm      (add,) rms_norm                   with its result quantised for the product behind it
 *   attn      attn                              likewise, for few tokens
 *   heads     (rms_norm, rms_norm,) rope, rope, set_rows, set_rows
 *                                               between products and attention
 *
 * A launch writes while it still reads. So what one node writes must not lie where another one
 * reads, unless every element is read by the thread that writes there. */
#include "cuda/fuse.cuh"

static bool same_rows(const struct tensor *a, const struct tensor *b) {
    return a->data == b->data && a->row_bytes == b->row_bytes && tensor_rows(a) == tensor_rows(b);
}

/* Whether n is a product with the rows of x as integers. */
static bool wants_acts(const struct node *n, const struct tensor *x) {
    return n->op == OP_mul_mat && n->src[1] == x &&
           mul_cell((enum qtype)n->src[0]->type)->needs_acts && !mul_wants_halves(n);
}

/* ---- norm -------------------------------------------------------------------------------------
 */

static int run_norm(struct cuda_device *d, const struct fusion *f, struct err *e) {
    const bool sum = f->n_nodes == 2;
    return norm_rows(d, sum ? f->nodes[0] : NULL, f->nodes[sum ? 1 : 0], f->acts, e);
}

static struct fusion find_norm(const struct node *const *nodes, int n) {
    const struct node *add = nodes[0]->op == OP_add ? nodes[0] : NULL;
    const int at = add ? 1 : 0;
    if (at >= n || nodes[at]->op != OP_rms_norm) return { 1, NULL, nodes, false };
    const struct node *norm = nodes[at];
    const bool acts = at + 1 < n && wants_acts(nodes[at + 1], norm->dst);
    bool can = !norms_heads(norm) && (add || acts);
    if (add) {
        can = can && norm->src[0] == add->dst && tensor_rows(norm->dst) == tensor_rows(add->dst);
        /* a row is read before the same block writes one, but other rows may not have been */
        for (int i = 0; i < 2 && tensor_rows(norm->dst) > 1; i++)
            can = can &&
                  (!tensors_overlap(norm->dst, add->src[i]) || same_rows(norm->dst, add->src[i]));
    }
    if (!can) return { 1, NULL, nodes, false };
    return { at + 1, run_norm, nodes, acts };
}

/* ---- products of few tokens --------------------------------------------------------------------
 * A seeded fault stands behind each of them (mul_faults), so faulty ones stay alone. */

static int run_few(struct cuda_device *d, const struct fusion *f, struct err *e) {
    int rc = 0;
    const struct node *last = f->nodes[f->n_nodes - 1];
    struct few_job job = {};
    struct dtensor out, add;
    for (int i = 0; i < f->n_nodes && f->nodes[i]->op == OP_mul_mat; i++)
        TRY(mul_job_of(d, f->nodes[i], &job.m[job.n++], e));
    if (last->op != OP_mul_mat) {
        out = device_tensor(d, last->dst);
        job.out = &out;
    }
    if (last->op == OP_add) {
        add = device_tensor(d, last->src[last->src[0] == f->nodes[0]->dst ? 1 : 0]);
        job.add = &add;
    }
    TRY(mul_cell(job.m[0].w.type)->run_few(d, &job, e));
out:
    return rc;
}

static bool is_joint(const struct node *n) {
    return n->op == OP_mul_mat && mul_cell((enum qtype)n->src[0]->type)->run_few &&
           !FAULTY() &&
           (mul_wants_halves(n) ||
            (node_tokens(n) <= FEW_TOKENS && tensor_rows(n->src[1]) <= FEW_TOKENS));
}

/* Whether n is a product like `first`, of the same rows. */
static bool is_like(const struct node *n, const struct node *first) {
    return is_joint(n) && n->src[1] == first->src[1] && n->src[0]->type == first->src[0]->type;
}

static bool is_glu(const struct node *n, const struct node *gate, const struct node *up) {
    return n->op == OP_swiglu && n->src[0] == gate->dst && n->src[1] == up->dst;
}

/* Whether n adds a tensor to all rows of y, which may be its only one. */
static bool is_sum(const struct node *n, const struct tensor *y) {
    return n->op == OP_add && (n->src[0] == y) != (n->src[1] == y) &&
           tensor_rows(n->dst) == tensor_rows(y);
}

static struct fusion find_few(const struct node *const *nodes, int n) {
    int k = 1;
    while (k < n && k < FEW_MATRICES && is_like(nodes[k], nodes[0]) &&
           !tensors_overlap(nodes[k]->dst, nodes[0]->dst) &&
           !tensors_overlap(nodes[k]->dst, nodes[k - 1]->dst))
        k++;
    if (k == 1 && n > 1 && is_sum(nodes[1], nodes[0]->dst)) k = 2;
    if (k == 2 && n > 2 && is_glu(nodes[2], nodes[0], nodes[1]) &&
        !tensors_overlap(nodes[2]->dst, nodes[0]->dst) &&
        !tensors_overlap(nodes[2]->dst, nodes[1]->dst))
        k = 3;
    return { k, k > 1 ? run_few : NULL, nodes, false };
}

/* ---- attention --------------------------------------------------------------------------------
 */

static int run_attn(struct cuda_device *d, const struct fusion *f, struct err *e) {
    return attn_run(d, f->nodes[0], f->acts, e);
}

static struct fusion find_attn(const struct node *const *nodes, int n) {
    const bool acts = n > 1 && wants_acts(nodes[1], nodes[0]->dst) && attn_makes_acts(nodes[0]);
    return { 1, acts ? run_attn : NULL, nodes, acts };
}

/* ---- heads of q, k and v -----------------------------------------------------------------------
 */

#define HEADS_NODES 6

static int run_heads(struct cuda_device *d, const struct fusion *f, struct err *e) {
    return heads_run(d, f->nodes, f->n_nodes, e);
}

static bool is_op(const struct node *n, enum op op, const struct tensor *src) {
    return n->op == op && (!src || n->src[0] == src);
}

/* Heads of a row that is stored are not cut. */
static bool stores(const struct node *n, int64_t hd) {
    return n->dst->type != QT_q8_0 || hd % 32 == 0;
}

/* Norms of q and k (perhaps), their rotations, k and v into the cache. */
static struct fusion find_heads(const struct node *const *nodes, int n) {
    const struct fusion none = { 1, NULL, nodes, false };
    const int norms = nodes[0]->op == OP_rms_norm ? 2 : 0, m = norms + 4;
    if (n < m) return none;
    const struct node *const *turn = nodes + norms, *const *store = turn + 2;
    const int64_t hd = turn[0]->p.rope.n_embd_head;
    for (int i = 0; i < 2; i++) {
        if (!is_op(turn[i], OP_rope, norms ? nodes[i]->dst : NULL) ||
            !is_op(store[i], OP_set_rows, i == 0 ? turn[1]->dst : NULL) ||
            (norms && !(is_op(nodes[i], OP_rms_norm, NULL) && nodes[i]->p.rms_norm.n == hd)))
            return none;
        if (turn[i]->src[1] != turn[0]->src[1] || turn[i]->p.rope.n_embd_head != hd ||
            turn[i]->p.rope.n_rot != turn[0]->p.rope.n_rot ||
            turn[i]->p.rope.mode != turn[0]->p.rope.mode ||
            tensor_rows(store[i]->src[0]) != tensor_rows(turn[0]->dst) || !stores(store[i], hd))
            return none;
    }
    /* a head's steps do not wait for those of another: nothing may lie where something else was */
    const struct tensor *all[2 * HEADS_NODES];
    int n_all = 0;
    for (int i = 0; i < m; i++) {
        if (nodes[i]->op != OP_set_rows) all[n_all++] = nodes[i]->dst;
        if (nodes[i]->op == OP_set_rows ? i == m - 1 : i < 2) all[n_all++] = nodes[i]->src[0];
    }
    for (int i = 0; i < n_all; i++)
        for (int k = 0; k < i; k++)
            if (tensors_overlap(all[i], all[k])) return none;
    return { m, run_heads, nodes, false };
}

struct fusion fuse_find(const struct node *const *nodes, int n) {
    if (nodes[0]->op == OP_rope || norms_heads(nodes[0])) return find_heads(nodes, n);
    switch (nodes[0]->op) {
    case OP_add:
    case OP_rms_norm: return find_norm(nodes, n);
    case OP_mul_mat:
        if (is_joint(nodes[0])) return find_few(nodes, n);
        break;
    case OP_attn: return find_attn(nodes, n);
    default: break;
    }
    return { 1, NULL, nodes, false };
}
