/* SPDX-License-Identifier: MIT
 * synth_rows.c - weights of one row: normal numbers turned into the row's type, or random quant
 * bits with scales of the right size; see synth.h.
 *
 * A matrix has normal weights whose standard deviation varies by row and by column, log-normally by
 * 0.2, as that of trained matrices does: a quantiser meets rows and columns of unequal size. Norms
 * lie around 1. Random bits have the same standard deviation, but no correlation of any kind.
 *
 * Normal numbers come from a table of 65536 quantiles, four for one random number: they reach to
 * 4.3 standard deviations, which is enough for weights. */
#include <math.h>

#include "backend.h"
#include "base/arena.h"
#include "measure/random_row.h"
#include "quant/synth.h"

#define N_QUANTILES 65536
#define SPREAD 0.2 /* standard deviation of the logarithm of row and column scales */

struct rng synth_rng(uint64_t seed, uint64_t part) {
    /* Outputs as states: neighbouring parts share nothing. */
    struct rng a = { seed ^ 0xA0761D6478BD642Fu }, b = { rng_u64(&a) + part };
    return (struct rng){ rng_u64(&b) };
}

/* ---- normal numbers -------------------------------------------------------------------------- */

/* Quantiles of the lower half by Newton's method, each from its neighbour below: the distribution
 * is convex there, so the first step overshoots and the others come down to the root. */
static void fill_quantiles(float *q) {
    double x = -4.5;
    for (int i = 0; i < N_QUANTILES / 2; i++) {
        const double p = (i + 0.5) / N_QUANTILES;
        for (int k = 0; k < 8; k++)
            x -= (0.5 * erfc(-x * 0.70710678118654752) - p) /
                 (0.39894228040143268 * exp(-0.5 * x * x));
        q[i] = (float)x;
        q[N_QUANTILES - 1 - i] = (float)-x;
    }
}

static void normals(const struct synth_rows *s, struct rng *r, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) {
        uint64_t v = rng_u64(r);
        for (int64_t k = i; k < n && k < i + 4; k++, v >>= 16)
            out[k] = s->quantile[v & 0xFFFF];
    }
}

static double log_normal(const struct synth_rows *s, struct rng *r) {
    return exp(SPREAD * (double)s->quantile[rng_u64(r) >> 48]);
}

/* ---- rows ------------------------------------------------------------------------------------ */

int synth_rows_init(struct synth_rows *s, struct err *e) {
    int rc = 0;
    *s = (struct synth_rows){ 0 };
    s->quantile = heap_alloc(N_QUANTILES * sizeof *s->quantile, e);
    TRY(s->quantile ? 0 : ERR_NOMEM);
    fill_quantiles(s->quantile);
    for (int t = 0; t < QT_count; t++)
        if (random_row_has((enum qtype)t)) TRY(random_row_unit((enum qtype)t, &s->unit[t], e));
out:
    if (rc < 0) synth_rows_release(s);
    return rc;
}

void synth_rows_release(struct synth_rows *s) {
    heap_free(s->quantile);
    s->quantile = NULL;
}

void synth_columns(const struct synth_rows *s, struct synth_tensor *t) {
    struct rng r = synth_rng(t->seed, UINT64_MAX);
    for (int64_t i = 0; i < t->n0; i++)
        t->column[i] = (float)log_normal(s, &r);
}

void synth_row(const struct synth_rows *s, const struct synth_tensor *t, int64_t r, float *f32,
               void *out) {
    struct rng rng = synth_rng(t->seed, (uint64_t)r);
    const double sd = t->kind == SYNTH_MATRIX ? t->sd * log_normal(s, &rng) : t->sd;
    if (t->bits) {
        random_row(t->type, &rng, t->n0, sd / s->unit[t->type], out);
        return;
    }
    normals(s, &rng, f32, t->n0);
    const float mean = t->kind == SYNTH_NORM ? 1.0f : 0.0f;
    for (int64_t i = 0; i < t->n0; i++)
        f32[i] = mean + (float)sd * f32[i] * (t->kind == SYNTH_MATRIX ? t->column[i] : 1.0f);
    qkernel_find(COL_ref, t->type, false, NULL)->quantize_row(f32, out, t->n0, NULL);
}
