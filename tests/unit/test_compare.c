/* SPDX-License-Identifier: MIT
 * test_compare.c - two arms of made-up logits in lockstep: every figure against its definition, the
 * order of the chunks, batches of any size, and when the run ends. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "measure/compare.h"
#include "measure/floor.h"

#define N_VOCAB 50
#define N_CTX 80
#define N_CHUNKS 40
#define N_SCORED (N_CTX - 1 - N_CTX / 2)

/* An engine whose logits follow from token and position alone, plus a wrong of its own. */
struct made_up {
    struct arm base;
    double noise;           /* sd of what is added to every logit */
    double shift;           /* added to the logit of the target's neighbour: a bias of the mean */
    int nan_chunk, nan_pos; /* -1: never */
    int die_chunk;          /* -1: never */
    int64_t n_holds, max_batch;
    int32_t token[N_CHUNKS * N_CTX], pos[N_CHUNKS * N_CTX];
    int64_t n_held;
};

static int32_t tokens[N_CHUNKS * N_CTX];

/* The text's token i is such that (chunk, position) can be read off a hash of it. */
static void make_text(void) {
    struct rng r = { 7 };
    for (int i = 0; i < N_CHUNKS * N_CTX; i++)
        tokens[i] = (int32_t)rng_below(&r, N_VOCAB);
}

static void logits_at(const struct made_up *m, int32_t token, int32_t pos, float *out) {
    struct rng base = { (uint64_t)token * 1000003u + (uint64_t)pos * 7919u };
    struct rng own = { base.state + 0x1234567u };
    for (int v = 0; v < N_VOCAB; v++) {
        out[v] = (float)(2 * rng_normal(&base));
        out[v] += (float)(m->noise * rng_normal(&own));
    }
    out[0] += (float)m->shift;
}

static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0;
    struct made_up *m = (struct made_up *)a;
    if (!append) m->n_held = 0;
    m->n_holds++;
    if (b->n > m->max_batch) m->max_batch = b->n;
    FAIL_IF(m->die_chunk >= 0 && m->n_holds > m->die_chunk, e, ERR_ARM, "died: signal 11");
    for (int i = 0; i < b->n; i++) {
        if (!b->want[i]) continue;
        m->token[m->n_held] = b->token[i];
        m->pos[m->n_held++] = b->pos[i];
    }
out:
    return rc;
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct made_up *m = (struct made_up *)a;
    float l[N_VOCAB];
    FAIL_IF(r0 + n > m->n_held, e, ERR_ARG, "rows that are not held");
    for (int64_t i = r0; i < r0 + n; i++) {
        logits_at(m, m->token[i], m->pos[i], l);
        if (m->nan_chunk >= 0 && m->n_holds > m->nan_chunk && m->pos[i] == m->nan_pos) l[3] = NAN;
        struct arm_answer ans = { .logits = l, .max = -INFINITY };
        for (int v = 0; v < N_VOCAB; v++)
            if ((double)l[v] > ans.max) ans.max = (double)l[v], ans.top1 = v;
        for (int v = 0; v < N_VOCAB; v++)
            ans.lse += exp((double)l[v] - ans.max);
        ans.lse = log(ans.lse);
        struct arm_row row;
        arm_reduce(&row, i, &ans, N_VOCAB, target[i - r0], logits);
        TRY(fn(arg, &row, e));
    }
out:
    return rc;
}

static int trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    (void)a, (void)seq, (void)pos, (void)e;
    return 0;
}

static const struct arm_ops ops = { .hold = hold, .rows = rows, .kv_trim = trim };

static struct made_up made_up(int n_batch) {
    return (struct made_up){ .base = { .ops = &ops,
                                       .info = { .n_vocab = N_VOCAB, .n_batch = n_batch } },
                             .nan_chunk = -1,
                             .die_chunk = -1 };
}

static struct windows win;

static struct compare compare_of(struct made_up *a, struct made_up *b) {
    struct err e = { 0 };
    if (windows_plain(&win, N_CHUNKS * N_CTX, N_CTX, -1, &e)) fail_msg("%s", e.msg);
    assert_int_equal(win.n, N_CHUNKS);
    assert_int_equal(windows_n_scored(&win), N_SCORED);
    return (struct compare){ .walk = { .arm = { &a->base, &b->base },
                                       .win = &win,
                                       .tokens = tokens,
                                       .bos = -1,
                                       .n = win.n,
                                       .n_seq = 4,
                                       .logits = true },
                             .rel = { .same_weights = true, .margin = 0.002, .alpha = 1e-3 },
                             .seed = 1 };
}

/* Everything again, the slow way, in the text's order. */
static void figures_are_their_definitions(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    a = made_up(4 * N_CTX);
    b = made_up(7); /* windows in pieces */
    b.noise = 0.3;
    struct compare c = compare_of(&a, &b);
    c.rel.same_weights = false;
    c.keep_going = true;
    if (compare_run(&c, &e)) fail_msg("%s", e.msg);
    assert_int_equal(c.n_chunks, N_CHUNKS);
    assert_int_equal(c.n_positions, N_CHUNKS * N_SCORED);
    assert_int_equal(a.max_batch, 4 * N_CTX);
    assert_int_equal(b.max_batch, 7);
    double nll[2] = { 0, 0 }, ab = 0, ba = 0, d_max = 0;
    int same = 0;
    for (int w = 0; w < N_CHUNKS; w++) {
        for (int p = N_CTX / 2; p < N_CTX - 1; p++) {
            float l[2][N_VOCAB];
            double z[2], pos_nll[2];
            int top[2];
            struct made_up *m[2] = { &a, &b };
            for (int s = 0; s < 2; s++) {
                logits_at(m[s], tokens[w * N_CTX + p], p, l[s]);
                double sum = 0, max = -INFINITY;
                for (int v = 0; v < N_VOCAB; v++) {
                    sum += exp((double)l[s][v]);
                    if ((double)l[s][v] > max) max = (double)l[s][v], top[s] = v;
                }
                z[s] = log(sum);
                pos_nll[s] = z[s] - (double)l[s][tokens[w * N_CTX + p + 1]];
                nll[s] += pos_nll[s];
            }
            for (int v = 0; v < N_VOCAB; v++) {
                double la = (double)l[0][v] - z[0], lb = (double)l[1][v] - z[1];
                ab += exp(la) * (la - lb);
                ba += exp(lb) * (lb - la);
            }
            same += top[0] == top[1];
            d_max = fmax(d_max, fabs(pos_nll[1] - pos_nll[0]));
        }
    }
    const double n = N_CHUNKS * N_SCORED;
    struct ppl_stats pa = compare_ppl(&c, SIDE_A), pb = compare_ppl(&c, SIDE_B);
    assert_float_equal(ppl_stats_ppl(&pa), exp(nll[0] / n), 1e-4);
    assert_float_equal(ppl_stats_ppl(&pb), exp(nll[1] / n), 1e-4);
    assert_float_equal(c.d.mean, (nll[1] - nll[0]) / n, 1e-6);
    assert_float_equal(c.kld_ab, ab, 1e-4 * ab);
    assert_float_equal(c.kld_ba, ba, 1e-4 * ba);
    assert_int_equal(c.n_same_top, same);
    assert_float_equal(compare_tail(&c).max, d_max, 1e-5);
    compare_release(&c);
}

static void chunks_are_shuffled_but_each_is_taken_once(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    int64_t first[2] = { 0 }, in_place = 0;
    for (int k = 0; k < 2; k++) {
        a = made_up(2 * N_CTX);
        b = made_up(3 * N_CTX);
        b.noise = 0.05;
        struct compare c = compare_of(&a, &b);
        c.seed = 1 + (uint64_t)k;
        c.keep_going = true;
        if (compare_run(&c, &e)) fail_msg("%s", e.msg);
        int seen[N_CHUNKS] = { 0 };
        for (int64_t i = 0; i < c.n_chunks; i++) {
            seen[c.chunks[i].window]++;
            in_place += c.chunks[i].window == i;
        }
        for (int i = 0; i < N_CHUNKS; i++)
            assert_int_equal(seen[i], 1);
        first[k] = c.chunks[0].window;
        compare_release(&c);
    }
    assert_true(in_place < N_CHUNKS / 2);
    assert_int_not_equal(first[0], first[1]);
}

static enum reason reason_of(struct made_up *a, struct made_up *b, struct relation *rel,
                             int64_t *n_chunks, enum status *status) {
    struct err e = { 0 };
    struct compare c = compare_of(a, b);
    if (rel) c.rel.bitwise = rel->bitwise, c.rel.same_weights = rel->same_weights;
    if (compare_run(&c, &e)) fail_msg("%s", e.msg);
    *n_chunks = c.n_chunks;
    *status = c.verdict.status;
    enum reason r = c.verdict.reason;
    compare_release(&c);
    return r;
}

static void the_run_ends_when_the_answer_is_known(void **state) {
    (void)state;
    static struct made_up a, b;
    int64_t n;
    enum status s;
    a = b = made_up(4 * N_CTX); /* equal: the earliest chunk at which the mean may speak */
    assert_int_equal(reason_of(&a, &b, NULL, &n, &s), REASON_NONE);
    assert_int_equal(s, STATUS_PASS);
    assert_int_equal(n, 8);
    b.shift = 30; /* token 0 everywhere: far worse, seen in the first chunk */
    assert_int_equal(reason_of(&a, &b, NULL, &n, &s), REASON_PPL_RATIO);
    assert_int_equal(n, 1);
    b = made_up(4 * N_CTX);
    b.shift = 4; /* worse by more than the margin, by little in any one chunk */
    assert_int_equal(reason_of(&a, &b, &(struct relation){ false, false, 0, 0, 0 }, &n, &s),
                     REASON_MEAN);
    assert_true(n >= 8 && n < N_CHUNKS);
    b = made_up(4 * N_CTX);
    b.noise = 1e-6;
    assert_int_equal(reason_of(&a, &b, &(struct relation){ true, true, 0, 0, 0 }, &n, &s),
                     REASON_NOT_BITWISE);
    assert_int_equal(n, 1);
}

static void a_late_nan_is_found_where_it_is(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    a = made_up(N_CTX);
    b = made_up(N_CTX);
    b.noise = 0.05;
    b.nan_chunk = 5;
    b.nan_pos = 55;
    struct compare c = compare_of(&a, &b);
    c.walk.n_seq = 1;
    if (compare_run(&c, &e)) fail_msg("%s", e.msg);
    assert_int_equal(c.verdict.status, STATUS_FAIL);
    assert_int_equal(c.verdict.reason, REASON_NONFINITE);
    assert_int_equal(c.n_chunks, 6);
    assert_non_null(strstr(c.verdict.text, "arm B: the logit of token 3 at position 55"));
    assert_true(isfinite(c.d.mean)); /* nothing that is no number is averaged */
    compare_release(&c);
}

static void what_was_measured_before_an_arm_died_stays(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    a = made_up(N_CTX);
    b = made_up(N_CTX);
    b.noise = 0.05;
    b.die_chunk = 3;
    struct compare c = compare_of(&a, &b);
    c.walk.n_seq = 1;
    assert_int_equal(compare_run(&c, &e), ERR_ARM);
    assert_int_equal(c.walk.failed, SIDE_B);
    assert_int_equal(c.n_chunks, 3);
    struct ppl_stats p = compare_ppl(&c, SIDE_A);
    assert_int_equal(p.n_chunks, 3);
    compare_release(&c);
}

static void vocabularies_must_agree(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    a = b = made_up(N_CTX);
    b.base.info.n_vocab = N_VOCAB + 1;
    struct compare c = compare_of(&a, &b);
    assert_int_equal(compare_run(&c, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.msg, "50"));
    assert_non_null(strstr(e.msg, "51"));
    compare_release(&c);
}

/* ---- the memory of noise floors -------------------------------------------------------------- */

static void floors_are_remembered(void **state) {
    (void)state;
    struct err e = { 0 };
    char path[64];
    snprintf(path, sizeof path, "/tmp/ggauge-floor-%d/deep/floors", (int)getpid());
    struct floor f = { .n = 510,
                       .n_different = 3,
                       .d_max = 0.125,
                       .d_mean = 1e-3,
                       .n_ubatch = 33,
                       .n_threads = 5,
                       .kept = false },
                 g = { 0 };
    assert_int_equal(floor_recall(&g, path, "0123456789abcdef", &e), 0);
    assert_int_equal(floor_remember(&f, path, "0123456789abcdef", &e), 0);
    f.kept = true;
    assert_int_equal(floor_remember(&f, path, "fedcba9876543210", &e), 0);
    FILE *out = fopen(path, "a");
    fputs("fedcba9876543210 torn", out);
    fclose(out);
    assert_int_equal(floor_recall(&g, path, "0123456789abcdef", &e), 1);
    assert_true(!g.kept && g.remembered && g.n == 510 && g.n_different == 3);
    assert_true(g.d_max == 0.125 && g.d_mean == 1e-3 && g.n_ubatch == 33 && g.n_threads == 5);
    assert_int_equal(floor_recall(&g, path, "fedcba9876543210", &e), 1);
    assert_true(g.kept);
    assert_int_equal(floor_recall(&g, path, "1111111111111111", &e), 0);
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

/* Eleven positions a chunk are too few to judge; three chunks of them are enough. */
static void short_chunks_are_judged_together(void **state) {
    (void)state;
    struct err e = { 0 };
    static struct made_up a, b;
    a = made_up(N_CTX);
    b = made_up(N_CTX);
    b.shift = 30;
    struct compare c = compare_of(&a, &b);
    if (windows_plain(&win, N_CHUNKS * N_CTX, 24, -1, &e)) fail_msg("%s", e.msg);
    c.walk.n = win.n;
    if (compare_run(&c, &e)) fail_msg("%s", e.msg);
    assert_int_equal(c.verdict.status, STATUS_FAIL);
    assert_int_equal(c.verdict.reason, REASON_PPL_RATIO);
    assert_int_equal(c.n_chunks, 3);
    assert_int_equal(c.n_positions, 33);
    compare_release(&c);
}

int main(void) {
    make_text();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_their_definitions),
        cmocka_unit_test(chunks_are_shuffled_but_each_is_taken_once),
        cmocka_unit_test(the_run_ends_when_the_answer_is_known),
        cmocka_unit_test(a_late_nan_is_found_where_it_is),
        cmocka_unit_test(what_was_measured_before_an_arm_died_stays),
        cmocka_unit_test(short_chunks_are_judged_together),
        cmocka_unit_test(vocabularies_must_agree),
        cmocka_unit_test(floors_are_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
