/* SPDX-License-Identifier: MIT
 * test_ops.c - every op but mul_mat and attn (test_mul_mat.c, test_op_attn.c): ref against a closed
 * form or a direct evaluation in double, every other column against ref, on one and two threads,
 * with the padding around the result guarded. */
#include "op_fixture.h"

#define LIMIT_REF 1e-7 /* rounding of the result to f32 */
#define LIMIT 3e-7     /* a few roundings in f32 */
#define LIMIT_LSE 1e-7 /* f32 terms, whose errors cancel in the sum */

static double *new_want(const struct tensor *t) {
    double *want = malloc((size_t)(tensor_rows(t) * t->ne[0]) * sizeof *want);
    assert_non_null(want);
    return want;
}

static void finish(struct op_fixture *f, double *want) {
    free(want);
    fixture_reset(f);
}

/* ---- get_rows, set_rows ------------------------------------------------------------------- */

/* Rows of random bits come back as dequant_row gives them; f32 and f16 as the numbers they are. */
static void test_get_rows(void **state) {
    struct op_fixture *f = *state;
    enum { N = 512, N_ROWS = 9 };
    static const int32_t ids[] = { 3, 0, 8, 8, 1 };
    for (int type = 0; type < QT_count; type++) {
        if (!qtype_has_cell(COL_ref, (enum qtype)type)) continue;
        f->what = qtype_info((enum qtype)type)->name;
        const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)type, false, NULL);
        struct tensor *table = new_tensor(f, (enum qtype)type, N_ROWS, N);
        for (int64_t r = 0; r < N_ROWS; r++)
            for (size_t i = 0; i < payload_bytes(table); i++)
                ((uint8_t *)tensor_row(table, r))[i] = (uint8_t)(rng_u64(&f->rng) >> 56 & 0x77);
        struct tensor *dst = new_tensor(f, QT_f32, N_ELEMS(ids), N);
        struct node n = { .op = OP_get_rows,
                          .dst = dst,
                          .src = { table, new_ids(f, N_ELEMS(ids), ids) } };
        double *want = new_want(dst);
        for (size_t t = 0; t < N_ELEMS(ids); t++) {
            float row[N];
            k->dequant_row(tensor_row(table, ids[t]), row, N);
            for (int i = 0; i < N; i++) {
                double x = (double)row[i];
                if (type == QT_f32) x = (double)f32_row(table, ids[t])[i];
                if (type == QT_f16)
                    x = (double)f16_to_f32(((const f16_t *)tensor_row(table, ids[t]))[i]);
                want[t * N + (size_t)i] = x;
            }
        }
        check_node(f, &n, want, 0, 0);
        finish(f, want);
    }
}

static void check_stored(const char *what, enum qtype type, const void *row, const float *x,
                         int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const struct blk_q8_0 *b = (const struct blk_q8_0 *)row + i / QK_LEGACY;
        float amax = 0;
        if (type == QT_f32 && ((const float *)row)[i] != x[i])
            fail_msg("%s: element %d", what, (int)i);
        if (type == QT_f16 && ((const f16_t *)row)[i] != f32_to_f16(x[i]))
            fail_msg("%s: element %d", what, (int)i);
        if (type != QT_q8_0) continue;
        for (int64_t j = i / QK_LEGACY * QK_LEGACY; j < (i / QK_LEGACY + 1) * QK_LEGACY; j++)
            amax = fmaxf(amax, fabsf(x[j]));
        float d = amax / 127;
        if (b->d != f32_to_f16(d)) fail_msg("%s: scale of block %d", what, (int)(i / QK_LEGACY));
        if (fabsf(x[i] - d * b->qs[i % QK_LEGACY]) > 0.5001f * d)
            fail_msg("%s: element %d is %g, stored as %g", what, (int)i, (double)x[i],
                     (double)(d * b->qs[i % QK_LEGACY]));
    }
}

static void test_set_rows(void **state) {
    struct op_fixture *f = *state;
    static const enum qtype types[] = { QT_f32, QT_f16, QT_q8_0 };
    static const int32_t cells[] = { 6, 2, 7, 0, 3 };
    enum { N = 96, N_CELLS = 9 };
    for (size_t k = 0; k < N_ELEMS(types); k++) {
        f->what = qtype_info(types[k])->name;
        struct tensor *x = new_normal(f, N_ELEMS(cells), N, 3);
        struct tensor *dst = new_tensor(f, types[k], N_CELLS, N);
        struct node n = { .op = OP_set_rows,
                          .dst = dst,
                          .src = { x, new_ids(f, N_ELEMS(cells), cells) } };
        size_t bytes = N_CELLS * dst->row_bytes;
        unsigned char *before = malloc(bytes);
        assert_non_null(before);
        memset(before, GUARD, bytes);
        for (int c = 0; c < COL_count; c++) {
            if (!column_available((enum column)c) || !op_has_cell((enum column)c, n.op)) continue;
            run_twice(f, (enum column)c, &n, before);
            unsigned written = 0;
            for (size_t t = 0; t < N_ELEMS(cells); t++) {
                check_stored(f->what, types[k], tensor_row(dst, cells[t]), f32_row(x, (int64_t)t),
                             N);
                written |= 1u << cells[t];
            }
            for (int r = 0; r < N_CELLS; r++)
                if (!(written >> r & 1))
                    assert_memory_equal(tensor_row(dst, r), before, dst->row_bytes);
        }
        free(before);
        fixture_reset(f);
    }
}

/* ---- element-wise ops --------------------------------------------------------------------- */

static void test_add(void **state) {
    struct op_fixture *f = *state;
    for (int broadcast = 0; broadcast < 2; broadcast++) {
        f->what = broadcast ? "add, one row for all" : "add";
        const int n_tok = 5, width = 77;
        struct tensor *a = new_normal(f, n_tok, width, 1);
        struct tensor *b = new_normal(f, broadcast ? 1 : n_tok, width, 10);
        f32_row(a, 1)[3] = NAN;
        f32_row(a, 2)[76] = INFINITY;
        struct tensor *dst = new_tensor(f, QT_f32, n_tok, width);
        struct node n = { .op = OP_add, .dst = dst, .src = { a, b } };
        double *want = new_want(dst);
        for (int i = 0; i < n_tok * width; i++)
            want[i] =
                element(a, i / width, i % width) + element(b, broadcast ? 0 : i / width, i % width);
        check_node(f, &n, want, LIMIT_REF, 0);
        finish(f, want);
    }
}

static void test_swiglu(void **state) {
    struct op_fixture *f = *state;
    static const int widths[] = { 1, 7, 8, 77, 4096, 5003 };
    for (size_t k = 0; k < N_ELEMS(widths); k++) {
        f->what = "swiglu";
        const int n_tok = 3, width = widths[k];
        struct tensor *gate = new_normal(f, n_tok, width, 8);
        struct tensor *up = new_normal(f, n_tok, width, 1);
        const float edges[] = { 0, 100, -100, 1e30f, -1e30f, NAN, INFINITY };
        for (size_t i = 0; i < N_ELEMS(edges) && (int)i < width; i++)
            f32_row(gate, 1)[i] = edges[i];
        f32_row(up, 2)[width - 1] = NAN;
        for (size_t i = 3; i < 5 && (int)i < width; i++)
            f32_row(up, 1)[i] = 1e-30f; /* keeps the huge ones out of the error of the others */
        struct tensor *dst = new_tensor(f, QT_f32, n_tok, width);
        struct node n = { .op = OP_swiglu, .dst = dst, .src = { gate, up } };
        double *want = new_want(dst);
        for (int i = 0; i < n_tok * width; i++) {
            double z = element(gate, i / width, i % width);
            want[i] = z / (1 + exp(-z)) * element(up, i / width, i % width);
        }
        check_node(f, &n, want, LIMIT_REF, LIMIT);
        finish(f, want);
    }
}

static void test_rms_norm(void **state) {
    struct op_fixture *f = *state;
    /* tokens, vectors per token, length */
    static const int shapes[][3] = { { 1, 1, 1 },    { 3, 1, 77 },    { 7, 6, 64 },  { 5, 3, 128 },
                                     { 2, 1, 5000 }, { 33, 16, 100 }, { 90, 1, 64 }, { 3, 3, 39 },
                                     { 3, 1, 577 },  { 2, 1, 4096 },  { 2, 1, 9001 } };
    for (size_t k = 0; k < N_ELEMS(shapes); k++) {
        f->what = "rms_norm";
        int n_tok = shapes[k][0], n_vec = shapes[k][1], len = shapes[k][2], width = n_vec * len;
        struct tensor *x = new_normal(f, n_tok, width, 0.02), *weight = new_normal(f, 1, len, 1);
        struct tensor *dst = new_tensor(f, QT_f32, n_tok, width);
        if (n_tok > 1) {
            f32_row(x, 1)[0] = NAN; /* this vector only */
            memset(f32_row(x, 0), 0, (size_t)len * sizeof(float));
        }
        struct node n = { .op = OP_rms_norm,
                          .dst = dst,
                          .src = { x, weight },
                          .p.rms_norm = { .n = len, .eps = 1e-5f } };
        double *want = new_want(dst);
        for (int v = 0; v < n_tok * n_vec; v++) {
            const float *in = f32_row(x, v / n_vec) + v % n_vec * len;
            double sum = 0;
            for (int i = 0; i < len; i++)
                sum += (double)in[i] * (double)in[i];
            for (int i = 0; i < len; i++)
                want[v * len + i] =
                    (double)in[i] / sqrt(sum / len + (double)1e-5f) * (double)f32_row(weight, 0)[i];
        }
        check_node(f, &n, want, LIMIT_REF, LIMIT);
        finish(f, want);
    }
}

/* ---- rotary embedding --------------------------------------------------------------------- */

struct rope_case {
    const char *what;
    double base, scale, ext, attn;
    bool divisors;
};

static double clamp01(double x) {
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

/* The angle of pair i at position p, and the amplitude. spec: models, section 2. */
static double angle(const struct rope_case *c, int n_rot, double n_ctx, int i, double p,
                    double divisor, double *amplitude) {
    double theta_e = p * pow(c->base, -2.0 * i / n_rot) / divisor;
    *amplitude = c->attn;
    if (c->ext == 0) return c->scale * theta_e;
    *amplitude *= 1 + 0.1 * log(1 / c->scale);
    double lo = floor(n_rot * log(n_ctx / (2 * M_PI * 32)) / (2 * log(c->base)));
    double hi = ceil(n_rot * log(n_ctx / (2 * M_PI * 1)) / (2 * log(c->base)));
    lo = lo < 0 ? 0 : lo;
    hi = hi > n_rot - 1 ? n_rot - 1 : hi;
    double ramp = (1 - clamp01((i - lo) / (hi - lo < 0.001 ? 0.001 : hi - lo))) * c->ext;
    return c->scale * theta_e * (1 - ramp) + theta_e * ramp;
}

static void test_rope_table(void **state) {
    struct op_fixture *f = *state;
    static const struct rope_case cases[] = {
        { "rope_table", 10000, 1, 0, 1, false },
        { "rope_table, linear 4", 10000, 0.25, 0, 1, false },
        { "rope_table, divisors", 500000, 1, 0, 1, true },
        { "rope_table, yarn 40", 10000, 1 / 40.0, 1, 1, false },
        { "rope_table, yarn 4 with a factor", 1e6, 0.25, 1, 0.8, true },
    };
    static const int32_t pos[] = { 0, 1, 17, 4095, 2, 131071 };
    const int n_rot = 64;
    for (size_t k = 0; k < N_ELEMS(cases); k++) {
        const struct rope_case *c = &cases[k];
        f->what = c->what;
        struct tensor *divisors = c->divisors ? new_normal(f, 1, n_rot / 2, 1) : NULL;
        for (int i = 0; divisors && i < n_rot / 2; i++)
            f32_row(divisors, 0)[i] = 1 + fabsf(f32_row(divisors, 0)[i]);
        struct tensor *dst = new_tensor(f, QT_f32, N_ELEMS(pos), n_rot);
        struct node n = { .op = OP_rope_table,
                          .dst = dst,
                          .src = { new_ids(f, N_ELEMS(pos), pos), divisors },
                          .p.rope_table = { n_rot, c->base, c->scale, c->ext, c->attn, 32, 1,
                                            4096 } };
        double *want = new_want(dst);
        for (size_t t = 0; t < N_ELEMS(pos); t++)
            for (int i = 0; i < n_rot / 2; i++) {
                double m, div = divisors ? (double)f32_row(divisors, 0)[i] : 1;
                double theta = angle(c, n_rot, 4096, i, pos[t], div, &m);
                want[t * (size_t)n_rot + 2 * (size_t)i] = m * cos(theta);
                want[t * (size_t)n_rot + 2 * (size_t)i + 1] = m * sin(theta);
            }
        check_node(f, &n, want, LIMIT_REF, LIMIT);
        finish(f, want);
    }
}

static void test_rope(void **state) {
    struct op_fixture *f = *state;
    for (int k = 0; k < 4; k++) {
        enum rope_mode mode = k & 1 ? ROPE_NEOX : ROPE_NORM;
        const int n_rot = k & 2 ? 24 : 32, hd = 32, n_head = 3, n_tok = 5, width = n_head * hd;
        f->what = mode == ROPE_NEOX ? "rope, neox" : "rope, norm";
        struct tensor *x = new_normal(f, n_tok, width, 1);
        struct tensor *table = new_normal(f, n_tok, n_rot, 1);
        f32_row(x, 2)[hd] = NAN; /* reaches both elements of its pair and nothing else */
        struct tensor *dst = new_tensor(f, QT_f32, n_tok, width);
        struct node n = {
            .op = OP_rope, .dst = dst, .src = { x, table }, .p.rope = { mode, n_rot, n_head, hd }
        };
        double *want = new_want(dst);
        for (int i = 0; i < n_tok * width; i++) {
            int t = i / width, e = i % hd, half = n_rot / 2;
            const float *in = f32_row(x, t) + i % width - e;
            want[i] = (double)in[e];
            if (e >= n_rot) continue;
            int pair = mode == ROPE_NEOX ? e % half : e / 2;
            bool second = mode == ROPE_NEOX ? e >= half : e % 2;
            int other = mode == ROPE_NEOX ? (e + half) % n_rot : e ^ 1;
            double c = element(table, t, 2 * pair), s = element(table, t, 2 * pair + 1);
            want[i] = (double)in[e] * c + (second ? 1 : -1) * (double)in[other] * s;
        }
        check_node(f, &n, want, LIMIT, LIMIT);
        finish(f, want);
    }
}

/* ---- lse ---------------------------------------------------------------------------------- */

static void lse_direct(const float *l, int n, double *out) {
    double max = -INFINITY, sum = 0;
    bool nan = false;
    out[2] = 0;
    for (int i = 0; i < n; i++) {
        nan |= isnan(l[i]) != 0;
        if ((double)l[i] > max) max = (double)l[i], out[2] = i;
    }
    for (int i = 0; i < n; i++)
        sum += exp((double)l[i] - max);
    out[0] = nan ? NAN : max;
    out[1] = nan ? NAN : log(sum);
}

/* Rows: random; ties; equal; NaN first, in the middle, last; some -inf, all -inf, +inf, one high.
 */
static void test_lse(void **state) {
    struct op_fixture *f = *state;
    static const int widths[] = { 1, 3, 7, 8, 1000, 32768, 32771, 70007, 262144 };
    enum { N_ROWS = 10 };
    for (size_t k = 0; k < N_ELEMS(widths); k++) {
        char what[40];
        snprintf(what, sizeof what, "lse of %d", widths[k]);
        f->what = what;
        const int n = widths[k];
        struct tensor *l = new_normal(f, N_ROWS, n, 4), *dst = new_tensor(f, QT_f64, N_ROWS, 3);
        f32_row(l, 1)[n / 3] = f32_row(l, 1)[n - 1] = 50;
        for (int i = 0; i < n; i++) {
            f32_row(l, 2)[i] = -7.25f;
            if (i % 3 != 1) f32_row(l, 6)[i] = -INFINITY;
            f32_row(l, 7)[i] = -INFINITY;
        }
        f32_row(l, 3)[0] = f32_row(l, 4)[n / 2] = f32_row(l, 5)[n - 1] = NAN;
        f32_row(l, 8)[n - 1] = INFINITY;
        f32_row(l, 9)[n / 2] = 1e30f;
        struct node node = { .op = OP_lse, .dst = dst, .src = { l } };
        double want[N_ROWS * 3];
        for (int r = 0; r < N_ROWS; r++)
            lse_direct(f32_row(l, r), n, want + 3 * r);
        assert_true(isnan(want[7 * 3 + 1]));
        assert_true(fabs(want[2 * 3 + 1] - log(n)) < 1e-12 * n);
        /* Column by column: an index must be exact, and 1e30 must not set the scale of the rest. */
        for (int c = 0; c < COL_count; c++) {
            if (!column_available((enum column)c) || !op_has_cell((enum column)c, OP_lse)) continue;
            unsigned char before[N_ROWS * 256];
            assert_true(N_ROWS * dst->row_bytes <= sizeof before);
            memset(before, GUARD, sizeof before);
            run_twice(f, (enum column)c, &node, before);
            for (int r = 0; r < N_ROWS; r++)
                for (int i = 0; i < 3; i++) {
                    double x = element(dst, r, i), y = want[3 * r + i];
                    if (i == 2 && isnan(want[3 * r])) continue; /* the top of NaN means nothing */
                    bool good = i == 1 ? fabs(x - y) <= LIMIT_LSE * fmax(1, fabs(y)) : x == y;
                    if (!good && !(isnan(x) && isnan(y)))
                        fail_msg("%s, %s: row %d, value %d: got %.12g, expected %.12g", what,
                                 column_name((enum column)c), r, i, x, y);
                }
        }
        fixture_reset(f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_rows), cmocka_unit_test(test_set_rows),
        cmocka_unit_test(test_add),      cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_lse),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
