/* SPDX-License-Identifier: MIT
 * test_nvml.c - facts of cards from a management library without cards (tests/fake_nvml): what it
 * says, does not say and says absurdly, and the rows that become of it. */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fake_nvml/fake_nvml.h"
#include "base/arena.h"
#include "base/log.h"
#include "emulated.h"
#include "exec/nvml.h"
#include "fake_arm.h"
#include "measure/speed_rows.h"

#define FILE_NEW "libfake-nvml.so"
#define FILE_OLD "libfake-nvml-old.so"

static const char ids[][NVML_BUS_ID_BYTES] = { "FFFF:00:00.0", "FFFF:01:00.0", "FFFF:02:00.0" };

struct fixture {
    void *so;
    struct fake_nvml *fake; /* of the library that is in use */
};

static int warned;

static void count_warnings(enum log_level level, const char *msg) {
    (void)msg;
    warned += level == LOG_WARN;
}

/* The library that nvml_open will find, with counters that stand still. */
static void use_library(struct fixture *f, const char *file) {
    if (f->so) dlclose(f->so);
    setenv("GGAUGE_NVML", built_library(file), 1);
    f->so = dlopen(getenv("GGAUGE_NVML"), RTLD_NOW | RTLD_LOCAL);
    if (!f->so) fail_msg("%s", dlerror());
    f->fake = dlsym(f->so, FAKE_SYMBOL);
    assert_non_null(f->fake);
    f->fake->by_clock = 0;
}

static int setup(void **state) {
    static struct fixture f;
    log_set_hook(count_warnings);
    use_library(&f, FILE_NEW);
    *state = &f;
    return 0;
}

/* Every nvmlInit has its nvmlShutdown. */
static int teardown(void **state) {
    struct fixture *f = *state;
    const int n_open = f->fake->n_open;
    dlclose(f->so);
    f->so = NULL;
    unsetenv("GGAUGE_NVML");
    return n_open;
}

static struct nvml *open_cards(int n) {
    struct nvml *v = (struct nvml *)1;
    struct err e = { 0 };
    assert_int_equal(nvml_open(&v, ids, n, &e), 0);
    return v;
}

/* A part of some seconds in which each card takes so many joules. */
static void run_part(struct fixture *f, struct nvml *v, double seconds, unsigned joules,
                     struct nvml_use *u) {
    nvml_begin(v);
    for (int i = 0; i < FAKE_CARDS; i++)
        f->fake->mj[i] += 1000ull * joules;
    nvml_end(v, seconds, u);
}

static struct nvml_facts facts(struct fixture *f, int n_cards, double seconds, unsigned joules) {
    struct nvml *v = open_cards(n_cards);
    struct nvml_use u = { 0 };
    assert_non_null(v);
    run_part(f, v, seconds, joules, &u);
    nvml_close(v);
    return nvml_facts_of(&u, 100);
}

static void near(double a, double b) {
    if (!(fabs(a - b) <= 1e-9 * fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}

static void nothing(const struct nvml_facts *f) {
    assert_true(isnan(f->sm_mhz) && isnan(f->mem_mhz) && isnan(f->watts) && isnan(f->token_j));
}

/* ---- what it says ---------------------------------------------------------------------------- */

static void one_card(void **state) {
    struct fixture *f = *state;
    struct nvml *v = open_cards(1);
    struct nvml_use u = { 0 };
    assert_non_null(v);
    assert_string_equal(nvml_driver(v), FAKE_DRIVER);
    run_part(f, v, 0.5, 150, &u);
    f->fake->mj[0] += 1000000; /* between parts, nobody's */
    run_part(f, v, 1.5, 450, &u);
    const struct nvml_facts a = nvml_facts_of(&u, 100);
    near(a.watts, 300);
    near(a.token_j, 3);
    near(a.sm_mhz, 1980);
    near(a.mem_mhz, 2619);
    assert_true(a.counted);
    assert_int_equal(f->fake->n_calls[FAKE_power], 0);
    nvml_close(v);
}

static void several_cards(void **state) {
    const struct nvml_facts a = facts(*state, 2, 1, 100);
    near(a.watts, 200);
    near(a.token_j, 2);
    near(a.sm_mhz, 1755);
    near(a.mem_mhz, 2600);
}

static void memory(void **state) {
    struct fixture *f = *state;
    struct nvml *v = open_cards(2);
    f->fake->used[1] += 5u << 20;
    struct nvml_vram m = nvml_vram_of(v);
    near(m.used_bytes, 4.0 * (1u << 30) + (5u << 20));
    near(m.delta_bytes, 5u << 20);
    f->fake->used[0] -= 1u << 30; /* somebody has left */
    m = nvml_vram_of(v);
    near(m.used_bytes, 3.0 * (1u << 30) + (5u << 20));
    assert_true(isnan(m.delta_bytes));
    f->fake->used[0] = f->fake->total + 1;
    assert_true(isnan(nvml_vram_of(v).used_bytes));
    f->fake->used[0] = 0;
    f->fake->total = 0;
    assert_true(isnan(nvml_vram_of(v).used_bytes));
    nvml_close(v);
}

/* Nothing but the counter is asked before a part, and that once. */
static void little_is_asked(void **state) {
    struct fixture *f = *state;
    struct nvml *v = open_cards(1);
    struct nvml_use u = { 0 };
    memset(f->fake->n_calls, 0, sizeof f->fake->n_calls);
    nvml_begin(v);
    for (int c = 0; c < FAKE_count; c++)
        assert_int_equal(f->fake->n_calls[c], c == FAKE_energy);
    nvml_end(v, 1, &u);
    for (int c = 0; c < FAKE_count; c++)
        assert_int_equal(f->fake->n_calls[c], c == FAKE_energy ? 2 : c == FAKE_sm || c == FAKE_mem);
    nvml_close(v);
}

/* ---- what it does not say -------------------------------------------------------------------- */

static void no_library(void **state) {
    struct fixture *f = *state;
    struct nvml_use u = { 0 };
    warned = 0;
    setenv("GGAUGE_NVML", "", 1);
    assert_null(open_cards(1));
    assert_int_equal(warned, 0);
    setenv("GGAUGE_NVML", "/nowhere/libnvidia-ml.so.1", 1);
    assert_null(open_cards(1));
    assert_int_equal(warned, 1); /* whoever names one is told */
    setenv("GGAUGE_NVML", built_library("libggauge-cuda-emu.so"), 1);
    assert_null(open_cards(1)); /* a library, but another */
    nvml_begin(NULL);
    nvml_end(NULL, 1, &u);
    const struct nvml_facts a = nvml_facts_of(&u, 100);
    nothing(&a);
    assert_true(isnan(nvml_vram_of(NULL).used_bytes) && isnan(nvml_vram_of(NULL).delta_bytes));
    assert_string_equal(nvml_driver(NULL), "");
    nvml_close(NULL);
    assert_int_equal(f->fake->n_calls[FAKE_init], 0);
}

static void no_cards(void **state) {
    struct fixture *f = *state;
    assert_null(open_cards(0));
    assert_null(open_cards(3)); /* one of three is not there: sums would lack it */
    assert_null(open_cards(NVML_CARDS_MAX + 1));
    f->fake->split = 1;
    assert_null(open_cards(1));
    f->fake->fail[FAKE_mig] = 3; /* no card of that kind: then it cannot be split */
    struct nvml *v = open_cards(1);
    assert_non_null(v);
    nvml_close(v);
    f->fake->fail[FAKE_find] = 4;
    assert_null(open_cards(1));
    f->fake->fail[FAKE_find] = 0;
    f->fake->fail[FAKE_init] = 9;
    assert_null(open_cards(1));
}

/* Each fact alone is missing when its function has no answer. */
static void not_supported(void **state) {
    struct fixture *f = *state;
    for (int c = FAKE_driver; c < FAKE_count; c++) {
        if (c == FAKE_power) continue; /* not asked while there is a counter */
        f->fake->fail[c] = 3;
        struct nvml *v = open_cards(1);
        struct nvml_use u = { 0 };
        assert_non_null(v);
        run_part(f, v, 2, 600, &u);
        const struct nvml_facts a = nvml_facts_of(&u, 100);
        assert_int_equal(isnan(a.sm_mhz), c == FAKE_sm);
        assert_int_equal(isnan(a.mem_mhz), c == FAKE_mem);
        near(a.watts, c == FAKE_energy ? FAKE_WATTS : 300);
        assert_int_equal(a.counted, c != FAKE_energy);
        assert_int_equal(isnan(nvml_vram_of(v).delta_bytes), c == FAKE_memory);
        assert_string_equal(nvml_driver(v), c == FAKE_driver ? "" : FAKE_DRIVER);
        nvml_close(v);
        f->fake->fail[c] = 0;
    }
}

/* Without a counter there is power times time, for parts as long as a reading is a mean over. */
static void without_a_counter(void **state) {
    struct fixture *f = *state;
    use_library(f, FILE_OLD);
    struct nvml_facts a = facts(f, 2, 2, 0);
    assert_false(a.counted);
    near(a.watts, 2 * FAKE_WATTS);
    near(a.token_j, 2 * FAKE_WATTS * 2 / 100.0);
    a = facts(f, 2, 0.9, 0);
    assert_true(isnan(a.watts) && isnan(a.token_j));
    near(a.sm_mhz, 1755);
    f->fake->fail[FAKE_power] = 3;
    a = facts(f, 1, 2, 0);
    assert_true(isnan(a.watts) && isnan(a.token_j));
    near(a.sm_mhz, 1980);
}

/* ---- what it says absurdly ------------------------------------------------------------------- */

static void absurd_energy(void **state) {
    struct fixture *f = *state;
    struct nvml *v = open_cards(1);
    struct nvml_use u = { 0 };
    f->fake->mj[0] = 5000000;
    nvml_begin(v);
    f->fake->mj[0] = 1000; /* the driver was loaded anew */
    nvml_end(v, 1, &u);
    run_part(f, v, 1, 300, &u); /* one good part mends nothing */
    struct nvml_facts a = nvml_facts_of(&u, 100);
    assert_true(isnan(a.watts) && isnan(a.token_j));
    near(a.sm_mhz, 1980);

    u = (struct nvml_use){ 0 };
    nvml_begin(v);
    f->fake->fail[FAKE_energy] = 15; /* it was there when opened: readings do not take its place */
    nvml_end(v, 1, &u);
    f->fake->fail[FAKE_energy] = 0;
    a = nvml_facts_of(&u, 100);
    assert_true(isnan(a.watts) && isnan(a.token_j));
    nvml_close(v);

    const struct {
        double seconds;
        unsigned joules;
        bool good;
    } parts[] = { { 1, 0, false },      { 1, 5001, false },  { 1, 4999, true },
                  { 0.49, 100, false }, { 0.51, 100, true }, { 0, 100, false } };
    for (size_t i = 0; i < N_ELEMS(parts); i++) {
        a = facts(f, 1, parts[i].seconds, parts[i].joules);
        if (isnan(a.watts) == parts[i].good || isnan(a.token_j) == parts[i].good)
            fail_msg("%g s, %u J: %g W", parts[i].seconds, parts[i].joules, a.watts);
    }
}

static void absurd_readings(void **state) {
    struct fixture *f = *state;
    const unsigned bad[] = { 0, UINT32_MAX };
    for (int i = 0; i < 2; i++) {
        f->fake->sm_mhz[0] = f->fake->mem_mhz[0] = bad[i];
        const struct nvml_facts a = facts(f, 2, 1, 100);
        assert_true(isnan(a.sm_mhz) && isnan(a.mem_mhz));
        near(a.watts, 200);
        f->fake->fail[FAKE_energy] = 3;
        f->fake->mw[0] = bad[i];
        const struct nvml_facts b = facts(f, 2, 1, 100);
        assert_true(isnan(b.watts) && isnan(b.token_j));
        f->fake->fail[FAKE_energy] = 0;
    }
    f->fake->driver = "550\x01\n";
    struct nvml *v = open_cards(1);
    assert_string_equal(nvml_driver(v), "");
    nvml_close(v);
    f->fake->driver =
        "a name of more than eighty characters, which no driver of anybody has had in "
        "all the years since there were any";
    v = open_cards(1);
    assert_string_equal(nvml_driver(v), "");
    nvml_close(v);
}

static void failing_allocations(void **state) {
    (void)state;
    struct nvml *v = NULL;
    struct err e = { 0 };
    heap_fail_at(1);
    const int rc = nvml_open(&v, ids, 1, &e);
    heap_fail_at(0);
    assert_int_equal(rc, ERR_NOMEM);
    assert_null(v);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* An engine whose tokens take 10 J of each card. */
struct hungry_arm {
    struct fake_arm fake;
    const struct arm_ops *ops;
    struct fixture *f;
};

static int hungry_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                         struct err *e) {
    struct hungry_arm *h = (struct hungry_arm *)a;
    for (int i = 0; i < FAKE_CARDS; i++)
        h->f->fake->mj[i] += 10000ull * (unsigned long long)b->n;
    return h->ops->decode(a, b, fn, arg, e);
}

static void hungry_init(struct hungry_arm *h, struct fixture *f, int n_ctx, int n_batch,
                        struct arm_ops *ops) {
    fake_arm_init(&h->fake, n_ctx, n_batch);
    h->fake.token_ns = 50000000; /* 200 W */
    h->f = f;
    h->ops = h->fake.base.ops;
    *ops = *h->ops;
    ops->decode = hungry_decode;
    h->fake.base.ops = ops;
}

struct seen {
    char text[2048]; /* "subject metric value\n" */
};

static int see_row(void *arg, const struct row *r, struct err *e) {
    struct seen *s = arg;
    const size_t used = strlen(s->text);
    const char *metric = row_get(r, ROW_metric);
    (void)e;
    if (strncmp(metric, "gpu_", 4) && strncmp(metric, "vram_", 5)) return 0;
    assert_string_equal(row_get(r, ROW_status), "PASS");
    snprintf(s->text + used, sizeof s->text - used, "%s %s %.6g\n", row_get(r, ROW_subject), metric,
             strtod(row_get(r, ROW_value), NULL));
    return 0;
}

static int put_sweep(void *arg, const struct sweep_step *s, struct err *e) {
    return speed_rows_sweep(arg, s, e);
}

static int put_bench(void *arg, const struct bench_result *r, struct err *e) {
    return speed_rows_bench(arg, "pp16+tg4", r, e);
}

/* The rows of cards of one sweep and one test, in the order of the file. */
static void rows_of(struct hungry_arm *h, struct seen *seen) {
    char path[] = "/tmp/ggauge-nvml-XXXXXX";
    struct run_rows rows = { .n_out = 0 };
    struct err e = { 0 };
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    row_init(&rows.base);
    struct arm *arm = &h->fake.base;
    const struct bench_test test = { 0, 16, 4, 0 };
    const struct sweep_params sweep = {
        .n_pp = 32, .n_tg = 16, .n_rep = 2, .clock = { fake_clock, h }
    };
    const struct bench_params bench = { .arms = &arm,
                                        .n_arms = 1,
                                        .tests = &test,
                                        .n_tests = 1,
                                        .n_rep = 2,
                                        .clock = { fake_clock, h } };
    if (run_rows_open(&rows, path, &e) || row_set(&rows.base, ROW_schema, ROW_SCHEMA, &e) ||
        sweep_run(arm, &sweep, put_sweep, &rows, &e) || bench_run(&bench, put_bench, &rows, &e) ||
        speed_rows_memory(&rows, arm->cards, &e) || run_rows_close(&rows, &e) ||
        row_read_csv(path, see_row, seen, &e))
        fail_msg("%s", e.msg);
    unlink(path);
}

static void rows(void **state) {
    struct fixture *f = *state;
    struct hungry_arm h;
    struct arm_ops ops;
    struct seen seen = { .text = "" };
    hungry_init(&h, f, 32, 32, &ops);
    h.fake.base.cards = open_cards(1);
    f->fake->used[0] += 1 << 20;
    rows_of(&h, &seen);
    nvml_close(h.fake.base.cards);
    assert_string_equal(seen.text, "pp gpu_sm_mhz 1980\n"
                                   "pp gpu_mem_mhz 2619\n"
                                   "pp gpu_w 200\n"
                                   "pp gpu_jpt 10\n"
                                   "tg gpu_sm_mhz 1980\n"
                                   "tg gpu_mem_mhz 2619\n"
                                   "tg gpu_w 200\n"
                                   "tg gpu_jpt 10\n"
                                   "run vram_bytes 3.22227e+09\n"
                                   "run vram_delta_bytes 1.04858e+06\n"
                                   "pp16+tg4 gpu_sm_mhz 1980\n"
                                   "pp16+tg4 gpu_mem_mhz 2619\n"
                                   "pp16+tg4 gpu_w 200\n"
                                   "pp16+tg4 gpu_jpt 10\n"
                                   "run vram_bytes 3.22227e+09\n"
                                   "run vram_delta_bytes 1.04858e+06\n");
}

/* The CPU has none, and what a library does not say is no row. */
static void no_rows(void **state) {
    struct fixture *f = *state;
    struct hungry_arm h;
    struct arm_ops ops;
    struct seen seen = { .text = "" };
    hungry_init(&h, f, 32, 32, &ops);
    rows_of(&h, &seen);
    assert_string_equal(seen.text, "");

    use_library(f, FILE_OLD);
    f->fake->fail[FAKE_mem] = f->fake->fail[FAKE_memory] = 3;
    hungry_init(&h, f, 32, 32, &ops);
    h.fake.token_ns = 100000000; /* parts of a second and more */
    h.fake.base.cards = open_cards(1);
    rows_of(&h, &seen);
    nvml_close(h.fake.base.cards);
    assert_string_equal(seen.text, "pp gpu_sm_mhz 1980\n"
                                   "pp gpu_w 250\n"
                                   "pp gpu_jpt_power 25\n"
                                   "tg gpu_sm_mhz 1980\n"
                                   "tg gpu_w 250\n"
                                   "tg gpu_jpt_power 25\n"
                                   "pp16+tg4 gpu_sm_mhz 1980\n"
                                   "pp16+tg4 gpu_w 250\n"
                                   "pp16+tg4 gpu_jpt_power 25\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_card),        TEST(several_cards),       TEST(memory),
        TEST(little_is_asked), TEST(no_library),          TEST(no_cards),
        TEST(not_supported),   TEST(without_a_counter),   TEST(absurd_energy),
        TEST(absurd_readings), TEST(failing_allocations), TEST(rows),
        TEST(no_rows),
    };
    return cmocka_run_group_tests_name("nvml", tests, NULL, NULL);
}
