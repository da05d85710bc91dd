/* SPDX-License-Identifier: MIT
 * test_synth.c - synthetic models: every architecture and every type gives a file that loads and
 * whose weights have the promised size; the same bytes on any number of threads; a vocabulary that
 * takes any text; and failures leave nothing. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend.h"
#include "base/arena.h"
#include "model/model.h"
#include "quant/synth.h"
#include "tok/tok.h"

static char dir[64], path[128];

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ggauge-test-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove(path);
    return rmdir(dir);
}

static struct synth_params small(enum arch a, enum qtype type) {
    return (struct synth_params){
        .hp = { .arch = a,
                .n_vocab = 1000,
                .n_ctx_train = 256,
                .n_embd = 256,
                .n_layer = 2,
                .n_head = 4,
                .n_head_kv = 2,
                .n_embd_head_k = 64,
                .n_embd_head_v = 64,
                .n_rot = 64,
                .n_ff = 512,
                .rms_eps = 1e-5,
                .rope_freq_base = 1e4,
                .rope_freq_scale = 1,
                .rope_attn_factor = 1 },
        .type = type,
        .type_embd = QT_none,
        .type_output = QT_none,
        .seed = 7,
        .n_threads = 1,
    };
}

static void must_write(const struct synth_params *p, struct synth_report *r) {
    struct err e = { 0 };
    if (synth_write(p, path, r, &e) < 0) fail_msg("%s", e.msg);
}

static char *read_file(size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

/* ---- every architecture loads with the shape that was asked for -------------------------------
 */

static void architectures(void **state) {
    (void)state;
    for (int a = 0; a < ARCH_count; a++)
        for (int tied = 0; tied < 2; tied++) {
            struct synth_params p = small((enum arch)a, QT_q8_0);
            struct model m;
            struct synth_report r;
            struct err e = { 0 };
            p.tied = tied;
            must_write(&p, &r);
            if (model_open(&m, path, &e) < 0) fail_msg("%s", e.msg);
            assert_int_equal(m.hp.arch, a);
            assert_int_equal(m.hp.n_ff, 512);
            assert_int_equal(m.hp.n_embd_head_k, 64);
            assert_int_equal(m.hp.n_vocab, 1000);
            assert_true((m.output == m.token_embd) == tied);
            assert_int_equal(m.n_params, r.n_params);
            assert_int_equal(m.n_bytes, r.n_bytes);
            model_close(&m);
        }
}

/* What the models' own files say. */
static void presets(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t n_params;
    } known[] = { /* of the published files, without the 32 or 64 divisors of llama */
                  { "llama-3.2-1b", 1235814400 },
                  { "llama-3.1-8b", 8030261248 },
                  { "qwen3-0.6b", 596049920 }
    };
    for (size_t i = 0; i < N_ELEMS(known); i++) {
        struct synth_params p = small(ARCH_llama, QT_q8_0);
        struct err e = { 0 };
        if (synth_preset(&p, known[i].name, &e) < 0) fail_msg("%s", e.msg);
        const struct hparams *h = &p.hp;
        const int64_t q = h->n_head * h->n_embd_head_k, kv = h->n_head_kv * h->n_embd_head_k;
        int64_t layer = 2 * h->n_embd * (q + kv) + 3 * h->n_embd * h->n_ff + 2 * h->n_embd;
        if (h->arch == ARCH_qwen3) layer += 2 * h->n_embd_head_k;
        const int64_t ends = (p.tied ? 1 : 2) * h->n_embd * h->n_vocab + h->n_embd;
        assert_int_equal(h->n_layer * layer + ends, known[i].n_params);
    }
    struct synth_params p;
    struct err e = { 0 };
    assert_int_equal(synth_preset(&p, "llama-9", &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "qwen3-0.6b"));
}

/* ---- weights ----------------------------------------------------------------------------------
 */

struct moments {
    double mean, rms;
};

static struct moments moments_of(const struct gguf_tensor *t) {
    const struct qkernel *k = qkernel_find(COL_ref, t->type, false, NULL);
    const size_t row = qtype_row_bytes(t->type, t->ne[0]);
    float *y = malloc((size_t)t->ne[0] * sizeof *y);
    double sum = 0, sq = 0, n = (double)(t->ne[0] * t->ne[1]);
    assert_non_null(y);
    for (int64_t r = 0; r < t->ne[1]; r++) {
        k->dequant_row((const char *)t->data + (size_t)r * row, y, t->ne[0]);
        for (int64_t i = 0; i < t->ne[0]; i++) {
            sum += (double)y[i];
            sq += (double)y[i] * (double)y[i];
        }
    }
    free(y);
    return (struct moments){ sum / n, sqrt(sq / n) };
}

/* Every weight type of the table, as bits and quantised where it can be. */
static void weights_have_their_size(void **state) {
    (void)state;
    int n_types = 0, n_bits = 0;
    for (int t = 0; t < QT_count; t++)
        for (int bits = 0; bits < 2; bits++) {
            struct synth_params p = small(ARCH_llama, (enum qtype)t);
            struct synth_report r;
            struct gguf *g;
            struct err e = { 0 };
            p.random_bits = bits;
            int rc = synth_write(&p, path, &r, &e);
            if (rc == ERR_UNSUPPORTED) {
                assert_non_null(strstr(e.msg, qtype_info((enum qtype)t)->name));
                continue;
            }
            if (rc < 0) fail_msg("%s", e.msg);
            n_types++, n_bits += r.random[t];
            if (gguf_open(&g, path, &e) < 0) fail_msg("%s", e.msg);
            const struct gguf_tensor *up = gguf_find_tensor(g, "blk.1.ffn_up.weight");
            assert_int_equal(up->type, t);
            struct moments m = moments_of(up);
            /* 1 / sqrt(256); the scales of rows and columns add 2 * 0.2^2 to the square */
            if (fabs(m.rms * 16 - 1.04) > 0.05 || fabs(m.mean) > 0.02 * m.rms)
                fail_msg("%s, random bits %d: rms %g, mean %g", qtype_info((enum qtype)t)->name,
                         bits, m.rms, m.mean);
            m = moments_of(gguf_find_tensor(g, "blk.1.ffn_norm.weight"));
            assert_true(fabs(m.mean - 1) < 0.03);
            struct gguf_str said;
            assert_int_equal(gguf_get_str(g, "synth.random_bits", &said, &e), 1);
            assert_true((said.n > 0) == r.random[t]);
            gguf_close(g);
        }
    assert_true(n_types >= 16);
    assert_true(n_bits >= 9);
}

static void types_by_name(void **state) {
    (void)state;
    struct synth_params p = small(ARCH_qwen3, QT_iq4_kt);
    struct gguf *g;
    struct err e = { 0 };
    p.type_embd = QT_q8_0;
    p.type_output = QT_f16;
    p.custom = "blk\\.0\\.ffn_.*=q4_0,ffn_down=q5_0";
    must_write(&p, NULL);
    if (gguf_open(&g, path, &e) < 0) fail_msg("%s", e.msg);
    assert_int_equal(gguf_find_tensor(g, "token_embd.weight")->type, QT_q8_0);
    assert_int_equal(gguf_find_tensor(g, "output.weight")->type, QT_f16);
    assert_int_equal(gguf_find_tensor(g, "blk.0.ffn_down.weight")->type, QT_q4_0);
    assert_int_equal(gguf_find_tensor(g, "blk.1.ffn_down.weight")->type, QT_q5_0);
    assert_int_equal(gguf_find_tensor(g, "blk.1.attn_q.weight")->type, QT_iq4_kt);
    assert_int_equal(gguf_find_tensor(g, "blk.1.attn_q_norm.weight")->type, QT_f32);
    gguf_close(g);
}

static void same_bytes_on_threads(void **state) {
    (void)state;
    struct synth_params p = small(ARCH_llama, QT_q8_0);
    char *file[3];
    size_t n[3];
    p.custom = "attn=iq3_kt";
    for (int i = 0; i < 3; i++) {
        p.n_threads = i == 1 ? 3 : 1;
        p.seed = i == 2 ? 8 : 7;
        must_write(&p, NULL);
        file[i] = read_file(&n[i]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(file[0], file[1], n[0]);
    assert_int_equal(n[0], n[2]);
    assert_true(memcmp(file[0], file[2], n[0]) != 0);
    for (int i = 0; i < 3; i++)
        free(file[i]);
}

/* The divisors of Llama 3: short waves untouched, long ones divided by the factor, in order. */
static void rope_divisors(void **state) {
    (void)state;
    struct synth_params p = small(ARCH_llama, QT_f16);
    struct gguf *g;
    struct err e = { 0 };
    p.llama3_factor = 8;
    p.hp.rope_freq_base = 500000;
    must_write(&p, NULL);
    if (gguf_open(&g, path, &e) < 0) fail_msg("%s", e.msg);
    const float *f = gguf_find_tensor(g, "rope_freqs.weight")->data;
    assert_true(f[0] == 1.0f && f[31] == 8.0f);
    int between = 0;
    for (int i = 1; i < 32; i++) {
        assert_true(f[i] >= f[i - 1]);
        between += f[i] > 1.0f && f[i] < 8.0f;
    }
    assert_true(between > 1);
    gguf_close(g);
}

/* ---- vocabulary -------------------------------------------------------------------------------
 */

static void vocabulary(void **state) {
    (void)state;
    static const int64_t sizes[] = { SYNTH_MIN_VOCAB, 300, 20000 };
    char text[600];
    size_t n_text = 0;
    for (int b = 0; b < 256; b++)
        text[n_text++] = (char)b;
    n_text += (size_t)snprintf(text + n_text, 300,
                               " the rain in Spain stays mainly \xE6\xBC\xA2 12345 \r\n  \t x's");
    for (size_t i = 0; i < N_ELEMS(sizes); i++)
        for (int a = 0; a < ARCH_count; a++) {
            struct synth_params p = small((enum arch)a, QT_q8_0);
            struct gguf *g;
            struct tok *t;
            struct tok_ids ids;
            struct err e = { 0 };
            p.hp.n_vocab = sizes[i];
            must_write(&p, NULL);
            if (gguf_open(&g, path, &e) < 0 || tok_load(&t, g, &e) < 0 ||
                tok_encode(t, text, n_text, true, false, &ids, &e) < 0)
                fail_msg("%s", e.msg);
            assert_int_equal(tok_n_vocab(t), sizes[i]);
            assert_true(tok_bos(t) == sizes[i] - 2 && tok_eos(t) == sizes[i] - 1);
            assert_true((ids.id[0] == tok_bos(t)) == (a == ARCH_llama));
            /* Joined again the tokens of the valid part are the text. */
            char back[700];
            size_t n_back = 0;
            for (int64_t k = 0; k < ids.n; k++)
                n_back += tok_piece(t, ids.id[k], back + n_back, sizeof back - n_back);
            assert_true(n_back > n_text);
            assert_memory_equal(back, text, 128);
            assert_string_equal(back + n_back - strlen(" 12345 \r\n  \t x's"),
                                " 12345 \r\n  \t x's");
            tok_ids_free(&ids);
            static const char words[] = " sheep graze where water is clean";
            if (tok_encode(t, words, strlen(words), false, false, &ids, &e) < 0)
                fail_msg("%s", e.msg);
            if (sizes[i] == 20000) assert_true(2 * ids.n < (int64_t)strlen(words));
            tok_ids_free(&ids);
            tok_free(t);
            gguf_close(g);
        }
}

/* ---- what cannot be -------------------------------------------------------------------------- */

static void refuse(const struct synth_params *p, int code, const char *text) {
    struct err e = { 0 };
    assert_int_equal(synth_write(p, path, NULL, &e), code);
    if (!strstr(e.msg, text)) fail_msg("'%s' does not say '%s'", e.msg, text);
}

static void refusals(void **state) {
    (void)state;
    remove(path);
    struct synth_params p = small(ARCH_llama, QT_q8_0);
    p.hp.n_head_kv = 3;
    refuse(&p, ERR_ARG, "4 heads cannot be shared evenly by 3 kv heads");
    p = small(ARCH_llama, QT_iq4_kt);
    p.hp.n_ff = 520;
    refuse(&p, ERR_ARG, "blk.0.ffn_down.weight: a row of 520 weights");
    p = small(ARCH_llama, QT_q8_0);
    p.hp.n_vocab = 257;
    refuse(&p, ERR_ARG, "expected at least 258");
    p = small(ARCH_llama, QT_q8_0);
    p.custom = "ffn";
    refuse(&p, ERR_ARG, "expected REGEX=TYPE, not 'ffn'");
    p.custom = "ffn=q9";
    refuse(&p, ERR_ARG, "no type 'q9'");
    p.custom = "(ffn=q8_0";
    refuse(&p, ERR_ARG, "'(ffn'");
    p = small(ARCH_llama, QT_q8_0);
    p.hp.n_layer = 4096;
    p.hp.n_ff = 1 << 24;
    p.hp.n_embd = 1 << 20;
    refuse(&p, ERR_IO, "GiB left");
    assert_int_equal(access(path, F_OK), -1);
}

/* Whatever allocation fails, there is an error and nothing is left. */
static void allocations_fail(void **state) {
    (void)state;
    struct synth_params p = small(ARCH_llama, QT_iq2_kt);
    p.hp.n_vocab = 300;
    p.custom = "ffn=q4_1";
    remove(path);
    for (int64_t n = 1;; n++) {
        struct err e = { 0 };
        heap_fail_at(n);
        int rc = synth_write(&p, path, NULL, &e);
        heap_fail_at(0);
        if (rc == 0) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_int_equal(access(path, F_OK), -1);
        assert_true(n < 10000);
    }
    assert_int_equal(access(path, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(architectures),
        cmocka_unit_test(presets),
        cmocka_unit_test(weights_have_their_size),
        cmocka_unit_test(types_by_name),
        cmocka_unit_test(same_bytes_on_threads),
        cmocka_unit_test(rope_divisors),
        cmocka_unit_test(vocabulary),
        cmocka_unit_test(refusals),
        cmocka_unit_test(allocations_fail),
    };
    return cmocka_run_group_tests_name("synth", tests, setup, teardown);
}
