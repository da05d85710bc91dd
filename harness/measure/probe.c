/* SPDX-License-Identifier: MIT
 * probe.c - why an arm's product is wrong: its source node is forced to inputs whose products tell;
 * see localise_impl.h. Works for any arm that can be observed, ours or not.
 *
 * Inputs lie on a grid that every 8-bit activation type holds exactly: integers of -127..127 times
 * a power of two, with +-127 in each group of 32. On it nothing is rounded. So:
 *
 *   - right on the grid, wrong beside it: the rounding of activations is wrong;
 *   - wrong for some tokens only: weights do not depend on tokens, so the product is wrong;
 *   - one column at a time reads back the weights as the arm uses them; twice, in different token
 *     rows, so that a wrong row is no wrong weight. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "measure/foreign.h"
#include "measure/localise_impl.h"

#define GROUP 32               /* values of an 8-bit activation block, or a divisor of it */
#define UNIT (127.0f / 128.0f) /* one column: quantised as 127 times 2^-7 */
#define ROWS_CHECKED 8         /* judged rows of a probe with full inputs */
#define SAME 0.1               /* two readings of a wrong weight, of their distance to the right */
#define WEIGHT_TOLERANCE 2e-3  /* of the row's rms, or the cell's limit if that is larger */
#define KNOWN_SHARE 0.05       /* of a known deviation of products: a single weight has no tail */

struct probe {
    struct loc *l;
    struct side *s;
    int product, source; /* nodes */
    int64_t n_in, n_out;
    int64_t r0, n_rows;    /* rows [r0, r0 + n_rows) of the source are forced */
    float *in;             /* [n_rows, n_in] */
    float *out;            /* [n_rows, n_out] what the arm made of it */
    int64_t at_in, at_out; /* rows seen so far */
};

static bool is_node(const struct probe *p, int i, const struct node *n) {
    const struct node *k = p->s->judge->nodes[i].n;
    return k->occurrence == n->occurrence && !strcmp(k->dst->name, n->dst->name);
}

static bool want(void *arg, const struct node *n) {
    const struct probe *p = arg;
    return is_node(p, p->source, n) || is_node(p, p->product, n);
}

static int see(void *arg, const struct node *n, void *data, struct err *e) {
    int rc = 0;
    struct probe *p = arg;
    bool in = is_node(p, p->source, n);
    int64_t n_cols = in ? p->n_in : p->n_out, *at = in ? &p->at_in : &p->at_out;
    FAIL_IF(n->dst->type != QT_f32 || n->dst->ne[0] != n_cols, e, ERR_MISMATCH,
            "%s: its rows changed from one run to the next", n->dst->name);
    for (int64_t t = 0; t < node_rows(n); t++, ++*at) {
        char *row = (char *)data + (size_t)t * n->dst->row_bytes;
        int64_t r = *at - p->r0;
        if (r < 0 || r >= p->n_rows) continue;
        if (in)
            memcpy(row, p->in + r * n_cols, (size_t)n_cols * sizeof(float));
        else
            memcpy(p->out + r * n_cols, row, (size_t)n_cols * sizeof(float));
    }
out:
    return rc;
}

static int run(struct probe *p, struct err *e) {
    int rc = 0;
    struct observer o = { .arg = p, .want = want, .see = see };
    bool head = p->l->a.judge->nodes[p->product].head;
    p->at_in = 0;
    p->at_out = p->r0;
    TRY(loc_feed(p->l, p->s, &o, e));
    if (head) TRY(loc_ask(p->l, p->s, &o, p->r0, p->n_rows, NULL, e));
    int64_t end = p->r0 + p->n_rows;
    FAIL_IF(p->at_in < end || p->at_out < end, e, ERR_MISMATCH, "%s: its rows did not come again",
            p->l->out->nodes[p->product].name);
out:
    return rc;
}

/* x on the grid, in groups of 32. */
static void to_grid(const float *x, int64_t n, float *out) {
    for (int64_t g = 0; g < n; g += GROUP) {
        int64_t end = g + GROUP < n ? g + GROUP : n, top = g;
        for (int64_t i = g; i < end; i++)
            if (fabsf(x[i]) > fabsf(x[top])) top = i;
        float amax = fabsf(x[top]);
        float step = amax > 0 && isfinite(amax) ? exp2f(rintf(log2f(amax / 127.0f))) : 1.0f;
        for (int64_t i = g; i < end; i++)
            out[i] = amax > 0 && isfinite(amax) ? rintf(x[i] / amax * 127.0f) * step : 0;
        if (!(amax > 0)) out[top] = 127.0f * step; /* a group of zeros holds anything */
    }
}

/* What ref makes of some rows of p->in (counted from r0, as everywhere below), [n, n_out]. */
static int expect(struct probe *p, const int32_t *row, int64_t n, float *want_rows, struct err *e) {
    const struct node *k = p->s->judge->nodes[p->product].n;
    struct op_case c = {
        .op = OP_mul_mat, .p = k->p, .n_tok = n, .dst_type = QT_f32, .n_cols = p->n_out
    };
    float *x = heap_alloc((size_t)(n * p->n_in) * sizeof *x, e);
    if (!x) return ERR_NOMEM;
    for (int64_t t = 0; t < n; t++)
        memcpy(x + t * p->n_in, p->in + row[t] * p->n_in, (size_t)p->n_in * sizeof *x);
    snprintf(c.name, sizeof c.name, "%s", k->dst->name);
    c.src[0] = *k->src[0];
    c.src[1] = (struct tensor){ .type = QT_f32, .ne = { p->n_in, n, 1, 1 }, .data = x };
    c.src[1].row_bytes = (size_t)p->n_in * sizeof *x;
    int rc = judge_eval(p->s->judge, &c, loc_act(p->s, p->product), want_rows, e);
    heap_free(x);
    return rc;
}

static struct op_limit limit_of_side(const struct probe *p) {
    const struct op_report *r = &p->l->out->nodes[p->product];
    return p->s->flag == WRONG_A ? r->limit_a : r->limit_b;
}

/* How many of these rows of p->out are outside of the limit. */
static int64_t count_bad(struct probe *p, const int32_t *row, int64_t n, const float *expected,
                         double *worst, int64_t *worst_row) {
    struct op_limit limit = limit_of_side(p);
    int64_t n_bad = 0;
    *worst = 0;
    *worst_row = -1;
    for (int64_t t = 0; t < n; t++) {
        struct op_error s = OP_ERROR_NONE;
        op_error_add(&s, row[t], p->out + row[t] * p->n_out, expected + t * p->n_out, p->n_out);
        if (!op_error_over(&s, &limit)) continue;
        n_bad++;
        if (s.max_rel > *worst) *worst = s.max_rel, *worst_row = row[t];
    }
    return n_bad;
}

static const float *source_row(const struct captured *c, int64_t r) {
    return (const void *)((const char *)c->data + (size_t)(r - c->r0) * c->row_bytes);
}

/* ---- the probes ----------------------------------------------------------------------------- */

/* Rows known to be wrong, first. Returns how many of those that were wrong are wrong on the grid.
 */
static int grid_probe(struct probe *p, const int32_t *bad, int64_t n_bad, float *expected,
                      int64_t *still, struct err *e) {
    int rc = 0;
    double worst;
    int64_t row;
    const struct captured *c = &p->l->a.cap[p->source];
    for (int64_t r = 0; r < p->n_rows; r++)
        to_grid(source_row(c, p->r0 + r), p->n_in, p->in + r * p->n_in);
    TRY(run(p, e));
    TRY(expect(p, bad, n_bad, expected, e));
    *still = count_bad(p, bad, n_bad, expected, &worst, &row);
out:
    return rc;
}

/* Row r of the input = one block of a wrong token's activations: the worst one of the product. */
static int block_probe(struct probe *p, int32_t token, int64_t block_size, float *expected,
                       int64_t *block, struct err *e) {
    int rc = 0;
    double worst;
    const struct captured *c = &p->l->a.cap[p->source];
    int64_t n_blocks = p->n_in / block_size, n = n_blocks < p->n_rows ? n_blocks : p->n_rows;
    int32_t *row = heap_alloc((size_t)n * sizeof *row, e);
    float *grid = heap_alloc((size_t)p->n_in * sizeof *grid, e);
    if (!row || !grid) {
        rc = ERR_NOMEM;
        goto out;
    }
    to_grid(source_row(c, p->r0 + token), p->n_in, grid);
    memset(p->in, 0, (size_t)(p->n_rows * p->n_in) * sizeof *p->in);
    for (int64_t r = 0; r < n; r++) {
        row[r] = (int32_t)r;
        memcpy(p->in + r * p->n_in + r * block_size, grid + r * block_size,
               (size_t)block_size * sizeof *grid);
    }
    TRY(run(p, e));
    TRY(expect(p, row, n, expected, e));
    count_bad(p, row, n, expected, &worst, block);
out:
    heap_free(row);
    heap_free(grid);
    return rc;
}

/* Column col0 + (r + shift) % n in token row r: out[r] is then a column of the weight. */
static int unit_probe(struct probe *p, int64_t col0, int64_t n, int64_t shift, struct err *e) {
    memset(p->in, 0, (size_t)(p->n_rows * p->n_in) * sizeof *p->in);
    for (int64_t r = 0; r < p->n_rows; r++)
        p->in[r * p->n_in + col0 + (r + shift) % n] = UNIT;
    return run(p, e);
}

/* An engine that is known to round its weights once more does so here, too. */
static double weight_tolerance(const struct probe *p, enum qtype weight) {
    struct op_limit known;
    double tolerance = fmax(WEIGHT_TOLERANCE, limit_of_side(p).max_rel);
    if (p->s->column == COL_none &&
        foreign_known(p->s->arm->info.backend, false, false, weight, &known))
        tolerance = fmax(tolerance, KNOWN_SHARE * known.max_rel);
    return tolerance;
}

/* Weights of columns [col0, col0 + n) that both placements read back wrongly. */
static void compare_weights(const struct probe *p, const float *first, int64_t col0, int64_t n,
                            int64_t shift, float *w, struct finding_detail *f) {
    const struct tensor *W = p->s->judge->nodes[p->product].n->src[0];
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)W->type, false, NULL);
    float gain = (float)qtype_info((enum qtype)W->type)->gain;
    double tolerance = weight_tolerance(p, (enum qtype)W->type), worst = 0;
    int64_t n_moved = 0; /* wrong in both placements, but not in the same way */
    for (int64_t r = 0; r < p->n_out; r++) {
        double sq = 0;
        k->dequant_row(tensor_row(W, r), w, W->ne[0]);
        qtype_round_weights((enum qtype)W->type, loc_act(p->s, p->product), tensor_row(W, r), w,
                            W->ne[0]);
        for (int64_t i = 0; i < W->ne[0]; i++)
            sq += (double)w[i] * w[i];
        double rms = sqrt(sq / (double)W->ne[0]) * gain;
        for (int64_t c = 0; c < n; c++) {
            float expected = gain * w[col0 + c];
            float one = first[c * p->n_out + r] / UNIT;
            float two = p->out[(c + n - shift) % n * p->n_out + r] / UNIT;
            double d1 = fabs((double)one - expected), d2 = fabs((double)two - expected);
            f->n_probed++;
            if (d1 <= tolerance * rms || d2 <= tolerance * rms) continue;
            /* A misread weight is the same weight wherever it is read. */
            if (fabs((double)one - two) > SAME * fmax(d1, d2)) {
                n_moved++;
                continue;
            }
            f->n_wrong_weights++;
            double d = fmin(d1, d2) / fmax(rms, 1e-30);
            if (!(d > worst) && f->n_wrong_weights > 1) continue;
            worst = d;
            f->weight = (struct probe_weight){ r, col0 + c, one, expected };
        }
    }
    if (n_moved > f->n_wrong_weights) f->n_wrong_weights = 0;
}

static int read_weights(struct probe *p, int64_t col0, int64_t n, struct finding_detail *f,
                        struct err *e) {
    int rc = 0;
    if (n > p->n_rows) n = p->n_rows;
    int64_t shift = n / 2;
    float *first = heap_alloc((size_t)(n * p->n_out) * sizeof *first, e);
    float *w = heap_alloc((size_t)p->n_in * sizeof *w, e);
    if (!first || !w) {
        rc = ERR_NOMEM;
        goto out;
    }
    TRY(unit_probe(p, col0, n, 0, e));
    memcpy(first, p->out, (size_t)(n * p->n_out) * sizeof *first);
    TRY(unit_probe(p, col0, n, shift, e));
    compare_weights(p, first, col0, n, shift, w, f);
out:
    heap_free(first);
    heap_free(w);
    return rc;
}

/* ---- the decision --------------------------------------------------------------------------- */

/* Rows of product i that are over the limit, worst first of those that were picked. */
static int find_bad_rows(struct probe *p, int32_t *row, int64_t *n_bad, int64_t *n_seen,
                         struct err *e) {
    int rc = 0;
    struct op_case c = { 0 };
    struct op_limit limit = limit_of_side(p);
    int64_t n_max = 4 * ROWS_CHECKED, n;
    float *ref = heap_alloc(2 * (size_t)(n_max * p->n_out) * sizeof *ref, e);
    if (!ref) return ERR_NOMEM;
    float *got = ref + n_max * p->n_out;
    n = loc_pick_rows(p->l, p->product, n_max < p->n_rows ? n_max : p->n_rows, row);
    TRY(loc_expected(p->l, p->s, p->product, row, n, &c, ref, got, e));
    *n_bad = 0;
    *n_seen = n;
    for (int64_t t = 0; t < n; t++) {
        struct op_error s = OP_ERROR_NONE;
        op_error_add(&s, row[t], got + t * p->n_out, ref + t * p->n_out, p->n_out);
        if (op_error_over(&s, &limit)) row[(*n_bad)++] = (int32_t)(row[t] - p->r0);
    }
out:
    op_case_release(&c);
    heap_free(ref);
    return rc;
}

static int decide(struct probe *p, struct finding_detail *f, float *expected, int32_t *bad,
                  struct err *e) {
    int rc = 0;
    int64_t n_bad = 0, n_seen = 0, still = 0;
    const struct tensor *W = p->s->judge->nodes[p->product].n->src[0];
    int n_blk = qtype_info((enum qtype)W->type)->n_blk;
    f->kind = FINDING_PRODUCT;
    f->block_size = n_blk > 1 ? n_blk : GROUP;
    if (p->n_in % f->block_size) f->block_size = p->n_in;
    TRY(find_bad_rows(p, bad, &n_bad, &n_seen, e));
    if (n_bad == 0) {
        snprintf(f->note, sizeof f->note, "no row of the probed ones is wrong");
        goto out;
    }
    bool few = 4 * n_bad < 3 * n_seen;
    int64_t n_checked = n_bad < ROWS_CHECKED ? n_bad : ROWS_CHECKED;
    TRY(grid_probe(p, bad, n_checked, expected, &still, e));
    if (still == 0 && loc_act(p->s, p->product) != QT_f32) {
        f->kind = FINDING_ACTIVATION;
        snprintf(f->note, sizeof f->note,
                 "the same product is right when its inputs need no rounding to %s",
                 qtype_info(loc_act(p->s, p->product))->name);
        goto out;
    }
    if (few) {
        snprintf(f->note, sizeof f->note, "%lld of %lld token rows are wrong, the others right",
                 (long long)n_bad, (long long)n_seen);
        goto out;
    }
    int64_t block;
    TRY(block_probe(p, bad[0], f->block_size, expected, &block, e));
    f->block = block;
    int64_t col0 = block < 0 ? 0 : block * f->block_size;
    TRY(read_weights(p, col0, block < 0 ? p->n_in : f->block_size, f, e));
    if (f->n_wrong_weights > 0) f->kind = FINDING_DEQUANTISATION;
out:
    return rc;
}

int loc_probe(struct loc *l, struct side *s, int i, struct finding_detail *f, struct err *e) {
    int rc = 0;
    const struct judge_node *jn = &s->judge->nodes[i];
    if (!l->a.cap[jn->src[1].node].data || !s->cap[jn->src[1].node].data) {
        f->kind = FINDING_PRODUCT;
        snprintf(f->note, sizeof f->note,
                 "its input is not shown by both arms, so it was not probed");
        return 0;
    }
    struct probe p = { .l = l, .s = s, .product = i, .source = jn->src[1].node };
    p.n_in = jn->n->src[0]->ne[0];
    p.n_out = jn->n->dst->ne[0];
    p.r0 = l->a.cap[i].r0; /* a slice of the head; the body has all rows */
    p.n_rows = l->a.cap[i].n_seen - p.r0;
    int64_t n_blocks = p.n_in / GROUP + 1,
            n_max = n_blocks > ROWS_CHECKED ? n_blocks : ROWS_CHECKED;
    p.in = heap_alloc((size_t)(p.n_rows * p.n_in) * sizeof *p.in, e);
    p.out = heap_alloc((size_t)(p.n_rows * p.n_out) * sizeof *p.out, e);
    float *expected = heap_alloc((size_t)(n_max * p.n_out) * sizeof *expected, e);
    int32_t *bad = heap_alloc((size_t)l->n_tok * sizeof *bad, e);
    if (!p.in || !p.out || !expected || !bad)
        rc = ERR_NOMEM;
    else
        rc = decide(&p, f, expected, bad, e);
    heap_free(p.in);
    heap_free(p.out);
    heap_free(expected);
    heap_free(bad);
    return rc;
}
