/* SPDX-License-Identifier: MIT
 * test_gguf.c - the reader: right files, every kind of wrong one, truncation, short memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/rng.h"
#include "gguf/gguf.h"
#include "gguf_image.h"

/* Open a copy that ends where the memory ends, so that AddressSanitizer sees each byte too far. */
static int open_exact(struct gguf **g, const void *data, size_t n, void **copy, struct err *e) {
    *e = (struct err){ 0 };
    *copy = malloc(n ? n : 1);
    assert_non_null(*copy);
    if (n) memcpy(*copy, data, n);
    return gguf_open_memory(g, *copy, n, e);
}

static void assert_refused(const void *data, size_t n, int code, const char *text,
                           const char *what) {
    struct gguf *g = NULL;
    struct err e;
    void *copy;
    int rc = open_exact(&g, data, n, &copy, &e);
    if (rc >= 0 || e.code != rc || !e.msg[0] || g || (code && rc != code) ||
        (text && !strstr(e.msg, text)))
        fail_msg("%s (%zu bytes): rc %d, expected %d with \"%s\", found \"%s\"", what, n, rc, code,
                 text ? text : "", e.msg);
    free(copy);
}

static struct gguf *open_image(const struct image *im, void **copy) {
    struct gguf *g = NULL;
    struct err e;
    if (open_exact(&g, im->p, im->n, copy, &e) < 0) fail_msg("not opened: %s", e.msg);
    return g;
}

/* Two pairs, two tensors: f32 [8, 4] and q8_0 [64, 3]. */
static void good_image(struct image *im, uint32_t version) {
    im_head(im, version, 2, 3);
    im_key(im, "general.architecture", 8);
    im_str(im, "llama");
    im_kv_u32(im, "llama.block_count", 2);
    im_key(im, "tokens", 9);
    im_u32(im, 8);
    im_u64(im, 3);
    im_str(im, "a");
    im_str(im, "");
    im_str(im, "ccc");
    im_info(im, "token_embd.weight", 8, 4, 0, 0);
    im_info(im, "blk.0.ffn_down.weight", 64, 3, 8, 128);
    im_pad(im, 32);
    for (int i = 0; i < 128 + 204; i++)
        im_bytes(im, &(unsigned char){ (unsigned char)i }, 1);
    im_pad(im, 32);
}

static void good_files(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        static struct image im;
        void *copy;
        good_image(&im, version);
        struct gguf *g = open_image(&im, &copy);
        assert_int_equal(gguf_version(g), version);
        assert_int_equal(gguf_alignment(g), 32);
        assert_int_equal(gguf_n_parts(g), 1);
        assert_int_equal(gguf_file_bytes(g), im.n);
        assert_int_equal(gguf_main_type(g), QT_q8_0);
        assert_int_equal(gguf_n_kv(g), 3);
        assert_int_equal(gguf_n_tensors(g), 2);
        assert_null(gguf_kv_at(g, 3));
        assert_null(gguf_kv_at(g, -1));
        assert_null(gguf_tensor_at(g, 2));
        const struct gguf_kv *kv = gguf_find(g, "tokens");
        assert_non_null(kv);
        assert_int_equal(kv->count, 3);
        assert_int_equal(kv->strs[1].n, 0);
        assert_memory_equal(kv->strs[2].p, "ccc", 3);
        const struct gguf_tensor *t = gguf_find_tensor(g, "blk.0.ffn_down.weight");
        assert_ptr_equal(t, gguf_tensor_at(g, 1));
        assert_int_equal(t->n_bytes, 3 * 2 * 34);
        assert_int_equal(t->ne[1], 3);
        assert_int_equal(t->ne[3], 1);
        assert_int_equal(*(const unsigned char *)t->data, 128);
        assert_null(gguf_find_tensor(g, "blk.0.ffn_down.weigh"));
        gguf_close(g);
        free(copy);
    }
    gguf_close(NULL);
}

static void typed_lookup(void **state) {
    (void)state;
    static struct image im;
    struct err e;
    void *copy;
    im_head(&im, 3, 0, 7);
    im_key(&im, "i8", 1);
    im_bytes(&im, "\xff", 1);
    im_key(&im, "u16", 2);
    im_bytes(&im, "\xff\xff", 2);
    im_key(&im, "u64", 10);
    im_u64(&im, UINT64_MAX);
    im_key(&im, "f32", 6);
    im_bytes(&im, &(float){ 0.5f }, 4);
    im_key(&im, "f64", 12);
    im_bytes(&im, &(double){ -0.1 }, 8);
    im_key(&im, "bool", 7);
    im_bytes(&im, "\1", 1);
    im_key(&im, "str", 8);
    im_str(&im, "text");
    struct gguf *g = open_image(&im, &copy);
    uint64_t u = 7;
    int64_t i = 7;
    double d = 7;
    bool b = false;
    struct gguf_str s;
    assert_int_equal(gguf_get_u64(g, "none", &u, &e), 0);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_get_i64(g, "i8", &i, &e), 1);
    assert_int_equal(i, -1);
    assert_int_equal(gguf_get_u64(g, "i8", &u, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "i8: -1 is negative"));
    assert_int_equal(gguf_get_u64(g, "u16", &u, &e), 1);
    assert_int_equal(u, 65535);
    assert_int_equal(gguf_get_u64(g, "u64", &u, &e), 1);
    assert_true(u == UINT64_MAX);
    assert_int_equal(gguf_get_i64(g, "u64", &i, &e), ERR_FORMAT);
    assert_true(gguf_kv_i64(gguf_find(g, "u64"), 0) == INT64_MAX);
    assert_true(gguf_kv_f64(gguf_find(g, "u64"), 0) == 0x1p64);
    assert_int_equal(gguf_get_f64(g, "f32", &d, &e), 1);
    assert_true(d == 0.5);
    assert_int_equal(gguf_get_f64(g, "f64", &d, &e), 1);
    assert_true(d == -0.1);
    assert_int_equal(gguf_get_f64(g, "u16", &d, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "u16: expected a float, found u16"));
    assert_int_equal(gguf_get_bool(g, "bool", &b, &e), 1);
    assert_true(b);
    assert_int_equal(gguf_get_u64(g, "bool", &u, &e), ERR_FORMAT);
    assert_int_equal(gguf_get_str(g, "str", &s, &e), 1);
    assert_int_equal(s.n, 4);
    assert_int_equal(gguf_get_str(g, "bool", &s, NULL), ERR_FORMAT);
    assert_true(gguf_kv_i64(gguf_find(g, "i8"), 1) == 0);
    assert_true(gguf_kv_f64(gguf_find(g, "str"), 0) == 0);
    gguf_close(g);
    free(copy);
}

/* ---- wrong files ---------------------------------------------------------------------------- */

/* A file of one tensor with 4096 bytes of data. */
static void one_tensor(struct image *im, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t at) {
    im_head(im, 3, 1, 0);
    im_info(im, "blk.3.ffn_down.weight", ne0, ne1, type, at);
    im_pad(im, 32);
    im_zeros(im, 4096);
}

static void two_tensors(struct image *im, const char *a, const char *b, uint64_t at_a,
                        uint64_t at_b) {
    im_head(im, 3, 2, 0);
    im_info(im, a, 8, 2, 0, at_a);
    im_info(im, b, 8, 2, 0, at_b);
    im_pad(im, 32);
    im_zeros(im, 256);
}

static void with_alignment(struct image *im, uint32_t a) {
    im_head(im, 3, 0, 1);
    im_kv_u32(im, "general.alignment", a);
}

static void one_key(struct image *im, uint32_t type) {
    im_head(im, 3, 0, 1);
    im_key(im, "key", type);
}

static void an_array(struct image *im, uint32_t elem, uint64_t n) {
    one_key(im, 9);
    im_u32(im, elem);
    im_u64(im, n);
}

static void long_name(struct image *im, size_t n) {
    static char name[256];
    memset(name, 'n', n);
    name[n] = '\0';
    im_head(im, 3, 1, 0);
    im_info(im, name, 8, 1, 0, 0);
    im_pad(im, 32);
    im_zeros(im, 32);
}

static void n_dims(struct image *im, uint32_t n) {
    im_head(im, 3, 1, 0);
    im_str(im, "t");
    im_u32(im, n);
    for (uint32_t d = 0; d < n; d++)
        im_u64(im, 1);
    im_u32(im, 0);
    im_u64(im, 0);
    im_pad(im, 32);
    im_zeros(im, 32);
}

static void key_pair(struct image *im, const char *a, const char *b) {
    im_head(im, 3, 0, 2);
    im_kv_u32(im, a, 1);
    im_kv_u32(im, b, 1);
}

static void name_bytes(struct image *im, const char *name, size_t n) {
    im_head(im, 3, 1, 0);
    im_u64(im, n);
    im_bytes(im, name, n);
    im_zeros(im, 64);
}

static void key_bytes(struct image *im, const char *key, size_t n) {
    im_head(im, 3, 0, 1);
    im_u64(im, n);
    im_bytes(im, key, n);
    im_u32(im, 4);
    im_zeros(im, 64);
}

static void hostile_files(void **state) {
    (void)state;
    static struct image im;
#define REFUSE(make, code, text)                                                                   \
    do {                                                                                           \
        make;                                                                                      \
        assert_refused(im.p, im.n, ERR_##code, text, #make);                                       \
    } while (0)
    REFUSE(im.n = 0, FORMAT, "empty");
    REFUSE(im_head(&im, 0, 0, 0), UNSUPPORTED, "version 0, expected 2 or 3");
    REFUSE(im_head(&im, 1, 0, 0), UNSUPPORTED, "version 1");
    REFUSE(im_head(&im, 4, 0, 0), UNSUPPORTED, "version 4, expected 2 or 3");
    REFUSE(im_head(&im, 0x03000000, 0, 0), UNSUPPORTED, "big-endian");
    REFUSE(im_head(&im, 0x02000000, 0, 0), UNSUPPORTED, "big-endian");
    REFUSE((im_head(&im, 3, 0, 0), im.p[0] = 'g'), FORMAT, "not a GGUF file");
    REFUSE(im_head(&im, 3, 0, UINT64_C(1) << 60), FORMAT, "key-value pairs cannot fit");
    REFUSE(im_head(&im, 3, 0, UINT64_MAX), FORMAT, "key-value pairs cannot fit");
    REFUSE(im_head(&im, 3, UINT64_C(1) << 60, 0), FORMAT, "tensors cannot fit");
    REFUSE(im_head(&im, 3, UINT64_MAX, 0), FORMAT, "tensors cannot fit");
    REFUSE((im_head(&im, 3, 0, 1), im_u64(&im, UINT64_MAX), im_zeros(&im, 32)), FORMAT, "a key");
    REFUSE(key_bytes(&im, "", 0), FORMAT, "key of 0 bytes");
    REFUSE(key_bytes(&im, "a\0b", 3), FORMAT, "NUL");
    REFUSE(key_pair(&im, "same", "same"), FORMAT, "key same is there twice");
    REFUSE((one_key(&im, 13), im_zeros(&im, 16)), FORMAT, "value type 13");
    REFUSE((one_key(&im, 8), im_u64(&im, UINT64_MAX)), FORMAT, "string value");
    REFUSE((an_array(&im, 9, 1), im_zeros(&im, 64)), FORMAT, "array of arrays");
    REFUSE((an_array(&im, 77, 1), im_zeros(&im, 64)), FORMAT, "element type 77");
    REFUSE((an_array(&im, 4, UINT64_MAX), im_zeros(&im, 64)), FORMAT, "cannot fit");
    REFUSE((an_array(&im, 4, 17), im_zeros(&im, 64)), FORMAT, "a value of 68 bytes");
    REFUSE((an_array(&im, 8, UINT64_MAX), im_zeros(&im, 64)), FORMAT, "strings cannot fit");
    REFUSE((an_array(&im, 8, 9), im_zeros(&im, 64)), FORMAT, "strings cannot fit");
    REFUSE(with_alignment(&im, 0), FORMAT, "general.alignment is 0");
    REFUSE(with_alignment(&im, 4), FORMAT, "general.alignment is 4");
    REFUSE(with_alignment(&im, 48), FORMAT, "general.alignment is 48");
    REFUSE(with_alignment(&im, 1u << 31), FORMAT, "power of two");
    REFUSE((im_head(&im, 3, 0, 1), im_key(&im, "general.alignment", 8), im_str(&im, "32")), FORMAT,
           "expected an integer, found str");
    REFUSE(name_bytes(&im, "", 0), FORMAT, "tensor name of 0 bytes");
    REFUSE(name_bytes(&im, "a\0b", 3), FORMAT, "NUL");
    REFUSE(long_name(&im, 64), FORMAT, "tensor name of 64 bytes, expected 1 to 63");
    REFUSE(n_dims(&im, 5), FORMAT, "5 dimensions");
    REFUSE(n_dims(&im, UINT32_MAX / 1000000), FORMAT, "dimensions");
    REFUSE(one_tensor(&im, 0, 4, 0, 0), FORMAT, "dimension 0 has 0 elements");
    REFUSE(one_tensor(&im, 4, 0, 0, 0), FORMAT, "dimension 1 has 0 elements");
    REFUSE(one_tensor(&im, UINT64_MAX, 1, 0, 0), FORMAT, "above 2^63");
    REFUSE(one_tensor(&im, UINT64_C(1) << 32, UINT64_C(1) << 31, 0, 0), FORMAT, "above 2^63");
    REFUSE(one_tensor(&im, UINT64_C(1) << 62, 1, 0, 0), FORMAT, "larger than the file");
    REFUSE(one_tensor(&im, 1024, UINT64_C(1) << 52, 28, 0), FORMAT, "larger than the file");
    REFUSE(one_tensor(&im, 4544, 1, 12, 0), FORMAT,
           "blk.3.ffn_down.weight: row of 4544 is not a multiple of 256");
    REFUSE(one_tensor(&im, 1024, 2, 0, 0), FORMAT, "behind the end of the file");
    REFUSE(one_tensor(&im, 8, 1, 0, 16), FORMAT, "not a multiple of the alignment 32");
    REFUSE(one_tensor(&im, 8, 1, 0, 4096), FORMAT, "behind the end of the data section");
    REFUSE(one_tensor(&im, 8, 1, 0, UINT64_MAX - 31), FORMAT, "behind the end of the data section");
    REFUSE(one_tensor(&im, 8, 1, 9999, 8192), FORMAT, "behind the end of the data section");
    REFUSE(two_tensors(&im, "a", "a", 0, 64), FORMAT, "tensor a is there twice");
    REFUSE(two_tensors(&im, "a", "b", 0, 32), FORMAT, "tensors a and b overlap");
    REFUSE(two_tensors(&im, "a", "b", 64, 32), FORMAT, "tensors b and a overlap");
    REFUSE(two_tensors(&im, "a", "b", 0, 0), FORMAT, "overlap");
    REFUSE((im_head(&im, 3, 0, 2), im_kv_u32(&im, "split.count", 3), im_kv_u32(&im, "split.no", 0)),
           UNSUPPORTED, "from memory");
    REFUSE((im_head(&im, 3, 0, 2), im_kv_u32(&im, "split.count", 3), im_kv_u32(&im, "split.no", 3)),
           FORMAT, "split.no = 3 with split.count = 3");
#undef REFUSE
}

static void assert_opens(const struct image *im) {
    void *copy;
    gguf_close(open_image(im, &copy));
    free(copy);
}

/* The neighbours of what is refused above. */
static void borderline_files(void **state) {
    (void)state;
    static struct image im;
    im_head(&im, 3, 0, 0);
    assert_opens(&im);
    long_name(&im, 63);
    assert_opens(&im);
    for (uint32_t n = 0; n <= 4; n++) {
        n_dims(&im, n);
        assert_opens(&im);
    }
    one_tensor(&im, 1024, 1, 0, 0);
    assert_opens(&im);
    two_tensors(&im, "a", "b", 64, 0); /* data in another order than the infos */
    assert_opens(&im);
    for (uint32_t a = 8; a <= 1u << 20; a *= 2) {
        with_alignment(&im, a);
        assert_opens(&im);
    }
    an_array(&im, 8, 0);
    assert_opens(&im);
}

static void unknown_type(void **state) {
    (void)state;
    static struct image im;
    void *copy;
    one_tensor(&im, 7, 3, 9999, 0);
    struct gguf *g = open_image(&im, &copy);
    const struct gguf_tensor *t = gguf_tensor_at(g, 0);
    assert_int_equal(t->type, QT_none);
    assert_int_equal(t->type_id, 9999);
    assert_int_equal(t->n_bytes, 0);
    assert_null(t->data);
    char fp[17];
    gguf_fingerprint(g, fp);
    assert_int_equal(strlen(fp), 16);
    gguf_close(g);
    free(copy);
}

/* Interleaved types are laid out over several rows, but a tensor takes the same bytes in all. */
static void row_sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t id;
        uint64_t n_bytes; /* of [512, 4] */
    } cases[] = {
        { 155, 4 * (4 + 2 * 128) }, { 344, 4 * (4 + 2 * 136) }, { 206, 4 * 16 * 22 },
        { 399, 4 * 2 * 258 },       { 12, 4 * 2 * 144 },        { 157, 4 * (2 + 2 * 86) }
    };
    static struct image im;
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        void *copy;
        one_tensor(&im, 512, 4, cases[i].id, 0);
        struct gguf *g = open_image(&im, &copy);
        assert_int_equal(gguf_tensor_at(g, 0)->n_bytes, cases[i].n_bytes);
        gguf_close(g);
        free(copy);
    }
}

/* ---- truncation ----------------------------------------------------------------------------- */

/* Cut at n: an error if the last tensor loses bytes, otherwise success. */
static void cut(const unsigned char *p, size_t n, size_t needed) {
    struct gguf *g = NULL;
    struct err e;
    void *copy;
    if (n < needed) {
        assert_refused(p, n, ERR_FORMAT, n ? "byte" : "empty", "cut");
        return;
    }
    if (open_exact(&g, p, n, &copy, &e) < 0)
        fail_msg("cut at %zu, in the padding behind %zu: %s", n, needed, e.msg);
    gguf_close(g);
    free(copy);
}

static void truncated_image(void **state) {
    (void)state;
    static struct image im;
    good_image(&im, 3);
    for (size_t n = 0; n <= im.n; n++)
        cut(im.p, n, im.n - (32 - 204 % 32));
}

static const char *const models[] = { "../shared/models/tiny-qwen3-q8_0.gguf",
                                      "../shared/models/tiny-llama-iq4_kt.gguf",
                                      "datasets/models/tiny-qwen3-iq4_kt.gguf" };

static unsigned char *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *p = malloc(*n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void truncated_model(void **state) {
    (void)state;
    size_t n = 0, needed = 0, i = 0;
    unsigned char *p = NULL;
    while (!p && i < N_ELEMS(models))
        p = read_all(models[i++], &n);
    if (!p) skip();
    struct gguf *g;
    struct err e;
    assert_int_equal(gguf_open_memory(&g, p, n, &e), 0);
    for (int64_t k = 0; k < gguf_n_tensors(g); k++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, k);
        size_t end = (size_t)((const unsigned char *)t->data + t->n_bytes - p);
        if (end > needed) needed = end;
    }
    gguf_close(g);
    for (size_t at = 0; at < 4096; at++)
        cut(p, at, needed);
    struct rng r = { 20250611 };
    for (int k = 0; k < 1000; k++)
        cut(p, rng_below(&r, (uint32_t)n), needed);
    free(p);
}

static void real_models(void **state) {
    (void)state;
    int found = 0;
    for (size_t i = 0; i < N_ELEMS(models); i++) {
        struct gguf *g = NULL;
        struct err e = { 0 };
        char a[17], b[17];
        if (gguf_open(&g, models[i], &e) == ERR_MISSING) continue;
        assert_string_equal(e.msg, "");
        found++;
        gguf_fingerprint(g, a);
        gguf_fingerprint(g, b);
        assert_string_equal(a, b);
        uint64_t sum = 0;
        for (int64_t k = 0; k < gguf_n_tensors(g); k++) {
            const struct gguf_tensor *t = gguf_tensor_at(g, k);
            assert_ptr_equal(gguf_find_tensor(g, t->name), t);
            sum += (t->n_bytes + 31) / 32 * 32;
        }
        for (int64_t k = 0; k < gguf_n_kv(g); k++)
            assert_non_null(gguf_kv_at(g, k)->data);
        assert_true(sum < gguf_file_bytes(g));
        assert_string_equal(gguf_path(g), models[i]);
        gguf_close(g);
    }
    if (!found) skip();
}

static void not_files(void **state) {
    (void)state;
    struct gguf *g = NULL;
    struct err e;
    assert_int_equal(gguf_open(&g, "tests", &e), ERR_IO);
    assert_non_null(strstr(e.msg, "tests: is a directory"));
    assert_int_equal(gguf_open(&g, "/dev/null", &e), ERR_IO);
    assert_non_null(strstr(e.msg, "not a regular file"));
    assert_int_equal(gguf_open(&g, "tests/no-such.gguf", &e), ERR_MISSING);
    assert_int_equal(gguf_open(&g, "tests/run.sh", &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "not a GGUF file"));
    assert_null(g);
}

static void short_memory(void **state) {
    (void)state;
    static struct image im;
    good_image(&im, 3);
    int n = 1;
    for (;; n++) {
        struct gguf *g = NULL;
        struct err e = { 0 };
        heap_fail_at(n);
        int rc = gguf_open_memory(&g, im.p, im.n, &e);
        heap_fail_at(0);
        gguf_close(g);
        if (rc == 0) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_int_equal(e.code, ERR_NOMEM);
        assert_null(g);
    }
    assert_true(n > 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),      cmocka_unit_test(typed_lookup),
        cmocka_unit_test(hostile_files),   cmocka_unit_test(borderline_files),
        cmocka_unit_test(unknown_type),    cmocka_unit_test(row_sizes),
        cmocka_unit_test(truncated_image), cmocka_unit_test(truncated_model),
        cmocka_unit_test(real_models),     cmocka_unit_test(not_files),
        cmocka_unit_test(short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
