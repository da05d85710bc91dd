/* SPDX-License-Identifier: MIT
 * classify.c - the first bad node, in words: which arm, what kind, where in the result; see
 * localise_impl.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "measure/capsule.h"
#include "measure/localise_impl.h"
#include "result/row.h"

#define TILE 32       /* columns */
#define ROWS_SHOWN 16 /* of the result, the worst among them */
/* Of a capsule: beyond the first only the worst rows, beyond the second only columns around the
 * worst. */
#define ROW_BYTES_MAX ((size_t)32 << 20)
#define WEIGHT_BYTES_MAX ((size_t)64 << 20)
#define SLICE_COLS 4096
/* Change of a position's nll that observation may bring: none where an arm promises equal bits (the
 * rest is what a text format of logits loses), some where it promises noise. */
#define NLL_CHANGE_BITWISE 1e-9
#define NLL_CHANGE_NOISE 0.05

/* ---- weights of the two files --------------------------------------------------------------- */

static void note_difference(const struct tensor *a, const struct tensor *b, size_t n,
                            struct finding_detail *f) {
    const unsigned char *x = a->data, *y = b->data;
    snprintf(f->tensor, sizeof f->tensor, "%s", a->name);
    f->type_a = (enum qtype)a->type;
    f->type_b = (enum qtype)b->type;
    f->n_bytes_differ = f->byte = 0;
    for (size_t k = 0; k < n; k++) {
        if (x[k] == y[k]) continue;
        if (f->n_bytes_differ++ == 0) f->byte = k;
    }
}

enum finding loc_files(const struct loc *l, int i, struct finding_detail *f) {
    if (l->a.judge == l->b.judge) return FINDING_NONE;
    const struct judge_node *na = &l->a.judge->nodes[i], *nb = &l->b.judge->nodes[i];
    for (int s = 0; s < OP_MAX_SRC; s++) {
        if (na->src[s].from != FROM_WEIGHT || nb->src[s].from != FROM_WEIGHT) continue;
        const struct tensor *a = na->n->src[s], *b = nb->n->src[s];
        bool same =
            a->type == b->type && a->row_bytes == b->row_bytes && tensor_rows(a) == tensor_rows(b);
        size_t n = same ? tensor_bytes(a) : 0;
        if (same && !memcmp(a->data, b->data, n)) continue;
        if (f) note_difference(a, b, n, f);
        return same ? FINDING_WEIGHTS : FINDING_FORMAT;
    }
    return FINDING_NONE;
}

/* ---- which node ----------------------------------------------------------------------------- */

/* Other engines compute other nodes: no fault by itself. */
static bool missing(const struct loc *l, const struct op_report *r) {
    return r->seen_a != r->seen_b && l->a.column != COL_none && l->b.column != COL_none;
}

static int first_bad(const struct loc *l) {
    for (int i = 0; i < l->n_nodes; i++) {
        const struct op_report *r = &l->out->nodes[i];
        if (r->wrong || r->files == FINDING_WEIGHTS) return i;
    }
    for (int i = 0; i < l->n_nodes; i++)
        if (missing(l, &l->out->nodes[i])) return i;
    for (int i = 0; i < l->n_nodes; i++)
        if (l->out->nodes[i].files == FINDING_FORMAT) return i;
    return -1;
}

static bool changed(const struct side *s, double change) {
    double limit = s->arm->info.promise == ARM_BITWISE ? NLL_CHANGE_BITWISE : NLL_CHANGE_NOISE;
    return !(change <= limit);
}

static void explain_none(struct loc *l, struct finding_detail *f) {
    const struct localise *r = l->out;
    bool a = changed(&l->a, r->max_nll_change_a), b = changed(&l->b, r->max_nll_change_b);
    f->kind = a || b ? FINDING_NOT_REPRODUCIBLE : FINDING_NONE;
    f->wrong = (a ? WRONG_A : 0) | (b ? WRONG_B : 0);
    if (a || b)
        snprintf(f->note, sizeof f->note,
                 "mean difference %.6f nat before, %.6f under observation; largest change of a "
                 "position %.3g in A, %.3g in B",
                 r->mean_d, r->mean_d_observed, r->max_nll_change_a, r->max_nll_change_b);
}

/* ---- the worst place of it ------------------------------------------------------------------ */

/* Rows and columns over the limit among the judged ones. */
static int count_bad(struct loc *l, struct side *s, int i, struct finding_detail *f,
                     struct err *e) {
    int rc = 0;
    const struct op_report *r = &l->out->nodes[i];
    const struct op_limit *limit = s->flag == WRONG_A ? &r->limit_a : &r->limit_b;
    struct op_case c = { 0 };
    int64_t n_cols = r->n_cols, n_max = r->n_judged < ROWS_SHOWN ? r->n_judged : ROWS_SHOWN;
    float *ref = heap_alloc(2 * (size_t)(n_max * n_cols) * sizeof *ref, e);
    int32_t *row = heap_alloc((size_t)l->n_tok * sizeof *row, e);
    bool *bad = heap_calloc((size_t)n_cols, sizeof *bad, e);
    if (!ref || !row || !bad) {
        rc = ERR_NOMEM;
        goto out;
    }
    float *got = ref + n_max * n_cols;
    int64_t n = loc_pick_rows(l, i, n_max, row);
    TRY(loc_expected(l, s, i, row, n, &c, ref, got, e));
    f->n_rows_checked = n;
    for (int64_t t = 0; t < n; t++) {
        const float *x = got + t * n_cols, *y = ref + t * n_cols;
        struct op_error one = OP_ERROR_NONE;
        double sq = 0;
        op_error_add(&one, row[t], x, y, n_cols);
        f->n_bad_rows += op_error_over(&one, limit);
        for (int64_t k = 0; k < n_cols; k++)
            sq += (double)y[k] * y[k];
        double rms = sqrt(sq / (double)n_cols);
        for (int64_t k = 0; k < n_cols; k++)
            if (!(fabs((double)x[k] - y[k]) <= limit->max_rel * rms)) bad[k] = true;
    }
    for (int64_t k = 0; k < n_cols; k++)
        f->n_bad_cols += bad[k];
out:
    op_case_release(&c);
    heap_free(ref);
    heap_free(row);
    heap_free(bad);
    return rc;
}

/* Its slice of the head again, if the captures hold another one. */
static int bring_back(struct loc *l, int i, int64_t row, struct err *e) {
    int rc = 0;
    int64_t r0 = row / l->head_step * l->head_step, n = l->n_tok - r0;
    if (!l->a.judge->nodes[i].head || l->a.cap[i].r0 == r0) return 0;
    struct op_error **none = heap_calloc((size_t)l->n_nodes, sizeof(struct op_error *), e);
    if (!none) return ERR_NOMEM;
    if (n > l->head_step) n = l->head_step;
    TRY(loc_head(l, &l->a, SEE_CAPTURE, none, r0, n, NULL, e));
    TRY(loc_head(l, &l->b, SEE_FORCE, none, r0, n, NULL, e));
out:
    heap_free(none);
    return rc;
}

/* ---- the capsule ---------------------------------------------------------------------------- */

/* A copy of rows [r0, r0 + n) of source s in its place. */
static int own_rows(struct op_case *c, int s, int64_t r0, int64_t n, struct err *e) {
    struct tensor *t = &c->src[s];
    char *copy = heap_alloc(t->row_bytes * (size_t)n, e);
    if (!copy) return ERR_NOMEM;
    memcpy(copy, tensor_row(t, r0), t->row_bytes * (size_t)n);
    t->data = c->owned[s] = copy;
    t->ne[1] = n;
    return 0;
}

/* Of a table only the rows that are looked up. */
static int own_looked_up(struct op_case *c, struct err *e) {
    struct tensor *t = &c->src[0];
    int32_t *id = c->owned[1];
    char *rows = heap_alloc(t->row_bytes * (size_t)c->n_tok, e);
    if (!rows) return ERR_NOMEM;
    for (int64_t k = 0; k < c->n_tok; k++) {
        memcpy(rows + (size_t)k * t->row_bytes, tensor_row(t, id[k]), t->row_bytes);
        id[k] = (int32_t)k;
    }
    t->data = c->owned[0] = rows;
    t->ne[1] = c->n_tok;
    return 0;
}

/* Make the case's weights its own, or only some rows of them: the model is closed before the
 * capsule is saved. Columns [col0, col0 + n_cols) of the result stay. */
static int own_weights(struct op_case *c, int64_t col, int64_t *col0, struct err *e) {
    int rc = 0;
    *col0 = 0;
    for (int s = 0; s < OP_MAX_SRC; s++) {
        const struct tensor *t = &c->src[s];
        if (!t->data || c->owned[s]) continue;
        int64_t r0 = 0, n = tensor_rows(t);
        bool large = t->row_bytes * (size_t)n > WEIGHT_BYTES_MAX;
        if (large && c->op == OP_get_rows) {
            TRY(own_looked_up(c, e));
            continue;
        }
        if (large && c->op == OP_mul_mat) {
            r0 = *col0 = col / SLICE_COLS * SLICE_COLS;
            n = c->n_cols = n - r0 < SLICE_COLS ? n - r0 : SLICE_COLS;
        }
        TRY(own_rows(c, s, r0, n, e));
    }
out:
    return rc;
}

static float *outputs(const struct loc *l, const struct side *s, int i, const struct capsule *k,
                      struct err *e) {
    const struct captured *own = &s->cap[i];
    int64_t n_cols = k->c.n_cols;
    float *out = heap_alloc((size_t)(k->c.n_tok * n_cols) * sizeof *out, e);
    float *y = out ? heap_alloc((size_t)own->n_cols * sizeof *y, e) : NULL;
    if (!y) {
        heap_free(out);
        return NULL;
    }
    for (int64_t t = 0; t < k->c.n_tok; t++) {
        const char *row =
            (const char *)own->data + (size_t)(k->position[t] - own->r0) * own->row_bytes;
        op_rows_f32(OP_count, own->type, row, own->type, row, own->n_cols, y, l->x);
        memcpy(out + t * n_cols, y + k->col0, (size_t)n_cols * sizeof *out);
    }
    heap_free(y);
    return out;
}

/* All rows of the micro-batch in which the worst one was computed, since a cell may be wrong for
 * some sizes only; the worst rows of all if those are too many bytes. */
static int64_t capsule_rows(const struct loc *l, const struct side *s, int i, int32_t *row) {
    const struct finding_detail *f = &l->out->first;
    const struct captured *c = loc_shown(l, i);
    const struct judge_node *jn = &l->a.judge->nodes[i];
    int64_t worst = f->seq < 0 ? c->r0 : f->seq * l->p->n_ctx + f->token;
    int64_t n_batch = s->arm->info.n_batch, n_ubatch = s->arm->info.n_ubatch;
    int64_t b0 = worst - worst % n_batch, from = b0 + (worst - b0) / n_ubatch * n_ubatch;
    int64_t to = from + n_ubatch < b0 + n_batch ? from + n_ubatch : b0 + n_batch;
    size_t bytes = 2 * (size_t)c->n_cols * sizeof(float);
    if (from < c->r0) from = c->r0;
    if (to > c->n_seen) to = c->n_seen;
    for (int k = 0; k < OP_MAX_SRC; k++)
        if (jn->src[k].from == FROM_NODE) bytes += l->a.cap[jn->src[k].node].row_bytes;
    if (bytes * (size_t)(to - from) > ROW_BYTES_MAX) return loc_pick_rows(l, i, ROWS_SHOWN, row);
    for (int64_t r = from; r < to; r++)
        row[r - from] = (int32_t)r;
    return to - from;
}

static int fill_capsule(struct loc *l, struct side *s, int i, struct capsule *k, struct err *e) {
    int rc = 0;
    const struct op_report *r = &l->out->nodes[i];
    const struct finding_detail *f = &l->out->first;
    k->position = heap_alloc((size_t)l->n_tok * sizeof *k->position, e);
    if (!k->position) {
        rc = ERR_NOMEM;
        goto out;
    }
    int64_t n = capsule_rows(l, s, i, k->position);
    TRY(loc_case(l, s, i, k->position, n, &k->c, e));
    TRY(own_weights(&k->c, f->col < 0 ? 0 : f->col, &k->col0, e));
    k->n_cols_all = r->n_cols;
    k->act_a = loc_act(&l->a, i);
    k->act_b = loc_act(&l->b, i);
    k->out_a = outputs(l, &l->a, i, k, e);
    k->out_b = outputs(l, &l->b, i, k, e);
    if (!k->out_a || !k->out_b) rc = ERR_NOMEM;
    snprintf(k->cell_a, sizeof k->cell_a, "%s", r->cell_a);
    snprintf(k->cell_b, sizeof k->cell_b, "%s", r->cell_b);
    snprintf(k->backend_a, sizeof k->backend_a, "%s", l->a.arm->info.backend);
    snprintf(k->backend_b, sizeof k->backend_b, "%s", l->b.arm->info.backend);
    k->limit_a = r->limit_a;
    k->limit_b = r->limit_b;
    k->err_a = r->err_a.max_rel;
    k->err_b = r->err_b.max_rel;
    snprintf(k->finding, sizeof k->finding, "%s", finding_name(f->kind));
    snprintf(k->model, sizeof k->model, "%s", s->model);
    snprintf(k->commit, sizeof k->commit, "%s", provenance_commit());
    gguf_fingerprint(s->judge->m.g, k->model_fp);
out:
    return rc;
}

static int make_capsule(struct loc *l, struct side *s, int i, struct err *e) {
    l->out->capsule = heap_calloc(1, sizeof *l->out->capsule, e);
    return l->out->capsule ? fill_capsule(l, s, i, l->out->capsule, e) : ERR_NOMEM;
}

/* ---- putting it together -------------------------------------------------------------------- */

static void place(const struct loc *l, int64_t row, struct finding_detail *f) {
    f->seq = row < 0 ? -1 : row / l->p->n_ctx;
    f->token = row < 0 ? -1 : row % l->p->n_ctx;
}

static int explain_wrong(struct loc *l, struct side *s, int i, struct finding_detail *f,
                         struct err *e) {
    int rc = 0;
    const struct op_report *r = &l->out->nodes[i];
    const struct op_error *err = s->flag == WRONG_A ? &r->err_a : &r->err_b;
    f->wrong = r->wrong;
    int64_t row = err->bad_row >= 0 ? err->bad_row : err->row;
    place(l, row, f);
    f->col = err->bad_row >= 0 ? err->bad_col : err->col;
    f->tile = f->col < 0 ? -1 : f->col / TILE;
    TRY(bring_back(l, i, row < 0 ? 0 : row, e));
    TRY(count_bad(l, s, i, f, e));
    if (err->bad_row >= 0) {
        f->kind = FINDING_NONFINITE;
    } else if (r->op == OP_mul_mat) {
        TRY(loc_probe(l, s, i, f, e));
    } else if (r->op == OP_get_rows && r->src[0].weight) {
        f->kind = FINDING_DEQUANTISATION;
        f->block_size = qtype_info(r->src[0].type)->n_blk;
        f->block = f->col < 0 ? -1 : f->col / f->block_size;
    } else {
        f->kind = FINDING_OPERATION;
    }
out:
    return rc;
}

int loc_classify(struct loc *l, struct err *e) {
    int rc = 0;
    struct finding_detail *f = &l->out->first;
    int i = first_bad(l);
    *f = (struct finding_detail){
        .node = i, .seq = -1, .token = -1, .col = -1, .tile = -1, .block = -1
    };
    if (i < 0) {
        explain_none(l, f);
        return 0;
    }
    const struct op_report *r = &l->out->nodes[i];
    struct side *s = r->wrong & WRONG_B ? &l->b : &l->a;
    if (missing(l, r)) {
        f->kind = FINDING_NODE_MISSING;
        f->wrong = r->seen_a ? WRONG_B : WRONG_A;
        return 0;
    }
    if (r->wrong && r->files != FINDING_WEIGHTS) {
        TRY(explain_wrong(l, s, i, f, e));
    } else { /* altered weights may be so large that even a right kernel is over its limit */
        f->kind = loc_files(l, i, f);
        place(l, r->own.row, f);
        f->col = r->own.col;
        f->tile = f->col < 0 ? -1 : f->col / TILE;
        if (loc_captured(l, i)) TRY(bring_back(l, i, r->own.row < 0 ? 0 : r->own.row, e));
    }
    if (loc_captured(l, i)) TRY(make_capsule(l, s, i, e));
out:
    return rc;
}
