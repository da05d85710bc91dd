/* SPDX-License-Identifier: MIT
 * random_row.c - rows of random quant bits; see random_row.h. */
#include "measure/random_row.h"

#include <math.h>
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/fp16.h"

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

/* A new type gets its line here. */
static const struct scale_row scale_rows[QT_count] = {
    [QT_q4_0] = { SCALE_BLOCK_F16, 0 }, [QT_q4_1] = { SCALE_BLOCK_F16_MIN, 7.5 },
    [QT_q5_0] = { SCALE_BLOCK_F16, 0 }, [QT_q5_1] = { SCALE_BLOCK_F16_MIN, 15.5 },
    [QT_q6_0] = { SCALE_BLOCK_F16, 0 }, [QT_q8_0] = { SCALE_BLOCK_F16, 0 },
    [QT_iq2_kt] = { SCALE_ROW_F32, 0 }, [QT_iq3_kt] = { SCALE_ROW_F32, 0 },
    [QT_iq4_kt] = { SCALE_ROW_F32, 0 },
};

bool random_row_has(enum qtype t) {
    return scale_rows[t].place != SCALE_NONE;
}

static void random_bytes(struct rng *r, void *out, size_t n) {
    char *p = out;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = rng_u64(r);
        memcpy(p, &v, 8);
    }
    uint64_t v = rng_u64(r);
    memcpy(p, &v, n);
}

void random_row(enum qtype t, struct rng *r, int64_t n, double scale, void *out) {
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

int random_row_unit(enum qtype t, double *unit, struct err *e) {
    enum { N = 8192, N_ROWS = 8 }; /* a multiple of every block */
    int rc = 0;
    const struct qkernel *k = qkernel_find(COL_ref, t, false, NULL);
    void *row = heap_alloc(qtype_row_bytes(t, N), e);
    float *y = heap_alloc(N * sizeof *y, e);
    struct rng rng = { 1 };
    double sum = 0;
    FAIL_IF(!row || !y, e, ERR_NOMEM, "no memory for a row of %d weights", N);
    for (int r = 0; r < N_ROWS; r++) {
        random_row(t, &rng, N, 1.0, row);
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
