/* SPDX-License-Identifier: MIT
 * test_cpu.c - the backend of the CPU columns: a run of many nodes leaves, bit for bit, what the
 * nodes leave one by one on one thread, whatever they share and whatever a barrier is left out for,
 * in every column, on 1 to 256 threads. */
#include "op_fixture.h"

#define N_SMALL 64   /* elements of a row: cheaper than a barrier */
#define N_LARGE 1024 /* and not */
#define N_BUFS 5     /* of each size */
#define N_TOK 9
#define N_NODES 60

struct chain {
    struct tensor *buf[2][N_BUFS]; /* [n_tok, N_SMALL] and [n_tok, N_LARGE] */
    struct tensor *weight[2];      /* of a norm */
    struct tensor *matrix[2];      /* q8_0, square: its product uses the team's shared memory */
    struct node nodes[N_NODES];
    const struct node *list[N_NODES];
};

static struct tensor *new_matrix(struct op_fixture *f, int64_t n) {
    struct tensor *t = new_tensor(f, QT_q8_0, n, n);
    const struct qkernel *k = qkernel_find(COL_ref, QT_q8_0, false, NULL);
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
        c->matrix[s] = new_matrix(f, n);
    }
}

/* A node over buffers of one size, whose result overwrites a third one: what it reads may have been
 * written just before, and what it overwrites may still be read. */
static struct node random_node(struct op_fixture *f, const struct chain *c) {
    static const enum op ops[] = { OP_add, OP_swiglu, OP_rms_norm, OP_mul_mat };
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
        n.src[0] = c->matrix[s];
        n.src[1] = c->buf[s][a];
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
        if (b.ops->run(&b, c->list + i, step, n_threads, 0, &e)) fail_msg("%s", e.msg);
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
            c.nodes[i] = random_node(f, &c);
            c.list[i] = &c.nodes[i];
        }
        for (int col = COL_ref; col <= COL_amx; col++) {
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

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_one_by_one) };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
