/* SPDX-License-Identifier: MIT
 * test_qtype.c - dequantisation of every type in every column, bit for bit against golden vectors;
 * quantisation of activations; the facts of the table; the generator of the trellis types.
 *
 * One row of each vector is in tests/golden/quants; the whole vectors are read from
 * ../shared/vectors where they exist. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend.h"
#include "base/fp16.h"
#include "base/rng.h"
#include "read_file.h"

#define GOLDEN "tests/golden/quants/"
#define SHARED "../shared/vectors/"
#define ROW 1024 /* weights per row of every vector */

/* Index of the first element whose bits differ, or -1. */
static int64_t first_difference(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (f32_bits(a[i]) != f32_bits(b[i]) && !(isnan(a[i]) && isnan(b[i]))) return i;
    return -1;
}

/* Returns false if the vector does not exist. */
static bool check_dequant(enum qtype t, const char *dir, const char *stem, const char *quant,
                          const char *dequant) {
    size_t n_bytes, n_want;
    char *rows = read_file(dir, stem, quant, &n_bytes);
    if (!rows) return false;
    float *want = read_file(dir, stem, dequant, &n_want);
    assert_non_null(want);
    const size_t row_bytes = qtype_row_bytes(t, ROW);
    assert_int_equal(n_bytes % row_bytes, 0);
    assert_int_equal(n_bytes / row_bytes * ROW * sizeof(float), n_want);
    for (int c = 0; column_is_cpu((enum column)c); c++) {
        enum column owner;
        if (!column_available((enum column)c)) continue;
        const struct qkernel *k = qkernel_find((enum column)c, t, false, &owner);
        if (!k || (int)owner != c || !k->dequant_row) continue;
        for (size_t r = 0; r < n_bytes / row_bytes; r++) {
            float got[ROW];
            k->dequant_row(rows + r * row_bytes, got, ROW);
            int64_t i = first_difference(got, want + r * ROW, ROW);
            if (i >= 0)
                fail_msg("%s%s%s, column %s, row %zu, weight %lld: got %a, expected %a", dir, stem,
                         quant, column_name((enum column)c), r, (long long)i, (double)got[i],
                         (double)want[r * ROW + (size_t)i]);
        }
    }
    free(rows);
    free(want);
    return true;
}

/* Types of weights that need decoding: an f32 is its own value, and activations have their own
 * vectors. */
static bool is_decoded(enum qtype t) {
    return qtype_has_cell(COL_ref, t) && t != QT_f32 && !qtype_is_act(t);
}

static void dequant_golden(void **state) {
    (void)state;
    for (int t = 0; t < QT_count; t++) {
        char edge[40];
        if (!is_decoded((enum qtype)t)) continue;
        const char *name = qtype_info((enum qtype)t)->name;
        snprintf(edge, sizeof edge, "edge_%s", name);
        if (!check_dequant((enum qtype)t, GOLDEN, name, ".quant.bin", ".dequant.f32") ||
            !check_dequant((enum qtype)t, GOLDEN, edge, ".quant.bin", ".dequant.f32"))
            fail_msg("type %s has no golden vector in " GOLDEN, name);
    }
}

static void dequant_shared(void **state) {
    (void)state;
    int n_found = 0;
    for (int t = 0; t < QT_count; t++) {
        char edge[40];
        if (!is_decoded((enum qtype)t)) continue;
        const char *name = qtype_info((enum qtype)t)->name;
        snprintf(edge, sizeof edge, "edge_%s", name);
        n_found += check_dequant((enum qtype)t, SHARED, name, ".quant.bin", ".dequant.f32");
        n_found +=
            check_dequant((enum qtype)t, SHARED, name, ".noimat.quant.bin", ".noimat.dequant.f32");
        n_found += check_dequant((enum qtype)t, SHARED, edge, ".quant.bin", ".dequant.f32");
    }
    if (!n_found) skip();
}

/* Compare the bytes that column c makes of x [n_rows, ROW] with want. */
static void check_quantize(enum qtype t, enum column c, const char *what, const float *x,
                           const unsigned char *want, size_t n_rows) {
    const size_t row_bytes = qtype_row_bytes(t, ROW);
    const struct qkernel *k = qkernel_find(c, t, false, NULL);
    unsigned char got[4 * ROW];
    assert_true(row_bytes <= sizeof got);
    for (size_t r = 0; r < n_rows; r++) {
        k->quantize_row(x + r * ROW, got, ROW, NULL);
        for (size_t i = 0; i < row_bytes; i++)
            if (got[i] != want[r * row_bytes + i])
                fail_msg("%s, column %s, row %zu, byte %zu: got %d, expected %d", what,
                         column_name(c), r, i, got[i], want[r * row_bytes + i]);
    }
}

static bool has_own_quantize(enum column c, enum qtype t) {
    if (!column_available(c) || !qtype_has_cell(c, t)) return false;
    return qkernel_find(c, t, false, NULL)->quantize_row != NULL;
}

static bool check_quantize_files(enum qtype t, const char *dir, const char *stem,
                                 const char *quant) {
    size_t n_src, n_want;
    float *x = read_file(dir, stem, ".src.f32", &n_src);
    if (!x) return false;
    unsigned char *want = read_file(dir, stem, quant, &n_want);
    assert_non_null(want);
    const size_t n_rows = n_src / sizeof *x / ROW;
    assert_int_equal(n_want, n_rows * qtype_row_bytes(t, ROW));
    for (int c = 0; column_is_cpu((enum column)c); c++)
        if (has_own_quantize((enum column)c, t))
            check_quantize(t, (enum column)c, stem, x, want, n_rows);
    free(x);
    free(want);
    return true;
}

static void quantize_golden(void **state) {
    (void)state;
    assert_true(check_quantize_files(QT_q8_2_x4, GOLDEN, "act_q8_2_x4", ".quant.bin"));
    assert_true(check_quantize_files(QT_q8_k_tile, GOLDEN, "act_q8_k_tile", ".quant.bin"));
}

static void quantize_shared(void **state) {
    (void)state;
    if (!check_quantize_files(QT_q8_2_x4, SHARED, "act_q8_2_x4", ".quant.bin")) skip();
    assert_true(check_quantize_files(QT_q8_0, SHARED, "q8_0", ".noimat.quant.bin"));
    assert_true(check_quantize_files(QT_f16, SHARED, "f16", ".noimat.quant.bin"));
    assert_true(check_quantize_files(QT_bf16, SHARED, "bf16", ".noimat.quant.bin"));
}

/* Values over the whole range of exponents, ties, zeros and whole blocks of nothing. */
static void hard_row(struct rng *r, float *x, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++) {
        const uint32_t kind = rng_below(r, 6);
        const int shift = (int)rng_below(r, 270) - 145;
        for (int i = 0; i < 32; i++, x++) {
            double u = 2.0 * rng_uniform(r) - 1.0;
            *x = (float)ldexp(kind == 0   ? u
                              : kind == 1 ? rng_normal(r)
                              : kind == 2 ? 0.5 * ((double)rng_below(r, 511) - 255.0)
                              : kind == 3 ? (rng_below(r, 16) ? 0.0 : u)
                              : kind == 4 ? (i == 7 ? 1.0 : u * 0x1p-20)
                                          : 0.0,
                              shift);
        }
    }
}

/* Every column gives ref's bytes: any number of blocks, any exponent, tails of groups. */
static void quantize_as_ref(enum qtype t) {
    const struct qkernel *ref = qkernel_find(COL_ref, t, false, NULL);
    const int64_t n_blk = qtype_info(t)->n_blk;
    for (int c = COL_ref + 1; column_is_cpu((enum column)c); c++) {
        if (!has_own_quantize((enum column)c, t)) continue;
        const struct qkernel *k = qkernel_find((enum column)c, t, false, NULL);
        for (uint64_t seed = 1; seed <= 3000; seed++) {
            struct rng r = { seed };
            float x[1280];
            unsigned char want[1600], got[1601];
            const int64_t n = n_blk * (1 + (int64_t)(seed % (n_blk > 32 ? 5 : 16)));
            const int64_t bytes = (int64_t)qtype_row_bytes(t, n);
            hard_row(&r, x, n);
            memset(got, 0xa5, sizeof got);
            ref->quantize_row(x, want, n, NULL);
            k->quantize_row(x, got, n, NULL);
            for (int64_t i = 0; i < bytes; i++)
                if (got[i] != want[i])
                    fail_msg("%s, column %s, seed %llu, n %lld, byte %lld: got %d, expected %d",
                             qtype_info(t)->name, column_name((enum column)c),
                             (unsigned long long)seed, (long long)n, (long long)i, got[i], want[i]);
            assert_int_equal(got[bytes], 0xa5);
        }
    }
}

static void quantize_like_ref(void **state) {
    (void)state;
    quantize_as_ref(QT_q8_2_x4);
    quantize_as_ref(QT_q8_k_tile);
}

/* A NaN or an infinity anywhere in a block leaves a scale that is not finite, with quants that let
 * it through, and leaves the other blocks alone. */
static void quantize_nonfinite(void **state) {
    (void)state;
    const float bad[] = { NAN, -NAN, INFINITY, -INFINITY };
    for (int c = 0; column_is_cpu((enum column)c); c++) {
        if (!has_own_quantize((enum column)c, QT_q8_2_x4)) continue;
        const struct qkernel *k = qkernel_find((enum column)c, QT_q8_2_x4, false, NULL);
        for (int i = 0; i < 4 * 160; i++) {
            float x[160];
            struct blk_q8_2_x4 row[2];
            const int at = i / 4;
            for (int j = 0; j < 160; j++)
                x[j] = (float)(j % 13 - 6);
            x[at] = bad[i % 4];
            x[at ^ 1] = 1e30f; /* the scale must not be decided by a neighbour */
            k->quantize_row(x, row, 160, NULL);
            for (int b = 0; b < 5; b++) {
                struct q8_2_view v = q8_2_x4_block(row, b, 5);
                const float d = bf16_to_f32(v.d);
                if (b != at / 32 && isfinite(d)) continue;
                if (b != at / 32 || isfinite(d) || isnan(d) != isnan(x[at]))
                    fail_msg("column %s, %g at %d: scale of block %d is %g",
                             column_name((enum column)c), (double)x[at], at, b, (double)d);
            }
        }
    }
}

/* The same of q8_k_tile, whose scale is that of two blocks, the last of an odd number alone. */
static void quantize_tile_nonfinite(void **state) {
    (void)state;
    const float bad[] = { NAN, -NAN, INFINITY, -INFINITY };
    for (int c = 0; column_is_cpu((enum column)c); c++) {
        if (!has_own_quantize((enum column)c, QT_q8_k_tile)) continue;
        const struct qkernel *k = qkernel_find((enum column)c, QT_q8_k_tile, false, NULL);
        for (int i = 0; i < 4 * 768; i++) {
            float x[768];
            struct blk_q8_k_tile row[3];
            const int at = i / 4;
            for (int j = 0; j < 768; j++)
                x[j] = (float)(j % 13 - 6);
            x[at] = bad[i % 4];
            x[at ^ 1] = 1e30f;
            k->quantize_row(x, row, 768, NULL);
            for (int b = 0; b < 3; b++) {
                const float d = row[b].d;
                if (b / 2 != at / 512 && d == 6.0f / 127) continue;
                if (b / 2 != at / 512 || isfinite(d) || isnan(d) != isnan(x[at]) ||
                    row[b].qs[at % 256] == 0)
                    fail_msg("column %s, %g at %d: scale of block %d is %g",
                             column_name((enum column)c), (double)x[at], at, b, (double)d);
            }
        }
    }
}

static void table_facts(void **state) {
    (void)state;
    for (int t = 0; t < QT_count; t++) {
        const struct qtype_info *i = qtype_info((enum qtype)t);
        assert_int_equal(qtype_from_gguf(i->gguf_id), t);
        assert_int_equal(qtype_from_name(i->name), t);
        assert_int_equal(qtype_row_bytes((enum qtype)t, 0), i->row_meta);
        assert_int_equal(qtype_row_bytes((enum qtype)t, 3 * i->n_blk),
                         i->row_meta + 3 * i->blk_bytes);
    }
    assert_int_equal(qtype_from_gguf(12345), QT_none);
    assert_int_equal(qtype_from_name("no_such_type"), QT_none);
    assert_int_equal(qtype_from_name("IQ4_KT"), QT_iq4_kt);
    assert_int_equal(qtype_row_bytes(QT_iq4_kt, 1024), 4 + 512);
}

/* The bf16 numbers around x, which is positive: below (or x itself) and the next one. */
static void bf16_around(float x, double *below, double *above) {
    int e;
    frexp((double)x, &e); /* 8 bits of mantissa: a step is 2^(e - 8) */
    const double step = ldexp(1, e - 8);
    *below = floor((double)x / step) * step;
    *above = *below + step;
}

static void weights_as_bf16(void **state) {
    (void)state;
    struct rng r = { 5 };
    float y[512], x[512], d = 0.37f;
    for (int i = 0; i < 512; i++)
        x[i] = y[i] =
            i % 4 < 2 ? (float)(257 + i / 4 * 2) : ldexpf(1 + (float)rng_uniform(&r), i % 60 - 30);
    assert_false(qtype_rounds_weights(QT_f16, QT_bf16));
    assert_false(qtype_rounds_weights(QT_q4_0, QT_q8_2_x4));
    assert_true(qtype_rounds_weights(QT_iq4_kt, QT_bf16));
    qtype_round_weights(QT_q4_0, QT_bf16, NULL, y, 512);
    for (int i = 0; i < 512; i++) { /* odd numbers from 257 to 511 are ties */
        double below, above;
        bf16_around(x[i], &below, &above);
        const double mid = (below + above) / 2, v = (double)x[i];
        const double want = v < mid || (v == mid && i % 2 == 0) ? below : above;
        if ((double)y[i] != want)
            fail_msg("column %d: %.9g became %.9g, expected %.9g", i, v, (double)y[i], want);
    }
    /* A row scale is left out of the rounding. */
    struct {
        float d;
        struct blk_iq4_kt b[2];
    } row = { .d = d };
    for (int i = 0; i < 512; i++)
        x[i] = y[i] = d * (float)(i % 2 ? -(i + 257) : i + 257);
    qtype_round_weights(QT_iq4_kt, QT_bf16, &row, y, 512);
    for (int i = 0; i < 512; i++) {
        double below, above;
        bf16_around((float)(i + 257), &below, &above);
        const double mid = (below + above) / 2, v = i + 257;
        const float want = (float)(v < mid || (v == mid && i % 2 == 0) ? below : above);
        assert_true(y[i] == d * (i % 2 ? -want : want));
    }
}

/* The largest |s| of 512 weights of a row from block `first` on, of at most n_blocks. */
static int largest_scale(enum qtype t, const unsigned char *row, int first, int n_blocks) {
    static const int iq2[16] = KT_SCALES;
    int largest = 0;
    for (int i = 8 * first; i < 8 * n_blocks && i < 8 * (first + 2); i++) {
        const unsigned char *blk = row + 4 + (size_t)(i / 8) * qtype_info(t)->blk_bytes;
        const int b = i % 8, nibble = b < 4 ? blk[b] % 16 : blk[b - 4] / 16;
        const int s = t == QT_iq4_kt ? blk[4 * b] / 2 - 64 : t == QT_iq2_kt ? iq2[nibble] : nibble;
        if (abs(s) > largest) largest = abs(s);
    }
    return largest;
}

/* Weights of 8 bits are whole multiples of one step for 512 weights, at most 127 of them, and as
 * near to the weight as that allows; the step is what the largest scale needs. */
static void weights_as_bytes(void **state) {
    (void)state;
    struct rng r = { 6 };
    assert_false(qtype_rounds_weights(QT_f16, QT_q8_k_tile));
    for (int t = QT_iq2_kt; t <= QT_iq4_kt; t++)
        for (int turn = 0; turn < 50; turn++) {
            enum { N = 5 * 256 };
            unsigned char row[4 + 5 * sizeof(struct blk_iq4_kt)];
            float x[N], y[N], d = turn % 2 ? 0.37f : -2e-4f;
            assert_true(qtype_rounds_weights((enum qtype)t, QT_q8_k_tile));
            for (size_t i = 0; i < sizeof row; i++)
                row[i] = (unsigned char)rng_u64(&r);
            if (turn < 3) memset(row, turn == 0 ? 0 : turn == 1 ? 0x11 : 0x80, sizeof row);
            memcpy(row, &d, sizeof d);
            qkernel_find(COL_ref, (enum qtype)t, false, NULL)->dequant_row(row, x, N);
            memcpy(y, x, sizeof y);
            qtype_round_weights((enum qtype)t, QT_q8_k_tile, row, y, N);
            for (int i = 0; i < N; i++) {
                const int s = largest_scale((enum qtype)t, row, i / 512 * 2, 5);
                const double step = fabs((double)d) * (s > 1 ? s * 126 / 127.0 : 1);
                const double q = (double)y[i] / step;
                /* A factor has 15 bits, of which the largest scales leave 8. */
                if (fabs(q - rint(q)) > 127 * 0.004 || fabs(q) > 127.6 ||
                    fabs((double)y[i] - (double)x[i]) > step * 0.504)
                    fail_msg("%s, turn %d, weight %d: %.9g became %.9g, step %.9g",
                             qtype_info((enum qtype)t)->name, turn, i, (double)x[i], (double)y[i],
                             step);
            }
        }
}

/* What 512 weights of a row from block `first` on can be at most, by their scales and minima. */
static double legacy_most(enum qtype t, const unsigned char *row, int first, int n_blocks) {
    static const struct {
        enum qtype t;
        double low, high; /* of what d is multiplied by */
        bool has_min;
    } types[] = { { QT_q4_0, -8, 7, false },   { QT_q4_1, 0, 15, true },
                  { QT_q5_0, -16, 15, false }, { QT_q5_1, 0, 31, true },
                  { QT_q6_0, -32, 31, false }, { QT_q8_0, -128, 127, false } };
    double most = 0;
    for (size_t i = 0; i < N_ELEMS(types); i++)
        for (int b = first; types[i].t == t && b < n_blocks && b < first + 16; b++) {
            uint16_t h[2];
            memcpy(h, row + (size_t)b * qtype_info(t)->blk_bytes, sizeof h);
            const double d = f16_to_f32(h[0]), m = types[i].has_min ? f16_to_f32(h[1]) : 0;
            most = fmax(most, fmax(fabs(d * types[i].low + m), fabs(d * types[i].high + m)));
        }
    return most;
}

static void legacy_as_bytes(void **state) {
    (void)state;
    struct rng r = { 7 };
    for (int t = QT_q4_0; t <= QT_q8_0; t++)
        for (int turn = 0; turn < 50; turn++) {
            enum { N = 5 * 256, N_BLOCKS = N / 32 };
            unsigned char row[N_BLOCKS * sizeof(struct blk_q8_0)];
            float x[N], y[N];
            for (size_t i = 0; i < sizeof row; i++)
                row[i] = (unsigned char)rng_u64(&r);
            for (int b = 0; b < N_BLOCKS; b++) {
                const uint16_t h[2] = { f32_to_f16(turn ? (float)rng_normal(&r) : 0),
                                        f32_to_f16(turn ? (float)rng_normal(&r) * 9 : 0) };
                const bool has_min = t == QT_q4_1 || t == QT_q5_1;
                memcpy(row + (size_t)b * qtype_info((enum qtype)t)->blk_bytes, h,
                       has_min ? sizeof h : sizeof h[0]);
            }
            assert_true(qtype_rounds_weights((enum qtype)t, QT_q8_k_tile));
            qkernel_find(COL_ref, (enum qtype)t, false, NULL)->dequant_row(row, x, N);
            memcpy(y, x, sizeof y);
            qtype_round_weights((enum qtype)t, QT_q8_k_tile, row, y, N);
            for (int i = 0; i < N; i++) {
                const double step = legacy_most((enum qtype)t, row, i / 512 * 16, N_BLOCKS) / 127;
                const double q = step > 0 ? (double)y[i] / step : (double)y[i];
                if (fabs(q - rint(q)) > 1e-4 || fabs(q) > 127.001 ||
                    fabs((double)y[i] - (double)x[i]) > step * 0.5001)
                    fail_msg("%s, turn %d, weight %d: %.9g became %.9g, step %.9g",
                             qtype_info((enum qtype)t)->name, turn, i, (double)x[i], (double)y[i],
                             step);
            }
        }
}

/* A cell that says it can multiply says everything a caller needs. */
static void cells_are_whole(void **state) {
    (void)state;
    for (int c = 0; column_is_cpu((enum column)c); c++)
        for (int t = 0; t < QT_count; t++) {
            if (!qtype_has_cell((enum column)c, (enum qtype)t)) continue;
            const struct qkernel *k = qkernel_find((enum column)c, (enum qtype)t, false, NULL);
            if (c == COL_ref) assert_non_null(k->dequant_row);
            if (!k->mul_mat) continue;
            assert_non_null(k->mul_mat_scratch);
            assert_true(k->tol_nmse > 0.0 && k->tol_nmse <= 0x1p-14);
            if (!k->act_group || !column_available((enum column)c)) continue;
            assert_int_equal(qtype_row_bytes(k->act, 256) % 64, 0);
            assert_non_null(qkernel_find((enum column)c, k->act, false, NULL)->quantize_pieces);
        }
}

static void trellis_generator(void **state) {
    (void)state;
    static const struct {
        uint32_t seed;
        int r[8];
    } want[] = {
        { 0 + KT_BASE, { -47, -36, -39, -86, -38, -38, -47, -35 } },
        { 1 + KT_BASE, { 21, 1, 59, -23, 33, 8, 13, 43 } },
        { 2 + KT_BASE, { -37, -25, 29, -23, 105, -11, -53, -70 } },
        { 1000 + KT_BASE, { -60, 0, -17, -35, -73, 45, 40, -7 } },
        { 8191 + KT_BASE, { -17, -22, -28, 59, -59, -33, 51, 5 } },
        { 32767 + KT_BASE, { -44, -54, -78, -15, 29, -9, 19, -21 } },
        { 0 + KT_BASE + KT_BASE_STEP, { -40, -79, -43, -79, -27, -90, -48, -69 } },
        { 65535 + KT_BASE, { 26, -32, -16, -9, -25, -62, 17, 10 } },
    };
    const uint32_t powers[8] = KT_POWERS;
    for (size_t i = 0; i < N_ELEMS(want); i++) {
        uint32_t x = want[i].seed;
        for (int k = 0; k < 8; k++) {
            x *= KT_MULTIPLIER;
            assert_int_equal(powers[k] * want[i].seed, x);
            if (kt_value(x) != want[i].r[k])
                fail_msg("seed %u, output %d: got %d, expected %d", want[i].seed, k + 1,
                         kt_value(x), want[i].r[k]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequant_golden),          cmocka_unit_test(dequant_shared),
        cmocka_unit_test(quantize_golden),         cmocka_unit_test(quantize_shared),
        cmocka_unit_test(quantize_like_ref),       cmocka_unit_test(quantize_nonfinite),
        cmocka_unit_test(quantize_tile_nonfinite), cmocka_unit_test(table_facts),
        cmocka_unit_test(cells_are_whole),         cmocka_unit_test(trellis_generator),
        cmocka_unit_test(weights_as_bf16),         cmocka_unit_test(weights_as_bytes),
        cmocka_unit_test(legacy_as_bytes),
    };
    return cmocka_run_group_tests_name("qtype", tests, NULL, NULL);
}
