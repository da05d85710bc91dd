/* SPDX-License-Identifier: MIT
 * op_error.c - errors of rows; see op_error.h. */
#include "measure/op_error.h"

#include <math.h>
#include <string.h>

#include "backend.h"

/* Rows of zeros have no scale of their own: anything above this counts. */
#define RMS_FLOOR 1e-30

double op_error_add(struct op_error *s, int64_t row, const float *got, const float *want,
                    int64_t n) {
    double sq = 0, all = 0, dot = 0, worst = -1;
    int64_t col = -1, bad = -1;
    for (int64_t i = 0; i < n; i++) {
        bool finite = isfinite(got[i]) != 0, wanted = isfinite(want[i]) != 0;
        if (!finite || !wanted) {
            bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
            if (!same && bad < 0) bad = i;
            if (!same && wanted && s->bad_row < 0) s->bad_row = row, s->bad_col = i;
            continue;
        }
        double d = (double)got[i] - want[i];
        sq += d * d;
        all += (double)want[i] * want[i];
        dot += (double)got[i] * want[i];
        if (fabs(d) > worst) worst = fabs(d), col = i;
    }
    double rms = sqrt(all / (double)n);
    double rel = worst > 0 ? worst / fmax(rms, RMS_FLOOR) : 0;
    double nmse = sq > 0 ? sq / fmax(all, RMS_FLOOR * RMS_FLOOR) : 0;
    if (bad >= 0) rel = nmse = sq = (double)INFINITY, col = bad;
    if (rel > s->max_rel) s->max_rel = rel, s->row = row, s->col = col;
    s->row_nmse = fmax(s->row_nmse, nmse);
    s->n += n;
    s->sum_sq += sq;
    s->sum_want += all;
    s->sum_dot += dot;
    s->nmse = s->sum_sq > 0 ? s->sum_sq / fmax(s->sum_want, RMS_FLOOR * RMS_FLOOR) : 0;
    return nmse;
}

void op_error_merge(struct op_error *s, const struct op_error *o) {
    if (o->max_rel > s->max_rel) s->max_rel = o->max_rel, s->row = o->row, s->col = o->col;
    if (o->bad_row >= 0 && (s->bad_row < 0 || o->bad_row < s->bad_row))
        s->bad_row = o->bad_row, s->bad_col = o->bad_col;
    s->row_nmse = fmax(s->row_nmse, o->row_nmse);
    s->n += o->n;
    s->sum_sq += o->sum_sq;
    s->sum_want += o->sum_want;
    s->sum_dot += o->sum_dot;
    s->nmse = s->sum_sq > 0 ? s->sum_sq / fmax(s->sum_want, RMS_FLOOR * RMS_FLOOR) : 0;
}

static void row_f32(enum qtype type, const void *row, int64_t n, float *out) {
    if (type == QT_f32) {
        memcpy(out, row, (size_t)n * sizeof *out);
    } else if (type == QT_f64) { /* no column has cells of its own for it */
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((const double *)row)[i];
    } else {
        qkernel_find(COL_ref, type, false, NULL)->dequant_row(row, out, n);
    }
}

void op_rows_f32(enum op op, enum qtype tx, const void *x, enum qtype ty, const void *y, int64_t n,
                 float *out_x, float *out_y) {
    row_f32(tx, x, n, out_x);
    row_f32(ty, y, n, out_y);
    if (op != OP_lse) return;
    out_x[2] = out_x[2] == out_y[2] ? 0 : 1;
    out_y[2] = 0;
}
