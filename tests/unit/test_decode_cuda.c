/* SPDX-License-Identifier: MIT
 * test_decode_cuda.c - the decoders that the kernels of the cuda column are made of, compiled for
 * the host: bit for bit the golden vectors, and ref on random blocks, every index of a trellis and
 * the extremes of scales. Needs neither a compiler for CUDA nor a GPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend.h"
#include "base/rng.h"
#include "cuda/decode_half.h"
#include "cuda/decode_row.h"
#include "read_file.h"

#define GOLDEN "tests/golden/quants/"
#define ROW 1024 /* weights per row of every vector */

struct decoder {
    enum qtype type;
    int n_blk, bytes, meta, has_min;
    void (*decode)(const uint8_t *blk, int b, float d, struct decoded *o);
};

#define X(name, n_blk, bytes, meta, has_min)                                                       \
    static void name##_fn(const uint8_t *blk, int b, float d, struct decoded *o) {                 \
        name##_decode(blk, b, d, o);                                                               \
    }
DECODER_LIST(X)
#undef X

static const struct decoder decoders[] = {
#define X(name, n_blk, bytes, meta, has_min) { QT_##name, n_blk, bytes, meta, has_min, name##_fn },
    DECODER_LIST(X)
#undef X
};

/* A row of n weights, as the kernels take it: sub-block by sub-block. */
static void decode_row(const struct decoder *k, const uint8_t *row, float *y, int64_t n) {
    float d = 0;
    if (k->meta) memcpy(&d, row, sizeof d);
    for (int64_t s = 0; s < n / 32; s++, y += 32) {
        const int per = k->n_blk / 32;
        const uint8_t *blk = row + k->meta + s / per * k->bytes;
        struct decoded o;
        k->decode(blk, (int)(s % per), d, &o);
        for (int i = 0; i < 32; i++)
            y[i] = decoded_value(&o, i, k->has_min,
                                 k->type == QT_iq3_kt && iq3_kt_negative(blk, (int)(s % per), i));
    }
}

static void same_bits(enum qtype t, const char *what, int64_t row, const float *got,
                      const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (f32_bits(got[i]) != f32_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s, %s, row %lld, weight %lld: got %a, expected %a", qtype_info(t)->name,
                     what, (long long)row, (long long)i, (double)got[i], (double)want[i]);
}

static void golden(void **state) {
    (void)state;
    for (size_t k = 0; k < N_ELEMS(decoders); k++)
        for (int edge = 0; edge < 2; edge++) {
            char stem[40];
            size_t n_bytes = 0, n_want = 0;
            const enum qtype t = decoders[k].type;
            snprintf(stem, sizeof stem, "%s%s", edge ? "edge_" : "", qtype_info(t)->name);
            uint8_t *rows = read_file(GOLDEN, stem, ".quant.bin", &n_bytes);
            float *want = read_file(GOLDEN, stem, ".dequant.f32", &n_want), got[ROW];
            if (!rows || !want) fail_msg("no %s%s with both its parts", GOLDEN, stem);
            const size_t row_bytes = qtype_row_bytes(t, ROW);
            assert_int_equal(n_bytes / row_bytes * ROW * sizeof(float), n_want);
            for (size_t r = 0; r < n_bytes / row_bytes; r++) {
                decode_row(&decoders[k], rows + r * row_bytes, got, ROW);
                same_bits(t, stem, (int64_t)r, got, want + r * ROW, ROW);
            }
            free(rows);
            free(want);
        }
}

/* Any bits are a block; scales are kept finite, because NaN compares with nothing. */
static void random_blocks(void **state) {
    (void)state;
    struct rng rng = { 20250627 };
    for (size_t k = 0; k < N_ELEMS(decoders); k++) {
        const struct decoder *dec = &decoders[k];
        const struct qkernel *ref = qkernel_find(COL_ref, dec->type, false, NULL);
        const size_t row_bytes = qtype_row_bytes(dec->type, ROW);
        uint8_t *row = malloc(row_bytes);
        assert_non_null(row);
        for (int round = 0; round < 500; round++) {
            float got[ROW], want[ROW], d = (float)rng_normal(&rng);
            for (size_t i = 0; i < row_bytes; i++)
                row[i] = (uint8_t)rng_u64(&rng);
            for (int i = 0; !dec->meta && i < ROW / 32; i++)
                row[i * dec->bytes + 1] &= 0xFB, row[i * dec->bytes + 3] &= 0xFB;
            if (round == 0)
                for (int i = 0; !dec->meta && i < ROW / 32; i++) /* no minimum, a negative scale */
                    row[i * dec->bytes + 1] |= 0x80,
                        row[i * dec->bytes + 2] = 0, row[i * dec->bytes + 3] = 0;
            if (round == 1) d = 0;
            if (round == 2) d = -0x1p-140f;
            if (round == 3) d = 0x1p100f;
            if (dec->meta) memcpy(row, &d, sizeof d);
            decode_row(dec, row, got, ROW);
            ref->dequant_row(row, want, ROW);
            same_bits(dec->type, "random bits", round, got, want, ROW);
        }
        free(row);
    }
}

/* Every seed of a trellis that an index can make, in every place of a sub-block. */
static void every_index(void **state) {
    (void)state;
    static const uint32_t power[8] = KT_POWERS;
    static const uint32_t own[8] = { KT_P1, KT_P2, KT_P3, KT_P4, KT_P5, KT_P6, KT_P7, KT_P8 };
    static const int8_t scales[16] = KT_SCALES;
    assert_memory_equal(power, own, sizeof own);
    for (uint32_t i = 0; i < 16; i++)
        assert_int_equal(kt_scale_value(i), scales[i]);
    for (uint32_t index = 0; index < 65536; index++) {
        struct blk_iq2_kt blk = { .sc = { 8, 8, 8, 8 } }; /* a scale of 1 */
        const int g = (int)(index % 32);
        blk.idx[2 * g] = (uint8_t)index;
        blk.idx[2 * g + 1] = (uint8_t)(index >> 8);
        struct decoded o;
        iq2_kt_decode((const uint8_t *)&blk, g / 4, 1, &o);
        uint32_t x = index + KT_BASE;
        for (int k = 0; k < 8; k++) {
            x *= KT_MULTIPLIER;
            assert_int_equal(decoded_int(&o, 8 * (g % 4) + k), kt_value(x));
        }
    }
}

static void floats(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++)
        if (f32_bits(hd_f16((uint16_t)h)) != f32_bits(f16_to_f32((uint16_t)h)))
            fail_msg("f16 %04x", h);
}

/* Products without decoded weights are those of the decoded ones. */
static void dots(void **state) {
    (void)state;
    static const struct {
        size_t bytes;
        void (*dot)(int n, const uint8_t *const *blk, int b, const uint32_t *x, int *sum);
        void (*decode)(const uint8_t *blk, int b, float d, struct decoded *o);
        float (*scale)(const uint8_t *blk, int b, float d);
    } types[] = {
        { sizeof(struct blk_iq2_kt), iq2_kt_dot, iq2_kt_decode, iq2_kt_scale },
        { sizeof(struct blk_iq3_kt), iq3_kt_dot, iq3_kt_decode, iq3_kt_scale },
        { sizeof(struct blk_iq4_kt), iq4_kt_dot, iq4_kt_decode, iq4_kt_scale },
    };
    struct rng rng = { 20250629 };
    for (int round = 0; round < 12000; round++) {
        const size_t k = (size_t)round % N_ELEMS(types);
        const int n = 1 + round / 3 % KT_DOT_ROWS, b = round / 12 % 8;
        uint32_t rows[KT_DOT_ROWS][32], x[8]; /* blocks begin at multiples of 4 */
        const uint8_t *blk[KT_DOT_ROWS];
        int sum[KT_DOT_ROWS];
        for (int r = 0; r < KT_DOT_ROWS; r++) {
            assert_true(types[k].bytes <= sizeof rows[r]);
            for (int i = 0; i < 32; i++)
                rows[r][i] = (uint32_t)rng_u64(&rng);
            blk[r] = (const uint8_t *)rows[r];
        }
        for (int i = 0; i < 8; i++) /* the largest there are, too */
            x[i] = round % 50 == 0   ? 0x80808080u
                   : round % 50 == 1 ? 0x7F7F7F7Fu
                                     : (uint32_t)rng_u64(&rng);
        types[k].dot(n, blk, b, x, sum);
        for (int r = 0; r < n; r++) {
            struct decoded o;
            int want = 0;
            types[k].decode(blk[r], b, 0.25f, &o);
            for (int i = 0; i < 32; i++)
                want += decoded_int(&o, i) * (int8_t)(x[i / 4] >> 8 * (i % 4));
            if (sum[r] != want)
                fail_msg("type %zu, %d rows, sub-block %d, row %d: %d, expected %d", k, n, b, r,
                         sum[r], want);
            assert_true(types[k].scale(blk[r], b, 0.25f) == o.scale);
        }
    }
}

/* ---- binary16 ----------------------------------------------------------------------------------
 */

static void iq2_kt_half_fn(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                           uint32_t w[4]) {
    iq2_kt_halves(l, blk, lo, up, w);
}
static void iq3_kt_half_fn(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                           uint32_t w[4]) {
    iq3_kt_halves(l, blk, lo, up, w);
}
static void iq4_kt_half_fn(const struct half_lane *l, const uint8_t *blk, int lo, int up,
                           uint32_t w[4]) {
    iq4_kt_halves(l, blk, lo, up, w);
}

/* What four lanes have of a sub-block: weight times scale, an integer, rounded to binary16 once. */
static void halves(void **state) {
    (void)state;
    static const struct {
        enum qtype type;
        void (*half)(const struct half_lane *l, const uint8_t *blk, int lo, int up, uint32_t w[4]);
        int times;
    } kinds[] = { { QT_iq2_kt, iq2_kt_half_fn, HALF_TIMES_iq2_kt },
                  { QT_iq3_kt, iq3_kt_half_fn, HALF_TIMES_iq3_kt },
                  { QT_iq4_kt, iq4_kt_half_fn, HALF_TIMES_iq4_kt } };
    struct rng rng = { 77 };
    for (size_t k = 0; k < N_ELEMS(kinds); k++) {
        const struct decoder *dec = decoders;
        while (dec->type != kinds[k].type)
            dec++;
        for (int round = 0; round < 2000; round++) {
            uint32_t words[32];
            for (size_t i = 0; i < N_ELEMS(words); i++)
                words[i] = round == 0 ? 0 : round == 1 ? ~0u : (uint32_t)rng_u64(&rng);
            for (int b = 0; b < 8; b++) {
                struct decoded o;
                dec->decode((const uint8_t *)words, b, 1.0f, &o);
                for (int t = 0; t < 4; t++) {
                    const struct half_lane lane = half_lane_of(t);
                    uint32_t w[4];
                    kinds[k].half(&lane, (const uint8_t *)words, b % 4, b / 4, w);
                    for (int i = 0; i < 8; i++) {
                        const float got = f16_to_f32((f16_t)(w[i / 2] >> 16 * (i % 2)));
                        const float want = f16_to_f32(f32_to_f16(
                            o.scale * (float)(kinds[k].times * decoded_int(&o, 8 * t + i))));
                        if (got != want)
                            fail_msg("%s, sub-block %d, weight %d: got %g, expected %g",
                                     qtype_info(kinds[k].type)->name, b, 8 * t + i, (double)got,
                                     (double)want);
                    }
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden), cmocka_unit_test(random_blocks), cmocka_unit_test(every_index),
        cmocka_unit_test(dots),   cmocka_unit_test(floats),        cmocka_unit_test(halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
