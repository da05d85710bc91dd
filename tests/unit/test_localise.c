/* SPDX-License-Identifier: MIT
 * test_localise.c - a fault planted in one node of one arm is named: the node, the arm, the kind,
 * the place; and pairs without a fault name nothing. */
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
#include "backend.h"
#include "faulty_arm.h"
#include "gguf/gguf.h"
#include "measure/localise.h"

#define N_CTX 64
#define FIRST 32
#define N_VOCAB 300

static char path[64], other[64];
static int32_t token[N_CTX], target[N_CTX];

static void write_model(const char *arch, char *to) {
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default(arch);
    t.quantised = true;
    t.n_embd_head = 32; /* rows of a q8_0 cache */
    assert_int_equal(t.n_vocab, N_VOCAB);
    snprintf(to, sizeof path, "/tmp/ggauge-localise-XXXXXX");
    close(mkstemp(to));
    if (tiny_model_write(&t, to, &e)) fail_msg("%s", e.msg);
}

static int setup(void **state) {
    (void)state;
    write_model("qwen3", path);
    for (int i = 0; i < N_CTX; i++) {
        token[i] = (i * 37 + 11) % N_VOCAB;
        target[i] = (i * 37 + 48) % N_VOCAB;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return unlink(path);
}

/* The column whose kernels have the faults. */
static const char *fast(void) {
    return column_name(column_available(COL_avx2) ? COL_avx2 : COL_ref);
}

static struct arm *open_arm(const char *model, const char *backend, int n_ubatch,
                            const char *type_kv) {
    struct err e = { 0 };
    struct arm *a;
    struct arm_params p = { .model = model,
                            .backend = backend,
                            .n_ctx = N_CTX,
                            .n_seq = 1,
                            .n_batch = 64,
                            .n_ubatch = n_ubatch,
                            .n_threads = 2,
                            .type_k = type_kv,
                            .type_v = type_kv };
    if (arm_open(&a, &p, &e)) fail_msg("%s", e.msg);
    return a;
}

static struct localise_params params(struct arm *a, struct arm *b) {
    return (struct localise_params){ .a = a,
                                     .b = b,
                                     .model_a = path,
                                     .token = token,
                                     .target = target,
                                     .n_ctx = N_CTX,
                                     .first = FIRST,
                                     .end = N_CTX - 1,
                                     .n_threads = 2 };
}

static struct localise *run(const struct localise_params *p) {
    struct err e = { 0 };
    struct localise *l;
    if (localise_run(&l, p, &e)) fail_msg("%s", e.msg);
    return l;
}

/* ---- healthy -------------------------------------------------------------------------------- */

static void expect_nothing(const struct localise_params *p) {
    struct localise *l = run(p);
    assert_int_equal(l->n_examined, l->n_nodes);
    for (int i = 0; i < l->n_nodes; i++) {
        const struct op_report *r = &l->nodes[i];
        assert_true(r->seen_a && r->seen_b && r->own.n == r->n_rows * r->n_cols);
        assert_true(r->n_judged > 0);
        if (r->wrong)
            fail_msg("%s %d: %s %g of %g, %s %g of %g", r->name, r->occurrence, r->cell_a,
                     r->err_a.max_rel, r->limit_a.max_rel, r->cell_b, r->err_b.max_rel,
                     r->limit_b.max_rel);
    }
    assert_string_equal(finding_name(l->first.kind), "none");
    assert_true(!l->capsule && l->max_nll_change_a == 0 && l->max_nll_change_b == 0);
    localise_free(l);
}

static void test_healthy(void **state) {
    (void)state;
    static const char *const archs[] = { "llama", "qwen2", "qwen3" };
    for (size_t i = 0; i < N_ELEMS(archs); i++) {
        write_model(archs[i], other);
        struct arm *a = open_arm(other, "ref", 64, NULL), *b = open_arm(other, fast(), 64, NULL);
        struct arm *c = open_arm(other, fast(), 7, NULL), *d = open_arm(other, fast(), 64, "q8_0");
        struct localise_params p = params(a, b);
        p.model_a = other;
        expect_nothing(&p);
        struct arm *best = open_arm(other, column_name(column_best_cpu()), 64, NULL);
        p.b = best;
        expect_nothing(&p);
        arm_close(best);
        p.b = c; /* its rows come in other micro-batches */
        expect_nothing(&p);
        p.a = b;
        expect_nothing(&p);
        p.b = d; /* caches of two types */
        expect_nothing(&p);
        p.max_bytes = 1 << 17; /* some layers at a time, the head in slices */
        p.b = c;
        expect_nothing(&p);
        arm_close(a), arm_close(b), arm_close(c), arm_close(d);
        unlink(other);
    }
}

/* ---- faults --------------------------------------------------------------------------------- */

static void spoil_weight_row(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)n, (void)t, (void)r;
    ((float *)row)[37] *= 1.3f;
}

/* The second block of every weight row reads 0.05 too much in columns of the second tile. */
static void spoil_block(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)r;
    const float *x = tensor_row(n->src[1], t);
    float sum = 0;
    for (int i = 32; i < 64; i++)
        sum += 0.05f * x[i];
    for (int c = 32; c < 64; c++)
        ((float *)row)[c] += sum;
}

static void spoil_tail_token(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)n, (void)t;
    if (r % 17 == 16)
        for (int c = 32; c < 64; c++)
            ((float *)row)[c] *= 0.9f;
}

static void spoil_one_row(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)n, (void)t;
    if (r == 41) ((float *)row)[3] += 0.5f;
}

static void spoil_nan(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)n, (void)t;
    if (r == 20) ((float *)row)[5] = NAN;
}

static void spoil_all(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)t, (void)r;
    for (int64_t c = 0; c < n->dst->ne[0]; c++)
        ((float *)row)[c] *= 1.01f;
}

static void spoil_cache(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)t, (void)r;
    for (int64_t c = 0; c < n->dst->ne[0]; c += 2) /* f16: the sign */
        ((uint16_t *)row)[c] ^= 0x8000;
}

/* Activations are cut off where they should be rounded. */
static void spoil_rounding(const struct node *n, int64_t t, int64_t r, void *row) {
    (void)r;
    const float *x = tensor_row(n->src[1], t);
    const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)n->src[0]->type, false, NULL);
    float w[256], d[256];
    for (int64_t g = 0; g < n->src[1]->ne[0]; g += 32) {
        float amax = 0;
        for (int i = 0; i < 32; i++)
            amax = fmaxf(amax, fabsf(x[g + i]));
        for (int i = 0; i < 32; i++) {
            float q = x[g + i] / (amax / 127.0f);
            d[g + i] = (truncf(q) - roundf(q)) * (amax / 127.0f);
            if (fabsf(q - roundf(q)) < 1e-3f) d[g + i] = 0;
        }
    }
    for (int64_t c = 0; c < n->dst->ne[0]; c++) {
        double sum = 0;
        k->dequant_row(tensor_row(n->src[0], c), w, n->src[0]->ne[0]);
        for (int64_t i = 0; i < n->src[0]->ne[0]; i++)
            sum += (double)w[i] * d[i];
        ((float *)row)[c] += (float)sum;
    }
}

struct fault {
    const char *node;
    int occurrence;
    spoil_fn spoil;
    const char *kind;
    int64_t token, col, block; /* -1: any */
};

static const struct fault faults[] = {
    { "Qcur-0", 0, spoil_weight_row, "dequantisation", -1, 37, -1 },
    { "ffn_gate-1", 0, spoil_block, "dequantisation", -1, -1, 1 },
    { "ffn_up-0", 0, spoil_tail_token, "product", -1, -1, -1 },
    { "attn_out-1", 0, spoil_one_row, "product", 41, 3, -1 },
    { "Vcur-1", 0, spoil_nan, "non-finite", 20, 5, -1 },
    { "kqv_out-0", 0, spoil_nan, "non-finite", 20, 5, -1 },
    { "inp_embd", 0, spoil_one_row, "dequantisation", 41, 3, -1 },
    { "attn_norm-1", 0, spoil_one_row, "operation", 41, 3, -1 },
    { "Kcur-0", 1, spoil_one_row, "operation", 41, 3, -1 },
    { "rope_table", 0, spoil_all, "operation", -1, -1, -1 },
    { "cache_v_l1", 0, spoil_cache, "operation", -1, -1, -1 },
    { "kqv_out-1", 0, spoil_all, "operation", -1, -1, -1 },
    { "ffn_swiglu-0", 0, spoil_one_row, "operation", 41, 3, -1 },
    { "l_out-1", 0, spoil_one_row, "operation", 41, 3, -1 },
    { "result_norm", 0, spoil_all, "operation", -1, -1, -1 },
    { "result_output", 0, spoil_weight_row, "dequantisation", -1, 37, -1 },
    { "result_output", 0, spoil_one_row, "product", 41, 3, -1 },
};

static void check_fault(const struct fault *f, const struct localise *l, int wrong) {
    const struct finding_detail *d = &l->first;
    if (d->node < 0 || strcmp(l->nodes[d->node].name, f->node) ||
        l->nodes[d->node].occurrence != f->occurrence || strcmp(finding_name(d->kind), f->kind))
        fail_msg("%s %d %s: found %s in %s (%s)", f->node, f->occurrence, f->kind,
                 finding_name(d->kind), d->node < 0 ? "no node" : l->nodes[d->node].name, d->note);
    assert_int_equal(d->wrong, wrong);
    if (f->token >= 0) assert_int_equal(d->token, f->token);
    if (f->col >= 0) assert_int_equal(d->col, f->col);
    if (f->block >= 0) assert_int_equal(d->block, f->block);
    if (!strcmp(f->kind, "dequantisation") && l->nodes[d->node].op == OP_mul_mat)
        assert_true(d->n_wrong_weights > 0 && d->weight.used != d->weight.expected);
    for (int i = 0; i < l->n_nodes; i++) /* nothing else is accused */
        assert_true(i == d->node || !l->nodes[i].wrong);
    assert_non_null(l->capsule);
}

static void try_fault(const struct fault *f, struct arm *a, struct arm *inner, bool swap,
                      size_t max_bytes) {
    struct err e = { 0 };
    struct faulty_arm faulty;
    if (faulty_arm_init(&faulty, inner, f->node, f->occurrence, f->spoil, &e))
        fail_msg("%s", e.msg);
    struct localise_params p = params(swap ? &faulty.base : a, swap ? a : &faulty.base);
    p.max_bytes = max_bytes;
    struct localise *l = run(&p);
    check_fault(f, l, swap ? WRONG_A : WRONG_B);
    localise_free(l);
    arm_observe(inner, NULL, &e);
}

static void test_faults(void **state) {
    (void)state;
    struct arm *a = open_arm(path, "ref", 64, NULL), *b = open_arm(path, fast(), 64, NULL);
    struct arm *small = open_arm(path, fast(), 7, NULL);
    for (size_t i = 0; i < N_ELEMS(faults); i++) {
        try_fault(&faults[i], a, b, false, 0);
        try_fault(&faults[i], a, small, true, 0);
        try_fault(&faults[i], a, b, false, 1 << 17);
    }
    arm_close(a), arm_close(b), arm_close(small);
}

static void test_rounding(void **state) {
    (void)state;
    const struct qkernel *k = qkernel_find(column_from_name(fast()), QT_q8_0, true, NULL);
    if (!k || k->act == QT_f32) skip(); /* no column here rounds activations */
    static const struct fault f = { "ffn_out-0", 0, spoil_rounding, "activation", -1, -1, -1 };
    struct arm *a = open_arm(path, "ref", 64, NULL), *b = open_arm(path, fast(), 64, NULL);
    try_fault(&f, a, b, false, 0);
    arm_close(a), arm_close(b);
}

/* A fault that is gone under observation is no fault of any op. */
static void test_not_reproducible(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm(path, "ref", 64, NULL), *b = open_arm(path, fast(), 64, NULL);
    struct faulty_arm faulty;
    assert_int_equal(faulty_arm_init(&faulty, b, "ffn_out-1", 0, spoil_all, &e), 0);
    faulty.only_unobserved = true;
    struct localise_params p = params(a, &faulty.base);
    struct localise *l = run(&p);
    assert_string_equal(finding_name(l->first.kind), "not reproducible");
    assert_int_equal(l->first.wrong, WRONG_B);
    assert_true(l->max_nll_change_b > 1e-4 && l->max_nll_change_a == 0);
    localise_free(l);
    arm_close(a), arm_close(b);
}

/* An arm that does not show a node: what reads it cannot be judged, everything else can. */
/* What one arm does not show is made by ref where later nodes need it: those are judged all the
 * same. */
static void test_hidden_node(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_arm(path, "ref", 64, NULL), *b = open_arm(path, fast(), 64, NULL);
    struct faulty_arm faulty;
    assert_int_equal(faulty_arm_init(&faulty, b, "ffn_norm-1", 0, spoil_all, &e), 0);
    faulty.hidden = true; /* and so not spoilt */
    struct localise_params p = params(a, &faulty.base);
    struct localise *l = run(&p);
    assert_string_equal(finding_name(l->first.kind), "node missing");
    assert_string_equal(l->nodes[l->first.node].name, "ffn_norm-1");
    assert_int_equal(l->first.wrong, WRONG_B);
    assert_int_equal(l->n_hidden, 1);
    for (int i = 0; i < l->n_nodes; i++) {
        const struct op_report *r = &l->nodes[i];
        assert_true(r->err_a.n > 0);
        assert_int_equal(r->err_b.n > 0, strcmp(r->name, "ffn_norm-1") != 0);
        assert_int_equal(r->wrong, 0);
    }
    localise_free(l);
    arm_close(a), arm_close(b);
}

/* ---- two files ------------------------------------------------------------------------------ */

/* A copy of the model in `other` with bytes of one tensor altered. */
static void alter(const char *name, size_t at, size_t n) {
    struct err e = { 0 };
    struct gguf *g;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    static unsigned char file[1 << 21];
    size_t size = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_true(size < sizeof file);
    if (gguf_open_memory(&g, file, size, &e)) fail_msg("%s", e.msg);
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    assert_true(t && at + n <= t->n_bytes);
    unsigned char *p = file + ((const unsigned char *)t->data - file) + at;
    for (size_t i = 0; i < n; i++)
        p[i] ^= 0x21;
    gguf_close(g);
    snprintf(other, sizeof other, "/tmp/ggauge-localise-XXXXXX");
    close(mkstemp(other));
    f = fopen(other, "wb");
    assert_true(f && fwrite(file, 1, size, f) == size);
    fclose(f);
}

static void test_altered_file(void **state) {
    (void)state;
    alter("blk.1.ffn_down.weight", 1000, 200);
    struct arm *a = open_arm(path, fast(), 64, NULL), *b = open_arm(other, fast(), 64, NULL);
    struct localise_params p = params(a, b);
    p.model_b = other;
    struct localise *l = run(&p);
    const struct finding_detail *d = &l->first;
    assert_string_equal(finding_name(d->kind), "weights differ");
    assert_string_equal(l->nodes[d->node].name, "ffn_out-1");
    assert_string_equal(d->tensor, "blk.1.ffn_down.weight");
    assert_int_equal(d->byte, 1000);
    assert_int_equal(d->n_bytes_differ, 200);
    localise_free(l);
    arm_close(a), arm_close(b);
    unlink(other);
}

/* The same weights in another type are no fault of a kernel. */
static void test_other_type(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen3");
    snprintf(other, sizeof other, "/tmp/ggauge-localise-XXXXXX");
    close(mkstemp(other));
    if (tiny_model_write(&t, other, &e)) fail_msg("%s", e.msg);
    struct arm *a = open_arm(path, fast(), 64, NULL), *b = open_arm(other, fast(), 64, NULL);
    struct localise_params p = params(a, b);
    p.model_b = other;
    struct localise *l = run(&p);
    assert_string_equal(finding_name(l->first.kind), "format difference");
    assert_string_equal(l->first.tensor, "token_embd.weight");
    assert_int_equal(l->first.type_a, QT_q8_0);
    assert_int_equal(l->first.type_b, QT_f32);
    for (int i = 0; i < l->n_nodes; i++)
        assert_int_equal(l->nodes[i].wrong, 0);
    localise_free(l);
    arm_close(a), arm_close(b);
    unlink(other);
}

static void test_refused(void **state) {
    (void)state;
    struct err e = { 0 };
    struct localise *l;
    struct arm *a = open_arm(path, "ref", 64, NULL), *like;
    struct arm_params like_params = { .model = path,
                                      .backend = "ref",
                                      .act_like = "avx2",
                                      .n_ctx = N_CTX,
                                      .n_seq = 1,
                                      .n_batch = 64,
                                      .n_ubatch = 64 };
    struct localise_params p = params(a, a);
    p.end = N_CTX + 1;
    assert_int_equal(localise_run(&l, &p, &e), ERR_ARG);
    if (column_available(COL_avx2)) {
        if (arm_open(&like, &like_params, &e)) fail_msg("%s", e.msg);
        p = params(a, like);
        assert_int_equal(localise_run(&l, &p, &e), ERR_UNSUPPORTED);
        arm_close(like);
    }
    arm_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy),     cmocka_unit_test(test_faults),
        cmocka_unit_test(test_rounding),    cmocka_unit_test(test_not_reproducible),
        cmocka_unit_test(test_hidden_node), cmocka_unit_test(test_altered_file),
        cmocka_unit_test(test_other_type),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("localise", tests, setup, teardown);
}
