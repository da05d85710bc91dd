/* SPDX-License-Identifier: MIT
 * test_kld.c - the file of saved logits byte for byte, its reader on broken files, divergences and
 * tables of distributions with a closed form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arm/kld_file.h"
#include "base/arena.h"
#include "base/rng.h"
#include "fake_model.h"
#include "measure/kld.h"
#include "measure/ppl.h"

static char *temp_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/test_kld.%d.bin", (int)getpid());
    remove(path);
    return path;
}

static size_t slurp(const char *path, unsigned char *buf, size_t cap) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buf, 1, cap, f);
    fclose(f);
    return n;
}

static void spit(const char *path, const void *buf, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(buf, 1, n, f), n);
    fclose(f);
}

/* ---- records --------------------------------------------------------------------------------- */

static void record_bytes(void **state) {
    (void)state;
    struct err e = { 0 };
    /* max 2, lo = max(-30, 2 - 24) = -22: scale 24/65535; ln sum = lse. */
    const float l[3] = { 2.0f, -30.0f, -10.0f };
    double lse = log(1 + exp(-32.0) + exp(-12.0));
    uint16_t rec[8] = { 0 };
    assert_int_equal(kld_record_words(3), 8);
    assert_int_equal(kld_record_words(4), 8);
    rec[7] = 99;
    kld_encode(rec, l, 3, 2.0f, lse, KLD_FLOOR_IK);
    float head[2];
    memcpy(head, rec, sizeof head);
    assert_true(head[0] == 24.0f / 65535.0f);
    assert_true(head[1] == -24.0f - (float)lse);
    assert_int_equal(rec[4], 65535);
    assert_int_equal(rec[5], 0);
    assert_int_equal(rec[6], 32768); /* 12/24 of 65535 is 32767.5: to even */
    assert_int_equal(rec[7], 0);     /* padding of an odd vocabulary */
    float lp[3];
    assert_int_equal(kld_decode(lp, rec, 3, &e), 0);
    assert_true(fabsf(lp[0] + (float)lse) < 4e-6f);
    assert_true(fabsf(lp[2] + 12 + (float)lse) < 2e-4f);
    assert_true(lp[1] == head[1]);

    kld_encode(rec, l, 3, 2.0f, lse, KLD_FLOOR_LLAMA);
    memcpy(head, rec, sizeof head);
    assert_true(head[0] == 16.0f / 65535.0f);
    assert_int_equal(rec[6], 16384); /* 4/16: 16383.75 */

    const float flat[3] = { 1, 1, 1 };
    kld_encode(rec, flat, 3, 1.0f, log(3), KLD_FLOOR_IK);
    assert_int_equal(kld_decode(lp, rec, 3, &e), 0);
    for (int i = 0; i < 3; i++)
        assert_true(lp[i] == -(float)log(3));
}

static void record_precision(void **state) {
    (void)state;
    struct err e = { 0 };
    struct rng g = { 7 };
    float l[1001], lp[1001];
    uint16_t rec[1006];
    for (int round = 0; round < 20; round++) {
        struct arm_answer a;
        for (int i = 0; i < 1001; i++)
            l[i] = (float)(3 * rng_normal(&g));
        fake_reduce(&a, l, 1001);
        kld_encode(rec, l, 1001, (float)a.max, a.lse, KLD_FLOOR_IK);
        assert_int_equal(kld_decode(lp, rec, 1001, &e), 0);
        for (int i = 0; i < 1001; i++)
            assert_true(fabs((double)lp[i] - (l[i] - a.max - a.lse)) < 24.0 / 65535 / 2 + 4e-6);
    }
    const float bad[2] = { NAN, 0 };
    memcpy(rec, bad, sizeof bad);
    assert_int_equal(kld_decode(lp, rec, 1001, &e), ERR_FORMAT);
}

/* ---- files ----------------------------------------------------------------------------------- */

#define N_CTX 8
#define N_VOCAB 11
#define N_CHUNKS 6
#define N_REC 3
#define FILE_BYTES (20 + 4 * N_CHUNKS * N_CTX + N_CHUNKS * N_REC * 2 * 16)

static const struct kld_shape shape = { N_CTX, N_VOCAB, N_CHUNKS };

static void make_text(int32_t *tokens) {
    for (int i = 0; i < N_CHUNKS * N_CTX; i++)
        tokens[i] = (i * i + 3 * i) % N_VOCAB;
}

static double seen_nll[N_CHUNKS]; /* nll_sum of each chunk of the last run */

static int see_chunk(void *arg, int64_t i, const struct ppl_chunk *c, const struct ppl_stats *s,
                     struct err *e) {
    int *stop_at = arg;
    (void)s;
    seen_nll[i] = c->nll_sum;
    return stop_at && i + 1 == *stop_at ? ERR(e, ERR_IO, "stopped") : 0;
}

/* Save what m says of the text into w; chunks below n_known are taken as done. */
static int save(struct fake_model *m, const int32_t *tokens, struct kld_writer *w,
                const struct ppl_chunk *known, int64_t n_known, int *stop_at,
                struct ppl_stats *stats, struct err *e) {
    struct windows win;
    assert_int_equal(windows_plain(&win, N_CHUNKS * N_CTX, N_CTX, -1, e), 0);
    struct ppl_run r = { .walk = { .arm = &m->base,
                                   .win = &win,
                                   .tokens = tokens,
                                   .bos = -1,
                                   .n_batch = 16,
                                   .n_seq = 2 },
                         .known = known,
                         .n_known = n_known,
                         .save = w,
                         .chunk = see_chunk,
                         .arg = stop_at };
    int rc = ppl_run(&r, e);
    if (stats) *stats = r.stats;
    return rc;
}

static void make_model(struct fake_model *m, float peak) {
    fake_model_init(m, N_VOCAB, N_CTX, 2, 16);
    m->peak = peak;
    m->wobble = 0.4f;
}

static void file_bytes(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct kld_writer *w;
    struct ppl_stats s;
    int32_t tokens[N_CHUNKS * N_CTX];
    unsigned char got[FILE_BYTES + 1];
    char *path = temp_path();
    make_text(tokens);
    make_model(&m, 1);
    assert_int_equal(kld_n_records(N_CTX), N_REC);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), 0);
    assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, &s, &e), 0);
    assert_int_equal(kld_writer_close(w, &e), 0);
    assert_int_equal(slurp(path, got, sizeof got), FILE_BYTES);
    assert_memory_equal(got, "_logits_\x08\0\0\0\x0b\0\0\0\x06\0\0\0", 20);
    assert_memory_equal(got + 20, tokens, sizeof tokens);

    /* Chunk 2, the second scored position (p = 5), by hand. */
    const int32_t *t = tokens + N_CTX;
    int64_t sum = 0;
    for (int p = 0; p <= 5; p++)
        sum += t[p];
    float l[N_VOCAB];
    for (int v = 0; v < N_VOCAB; v++)
        l[v] = fake_logit(&m, t[5], sum, v);
    struct arm_answer a;
    uint16_t rec[16];
    fake_reduce(&a, l, N_VOCAB);
    kld_encode(rec, l, N_VOCAB, (float)a.max, a.lse, KLD_FLOOR_IK);
    assert_memory_equal(got + 20 + sizeof tokens + (N_REC + 1) * sizeof rec, rec, sizeof rec);
    remove(path);
}

/* Cut a finished file at every byte: going on gives the same bytes again. */
static void cut_files_go_on(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct kld_writer *w;
    int32_t tokens[N_CHUNKS * N_CTX];
    unsigned char want[FILE_BYTES], got[FILE_BYTES + 1];
    char *path = temp_path();
    struct ppl_chunk known[N_CHUNKS];
    double nll_sum[N_CHUNKS];
    make_text(tokens);
    make_model(&m, 1);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), 0);
    assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, NULL, &e), 0);
    memcpy(nll_sum, seen_nll, sizeof nll_sum);
    for (int i = 0; i < N_CHUNKS; i++)
        known[i] = (struct ppl_chunk){ nll_sum[i], 1, N_REC };
    assert_int_equal(kld_writer_close(w, &e), 0);
    assert_int_equal(slurp(path, want, sizeof want), FILE_BYTES);
    for (size_t cut = 0; cut <= FILE_BYTES; cut += 7) {
        spit(path, want, cut);
        int64_t n = 5;
        assert_int_equal(kld_writer_resume(&w, path, &shape, tokens, KLD_FLOOR_IK, nll_sum, &n, &e),
                         0);
        size_t whole = cut < 212 ? 0 : (cut - 212) / (N_REC * 32);
        assert_int_equal(n, whole < 5 ? whole : 5);
        assert_int_equal(save(&m, tokens, w, known, n, NULL, NULL, &e), 0);
        assert_int_equal(kld_writer_close(w, &e), 0);
        assert_int_equal(slurp(path, got, sizeof got), FILE_BYTES);
        assert_memory_equal(got, want, FILE_BYTES);
    }
    remove(path);
}

/* Files of other texts, other numbers of chunks and other models are refused and left alone. */
static void foreign_files_are_refused(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct kld_writer *w;
    int32_t tokens[N_CHUNKS * N_CTX];
    unsigned char want[FILE_BYTES], got[FILE_BYTES + 1];
    char *path = temp_path();
    double nll_sum[N_CHUNKS];
    make_text(tokens);
    make_model(&m, 1.02f); /* the other model: all but the same */
    assert_int_equal(save(&m, tokens, NULL, NULL, 0, NULL, NULL, &e), 0);
    memcpy(nll_sum, seen_nll, sizeof nll_sum);
    make_model(&m, 1);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), 0);
    assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, NULL, &e), 0);
    assert_int_equal(kld_writer_close(w, &e), 0);
    assert_int_equal(slurp(path, want, sizeof want), FILE_BYTES);
    struct kld_shape fewer = shape;
    fewer.n_chunk--;
    for (int k = 0; k < 3; k++) {
        static const char *const words[] = { "logits of another model or run; its chunk 5",
                                             "another number of chunks than the 5",
                                             "its header or tokens are not those" };
        int64_t n = 5;
        tokens[13] += k == 2;
        assert_int_equal(kld_writer_resume(&w, path, k == 1 ? &fewer : &shape, tokens, KLD_FLOOR_IK,
                                           nll_sum, &n, &e),
                         ERR_MISMATCH);
        assert_null(w);
        assert_non_null(strstr(e.msg, words[k]));
        assert_int_equal(slurp(path, got, sizeof got), FILE_BYTES);
        assert_memory_equal(got, want, FILE_BYTES);
    }
    tokens[13]--;
    int64_t n = 5;
    nll_sum[4] = seen_nll[4];
    assert_int_equal(kld_writer_resume(&w, path, &shape, tokens, KLD_FLOOR_IK, nll_sum, &n, &e), 0);
    assert_int_equal(kld_writer_close(w, &e), 0);
    remove(path);
}

/* A record says of each token what it lost by being stored. */
static void bounds_of_a_stored_token(void **state) {
    (void)state;
    struct err e = { 0 };
    const float logits[N_VOCAB] = { 3, -1, 0.25f, -40, 7, 1, 2, -3, 0, 5, -39.5f };
    struct arm_answer a;
    uint16_t rec[16];
    double low, high;
    fake_reduce(&a, logits, N_VOCAB);
    kld_encode(rec, logits, N_VOCAB, (float)a.max, a.lse, KLD_FLOOR_LLAMA);
    for (int i = 0; i < N_VOCAB; i++) {
        double nll = a.max + a.lse - (double)logits[i];
        assert_int_equal(kld_nll_bounds(rec, i, &low, &high, &e), 0);
        assert_true(low <= nll && nll <= high);
        assert_int_equal(isinf(high), logits[i] < -9);
        if (!isinf(high)) assert_true(high - low < 5e-4);
    }
    rec[1] = 0x7fc0; /* the scale is NaN */
    assert_int_equal(kld_nll_bounds(rec, 0, &low, &high, &e), ERR_FORMAT);
}

static void short_and_broken_files(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct kld_writer *w;
    struct kld_reader *r;
    int32_t tokens[N_CHUNKS * N_CTX];
    unsigned char good[FILE_BYTES], bad[FILE_BYTES];
    char *path = temp_path();
    float lp[N_VOCAB];
    make_text(tokens);
    make_model(&m, 1);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), 0);
    assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, NULL, &e), 0);
    assert_int_equal(kld_writer_close(w, &e), 0);
    slurp(path, good, sizeof good);
    for (size_t cut = 0; cut < FILE_BYTES; cut++) {
        spit(path, good, cut);
        int rc = kld_reader_open(&r, path, &e);
        size_t whole = cut < 212 ? 0 : (cut - 212) / (N_REC * 32);
        assert_int_equal(rc, whole ? 0 : ERR_FORMAT);
        if (rc < 0) {
            assert_null(r);
            continue;
        }
        assert_int_equal(kld_reader_n_whole(r), whole);
        assert_memory_equal(kld_reader_tokens(r), tokens, sizeof tokens);
        for (size_t i = 0; i < whole * N_REC; i++)
            assert_int_equal(kld_reader_next(r, lp, &e), 0);
        assert_int_equal(kld_reader_next(r, lp, &e), ERR_FORMAT);
        kld_reader_close(r);
    }
    static const struct {
        size_t at;
        int32_t value;
    } wrong[] = { { 0, 0 },   { 8, 2 },          { 8, -8 },  { 8, INT32_MAX },
                  { 12, 0 },  { 12, INT32_MAX }, { 12, 5 },  { 16, 0 },
                  { 16, -1 }, { 16, INT32_MAX }, { 20, -1 }, { 24, N_VOCAB } };
    for (size_t i = 0; i < N_ELEMS(wrong); i++) {
        memcpy(bad, good, sizeof bad);
        memcpy(bad + wrong[i].at, &wrong[i].value, 4);
        spit(path, bad, sizeof bad);
        e.msg[0] = '\0';
        assert_int_equal(kld_reader_open(&r, path, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, path));
    }
    memcpy(bad, good, sizeof bad);
    const float nan_value = NAN;
    memcpy(bad + 212 + 4 * 32, &nan_value, 4); /* chunk 2, record 1 */
    spit(path, bad, sizeof bad);
    assert_int_equal(kld_reader_open(&r, path, &e), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(kld_reader_next(r, lp, &e), 0);
    assert_int_equal(kld_reader_next(r, lp, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "chunk 2, record 1"));
    kld_reader_close(r);
    remove(path);
    assert_int_equal(kld_reader_open(&r, path, &e), ERR_MISSING);
    assert_int_equal(kld_reader_open(&r, "/tmp", &e), ERR_IO);
}

static void write_errors(void **state) {
    (void)state;
    struct err e = { 0 };
    struct kld_writer *w;
    int32_t tokens[N_CHUNKS * N_CTX];
    make_text(tokens);
    char *path = temp_path(), left[8] = "";
    FILE *f = fopen(path, "w+b");
    assert_non_null(f);
    assert_int_equal(fwrite("GGUF", 1, 4, f), 4);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "left alone"));
    rewind(f);
    assert_int_equal(fread(left, 1, sizeof left, f), 4);
    assert_string_equal(left, "GGUF");
    fclose(f);
    remove(path);
    assert_int_equal(kld_writer_open(&w, "/tmp", &shape, tokens, KLD_FLOOR_IK, &e), ERR_IO);
    assert_int_equal(kld_writer_open(&w, "/no/such/dir/f", &shape, tokens, KLD_FLOOR_IK, &e),
                     ERR_IO);
    if (access("/dev/full", W_OK)) return;
    assert_int_equal(kld_writer_open(&w, "/dev/full", &shape, tokens, KLD_FLOOR_IK, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "/dev/full"));
    assert_null(w);
}

/* Whichever allocation fails, opening says so and leaks nothing. */
static void out_of_memory(void **state) {
    (void)state;
    struct kld_writer *w;
    struct kld_reader *r;
    struct fake_model m;
    int32_t tokens[N_CHUNKS * N_CTX];
    char *path = temp_path();
    make_text(tokens);
    make_model(&m, 1);
    for (int n = 1, rc = -1; rc < 0; n++) {
        struct err e = { 0 };
        heap_fail_at(n);
        rc = kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e);
        heap_fail_at(0);
        if (rc == 0) {
            assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, NULL, &e), 0);
            assert_int_equal(kld_writer_close(w, &e), 0);
        } else {
            assert_int_equal(rc, ERR_NOMEM);
        }
    }
    for (int n = 1, rc = -1; rc < 0; n++) {
        struct err e = { 0 };
        heap_fail_at(n);
        rc = kld_reader_open(&r, path, &e);
        heap_fail_at(0);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        kld_reader_close(r);
    }
    remove(path);
}

/* ---- divergences ----------------------------------------------------------------------------- */

static void one_position(void **state) {
    (void)state;
    /* base (1/2, 1/4, 1/4), tested (1/4, 1/4, 1/2) shifted by 5: KL = 1/2 ln 2 - 1/4 ln 2. */
    const float base[3] = { (float)log(0.5), (float)log(0.25), (float)log(0.25) };
    const float l[3] = { 5 + (float)log(0.25), 5 + (float)log(0.25), 5 + (float)log(0.5) };
    struct arm_answer a;
    struct kld_position p;
    fake_reduce(&a, l, 3);
    kld_position(&p, base, 3, 2, &a);
    assert_true(fabs(p.kld - 0.25 * log(2)) < 1e-6);
    assert_true(fabs(p.nll - log(2)) < 1e-6);
    assert_true(fabs(p.nll_base - log(4)) < 1e-6);
    assert_true(fabs(p.delta_p - 0.25) < 1e-6);
    assert_false(p.same_top);
    kld_position(&p, base, 3, 0, &a);
    assert_true(fabs(p.delta_p + 0.25) < 1e-6);
    /* Base tokens at or below -16 are left out. */
    const float rare[3] = { 0, -16, -40 };
    kld_position(&p, rare, 3, 0, &a);
    assert_true(fabs(p.kld - log(4)) < 1e-6);
}

/* Statistics by their formulas, in a second hand and in f64. */
static void statistics(void **state) {
    (void)state;
    enum { N = 137 };
    struct err e = { 0 };
    struct kld k = { 0 };
    struct rng g = { 3 };
    double x[N], y[N], sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
    int top = 0;
    assert_int_equal(kld_reserve(&k, N, &e), 0);
    for (int i = 0; i < N; i++) {
        struct kld_position p = { .nll = (float)(3 + rng_normal(&g)) };
        p.nll_base = p.nll + (float)(0.1 * rng_normal(&g));
        p.kld = 0.5 * i;
        p.delta_p = (float)(i % 2 ? 0.25 : -0.25);
        p.same_top = i % 3 == 0;
        top += p.same_top;
        kld_add(&k, &p);
        x[i] = p.nll, y[i] = p.nll_base;
        sx += x[i], sy += y[i];
    }
    for (int i = 0; i < N; i++) {
        sxx += (x[i] - sx / N) * (x[i] - sx / N);
        syy += (y[i] - sy / N) * (y[i] - sy / N);
        sxy += (x[i] - sx / N) * (y[i] - sy / N);
    }
    double n1 = N - 1, ux = sqrt(sxx / N / n1), uy = sqrt(syy / N / n1), c = sxy / N / n1;
    struct estimate q = kld_ppl(&k), b = kld_ppl_base(&k), d = kld_ln_ratio(&k);
    assert_true(fabs(q.value - exp(sx / N)) < 1e-9);
    assert_true(fabs(q.se - exp(sx / N) * ux) < 1e-5);
    assert_true(fabs(b.se - exp(sy / N) * uy) < 1e-5);
    assert_true(fabs(kld_cor_ln_ppl(&k) - sxy / sqrt(sxx * syy)) < 1e-5);
    assert_true(fabs(d.value - (sx - sy) / N) < 1e-9);
    assert_true(fabs(d.se - sqrt(ux * ux + uy * uy - 2 * c)) < 1e-5);
    assert_true(fabs(kld_ratio(&k).value - q.value / b.value) < 1e-9);
    double qu = q.se, bu = b.se;
    assert_true(fabs(kld_difference(&k).se - sqrt(qu * qu + bu * bu - 2 * q.value * b.value * c)) <
                1e-4);
    assert_true(fabs(kld_mean(&k).value - 0.5 * n1 / 2) < 1e-9);
    assert_true(fabs(kld_rms_dp(&k).value - 0.25) < 1e-9);
    assert_true(kld_rms_dp(&k).se < 1e-9);
    struct estimate s = kld_same_top(&k);
    assert_true(s.value == (double)top / N);
    assert_true(fabs(s.se - sqrt(s.value * (1 - s.value) / n1)) < 1e-12);
    kld_sort(&k);
    assert_true(kld_median(k.kld_at, N) == 34.0f);
    assert_true(kld_percentile(k.kld_at, N, 0) == 0.0f);
    assert_true(kld_percentile(k.kld_at, N, 1) == 68.0f);
    assert_true(fabsf(kld_percentile(k.kld_at, N, 0.999f) - 0.999f * 68) < 1e-4f);
    assert_true(kld_percentile(k.kld_at, 1, 0.5f) == 0.0f);
    assert_true(kld_median(k.kld_at, 2) == 0.25f);
    kld_release(&k);
}

static int count_chunk(void *arg, int64_t i, const struct kld *k, struct err *e) {
    (void)e;
    int *n = arg;
    assert_int_equal(i, (*n)++);
    assert_int_equal(k->n, *n * N_REC);
    return 0;
}

static int compare(const char *path, struct fake_model *m, struct kld *out, struct err *e) {
    struct kld_reader *base;
    struct windows win;
    int n = 0;
    assert_int_equal(kld_reader_open(&base, path, e), 0);
    assert_int_equal(windows_plain(&win, N_CHUNKS * N_CTX, N_CTX, -1, e), 0);
    struct kld_run r = { .walk = { .arm = &m->base,
                                   .win = &win,
                                   .tokens = kld_reader_tokens(base),
                                   .bos = -1,
                                   .n_batch = 16,
                                   .n_seq = 2 },
                         .base = base,
                         .chunk = count_chunk,
                         .arg = &n };
    int rc = kld_run(&r, e);
    *out = r.kld;
    kld_reader_close(base);
    return rc;
}

static void against_itself_and_another(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m, other;
    struct kld_writer *w;
    struct ppl_stats s;
    struct kld k;
    int32_t tokens[N_CHUNKS * N_CTX];
    char *path = temp_path();
    make_text(tokens);
    make_model(&m, 1);
    assert_int_equal(kld_writer_open(&w, path, &shape, tokens, KLD_FLOOR_IK, &e), 0);
    assert_int_equal(save(&m, tokens, w, NULL, 0, NULL, &s, &e), 0);
    assert_int_equal(kld_writer_close(w, &e), 0);

    assert_int_equal(compare(path, &m, &k, &e), 0);
    assert_int_equal(k.n, N_CHUNKS * N_REC);
    assert_true(fabs(kld_mean(&k).value) < 3e-5); /* half a step of the stored 16 bits */
    assert_true(kld_same_top(&k).value == 1.0);
    assert_true(fabs(kld_ppl(&k).value - ppl_stats_ppl(&s)) < 1e-5);
    assert_true(fabs(kld_ppl_base(&k).value - ppl_stats_ppl(&s)) < 1e-3);
    assert_false(isnan(kld_rms_dp(&k).se) || isnan(kld_ln_ratio(&k).se));
    kld_release(&k);

    /* Against a sharper model: the sum over the vocabulary by hand. */
    make_model(&other, 2.5f);
    assert_int_equal(compare(path, &other, &k, &e), 0);
    double want = 0;
    for (int c = 0; c < N_CHUNKS; c++) {
        const int32_t *t = tokens + c * N_CTX;
        int64_t sum = 0;
        for (int p = 0; p < N_CTX - 1; p++) {
            sum += t[p];
            if (p < N_CTX / 2) continue;
            double zb = 0, zq = 0;
            for (int v = 0; v < N_VOCAB; v++) {
                zb += exp((double)fake_logit(&m, t[p], sum, v));
                zq += exp((double)fake_logit(&other, t[p], sum, v));
            }
            for (int v = 0; v < N_VOCAB; v++) {
                double lb = (double)fake_logit(&m, t[p], sum, v) - log(zb);
                double lq = (double)fake_logit(&other, t[p], sum, v) - log(zq);
                want += exp(lb) * (lb - lq);
            }
        }
    }
    assert_true(want > 0.1);
    assert_true(fabs(kld_mean(&k).value * (double)k.n - want) < 1e-4 * want);
    kld_release(&k);

    other.base.info.n_vocab = N_VOCAB + 1;
    assert_int_equal(compare(path, &other, &k, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.msg, "vocabulary of 11, the model has 12"));
    kld_release(&k);
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_bytes),
        cmocka_unit_test(record_precision),
        cmocka_unit_test(file_bytes),
        cmocka_unit_test(cut_files_go_on),
        cmocka_unit_test(foreign_files_are_refused),
        cmocka_unit_test(bounds_of_a_stored_token),
        cmocka_unit_test(short_and_broken_files),
        cmocka_unit_test(write_errors),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(one_position),
        cmocka_unit_test(statistics),
        cmocka_unit_test(against_itself_and_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
