/* SPDX-License-Identifier: MIT
 * test_cpu.c - the backend of the CPU columns: a run of many nodes leaves, bit for bit, what the
 * nodes leave one by one on one thread, whatever they share and whatever a barrier is left out for,
 * in every column, on 1 to 256 threads; and so does a whole graph, in which some nodes are computed
 * at once. */
#include "measure/random_row.h"
#include "op_fixture.h"

#define N_SMALL 64   /* elements of a row: cheaper than a barrier */
#define N_LARGE 1024 /* and not */
#define N_BUFS 5     /* of each size */
#define N_TOK 9
#define N_NODES 60

struct chain {
    struct tensor *buf[2][N_BUFS]; /* [n_tok, N_SMALL] and [n_tok, N_LARGE] */
    struct tensor *weight[2];      /* of a norm */
    struct tensor *matrix[2][2]; /* q8_0 and f16, square: products that use the team's shared memory
                                    or, in some columns, do not */
    struct node nodes[N_NODES];
    const struct node *list[N_NODES];
};

static struct tensor *new_matrix(struct op_fixture *f, enum qtype type, int64_t n) {
    struct tensor *t = new_tensor(f, type, n, n);
    const struct qkernel *k = qkernel_find(COL_ref, type, false, NULL);
    float row[N_LARGE];
    for (int64_t r = 0; r < n; r++) {
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)(rng_normal(&f->rng) / sqrt((double)n));
        k->quantize_row(row, tensor_row(t, r), n, NULL);
    }
    return t;
}

static void chain_init(struct op_fixture *f, struct chain *c) {
    for (int s = 0; s < 2; s++) {
        int64_t n = s ? N_LARGE : N_SMALL;
        for (int i = 0; i < N_BUFS; i++)
            c->buf[s][i] = new_tensor(f, QT_f32, N_TOK, n);
        c->weight[s] = new_normal(f, 1, n, 1);
        c->matrix[s][0] = new_matrix(f, QT_q8_0, n);
        c->matrix[s][1] = new_matrix(f, QT_f16, n);
    }
}

/* A node over buffers of one size, whose result overwrites a third one: what it reads may have been
 * written just before, and what it overwrites may still be read. Products often share the source of
 * the node before. */
static struct node random_node(struct op_fixture *f, const struct chain *c,
                               const struct node *before) {
    static const enum op ops[] = { OP_add, OP_swiglu, OP_rms_norm, OP_mul_mat, OP_mul_mat };
    int s = (int)rng_below(&f->rng, 2), to = (int)rng_below(&f->rng, N_BUFS);
    int a = (to + 1 + (int)rng_below(&f->rng, N_BUFS - 1)) % N_BUFS;
    int b = (to + 1 + (int)rng_below(&f->rng, N_BUFS - 1)) % N_BUFS;
    struct node n = { .op = ops[rng_below(&f->rng, N_ELEMS(ops))],
                      .dst = c->buf[s][to],
                      .src = { c->buf[s][a], c->buf[s][b] } };
    if (n.op == OP_rms_norm) {
        n.src[1] = c->weight[s];
        n.p.rms_norm.n = s ? N_LARGE : N_SMALL;
        n.p.rms_norm.eps = 1e-6f;
    }
    if (n.op == OP_mul_mat) {
        if (before && before->op == OP_mul_mat && rng_below(&f->rng, 2) &&
            before->src[1]->ne[0] == n.dst->ne[0] && before->src[1] != n.dst)
            n.src[1] = before->src[1];
        else
            n.src[1] = c->buf[s][a];
        n.src[0] = c->matrix[s][rng_below(&f->rng, 2)];
        n.p.mul_mat.act = QT_f32;
    }
    return n;
}

static void fill_bufs(struct chain *c, uint64_t seed) {
    struct rng r = { seed };
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < N_BUFS; i++)
            for (int64_t t = 0; t < N_TOK; t++)
                for (int64_t j = 0; j < c->buf[s][i]->ne[0]; j++)
                    f32_row(c->buf[s][i], t)[j] = (float)rng_normal(&r);
}

static void run_chain(struct chain *c, struct thread_pool *pool, enum column col, int step,
                      int n_threads) {
    struct backend b;
    struct err e = { 0 };
    if (backend_cpu_init(&b, col, pool, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < N_NODES; i += step)
        if (b.ops->run(&b, c->list + i, step, n_threads, false, 0, &e)) fail_msg("%s", e.msg);
    backend_release(&b);
}

static size_t copy_bufs(const struct chain *c, char *to) {
    size_t used = 0;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < N_BUFS; i++) {
            size_t bytes = N_TOK * c->buf[s][i]->row_bytes;
            memcpy(to + used, c->buf[s][i]->data, bytes);
            used += bytes;
        }
    return used;
}

static void same_as_one_by_one(void **state) {
    struct op_fixture *f = *state;
    static const int n_threads[] = { 1, 2, 3, 8, 256 };
    static struct chain c;
    struct thread_pool *pool;
    struct err e;
    fixture_reset(f);
    chain_init(f, &c);
    assert_int_equal(thread_pool_new(&pool, 256, &e), 0);
    size_t room = 2 * N_BUFS * N_TOK * (N_LARGE * sizeof(float) + 2 * GUARD_BYTES);
    char *want = malloc(room), *got = malloc(room);
    assert_true(want && got);
    const int rounds = getenv("QUICK") ? 2 : 6;
    for (int round = 0; round < rounds; round++) {
        uint64_t seed = rng_u64(&f->rng);
        for (int i = 0; i < N_NODES; i++) {
            c.nodes[i] = random_node(f, &c, i ? &c.nodes[i - 1] : NULL);
            c.list[i] = &c.nodes[i];
        }
        for (int col = COL_ref; column_is_cpu((enum column)col); col++) {
            if (!column_available((enum column)col)) continue;
            fill_bufs(&c, seed);
            run_chain(&c, pool, (enum column)col, 1, 1);
            size_t bytes = copy_bufs(&c, want);
            for (size_t k = 0; k < N_ELEMS(n_threads); k++) {
                fill_bufs(&c, seed);
                run_chain(&c, pool, (enum column)col, N_NODES, n_threads[k]);
                assert_int_equal(copy_bufs(&c, got), bytes);
                if (memcmp(want, got, bytes) != 0)
                    fail_msg("column %s, round %d: %d threads leave other bits than the nodes one "
                             "by one",
                             column_name((enum column)col), round, n_threads[k]);
            }
        }
    }
    free(want);
    free(got);
    thread_pool_free(pool);
}

/* A feed-forward block. */
struct ffn {
    struct tensor *x, *w[3], *y[4]; /* gate, up, down; their results, swiglu before the last */
    struct node nodes[4];
    const struct node *list[5];
    struct node other; /* that reads gate */
};

static struct tensor *random_matrix(struct op_fixture *f, enum qtype t, int64_t n_rows, int64_t n) {
    struct tensor *w = new_tensor(f, t, n_rows, n);
    float row[8192];
    for (int64_t r = 0; r < n_rows; r++) {
        if (random_row_has(t)) {
            random_row(t, &f->rng, n, 1 / sqrt((double)n), tensor_row(w, r));
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)(rng_normal(&f->rng) / sqrt((double)n));
        qkernel_find(COL_ref, t, false, NULL)->quantize_row(row, tensor_row(w, r), n, NULL);
    }
    return w;
}

static void ffn_init(struct op_fixture *f, struct ffn *c, const enum qtype t[3], int64_t n_tok,
                     int64_t n_embd, int64_t n_ff) {
    fixture_reset(f);
    c->x = new_normal(f, n_tok, n_embd, 1);
    for (int i = 0; i < 3; i++)
        c->w[i] =
            i < 2 ? random_matrix(f, t[i], n_ff, n_embd) : random_matrix(f, t[i], n_embd, n_ff);
    for (int i = 0; i < 4; i++)
        c->y[i] = new_tensor(f, QT_f32, n_tok, i < 3 ? n_ff : n_embd);
    const struct node nodes[] = {
        { .op = OP_mul_mat, .dst = c->y[0], .src = { c->w[0], c->x } },
        { .op = OP_mul_mat, .dst = c->y[1], .src = { c->w[1], c->x } },
        { .op = OP_swiglu, .dst = c->y[2], .src = { c->y[0], c->y[1] } },
        { .op = OP_mul_mat, .dst = c->y[3], .src = { c->w[2], c->y[2] } },
    };
    for (int i = 0; i < 4; i++) {
        c->nodes[i] = nodes[i];
        c->nodes[i].p.mul_mat.act = QT_f32;
        c->list[i] = &c->nodes[i];
    }
    c->other = (struct node){ .op = OP_add,
                              .dst = new_tensor(f, QT_f32, n_tok, n_ff),
                              .src = { c->y[0], c->y[1] } };
    c->list[4] = &c->other;
}

static void clear(const struct tensor *t) {
    for (int64_t r = 0; r < tensor_rows(t); r++)
        memset(tensor_row(t, r), GUARD, payload_bytes(t));
}

static bool is_clear(const struct tensor *t) {
    for (int64_t r = 0; r < tensor_rows(t); r++)
        for (size_t i = 0; i < payload_bytes(t); i++)
            if (((unsigned char *)tensor_row(t, r))[i] != GUARD) return false;
    return true;
}

static void run_ffn(struct ffn *c, enum column col, struct thread_pool *pool, int n, int n_threads,
                    bool whole) {
    struct backend b;
    struct err e = { 0 };
    for (int i = 0; i < 4; i++)
        clear(c->y[i]);
    if (backend_cpu_init(&b, col, pool, &e) || b.ops->run(&b, c->list, n, n_threads, whole, 0, &e))
        fail_msg("%s", e.msg);
    backend_release(&b);
}

/* Whether the block is one that the column computes at once: quants, multiplied by one column. */
static bool at_once(const struct ffn *c, enum column col, int64_t n_tok) {
    enum column found[2];
    const struct qkernel *gate =
        qkernel_for(col, (enum qtype)c->w[0]->type, c->w[0]->ne[0], n_tok, &found[0]);
    const struct qkernel *down =
        qkernel_for(col, (enum qtype)c->w[2]->type, c->w[2]->ne[0], n_tok, &found[1]);
    return c->w[0]->type == c->w[1]->type && gate && down && found[0] == found[1] && gate->glu &&
           down->glu;
}

static void check_ffn(struct op_fixture *f, struct ffn *c, struct thread_pool *pool,
                      int64_t n_tok) {
    const struct tensor *y = c->y[3];
    const size_t bytes = (size_t)n_tok * y->row_bytes;
    char *want = malloc(bytes);
    assert_non_null(want);
    for (int col = COL_ref; column_is_cpu((enum column)col); col++) {
        if (!column_available((enum column)col)) continue;
        const bool taken = at_once(c, (enum column)col, n_tok);

        run_ffn(c, (enum column)col, pool, 4, 1, false);
        memcpy(want, y->data, bytes);
        for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
            run_ffn(c, (enum column)col, pool, 4, n_threads, true);
            if (memcmp(want, y->data, bytes) != 0)
                fail_msg("column %s, %s, %lld tokens, %d threads: a feed-forward block at once "
                         "leaves other bits than its nodes",
                         column_name((enum column)col), qtype_info(c->w[0]->type)->name,
                         (long long)n_tok, n_threads);
            check_guards(f, y);
            for (int i = 0; i < 3; i++)
                assert_int_equal(is_clear(c->y[i]), taken);
        }
        run_ffn(c, (enum column)col, pool, 5, 2, true); /* gate is read by another node, too */
        assert_memory_equal(want, y->data, bytes);
        assert_false(is_clear(c->y[0]));
    }
    free(want);
}

static void chains_leave_the_same(void **state) {
    struct op_fixture *f = *state;
    static struct ffn c;
    struct thread_pool *pool;
    struct err e;
    assert_int_equal(thread_pool_new(&pool, 5, &e), 0);
    static const int64_t n_toks[] = { 1, 15, 16, 31, 33, 70 };
    int turn = 0;
    for (int t = 0; t < QT_count; t++) {
        const struct qkernel *k = qkernel_find(COL_ref, (enum qtype)t, false, NULL);
        if (!k || (!k->quantize_row && !random_row_has((enum qtype)t)) ||
            qtype_is_act((enum qtype)t))
            continue;
        const enum qtype same[3] = { t, t, QT_q4_0 }, mixed[3] = { t, QT_q5_1, t };
        const int64_t n_tok = n_toks[turn++ % N_ELEMS(n_toks)];
        ffn_init(f, &c, same, n_tok, 256, 96 + 256 * (turn % 2));
        check_ffn(f, &c, pool, n_tok);
        ffn_init(f, &c, mixed, n_tok, 256, 512);
        check_ffn(f, &c, pool, n_tok);
    }
    /* results so large that they go past the caches, of more than one group of tokens */
    const enum qtype q8[3] = { QT_q8_0, QT_q8_0, QT_q8_0 };
    ffn_init(f, &c, q8, 530, 64, 8192);
    check_ffn(f, &c, pool, 530);
    /* blocks of activations that need many rows of gate and up */
    for (int t = QT_iq2_kt; t <= QT_iq4_kt; t++) {
        const enum qtype kt[3] = { t, t, t };
        const int64_t n_tok = t == QT_iq3_kt ? 530 : 70;
        ffn_init(f, &c, kt, n_tok, 768, t == QT_iq2_kt ? 1280 : 1024);
        check_ffn(f, &c, pool, n_tok);
        if (column_available(COL_amx_requant)) assert_true(at_once(&c, COL_amx_requant, n_tok));
    }
    thread_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_one_by_one),
                                        cmocka_unit_test(chains_leave_the_same) };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
