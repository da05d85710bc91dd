/* SPDX-License-Identifier: MIT
 * test_bench.c - interleaved speed tests on engines without arithmetic, and llama-bench's formats.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "cli/table.h"
#include "fake_arm.h"
#include "measure/bench.h"

struct seen {
    int n;
    struct bench_result r[16];
    int64_t ns[16][8];
};

static int keep(void *arg, const struct bench_result *r, struct err *e) {
    struct seen *seen = arg;
    (void)e;
    assert_true(seen->n < 16 && r->n_rep <= 8);
    seen->r[seen->n] = *r;
    memcpy(seen->ns[seen->n], r->sample_ns, (size_t)r->n_rep * sizeof(int64_t));
    seen->n++;
    return 0;
}

static const struct bench_test list[] = {
    { 0, 16, 0, 0 }, { 0, 0, 4, 0 }, { 0, 16, 0, 32 }, { 0, 0, 4, 32 }, { 0, 8, 2, 0 },
};

static struct bench_params params(struct fake_arm *f, struct arm **arms, int n_rep) {
    arms[0] = &f->base;
    return (struct bench_params){ .arms = arms,
                                  .n_arms = 1,
                                  .tests = list,
                                  .n_tests = N_ELEMS(list),
                                  .n_rep = n_rep,
                                  .seed = 1,
                                  .clock = { fake_clock, f } };
}

static void what_an_arm_needs(void **state) {
    (void)state;
    int n_ctx, n_seq;
    bench_needs(list, N_ELEMS(list), 0, &n_ctx, &n_seq);
    assert_int_equal(n_ctx, 48);
    assert_int_equal(n_seq, 2);
    bench_needs(list, 2, 0, &n_ctx, &n_seq);
    assert_int_equal(n_ctx, 16);
    assert_int_equal(n_seq, 1);
    bench_needs(list, N_ELEMS(list), 1, &n_ctx, &n_seq);
    assert_int_equal(n_ctx, 0);
    assert_int_equal(n_seq, 0);
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (size_t len = strlen(word); (text = strstr(text, word)); text += len)
        n++;
    return n;
}

/* Each depth is filled once, in a sequence of its own; every repetition is trimmed back to it. */
static void depths_are_filled_once(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { 0 };
    struct arm *arms[1];
    struct err e = { 0 };
    fake_arm_init(&f, 48, 32);
    struct bench_params p = params(&f, arms, 5);
    assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
    assert_int_equal(seen.n, 5);
    assert_int_equal(strncmp(f.log, "t-1:0 g0:0+1 t0:0 P1:0+32 ", 26), 0);
    assert_int_equal(count(f.log, "P1:0+32"), 1);
    assert_int_equal(count(f.log, "P1:32+16"), 5);
    assert_int_equal(count(f.log, "P0:0+16"), 5);
    assert_int_equal(count(f.log, "t1:32 g1:32+1 g1:33+1 g1:34+1 g1:35+1"), 5);
    assert_int_equal(count(f.log, "t0:0 P0:0+8 g0:8+1 g0:9+1"), 5);
}

/* In every round each test runs once, and not always in the same order. */
static void rounds_are_shuffled(void **state) {
    (void)state;
    int order[10];
    struct rng r = { 3 };
    bool moved = false;
    for (int k = 0; k < 20; k++) {
        unsigned all = 0;
        for (int i = 0; i < 10; i++)
            order[i] = i;
        bench_shuffle(order, 10, &r);
        for (int i = 0; i < 10; i++) {
            all |= 1u << order[i];
            moved |= order[i] != i;
        }
        assert_int_equal(all, 1023);
    }
    assert_true(moved);
}

static void times_and_speeds(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { 0 };
    struct arm *arms[1];
    struct err e = { 0 };
    fake_arm_init(&f, 48, 32);
    struct bench_params p = params(&f, arms, 3);
    p.warmup = true;
    f.pos_ns = 1000;
    f.n_slow = 5; /* the fill and the warm-up of the first tests hide these */
    f.slow_ns = 1000000000;
    assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
    const double want_ns[] = { 16e6, 4e6 + 6e3, 16 * 1.032e6, 4e6 + 134e3, 10e6 + 17e3 };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(memcmp(&seen.r[i].test, &list[i], sizeof list[i]), 0);
        assert_true(fabs(seen.r[i].avg_ns - want_ns[i]) < 1);
        assert_true(seen.r[i].stddev_ns < 1);
        double tokens = list[i].n_prompt + list[i].n_gen;
        assert_true(fabs(seen.r[i].avg_ts - 1e9 * tokens / want_ns[i]) < 1e-3);
        assert_true(fabs(seen.r[i].seconds.median - want_ns[i] * 1e-9) < 1e-12);
    }
}

/* The case of llama.cpp issue 22300: a one-pass variance of large, close numbers. The clock gives
 * 3 times around 40 s that differ by 0.1 s. */
static int64_t clock_reading[8];
static int n_readings;

static int64_t scripted_clock(void *arg) {
    (void)arg;
    return clock_reading[n_readings++];
}

static void the_standard_deviation(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { 0 };
    struct err e = { 0 };
    fake_arm_init(&f, 48, 32);
    struct arm *arms[] = { &f.base };
    const struct bench_test one[] = { { 0, 16, 0, 0 } };
    const int64_t s = 1000000000;
    const int64_t times[] = { 0, 0, 0, 40 * s, 0, 40 * s + s / 10, 0, 40 * s + s / 5 };
    memcpy(clock_reading, times, sizeof times);
    n_readings = 0;
    struct bench_params p = { .arms = arms,
                              .n_arms = 1,
                              .tests = one,
                              .n_tests = 1,
                              .n_rep = 3,
                              .clock = { scripted_clock, NULL } };
    assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
    assert_int_equal(n_readings, 8); /* two for the token that is only checked */
    assert_true(fabs(seen.r[0].avg_ns - 40.1e9) < 1);
    assert_true(fabs(seen.r[0].stddev_ns - 0.1e9) < 1);
    /* mean and deviation of 16/40, 16/40.1, 16/40.2 */
    assert_true(fabs(seen.r[0].avg_ts - 0.399004148005) < 1e-9);
    assert_true(fabs(seen.r[0].stddev_ts - 9.95025906943e-4) < 1e-12);

    n_readings = 0;
    memset(&seen, 0, sizeof seen);
    p.n_rep = 1;
    assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
    assert_true(seen.r[0].stddev_ns == 0 && seen.r[0].stddev_ts == 0);
}

struct repeats {
    int n[N_ELEMS(list)];
    int64_t sum_ns;
    int stop_at, n_all;
};

static int count_repeat(void *arg, const struct bench_test *t, int rep, int64_t ns, struct err *e) {
    struct repeats *r = arg;
    int *n = &r->n[t - list];
    assert_int_equal(rep, *n);
    ++*n;
    r->sum_ns += ns;
    return ++r->n_all == r->stop_at ? ERR(e, ERR_IO, "disk full") : 0;
}

/* Every repetition is told when it is measured, and can stop the run. */
static void repetitions_are_told_at_once(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { 0 };
    struct arm *arms[1];
    struct err e = { 0 };
    struct repeats r = { 0 };
    int64_t sum_ns = 0;
    fake_arm_init(&f, 48, 32);
    struct bench_params p = params(&f, arms, 3);
    p.repeat = count_repeat;
    p.repeat_arg = &r;
    assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
    for (size_t i = 0; i < N_ELEMS(list); i++) {
        assert_int_equal(r.n[i], 3);
        for (int k = 0; k < 3; k++)
            sum_ns += seen.ns[i][k];
    }
    assert_int_equal(r.sum_ns, sum_ns);

    memset(&seen, 0, sizeof seen);
    r = (struct repeats){ .stop_at = 7 };
    assert_int_equal(bench_run(&p, keep, &seen, &e), ERR_IO);
    assert_int_equal(r.n_all, 7);
    assert_int_equal(seen.n, 0);
}

/* A model that answers NaN is refused before anything is timed; timed parts ask for no answers. */
static void logits_that_are_not_finite(void **state) {
    (void)state;
    for (int warmup = 0; warmup < 2; warmup++) {
        struct fake_arm f;
        struct seen seen = { 0 };
        struct arm *arms[1];
        struct err e = { 0 };
        fake_arm_init(&f, 48, 32);
        struct bench_params p = params(&f, arms, 3);
        p.warmup = warmup > 0;
        assert_int_equal(bench_run(&p, keep, &seen, &e), 0);
        assert_int_equal(f.n_answers, warmup ? 6 : 1); /* five tests, one of both parts */

        f.max = INFINITY;
        memset(&seen, 0, sizeof seen);
        assert_int_equal(bench_run(&p, keep, &seen, &e), ERR_NONFINITE);
        assert_int_equal(seen.n, 0);
        assert_int_equal(strncmp(e.msg, "warm-up: fake model: the logits", 31), 0);
    }
}

static void several_arms(void **state) {
    (void)state;
    struct fake_arm f[2];
    struct seen seen = { 0 };
    struct err e = { 0 };
    fake_arm_init(&f[0], 16, 8);
    fake_arm_init(&f[1], 16, 16);
    struct arm *arms[] = { &f[0].base, &f[1].base };
    const struct bench_test two[] = { { 0, 16, 0, 0 }, { 1, 16, 0, 0 } };
    struct bench_params p = { .arms = arms,
                              .n_arms = 2,
                              .tests = two,
                              .n_tests = 2,
                              .n_rep = 2,
                              .clock = { fake_clock, &f[0] } };
    /* The second arm takes no time on the first one's clock. */
    assert_int_equal(bench_run(&p, keep, &seen, &e), ERR_UNSUPPORTED);
    assert_int_equal(seen.n, 1);
    assert_int_equal(count(f[0].log, "p0:0+8 P0:8+8"), 2);
    assert_int_equal(count(f[1].log, "P0:0+16"), 2);
}

static void meaningless_parameters(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { 0 };
    struct err e = { 0 };
    fake_arm_init(&f, 48, 32);
    struct arm *arms[1];
    const struct {
        struct bench_test t;
        int n_rep;
        const char *word;
    } bad[] = {
        { { 0, 0, 0, 0 }, 1, "prompt 0" },           { { 0, -1, 0, 0 }, 1, "prompt -1" },
        { { 0, 1, 0, -1 }, 1, "depth -1" },          { { 1, 1, 0, 0 }, 1, "engine 1 of 1" },
        { { 0, 49, 0, 0 }, 1, "need 1 of 49" },      { { 0, 1, 0, 0 }, 0, "0 repetitions" },
        { { 0, 1, INT32_MAX, 0 }, 1, "generation" },
    };
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        struct bench_params p = params(&f, arms, bad[i].n_rep);
        p.tests = &bad[i].t;
        p.n_tests = 1;
        assert_int_equal(bench_run(&p, keep, &seen, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, bad[i].word));
    }
    assert_int_equal(f.n_decodes, 0);
}

static void failing_allocations(void **state) {
    (void)state;
    for (int n = 1; n < 50; n++) {
        struct fake_arm f;
        struct seen seen = { 0 };
        struct err e = { 0 };
        struct arm *arms[1];
        fake_arm_init(&f, 48, 32);
        struct bench_params p = params(&f, arms, 2);
        heap_fail_at(n);
        int rc = bench_run(&p, keep, &seen, &e);
        heap_fail_at(0);
        if (rc == 0) {
            assert_true(n > 8);
            return;
        }
        assert_int_equal(rc, ERR_NOMEM);
    }
    fail_msg("never ran without a failed allocation");
}

static char *captured(void (*print)(FILE *f, const struct bench_line *l),
                      const struct bench_line *l) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    print(f, l);
    fclose(f);
    return text;
}

static void print_md(FILE *f, const struct bench_line *l) {
    const struct bench_columns c = { .test_width = 13 };
    table_bench_md_head(f, &c);
    table_bench_md_row(f, &c, l);
}

static void print_md_all(FILE *f, const struct bench_line *l) {
    const struct bench_columns c = { true, true, true, true, true, 13 };
    table_bench_md_head(f, &c);
    table_bench_md_row(f, &c, l);
}

static void print_csv(FILE *f, const struct bench_line *l) {
    table_bench_csv_head(f);
    table_bench_csv_row(f, l);
}

/* The columns of spec/evaluation.md 7. */
static void the_familiar_formats(void **state) {
    (void)state;
    struct fake_arm f;
    fake_arm_init(&f, 8192, 2048);
    const int64_t ns[] = { 100000000, 102000000 };
    struct bench_result r = { .test = { 0, 512, 0, 4096 },
                              .n_rep = 2,
                              .sample_ns = ns,
                              .avg_ns = 101000000,
                              .stddev_ns = 1414213.6,
                              .avg_ts = 5069.8,
                              .stddev_ts = 70.99,
                              .gpu = { 1980, NAN, 300.5, 0.25, false } };
    struct bench_line l = { .arm = &f.base.info,
                            .model_path = "a \"b\".gguf",
                            .commit_id = "0123456789abcdef",
                            .cpu = "CPU X",
                            .gpu = "",
                            .time_utc = "2026-01-02T03:04:05Z",
                            .vram = { NAN, NAN },
                            .r = &r };
    char *text = captured(print_md, &l);
    assert_string_equal(
        text, "| model                          |       size |     params | backend    | threads |"
              "          test |              t/s |\n"
              "| ------------------------------ | ---------: | ---------: | ---------- | ------: |"
              " ------------: | ---------------: |\n"
              "| qwen3 ?B Q8_0                  |   5.85 MiB |     5.77 M | CPU avx2   |       2 |"
              " pp512 @ d4096 |  5069.80 ± 70.99 |\n");
    free(text);
    text = captured(print_md_all, &l);
    assert_non_null(strstr(text, "| threads | n_batch | n_ubatch | type_k | type_v |"));
    assert_non_null(strstr(text, "|       2 |    2048 |     2048 |    f16 |    f16 |"));
    free(text);
    text = captured(print_csv, &l);
    assert_non_null(strstr(text, "build_commit,build_number,cpu_info,gpu_info,backends,"));
    assert_non_null(strstr(text, ",n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,"
                                 "stddev_ts\n\"012345678\",\"0\",\"CPU X\",\"\",\"CPU avx2\","
                                 "\"a \"\"b\"\".gguf\",\"qwen3 ?B Q8_0\",\"6131712\",\"5771264\""));
    assert_non_null(strstr(text, "\"512\",\"0\",\"4096\",\"2026-01-02T03:04:05Z\",\"101000000\","
                                 "\"1414214\",\"5069.800000\",\"70.990000\"\n"));
    free(text);
    text = captured(table_bench_json, &l);
    assert_int_equal(strncmp(text, "{\"build_commit\": \"012345678\", \"build_number\": 0, ", 49),
                     0);
    assert_non_null(strstr(text, "\"model_filename\": \"a \\\"b\\\".gguf\""));
    assert_non_null(strstr(text, "\"flash_attn\": true"));
    assert_non_null(strstr(text, "\"samples_ns\": [100000000, 102000000], "
                                 "\"samples_ts\": [5120.000000, 5019.607843], "
                                 "\"gpu_sm_mhz\": 1980, \"gpu_mem_mhz\": null, "
                                 "\"gpu_w\": 300.5, \"gpu_jpt\": null, \"gpu_jpt_power\": 0.25, "
                                 "\"vram_delta_mib\": null, \"vram_used_mib\": null}"));
    free(text);
}

static void labels(void **state) {
    (void)state;
    const struct {
        struct bench_test t;
        const char *want;
    } cases[] = {
        { { 0, 512, 0, 0 }, "pp512" },
        { { 0, 0, 128, 0 }, "tg128" },
        { { 0, 512, 128, 0 }, "pp512+tg128" },
        { { 0, 0, 128, 4096 }, "tg128 @ d4096" },
    };
    char buf[64];
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        table_bench_label(&cases[i].t, buf, sizeof buf);
        assert_string_equal(buf, cases[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_arm_needs),
        cmocka_unit_test(depths_are_filled_once),
        cmocka_unit_test(rounds_are_shuffled),
        cmocka_unit_test(times_and_speeds),
        cmocka_unit_test(the_standard_deviation),
        cmocka_unit_test(several_arms),
        cmocka_unit_test(meaningless_parameters),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(the_familiar_formats),
        cmocka_unit_test(labels),
        cmocka_unit_test(logits_that_are_not_finite),
        cmocka_unit_test(repetitions_are_told_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
