/* SPDX-License-Identifier: MIT
 * test_ppl.c - perplexity of models with a closed form, independence of batching, going on from
 * known chunks, rows, and logits that are not finite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "fake_model.h"
#include "measure/ppl.h"
#include "measure/ppl_rows.h"

#define N_CTX 10
#define N_TOKENS 95
#define N_CHUNKS 9

/* What a run reported. */
struct log {
    struct ppl_chunk chunk[N_CHUNKS];
    double running[N_CHUNKS];
    int n, n_passes, stop_at;
    struct ppl_rows *rows;
};

static int log_chunk(void *arg, int64_t i, const struct ppl_chunk *c, const struct ppl_stats *s,
                     struct err *e) {
    struct log *l = arg;
    assert_int_equal(i, l->n);
    l->chunk[l->n] = *c;
    l->running[l->n++] = ppl_stats_ppl(s);
    if (l->rows) return ppl_rows_chunk(l->rows, i, c, s, e);
    return l->stop_at == l->n ? ERR(e, ERR_IO, "stopped") : 0;
}

static int log_pass(void *arg, int64_t first, int n, double seconds, struct err *e) {
    struct log *l = arg;
    (void)first, (void)n, (void)e;
    assert_true(seconds >= 0);
    l->n_passes++;
    return 0;
}

static void make_text(int32_t *tokens, int n, int n_vocab, bool counting) {
    uint32_t x = 12345;
    for (int i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        tokens[i] = (int32_t)(counting ? (uint32_t)i : x >> 8) % n_vocab;
    }
}

/* Run over the text with batches of n_batch; `known` chunks come from *from. */
static int run(struct fake_model *m, const int32_t *tokens, int n_batch, int32_t bos, int known,
               const struct log *from, struct log *out, struct ppl_stats *stats, struct err *e) {
    struct windows w;
    assert_int_equal(windows_plain(&w, N_TOKENS, N_CTX, -1, e), 0);
    assert_int_equal(w.n, N_CHUNKS);
    struct ppl_run r = {
        .walk = { .arm = &m->base,
                  .win = &w,
                  .tokens = tokens,
                  .bos = bos,
                  .n_batch = n_batch,
                  .n_seq = windows_n_seq(n_batch, N_CTX) },
        .known = from ? from->chunk : NULL,
        .n_known = known,
        .chunk = log_chunk,
        .pass = log_pass,
        .arg = out,
    };
    int rc = ppl_run(&r, e);
    if (stats) *stats = r.stats;
    return rc;
}

static void uniform_is_the_vocabulary(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct log l = { 0 };
    struct ppl_stats s;
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 37, false);
    fake_model_init(&m, 37, N_CTX, 4, 40);
    assert_int_equal(run(&m, tokens, 40, -1, 0, NULL, &l, &s, &e), 0);
    assert_int_equal(l.n, N_CHUNKS);
    assert_int_equal(l.n_passes, 3);
    assert_int_equal(m.n_trims, 3);
    assert_int_equal(s.n_tokens, N_CHUNKS * 4); /* 10 - 1 - 10/2 */
    for (int i = 0; i < N_CHUNKS; i++)
        assert_true(fabs(l.running[i] - 37) < 1e-12 * 37);
    assert_true(ppl_stats_se_token(&s) < 1e-6);
}

/* The text counts up, the model gives the next number e^peak times the odds of any other. */
static void peaked_has_a_closed_form(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct log l = { 0 };
    struct ppl_stats s;
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 37, true);
    fake_model_init(&m, 37, N_CTX, 1, 10);
    m.peak = 3;
    assert_int_equal(run(&m, tokens, 10, -1, 0, NULL, &l, &s, &e), 0);
    double want = (exp(3) + 36) / exp(3);
    assert_true(fabs(ppl_stats_ppl(&s) - want) < 1e-7 * want); /* expf in the sum */
}

/* The same, position by position, for a model that depends on its whole context. */
static double expected_chunk(const struct fake_model *m, const int32_t *tokens, int chunk,
                             int32_t bos) {
    const int32_t *t = tokens + chunk * N_CTX;
    double nll = 0;
    int64_t sum = 0;
    for (int p = 0; p < N_CTX - 1; p++) {
        int32_t in = p == 0 && bos >= 0 ? bos : t[p];
        sum += in;
        if (p < N_CTX / 2) continue;
        double z = 0;
        for (int v = 0; v < m->base.info.n_vocab; v++)
            z += exp((double)fake_logit(m, in, sum, v));
        nll += log(z) - (double)fake_logit(m, in, sum, t[p + 1]);
    }
    return nll;
}

static void batches_change_nothing(void **state) {
    (void)state;
    static const int batches[] = { 10, 1, 3, 7, 19, 20, 45, 80 };
    static const int32_t boses[] = { -1, 5 };
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 31, false);
    for (size_t k = 0; k < N_ELEMS(boses); k++) {
        struct log ref = { 0 };
        for (size_t i = 0; i < N_ELEMS(batches); i++) {
            struct err e = { 0 };
            struct fake_model m;
            struct log l = { 0 };
            int b = batches[i];
            fake_model_init(&m, 31, N_CTX, windows_n_seq(b, N_CTX), b);
            m.wobble = 0.75f;
            m.peak = 1;
            assert_int_equal(run(&m, tokens, b, boses[k], 0, NULL, &l, NULL, &e), 0);
            assert_int_equal(l.n, N_CHUNKS);
            assert_true(m.max_n <= b);
            if (i == 0) ref = l;
            for (int c = 0; c < N_CHUNKS; c++) {
                double want = expected_chunk(&m, tokens, c, boses[k]);
                assert_true(fabs(l.chunk[c].nll_sum - want) < 1e-6 * want);
                assert_memory_equal(&l.chunk[c], &ref.chunk[c], sizeof l.chunk[c]);
            }
        }
    }
}

static void known_chunks_give_the_same_digits(void **state) {
    (void)state;
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 31, false);
    struct err e = { 0 };
    struct fake_model m;
    struct log all = { 0 };
    fake_model_init(&m, 31, N_CTX, 4, 40);
    m.wobble = 0.5f;
    assert_int_equal(run(&m, tokens, 40, -1, 0, NULL, &all, NULL, &e), 0);
    for (int known = 0; known <= N_CHUNKS; known++) {
        struct log l = { 0 };
        m.n_trims = 0;
        assert_int_equal(run(&m, tokens, 40, -1, known, &all, &l, NULL, &e), 0);
        assert_int_equal(l.n, N_CHUNKS);
        assert_memory_equal(l.running, all.running, sizeof l.running);
        /* Passes are those of the first run: a part of one is evaluated again. */
        assert_int_equal(m.n_trims, known == N_CHUNKS ? 0 : 3 - known / 4);
    }
}

static void a_callback_stops_the_run(void **state) {
    (void)state;
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 31, false);
    struct err e = { 0 };
    struct fake_model m;
    struct log l = { .stop_at = 3 };
    fake_model_init(&m, 31, N_CTX, 4, 40);
    assert_int_equal(run(&m, tokens, 40, -1, 0, NULL, &l, NULL, &e), ERR_IO);
    assert_int_equal(l.n, 3);
    assert_string_equal(e.msg, "stopped");
}

static void nonfinite_is_named(void **state) {
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    int32_t tokens[N_TOKENS];
    make_text(tokens, N_TOKENS, 31, true);
    for (size_t i = 0; i < N_ELEMS(bad); i++) {
        struct err e = { 0 };
        struct fake_model m;
        struct log l = { 0 };
        struct windows w;
        fake_model_init(&m, 31, N_CTX, 4, 40);
        m.bad_token = (2 * N_CTX + 7) % 31; /* position 7 of chunk 3, met nowhere else there */
        m.bad_pos = 7;
        m.bad = bad[i];
        assert_int_equal(windows_plain(&w, N_TOKENS, N_CTX, -1, &e), 0);
        struct ppl_run r = { .walk = { .arm = &m.base,
                                       .win = &w,
                                       .tokens = tokens,
                                       .bos = -1,
                                       .n_batch = 40,
                                       .n_seq = 4 },
                             .chunk = log_chunk,
                             .arg = &l };
        assert_int_equal(ppl_run(&r, &e), ERR_NONFINITE);
        assert_int_equal(l.n, 2);
        assert_int_equal(r.walk.bad_window, 2);
        assert_int_equal(r.walk.bad_pos, 7);
        assert_non_null(strstr(e.msg, "chunk 3, position 7: the logit of token 1 is"));
    }
}

/* Whichever allocation fails, the run says so and leaks nothing. */
static void out_of_memory(void **state) {
    (void)state;
    int32_t tokens[N_TOKENS];
    struct fake_model m;
    make_text(tokens, N_TOKENS, 31, false);
    fake_model_init(&m, 31, N_CTX, 4, 40);
    for (int n = 1;; n++) {
        struct err e = { 0 };
        struct log l = { 0 };
        heap_fail_at(n);
        int rc = run(&m, tokens, 40, -1, 0, NULL, &l, NULL, &e);
        heap_fail_at(0);
        if (rc == 0) {
            assert_true(n > 1);
            break;
        }
        assert_int_equal(rc, ERR_NOMEM);
    }
}

static void strides_score_what_they_should(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct log l = { 0 };
    struct windows w;
    int32_t tokens[40];
    make_text(tokens, 40, 31, true);
    assert_int_equal(windows_strided(&w, 40, 8, 4, -1, &e), 0); /* W = 10 */
    assert_int_equal(w.n, 8);
    fake_model_init(&m, 31, w.n_ctx, 1, 8);
    m.peak = 2;
    struct ppl_run r = { .walk = { .arm = &m.base,
                                   .win = &w,
                                   .tokens = tokens,
                                   .bos = -1,
                                   .n_batch = 8,
                                   .n_seq = 1 },
                         .chunk = log_chunk,
                         .arg = &l };
    assert_int_equal(ppl_run(&r, &e), 0);
    assert_int_equal(r.stats.n_tokens, 8 * 4);
    assert_int_equal(r.walk.n_evaluated, 8 * 10);
    double want = (exp(2) + 30) / exp(2);
    assert_true(fabs(ppl_stats_ppl(&r.stats) - want) < 1e-7 * want);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static char *temp_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/test_ppl.%d.csv", (int)getpid());
    remove(path);
    return path;
}

/* The rows that end a run. */
#define BIT(metric) ((uint64_t)1 << METRIC_##metric)
#define CLOSING                                                                                    \
    (BIT(ppl) | BIT(ppl_se_token) | BIT(ppl_se_chunk) | BIT(eval_s) | BIT(eval_tps) |              \
     BIT(model_bytes) | BIT(bpw) | BIT(rss_bytes))

static void make_base(struct row *r, const char *settings) {
    struct err e;
    row_init(r);
    assert_int_equal(row_set(r, ROW_schema, ROW_SCHEMA, &e), 0);
    assert_int_equal(row_set(r, ROW_run_id, "the run", &e), 0);
    assert_int_equal(row_set(r, ROW_test, "perplexity", &e), 0);
    assert_int_equal(row_set(r, ROW_model_fp, "0123456789abcdef", &e), 0);
    assert_int_equal(row_set(r, ROW_settings, settings, &e), 0);
    assert_int_equal(row_set_int(r, ROW_n_ctx, N_CTX, &e), 0);
}

/* Leaves the rows of a whole run in PATH and what it reported in *all. */
static void write_run(const char *path, const int32_t *tokens, struct fake_model *m,
                      struct log *all) {
    struct err e = { 0 };
    struct ppl_rows rows = { 0 };
    struct ppl_stats s;
    make_base(&rows.run.base, "{\"a\":1}");
    assert_int_equal(ppl_rows_open(&rows, path, NULL, &e), 0);
    *all = (struct log){ .rows = &rows };
    assert_int_equal(run(m, tokens, 40, -1, 0, NULL, all, &s, &e), 0);
    assert_int_equal(ppl_rows_estimate(&rows, &s, &e), 0);
    assert_int_equal(ppl_rows_cost(&rows, &m->base, 90, 0.5, &e), 0);
    assert_int_equal(run_rows_close(&rows.run, &e), 0);
}

static void rows_are_read_back(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct log all;
    int32_t tokens[N_TOKENS];
    char *path = temp_path();
    make_text(tokens, N_TOKENS, 31, false);
    fake_model_init(&m, 31, N_CTX, 4, 40);
    m.wobble = 0.3f;
    write_run(path, tokens, &m, &all);

    struct row like;
    struct ppl_known k;
    make_base(&like, "{\"a\":1}");
    assert_int_equal(ppl_rows_read(path, &like, N_CHUNKS, &k, &e), 0);
    assert_int_equal(k.n, N_CHUNKS);
    assert_true(k.same_run);
    assert_int_equal(k.n_rows, N_CHUNKS);
    assert_int_equal(k.closing, CLOSING);
    assert_string_equal(k.run_id, "the run");
    assert_memory_equal(k.chunk, all.chunk, sizeof all.chunk);
    ppl_known_release(&k);
    row_release(&like);

    make_base(&like, "{\"a\":2}");
    assert_int_equal(ppl_rows_read(path, &like, N_CHUNKS, &k, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.msg, "settings is '{\"a\":1}' there and '{\"a\":2}' now"));
    assert_null(k.chunk);
    row_release(&like);

    remove(path);
    make_base(&like, "{\"a\":1}");
    assert_int_equal(ppl_rows_read(path, &like, N_CHUNKS, &k, &e), 0);
    assert_int_equal(k.n, 0);
    assert_string_equal(k.run_id, "");
    ppl_known_release(&k);
    row_release(&like);
}

static int count_rows(const char *path, const char *subject) {
    int n = 0;
    char line[4096];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, subject) != NULL;
    fclose(f);
    return n;
}

/* A file cut anywhere holds the chunks whose four rows are whole, and can be gone on with. */
static void a_cut_file_goes_on(void **state) {
    (void)state;
    struct err e = { 0 };
    struct fake_model m;
    struct log all;
    int32_t tokens[N_TOKENS];
    static char file[200000];
    char *path = temp_path();
    make_text(tokens, N_TOKENS, 31, false);
    fake_model_init(&m, 31, N_CTX, 4, 40);
    m.wobble = 0.3f;
    write_run(path, tokens, &m, &all);
    FILE *f = fopen(path, "rb");
    size_t size = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_true(size > 1000 && size < sizeof file);
    assert_int_equal(count_rows(path, ",chunk "), 4 * N_CHUNKS);

    for (size_t cut = 0; cut < size; cut += 1 + size / 61) {
        f = fopen(path, "wb");
        assert_int_equal(fwrite(file, 1, cut, f), cut);
        fclose(f);
        struct ppl_rows rows = { 0 };
        struct ppl_known k;
        make_base(&rows.run.base, "{\"a\":1}");
        assert_int_equal(ppl_rows_read(path, &rows.run.base, N_CHUNKS, &k, &e), 0);
        int64_t n = k.n;
        assert_true(n >= 0 && n <= N_CHUNKS);
        struct log before = { .n = (int)n }, l = { .rows = &rows };
        struct ppl_stats stats;
        if (n) memcpy(before.chunk, k.chunk, (size_t)n * sizeof *k.chunk);
        assert_int_equal(ppl_rows_open(&rows, path, &k, &e), 0);
        ppl_known_release(&k);
        assert_int_equal(run(&m, tokens, 40, -1, (int)n, &before, &l, &stats, &e), 0);
        assert_memory_equal(l.running, all.running, sizeof l.running);
        assert_int_equal(ppl_rows_estimate(&rows, &stats, &e), 0);
        assert_int_equal(ppl_rows_cost(&rows, &m.base, 90, 0.5, &e), 0);
        assert_int_equal(run_rows_close(&rows.run, &e), 0);
        if (n > 0) { /* none twice */
            assert_int_equal(count_rows(path, ",chunk "), 4 * N_CHUNKS);
            assert_int_equal(count_rows(path, ",run,"), 8);
        }

        struct row like;
        make_base(&like, "{\"a\":1}");
        assert_int_equal(ppl_rows_read(path, &like, N_CHUNKS, &k, &e), 0);
        assert_int_equal(k.n, N_CHUNKS);
        assert_int_equal(k.closing, CLOSING);
        assert_memory_equal(k.chunk, all.chunk, sizeof all.chunk);
        ppl_known_release(&k);
        row_release(&like);
    }
    remove(path);
}

/* Append n chunks of a run whose sums tell it from others. */
static void append_run(const char *path, const char *run_id, const char *settings, double sum,
                       int n, bool closed) {
    struct err e = { 0 };
    struct ppl_rows rows = { 0 };
    struct ppl_stats s = { 0 };
    const struct arm arm = { .info.bpw = 4.5 };
    make_base(&rows.run.base, settings);
    assert_int_equal(row_set(&rows.run.base, ROW_run_id, run_id, &e), 0);
    assert_int_equal(ppl_rows_open(&rows, path, NULL, &e), 0);
    for (int i = 0; i < n; i++) {
        const struct ppl_chunk c = { sum + i, sum * sum, 4 };
        ppl_stats_add_chunk(&s, c.nll_sum, c.nll_sq_sum, c.n_scored);
        assert_int_equal(ppl_rows_chunk(&rows, i, &c, &s, &e), 0);
    }
    if (closed) {
        assert_int_equal(ppl_rows_estimate(&rows, &s, &e), 0);
        assert_int_equal(ppl_rows_cost(&rows, &arm, 90, 0.5, &e), 0);
    }
    assert_int_equal(run_rows_close(&rows.run, &e), 0);
}

static void expect_known(const char *path, const char *settings, int n_max, int n, double sum,
                         const char *run_id, uint64_t closing) {
    struct err e = { 0 };
    struct row like;
    struct ppl_known k;
    make_base(&like, settings);
    assert_int_equal(ppl_rows_read(path, &like, n_max, &k, &e), 0);
    assert_int_equal(k.n, n);
    for (int i = 0; i < n; i++)
        assert_true(k.chunk[i].nll_sum == sum + i);
    assert_string_equal(k.run_id, run_id);
    assert_int_equal(k.same_run, *run_id != 0);
    assert_int_equal(k.n_rows, *run_id ? n : 0);
    assert_int_equal(k.closing, closing);
    ppl_known_release(&k);
    row_release(&like);
}

/* Of several runs in a file one is gone on with, and no row of another is taken for its. */
static void several_runs_in_a_file(void **state) {
    (void)state;
    char *path = temp_path();
    append_run(path, "first", "{}", 10, 4, false);
    append_run(path, "second", "{}", 20, 6, false);
    append_run(path, "third", "{}", 30, 5, false);
    expect_known(path, "{}", 9, 6, 20, "second", 0);
    append_run(path, "fourth", "{}", 40, 6, true);
    expect_known(path, "{}", 9, 6, 40, "fourth", CLOSING);
    append_run(path, "fifth", "{}", 50, 2, false);
    expect_known(path, "{}", 9, 6, 40, "fourth", CLOSING);
    expect_known(path, "{}", 3, 3, 40, "fourth", CLOSING); /* asked for three */

    int rc = ERR_NOMEM;
    for (int n = 1; rc; n++) { /* whichever allocation fails: an error, no leak */
        struct err e = { 0 };
        struct row like;
        struct ppl_known k;
        make_base(&like, "{}");
        heap_fail_at(n);
        rc = ppl_rows_read(path, &like, 9, &k, &e);
        heap_fail_at(0);
        if (rc) assert_int_equal(rc, ERR_NOMEM);
        if (rc) assert_null(k.chunk);
        ppl_known_release(&k);
        row_release(&like);
    }
    remove(path);
}

/* A run of another number of chunks can be extended or shortened, under a name of its own. */
static void another_number_of_chunks(void **state) {
    (void)state;
    struct err e = { 0 };
    struct row like;
    struct ppl_known k;
    static const char four[] = "{\"a\":\"chunks\",\"chunks\":4,\"z\":1}";
    static const char eight[] = "{\"a\":\"chunks\",\"chunks\":8,\"z\":1}";
    char *path = temp_path();
    append_run(path, "trial", four, 10, 4, true);
    expect_known(path, four, 4, 4, 10, "trial", CLOSING);
    expect_known(path, eight, 8, 4, 10, "", 0);
    append_run(path, "whole", eight, 20, 6, false); /* killed */
    expect_known(path, eight, 8, 6, 20, "whole", 0);
    expect_known(path, four, 4, 4, 10, "trial", CLOSING); /* rather than the newer */
    append_run(path, "whole 2", eight, 30, 2, false);     /* killed while it copied rows */
    expect_known(path, eight, 8, 6, 20, "whole", 0);
    expect_known(path, "{\"a\":\"chunks\",\"chunks\":2,\"z\":1}", 2, 2, 30, "", 0);
    make_base(&like, "{\"a\":\"chunks\",\"chunks\":4,\"z\":2}");
    assert_int_equal(ppl_rows_read(path, &like, 4, &k, &e), ERR_MISMATCH);
    row_release(&like);
    remove(path);
}

/* Rows of speeds in the same file are nobody's chunks. */
static void rows_of_other_tests(void **state) {
    (void)state;
    struct err e = { 0 };
    struct run_rows rows = { 0 };
    char *path = temp_path();
    make_base(&rows.base, "{}");
    assert_int_equal(row_set(&rows.base, ROW_test, "sweep-bench", &e), 0);
    assert_int_equal(run_rows_open(&rows, path, &e), 0);
    assert_int_equal(run_rows_value(&rows, "run", METRIC_pp_s, 1, NULL, 1, &e), 0);
    assert_int_equal(run_rows_close(&rows, &e), 0);
    expect_known(path, "{}", 9, 0, 0, "", 0);
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_is_the_vocabulary),
        cmocka_unit_test(peaked_has_a_closed_form),
        cmocka_unit_test(batches_change_nothing),
        cmocka_unit_test(known_chunks_give_the_same_digits),
        cmocka_unit_test(a_callback_stops_the_run),
        cmocka_unit_test(nonfinite_is_named),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(strides_score_what_they_should),
        cmocka_unit_test(rows_are_read_back),
        cmocka_unit_test(a_cut_file_goes_on),
        cmocka_unit_test(several_runs_in_a_file),
        cmocka_unit_test(another_number_of_chunks),
        cmocka_unit_test(rows_of_other_tests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
