/* SPDX-License-Identifier: MIT
 * test_file_arm.c - saved logits as an arm: the chunk is found by its tokens, rows say what the
 * records say, and what is not in the file is one clear error. */
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
#include "arm/kld_file.h"
#include "arm/kld_format.h"
#include "base/rng.h"
#include "exec/observer.h"
#include "result/row.h"

#define N_CTX 16
#define FIRST 8 /* positions FIRST .. N_CTX - 2 have records */
#define N_REC 7
#define N_VOCAB 300
#define N_CHUNK 6
#define BOS 1

static char path[64], model[64];
static int32_t text[N_CHUNK][N_CTX];
static float log_prob[N_CHUNK][N_REC][N_VOCAB]; /* as the file's records say */
static uint16_t record[N_VOCAB + 5];

static void write_records(struct kld_writer *w) {
    struct err e = { 0 };
    struct rng rng = { 7 };
    float l[N_VOCAB];
    for (int c = 0; c < N_CHUNK; c++) {
        for (int r = 0; r < N_REC; r++) {
            float max = -INFINITY;
            double sum = 0;
            for (int v = 0; v < N_VOCAB; v++) {
                l[v] = (float)rng_below(&rng, 4000) * 0.01f - 20.0f;
                max = l[v] > max ? l[v] : max;
            }
            for (int v = 0; v < N_VOCAB; v++)
                sum += exp((double)l[v] - (double)max);
            kld_encode(record, l, N_VOCAB, max, log(sum), KLD_FLOOR_IK);
            if (kld_decode(log_prob[c][r], record, N_VOCAB, &e)) fail_msg("%s", e.msg);
            if (kld_writer_add(w, l, max, log(sum), &e)) fail_msg("%s", e.msg);
        }
    }
}

/* Chunks 1 and 4 share 12 tokens, 2 and 3 all of them. */
static int write_files(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen3");
    struct kld_writer *w;
    const struct kld_shape shape = { N_CTX, N_VOCAB, N_CHUNK };
    for (int c = 0; c < N_CHUNK; c++)
        for (int p = 0; p < N_CTX; p++)
            text[c][p] = (c * 61 + p * 17 + 5) % N_VOCAB;
    memcpy(text[4], text[1], 12 * sizeof text[0][0]);
    memcpy(text[3], text[2], sizeof text[3]);
    snprintf(path, sizeof path, "/tmp/ggauge-kld-%d", (int)getpid());
    snprintf(model, sizeof model, "/tmp/ggauge-tiny-%d.gguf", (int)getpid());
    if (tiny_model_write(&t, model, &e)) fail_msg("%s", e.msg);
    if (kld_writer_open(&w, path, &shape, text[0], KLD_FLOOR_IK, &e)) fail_msg("%s", e.msg);
    write_records(w);
    if (kld_writer_close(w, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    return unlink(path) | unlink(model);
}

static struct arm_params params(void) {
    return (struct arm_params){
        .kind = ARM_FILE, .path = path, .n_ctx = N_CTX, .n_seq = 3, .n_batch = 64
    };
}

static struct arm *open_arm(void) {
    struct err e = { 0 };
    struct arm *a = NULL;
    struct arm_params p = params();
    if (arm_open(&a, &p, &e)) fail_msg("%s", e.msg);
    return a;
}

/* Positions [from, to) of windows of these chunks, interleaved as a walk does it. */
static struct arm_batch batch(const int *chunk, int n, int from, int to, bool bos) {
    static int32_t token[3 * N_CTX], pos[3 * N_CTX], seq[3 * N_CTX];
    static bool want[3 * N_CTX];
    struct arm_batch b = { 0, token, pos, seq, want, true };
    for (int s = 0; s < n; s++) {
        for (int p = from; p < to; p++, b.n++) {
            token[b.n] = p == 0 && bos ? BOS : text[chunk[s]][p];
            pos[b.n] = p;
            seq[b.n] = s;
            want[b.n] = p >= FIRST && p < N_CTX - 1;
        }
    }
    return b;
}

struct expect {
    const int *chunk; /* of every N_REC rows */
    const int32_t *target;
    int64_t n;
    bool logits;
};

static int check_row(void *arg, const struct arm_row *r, struct err *e) {
    (void)e;
    struct expect *x = arg;
    const float *lp = log_prob[x->chunk[r->r / N_REC]][r->r % N_REC];
    float max = -INFINITY, second = -INFINITY;
    int top = 0;
    assert_int_equal(r->r, x->n++);
    for (int v = 0; v < N_VOCAB; v++)
        if (lp[v] > max) max = lp[v], top = v;
    for (int v = 0; v < N_VOCAB; v++)
        if (v != top && lp[v] > second) second = lp[v];
    assert_int_equal(r->top1, top);
    assert_int_equal(r->bad, -1);
    assert_true(r->second == second && r->max == (double)max && r->max + r->lse == 0);
    assert_true(r->nll == -(double)lp[x->target[r->r]]);
    assert_true((r->logits != NULL) == x->logits);
    if (r->logits) assert_memory_equal(r->logits, lp, N_VOCAB * sizeof *lp);
    return 0;
}

static void check_rows(struct arm *a, const int *chunk, int n_chunks) {
    struct err e = { 0 };
    int32_t target[3 * N_REC];
    int n = n_chunks * N_REC;
    for (int i = 0; i < n; i++)
        target[i] = (i * 31 + 3) % N_VOCAB;
    for (int logits = 0; logits < 2; logits++) {
        struct expect x = { chunk, target, 0, logits };
        for (int r = 0; r < n; r += 5)
            if (arm_rows(a, r, n - r < 5 ? n - r : 5, target + r, logits, check_row, &x, &e))
                fail_msg("%s", e.msg);
        assert_int_equal(x.n, n);
    }
    assert_int_equal(arm_rows(a, n, 1, target, false, check_row, NULL, &e), ERR_ARG);
}

static int hold_all(struct arm *a, const int *chunk, int n, bool bos, struct err *e) {
    struct arm_batch b = batch(chunk, n, 0, N_CTX, bos);
    int rc = arm_kv_trim(a, -1, 0, e);
    return rc ? rc : arm_hold(a, &b, false, e);
}

static void rows_are_the_records(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm();
    const int order[][3] = { { 0, 1, 2 }, { 4, 5, 0 }, { 5, 5, 1 } };
    for (int bos = 0; bos < 2; bos++) {
        for (size_t i = 0; i < N_ELEMS(order); i++) {
            for (int n = 1; n <= 3; n++) {
                if (hold_all(a, order[i], n, bos, &e)) fail_msg("%s", e.msg);
                check_rows(a, order[i], n);
            }
        }
    }
    assert_int_equal(a->info.promise, ARM_RECORDED);
    assert_int_equal(a->info.n_vocab, N_VOCAB);
    assert_int_equal(a->info.n_ctx, N_CTX);
    struct row r = { 0 };
    if (arm_describe(a, &r, &e)) fail_msg("%s", e.msg);
    assert_string_equal(row_get(&r, ROW_n_ctx), "16");
    assert_int_equal(strlen(row_get(&r, ROW_model_fp)), 16);
    row_release(&r);
    arm_close(a);
}

/* A window in pieces: what is held first follows when the rest tells which chunk it is. */
static void held_rows_follow_their_chunk(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm();
    const int four[] = { 4 }, one[] = { 1 };
    for (int cut = 1; cut < N_CTX; cut++) {
        for (int which = 0; which < 2; which++) {
            const int *chunk = which ? four : one;
            struct arm_batch b = batch(chunk, 1, 0, cut, true);
            if (arm_kv_trim(a, -1, 0, &e) || arm_hold(a, &b, false, &e)) fail_msg("%s", e.msg);
            b = batch(chunk, 1, cut, N_CTX, true);
            if (arm_hold(a, &b, true, &e)) fail_msg("%s", e.msg);
            check_rows(a, chunk, 1);
        }
    }
    arm_close(a);
}

/* Equal chunks are taken in the order of the file, as a walk meets them. */
static void equal_chunks_come_in_order(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm();
    const int order[] = { 0, 1, 2, 3, 4, 5, 0 };
    for (size_t i = 0; i < N_ELEMS(order); i++) {
        if (hold_all(a, &order[i], 1, true, &e)) fail_msg("%s", e.msg);
        check_rows(a, &order[i], 1);
    }
    const int together[] = { 1, 2, 3 };
    if (hold_all(a, together, 1, true, &e) || hold_all(a, together, 3, true, &e))
        fail_msg("%s", e.msg);
    check_rows(a, together, 3);
    arm_close(a);
}

static int check_answer(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    int *n = arg;
    const float *lp = log_prob[*n / N_REC + 4][*n % N_REC];
    assert_int_equal(a->i, *n / N_REC * N_CTX + FIRST + *n % N_REC);
    assert_memory_equal(a->logits, lp, N_VOCAB * sizeof *lp);
    assert_true((double)lp[a->top1] == a->max && a->lse == -a->max);
    ++*n;
    return 0;
}

static void decode_answers_too(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm();
    const int chunk[] = { 4, 5 }, zero[] = { 0 };
    int n = 0;
    if (hold_all(a, zero, 1, true, &e) || arm_kv_trim(a, -1, 0, &e)) fail_msg("%s", e.msg);
    struct arm_batch b = batch(chunk, 2, 0, N_CTX, false);
    if (arm_decode(a, &b, check_answer, &n, &e)) fail_msg("%s", e.msg);
    assert_int_equal(n, 2 * N_REC);
    check_rows(a, zero, 1); /* what was held still is */
    arm_close(a);
}

static void expect_error(int rc, int code, const char *words, const struct err *e) {
    if (rc != code || !strstr(e->msg, words))
        fail_msg("expected %s '%s', got %s '%s'", err_name(code), words, err_name(rc), e->msg);
}

static void what_the_file_has_not_is_an_error(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm();
    const int zero[] = { 0 };
    int32_t was = text[0][9];
    text[0][9] = 7;
    expect_error(hold_all(a, zero, 1, true, &e), ERR_MISMATCH,
                 "none of its 6 chunks has these tokens; chunk 1 has 158 at position 9, not 7", &e);
    text[0][9] = was;
    struct arm_batch b = batch(zero, 1, 0, N_CTX, true);
    bool want[N_CTX] = { 0 };
    b.want = want;
    want[3] = true;
    arm_kv_trim(a, -1, 0, &e);
    expect_error(arm_hold(a, &b, false, &e), ERR_MISMATCH, "no record of position 3", &e);
    want[3] = false;
    want[N_CTX - 1] = true;
    arm_kv_trim(a, -1, 0, &e);
    expect_error(arm_hold(a, &b, false, &e), ERR_MISMATCH, "those of a context of 16 are 8 to 14",
                 &e);
    expect_error(arm_hold(a, &b, false, &e), ERR_ARG, "whose next position is 16", &e);
    struct observer o = { 0 };
    assert_int_equal(arm_observe(a, &o, &e), ERR_UNSUPPORTED);
    assert_int_equal(arm_observe(a, NULL, &e), 0);
    arm_close(a);
    struct arm_params p = params();
    p.n_ctx = 32;
    expect_error(arm_open(&a, &p, &e), ERR_MISMATCH, "saved with -c 16 cannot answer for -c 32",
                 &e);
    p = params();
    p.path = model;
    expect_error(arm_open(&a, &p, &e), ERR_FORMAT, "not a file of saved logits", &e);
    p.path = "/nowhere/logits";
    expect_error(arm_open(&a, &p, &e), ERR_MISSING, "/nowhere/logits", &e);
    p.path = NULL;
    expect_error(arm_open(&a, &p, &e), ERR_ARG, "need", &e);
    assert_null(a);
}

static void the_model_must_fit(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = params();
    p.model = model;
    if (arm_open(&a, &p, &e)) fail_msg("%s", e.msg);
    arm_close(a);
    struct tiny_model t = tiny_model_default("qwen3");
    t.n_vocab = N_VOCAB + 20;
    char other[80];
    snprintf(other, sizeof other, "%s.other", model);
    if (tiny_model_write(&t, other, &e)) fail_msg("%s", e.msg);
    p.model = other;
    expect_error(arm_open(&a, &p, &e), ERR_MISMATCH, "a vocabulary of 300, and", &e);
    unlink(other);
}

/* ---- broken files ---------------------------------------------------------------------------- */

static void with_head(int64_t rec, const float head[2]) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    long at = KLD_HEADER_BYTES + 4 * N_CTX * N_CHUNK +
              (long)(rec * 2 * (int64_t)kld_record_words(N_VOCAB));
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(head, sizeof *head, 2, f), 2);
    assert_int_equal(fclose(f), 0);
}

static int count_bad(void *arg, const struct arm_row *r, struct err *e) {
    (void)e;
    int *bad = arg;
    if (r->bad < 0) return 0;
    assert_int_equal(r->bad, 0);
    assert_true(isnan(r->nll) && isnan(r->logits[N_VOCAB - 1]));
    *bad = *bad * 100 + (int)r->r + 1;
    return 0;
}

static void broken_records_and_cut_files(void **state) {
    (void)state;
    struct err e = { 0 };
    const int two[] = { 5 };
    int32_t target[N_REC] = { 0 };
    int bad = 0;
    const float nan_head[2] = { NAN, NAN }, negative[2] = { -1.0f, -3.0f };
    with_head(5 * N_REC + 2, nan_head);
    struct arm *a = open_arm();
    if (hold_all(a, two, 1, true, &e) || arm_rows(a, 0, N_REC, target, true, count_bad, &bad, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(bad, 3);
    arm_close(a);
    with_head(5 * N_REC + 2, negative);
    a = open_arm();
    if (hold_all(a, two, 1, true, &e)) fail_msg("%s", e.msg);
    expect_error(arm_rows(a, 0, N_REC, target, true, count_bad, &bad, &e), ERR_FORMAT,
                 "chunk 6, position 10: scale -1", &e);
    arm_close(a);
    int64_t chunk_bytes = N_REC * 2 * (int64_t)kld_record_words(N_VOCAB);
    assert_int_equal(truncate(path, KLD_HEADER_BYTES + 4 * N_CTX * N_CHUNK + 6 * chunk_bytes - 1),
                     0);
    a = open_arm();
    expect_error(hold_all(a, two, 1, true, &e), ERR_FORMAT,
                 "the file ends before the logits of chunk 6, of 6 chunks 5 are whole", &e);
    const int four[] = { 4 };
    if (hold_all(a, four, 1, true, &e)) fail_msg("%s", e.msg);
    check_rows(a, four, 1);
    arm_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_records),
        cmocka_unit_test(held_rows_follow_their_chunk),
        cmocka_unit_test(equal_chunks_come_in_order),
        cmocka_unit_test(decode_answers_too),
        cmocka_unit_test(what_the_file_has_not_is_an_error),
        cmocka_unit_test(the_model_must_fit),
        cmocka_unit_test(broken_records_and_cut_files), /* last: breaks the file */
    };
    return cmocka_run_group_tests(tests, write_files, remove_files);
}
