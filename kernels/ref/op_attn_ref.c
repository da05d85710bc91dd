/* SPDX-License-Identifier: MIT
 * op_attn_ref.c - causal attention over the cache in double; contract in op.h.
 *
 * A unit of work is a tile of tokens and one kv head: each K and V row of the cache is dequantised
 * once per unit. Scores of the tile are kept, [TILE * heads of the group, cells seen]; nothing of
 * size n_tok x n_kv exists. */
#include <math.h>

#include "backend.h"

#define TILE 8 /* tokens */

static int64_t group_size(const struct node *n) {
    return n->p.attn.n_head / n->p.attn.n_head_kv;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static size_t scratch_bytes(const struct node *n) {
    int64_t rows = TILE * group_size(n);
    int64_t hd = max64(n->p.attn.n_embd_head_k, n->p.attn.n_embd_head_v);
    return (size_t)(rows * n->src[1]->ne[1] + rows * hd) * sizeof(double) +
           (size_t)hd * sizeof(float);
}

struct unit {
    int64_t t0, n_tok; /* tokens of the tile that share `first` */
    int64_t g;         /* kv head */
    int64_t first, n_kv;
};

static const float *head_row(const struct tensor *cache, int64_t cell, int64_t g, int64_t hd,
                             float *buf) {
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)cache->type, false, NULL);
    size_t offset = (size_t)g * qtype_row_bytes((enum qtype)cache->type, hd);
    k->dequant_row((const char *)tensor_row(cache, cell) + offset, buf, hd);
    return buf;
}

static int32_t pos_of(const struct node *n, int64_t t) {
    return ((const int32_t *)n->src[4]->data)[t];
}

static void compute_scores(const struct node *n, const struct unit *u, double *scores, float *buf) {
    int64_t hd = n->p.attn.n_embd_head_k, gs = group_size(n);
    for (int64_t j = 0; j < u->n_kv; j++) {
        const float *k = head_row(n->src[1], u->first + j, u->g, hd, buf);
        for (int64_t t = 0; t < u->n_tok; t++) {
            if (j > pos_of(n, u->t0 + t)) continue;
            const float *q = (const float *)tensor_row(n->src[0], u->t0 + t) + u->g * gs * hd;
            for (int64_t h = 0; h < gs; h++, q += hd) {
                double s = 0;
                for (int64_t i = 0; i < hd; i++)
                    s += (double)q[i] * k[i];
                scores[(t * gs + h) * u->n_kv + j] = s * n->p.attn.scale;
            }
        }
    }
}

/* In place; a NaN score makes the whole row NaN. */
static void softmax(double *s, int64_t n) {
    double max = s[0], sum = 0;
    for (int64_t j = 1; j < n; j++)
        if (!(s[j] <= max)) max = s[j];
    for (int64_t j = 0; j < n; j++)
        sum += s[j] = exp(s[j] - max);
    for (int64_t j = 0; j < n; j++)
        s[j] /= sum;
}

static void run_unit(const struct node *n, const struct unit *u, double *scratch) {
    int64_t hd = n->p.attn.n_embd_head_v, gs = group_size(n), rows = TILE * gs;
    double *scores = scratch, *acc = scratch + rows * n->src[1]->ne[1];
    float *buf = (float *)(acc + rows * max64(n->p.attn.n_embd_head_k, hd));
    compute_scores(n, u, scores, buf);
    for (int64_t r = 0; r < u->n_tok * gs; r++)
        softmax(scores + r * u->n_kv, pos_of(n, u->t0 + r / gs) + 1);
    for (int64_t i = 0; i < u->n_tok * gs * hd; i++)
        acc[i] = 0;
    for (int64_t j = 0; j < u->n_kv; j++) {
        const float *v = head_row(n->src[2], u->first + j, u->g, hd, buf);
        for (int64_t r = 0; r < u->n_tok * gs; r++) {
            if (j > pos_of(n, u->t0 + r / gs)) continue;
            double p = scores[r * u->n_kv + j];
            for (int64_t i = 0; i < hd; i++)
                acc[r * hd + i] += p * v[i];
        }
    }
    for (int64_t r = 0; r < u->n_tok * gs; r++) {
        float *out = (float *)tensor_row(n->dst, u->t0 + r / gs) + (u->g * gs + r % gs) * hd;
        for (int64_t i = 0; i < hd; i++)
            out[i] = (float)acc[r * hd + i];
    }
}

static void run(const struct node *n, struct work *w) {
    const int32_t *first = n->src[3]->data;
    int64_t n_tok = n->src[0]->ne[1], n_kv_heads = n->p.attn.n_head_kv;
    int64_t n_units = (n_tok + TILE - 1) / TILE * n_kv_heads;
    for (int64_t c; (c = work_next(w)) < n_units;) {
        int64_t t0 = c / n_kv_heads * TILE, end = t0 + TILE < n_tok ? t0 + TILE : n_tok;
        while (t0 < end) { /* a tile may hold the end of one sequence and the start of another */
            struct unit u = { .t0 = t0, .g = c % n_kv_heads, .first = first[t0] };
            while (t0 < end && first[t0] == u.first)
                u.n_kv = max64(u.n_kv, pos_of(n, t0++) + 1);
            u.n_tok = t0 - u.t0;
            run_unit(n, &u, w->scratch);
        }
    }
}

const struct op_cell op_attn_ref = { .run = run, .scratch_bytes = scratch_bytes };
