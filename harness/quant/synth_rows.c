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
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/fp16.h"
#include "quant/synth.h"

#define N_QUANTILES 65536
#define SPREAD 0.2 /* standard deviation of the logarithm of row and column scales */

/* Where a type keeps its scales, for random bits. */
enum scale_place {
    SCALE_NONE,
    SCALE_ROW_F32,      /* one binary32 in front of the row */
    SCALE_BLOCK_F16,    /* one binary16 in front of each block */
    SCALE_BLOCK_F16_MIN /* and one behind it that is added: quants are 0 .. 2 * middle */
};

struct scale_row {
    enum scale_place place;
    double middle;
};

/* A type without a row here can be had only if it has a quantize_row. */
static const struct scale_row scale_rows[QT_count] = {
    [QT_q4_0] = { SCALE_BLOCK_F16, 0 }, [QT_q4_1] = { SCALE_BLOCK_F16_MIN, 7.5 },
    [QT_q5_0] = { SCALE_BLOCK_F16, 0 }, [QT_q5_1] = { SCALE_BLOCK_F16_MIN, 15.5 },
    [QT_q6_0] = { SCALE_BLOCK_F16, 0 }, [QT_q8_0] = { SCALE_BLOCK_F16, 0 },
    [QT_iq2_kt] = { SCALE_ROW_F32, 0 }, [QT_iq3_kt] = { SCALE_ROW_F32, 0 },
    [QT_iq4_kt] = { SCALE_ROW_F32, 0 },
};

bool synth_has_bits(enum qtype t) {
    return scale_rows[t].place != SCALE_NONE;
}

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

/* ---- random bits ----------------------------------------------------------------------------- */

static void random_bytes(struct rng *r, void *out, size_t n) {
    char *p = out;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = rng_u64(r);
        memcpy(p, &v, 8);
    }
    uint64_t v = rng_u64(r);
    memcpy(p, &v, n);
}

/* A row of n weights of type t with a root mean square of `unit` times scale. */
static void bits_row(enum qtype t, struct rng *r, int64_t n, double scale, void *out) {
    const struct qtype_info *q = qtype_info(t);
    const struct scale_row *where = &scale_rows[t];
    const size_t n_bytes = qtype_row_bytes(t, n);
    char *row = out;
    random_bytes(r, row, n_bytes);
    if (where->place == SCALE_ROW_F32) {
        const float d = (float)scale;
        memcpy(row, &d, sizeof d);
        return;
    }
    for (size_t b = q->row_meta; b < n_bytes; b += q->blk_bytes) {
        /* Blocks differ in size by up to a quarter; the mean square of the factor is 1.02. Signs
         * differ as in files: quants of -8..7 have no mean of 0. */
        const double sign = rng_u64(r) >> 63 ? 1.0 : -1.0;
        const float d = (float)(sign * scale * (0.75 + 0.5 * rng_uniform(r)));
        const f16_t h = f32_to_f16(d), m = f32_to_f16((float)(-where->middle) * d);
        memcpy(row + b, &h, sizeof h);
        if (where->place == SCALE_BLOCK_F16_MIN) memcpy(row + b + sizeof h, &m, sizeof m);
    }
}

/* Root mean square of random bits at scale 1, from a sample. */
static int measure_unit(enum qtype t, double *unit, struct err *e) {
    enum { N = 8192, N_ROWS = 8 }; /* a multiple of every block */
    int rc = 0;
    const struct qkernel *k = qkernel_find(COL_ref, t, false, NULL);
    void *row = heap_alloc(qtype_row_bytes(t, N), e);
    float *y = heap_alloc(N * sizeof *y, e);
    double sum = 0;
    FAIL_IF(!row || !y, e, ERR_NOMEM, "no memory for a row of %d weights", N);
    for (uint64_t r = 0; r < N_ROWS; r++) {
        struct rng rng = synth_rng(1, r);
        bits_row(t, &rng, N, 1.0, row);
        k->dequant_row(row, y, N);
        for (int i = 0; i < N; i++)
            sum += (double)y[i] * (double)y[i];
    }
    *unit = sqrt(sum / (N * N_ROWS));
out:
    heap_free(row);
    heap_free(y);
    return rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

int synth_rows_init(struct synth_rows *s, struct err *e) {
    int rc = 0;
    *s = (struct synth_rows){ 0 };
    s->quantile = heap_alloc(N_QUANTILES * sizeof *s->quantile, e);
    TRY(s->quantile ? 0 : ERR_NOMEM);
    fill_quantiles(s->quantile);
    for (int t = 0; t < QT_count; t++)
        if (synth_has_bits((enum qtype)t)) TRY(measure_unit((enum qtype)t, &s->unit[t], e));
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
        bits_row(t->type, &rng, t->n0, sd / s->unit[t->type], out);
        return;
    }
    normals(s, &rng, f32, t->n0);
    const float mean = t->kind == SYNTH_NORM ? 1.0f : 0.0f;
    for (int64_t i = 0; i < t->n0; i++)
        f32[i] = mean + (float)sd * f32[i] * (t->kind == SYNTH_MATRIX ? t->column[i] : 1.0f);
    qkernel_find(COL_ref, t->type, false, NULL)->quantize_row(f32, out, t->n0, NULL);
}
