/* SPDX-License-Identifier: MIT
 * test_tool_text.c - reading what other programs print. The samples are of their forms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "measure/tool_text.h"

#define N_MAX 8

struct values {
    double ppl[N_MAX];
    int n;
};

static int on_value(void *arg, int64_t i, double ppl, struct err *e) {
    struct values *v = arg;
    (void)e;
    assert_int_equal(i, v->n + 1);
    v->ppl[v->n++] = ppl;
    return 0;
}

/* However the text is cut, and whatever stands around the values. */
static void chunks_in_any_pieces(void **state) {
    (void)state;
    static const char text[] =
        "perplexity: calculating perplexity over 4 chunks, n_ctx=64, batch_size=256, n_seq=4\n"
        "[note] 3 things, [x]y, and so on\n"
        "perplexity: 0.10 seconds per pass - ETA 0.00 minutes\n"
        "[1]4.0650,[2]5.2500,[3]nan,[4]12345.6789,\n"
        "Final estimate: PPL over 4 chunks for n_ctx=64 = 12345.6789 +/- 1.0\n";
    for (size_t step = 1; step < sizeof text; step++) {
        struct err e = { 0 };
        struct ppl_text p = { 0 };
        struct values v = { 0 };
        for (size_t at = 0; at < sizeof text - 1; at += step) {
            size_t n = sizeof text - 1 - at < step ? sizeof text - 1 - at : step;
            if (ppl_text_feed(&p, text + at, n, on_value, &v, &e)) fail_msg("%s", e.msg);
        }
        assert_int_equal(v.n, 4);
        assert_true(v.ppl[0] == 4.065 && v.ppl[1] == 5.25 && isnan(v.ppl[2]) &&
                    v.ppl[3] == 12345.6789);
        assert_int_equal(p.n_planned, 4);
        assert_int_equal(p.n_ctx, 64);
    }
}

static void chunks_out_of_order(void **state) {
    (void)state;
    struct err e = { 0 };
    struct ppl_text p = { 0 };
    struct values v = { 0 };
    assert_int_equal(ppl_text_feed(&p, "[1]4.0,[3]5.0,", 14, on_value, &v, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "chunk 3 was printed behind chunk 1");
}

struct speeds {
    struct speed_text s[N_MAX];
    int n;
};

static int on_speed(void *arg, const struct speed_text *s, struct err *e) {
    struct speeds *v = arg;
    (void)e;
    assert_in_range(v->n, 0, N_MAX - 1);
    v->s[v->n++] = *s;
    return 0;
}

static struct speeds read_ok(const char *text, const char *expected_kind) {
    struct err e = { 0 };
    struct speeds v = { 0 };
    const char *kind = "";
    if (speed_text_read(text, strlen(text), "sample", &kind, on_speed, &v, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(kind, expected_kind);
    return v;
}

static void sweep_tables(void **state) {
    (void)state;
    struct speeds v = read_ok(
        "main: n_kv_max = 1024, n_batch = 2048\n\n"
        "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
        "|-------|--------|--------|----------|----------|----------|----------|\n"
        "|   512 |    128 |      0 |    0.015 | 34692.57 |    0.068 |  1886.38 |\n"
        "|   512 |    128 |    512 |    0.017 | 29353.98 |    0.065 |  1984.26 | 1.0 | 2.0 |\n",
        "sweep-bench");
    assert_int_equal(v.n, 2);
    assert_int_equal(v.s[1].n_pp, 512);
    assert_int_equal(v.s[1].n_tg, 128);
    assert_int_equal(v.s[1].n_kv, 512);
    assert_true(v.s[0].pp_tps == 34692.57 && v.s[0].tg_tps == 1886.38 && isnan(v.s[0].pp_low));
    v = read_ok("{\"n_kv_max\": 1024, \"pp\": 512, \"tg\": 128, \"n_kv\": 512, \"t_pp\": 0.1, "
                "\"speed_pp\": 5120.5, \"t_tg\": 0.2, \"speed_tg\": 640.25 }\n",
                "sweep-bench");
    assert_int_equal(v.n, 1);
    assert_int_equal(v.s[0].n_kv, 512);
    assert_true(v.s[0].pp_tps == 5120.5 && v.s[0].tg_tps == 640.25);
}

static void bench_tables(void **state) {
    (void)state;
    struct speeds v = read_ok("| model            |       size |     params | backend    | threads "
                              "|          test |              t/s |\n"
                              "| ---------------- | ---------: | ---------: | ---------- | ------: "
                              "| ------------: | ---------------: |\n"
                              "| qwen3 ?B Q8_0    |   5.86 MiB |     5.77 M | CPU        |       2 "
                              "|         pp512 | 10426.05 ± 1481.69 |\n"
                              "| qwen3 ?B Q8_0    |   5.86 MiB |     5.77 M | CPU        |       2 "
                              "| tg128 @ d4096 |   602.94 ± 81.84 |\n"
                              "| qwen3 ?B Q8_0    |   5.86 MiB |     5.77 M | CPU        |       2 "
                              "|   pp512+tg128 |   602.94 ± 81.84 |\n"
                              "\nbuild: abc (1)\n",
                              "bench");
    assert_int_equal(v.n, 2);
    assert_int_equal(v.s[0].n_pp, 512);
    assert_int_equal(v.s[0].n_tg, 0);
    assert_true(v.s[0].pp_tps == 10426.05 && isnan(v.s[0].tg_tps));
    assert_true(fabs(v.s[0].pp_low - (10426.05 - 1481.69)) < 1e-9);
    assert_string_equal(v.s[0].model, "qwen3 ?B Q8_0");
    assert_int_equal(v.s[1].n_kv, 4096);
    assert_true(v.s[1].n_tg == 128 && v.s[1].tg_tps == 602.94);
    v = read_ok("build_commit,model_type,n_prompt,n_gen,n_depth,avg_ts,stddev_ts\n"
                "\"abc\",\"qwen3 8B\",\"512\",\"0\",\"0\",\"100.5\",\"1.5\"\n"
                "\"abc\",\"qwen3 8B\",\"0\",\"128\",\"64\",\"10.5\",\"0.5\"\n",
                "bench");
    assert_int_equal(v.n, 2);
    assert_string_equal(v.s[0].build, "abc");
    assert_true(v.s[0].pp_tps == 100.5 && v.s[1].tg_tps == 10.5 && v.s[1].n_kv == 64);
    v = read_ok(
        "{\"build_commit\": \"abc\", \"model_type\": \"x\", \"n_prompt\": 512, \"n_gen\": 0, "
        "\"n_depth\": 0, \"avg_ts\": 100.5, \"stddev_ts\": 1.5}\n",
        "bench");
    assert_int_equal(v.n, 1);
    assert_true(v.s[0].pp_tps == 100.5 && v.s[0].pp_high == 102.0);
}

static void what_is_no_table(void **state) {
    (void)state;
    static const char *const texts[] = { "",
                                         "nothing here\n",
                                         "| a | b |\n|---|---|\n| 1 | 2 |\n",
                                         "{\"a\": 1}\n",
                                         "build_commit,avg_ts\nabc,1\n",
                                         "| 1 | 2 | 3 | 4 | 5 | 6 | x |\n" };
    for (size_t i = 0; i < N_ELEMS(texts); i++) {
        struct err e = { 0 };
        struct speeds v = { 0 };
        const char *kind;
        assert_int_equal(
            speed_text_read(texts[i], strlen(texts[i]), "sample", &kind, on_speed, &v, &e),
            ERR_FORMAT);
        assert_non_null(strstr(e.msg, "sample: no measurement"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_in_any_pieces), cmocka_unit_test(chunks_out_of_order),
        cmocka_unit_test(sweep_tables),         cmocka_unit_test(bench_tables),
        cmocka_unit_test(what_is_no_table),
    };
    return cmocka_run_group_tests_name("tool_text", tests, NULL, NULL);
}
