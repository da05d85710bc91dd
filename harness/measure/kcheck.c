/* SPDX-License-Identifier: MIT
 * kcheck.c - loading, checking and running one cell; see kcheck.h. The shapes of the ops are in
 * kcheck_ops.c. */
#include "measure/kcheck.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "measure/kcheck_impl.h"
#include "measure/random_row.h"

#define SAMPLE_ROWS 33  /* rows of weights that ref multiplies with */
#define SAMPLE_TOK 9    /* tokens that ref computes of any other op */
#define SHORT_CALL 4096 /* copies of a node at most */
#define DEQUANT_ROWS 4  /* rows of a chunk */

/* ---- memory and data ------------------------------------------------------------------------- */

void *kcheck_block(struct kcheck *k, size_t n_bytes, struct err *e) {
    if (k->n_blocks == KCHECK_BLOCKS) {
        ERR(e, ERR_UNSUPPORTED, "a case of more than %d blocks", KCHECK_BLOCKS);
        return NULL;
    }
    void *p = heap_alloc(n_bytes, e);
    if (p) k->blocks[k->n_blocks++] = p;
    return p;
}

struct tensor *kcheck_tensor(struct kcheck *k, enum qtype type, int64_t n_rows, int64_t n,
                             struct err *e) {
    if (n % qtype_info(type)->n_blk) {
        ERR(e, ERR_UNSUPPORTED, "rows of %lld are not a multiple of %d (%s)", (long long)n,
            qtype_info(type)->n_blk, qtype_info(type)->name);
        return NULL;
    }
    struct tensor *t = kcheck_block(k, sizeof *t, e);
    if (!t) return NULL;
    *t = (struct tensor){ .type = type, .ne = { n, n_rows, 1, 1 }, .name = "x" };
    t->row_bytes = qtype_row_bytes(type, n);
    t->data = kcheck_block(k, t->row_bytes * (size_t)n_rows, e);
    return t->data ? t : NULL;
}

/* Weights of the type, some of them: a hundred different rows are as good as a million. */
static int fill_rows(struct kcheck *k, struct tensor *t, struct err *e) {
    int rc = 0;
    const enum qtype type = (enum qtype)t->type;
    const struct qkernel *q = qkernel_find(COL_ref, type, false, NULL);
    const int64_t n = t->ne[0], n_new = t->ne[1] < 128 ? t->ne[1] : 128;
    double unit = 1;
    float *row = heap_alloc((size_t)n * sizeof *row, e);
    if (!row) return ERR_NOMEM;
    FAIL_IF(!random_row_has(type) && !(q && q->quantize_row), e, ERR_UNSUPPORTED,
            "no way to make rows of %s", qtype_info(type)->name);
    if (random_row_has(type)) TRY(random_row_unit(type, &unit, e));
    for (int64_t r = 0; r < n_new; r++) {
        if (random_row_has(type)) {
            random_row(type, &k->rng, n, 1 / unit, tensor_row(t, r));
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)rng_normal(&k->rng);
        q->quantize_row(row, tensor_row(t, r), n, NULL);
    }
    for (int64_t r = n_new; r < t->ne[1]; r++)
        memcpy(tensor_row(t, r), tensor_row(t, r % n_new), t->row_bytes);
out:
    heap_free(row);
    return rc;
}

struct tensor *kcheck_random(struct kcheck *k, enum qtype type, int64_t n_rows, int64_t n,
                             struct err *e) {
    struct tensor *t = kcheck_tensor(k, type, n_rows, n, e);
    if (t && fill_rows(k, t, e) < 0) return NULL;
    return t;
}

struct tensor *kcheck_ints(struct kcheck *k, int64_t n, int32_t first, int32_t step,
                           struct err *e) {
    struct tensor *t = kcheck_tensor(k, QT_i32, 1, n, e);
    for (int64_t i = 0; t && i < n; i++)
        ((int32_t *)t->data)[i] = first + step * (int32_t)i;
    return t;
}

/* ---- copies of what is cold -------------------------------------------------------------------
 */

static size_t data_bytes(const struct tensor *t) {
    return t->row_bytes * (size_t)t->ne[1];
}

static size_t align64(size_t n) {
    return (n + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

static size_t cold_packed_bytes(const struct kcheck *k) {
    return k->packed.cell ? packed_bytes(&k->packed, k->node.src[0]->ne[1]) : 0;
}

/* One node for each copy of its cold sources that fits, at least the original. */
static int make_copies(struct kcheck *k, struct err *e) {
    int rc = 0;
    size_t one = cold_packed_bytes(k), at = 0;
    for (int i = 0; i < OP_MAX_SRC; i++)
        if (k->cold_mask >> i & 1) one += align64(data_bytes(k->node.src[i]));
    k->n_copies = one ? (int64_t)(k->p.cold_bytes / one) : 1;
    if (k->n_copies > SHORT_CALL) k->n_copies = SHORT_CALL;
    const bool in_place = k->n_copies < 1; /* larger than the whole block: it is cold by itself */
    if (in_place) k->n_copies = 1;
    k->nodes = kcheck_block(k, (size_t)k->n_copies * sizeof *k->nodes, e);
    k->order = kcheck_block(k, (size_t)k->n_copies * sizeof *k->order, e);
    struct tensor *t = kcheck_block(k, (size_t)k->n_copies * OP_MAX_SRC * sizeof *t, e);
    struct packed *p = kcheck_block(k, (size_t)k->n_copies * sizeof *p, e);
    FAIL_IF(!k->nodes || !k->order || !t || !p, e, ERR_NOMEM, "no memory for %lld copies of a node",
            (long long)k->n_copies);
    for (int64_t c = 0; c < k->n_copies; c++) {
        k->nodes[c] = k->node;
        k->order[c] = &k->nodes[c];
        for (int i = 0; i < OP_MAX_SRC; i++) {
            if (!(k->cold_mask >> i & 1) || in_place) continue;
            const struct tensor *src = k->node.src[i];
            struct tensor *copy = &t[c * OP_MAX_SRC + i];
            *copy = *src;
            copy->data = (char *)k->p.cold + at;
            memcpy(copy->data, src->data, data_bytes(src));
            at += align64(data_bytes(src));
            k->nodes[c].src[i] = copy;
        }
        if (!k->packed.cell || in_place) continue;
        p[c] = k->packed;
        p[c].data = (char *)k->p.cold + at;
        memcpy(p[c].data, k->packed.data, cold_packed_bytes(k));
        at += cold_packed_bytes(k);
        k->nodes[c].packed = &p[c];
    }
    k->copy_bytes = (double)one;
out:
    return rc;
}

/* ---- devices ----------------------------------------------------------------------------------
 */

/* Operands get images, so that a call times the kernel and no copy. */
static int mirror_node(struct kcheck *k, const struct node *n, struct err *e) {
    int rc = 0;
    for (int i = 0; i <= OP_MAX_SRC; i++) {
        const struct tensor *t = i < OP_MAX_SRC ? n->src[i] : n->dst;
        struct err have;
        if (!t || k->b.ops->push(&k->b, t->data, data_bytes(t), &have) == 0) continue;
        TRY(k->b.ops->mirror(&k->b, t->data, data_bytes(t), t->name, e));
        TRY(k->b.ops->push(&k->b, t->data, data_bytes(t), e));
    }
out:
    return rc;
}

static int mirror_all(struct kcheck *k, struct err *e) {
    static uint64_t n_cases;
    int rc = 0;
    if (column_is_cpu(k->c.col)) return 0;
    k->key = ++n_cases << 26;
    const size_t cold = (size_t)k->copy_bytes * (size_t)k->n_copies;
    if (cold > 0 && cold <= k->p.cold_bytes) /* one range; mirror_node fills it */
        TRY(k->b.ops->mirror(&k->b, k->p.cold, cold, "copies of weights", e));
    for (int64_t i = 0; i < k->n_copies; i++)
        TRY(mirror_node(k, &k->nodes[i], e));
out:
    return rc;
}

/* ---- loading ----------------------------------------------------------------------------------
 */

static int load_mul_mat(struct kcheck *k, struct err *e) {
    const struct kshape *s = &k->p.shape;
    const struct qkernel *q = qkernel_find(k->c.col, k->c.type, true, NULL);
    if (q && q->row_multiple && s->n % q->row_multiple)
        return ERR(e, ERR_UNSUPPORTED,
                   "rows of %lld are not a multiple of %lld, so the cell leaves them "
                   "to another column",
                   (long long)s->n, (long long)q->row_multiple);
    k->n_tok = k->c.n_tok;
    k->node.op = OP_mul_mat;
    k->node.src[0] = kcheck_random(k, k->c.type, s->n_rows, s->n, e);
    k->node.src[1] = k->node.src[0] ? kcheck_random(k, QT_f32, k->n_tok, s->n, e) : NULL;
    k->node.dst = k->node.src[1] ? kcheck_tensor(k, QT_f32, k->n_tok, s->n_rows, e) : NULL;
    k->node.p.mul_mat.act = QT_f32;
    k->cold_mask = 1;
    k->macs = (double)k->n_tok * (double)s->n * (double)s->n_rows;
    return k->node.dst ? 0 : e->code;
}

static int load_packed(struct kcheck *k, struct err *e) {
    int rc = 0;
    TRY(load_mul_mat(k, e));
    const struct tensor *w = k->node.src[0];
    const struct qkernel *q = qkernel_for(k->c.col, k->c.type, w->ne[0], 1, NULL);
    k->packed = (struct packed){ .cell = q, .row_bytes = q->pack_row_bytes(w->ne[0]) };
    k->packed.data = kcheck_block(k, packed_bytes(&k->packed, w->ne[1]), e);
    if (!k->packed.data) return ERR_NOMEM;
    q->pack(w->ne[0], w->data, w->row_bytes, w->ne[1], k->packed.data);
    k->node.packed = &k->packed;
    k->cold_mask = 0;
out:
    return rc;
}

/* Rows of weights, or of f32, and where the results go. */
static int load_rows(struct kcheck *k, struct err *e) {
    const struct kshape *s = &k->p.shape;
    const bool dequant = k->c.kind == KCASE_DEQUANT;
    const enum qtype from = dequant ? k->c.type : QT_f32, to = dequant ? QT_f32 : k->c.type;
    /* A dequantised row is used at once: one row for each thread, so that nothing is written back
     * to memory. */
    const int64_t n_rows = dequant ? s->n_rows : 512, n_out = dequant ? k->p.n_threads : n_rows;
    k->n_tok = 0;
    k->node.src[0] = kcheck_random(k, from, n_rows, s->n, e);
    k->node.dst = k->node.src[0] ? kcheck_tensor(k, to, n_out, s->n, e) : NULL;
    k->cold_mask = dequant;
    return k->node.dst ? 0 : e->code;
}

int kcheck_new(struct kcheck **out, const struct kcheck_params *p, const struct kcase *c,
               struct err *e) {
    int rc = 0;
    *out = NULL;
    struct kcheck *k = heap_calloc(1, sizeof *k, e);
    if (!k) return ERR_NOMEM;
    k->p = *p;
    k->c = *c;
    k->rng = (struct rng){ p->seed };
    if (c->kind == KCASE_MUL_MAT)
        TRY(load_mul_mat(k, e));
    else if (c->kind == KCASE_PACKED)
        TRY(load_packed(k, e));
    else if (c->kind == KCASE_OP)
        TRY(kcheck_load_op(k, e));
    else
        TRY(load_rows(k, e));
    TRY(make_copies(k, e));
    if (kcase_is_product(c) || c->kind == KCASE_OP) {
        TRY(backend_init(&k->b, c->col, p->pool, e));
        TRY(mirror_all(k, e));
    }
    *out = k;
    k = NULL;
out:
    kcheck_free(k);
    return rc;
}

void kcheck_free(struct kcheck *k) {
    if (!k) return;
    backend_release(&k->b);
    for (int i = 0; i < k->n_blocks; i++)
        heap_free(k->blocks[i]);
    heap_free(k);
}

/* ---- running ----------------------------------------------------------------------------------
 */

struct row_job {
    const struct kcheck *k;
    const struct tensor *src;
    bool one_row; /* the result of every row goes to the thread's own */
};

static void run_rows(void *arg, struct work *w) {
    const struct row_job *j = arg;
    const struct qkernel *q = qkernel_find(j->k->c.col, j->k->c.type, false, NULL);
    const int64_t n = j->src->ne[0], n_rows = j->src->ne[1];
    for (int64_t c; (c = DEQUANT_ROWS * work_next(w)) < n_rows;)
        for (int64_t r = c; r < n_rows && r < c + DEQUANT_ROWS; r++) {
            void *out = tensor_row(j->k->node.dst, j->one_row ? w->ith : r);
            if (j->k->c.kind == KCASE_DEQUANT)
                q->dequant_row(tensor_row(j->src, r), out, n);
            else
                q->quantize_row(tensor_row(j->src, r), out, n, NULL);
        }
}

static int call_on(struct kcheck *k, int64_t calls, int n_threads, struct err *e) {
    int rc = 0;
    while (calls > 0) {
        int64_t n = k->n_copies - k->next < calls ? k->n_copies - k->next : calls;
        if (k->b.ops) {
            const uint64_t key = k->key ? k->key + ((uint64_t)k->next << 13) + (uint64_t)n : 0;
            TRY(k->b.ops->run(&k->b, k->order + k->next, (int)n, n_threads, false, key, e));
            TRY(k->b.ops->synchronize(&k->b, e));
        } else {
            n = 1;
            struct row_job j = { k, k->nodes[k->next].src[0], k->c.kind == KCASE_DEQUANT };
            thread_pool_run(k->p.pool, n_threads, run_rows, &j);
        }
        k->next = (k->next + n) % k->n_copies;
        calls -= n;
    }
out:
    return rc;
}

int kcheck_call(struct kcheck *k, int64_t calls, struct err *e) {
    return call_on(k, calls, k->p.n_threads, e);
}

/* By the type of the activations, and what has none by the cache's. A card's tensor cores take
 * floats of 16 bits, which caches of bytes become and activations are split into, but not binary32:
 * the roof of few tokens is theirs, too, and memory is nearer. Cells that round many tokens to them
 * (tol_nmse_many) multiply there. */
static enum peak peak_of(const struct kcheck *k) {
    const enum peak floats = k->c.col == COL_cuda && k->c.type != QT_f32 ? PEAK_bf16 : PEAK_f32;
    if (kcase_is_product(&k->c)) {
        const struct qkernel *q = qkernel_find(k->c.col, k->c.type, true, NULL);
        const enum qtype act = q ? q->act : QT_f32;
        if (q && q->tol_nmse_many > 0 && k->n_tok > DEVICE_FEW_TOKENS) return PEAK_bf16;
        return act == QT_f32 ? floats : act == QT_bf16 ? PEAK_bf16 : PEAK_i8;
    }
    return k->c.col == COL_amx ? PEAK_bf16 : floats;
}

/* Bytes of a source or, as number OP_MAX_SRC, of the result that a call touches. */
static double touched(const struct kcheck *k, int i) {
    const struct tensor *t = i < OP_MAX_SRC ? k->node.src[i] : k->node.dst;
    if (!t) return 0;
    const int64_t rows = k->sparse_mask >> i & 1 ? k->n_tok : t->ne[1];
    return (double)t->row_bytes * (double)rows;
}

void kcheck_work(const struct kcheck *k, struct kwork *w) {
    *w = (struct kwork){ .n_tok = (int)k->n_tok, .macs = k->macs, .n_copies = k->n_copies };
    w->cold_bytes = k->copy_bytes;
    for (int i = 0; i <= OP_MAX_SRC && k->copy_bytes <= 0; i++)
        w->warm_bytes += touched(k, i);
    w->footprint = k->copy_bytes > 0 ? k->copy_bytes * (double)k->n_copies : w->warm_bytes;
    w->peak = peak_of(k);
}

/* ---- checking ---------------------------------------------------------------------------------
 */

double kcheck_nmse(const double *got, const double *want, int64_t n_rows, int64_t n) {
    double all = 0, worst = 0;
    int64_t n_finite = 0;
    for (int64_t i = 0; i < n_rows * n; i++)
        if (isfinite(want[i])) all += want[i] * want[i], n_finite++;
    all = n_finite ? all / (double)n_finite : 0;
    for (int64_t r = 0; r < n_rows; r++) {
        double err = 0, own = 0;
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            if (!isfinite(want[i]) || !isfinite(got[i])) {
                const bool same = isnan(want[i]) ? isnan(got[i]) : want[i] == got[i];
                if (!same) return INFINITY;
                continue;
            }
            err += (got[i] - want[i]) * (got[i] - want[i]);
            own += want[i] * want[i];
        }
        const double scale = fmax(own, all * (double)n);
        if (err > 0) worst = fmax(worst, scale > 0 ? err / scale : INFINITY);
    }
    return worst;
}

/* Row r of t as double, with the columns of a log-sum-exp made comparable: the index of the maximum
 * is right or not, its size says nothing. */
static void load_row(const struct kcheck *k, const struct tensor *t, int64_t r, float *f32,
                     double *out, const struct tensor *other, int64_t other_r) {
    const int64_t n = t->ne[0];
    if (t->type == QT_f64) {
        const double *d = tensor_row(t, r), *o = tensor_row(other, other_r);
        memcpy(out, d, (size_t)n * sizeof *out);
        if (k->node.op == OP_lse) out[2] = d[2] == o[2] ? 0 : d[0] + 1;
        return;
    }
    qkernel_find(COL_ref, (enum qtype)t->type, false, NULL)->dequant_row(tensor_row(t, r), f32, n);
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)f32[i];
}

/* Compare rows of what was computed with rows 0.. of `want`; cols [n_cols] chooses elements, NULL
 * takes all. */
static int compare(struct kcheck *k, const struct tensor *got, const int64_t *rows, int64_t n_rows,
                   const int64_t *cols, int64_t n_cols, const struct tensor *want,
                   struct kresult *res, struct err *e) {
    int rc = 0;
    const int64_t n = got->ne[0], m = cols ? n_cols : n;
    float *f32 = heap_alloc((size_t)n * sizeof *f32, e);
    double *row = heap_alloc((size_t)n * sizeof *row, e);
    double *a = heap_alloc((size_t)(n_rows * m) * sizeof *a, e);
    double *b = heap_alloc((size_t)(n_rows * m) * sizeof *b, e);
    FAIL_IF(!f32 || !row || !a || !b, e, ERR_NOMEM, "no memory to compare %lld rows",
            (long long)n_rows);
    for (int64_t r = 0; r < n_rows; r++) {
        const int64_t from = rows ? rows[r] : r;
        load_row(k, got, from, f32, row, want, r);
        for (int64_t i = 0; i < m; i++)
            a[r * m + i] = row[cols ? cols[i] : i];
        load_row(k, want, r, f32, b + r * m, got, from);
    }
    res->nmse = kcheck_nmse(a, b, n_rows, m);
out:
    heap_free(f32);
    heap_free(row);
    heap_free(a);
    heap_free(b);
    return rc;
}

static int run_ref(struct kcheck *k, const struct node *n, struct err *e) {
    int rc = 0;
    struct backend ref = { 0 };
    TRY(backend_cpu_init(&ref, COL_ref, k->p.pool, e));
    TRY(ref.ops->run(&ref, &n, 1, k->p.n_threads, false, 0, e));
    TRY(ref.ops->synchronize(&ref, e));
out:
    backend_release(&ref);
    return rc;
}

/* n_want numbers of 0..n-1, the first and the last among them. */
static int64_t sample(int64_t n, int64_t n_want, int64_t *out) {
    if (n < n_want) n_want = n;
    for (int64_t i = 0; i < n_want; i++)
        out[i] = n_want == 1 ? 0 : i * (n - 1) / (n_want - 1);
    return n_want;
}

/* Some rows of t, or some elements if it is one row of numbers. */
static struct tensor *gather(struct kcheck *k, const struct tensor *t, const int64_t *at, int64_t n,
                             struct err *e) {
    const bool ints = t->type == QT_i32;
    struct tensor *s = kcheck_tensor(k, (enum qtype)t->type, ints ? 1 : n, ints ? n : t->ne[0], e);
    for (int64_t i = 0; s && i < n; i++) {
        if (ints)
            ((int32_t *)s->data)[i] = ((const int32_t *)t->data)[at[i]];
        else
            memcpy(tensor_row(s, i), tensor_row(t, at[i]), t->row_bytes);
    }
    return s;
}

static int check_mul_mat(struct kcheck *k, struct kresult *r, struct err *e) {
    int rc = 0;
    int64_t rows[SAMPLE_ROWS], n = sample(k->p.shape.n_rows, SAMPLE_ROWS, rows);
    struct node ref = k->node;
    const struct qkernel *q = qkernel_find(k->c.col, k->c.type, true, NULL);
    ref.src[0] = gather(k, k->node.src[0], rows, n, e);
    ref.dst = ref.src[0] ? kcheck_tensor(k, QT_f32, k->n_tok, n, e) : NULL;
    TRY(ref.dst ? 0 : e->code);
    ref.p.mul_mat.act = q ? q->act : QT_f32;
    ref.p.mul_mat.weights_for = ref.p.mul_mat.act;
    TRY(run_ref(k, &ref, e));
    TRY(compare(k, k->node.dst, NULL, k->n_tok, rows, n, ref.dst, r, e));
    r->limit = q ? qkernel_promise(q, k->n_tok) : 0;
out:
    return rc;
}

static int check_op(struct kcheck *k, struct kresult *r, struct err *e) {
    int rc = 0;
    int64_t tok[SAMPLE_TOK], n = sample(k->n_tok, SAMPLE_TOK, tok);
    struct node ref = k->node;
    const struct tensor *dst = k->node.dst;
    /* The rows of dst are not tokens where they are cells of a cache: all are computed. */
    const bool all = k->token_mask == 0;
    if (all) n = dst->ne[1];
    for (int i = 0; i < OP_MAX_SRC; i++)
        if (k->token_mask >> i & 1) {
            ref.src[i] = gather(k, k->node.src[i], tok, n, e);
            TRY(ref.src[i] ? 0 : e->code);
        }
    ref.dst = kcheck_tensor(k, (enum qtype)dst->type, n, dst->ne[0], e);
    TRY(ref.dst ? 0 : e->code);
    memset(ref.dst->data, 0, data_bytes(ref.dst));
    TRY(run_ref(k, &ref, e));
    TRY(compare(k, dst, all ? NULL : tok, n, NULL, 0, ref.dst, r, e));
    r->limit = kcheck_op_limit(k->c.op, k->c.col, k->c.type, k->n_tok);
out:
    return rc;
}

/* Rows one by one against ref's: dequantised floats within a rounding, quants bit for bit. */
static int check_rows(struct kcheck *k, struct kresult *r, struct err *e) {
    int rc = 0;
    const struct tensor *src = k->node.src[0];
    const struct qkernel *q = qkernel_find(k->c.col, k->c.type, false, NULL);
    const struct qkernel *ref = qkernel_find(COL_ref, k->c.type, false, NULL);
    const bool dequant = k->c.kind == KCASE_DEQUANT;
    const int64_t n = src->ne[0];
    double *v = kcheck_block(k, 2 * (size_t)n * sizeof *v, e);
    struct tensor *a = kcheck_tensor(k, (enum qtype)k->node.dst->type, 1, n, e);
    struct tensor *b = kcheck_tensor(k, (enum qtype)k->node.dst->type, 1, n, e);
    FAIL_IF(!v || !a || !b, e, ERR_NOMEM, "no memory to check a row");
    r->limit = dequant ? 1e-14 : 0;
    for (int64_t row = 0; row < src->ne[1] && row < 128; row++) {
        if (!dequant) {
            q->quantize_row(tensor_row(src, row), a->data, n, NULL);
            ref->quantize_row(tensor_row(src, row), b->data, n, NULL);
            if (memcmp(a->data, b->data, a->row_bytes) == 0) continue;
            r->nmse = INFINITY;
            snprintf(r->why, sizeof r->why, "row %lld has other bytes than ref's", (long long)row);
            return 0;
        }
        q->dequant_row(tensor_row(src, row), a->data, n);
        ref->dequant_row(tensor_row(src, row), b->data, n);
        for (int64_t i = 0; i < n; i++) {
            v[i] = (double)((const float *)a->data)[i];
            v[n + i] = (double)((const float *)b->data)[i];
        }
        r->nmse = fmax(r->nmse, kcheck_nmse(v, v + n, 1, n));
    }
out:
    return rc;
}

/* The call on n_threads threads, whose bits one thread must give, too. */
static int compute(struct kcheck *k, struct kresult *r, struct err *e) {
    int rc = 0;
    const size_t n_bytes = data_bytes(k->node.dst);
    k->next = 0;
    memset(k->node.dst->data, 0, n_bytes);
    TRY(k->b.ops->push(&k->b, k->node.dst->data, n_bytes, e));
    TRY(call_on(k, 1, 1, e));
    TRY(k->b.ops->pull(&k->b, k->node.dst->data, n_bytes, e));
    if (k->p.n_threads == 1) goto out;
    void *one = kcheck_block(k, n_bytes, e);
    TRY(one ? 0 : ERR_NOMEM);
    memcpy(one, k->node.dst->data, n_bytes);
    memset(k->node.dst->data, 0, n_bytes);
    k->next = 0;
    TRY(k->b.ops->push(&k->b, k->node.dst->data, n_bytes, e));
    TRY(call_on(k, 1, k->p.n_threads, e));
    TRY(k->b.ops->pull(&k->b, k->node.dst->data, n_bytes, e));
    if (memcmp(one, k->node.dst->data, n_bytes) != 0)
        snprintf(r->why, sizeof r->why, "1 and %d threads give different bits", k->p.n_threads);
out:
    return rc;
}

int kcheck_run(struct kcheck *k, struct kresult *r, struct err *e) {
    int rc = 0;
    *r = (struct kresult){ 0 };
    if (k->b.ops) {
        TRY(compute(k, r, e));
        TRY(kcase_is_product(&k->c) ? check_mul_mat(k, r, e) : check_op(k, r, e));
    } else {
        TRY(check_rows(k, r, e));
    }
    r->limit *= k->p.tolerance;
    if (!r->why[0] && !(r->nmse <= r->limit))
        snprintf(r->why, sizeof r->why, "NMSE %.3g, promised %.3g", r->nmse, r->limit);
    r->passed = !r->why[0];
out:
    return rc;
}
