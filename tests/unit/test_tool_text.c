/* SPDX-License-Identifier: MIT
 * test_tool_text.c - reading what other programs print. The samples are of their forms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
    char model[N_MAX][32], n_threads[N_MAX][32]; /* said; the reader's own end with the call */
    int n;
    char refused[1024]; /* "LINE: why\n"... */
};

static int on_speed(void *arg, const struct speed_text *s, struct err *e) {
    struct speeds *v = arg;
    (void)e;
    assert_in_range(v->n, 0, N_MAX - 1);
    const char *model = s->said[ROW_model], *n_threads = s->said[ROW_n_threads];
    snprintf(v->model[v->n], sizeof v->model[0], "%s", model ? model : "-");
    snprintf(v->n_threads[v->n], sizeof v->n_threads[0], "%s", n_threads ? n_threads : "-");
    v->s[v->n++] = *s;
    return 0;
}

static void on_refused(void *arg, int64_t line, const char *why) {
    struct speeds *v = arg;
    size_t n = strlen(v->refused);
    snprintf(v->refused + n, sizeof v->refused - n, "%d: %s\n", (int)line, why);
}

/* All of `test`, and these refusals. */
static struct speeds read_some(const char *text, const char *test, const char *refused) {
    struct err e = { 0 };
    struct speeds v = { 0 };
    if (speed_text_read(text, strlen(text), "sample", on_speed, on_refused, &v, &e))
        fail_msg("%s", e.msg);
    for (int i = 0; i < v.n; i++)
        assert_string_equal(v.s[i].test, test);
    assert_string_equal(v.refused, refused);
    return v;
}

static struct speeds read_ok(const char *text, const char *test) {
    return read_some(text, test, "");
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
    assert_true(v.s[0].pp_tps == 34692.57 && v.s[0].tg_tps == 1886.38);
    v = read_ok("{\"n_kv_max\": 1024, \"pp\": 512, \"tg\": 128, \"n_kv\": 512, \"t_pp\": 0.1, "
                "\"speed_pp\": 5120.5, \"t_tg\": 0.2, \"speed_tg\": 640.25 }\n",
                "sweep-bench");
    assert_int_equal(v.n, 1);
    assert_int_equal(v.s[0].n_kv, 512);
    assert_true(v.s[0].pp_tps == 5120.5 && v.s[0].tg_tps == 640.25);
}

#define BENCH_HEAD                                                                                 \
    "| model | size | params | backend | threads | test | t/s |\n"                                 \
    "| ----- | ---: | -----: | ------- | ------: | ---: | --: |\n"

static void bench_tables(void **state) {
    (void)state;
    struct speeds v = read_ok(
        BENCH_HEAD "| qwen3 Q8_0 | 5 MiB | 6 M | CPU | 2 | pp512 | 10426.05 ± 1481.69 |\n"
                   "| qwen3 Q8_0 | 5 MiB | 6 M | CPU | 4 | tg128 @ d4096 | 602.94 ± 81.8 |\n"
                   "| qwen3 Q8_0 | 5 MiB | 6 M | CPU | 4 | pp512+tg128 | 702.94 |\n"
                   "| qwen3 Q8_0 | 5 MiB | 6 M | CPU | 4 | tg64@pp256 | 500.25 ± 1 |\n"
                   "\nbuild: abc (1)\n",
        "bench");
    assert_int_equal(v.n, 4);
    assert_int_equal(v.s[0].n_pp, 512);
    assert_int_equal(v.s[0].n_tg, 0);
    assert_true(v.s[0].pp_tps == 10426.05 && isnan(v.s[0].tg_tps) && isnan(v.s[0].eval_tps));
    assert_string_equal(v.model[0], "qwen3 Q8_0");
    assert_string_equal(v.n_threads[0], "2");
    assert_string_equal(v.n_threads[1], "4");
    assert_int_equal(v.s[1].n_kv, 4096);
    assert_true(v.s[1].n_tg == 128 && v.s[1].tg_tps == 602.94 && isnan(v.s[1].pp_tps));
    assert_true(v.s[2].n_pp == 512 && v.s[2].n_tg == 128 && v.s[2].n_kv == 0);
    assert_true(v.s[2].eval_tps == 702.94 && isnan(v.s[2].pp_tps) && isnan(v.s[2].tg_tps));
    assert_true(v.s[3].n_pp == 0 && v.s[3].n_tg == 64 && v.s[3].n_kv == 256);
    assert_true(v.s[3].tg_tps == 500.25);
}

static void bench_by_name(void **state) {
    (void)state;
    struct speeds v =
        read_ok("build_commit,model_type,n_threads,type_k,n_prompt,n_gen,n_depth,avg_ts,stddev_ts\n"
                "\"abc\",\"qwen3 8B\",\"2\",\"f16\",\"512\",\"0\",\"0\",\"100.5\",\"1.5\"\n"
                "\"abc\",\"qwen3 8B\",\"4\",\"f16\",\"0\",\"128\",\"64\",\"10.5\",\"0.5\"\n"
                "\"abc\",\"qwen3 8B\",\"4\",\"f16\",\"512\",\"128\",\"0\",\"50.5\",\"0.5\"\n",
                "bench");
    assert_int_equal(v.n, 3);
    assert_string_equal(v.model[2], "qwen3 8B");
    assert_string_equal(v.n_threads[0], "2");
    assert_string_equal(v.n_threads[1], "4");
    assert_true(v.s[0].pp_tps == 100.5 && v.s[1].tg_tps == 10.5 && v.s[1].n_kv == 64);
    assert_true(v.s[2].eval_tps == 50.5 && v.s[2].n_pp == 512 && v.s[2].n_tg == 128);
    v = read_ok(
        "{\"build_commit\": \"abc\", \"model_type\": \"x\", \"n_threads\": 8, \"n_prompt\": 512, "
        "\"n_gen\": 0, \"n_depth\": 0, \"avg_ts\": 100.5, \"stddev_ts\": 1.5}\n"
        "{\"n_prompt\": 256, \"n_gen\": 64, \"avg_ts\": 10.5, \"test\": \"tg64@pp256\"}\n",
        "bench");
    assert_int_equal(v.n, 2);
    assert_string_equal(v.n_threads[0], "8");
    assert_string_equal(v.n_threads[1], "-");
    assert_true(v.s[0].pp_tps == 100.5);
    assert_true(v.s[1].tg_tps == 10.5 && v.s[1].n_kv == 256);
}

/* A line of JSON may be longer than any line of a table. */
static void long_line(void **state) {
    (void)state;
    char text[20000];
    size_t n = (size_t)snprintf(
        text, sizeof text, "{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 2, \"samples_ts\": [");
    while (n < sizeof text - 8)
        n += (size_t)snprintf(text + n, sizeof text - n, "1.25,");
    memcpy(text + n - 1, "]}\n", 4);
    assert_int_equal(read_ok(text, "bench").n, 1);
}

/* What cannot be a row is named with its line, and nothing else is lost with it. */
static void what_is_refused(void **state) {
    (void)state;
    struct speeds v = read_some(BENCH_HEAD "| m | 1 | 1 | CPU | 2 | pp512 | inf |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp512 | -5.0 ± 1 |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp512 | nan |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp99999999999 | 5 |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp512+ | 5 |\n"
                                           "| m | 1 | 1 | CPU | x | pp512 | 5 |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp512 | fast |\n"
                                           "| m | 1 | 1 |\n"
                                           "| m | 1 | 1 | CPU | 2 | pp512 | 7.5 ± 1 |\n",
                                "bench",
                                "3: a speed of inf tokens/s\n"
                                "4: a speed of -5 tokens/s\n"
                                "5: a speed of nan tokens/s\n"
                                "6: the prompt is 99999999999, expected a count up to 16777216\n"
                                "7: \"pp512+\" is no test that has a place in a result row\n"
                                "8: n_threads is \"x\", expected a count\n"
                                "9: \"fast\" is no speed\n"
                                "10: 3 cells, fewer than its table has\n");
    assert_true(v.n == 1 && v.s[0].pp_tps == 7.5);
    v = read_some("| PP | TG | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s |\n"
                  "|----|----|------|--------|----------|--------|----------|\n"
                  "| 16 |  4 |    0 |    0.1 |      160 |    0.1 |      nan |\n"
                  "| 16 |  4 |   16 |    0.1 |\n"
                  "| 16 |  0 |   32 |    0.1 |      150 |    0.0 |      nan |\n",
                  "sweep-bench",
                  "3: a generation speed of nan tokens/s\n4: expected 7 numbers, found 4\n");
    assert_true(v.n == 2 && v.s[0].pp_tps == 160 && isnan(v.s[0].tg_tps));
    v = read_some("build_commit,n_prompt,n_gen,avg_ts\n\"a\",\"512\",\"0\"\n"
                  "\"a\",\"512\",\"0\",\"9\"\n\"a\",\"0\",\"0\",\"9\"\n\"a\",\"51",
                  "bench",
                  "2: 3 fields, its head has 4\n4: neither a prompt nor a generation\n"
                  "5: the last line is torn\n");
    assert_int_equal(v.n, 1);
    v = read_some("{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 9}\n{\"n_prompt\": 512,\n"
                  "{\"pp\": 16, \"tg\": 4, \"n_kv\": 1.5, \"speed_pp\": 1, \"speed_tg\": 1}\n",
                  "bench",
                  "2: no JSON object in one line\n"
                  "3: the depth is 1.5, expected a count up to 16777216\n");
    assert_int_equal(v.n, 1);
}

/* Each row is of its own table; a table of something else ends the one before. */
static void several_tables(void **state) {
    (void)state;
    struct err e = { 0 };
    struct speeds v = { 0 };
    static const char text[] =
        "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s | T_TG s | S_TG t/s |\n"
        "|-------|--------|--------|----------|----------|--------|----------|\n"
        "|    16 |      4 |      0 |    0.1   |      160 |    0.1 |       40 |\n"
        "\n" BENCH_HEAD "| m | 1 | 1 | CPU | 2 | pp512 | 7.5 ± 1 |\n"
        "a line that was logged between\n"
        "| m | 1 | 1 | CPU | 2 | tg8 | 6.5 ± 1 |\n"
        "| PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s |\n"
        "|----|----|---|------|--------|----------|--------|----------|\n"
        "| 16 |  4 | 1 |   20 |    0.1 |      160 |    0.1 |       40 |\n";
    assert_int_equal(speed_text_read(text, sizeof text - 1, "sample", on_speed, on_refused, &v, &e),
                     0);
    assert_int_equal(v.n, 3);
    assert_string_equal(v.s[0].test, "sweep-bench");
    assert_string_equal(v.s[1].test, "bench");
    assert_string_equal(v.s[2].test, "bench");
    assert_string_equal(v.refused, "");
}

static void what_is_no_table(void **state) {
    (void)state;
    static const char *const texts[] = { "",
                                         "nothing here\n",
                                         "| a | b |\n|---|---|\n| 1 | 2 |\n",
                                         "{\"a\": 1}\n",
                                         "build_commit,avg_ts\nabc,1\n",
                                         "| 1 | 2 | 3 | 4 | 5 | 6 | x |\n",
                                         BENCH_HEAD "| m | 1 | 1 | CPU | 2 | pp1 | nan |\n" };
    for (size_t i = 0; i < N_ELEMS(texts); i++) {
        struct err e = { 0 };
        struct speeds v = { 0 };
        assert_int_equal(
            speed_text_read(texts[i], strlen(texts[i]), "sample", on_speed, on_refused, &v, &e),
            ERR_FORMAT);
        assert_non_null(strstr(e.msg, "sample: no measurement"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_in_any_pieces), cmocka_unit_test(chunks_out_of_order),
        cmocka_unit_test(sweep_tables),         cmocka_unit_test(bench_tables),
        cmocka_unit_test(bench_by_name),        cmocka_unit_test(long_line),
        cmocka_unit_test(what_is_refused),      cmocka_unit_test(several_tables),
        cmocka_unit_test(what_is_no_table),
    };
    return cmocka_run_group_tests_name("tool_text", tests, NULL, NULL);
}
