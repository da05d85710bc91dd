/* SPDX-License-Identifier: MIT
 * test_pretok.c - pre-tokenizer expressions: pieces worked out by hand from the expressions, and
 * the character classes against Unicode 15.1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "tok/pretok.h"
#include "tok/unicode_table.h"

static struct pretok *open_pretok(const char *name) {
    struct pretok *p;
    struct err e = { 0 };
    if (pretok_new(&p, name, strlen(name), &e) < 0) fail_msg("%s", e.msg);
    return p;
}

/* The pieces with '^' between them. */
static void joined(const char *name, const char *text, char *out) {
    struct pretok *p = open_pretok(name);
    struct pretok_run *r;
    struct err e = { 0 };
    const size_t *end;
    size_t n_end;
    assert_int_equal(pretok_run_new(&r, &e), 0);
    if (pretok_split(p, r, text, strlen(text), &end, &n_end, &e) < 0) fail_msg("%s", e.msg);
    for (size_t i = 0, at = 0; i < n_end; at = end[i++]) {
        if (i) *out++ = '^';
        memcpy(out, text + at, end[i] - at);
        out += end[i] - at;
    }
    *out = '\0';
    pretok_run_free(r);
    pretok_free(p);
}

static void check(const char *name, const char *text, const char *pieces) {
    char got[512];
    joined(name, text, got);
    if (strcmp(got, pieces)) fail_msg("%s \"%s\": pieces %s, expected %s", name, text, got, pieces);
}

static void test_gpt2(void **state) {
    (void)state;
    check("gpt-2", "", "");
    check("gpt-2", "Hello world", "Hello^ world");
    check("gpt-2", "I'm I'M we'll", "I^'m^ I^'^M^ we^'ll");
    check("gpt-2", " 12a34,  b  ", " 12^a^34^,^ ^ b^  ");
    check("gpt-2", "a\n\nb", "a^\n^\n^b");
    check("gpt-2", "x!? y", "x^!?^ y");
    check("starcoder", "a12 3", "a^1^2^ ^3");
}

static void test_qwen2_llama3(void **state) {
    (void)state;
    check("qwen2", "I'M HERE he'Ll", "I^'M^ HERE^ he^'Ll");
    check("qwen2", "I'SX don'T'", "I^'S^X^ don^'T^'");
    check("qwen2", "1234 5", "1^2^3^4^ ^5");
    check("llama-bpe", "1234567 89", "123^456^7^ ^89");
    check("llama-bpe", "a.b (c)\r\n", "a^.b^ (^c^)\r\n");
    check("qwen2", "x  \n \n  y", "x^  \n \n^ ^ y");
    check("qwen2", "a   b", "a^  ^ b");
    check("qwen2", "end   ", "end^   ");
    check("qwen2", "\t\tx", "\t^\tx");
    check("qwen2", "!!\n\nx", "!!\n\n^x");
}

static void test_spaces(void **state) {
    (void)state;
    check("qwen2", "1\xC2\x85\xC2\x85", "1^\xC2\x85\xC2\x85"); /* U+0085: a space */
    check("qwen2", "1\xE2\x80\xA8 \xE3\x80\x80", "1^\xE2\x80\xA8 \xE3\x80\x80"); /* U+2028 U+3000 */
    check("qwen2", "1\xE1\xA0\x8E!", "1^\xE1\xA0\x8E!"); /* U+180E is not one */
    check("qwen2", "1\xE1\xA0\x8E \n", "1^\xE1\xA0\x8E^ \n");
    check("gpt-2", "1\xE2\x80\x8B\xE2\x80\x8B",
          "1^\xE2\x80\x8B\xE2\x80\x8B"); /* U+200B is not one */
    check("qwen2",
          "a\xC2\xA0"
          "b",
          "a^\xC2\xA0"
          "b");
}

static void test_deepseek(void **state) {
    (void)state;
    check("deepseek-llm", "ab 12  \n", "ab^ ^12^  ^\n");
    check("deepseek-llm", "it's, ok", "it^'^s^,^ ok");
    check("deepseek-llm", "\xE4\xB8\xAD\xE6\x96\x87x", "\xE4\xB8\xAD\xE6\x96\x87^x");
    check("deepseek-coder", "a1+ b!", "a^1^+^ b^!");
    check("deepseek-v3", "x ~= y", "x^ ~=^ y");
    check("deepseek-v3", "1234.abc", "123^4^.abc");
    check("deepseek-v3",
          "\xE3\x81\x82\xE4\xB8\xAD"
          "a",
          "\xE3\x81\x82\xE4\xB8\xAD^a");
    check("deepseek-v3", "e\xCC\x81t", "e\xCC\x81t"); /* a mark goes with letters */
}

static void test_others(void **state) {
    (void)state;
    check("default", "ab1234!", "ab^123^4^!");
    check("falcon", "ab12345`x", "ab^123^45^`^x");
    check("tekken", "HelloWORLDfoo 12", "Hello^WORLDfoo^ ^1^2");
    check("tekken", "ABC/\n x", "ABC^/\n^ x");
}

static void test_unknown(void **state) {
    (void)state;
    struct pretok *p;
    struct err e = { 0 };
    assert_int_equal(pretok_new(&p, "none-such", 9, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "none-such"));
    assert_null(p);
}

static bool in_class(char name, uint32_t cp) {
    const struct code_class *c = code_class_find(name);
    for (int lo = 0, hi = c->n; lo < hi;) {
        int mid = (lo + hi) / 2;
        if (cp > c->r[mid].last)
            lo = mid + 1;
        else if (cp < c->r[mid].first)
            hi = mid;
        else
            return true;
    }
    return false;
}

/* FNV-1a over the category letters of all code points ('.' for the others), computed with the
 * Unicode 15.1.0 data of the Python package unicodedata2. */
static void test_categories(void **state) {
    (void)state;
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t cp = 0; cp <= CODE_POINT_MAX; cp++) {
        char category = '.';
        for (const char *c = "LNPSM"; *c; c++)
            if (in_class(*c, cp)) category = *c;
        h = (h ^ (unsigned char)category) * 0x100000001b3u;
    }
    assert_true(h == 0x01282ff845632f56u);
    int n_space = 0;
    for (uint32_t cp = 0; cp <= CODE_POINT_MAX; cp++)
        n_space += in_class('s', cp);
    assert_int_equal(n_space, 25);
}

/* Is c, written after `before`, in one piece with it? */
static bool sticks(const struct pretok *p, struct pretok_run *r, const char *before, uint32_t cp) {
    char text[16];
    const size_t *end;
    size_t n_end, n = strlen(before);
    memcpy(text, before, n);
    n += (size_t)utf8_put(cp, text + n);
    assert_int_equal(pretok_split(p, r, text, n, &end, &n_end, NULL), 0);
    return n_end == 1;
}

struct splitters {
    struct pretok *qwen2, *v3;
    struct pretok_run *run;
};

static void check_code_point(const struct splitters *s, uint32_t cp) {
    if (cp > CODE_POINT_MAX || (cp >= 0xD800 && cp <= 0xDFFF)) return;
    bool letter = in_class('L', cp), mark = in_class('M', cp), space = in_class('s', cp);
    bool sign = in_class('P', cp) || in_class('S', cp) || cp == '\r' || cp == '\n';
    bool cjk = (cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x3040 && cp <= 0x30FF);
    if (sticks(s->qwen2, s->run, "a", cp) != letter ||
        sticks(s->qwen2, s->run, "\t", cp) != (letter || space) ||
        sticks(s->v3, s->run, "1", cp) != in_class('N', cp) ||
        sticks(s->v3, s->run, "a", cp) != ((letter || mark) && !cjk) ||
        sticks(s->v3, s->run, "\xC2\xA7", cp) != (sign && !cjk)) /* U+00A7 */
        fail_msg("U+%04X is not matched as its category says", (unsigned)cp);
}

/* What the library matches is what the tables say: on both sides of both ends of every range. */
static void test_class_edges(void **state) {
    (void)state;
    struct splitters s = { open_pretok("qwen2"), open_pretok("deepseek-v3"), NULL };
    assert_int_equal(pretok_run_new(&s.run, NULL), 0);
    for (const char *name = "LNPSMs"; *name; name++) {
        const struct code_class *c = code_class_find(*name);
        for (int i = 0; i < c->n; i++) {
            check_code_point(&s, c->r[i].first - 1); /* 0 - 1 is no code point */
            check_code_point(&s, c->r[i].first);
            check_code_point(&s, c->r[i].last);
            check_code_point(&s, c->r[i].last + 1);
        }
    }
    pretok_run_free(s.run);
    pretok_free(s.qwen2);
    pretok_free(s.v3);
}

/* One run of a million characters is one match: no limit of the library may be hit. */
static void test_long_runs(void **state) {
    (void)state;
    static const char *const names[] = { "gpt-2",       "qwen2",  "deepseek-llm",
                                         "deepseek-v3", "tekken", "default" };
    static const char fill[] = "aA .\t1";
    const size_t n = 1000000;
    char *text = heap_alloc(n + 1, NULL);
    assert_non_null(text);
    for (size_t i = 0; i < N_ELEMS(names); i++) {
        struct pretok *p = open_pretok(names[i]);
        struct pretok_run *r;
        struct err e = { 0 };
        assert_int_equal(pretok_run_new(&r, &e), 0);
        for (const char *c = fill; *c; c++) {
            const size_t *end;
            size_t n_end;
            memset(text, *c, n);
            text[n] = '1';
            if (pretok_split(p, r, text, n + 1, &end, &n_end, &e) < 0) fail_msg("%s", e.msg);
            assert_int_equal(end[n_end - 1], n + 1);
        }
        pretok_run_free(r);
        pretok_free(p);
    }
    heap_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),       cmocka_unit_test(test_qwen2_llama3),
        cmocka_unit_test(test_spaces),     cmocka_unit_test(test_deepseek),
        cmocka_unit_test(test_others),     cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_categories), cmocka_unit_test(test_class_edges),
        cmocka_unit_test(test_long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
