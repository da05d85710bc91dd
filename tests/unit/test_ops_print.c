/* SPDX-License-Identifier: MIT
 * test_ops_print.c - findings in words, and one CSV line per node with the header's columns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/ops_print.h"
#include "result/csv.h"

#define N 10

static struct op_report nodes[N];
static struct op_error layers[2];

static struct localise example(enum finding kind, int wrong) {
    struct op_error some = { 100, 1e-3, 2e-3, 0.5, 3, 4, -1, -1, 1, 1, 1 };
    memset(nodes, 0, sizeof nodes);
    for (int i = 0; i < N; i++) {
        struct op_report *r = &nodes[i];
        snprintf(r->name, sizeof r->name, "node-%d", i);
        r->op = i % 2 ? OP_add : OP_mul_mat;
        snprintf(r->cell_a, sizeof r->cell_a, "%s@ref", i % 2 ? "add" : "iq4_kt");
        snprintf(r->cell_b, sizeof r->cell_b, "%s", i % 2 ? "add@ref" : "iq4_kt@avx2");
        r->src[0] = (struct op_src){ "blk.0.w, \"odd\"", QT_iq4_kt, { 256, 64 }, true };
        r->n_rows = 8, r->n_cols = 64, r->n_judged = 8;
        r->own = r->acc = r->err_a = r->err_b = some;
        r->limit_a = r->limit_b = (struct op_limit){ 1e-5, 1e-12, true };
    }
    struct localise l = { .nodes = nodes,
                          .n_nodes = N,
                          .n_layer = 1,
                          .layer_own = layers,
                          .layer_acc = layers + 1,
                          .n_examined = N };
    l.first = (struct finding_detail){ .kind = kind,
                                       .wrong = wrong,
                                       .node = 6,
                                       .token = 3,
                                       .col = 4,
                                       .tile = 0,
                                       .block = 2,
                                       .block_size = 32,
                                       .n_probed = 9,
                                       .n_wrong_weights = 5,
                                       .weight = { 4, 70, 2, 1 } };
    snprintf(l.first.tensor, sizeof l.first.tensor, "blk.0.w");
    l.first.type_a = QT_iq4_kt;
    l.first.type_b = QT_q4_0;
    l.first.n_bytes_differ = 12;
    nodes[6].wrong = wrong;
    return l;
}

static void expect(const struct localise *l, const char *const *says) {
    char text[2048];
    ops_sentence(l, text, sizeof text);
    for (; *says; says++)
        if (!strstr(text, *says)) fail_msg("'%s' is not in '%s'", *says, text);
}

static void test_sentences(void **state) {
    (void)state;
    struct localise l = example(FINDING_DEQUANTISATION, WRONG_B);
    expect(&l, (const char *[]){ "dequantisation: arm B in node-6 (mul_mat of", "iq4_kt [64 x 256]",
                                 "cell iq4_kt@avx2", "error 0.5", "limit 1e-05",
                                 "position 3, column 4", "(columns 64 to 95)", "5 of 9 weights",
                                 "column 70 is used as 2, the file has 1 (a factor of 2)", NULL });
    l = example(FINDING_PRODUCT, WRONG_A);
    l.first.n_wrong_weights = 0;
    expect(&l, (const char *[]){ "product: arm A", "cell iq4_kt@ref", NULL });
    l = example(FINDING_PRODUCT, WRONG_A | WRONG_B);
    expect(&l, (const char *[]){ "both arms", NULL });
    l = example(FINDING_WEIGHTS, 0);
    expect(&l, (const char *[]){ "weights differ: blk.0.w (iq4_kt in both files)", "12 other bytes",
                                 "node-6", NULL });
    l = example(FINDING_FORMAT, 0);
    expect(&l,
           (const char *[]){ "no fault of a kernel", "iq4_kt in A's file and q4_0 in B's", NULL });
    l = example(FINDING_NODE_MISSING, WRONG_B);
    expect(&l, (const char *[]){ "arm B does not compute node-6", NULL });
    l = example(FINDING_NONE, 0);
    l.first.node = -1;
    snprintf(l.first.note, sizeof l.first.note, "a note");
    expect(&l, (const char *[]){ "all 10 operations", "(a note)", NULL });
    l.first.kind = FINDING_NOT_REPRODUCIBLE;
    l.first.wrong = WRONG_B;
    expect(&l, (const char *[]){ "not reproducible in arm B", NULL });
}

static void test_short_buffer(void **state) {
    (void)state;
    char text[32];
    struct localise l = example(FINDING_DEQUANTISATION, WRONG_B);
    ops_sentence(&l, text, sizeof text);
    assert_int_equal(strlen(text), sizeof text - 1);
}

static void test_report(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    struct localise l = example(FINDING_DEQUANTISATION, WRONG_B);
    ops_print(f, &l, "c.gguf");
    fclose(f);
    assert_non_null(strstr(text, "over the limit: iq4_kt@avx2 in arm B (1 of 5 nodes)\n"));
    assert_non_null(strstr(text, "all good: iq4_kt@ref, add@ref\n"));
    assert_non_null(strstr(text, "reproduce: ggauge replay c.gguf --backend avx2\n"));
    assert_null(strstr(text, "| node-1 ")); /* too far from the first bad one */
    assert_non_null(strstr(text, "| node-2 "));
    assert_non_null(strstr(text, "| arm B     | <- first"));
    free(text);
}

static void test_csv(void **state) {
    (void)state;
    struct err e = { 0 };
    struct csv_reader r;
    char path[] = "/tmp/ggauge-ops-XXXXXX";
    close(mkstemp(path));
    struct localise l = example(FINDING_DEQUANTISATION, WRONG_B);
    nodes[2].acc.n = 0; /* not known */
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    ops_csv(&l, f);
    fclose(f);
    if (csv_reader_open(&r, path, &e)) fail_msg("%s", e.msg);
    assert_int_equal(csv_reader_next(&r, &e), 1);
    int n_fields = r.n_fields, n = 0;
    assert_string_equal(csv_field(&r, 0), "node");
    for (; csv_reader_next(&r, &e) == 1; n++) {
        assert_int_equal(r.n_fields, n_fields);
        assert_string_equal(csv_field(&r, 4), "blk.0.w, \"odd\"");
        assert_string_equal(csv_field(&r, n_fields - 3), n == 6 ? "dequantisation" : "");
        assert_string_equal(csv_field(&r, n_fields - 5), n == 6 ? "B" : "");
    }
    assert_int_equal(n, N);
    csv_reader_release(&r);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_short_buffer),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_csv),
    };
    return cmocka_run_group_tests_name("ops_print", tests, NULL, NULL);
}
