/* SPDX-License-Identifier: MIT
 * test_tok.c - tokenizers on small vocabularies built here, on hostile ones, and on the
 * vocabularies of ../shared with the ids of the models' own tokenizers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../fuzz/vocab_image.h"
#include "base/log.h"
#include "tok/tok.h"

#define KEY "tokenizer.ggml."
#define STRS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define NUMBERS(...) ((const float[]){ __VA_ARGS__ })
#define TYPES(...) ((const int32_t[]){ __VA_ARGS__ })

static uint64_t put_strs(struct image *im, const char *key, const char *const *s) {
    struct gguf_str v[64];
    uint64_t n = 0;
    for (; s[n]; n++)
        v[n] = (struct gguf_str){ s[n], strlen(s[n]) };
    image_strs(im, key, v, n);
    return n;
}

/* Load the vocabulary; on error *message holds it and NULL is returned. */
static struct tok *load(struct image *im, char message[1024]) {
    struct gguf *g;
    struct tok *t;
    struct err e = { 0 };
    if (image_open(im, &g, &e) < 0) fail_msg("%s", e.msg);
    int rc = tok_load(&t, g, &e);
    gguf_close(g);
    image_release(im);
    snprintf(message, 1024, "%s", e.msg);
    if (rc < 0)
        assert_null(t);
    else
        assert_non_null(t);
    return t;
}

static struct tok *load_ok(struct image *im) {
    char message[1024];
    struct tok *t = load(im, message);
    if (!t) fail_msg("%s", message);
    return t;
}

static void load_fails(struct image *im, const char *part) {
    char message[1024];
    struct tok *t = load(im, message);
    if (t) fail_msg("loaded, expected: %s", part);
    if (!strstr(message, part)) fail_msg("\"%s\", expected: %s", message, part);
}

/* The ids as text, "1 2 3". */
static void check_n(const struct tok *t, const char *text, size_t n, bool add_special,
                    bool parse_special, const char *want) {
    struct tok_ids ids;
    struct err e = { 0 };
    char got[8192] = "";
    int at = 0;
    if (tok_encode(t, text, n, add_special, parse_special, &ids, &e) < 0) fail_msg("%s", e.msg);
    for (int64_t i = 0; i < ids.n; i++)
        at += snprintf(got + at, sizeof got - (size_t)at, i ? " %d" : "%d", (int)ids.id[i]);
    tok_ids_free(&ids);
    if (strcmp(got, want)) fail_msg("\"%s\": ids %s, expected %s", text, got, want);
}

static void check(const struct tok *t, const char *text, const char *want) {
    check_n(t, text, strlen(text), false, false, want);
}

static void check_piece(const struct tok *t, int32_t id, const char *want) {
    char buf[64];
    assert_int_equal(tok_piece(t, id, buf, sizeof buf), strlen(want));
    assert_string_equal(buf, want);
}

/* ---- SPM ----------------------------------------------------------------------------------- */

#define SP "\xE2\x96\x81"

static const char *const spm_texts[] = { "<unk>", "<s>", "</s>", "<0x0A>",  "<0xC3>", "a",
                                         "b",     "ab",  "aba",  SP,        SP "a",   SP SP,
                                         "ba",    "<u>", "c",    "<|end|>", "\xA9",   NULL };
static const int32_t spm_types[] = { 2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4, 5, 1, 1 };
static const float spm_scores[] = { 0, 0, 0, 0, 0, -9, -9, -3, -1, -9, -4, -5, -3, 0, -9, 0, -9 };

static void spm_image(struct image *im) {
    image_str(im, KEY "model", "llama");
    uint64_t n = put_strs(im, KEY "tokens", spm_texts);
    image_numbers(im, KEY "token_type", GGUF_INT32, spm_types, n);
    image_numbers(im, KEY "scores", GGUF_FLOAT32, spm_scores, n);
}

static void test_spm(void **state) {
    (void)state;
    struct image im = { 0 };
    spm_image(&im);
    struct tok *t = load_ok(&im);
    assert_int_equal(tok_n_vocab(t), 17);
    assert_int_equal(tok_bos(t), 1);
    assert_int_equal(tok_eos(t), 2);
    assert_true(tok_add_bos(t) && !tok_add_eos(t));
    check(t, "", "");
    check(t, "ab", "9 7"); /* ab (-3) before U+2581 a (-4) */
    check(t, "b", "9 6");
    check(t, " a", "9 10"); /* U+2581 a (-4) before two spaces (-5) */
    check(t, "aba", "9 8"); /* ab and ba are equal: the left one first, then aba */
    check(t, "bab", "9 12 6");
    check(t, "\n", "9 3");
    check(t, "\xC3\xA9", "9 4 16"); /* byte token, else the byte itself */
    check(t, "c", "9 14");          /* an unused token is used */
    check_n(t, "b", 1, true, false, "1 9 6");
    check_n(t, "", 0, true, false, "1");
    check(t, "a<u>b", "10 13 9 6"); /* user-defined: always cut out, a space after it */
    check_n(t, "b</s>b", 6, false, true, "9 6 2 9 6");
    check_n(t, "b<|end|>", 8, false, true, "9 6 15"); /* normal in the file, control by its text */
    check_piece(t, 10, " a");
    check_piece(t, 3, "\n");
    check_piece(t, 2, "");
    check_piece(t, 13, "<u>");
    check_piece(t, 99, "");
    char small[2];
    assert_int_equal(tok_piece(t, 8, small, sizeof small), 3);
    assert_string_equal(small, "a");
    tok_free(t);
}

static void test_spm_settings(void **state) {
    (void)state;
    struct image im = { 0 };
    spm_image(&im);
    image_str(&im, "general.name", "My Phi-3 mini");
    image_bool(&im, KEY "add_bos_token", false);
    image_bool(&im, KEY "add_eos_token", true);
    image_bool(&im, KEY "add_space_prefix", false);
    image_u32(&im, KEY "eos_token_id", 15);
    struct tok *t = load_ok(&im);
    check_n(t, "ab", 2, true, false, "7 15");
    check_n(t, "b<|end|> \n b<s> b", 17, false, true, "6 15 6 1 9 6"); /* <s> keeps its space */
    tok_free(t);
}

static void test_spm_no_token_for_byte(void **state) {
    (void)state;
    struct image im = { 0 };
    spm_image(&im);
    struct tok *t = load_ok(&im);
    struct tok_ids ids;
    struct err e = { 0 };
    assert_int_equal(tok_encode(t, "x", 1, false, false, &ids, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "0x78"));
    assert_null(ids.id);
    tok_free(t);
}

/* ---- BPE ----------------------------------------------------------------------------------- */

/* All bytes (ids 0..255 in order), then the given tokens. */
static uint64_t bpe_image(struct image *im, const char *pre, const char *const *more,
                          const char *const *merges) {
    static char alphabet[256][2];
    struct gguf_str v[300];
    uint64_t n = 0;
    for (int b = 0; b < 256; b++, n++)
        v[n] = (struct gguf_str){ alphabet[b], (size_t)image_byte_char(b, alphabet[b]) };
    for (; *more; more++)
        v[n++] = (struct gguf_str){ *more, strlen(*more) };
    image_str(im, KEY "model", "gpt2");
    if (pre) image_str(im, KEY "pre", pre);
    image_strs(im, KEY "tokens", v, n);
    put_strs(im, KEY "merges", merges);
    return n;
}

#define G "\xC4\xA0" /* the character of the space */

static void test_bpe(void **state) {
    (void)state;
    struct image im = { 0 };
    bpe_image(&im, "qwen2", STRS("ab", "bc", "abc", G "a", "aa"),
              STRS("b c", "a b", "a bc", G " a", "a a", "x y", "b c"));
    struct tok *t = load_ok(&im);
    assert_int_equal(tok_bos(t), 11);
    assert_false(tok_add_bos(t));
    check(t, "", "");
    check(t, "abc", "258");
    check(t, "ab", "256");
    check(t, " a", "259");
    check(t, "aaa", "260 97"); /* leftmost of equal ranks */
    check(t, "abab abc", "256 256 32 258");
    check(t, "xy", "120 121"); /* merged to a symbol that is no token: its characters */
    check(t, "\xC3\xA9\xFF", "195 169 239 191 189"); /* an invalid byte is U+FFFD */
    check(t, "\xED\xA0\x80", "239 191 189 239 191 189 239 191 189");
    check_piece(t, 259, " a");
    check_piece(t, 0xFF, "\xFF");
    tok_free(t);
}

static void test_ignore_merges(void **state) {
    (void)state;
    struct image im = { 0 };
    bpe_image(&im, "llama-bpe", STRS("hello"), STRS("h e"));
    struct tok *t = load_ok(&im);
    assert_true(tok_add_bos(t));
    check(t, "hello", "256");
    check(t, "hell", "104 101 108 108"); /* "he" is no token */
    tok_free(t);
}

static void test_special_tokens(void **state) {
    (void)state;
    struct image im = { 0 };
    int32_t types[300];
    uint64_t n = bpe_image(&im, "gpt-2", STRS("<a>", "<a><b>", "<b>cd", "<ctl>", "", "\xC3\xB8"),
                           STRS("q q"));
    for (uint64_t i = 0; i < n; i++)
        types[i] = i < 256 ? 1 : 4;
    types[259] = 3;
    types[260] = 1;
    types[261] = 1;
    image_numbers(&im, KEY "token_type", GGUF_INT32, types, n);
    char message[1024];
    struct tok *t = load(&im, message);
    /* The character of byte F8 is in the alphabet already. */
    assert_null(t);
    assert_non_null(strstr(message, "repeats the text of token 248"));

    n = bpe_image(&im, "gpt-2", STRS("<a>", "<a><b>", "<b>cd", "<ctl>", ""), STRS("q q"));
    types[248] = 4; /* written as itself, U+00F8 */
    image_numbers(&im, KEY "token_type", GGUF_INT32, types, n);
    t = load_ok(&im);
    check(t, "<a><b>cd", "257 99 100"); /* the longest token wins, wherever it stands */
    check(t, "x<a>y<a>", "120 256 121 256");
    check(t, "<b>cd<a>", "258 256");
    check(t, "\xC3\xB8", "248");
    check(t, "<ctl>", "60 99 116 108 62");
    check_n(t, "<ctl>", 5, false, true, "259");
    check_piece(t, 248, "\xC3\xB8");
    check_piece(t, 260, "[EMPTY_260]");
    tok_free(t);
}

static int n_warnings;
static void count_warning(enum log_level level, const char *msg) {
    (void)msg;
    n_warnings += level == LOG_WARN;
}

static void test_missing_pre(void **state) {
    (void)state;
    struct image im = { 0 };
    bpe_image(&im, NULL, STRS("ab"), STRS("a b"));
    log_set_hook(count_warning);
    struct tok *t = load_ok(&im);
    log_set_hook(NULL);
    assert_int_equal(n_warnings, 1);
    check(t, "ab", "256");
    tok_free(t);
}

/* ---- hostile vocabularies ------------------------------------------------------------------ */

static void test_bad_texts(void **state) {
    (void)state;
    struct image im = { 0 };
    image_u32(&im, "x", 1);
    load_fails(&im, "tokenizer.ggml.model is missing");
    image_str(&im, KEY "model", "bert");
    load_fails(&im, "expected one of llama gpt2");
    image_str(&im, KEY "model", "llama");
    load_fails(&im, "tokenizer.ggml.tokens is missing");
    image_str(&im, KEY "model", "llama");
    image_strs(&im, KEY "tokens", NULL, 0);
    load_fails(&im, "no tokens");
    image_str(&im, KEY "model", "llama");
    put_strs(&im, KEY "tokens", STRS("a", "b", "a"));
    load_fails(&im, "tokens[2] repeats the text of token 0");
    image_str(&im, KEY "model", "llama");
    image_numbers(&im, KEY "tokens", GGUF_INT32, TYPES(1, 2), 2);
    load_fails(&im, "not an array of strings");

    char *huge = heap_calloc(1, 1 << 20, NULL);
    memset(huge, 'a', 1 << 20);
    image_str(&im, KEY "model", "llama");
    image_strs(&im, KEY "tokens", &(struct gguf_str){ huge, 1 << 20 }, 1);
    load_fails(&im, "1048576 bytes long");
    heap_free(huge);
}

static void start(struct image *im) {
    image_str(im, KEY "model", "llama");
    put_strs(im, KEY "tokens", STRS("<unk>", "<s>", "</s>"));
}

static void test_bad_numbers(void **state) {
    (void)state;
    struct image im = { 0 };
    start(&im);
    image_u32(&im, KEY "bos_token_id", 3);
    load_fails(&im, "bos_token_id is 3, but the vocabulary has 3 tokens");
    start(&im);
    image_u32(&im, KEY "bos_token_id", UINT32_MAX);
    load_fails(&im, "no such token");
    start(&im);
    image_numbers(&im, KEY "scores", GGUF_FLOAT32, NUMBERS(1, 2), 2);
    load_fails(&im, "scores has 2 entries");
    start(&im);
    image_numbers(&im, KEY "scores", GGUF_FLOAT32, TYPES(0, 0x7fc00000, 0), 3);
    load_fails(&im, "scores[1] is not a number");
    start(&im);
    image_numbers(&im, KEY "token_type", GGUF_INT32, TYPES(0, 1, 7), 3);
    load_fails(&im, "token_type[2] is 7");
    start(&im);
    image_numbers(&im, KEY "token_type", GGUF_FLOAT32, NUMBERS(0, 1, 2), 3);
    load_fails(&im, "integers");
}

static void test_bad_bpe(void **state) {
    (void)state;
    struct image im = { 0 };
    bpe_image(&im, "gpt-2", STRS("ab"), STRS("a b", "ab"));
    load_fails(&im, "merges[1] is \"ab\"");
    bpe_image(&im, "gpt-2", STRS("ab"), STRS(" ab"));
    load_fails(&im, "merges[0]");
    bpe_image(&im, "mystery", STRS("ab"), STRS("a b"));
    load_fails(&im, "\"mystery\"");
    image_str(&im, KEY "model", "gpt2");
    image_str(&im, KEY "pre", "gpt-2");
    put_strs(&im, KEY "tokens", STRS("a"));
    load_fails(&im, "merges is missing");
}

/* Every allocation fails once; nothing may leak or crash. */
static void test_out_of_memory(void **state) {
    (void)state;
    struct image im = { 0 };
    struct gguf *g;
    struct err e = { 0 };
    bpe_image(&im, "gpt-2", STRS("ab", "<|end|>"), STRS("a b"));
    assert_int_equal(image_open(&im, &g, &e), 0);
    int rc = -1;
    for (int64_t i = 1; rc < 0 && i < 10000; i++) {
        struct tok *t = NULL;
        struct tok_ids ids = { 0 };
        heap_fail_at(i);
        rc = tok_load(&t, g, &e);
        if (rc == 0) rc = tok_encode(t, "ab\xFF<|end|>", 10, false, true, &ids, &e);
        heap_fail_at(0);
        tok_ids_free(&ids);
        tok_free(t);
        if (rc < 0) assert_true(rc == ERR_NOMEM || rc == ERR_UNSUPPORTED);
    }
    assert_int_equal(rc, 0);
    gguf_close(g);
    image_release(&im);
}

/* ---- the vocabularies of ../shared --------------------------------------------------------- */

#define VECTORS "../shared/vectors/tokenizers/ggml-vocab-"

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *s = heap_alloc(*n + 1, NULL);
    assert_int_equal(fread(s, 1, *n, f), *n);
    s[*n] = '\0';
    fclose(f);
    return s;
}

static struct tok *load_file(const char *path) {
    struct gguf *g;
    struct tok *t = NULL;
    struct err e = { 0 };
    if (gguf_open(&g, path, &e) < 0 || tok_load(&t, g, &e) < 0) fail_msg("%s", e.msg);
    gguf_close(g);
    return t;
}

static void check_vocabulary(const char *name) {
    static const char end[] = "\n__ggml_vocab_test__\n";
    char path[256], want[8192];
    size_t n, n_out;
    snprintf(path, sizeof path, VECTORS "%s.gguf.out", name);
    char *out = read_file(path, &n_out), *line = out;
    if (!out) skip();
    snprintf(path, sizeof path, VECTORS "%s.gguf.inp", name);
    char *in = read_file(path, &n), *text = in, *stop;
    snprintf(path, sizeof path, VECTORS "%s.gguf", name);
    struct tok *t = load_file(path);
    int n_texts = 0;
    for (; (stop = strstr(text, end)); text = stop + strlen(end), n_texts++) {
        size_t length = strcspn(line, "\n");
        snprintf(want, sizeof want, "%.*s", length ? (int)length - 1 : 0, line + 1);
        *stop = '\0';
        check_n(t, text, (size_t)(stop - text), false, false, want);
        line += length + 1;
    }
    assert_int_equal(n_texts, 46);
    tok_free(t);
    heap_free(in);
    heap_free(out);
}

#define VOCABULARY(symbol, name)                                                                   \
    static void test_vectors_##symbol(void **state) {                                              \
        (void)state;                                                                               \
        check_vocabulary(name);                                                                    \
    }
VOCABULARY(llama_spm, "llama-spm")
VOCABULARY(phi_3, "phi-3")
VOCABULARY(gpt_2, "gpt-2")
VOCABULARY(starcoder, "starcoder")
VOCABULARY(deepseek_llm, "deepseek-llm")

/* Numbers of tokens of the whole text without its last newline, counted by an independent encoder.
 */
static void test_whole_text(void **state) {
    (void)state;
    size_t n;
    char *text = read_file("../shared/datasets/wiki.test.raw", &n);
    if (!text) skip();
    static const struct {
        const char *path;
        int64_t n_tokens;
    } cases[] = { { "../shared/models/tiny-qwen3-q4_0.gguf", 390528 },
                  { "../shared/models/tiny-llama-q4_k_m.gguf", 396608 } };
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct tok *t = load_file(cases[i].path);
        struct tok_ids ids;
        struct err e = { 0 };
        if (tok_encode(t, text, n - 1, true, false, &ids, &e) < 0) fail_msg("%s", e.msg);
        assert_int_equal(ids.n, cases[i].n_tokens);
        tok_ids_free(&ids);
        tok_free(t);
    }
    heap_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm),
        cmocka_unit_test(test_spm_settings),
        cmocka_unit_test(test_spm_no_token_for_byte),
        cmocka_unit_test(test_bpe),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_missing_pre),
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_bad_bpe),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_vectors_llama_spm),
        cmocka_unit_test(test_vectors_phi_3),
        cmocka_unit_test(test_vectors_gpt_2),
        cmocka_unit_test(test_vectors_starcoder),
        cmocka_unit_test(test_vectors_deepseek_llm),
        cmocka_unit_test(test_whole_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
