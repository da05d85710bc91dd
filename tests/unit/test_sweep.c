/* SPDX-License-Identifier: MIT
 * test_sweep.c - the depth sweep on an engine without arithmetic and with a clock of its own. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "cli/table.h"
#include "fake_arm.h"
#include "measure/sweep.h"

struct seen {
    int n;
    struct sweep_step step[16];
    double pp_s[16][8], tg_s[16][8];
    int stop_at; /* refuse this step; -1 = none */
};

static int keep(void *arg, const struct sweep_step *s, struct err *e) {
    struct seen *seen = arg;
    if (seen->n == seen->stop_at) return ERR(e, ERR_IO, "disk full");
    assert_true(seen->n < 16 && s->n_rep <= 8);
    seen->step[seen->n] = *s;
    memcpy(seen->pp_s[seen->n], s->pp_s, (size_t)s->n_rep * sizeof(double));
    memcpy(seen->tg_s[seen->n], s->tg_s, (size_t)s->n_rep * sizeof(double));
    seen->n++;
    return 0;
}

static struct sweep_params params(struct fake_arm *f, int n_pp, int n_tg, int n_rep) {
    return (struct sweep_params){
        .n_pp = n_pp, .n_tg = n_tg, .n_rep = n_rep, .seed = 7, .clock = { fake_clock, f }
    };
}

static void the_number_of_steps(void **state) {
    (void)state;
    assert_int_equal(sweep_n_steps(2048, 512, 128), 4);
    assert_int_equal(sweep_n_steps(2047, 512, 128), 3);
    assert_int_equal(sweep_n_steps(512, 512, 128), 1);
    assert_int_equal(sweep_n_steps(511, 512, 128), 0);
    assert_int_equal(sweep_n_steps(100, 10, 30), 8); /* 70 + 30 */
    assert_int_equal(sweep_n_steps(20, 10, 30), 0);
    assert_int_equal(sweep_n_steps(INT32_MAX, 1, 1), INT32_MAX);
}

/* Generation first, trimmed, then the prompt; the last prompt stays for the next depth. */
static void the_order_of_calls(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 9, 4);
    struct sweep_params p = params(&f, 4, 2, 2);
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
    assert_int_equal(seen.n, 2);
    assert_string_equal(f.log, "t0:0 g0:0+1 t0:0 "
                               "t0:0 g0:0+1 g0:1+1 t0:0 P0:0+4 t0:0 g0:0+1 g0:1+1 t0:0 P0:0+4 "
                               "t0:4 g0:4+1 g0:5+1 t0:4 P0:4+4 t0:4 g0:4+1 g0:5+1 t0:4 P0:4+4");
}

/* A prompt longer than a batch is handed over in pieces, with logits only at its end. */
static void a_prompt_longer_than_a_batch(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 10, 4);
    struct sweep_params p = params(&f, 10, 1, 1);
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
    assert_string_equal(f.log, "t0:0 g0:0+1 t0:0 t0:0 g0:0+1 t0:0 p0:0+4 p0:4+4 P0:8+2");
}

/* 1 ms a token, growing by 1 us with each position in the cache. */
static void times_and_speeds(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 300, 100);
    f.pos_ns = 1000;
    struct sweep_params p = params(&f, 100, 10, 3);
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
    assert_int_equal(seen.n, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(seen.step[i].n_kv, 100 * i);
        assert_int_equal(seen.step[i].n_rep, 3);
        assert_true(fabs(seen.step[i].pp.median - 100 * (1e-3 + 1e-4 * i)) < 1e-12);
        assert_true(fabs(seen.step[i].tg.median - (10 * (1e-3 + 1e-4 * i) + 45e-6)) < 1e-12);
        assert_true(seen.step[i].rss_bytes > 100000);
    }
    assert_true(fabs(speed_tps(seen.step[0].pp, 100).median - 1000.0) < 1e-6);
}

/* Warm-up runs every shape and hides the slow first decodes: one single token, and a prompt in all
 * the pieces that will be measured. */
static void warm_up_of_every_shape(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 10, 4);
    f.n_slow = 4;
    f.slow_ns = 1000000000;
    struct sweep_params p = params(&f, 10, 1, 1);
    p.warmup = p.warmup_batch = true;
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
    assert_int_equal(strncmp(f.log, "t0:0 g0:0+1 t0:0 p0:0+4 p0:4+4 P0:8+2 t0:0 t0:0 g0:0+1", 54),
                     0);
    assert_true(seen.step[0].pp.median < 0.1 && seen.step[0].tg.median < 0.1);

    memset(&seen, 0, sizeof seen);
    seen.stop_at = -1;
    fake_arm_init(&f, 10, 4);
    p.warmup = false; /* switches the batch off as well */
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
    assert_string_equal(f.log, "t0:0 g0:0+1 t0:0 t0:0 g0:0+1 t0:0 p0:0+4 p0:4+4 P0:8+2");
}

/* A model that answers NaN is refused before anything is timed; timed parts ask for no answers. */
static void logits_that_are_not_finite(void **state) {
    (void)state;
    for (int warmup = 0; warmup < 3; warmup++) {
        struct fake_arm f;
        struct seen seen = { .stop_at = -1 };
        struct err e = { 0 };
        fake_arm_init(&f, 10, 4);
        struct sweep_params p = params(&f, 10, 1, 3);
        p.warmup = warmup > 0;
        p.warmup_batch = warmup > 1;
        assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
        assert_int_equal(f.n_answers, warmup > 1 ? 2 : 1);

        f.max = NAN;
        memset(&seen, 0, sizeof seen);
        assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), ERR_NONFINITE);
        assert_int_equal(seen.n, 0);
        assert_int_equal(strncmp(e.msg, "warm-up: fake model: the logits", 31), 0);
    }
}

static void the_median_and_its_interval(void **state) {
    (void)state;
    struct speed_stat s;
    struct err e = { 0 };
    const double odd[] = { 3, 1, 2 }, even[] = { 4, 1, 3, 2 }, seven[] = { 7, 1, 6, 2, 5, 3, 4 };
    assert_int_equal(speed_stat_of(odd, 3, &s, &e), 0);
    assert_true(s.median == 2 && s.ci_low == 1 && s.ci_high == 3);
    assert_int_equal(speed_stat_of(even, 4, &s, &e), 0);
    assert_true(s.median == 2.5);
    assert_int_equal(speed_stat_of(seven, 7, &s, &e), 0);
    assert_true(s.median == 4 && s.ci_low == 1 && s.ci_high == 7);
    s = speed_tps(s, 28);
    assert_true(s.median == 7 && s.ci_low == 4 && s.ci_high == 28);
    assert_int_equal(speed_stat_of(odd, 1, &s, &e), 0);
    assert_true(s.median == 3 && isnan(s.ci_low) && isnan(s.ci_high));
    const double zero[] = { 0 };
    assert_int_equal(speed_stat_of(zero, 1, &s, &e), ERR_UNSUPPORTED);
}

static void the_seed_decides_the_tokens(void **state) {
    (void)state;
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) {
        struct fake_arm f;
        struct seen seen = { .stop_at = -1 };
        struct err e = { 0 };
        fake_arm_init(&f, 64, 8);
        struct sweep_params p = params(&f, 16, 4, 1);
        p.seed = i == 2 ? 8 : 7;
        assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), 0);
        hash[i] = f.token_hash;
    }
    assert_true(hash[0] == hash[1]);
    assert_true(hash[0] != hash[2]);
}

static void errors_name_the_depth(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 12, 4);
    struct sweep_params p = params(&f, 4, 2, 1);
    f.fail_at = 5; /* three decodes a step */
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), ERR_DEVICE);
    assert_int_equal(seen.n, 1); /* what was finished was handed out */
    assert_string_equal(e.msg, "N_KV = 4: fake: broken");

    memset(&seen, 0, sizeof seen);
    seen.stop_at = 2;
    fake_arm_init(&f, 12, 4);
    assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), ERR_IO);
    assert_int_equal(seen.n, 2);
}

static void meaningless_parameters(void **state) {
    (void)state;
    struct fake_arm f;
    struct seen seen = { .stop_at = -1 };
    struct err e = { 0 };
    fake_arm_init(&f, 128, 64);
    const struct {
        int n_pp, n_tg, n_rep, n_kv_max;
        const char *word;
    } bad[] = {
        { 0, 1, 1, 0, "prompt part of 0" },        { -5, 1, 1, 0, "prompt part of -5" },
        { 512, 1, 1, 0, "holds no step" },         { 8, 129, 1, 0, "holds no step" },
        { 8, 0, 1, 0, "generation part of 0" },    { 8, 1, 0, 0, "0 repeats" },
        { 8, 1, 1, 129, "more than the context" }, { INT32_MAX, 1, 1, 0, "prompt part" },
    };
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        struct sweep_params p = params(&f, bad[i].n_pp, bad[i].n_tg, bad[i].n_rep);
        p.n_kv_max = bad[i].n_kv_max;
        e.msg[0] = '\0';
        assert_int_equal(sweep_run(&f.base, &p, keep, &seen, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, bad[i].word));
    }
    assert_int_equal(f.n_decodes, 0);
}

/* Whichever allocation fails, the sweep ends with that error and without a leak. */
static void failing_allocations(void **state) {
    (void)state;
    struct sweep_params p;
    for (int n = 1; n < 50; n++) {
        struct fake_arm f;
        struct seen seen = { .stop_at = -1 };
        struct err e = { 0 };
        fake_arm_init(&f, 32, 8);
        p = params(&f, 16, 4, 2);
        heap_fail_at(n);
        int rc = sweep_run(&f.base, &p, keep, &seen, &e);
        heap_fail_at(0);
        if (rc == 0) {
            assert_true(n > 6);
            return;
        }
        assert_int_equal(rc, ERR_NOMEM);
    }
    fail_msg("never ran without a failed allocation");
}

static char *captured(void (*print)(FILE *f, const struct sweep_step *s),
                      const struct sweep_step *s) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    print(f, s);
    fclose(f);
    return text;
}

static void print_plain(FILE *f, const struct sweep_step *s) {
    table_sweep_head(f, 0);
    table_sweep_row(f, s, false);
}

static void print_wide(FILE *f, const struct sweep_step *s) {
    table_sweep_head(f, s->n_rep);
    table_sweep_row(f, s, true);
}

static void print_jsonl(FILE *f, const struct sweep_step *s) {
    struct arm_info a = { .n_batch = 2048, .n_ubatch = 512, .n_threads = 2, .n_threads_batch = 2 };
    table_sweep_jsonl(f, &(struct sweep_run_info){ &a, 1024, "run" }, s);
}

/* Digit for digit the row that llama-sweep-bench prints (spec/evaluation.md 6.2). */
static void the_familiar_table(void **state) {
    (void)state;
    const double pp_s[] = { 0.011, 0.010, 0.012 }, tg_s[] = { 0.027, 0.026, 0.028 };
    struct sweep_step s = { .n_pp = 128,
                            .n_tg = 32,
                            .n_rep = 3,
                            .pp_s = pp_s,
                            .tg_s = tg_s,
                            .pp = { 0.011, 0.010, 0.012 },
                            .tg = { 0.027, 0.026, 0.028 },
                            .rss_bytes = 64 << 20,
                            .pp_gpu = nvml_facts_of(&(struct nvml_use){ 0 }, 128),
                            .tg_gpu = { 1980, 2619, 300.5, 0.25, true },
                            .vram = nvml_vram_of(NULL) };
    char *text = captured(print_plain, &s);
    assert_string_equal(
        text, "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
              "|-------|--------|--------|----------|----------|----------|----------|\n"
              "|   128 |     32 |      0 |    0.011 | 11636.36 |    0.027 |  1185.19 |\n");
    free(text);
    text = captured(print_wide, &s);
    assert_string_equal(text,
                        "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |"
                        "           S_PP 75 % |           S_TG 75 % |\n"
                        "|-------|--------|--------|----------|----------|----------|----------|"
                        "---------------------|---------------------|\n"
                        "|   128 |     32 |      0 |    0.011 | 11636.36 |    0.027 |  1185.19 |"
                        "  10666.67..12800.00 |    1142.86..1230.77 |\n");
    free(text);
    text = captured(print_jsonl, &s);
    assert_string_equal(
        text,
        "{\"n_kv_max\": 1024, \"n_batch\": 2048, \"n_ubatch\": 512, \"flash_attn\": 1, "
        "\"n_gpu_layers\": 0, \"n_threads\": 2, \"n_threads_batch\": 2, \"pp\": 128, "
        "\"tg\": 32, \"n_kv\": 0, \"t_pp\": 0.011, \"speed_pp\": 11636.3636, "
        "\"t_tg\": 0.027, \"speed_tg\": 1185.18519, \"rss_hwm_mib\": 64.0, "
        "\"vram_delta_mib\": null, \"vram_used_mib\": null, \"run_id\": \"run\", \"n_rep\": 3, "
        "\"ci_coverage\": 0.75, \"t_pp_ci\": [0.01, 0.012], "
        "\"samples_t_pp\": [0.011, 0.01, 0.012], \"t_tg_ci\": [0.026, 0.028], "
        "\"samples_t_tg\": [0.027, 0.026, 0.028], \"gpu_sm_mhz_pp\": null, "
        "\"gpu_mem_mhz_pp\": null, \"gpu_w_pp\": null, \"gpu_jpt_pp\": null, "
        "\"gpu_jpt_power_pp\": null, \"gpu_sm_mhz_tg\": 1980, \"gpu_mem_mhz_tg\": 2619, "
        "\"gpu_w_tg\": 300.5, \"gpu_jpt_tg\": 0.25, \"gpu_jpt_power_tg\": null}\n");
    free(text);
    s.vram = (struct nvml_vram){ 3221225472.0, 524288 };
    text = captured(print_jsonl, &s);
    assert_non_null(strstr(text, "\"vram_delta_mib\": 0.5, \"vram_used_mib\": 3072, "));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_number_of_steps),
        cmocka_unit_test(the_order_of_calls),
        cmocka_unit_test(a_prompt_longer_than_a_batch),
        cmocka_unit_test(times_and_speeds),
        cmocka_unit_test(warm_up_of_every_shape),
        cmocka_unit_test(logits_that_are_not_finite),
        cmocka_unit_test(the_median_and_its_interval),
        cmocka_unit_test(the_seed_decides_the_tokens),
        cmocka_unit_test(errors_name_the_depth),
        cmocka_unit_test(meaningless_parameters),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(the_familiar_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
