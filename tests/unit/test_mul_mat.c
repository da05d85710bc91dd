/* SPDX-License-Identifier: MIT
 * test_mul_mat.c - products of every type in every column against exact arithmetic.
 *
 * The exact product sums dequantised weights times dequantised activations (the very bytes that the
 * cell gets) in double. A case is named by type, column, filling, n and seed; within it every
 * number of rows and tokens is tried on the same data.
 *
 * Errors are judged as a mean square over the mean square of the exact values of the whole case: a
 * single small element that cancels must not decide. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend.h"
#include "base/arena.h"
#include "base/fp16.h"
#include "base/rng.h"

#define MAX_ROWS 64
#define MAX_TOK 67
#define PAD 3              /* floats after every row of dst, and before the first */
#define CANARY 0xdeadbeefu /* what they hold */

/* FILL_QUIET: activations whose scales of 8 bits are subnormal, so that -128 is among their bytes.
 */
enum fill { FILL_RANDOM, FILL_ZERO, FILL_LARGE, FILL_EXTREME, FILL_count, FILL_QUIET = FILL_count };
static const char *const fill_names[] = { "random", "zero", "large scales", "extreme", "quiet" };

struct cell_case {
    enum qtype t;
    enum column col;
    enum fill fill;
    int64_t n;
    uint64_t seed;
    const struct qkernel *k;

    char *w_block, *x_block, *laid, *dst_block, *scratch;
    const char *w; // [MAX_ROWS, n], as badly aligned as the type allows
    size_t w_stride;
    char *x; // [MAX_TOK, n] of type k->act
    size_t x_stride;
    float *x_f32;  // [MAX_TOK, n]
    double *exact; // [MAX_TOK, MAX_ROWS]
    double mean_square;
};

static void *must_alloc(size_t n) {
    void *p = heap_alloc(n, NULL);
    assert_non_null(p);
    return p;
}

static const char *describe(const struct cell_case *c) {
    static char s[200];
    snprintf(s, sizeof s, "%s@%s, %s, n %lld, seed %llu", qtype_info(c->t)->name,
             column_name(c->col), fill_names[c->fill], (long long)c->n,
             (unsigned long long)c->seed);
    return s;
}

/* The trellis index whose outputs are the largest: the hardest one for 16-bit sums. */
static uint16_t loudest_index(void) {
    const uint32_t powers[8] = KT_POWERS;
    int best = 0;
    uint16_t found = 0;
    for (uint32_t i = 0; i < 32768; i++) {
        int sum = 0;
        for (int k = 0; k < 4; k++)
            sum += abs(kt_value(powers[k] * (i + KT_BASE)));
        if (sum > best) {
            best = sum;
            found = (uint16_t)i;
        }
    }
    return found;
}

static bool is_float(enum qtype t) {
    return t == QT_f32 || t == QT_f16 || t == QT_bf16;
}

static bool has_row_scale(enum qtype t) {
    return qtype_info(t)->row_meta == KT_ROW_META;
}

static float random_scale(const struct cell_case *c, struct rng *r) {
    const double sign = rng_below(r, 2) ? 1.0 : -1.0;
    if (c->fill == FILL_LARGE) return (float)(sign * (has_row_scale(c->t) ? 1e28 : 65504.0));
    return (float)(sign * (0.5 + rng_uniform(r)) * 0x1p-6);
}

static void fill_float_row(const struct cell_case *c, struct rng *r, char *row) {
    for (int64_t i = 0; i < c->n; i++) {
        float v = (float)rng_normal(r);
        if (c->fill == FILL_ZERO) v = 0.0f;
        if (c->fill == FILL_LARGE) v *= 16000.0f;
        if (c->fill == FILL_EXTREME) v = 65504.0f;
        const uint16_t h = c->t == QT_f16 ? f32_to_f16(v) : f32_to_bf16(v);
        if (c->t == QT_f32)
            memcpy(row + 4 * i, &v, 4);
        else
            memcpy(row + 2 * i, &h, 2);
    }
}

/* Random bytes with sane scales in the places where the type keeps them; extreme: the quants that
 * give the largest products. */
static void fill_quant_row(const struct cell_case *c, struct rng *r, char *row, uint16_t loudest) {
    const struct qtype_info *q = qtype_info(c->t);
    const size_t bytes = qtype_row_bytes(c->t, c->n);
    if (c->fill == FILL_ZERO) {
        memset(row, 0, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        row[i] = (char)rng_u64(r);
    if (c->fill == FILL_EXTREME) {
        memset(row, c->t == QT_q8_0 ? 0x80 : 0xff, bytes);
        for (size_t i = q->row_meta; has_row_scale(c->t) && i + 1 < bytes; i += 2)
            memcpy(row + i, &loudest, 2);
    }
    if (has_row_scale(c->t)) {
        const float d = random_scale(c, r);
        memcpy(row, &d, sizeof d);
        return;
    }
    for (size_t b = 0; b < bytes; b += q->blk_bytes) {
        const uint16_t d = f32_to_f16(random_scale(c, r)), m = f32_to_f16(random_scale(c, r));
        memcpy(row + b, &d, 2);
        if (c->t == QT_q4_1 || c->t == QT_q5_1) memcpy(row + b + 2, &m, 2);
    }
}

static void fill_weights(struct cell_case *c, struct rng *r) {
    const size_t row_bytes = qtype_row_bytes(c->t, c->n);
    const size_t align = c->t == QT_f32 || has_row_scale(c->t) ? 4 : 2;
    const uint16_t loudest = loudest_index();
    c->w_stride = row_bytes + align;
    c->w_block = must_alloc(align + MAX_ROWS * c->w_stride);
    for (int i = 0; i < MAX_ROWS; i++) {
        char *row = c->w_block + align + (size_t)i * c->w_stride;
        if (is_float(c->t))
            fill_float_row(c, r, row);
        else
            fill_quant_row(c, r, row, loudest);
    }
    c->w = c->w_block + align;
}

static void fill_activations(struct cell_case *c, struct rng *r) {
    c->x_f32 = must_alloc((size_t)(MAX_TOK * c->n) * sizeof(float));
    for (int64_t i = 0; i < MAX_TOK * c->n; i++)
        c->x_f32[i] =
            c->fill == FILL_EXTREME ? (i / c->n % 2 ? -1.0f : 1.0f) : (float)(rng_normal(r) + 0.25);
    for (int64_t i = 0; c->fill == FILL_QUIET && i < MAX_TOK * c->n; i++)
        c->x_f32[i] *= 2e-37f;
    const struct qkernel *act = qkernel_find(COL_ref, c->k->act, false, NULL);
    c->x_stride = qtype_row_bytes(c->k->act, c->n);
    const size_t align = c->k->act == QT_f32 || c->k->act == QT_q8_k_tile ? 4 : 2;
    c->x_block = must_alloc(align + MAX_TOK * c->x_stride);
    c->x = c->x_block + align;
    char *aligned = must_alloc(c->x_stride);
    for (int64_t t = 0; t < MAX_TOK; t++) {
        act->quantize_row(c->x_f32 + t * c->n, aligned, c->n, NULL);
        memcpy(c->x + (size_t)t * c->x_stride, aligned, c->x_stride);
    }
    heap_free(aligned);
}

/* What the cell should compute, summed in double. */
static void multiply_exactly(struct cell_case *c) {
    const struct qkernel *wk = qkernel_find(COL_ref, c->t, false, NULL);
    const struct qkernel *xk = qkernel_find(COL_ref, c->k->act, false, NULL);
    const size_t row = (size_t)c->n * sizeof(float);
    float *w = must_alloc(MAX_ROWS * row), *wt = must_alloc(MAX_ROWS * row), *x = must_alloc(row);
    for (int r = 0; r < MAX_ROWS; r++) {
        const char *from = c->w + (size_t)r * c->w_stride;
        wk->dequant_row(from, w + r * c->n, c->n);
        qtype_round_weights(c->t, c->k->act, from, w + r * c->n, c->n);
    }
    for (int64_t i = 0; i < c->n; i++)
        for (int r = 0; r < MAX_ROWS; r++)
            wt[i * MAX_ROWS + r] = w[r * c->n + i];
    c->exact = must_alloc(MAX_TOK * MAX_ROWS * sizeof *c->exact);
    double square = 0.0;
    for (int64_t t = 0; t < MAX_TOK; t++) {
        double sum[MAX_ROWS] = { 0 };
        xk->dequant_row(c->x + (size_t)t * c->x_stride, x, c->n);
        for (int64_t i = 0; i < c->n; i++)
            for (int r = 0; r < MAX_ROWS; r++)
                sum[r] += (double)wt[i * MAX_ROWS + r] * (double)x[i];
        for (int r = 0; r < MAX_ROWS; r++) {
            c->exact[t * MAX_ROWS + r] = qtype_info(c->t)->gain * sum[r];
            square += c->exact[t * MAX_ROWS + r] * c->exact[t * MAX_ROWS + r];
        }
    }
    c->mean_square = square / (MAX_TOK * MAX_ROWS);
    heap_free(w);
    heap_free(wt);
    heap_free(x);
}

static struct cell_case case_make(enum qtype t, enum column col, enum fill fill, int64_t n,
                                  uint64_t seed) {
    struct cell_case c = { .t = t, .col = col, .fill = fill, .n = n, .seed = seed };
    struct rng r = { seed };
    c.k = qkernel_find(col, t, true, NULL);
    fill_weights(&c, &r);
    fill_activations(&c, &r);
    multiply_exactly(&c);
    c.laid = must_alloc((size_t)qkernel_act_rows(c.k, MAX_TOK) * c.x_stride);
    c.scratch = must_alloc(c.k->mul_mat_scratch(n));
    c.dst_block = must_alloc((PAD + MAX_TOK * (MAX_ROWS + PAD)) * sizeof(float));
    return c;
}

static void case_release(struct cell_case *c) {
    heap_free(c->w_block);
    heap_free(c->x_block);
    heap_free(c->laid);
    heap_free(c->x_f32);
    heap_free(c->exact);
    heap_free(c->scratch);
    heap_free(c->dst_block);
}

/* Activations of tokens [t0, t0 + n_tok) as the cell wants them: where they are, as badly aligned
 * as the type allows, or in groups, whose places without a token hold NaN. */
static const char *case_acts(struct cell_case *c, int64_t t0, int64_t n_tok) {
    const char *x = c->x + (size_t)t0 * c->x_stride;
    if (!c->k->act_group) return x;
    memset(c->laid, 0xff, (size_t)qkernel_act_rows(c->k, n_tok) * c->x_stride);
    for (int64_t t = 0; t < n_tok; t++)
        for (size_t i = 0; i < c->x_stride; i += 64, x += 64)
            memcpy(act_in_group(c->laid, c->x_stride, t, c->k->act_group) +
                       i * (size_t)c->k->act_group,
                   x, 64);
    return c->laid;
}

/* Multiply rows [r0, r0 + n_rows) by tokens [t0, t0 + n_tok) into a padded dst, and check the
 * padding. The stride is n_rows + PAD. */
static const float *case_run(struct cell_case *c, int64_t t0, int64_t r0, int64_t n_rows,
                             int64_t n_tok) {
    uint32_t *block = (uint32_t *)(void *)c->dst_block;
    const int64_t stride = n_rows + PAD, total = PAD + n_tok * stride;
    float *dst = (float *)(void *)c->dst_block + PAD;
    for (int64_t i = 0; i < total; i++)
        block[i] = CANARY;
    c->k->mul_mat(c->n, c->w + (size_t)r0 * c->w_stride, c->w_stride, n_rows,
                  case_acts(c, t0, n_tok), c->x_stride, n_tok, dst, stride, c->scratch);
    for (int64_t i = 0; i < total; i++)
        if ((i < PAD || (i - PAD) % stride >= n_rows) && block[i] != CANARY)
            fail_msg("%s, %lld rows, %lld tokens: wrote outside dst, at float %lld", describe(c),
                     (long long)n_rows, (long long)n_tok, (long long)(i - PAD));
    return dst;
}

/* Errors of all elements and of the worst row of weights, over the mean square of the case. A row
 * of one token may stray as far as any element may, 25 times the mean; one of n tokens 1 + 24 / n.
 */
static void case_check(struct cell_case *c, int64_t n_rows, int64_t n_tok, double *largest) {
    const float *dst = case_run(c, 0, 0, n_rows, n_tok);
    double all = 0.0, worst = 0.0;
    const double limit = c->k->tol_nmse * c->mean_square;
    int64_t bad_r = -1, bad_t = -1;
    for (int64_t r = 0; r < n_rows; r++) {
        double row = 0.0, row_exact = 0.0;
        for (int64_t t = 0; t < n_tok; t++) {
            const double want = c->exact[t * MAX_ROWS + r];
            const double e = (double)dst[t * (n_rows + PAD) + r] - want;
            row += e * e;
            row_exact += want * want;
            /* 25 times the promised mean: no single element strays far, and none is NaN. */
            if (bad_r < 0 && !(e * e <= 25.0 * fmax(limit, c->k->tol_nmse * want * want))) {
                bad_r = r;
                bad_t = t;
            }
        }
        all += row;
        row /= fmax((double)n_tok * c->mean_square, row_exact);
        worst = fmax(worst, row / (1.0 + 24.0 / (double)n_tok));
    }
    all /= (double)(n_rows * n_tok) * c->mean_square;
    if (c->mean_square == 0.0) all = worst = bad_r < 0 ? 0.0 : INFINITY;
    *largest = fmax(*largest, worst);
    if (bad_r >= 0 || !(worst <= c->k->tol_nmse))
        fail_msg("%s, %lld rows, %lld tokens: NMSE %.3g, worst row %.3g, promised %.3g; first bad "
                 "element row %lld, token %lld: got %.9g, expected %.9g",
                 describe(c), (long long)n_rows, (long long)n_tok, all, worst, c->k->tol_nmse,
                 (long long)bad_r, (long long)bad_t,
                 bad_r < 0 ? NAN : (double)dst[bad_t * (n_rows + PAD) + bad_r],
                 bad_r < 0 ? NAN : c->exact[bad_t * MAX_ROWS + bad_r]);
}

static const int64_t rows_tried[] = { 1, 2, 3, 7, 8, 9, 17, 33, 64 };
static const int64_t tokens_tried[] = { 1, 2, 3, 4, 5, 7, 8, 9, 17, 33, 67 };

/* A row computed alone has the bits it has among others: results do not depend on chunks. */
static void case_check_chunks(struct cell_case *c) {
    static const int64_t tokens[] = { 1, 4, 9 };
    float whole[9 * MAX_ROWS];
    for (size_t i = 0; i < N_ELEMS(tokens); i++) {
        const float *dst = case_run(c, 0, 0, 37, tokens[i]);
        for (int64_t t = 0; t < tokens[i]; t++)
            memcpy(whole + t * 37, dst + t * (37 + PAD), 37 * sizeof *dst);
        for (int64_t r = 0; r < 37; r++) {
            dst = case_run(c, 0, r, 1, tokens[i]);
            for (int64_t t = 0; t < tokens[i]; t++)
                if (f32_bits(dst[t * (1 + PAD)]) != f32_bits(whole[t * 37 + r]))
                    fail_msg("%s, %lld tokens: row %lld alone gives %a for token %lld, among "
                             "others %a",
                             describe(c), (long long)tokens[i], (long long)r,
                             (double)dst[t * (1 + PAD)], (long long)t, (double)whole[t * 37 + r]);
        }
    }
}

/* A matrix of more rows than any cell decodes at a time, made of the case's rows again and again:
 * each has the bits of its original. */
static void case_check_many_rows(struct cell_case *c) {
    enum { MANY = 511 };
    static const int64_t tokens[] = { 1, 2, 9 };
    char *rows = must_alloc(MANY * c->w_stride);
    float *got = must_alloc(9 * MANY * sizeof *got);
    for (int64_t r = 0; r < MANY; r++)
        memcpy(rows + (size_t)r * c->w_stride, c->w + (size_t)(r % MAX_ROWS) * c->w_stride,
               qtype_row_bytes(c->t, c->n));
    for (size_t i = 0; i < N_ELEMS(tokens); i++) {
        const float *want = case_run(c, 0, 0, MAX_ROWS, tokens[i]);
        c->k->mul_mat(c->n, rows, c->w_stride, MANY, case_acts(c, 0, tokens[i]), c->x_stride,
                      tokens[i], got, MANY, c->scratch);
        for (int64_t j = 0; j < tokens[i] * MANY; j++) {
            const float w = want[j / MANY * (MAX_ROWS + PAD) + j % MANY % MAX_ROWS];
            if (f32_bits(got[j]) != f32_bits(w))
                fail_msg("%s, %d rows, %lld tokens: row %lld of token %lld is %a, among %d rows %a",
                         describe(c), MANY, (long long)tokens[i], (long long)(j % MANY),
                         (long long)(j / MANY), (double)got[j], MAX_ROWS, (double)w);
        }
    }
    heap_free(rows);
    heap_free(got);
}

/* A token has the bits in any call that it has in the longest one, whatever its place. */
static void case_check_tokens(struct cell_case *c) {
    enum { N_ROWS = 19 };
    static const int64_t tokens[] = { 1, 2, 3, 5, 7, 33 };
    float *whole = must_alloc(MAX_TOK * N_ROWS * sizeof *whole);
    const float *dst = case_run(c, 0, 0, N_ROWS, MAX_TOK);
    for (int64_t t = 0; t < MAX_TOK; t++)
        memcpy(whole + t * N_ROWS, dst + t * (N_ROWS + PAD), N_ROWS * sizeof *dst);
    for (size_t i = 0; i < N_ELEMS(tokens); i++)
        for (int64_t t0 = 0; t0 < MAX_TOK; t0 += tokens[i]) {
            const int64_t n_tok = tokens[i] < MAX_TOK - t0 ? tokens[i] : MAX_TOK - t0;
            dst = case_run(c, t0, 0, N_ROWS, n_tok);
            for (int64_t j = 0; j < n_tok * N_ROWS; j++) {
                const float got = dst[j / N_ROWS * (N_ROWS + PAD) + j % N_ROWS];
                const float want = whole[t0 * N_ROWS + j];
                if (f32_bits(got) != f32_bits(want))
                    fail_msg("%s, row %lld, token %lld: %a in a call of %lld tokens, %a in one of "
                             "%d",
                             describe(c), (long long)(j % N_ROWS), (long long)(t0 + j / N_ROWS),
                             (double)got, (long long)n_tok, (double)want, MAX_TOK);
            }
        }
    heap_free(whole);
}

/* A NaN in one token makes all of its results NaN and touches no other. */
static void case_check_nan(struct cell_case *c) {
    static const int64_t tokens[] = { 1, 3, 9, 33 };
    const struct qkernel *act = qkernel_find(c->col, c->k->act, false, NULL);
    if (!act->quantize_row) act = qkernel_find(COL_ref, c->k->act, false, NULL);
    for (size_t i = 0; i < N_ELEMS(tokens); i++) {
        const int64_t bad = tokens[i] / 2;
        char *row = c->x + (size_t)bad * c->x_stride;
        float *x = c->x_f32 + bad * c->n;
        const float kept = x[c->n - 5];
        char *aligned = must_alloc(c->x_stride), *saved = must_alloc(c->x_stride);
        memcpy(saved, row, c->x_stride);
        x[c->n - 5] = NAN;
        act->quantize_row(x, aligned, c->n, NULL);
        memcpy(row, aligned, c->x_stride);
        const float *dst = case_run(c, 0, 0, 17, tokens[i]);
        for (int64_t t = 0; t < tokens[i]; t++)
            for (int64_t r = 0; r < 17; r++)
                if (!isnan(dst[t * (17 + PAD) + r]) != (t != bad))
                    fail_msg("%s, %lld tokens, NaN in token %lld: row %lld of token %lld is %g",
                             describe(c), (long long)tokens[i], (long long)bad, (long long)r,
                             (long long)t, (double)dst[t * (17 + PAD) + r]);
        x[c->n - 5] = kept;
        memcpy(row, saved, c->x_stride);
        heap_free(aligned);
        heap_free(saved);
    }
}

/* Results whose rows are whole lines, near each other and so far apart that all of them do not fit
 * in a cache: a cell may write them in another way, and leaves the same bits. */
static void case_check_lines(struct cell_case *c) {
    static const int64_t strides[] = { MAX_ROWS, 32768 + 16 };
    const float *plain = case_run(c, 0, 0, MAX_ROWS, MAX_TOK);
    for (size_t i = 0; i < N_ELEMS(strides); i++) {
        const size_t n_bytes = (size_t)(MAX_TOK * strides[i]) * sizeof(float);
        float *dst = must_alloc(n_bytes);
        assert_int_equal((uintptr_t)dst % 64, 0);
        memset(dst, 0xff, n_bytes);
        c->k->mul_mat(c->n, c->w, c->w_stride, MAX_ROWS, case_acts(c, 0, MAX_TOK), c->x_stride,
                      MAX_TOK, dst, strides[i], c->scratch);
        for (int64_t t = 0; t < MAX_TOK; t++)
            for (int64_t r = 0; r < strides[i]; r++) {
                uint32_t got, want = 0xffffffffu;
                if (r < MAX_ROWS) memcpy(&want, plain + t * (MAX_ROWS + PAD) + r, sizeof want);
                memcpy(&got, dst + t * strides[i] + r, sizeof got);
                if (got != want)
                    fail_msg("%s, stride %lld: row %lld of token %lld has other bits", describe(c),
                             (long long)strides[i], (long long)r, (long long)t);
            }
        heap_free(dst);
    }
}

/* A packed copy gives one token the bits that the weights do, from any group of rows on, and takes
 * the memory that it says. */
static void case_check_packed(struct cell_case *c) {
    static const int64_t rows[] = { 1, 15, 16, 17, 33, 64 };
    const struct qkernel *k = c->k;
    const size_t row_bytes = k->pack_row_bytes(c->n);
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        const struct packed p = { .cell = k, .row_bytes = row_bytes };
        const size_t n_bytes = packed_bytes(&p, rows[i]);
        char *packed = must_alloc(n_bytes + 64);
        assert_int_equal(n_bytes % 64, 0);
        memset(packed, 0x5a, n_bytes + 64);
        k->pack(c->n, c->w, c->w_stride, rows[i], packed);
        for (int b = 0; b < 64; b++)
            assert_int_equal(packed[n_bytes + (size_t)b], 0x5a);
        for (int64_t t = 0; t < MAX_TOK; t += 11)
            for (int64_t r = 0; r < rows[i]; r += PACK_ROWS) {
                const int64_t n_rows = rows[i] - r;
                const float *want = case_run(c, t, r, n_rows, 1);
                float got[MAX_ROWS + PAD];
                memset(got, 0xff, sizeof got);
                k->mul_packed(c->n, packed + (size_t)r * row_bytes, row_bytes, n_rows,
                              case_acts(c, t, 1), c->x_stride, got, c->scratch);
                if (memcmp(got, want, (size_t)n_rows * sizeof *got) != 0)
                    fail_msg("%s, rows %lld to %lld, packed: token %lld has other bits",
                             describe(c), (long long)r, (long long)rows[i], (long long)t);
                for (int j = 0; j < PAD; j++)
                    assert_int_equal(f32_bits(got[n_rows + j]), 0xffffffffu);
            }
        heap_free(packed);
    }
}

static void check_type(enum qtype t, enum column col) {
    static const int64_t n_tried[] = { 256, 512, 768, 1024, 4096, 32, 96, 160, 4096 + 256, 37 };
    double largest = 0.0;
    for (size_t i = 0; i < N_ELEMS(n_tried); i++) {
        const int64_t multiple = qkernel_find(col, t, true, NULL)->row_multiple;
        if (n_tried[i] % qtype_info(t)->n_blk || (multiple && n_tried[i] % multiple)) continue;
        for (int f = 0; f < FILL_count; f++) {
            if (f != FILL_RANDOM && n_tried[i] != 256 && n_tried[i] != 160 &&
                !(f == FILL_EXTREME && n_tried[i] == 512))
                continue;
            struct cell_case c = case_make(t, col, (enum fill)f, n_tried[i], 1000 * i + 7);
            for (size_t a = 0; a < N_ELEMS(rows_tried); a++)
                for (size_t b = 0; b < N_ELEMS(tokens_tried); b++)
                    case_check(&c, rows_tried[a], tokens_tried[b], &largest);
            if (n_tried[i] <= 512) case_check_chunks(&c);
            if (n_tried[i] == 256 || n_tried[i] == 160) case_check_many_rows(&c);
            case_check_tokens(&c);
            if (c.k->pack) case_check_packed(&c);
            if (f == FILL_RANDOM && n_tried[i] <= 512) case_check_lines(&c);
            if (n_tried[i] == 256 || n_tried[i] == 96) case_check_nan(&c);
            case_release(&c);
        }
    }
    if (qkernel_find(col, t, true, NULL)->act == QT_q8_2_x4) {
        struct cell_case c = case_make(t, col, FILL_QUIET, 512, 1);
        case_check_tokens(&c);
        if (c.k->pack) case_check_packed(&c);
        case_release(&c);
    }
    print_message("# %s@%s: largest NMSE of a row %.2g, promised %.2g\n", qtype_info(t)->name,
                  column_name(col), largest, qkernel_find(col, t, true, NULL)->tol_nmse);
}

static void cells_against_exact(void **state) {
    (void)state;
    for (int c = 0; column_is_cpu((enum column)c); c++)
        for (int t = 0; t < QT_count; t++) {
            enum column owner = COL_none;
            if (!column_available((enum column)c) ||
                !qkernel_find((enum column)c, (enum qtype)t, true, &owner) || (int)owner != c)
                continue;
            check_type((enum qtype)t, (enum column)c);
        }
}

struct op_run {
    const struct op_cell *cell;
    const struct node *node;
};

static void run_op(void *arg, struct work *w) {
    const struct op_run *o = arg;
    o->cell->run(o->node, w);
}

static void run_node(enum column col, const struct node *node, int n_threads,
                     struct thread_pool *pool) {
    struct op_run o = { op_cell_find(col, node, NULL), node };
    struct err e = { 0 };
    assert_non_null(o.cell);
    if (thread_pool_reserve(pool, o.cell->shared_bytes ? o.cell->shared_bytes(node) : 0,
                            o.cell->scratch_bytes ? o.cell->scratch_bytes(node) : 0, &e))
        fail_msg("%s", e.msg);
    thread_pool_run(pool, n_threads, run_op, &o);
}

/* The op on 1 and 2 threads: the same bits, and the product of the case. A column may leave calls
 * of few tokens to its parent, so the numbers of tokens are on both sides of that. */
static void check_op(enum qtype t, enum column col, int n_tok, struct thread_pool *pool) {
    enum { N_ROWS = 61 };
    enum column owner = COL_avx2; /* ref rounds activations as it does */
    if (col != COL_ref) qkernel_for(col, t, 512, n_tok, &owner);
    struct cell_case c = case_make(t, owner, FILL_RANDOM, 512, 99);
    float dst[2][MAX_TOK * N_ROWS];
    struct tensor w = { t, { c.n, N_ROWS, 1, 1 }, c.w_stride, c.w_block + (c.w - c.w_block), "w" };
    struct tensor x = { QT_f32, { c.n, n_tok, 1, 1 }, (size_t)c.n * 4, c.x_f32, "x" };
    for (int i = 0; i < 2; i++) {
        struct tensor d = { QT_f32, { N_ROWS, n_tok, 1, 1 }, N_ROWS * 4, dst[i], "dst" };
        struct node node = { .op = OP_mul_mat, .dst = &d, .src = { &w, &x } };
        node.p.mul_mat.act = c.k->act;
        run_node(col, &node, i + 1, pool);
    }
    const int n_dst = n_tok * N_ROWS;
    if (memcmp(dst[0], dst[1], (size_t)n_dst * sizeof(float)) != 0)
        fail_msg("%s: 1 and 2 threads give different bits", describe(&c));
    double err = 0.0;
    for (int i = 0; i < n_dst; i++) {
        const double e = (double)dst[0][i] - c.exact[i / N_ROWS * MAX_ROWS + i % N_ROWS];
        err += e * e / n_dst;
    }
    if (!(err <= c.k->tol_nmse * c.mean_square))
        fail_msg("%s, op of column %s: NMSE %.3g", describe(&c), column_name(col),
                 err / c.mean_square);
    case_release(&c);
}

static void op_on_threads(void **state) {
    (void)state;
    struct thread_pool *pool;
    struct err e = { 0 };
    if (thread_pool_new(&pool, 2, &e)) fail_msg("%s", e.msg);
    for (int c = 0; column_is_cpu((enum column)c); c++)
        for (int t = 0; t < QT_count; t++)
            if (column_available((enum column)c) && column_available(COL_avx2) &&
                qkernel_find(COL_avx2, (enum qtype)t, true, NULL) &&
                (c == COL_ref || qkernel_find((enum column)c, (enum qtype)t, true, NULL))) {
                check_op((enum qtype)t, (enum column)c, 13, pool);
                check_op((enum qtype)t, (enum column)c, 51, pool);
            }
    thread_pool_free(pool);
}

/* One token reads the packed copy of a node, here one of the next rows, so that it shows; more
 * tokens, and cells that the copy is not for, read the weights. */
static void check_op_packed(enum qtype t, enum column col, const struct qkernel *k,
                            struct thread_pool *pool) {
    enum { N_ROWS = 61 };
    struct cell_case c = case_make(t, col, FILL_RANDOM, 512, 5);
    float plain[2 * (N_ROWS + 1)], got[2 * N_ROWS];
    const struct qkernel other = *k;
    struct packed copy = { .cell = k, .row_bytes = k->pack_row_bytes(c.n) };
    copy.data = must_alloc(packed_bytes(&copy, N_ROWS));
    k->pack(c.n, c.w + c.w_stride, c.w_stride, N_ROWS, copy.data);
    for (int n_tok = 1; n_tok <= 2; n_tok++)
        for (int wrong = 0; wrong < 2; wrong++) {
            struct tensor w = { .type = t, .ne = { c.n, N_ROWS + 1, 1, 1 } };
            struct tensor x = { .type = QT_f32, .ne = { c.n, n_tok, 1, 1 }, .data = c.x_f32 };
            struct tensor d = { .type = QT_f32, .ne = { N_ROWS + 1, n_tok, 1, 1 }, .data = plain };
            struct node node = { .op = OP_mul_mat, .dst = &d, .src = { &w, &x } };
            w.row_bytes = c.w_stride;
            w.data = c.w_block + (c.w - c.w_block);
            x.row_bytes = (size_t)c.n * sizeof(float);
            d.row_bytes = (N_ROWS + 1) * sizeof(float);
            run_node(col, &node, 2, pool);
            copy.cell = wrong ? &other : k;
            node.packed = &copy;
            w.ne[1] = d.ne[0] = N_ROWS;
            d.row_bytes = N_ROWS * sizeof(float);
            d.data = got;
            run_node(col, &node, 2, pool);
            const int next = n_tok == 1 && !wrong;
            for (int i = 0; i < n_tok * N_ROWS; i++)
                if (f32_bits(got[i]) !=
                    f32_bits(plain[i / N_ROWS * (N_ROWS + 1) + i % N_ROWS + next]))
                    fail_msg("%s, %d tokens, %s copy: row %d is that of the %s", describe(&c),
                             n_tok, wrong ? "another cell's" : "a", i % N_ROWS,
                             next ? "weights" : "copy");
        }
    heap_free(copy.data);
    case_release(&c);
}

static void op_with_packed_copy(void **state) {
    (void)state;
    struct thread_pool *pool;
    struct err e = { 0 };
    if (thread_pool_new(&pool, 2, &e)) fail_msg("%s", e.msg);
    for (int c = 0; column_is_cpu((enum column)c); c++)
        for (int t = 0; t < QT_count; t++) {
            enum column owner = COL_none;
            if (!column_available((enum column)c)) continue;
            const struct qkernel *k = qkernel_for((enum column)c, (enum qtype)t, 512, 1, &owner);
            if (k && k->pack && owner == (enum column)c)
                check_op_packed((enum qtype)t, (enum column)c, k, pool);
        }
    thread_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_against_exact),
        cmocka_unit_test(op_on_threads),
        cmocka_unit_test(op_with_packed_copy),
    };
    return cmocka_run_group_tests_name("mul_mat", tests, NULL, NULL);
}
