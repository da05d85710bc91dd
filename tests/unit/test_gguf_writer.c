/* SPDX-License-Identifier: MIT
 * test_gguf_writer.c - what is written is read back the same; split models; failures leave nothing.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "gguf/gguf.h"

static char dir[64];
static char path_buf[4][512];

/* A path in the test's folder; four may be in use. */
static const char *in_dir(const char *name) {
    static int next;
    char *p = path_buf[next++ % 4];
    snprintf(p, sizeof path_buf[0], "%s/%s", dir, name);
    return p;
}

static int files_in_dir(void) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ggauge-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    DIR *d = opendir(dir);
    if (!d) return -1;
    for (const struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') remove(in_dir(e->d_name));
    closedir(d);
    return rmdir(dir);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err e_ = { 0 };                                                                     \
        struct err *e = &e_;                                                                       \
        if ((call) < 0) fail_msg("%s: %s", #call, e->msg);                                         \
    } while (0)

#define FAILS(call, code, text)                                                                    \
    do {                                                                                           \
        struct err e_ = { 0 };                                                                     \
        struct err *e = &e_;                                                                       \
        int rc_ = (call);                                                                          \
        if (rc_ != ERR_##code || !strstr(e->msg, text))                                            \
            fail_msg("%s: rc %d, \"%s\", expected \"%s\"", #call, rc_, e->msg, text);              \
    } while (0)

/* ---- round trips ---------------------------------------------------------------------------- */

static const unsigned char sample[64] = { 1,    0x80, 3,    4, 5,    0xff, 7, 0x88, 9, 10, 11, 12,
                                          0x81, 14,   0xf1, 6, 0x7f, 0xf0, 1, 2,    3, 4,  5,  6 };

static const struct gguf_str words[] = {
    { "one", 3 }, { "", 0 }, { "t\0o", 3 }, { "\xff\xfe", 2 }
};

static void put_every_type(struct gguf_writer *w) {
#define X(name, code, bytes)                                                                       \
    if (bytes) {                                                                                   \
        struct gguf_kv kv = { .key = { "one." #name, 4 + sizeof #name - 1 },                       \
                              .type = GGUF_##name,                                                 \
                              .elem_type = GGUF_##name,                                            \
                              .count = 1,                                                          \
                              .data = sample };                                                    \
        OK(gguf_put_kv(w, &kv, e));                                                                \
        OK(gguf_put_array(w, "many." #name, GGUF_##name, sample, 8, e));                           \
        OK(gguf_put_array(w, "none." #name, GGUF_##name, NULL, 0, e));                             \
    }
    GGUF_VALUE_LIST(X)
#undef X
    OK(gguf_put_str(w, "one.STRING", words[2].p, words[2].n, e));
    OK(gguf_put_array(w, "many.STRING", GGUF_STRING, words, N_ELEMS(words), e));
    OK(gguf_put_array(w, "none.STRING", GGUF_STRING, NULL, 0, e));
    OK(gguf_put_u32(w, "u32", 7, e));
    OK(gguf_put_u32(w, "u32", 8, e)); /* replaces */
    OK(gguf_put_f32(w, "f32", 0.1f, e));
    OK(gguf_put_bool(w, "bool", true, e));
}

static void check_every_type(const struct gguf *g) {
#define X(name, code, bytes)                                                                       \
    if (bytes) {                                                                                   \
        const struct gguf_kv *one = gguf_find(g, "one." #name);                                    \
        const struct gguf_kv *many = gguf_find(g, "many." #name);                                  \
        const struct gguf_kv *none = gguf_find(g, "none." #name);                                  \
        assert_true(one &&many &&none);                                                            \
        assert_int_equal(one->type, GGUF_##name);                                                  \
        assert_int_equal(one->elem_type, GGUF_##name);                                             \
        assert_memory_equal(one->data, sample, bytes);                                             \
        assert_int_equal(many->type, GGUF_ARRAY);                                                  \
        assert_int_equal(many->elem_type, GGUF_##name);                                            \
        assert_int_equal(many->count, 8);                                                          \
        assert_memory_equal(many->data, sample, 8 * (bytes));                                      \
        assert_int_equal(none->count, 0);                                                          \
    }
    GGUF_VALUE_LIST(X)
#undef X
    const struct gguf_kv *many = gguf_find(g, "many.STRING");
    assert_int_equal(many->count, N_ELEMS(words));
    for (size_t i = 0; i < N_ELEMS(words); i++) {
        assert_int_equal(many->strs[i].n, words[i].n);
        assert_memory_equal(many->strs[i].p, words[i].p, words[i].n);
    }
    uint64_t u = 0;
    double d = 0;
    bool b = false;
    struct gguf_str s = { 0 };
    OK(gguf_get_u64(g, "u32", &u, e));
    OK(gguf_get_f64(g, "f32", &d, e));
    OK(gguf_get_bool(g, "bool", &b, e));
    OK(gguf_get_str(g, "one.STRING", &s, e));
    assert_int_equal(u, 8);
    assert_true(d == (double)0.1f && b && s.n == 3);
    assert_int_equal(gguf_n_kv(g), 12 * 3 - 3 + 3 + 3);
}

static void every_type(void **state) {
    (void)state;
    struct gguf_writer *w;
    struct gguf *g, *again;
    const char *a = in_dir("types.gguf"), *b = in_dir("copy.gguf");
    OK(gguf_writer_new(&w, a, e));
    put_every_type(w);
    OK(gguf_writer_begin(w, e));
    OK(gguf_writer_end(w, e));
    gguf_writer_free(w);
    OK(gguf_open(&g, a, e));
    check_every_type(g);

    OK(gguf_writer_new(&w, b, e));
    for (int64_t i = 0; i < gguf_n_kv(g); i++)
        OK(gguf_put_kv(w, gguf_kv_at(g, i), e));
    OK(gguf_writer_begin(w, e));
    OK(gguf_writer_end(w, e));
    gguf_writer_free(w);
    OK(gguf_open(&again, b, e));
    check_every_type(again);
    assert_int_equal(gguf_file_bytes(g), gguf_file_bytes(again));
    gguf_close(g);
    gguf_close(again);
}

/* Byte i of tensor k of the models below. */
static unsigned char pattern(int k, uint64_t i) {
    return (unsigned char)(i * 31 + (uint64_t)k * 17 + i / 251);
}

static const struct {
    const char *name;
    int n_dims;
    int64_t ne[4];
    enum qtype type;
    uint64_t n_bytes;
} shapes[] = {
    { "token_embd.weight", 2, { 64, 300 }, QT_q8_0, 300 * 2 * 34 },
    { "norm", 1, { 5 }, QT_f32, 20 },
    { "blk.0.w", 3, { 256, 3, 2 }, QT_iq4_kt, 6 * (4 + 128) },
    { "blk.1.w", 4, { 32, 1, 2, 2 }, QT_q4_0, 4 * 18 },
};
#define N_SHAPES ((int)N_ELEMS(shapes))

static void put_shapes(struct gguf_writer *w, int from, int to) {
    for (int k = from; k < to; k++)
        OK(gguf_put_tensor(w, shapes[k].name, shapes[k].n_dims, shapes[k].ne, shapes[k].type, e));
}

/* All data of shapes [from, to) in uneven pieces. */
static void put_data(struct gguf_writer *w, int from, int to) {
    static unsigned char buf[32768];
    for (int k = from; k < to; k++) {
        for (uint64_t i = 0; i < shapes[k].n_bytes; i++)
            buf[i] = pattern(k, i);
        size_t n = (size_t)shapes[k].n_bytes, half = n / 3 + 1;
        OK(gguf_writer_data(w, buf, half, e));
        OK(gguf_writer_data(w, buf, 0, e));
        OK(gguf_writer_data(w, buf + half, n - half, e));
    }
}

static void check_data(const struct gguf *g) {
    assert_int_equal(gguf_n_tensors(g), N_SHAPES);
    for (int k = 0; k < N_SHAPES; k++) {
        const struct gguf_tensor *t = gguf_find_tensor(g, shapes[k].name);
        assert_non_null(t);
        assert_int_equal(t->n_bytes, shapes[k].n_bytes);
        assert_int_equal(t->type, shapes[k].type);
        assert_int_equal(t->n_dims, shapes[k].n_dims);
        assert_int_equal((uintptr_t)t->data % 8, 0);
        for (uint64_t i = 0; i < t->n_bytes; i++)
            if (((const unsigned char *)t->data)[i] != pattern(k, i))
                fail_msg("%s: byte %d differs", t->name, (int)i);
    }
}

static void write_model(const char *path, uint32_t alignment) {
    struct gguf_writer *w;
    OK(gguf_writer_new(&w, path, e));
    OK(gguf_put_str(w, "general.architecture", "llama", 5, e));
    if (alignment) OK(gguf_put_u32(w, "general.alignment", alignment, e));
    put_shapes(w, 0, N_SHAPES);
    OK(gguf_writer_begin(w, e));
    put_data(w, 0, N_SHAPES);
    OK(gguf_writer_end(w, e));
    gguf_writer_free(w);
}

static void tensors_and_alignment(void **state) {
    (void)state;
    char fp[2][17];
    for (uint32_t a = 0; a <= 1u << 16; a = a ? a * 2 : 8) {
        struct gguf *g;
        const char *path = in_dir("model.gguf");
        write_model(path, a);
        OK(gguf_open(&g, path, e));
        assert_int_equal(gguf_alignment(g), a ? a : 32);
        assert_int_equal(gguf_file_bytes(g) % (a ? a : 32), 0);
        check_data(g);
        gguf_fingerprint(g, fp[a > 0]);
        assert_string_equal(fp[0], fp[a > 0]);
        gguf_close(g);
    }
}

static void wrong_use(void **state) {
    (void)state;
    struct gguf_writer *w;
    char long_name[65];
    unsigned char data[64] = { 0 };
    memset(long_name, 'n', sizeof long_name);
    long_name[64] = '\0';
    const char *path = in_dir("wrong.gguf");
    OK(gguf_writer_new(&w, path, e));
    FAILS(gguf_put_tensor(w, long_name, 1, (int64_t[]){ 8 }, QT_f32, e), ARG, "64 bytes");
    FAILS(gguf_put_tensor(w, "", 1, (int64_t[]){ 8 }, QT_f32, e), ARG, "0 bytes");
    FAILS(gguf_put_tensor(w, "a", 5, (int64_t[]){ 8 }, QT_f32, e), ARG, "5 dimensions");
    FAILS(gguf_put_tensor(w, "a", 1, (int64_t[]){ 0 }, QT_f32, e), ARG, "0 elements");
    FAILS(gguf_put_tensor(w, "a", 1, (int64_t[]){ 33 }, QT_q8_0, e), ARG, "not a multiple of 32");
    FAILS(gguf_put_tensor(w, "a", 2, (int64_t[]){ INT64_MAX, INT64_MAX }, QT_f32, e), ARG, "large");
    FAILS(gguf_put_tensor(w, "a", 1, (int64_t[]){ 8 }, QT_none, e), ARG, "type -1");
    FAILS(gguf_put_u32(w, "", 1, e), ARG, "key");
    FAILS(gguf_put_array(w, "k", GGUF_ARRAY, data, 1, e), ARG, "cannot be written");
    FAILS(gguf_writer_data(w, data, 1, e), ARG, "still collecting");
    FAILS(gguf_writer_end(w, e), ARG, "still collecting");
    OK(gguf_put_u32(w, "general.alignment", 24, e));
    FAILS(gguf_writer_begin(w, e), ARG, "general.alignment is 24");
    OK(gguf_put_u32(w, "general.alignment", 16, e));
    OK(gguf_put_tensor(w, "a", 1, (int64_t[]){ 8 }, QT_f32, e));
    FAILS(gguf_put_tensor(w, "a", 1, (int64_t[]){ 8 }, QT_f32, e), ARG, "there already");
    OK(gguf_writer_begin(w, e));
    FAILS(gguf_put_u32(w, "late", 1, e), ARG, "already writing");
    FAILS(gguf_writer_data(w, data, 33, e), ARG, "33 bytes for a tensor that lacks 32");
    FAILS(gguf_writer_end(w, e), ARG, "a: 0 of 32 bytes written");
    OK(gguf_writer_data(w, data, 32, e));
    FAILS(gguf_writer_data(w, data, 1, e), ARG, "behind the last tensor");
    assert_int_not_equal(access(path, F_OK), 0); /* not before the end */
    OK(gguf_writer_end(w, e));
    FAILS(gguf_writer_end(w, e), ARG, "already closed");
    gguf_writer_free(w);
    assert_int_equal(access(path, F_OK), 0);
    FAILS(gguf_writer_new(&w, "/dev/full", e), ARG, "not a regular file");
    FAILS(gguf_writer_new(&w, in_dir("no/such/folder"), e), IO, "cannot create");
    assert_null(w);
}

static void abandoned(void **state) {
    (void)state;
    int before = files_in_dir();
    struct gguf_writer *w;
    OK(gguf_writer_new(&w, in_dir("abandoned.gguf"), e));
    put_shapes(w, 0, N_SHAPES);
    OK(gguf_writer_begin(w, e));
    put_data(w, 0, 1);
    assert_int_equal(files_in_dir(), before + 1);
    gguf_writer_free(w);
    assert_int_equal(files_in_dir(), before);
    gguf_writer_free(NULL);
}

/* A limit on the size of files acts like a full disk. */
static void full_disk(void **state) {
    (void)state;
    int before = files_in_dir();
    struct rlimit old, small;
    struct gguf_writer *w;
    getrlimit(RLIMIT_FSIZE, &old);
    small = (struct rlimit){ 4096, old.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    OK(gguf_writer_new(&w, in_dir("full.gguf"), e));
    put_shapes(w, 0, N_SHAPES);
    OK(gguf_writer_begin(w, e));
    put_data(w, 0, N_SHAPES);
    setrlimit(RLIMIT_FSIZE, &small);
    struct err err = { 0 };
    int rc = gguf_writer_end(w, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, ERR_IO);
    assert_non_null(strstr(err.msg, "cannot write"));
    FAILS(gguf_writer_end(w, e), ARG, "broken by an earlier error");
    gguf_writer_free(w);
    assert_int_equal(files_in_dir(), before);
}

/* Write a model with the n-th allocation failing. */
static int write_short_of_memory(const char *path, int n, struct err *e) {
    int rc = 0;
    struct gguf_writer *w = NULL;
    heap_fail_at(n);
    TRY(gguf_writer_new(&w, path, e));
    for (int i = 0; i < 40; i++) {
        char key[16];
        snprintf(key, sizeof key, "key.%d", i % 35);
        TRY(gguf_put_u32(w, key, 1, e));
    }
    TRY(gguf_put_tensor(w, "a", 1, (int64_t[]){ 8 }, QT_f32, e));
    TRY(gguf_writer_begin(w, e));
    TRY(gguf_writer_data(w, sample, 32, e));
    TRY(gguf_writer_end(w, e));
out:
    heap_fail_at(0);
    gguf_writer_free(w);
    return rc;
}

static void short_memory(void **state) {
    (void)state;
    int n = 1, before = files_in_dir();
    for (;; n++) {
        struct err e = { 0 };
        int rc = write_short_of_memory(in_dir("short.gguf"), n, &e);
        if (rc == 0) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_int_equal(e.code, ERR_NOMEM);
        assert_int_equal(files_in_dir(), before);
    }
    assert_true(n > 40);
}

/* ---- split models --------------------------------------------------------------------------- */

/* Part `no` of `count`, named as part `as`, with the shapes [from, to). */
static void write_part(int as, int no, int count, int total, int from, int to) {
    char name[64];
    struct gguf_writer *w;
    snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", as + 1, 3);
    uint16_t no16 = (uint16_t)no, count16 = (uint16_t)count;
    struct gguf_kv kv = { .key = { "split.no", 8 },
                          .type = GGUF_UINT16,
                          .elem_type = GGUF_UINT16,
                          .count = 1,
                          .data = &no16 };
    OK(gguf_writer_new(&w, in_dir(name), e));
    if (as == 0) OK(gguf_put_str(w, "general.architecture", "llama", 5, e));
    OK(gguf_put_kv(w, &kv, e));
    kv.key = (struct gguf_str){ "split.count", 11 };
    kv.data = &count16;
    OK(gguf_put_kv(w, &kv, e));
    if (total >= 0) OK(gguf_put_u32(w, "split.tensors.count", (uint32_t)total, e));
    if (as == 1) OK(gguf_put_u32(w, "general.alignment", 256, e)); /* each part has its own */
    put_shapes(w, from, to);
    OK(gguf_writer_begin(w, e));
    put_data(w, from, to);
    OK(gguf_writer_end(w, e));
    gguf_writer_free(w);
}

static void write_split(void) {
    write_part(0, 0, 3, N_SHAPES, 0, 0); /* metadata alone, as gguf-split can leave it */
    write_part(1, 1, 3, N_SHAPES, 0, 3);
    write_part(2, 2, 3, N_SHAPES, 3, 4);
}

static void split_model(void **state) {
    (void)state;
    struct gguf *g, *whole;
    char a[17], b[17];
    write_split();
    OK(gguf_open(&g, in_dir("m-00001-of-00003.gguf"), e));
    assert_int_equal(gguf_n_parts(g), 3);
    assert_int_equal(gguf_alignment(g), 32);
    check_data(g);
    assert_int_equal(gguf_find_tensor(g, "blk.1.w")->part, 2);
    assert_int_equal(gguf_find_tensor(g, "norm")->part, 1);
    assert_int_equal(gguf_find_tensor(g, "norm")->offset % 256, 0);
    write_model(in_dir("whole.gguf"), 0);
    OK(gguf_open(&whole, in_dir("whole.gguf"), e));
    gguf_fingerprint(g, a);
    gguf_fingerprint(whole, b);
    assert_string_equal(a, b);
    gguf_close(g);
    gguf_close(whole);
}

static void broken_split(void **state) {
    (void)state;
    struct gguf *g;
    char first[128], odd[128];
    snprintf(first, sizeof first, "%s/m-00001-of-00003.gguf", dir);
    snprintf(odd, sizeof odd, "%s/odd.gguf", dir);
    write_split();
    FAILS(gguf_open(&g, in_dir("m-00002-of-00003.gguf"), e), ARG, "this is part 2 of 3");
    FAILS(gguf_open(&g, in_dir("m-00002-of-00003.gguf"), e), ARG, first);
    write_part(2, 1, 3, N_SHAPES, 3, 4);
    FAILS(gguf_open(&g, first, e), MISMATCH, "says it is part 2 of 3, expected part 3 of 3");
    write_part(2, 2, 4, N_SHAPES, 3, 4);
    FAILS(gguf_open(&g, first, e), MISMATCH, "says it is part 3 of 4, expected part 3 of 3");
    write_part(2, 2, 3, N_SHAPES, 2, 3);
    FAILS(gguf_open(&g, first, e), FORMAT, "blk.0.w is there twice");
    write_part(2, 2, 3, N_SHAPES, 3, 3);
    FAILS(gguf_open(&g, first, e), MISMATCH, "split.tensors.count is 4, but the 3 parts have 3");
    assert_int_equal(remove(in_dir("m-00003-of-00003.gguf")), 0);
    FAILS(gguf_open(&g, first, e), MISSING, "part 3 of 3: ");
    FAILS(gguf_open(&g, first, e), MISSING, "m-00003-of-00003.gguf: cannot open");
    write_split();
    write_part(0, 0, 3, -1, 0, 0);
    FAILS(gguf_open(&g, first, e), MISSING, "split.tensors.count");
    write_part(0, 0, 0, N_SHAPES, 0, 0);
    FAILS(gguf_open(&g, first, e), FORMAT, "split.count = 0");
    write_split();
    assert_int_equal(rename(first, odd), 0);
    FAILS(gguf_open(&g, odd, e), ARG, "its name must end in -00001-of-00003.gguf");
    assert_null(g);
}

static void split_short_memory(void **state) {
    (void)state;
    write_split();
    int n = 1;
    for (;; n++) {
        struct gguf *g = NULL;
        struct err e = { 0 };
        heap_fail_at(n);
        int rc = gguf_open(&g, in_dir("m-00001-of-00003.gguf"), &e);
        heap_fail_at(0);
        gguf_close(g);
        if (rc == 0) break;
        if (rc != ERR_NOMEM) fail_msg("allocation %d: rc %d, %s", n, rc, e.msg);
    }
    assert_true(n > 20);
}

/* New memory: nobody has written it. */
static void note_place(void *arg, void *p, size_t n_bytes) {
    size_t *placed = arg;
    const unsigned char *v = p;
    assert_true(n_bytes > 0 && v[0] == 0 && v[n_bytes - 1] == 0);
    *placed += n_bytes;
}

/* Large enough to be moved; not a whole number of pages. The same bytes at the same addresses. */
static void huge_pages(void **state) {
    (void)state;
    enum { MIB = 40, WORDS = (MIB << 18) + 5 };
    const char *path = in_dir("huge.gguf");
    const int64_t ne[2] = { WORDS, 1 };
    uint32_t *data = malloc(WORDS * sizeof *data);
    struct gguf_writer *w = NULL;
    struct gguf *g = NULL;
    assert_non_null(data);
    for (uint32_t i = 0; i < WORDS; i++)
        data[i] = i * 2654435761u;
    OK(gguf_writer_new(&w, path, e));
    OK(gguf_put_str(w, "general.architecture", "llama", 5, e));
    OK(gguf_put_tensor(w, "a", 2, ne, QT_f32, e));
    OK(gguf_writer_begin(w, e));
    OK(gguf_writer_data(w, data, WORDS * sizeof *data, e));
    OK(gguf_writer_end(w, e));
    gguf_writer_free(w);
    OK(gguf_open(&g, path, e));
    const struct gguf_tensor *t = gguf_tensor_at(g, 0);
    const void *at = t->data;
    for (int twice = 0; twice < 2; twice++) {
        size_t placed = 0;
        const bool moved = gguf_to_huge_pages(g, note_place, &placed);
        assert_true(placed >= (moved ? WORDS * sizeof *data : 0));
        assert_ptr_equal(t->data, at);
        assert_memory_equal(t->data, data, WORDS * sizeof *data);
    }
    struct gguf_str s;
    OK(gguf_get_str(g, "general.architecture", &s, e));
    assert_memory_equal(s.p, "llama", 5);
    gguf_close(g);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),         cmocka_unit_test(tensors_and_alignment),
        cmocka_unit_test(wrong_use),          cmocka_unit_test(abandoned),
        cmocka_unit_test(full_disk),          cmocka_unit_test(short_memory),
        cmocka_unit_test(split_model),        cmocka_unit_test(broken_split),
        cmocka_unit_test(split_short_memory), cmocka_unit_test(huge_pages),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
