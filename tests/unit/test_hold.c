/* SPDX-License-Identifier: MIT
 * test_hold.c - rows that an arm holds give, bit for bit, the answers of a decode, in any slices,
 * also when batches follow each other or layers are on devices; an observer sees the cells of the
 * cache that were written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../tiny/tiny_model.h"
#include "arm/arm.h"
#include "arm/recording.h"
#include "backend.h"
#include "emulated.h"
#include "exec/observer.h"

#define N_TOK 40
#define N_WANT 30 /* the last ones */
#define N_VOCAB 300

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen3");
    assert_int_equal(t.n_vocab, N_VOCAB);
    t.quantised = true;
    snprintf(path, sizeof path, "/tmp/ggauge-tiny-XXXXXX");
    close(mkstemp(path));
    if (tiny_model_write(&t, path, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

static struct arm *open_arm(int n_ubatch, const char *act_like) {
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = { .model = path,
                            .backend = "ref",
                            .act_like = act_like,
                            .n_ctx = 64,
                            .n_seq = 1,
                            .n_batch = 64,
                            .n_ubatch = n_ubatch,
                            .n_threads = 2 };
    if (arm_open(&a, &p, &e)) fail_msg("%s", e.msg);
    return a;
}

static int32_t token[N_TOK], pos[N_TOK], seq[N_TOK];
static bool want[N_TOK];

static struct arm_batch batch(int from, int to) {
    for (int i = 0; i < N_TOK; i++) {
        token[i] = (i * 37 + 11) % N_VOCAB;
        pos[i] = i;
        want[i] = i >= N_TOK - N_WANT;
    }
    return (struct arm_batch){ to - from, token + from, pos + from, seq + from, want + from, true };
}

static float expected[N_WANT][N_VOCAB], got[N_WANT][N_VOCAB];
static struct arm_row row_of[N_WANT];

static int keep_answer(void *arg, const struct arm_answer *a, struct err *e) {
    (void)arg, (void)e;
    memcpy(expected[a->i - (N_TOK - N_WANT)], a->logits, sizeof expected[0]);
    return 0;
}

static int keep_row(void *arg, const struct arm_row *r, struct err *e) {
    (void)e;
    assert_true(r->r < N_WANT);
    assert_int_equal(r->logits != NULL, *(const bool *)arg);
    if (r->logits) memcpy(got[r->r], r->logits, sizeof got[0]);
    row_of[r->r] = *r;
    return 0;
}

static void ask(struct arm *a, int step, bool logits) {
    struct err e = { 0 };
    int32_t target[N_WANT];
    for (int i = 0; i < N_WANT; i++)
        target[i] = (i * 7) % N_VOCAB;
    memset(got, 0, sizeof got);
    for (int r = 0; r < N_WANT; r += step) {
        int n = N_WANT - r < step ? N_WANT - r : step;
        if (arm_rows(a, r, n, target + r, logits, keep_row, &logits, &e)) fail_msg("%s", e.msg);
    }
    for (int r = 0; r < N_WANT; r++) { /* by definition, in double */
        const float *l = expected[r];
        double sum = 0, second = -INFINITY, max = -INFINITY;
        int top = 0;
        for (int v = 0; v < N_VOCAB; v++)
            if ((double)l[v] > max) max = (double)l[v], top = v;
        for (int v = 0; v < N_VOCAB; v++) {
            sum += exp((double)l[v] - max);
            if (v != top && (double)l[v] > second) second = (double)l[v];
        }
        assert_int_equal(row_of[r].top1, top);
        assert_int_equal(row_of[r].bad, -1);
        assert_true((double)row_of[r].second == second);
        assert_float_equal(row_of[r].nll, log(sum) + max - (double)l[target[r]], 2e-6);
    }
}

static void held_rows_are_the_answers(void **state) {
    (void)state;
    struct err e = { 0 };
    const int ub[] = { 64, 16, 7, 1 }, steps[] = { N_WANT, 11, 1 };
    struct arm *a = open_arm(16, NULL);
    struct arm_batch all = batch(0, N_TOK);
    if (arm_decode(a, &all, keep_answer, NULL, &e)) fail_msg("%s", e.msg);
    arm_close(a);
    for (size_t u = 0; u < N_ELEMS(ub); u++) {
        a = open_arm(ub[u], NULL);
        for (size_t s = 0; s < N_ELEMS(steps); s++) {
            struct arm_batch head = batch(0, 17), tail = batch(17, N_TOK);
            if (arm_kv_trim(a, -1, 0, &e)) fail_msg("%s", e.msg);
            if (arm_hold(a, &head, false, &e) || arm_hold(a, &tail, true, &e))
                fail_msg("%s", e.msg);
            ask(a, steps[s], true);
            assert_memory_equal(got, expected, sizeof got);
            ask(a, steps[s], false);
        }
        int32_t target[2] = { 0 };
        bool logits = false;
        assert_int_equal(arm_rows(a, N_WANT - 1, 2, target, logits, keep_row, &logits, &e),
                         ERR_ARG);
        arm_close(a);
    }
}

/* With layers on devices, whose streams run in several orders: rows come to the host while the next
 * micro-batch is computed. */
static void devices_hold_rows_too(void **state) {
    (void)state;
    struct err e = { 0 };
    static const struct place {
        const char *layers, *shares, *rule;
    } places[] = { { NULL, NULL, NULL },
                   { "1", NULL, NULL },
                   { NULL, "1,1", NULL },
                   { NULL, NULL, "ffn_=CPU" },
                   { NULL, NULL, "output=CPU" } };
    setenv("GGAUGE_EMU_DEVICES", "2", 1);
    for (int i = 0; i < 4 * (int)N_ELEMS(places); i++) {
        const struct place *l = &places[i / 4];
        struct arm *a;
        struct arm_params p = { .model = path,
                                .backend = "cuda",
                                .cpu_backend = "ref",
                                .n_gpu_layers = l->layers,
                                .tensor_split = l->shares,
                                .rules = { l->rule != NULL, { l->rule } },
                                .n_ctx = 64,
                                .n_seq = 1,
                                .n_batch = 64,
                                .n_ubatch = i % 2 ? 5 : 18,
                                .n_threads = 1 };
        struct arm_batch all = batch(0, N_TOK), head = batch(0, 17), tail = batch(17, N_TOK);
        if (i % 4 > 0) setenv("GGAUGE_EMU_SEED", i % 4 == 1 ? "1" : "2", 1);
        if (arm_open(&a, &p, &e) || (i % 4 == 0 && arm_decode(a, &all, keep_answer, NULL, &e)) ||
            arm_kv_trim(a, -1, 0, &e) || arm_hold(a, &head, false, &e) ||
            arm_hold(a, &tail, true, &e))
            fail_msg("%s", e.msg);
        ask(a, 11, true);
        if (memcmp(got, expected, sizeof got)) fail_msg("place %d, case %d", i / 4, i % 4);
        arm_close(a);
        unsetenv("GGAUGE_EMU_SEED");
    }
    unsetenv("GGAUGE_EMU_DEVICES");
}

static void act_like_holds_rows_too(void **state) {
    (void)state;
    if (!column_available(COL_avx2)) skip();
    struct err e = { 0 };
    struct arm *a = open_arm(16, "avx2");
    struct arm_batch all = batch(0, N_TOK);
    if (arm_decode(a, &all, keep_answer, NULL, &e)) fail_msg("%s", e.msg);
    if (arm_kv_trim(a, -1, 0, &e) || arm_hold(a, &all, false, &e)) fail_msg("%s", e.msg);
    ask(a, 4, true);
    assert_memory_equal(got, expected, sizeof got);
    arm_close(a);
}

/* ---- what an observer sees of the cache ------------------------------------------------------ */

struct cache_watch {
    int64_t n_rows;
    float last; /* first element of the last row stored */
    bool clear;
};

static bool want_cache(void *arg, const struct node *n) {
    (void)arg;
    return n->op == OP_set_rows && n->il == 0;
}

static int see_cache(void *arg, const struct node *n, void *data, struct err *e) {
    (void)e;
    struct cache_watch *c = arg;
    float row[1024];
    int64_t rows = node_rows(n);
    assert_true(n->dst->ne[0] <= (int64_t)N_ELEMS(row));
    qkernel_find(COL_ref, (enum qtype)n->dst->type, false, NULL)
        ->dequant_row((char *)data + (size_t)(rows - 1) * n->dst->row_bytes, row, n->dst->ne[0]);
    c->n_rows += rows;
    c->last = row[0];
    if (c->clear) memset(data, 0, (size_t)rows * n->dst->row_bytes);
    return 0;
}

static void the_cache_is_seen_and_forced_by_rows(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm(16, NULL);
    struct cache_watch c = { 0 };
    struct observer o = { .arg = &c, .want = want_cache, .see = see_cache };
    if (arm_observe(a, &o, &e)) fail_msg("%s", e.msg);
    struct arm_batch all = batch(0, N_TOK);
    if (arm_hold(a, &all, false, &e)) fail_msg("%s", e.msg);
    assert_int_equal(c.n_rows, 2 * N_TOK); /* K and V */
    assert_true(c.last != 0.0f);
    static float seen[N_WANT][N_VOCAB];
    bool logits = true;
    int32_t target[N_WANT] = { 0 };
    if (arm_rows(a, 0, N_WANT, target, true, keep_row, &logits, &e)) fail_msg("%s", e.msg);
    memcpy(seen, got, sizeof seen);
    c.clear = true; /* what see() writes is what attention reads */
    if (arm_kv_trim(a, -1, 0, &e) || arm_hold(a, &all, false, &e) ||
        arm_rows(a, 0, N_WANT, target, true, keep_row, &logits, &e))
        fail_msg("%s", e.msg);
    assert_memory_not_equal(seen, got, sizeof seen);
    arm_close(a);
}

/* ---- recordings ------------------------------------------------------------------------------ */

static void a_recording_answers_what_was_asked_before(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm(16, NULL), *r;
    struct arm_row first[N_WANT];
    bool logits = false;
    int32_t target[N_WANT];
    for (int i = 0; i < N_WANT; i++)
        target[i] = (i * 7) % N_VOCAB;
    if (arm_open_recording(&r, a, &e)) fail_msg("%s", e.msg);
    struct arm_batch head = batch(0, 17), tail = batch(17, N_TOK), all = batch(0, N_TOK);
    if (arm_kv_trim(r, -1, 0, &e) || arm_hold(r, &head, false, &e) ||
        arm_hold(r, &tail, true, &e) ||
        arm_rows(r, 0, N_WANT, target, false, keep_row, &logits, &e))
        fail_msg("%s", e.msg);
    memcpy(first, row_of, sizeof first);
    recording_detach(r);
    arm_close(a);
    memset(row_of, 0, sizeof row_of);
    if (arm_kv_trim(r, -1, 0, &e) || arm_hold(r, &all, false, &e) || /* batches cut otherwise */
        arm_rows(r, 3, 20, target + 3, false, keep_row, &logits, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(row_of + 3, first + 3, 20 * sizeof *first);
    target[5]++; /* another question */
    assert_int_equal(arm_rows(r, 5, 1, target + 5, false, keep_row, &logits, &e), ERR_MISSING);
    target[5]--;
    token[2]++; /* another text before the same tokens */
    if (arm_hold(r, &(struct arm_batch){ N_TOK, token, pos, seq, want, true }, false, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(arm_rows(r, 5, 1, target + 5, false, keep_row, &logits, &e), ERR_MISSING);
    arm_close(r);
}

int main(void) {
    use_emulated_cuda();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_rows_are_the_answers),
        cmocka_unit_test(devices_hold_rows_too),
        cmocka_unit_test(act_like_holds_rows_too),
        cmocka_unit_test(the_cache_is_seen_and_forced_by_rows),
        cmocka_unit_test(a_recording_answers_what_was_asked_before),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
