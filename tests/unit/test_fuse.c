/* SPDX-License-Identifier: MIT
 * test_fuse.c - nodes that one launch of the cuda column computes: whole models with and without an
 * observer, for whom every node runs alone, must agree in every bit; and a layer must really take
 * as few launches as it should. */
#include <dlfcn.h>
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
#include "backend.h"
#include "emulated.h"
#include "exec/observer.h"

#define N_CTX 320 /* more than one range of attention */
#define N_VOCAB 96

/* ---- models ---------------------------------------------------------------------------------- */

struct kind {
    const char *arch;
    int n_embd, n_head, n_head_kv, n_embd_head, n_ff;
    const char *type_k, *type_v;
};

static const struct kind kinds[] = {
    { "llama", 128, 4, 2, 32, 96, "f16", "f16" },   /* rows that a warp sums */
    { "llama", 1056, 2, 1, 64, 64, "q8_0", "f16" }, /* that a block sums */
    { "qwen3", 128, 4, 2, 64, 160, "f16", "q8_0" }, /* norms of heads */
    { "qwen3", 64, 3, 3, 32, 96, "f32", "f32" },
    { "qwen2", 96, 6, 2, 16, 64, "f16", "f16" }, /* biases; heads that no warp fills */
};

static const char *write_model(const struct kind *k) {
    static char path[64];
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default(k->arch);
    snprintf(path, sizeof path, "/tmp/ggauge-tiny-XXXXXX");
    close(mkstemp(path));
    t.quantised = true;
    t.n_vocab = N_VOCAB;
    t.n_ctx = N_CTX;
    t.n_embd = k->n_embd;
    t.n_head = k->n_head;
    t.n_head_kv = k->n_head_kv;
    t.n_embd_head = k->n_embd_head;
    t.n_ff = k->n_ff;
    if (tiny_model_write(&t, path, &e)) fail_msg("%s", e.msg);
    return path;
}

static struct arm *open_arm(const char *path, const struct kind *k) {
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = { .model = path,
                            .backend = "cuda",
                            .n_ctx = N_CTX,
                            .n_seq = 1,
                            .n_batch = N_CTX,
                            .n_ubatch = N_CTX,
                            .n_threads = 1,
                            .type_k = k->type_k,
                            .type_v = k->type_v };
    if (arm_open_builtin(&a, &p, &e)) fail_msg("%s", e.msg);
    return a;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static bool want_all(void *arg, const struct node *n) {
    (void)arg, (void)n;
    return true;
}

static int see(void *arg, const struct node *n, void *data, struct err *e) {
    (void)n, (void)data, (void)e;
    ++*(int *)arg;
    return 0;
}

static int keep(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    float **to = arg;
    memcpy(*to, a->logits, N_VOCAB * sizeof **to);
    *to += N_VOCAB;
    return 0;
}

/* The next m tokens, which all want logits. */
static void decode(struct arm *a, int at, int m, float *logits) {
    int32_t token[N_CTX], pos[N_CTX], seq[N_CTX] = { 0 };
    bool want[N_CTX];
    struct err e = { 0 };
    for (int i = 0; i < m; i++) {
        token[i] = ((at + i) * 7919 + 13) % N_VOCAB;
        pos[i] = at + i;
        want[i] = true;
    }
    const struct arm_batch b = { m, token, pos, seq, want, .uniform = false };
    if (arm_decode(a, &b, keep, &logits, &e)) fail_msg("%s", e.msg);
}

/* Batches of every kind: few tokens and many, near the beginning and behind 256 cells. */
static const int batches[] = { 1, 3, 1, 8, 9, 33, 2, 199, 1, 4, 1, 1 };

static float *run(const char *path, const struct kind *k, struct observer *o) {
    float *logits = calloc((size_t)N_CTX * N_VOCAB, sizeof *logits);
    struct err e = { 0 };
    struct arm *a = open_arm(path, k);
    assert_non_null(logits);
    if (o && arm_observe(a, o, &e)) fail_msg("%s", e.msg);
    for (size_t i = 0, at = 0; i < N_ELEMS(batches); at += (size_t)batches[i++])
        decode(a, (int)at, batches[i], logits + at * N_VOCAB);
    arm_close(a);
    return logits;
}

static void fused_nodes_have_their_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < N_ELEMS(kinds); i++) {
        int n_seen = 0;
        struct observer all = { .arg = &n_seen, .want = want_all, .see = see };
        const char *path = write_model(&kinds[i]);
        float *fused = run(path, &kinds[i], NULL), *alone = run(path, &kinds[i], &all);
        assert_true(n_seen > 30 * (int)N_ELEMS(batches));
        for (int t = 0; t < N_CTX; t++)
            if (memcmp(fused + t * N_VOCAB, alone + t * N_VOCAB, N_VOCAB * sizeof *fused))
                fail_msg("model %zu (%s): token %d has other bits if nodes run alone", i,
                         kinds[i].arch, t);
        free(fused);
        free(alone);
        unlink(path);
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static long launches_of_a_token(const struct kind *k, int at, int m) {
    static float logits[N_CTX * N_VOCAB];
    void *so = dlopen(getenv("GGAUGE_CUDA_PLUGIN"), RTLD_NOW);
    void *symbol = so ? dlsym(so, "emu_launches") : NULL;
    long (*count)(void);
    memcpy(&count, &symbol, sizeof count);
    if (!symbol) return -1; /* a card */
    const char *path = write_model(k);
    struct arm *a = open_arm(path, k);
    if (at > 0) decode(a, 0, at, logits);
    const long before = count();
    decode(a, at, m, logits);
    const long n = count() - before;
    arm_close(a);
    unlink(path);
    dlclose(so);
    return n;
}

static void a_layer_takes_few_launches(void **state) {
    (void)state;
    /* norm; q k v; heads; attention; output and sum; norm; gate, up and unit; integers; down and
     * sum. In the last layer the wanted rows of two tensors are taken in between, and integers made
     * of them. Before the layers: rotations and embedding; behind: norm, logits, softmax. */
    const long expected = 9 + (9 + 3) + 2 + 3;
    for (size_t i = 0; i < 4; i++) {
        const long n = launches_of_a_token(&kinds[i], 0, 1);
        if (n < 0) skip();
        if (n > expected) fail_msg("model %zu: %ld launches for a token, not %ld", i, n, expected);
    }
    /* Ranges of cells are no launch more. Of many tokens, which are not of a trellis here, norms,
     * sums before them and heads are fused. */
    assert_true(launches_of_a_token(&kinds[0], 300, 1) <= expected);
    assert_true(launches_of_a_token(&kinds[0], 0, 33) <= 36);
}

int main(void) {
    use_emulated_cuda();
    if (!column_available(COL_cuda)) {
        printf("1..0 # skipped: no cuda column\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_nodes_have_their_bits),
        cmocka_unit_test(a_layer_takes_few_launches),
    };
    return cmocka_run_group_tests_name("fuse", tests, NULL, NULL);
}
