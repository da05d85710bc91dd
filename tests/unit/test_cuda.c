/* SPDX-License-Identifier: MIT
 * test_cuda.c - the cuda column: products of every type against ref on odd shapes, recorded graphs,
 * images of memory, copies beside what runs, a device that is full. On the emulated device, or on a
 * card when GGAUGE_CUDA_PLUGIN names the plug-in (make cuda-check). The other ops are in test_ops.c
 * and test_op_attn.c. */
#include <unistd.h>

#include "op_fixture.h"

#include "cuda_plugin.h"
#include "measure/random_row.h"

static struct backend device;

static int setup(void **state) {
    struct err e = { 0 };
    const int rc = fixture_setup(state);
    if (rc == 0 && backend_init(&device, COL_cuda, NULL, &e)) print_message("# %s\n", e.msg);
    return device.ops ? rc : -1;
}

static int teardown(void **state) {
    backend_release(&device);
    return fixture_teardown(state);
}

static void run_on(const struct node *n, uint64_t key) {
    struct err e = { 0 };
    if (device.ops->run(&device, &n, 1, 1, false, key, &e) || device.ops->synchronize(&device, &e))
        fail_msg("%s: %s", n->dst->name, e.msg);
}

enum { FUSED_MOST = 3 };

/* ---- products -------------------------------------------------------------------------------- */

enum fill { FILL_RANDOM, FILL_ZERO_WEIGHTS, FILL_ZERO_X, FILL_LARGE, FILL_NAN, FILL_count };

struct product {
    struct node n;
    struct tensor *w, *x, *dst;
};

static void fill_weights(struct op_fixture *f, struct tensor *w, enum fill fill) {
    const enum qtype t = (enum qtype)w->type;
    const size_t bytes = payload_bytes(w);
    const double scale = fill == FILL_LARGE ? 1000 : 1;
    float x[7168];
    assert_true(w->ne[0] <= 7168);
    for (int64_t r = 0; r < w->ne[1]; r++) {
        char *row = tensor_row(w, r);
        for (int64_t i = 0; i < w->ne[0]; i++)
            x[i] = (float)(scale * rng_normal(&f->rng));
        if (fill == FILL_ZERO_WEIGHTS)
            memset(row, 0, bytes);
        else if (random_row_has(t))
            random_row(t, &f->rng, w->ne[0], scale, row);
        else
            qkernel_find(COL_ref, t, false, NULL)->quantize_row(x, row, w->ne[0], NULL);
    }
}

static struct product product(struct op_fixture *f, enum qtype t, int64_t n_rows, int64_t n,
                              int64_t n_tok, enum fill fill) {
    struct product p = { .w = new_tensor(f, t, n_rows, n),
                         .x = new_normal(f, n_tok, n, fill == FILL_LARGE ? 1000 : 1),
                         .dst = new_tensor(f, QT_f32, n_tok, n_rows) };
    /* rows of weights are not padded: blocks of a trellis are 4 bytes off, others 2 */
    p.w->row_bytes = qtype_row_bytes(t, n);
    fill_weights(f, p.w, fill);
    for (int64_t i = 0; fill == FILL_ZERO_X && i < n; i++)
        f32_row(p.x, 0)[i] = 0;
    if (fill == FILL_NAN) f32_row(p.x, n_tok - 1)[n / 2] = NAN;
    p.n = (struct node){ .op = OP_mul_mat, .dst = p.dst, .src = { p.w, p.x } };
    p.n.p.mul_mat.act = qkernel_find(COL_cuda, t, true, NULL)->act;
    return p;
}

static void check_product(struct op_fixture *f, struct product *p, enum fill fill, bool many) {
    char what[128];
    const size_t bytes = (size_t)p->dst->ne[1] * p->dst->row_bytes;
    snprintf(what, sizeof what, "%s, %lld rows of %lld, %lld tokens, fill %d, %s",
             qtype_info((enum qtype)p->w->type)->name, (long long)p->w->ne[1],
             (long long)p->w->ne[0], (long long)p->x->ne[1], fill, many ? "many" : "few");
    f->what = what;
    const size_t n = (size_t)(p->dst->ne[0] * p->dst->ne[1]);
    double *want = malloc(n * sizeof *want);
    float *first = malloc(bytes);
    const struct qkernel *q = qkernel_find(COL_cuda, (enum qtype)p->w->type, true, NULL);
    const double limit = many && q->tol_nmse_many > 0 ? 5 * sqrt(q->tol_nmse_many) : 2e-6;
    assert_true(want && first);
    run_node(f, COL_ref, &p->n, 1);
    for (size_t i = 0; i < n; i++)
        want[i] = element(p->dst, (int64_t)i / p->dst->ne[0], (int64_t)i % p->dst->ne[0]);
    p->n.p.mul_mat.n_tok_as = many ? TOKENS_MANY : 0;
    for (int order = 0; order < 2; order++) { /* of the threads of a block */
        setenv("GGAUGE_EMU_ORDER", order ? "reverse" : "", 1);
        for (int64_t t = 0; t < p->dst->ne[1]; t++)
            memset(tensor_row(p->dst, t), GUARD, payload_bytes(p->dst));
        run_on(&p->n, 0);
        check_guards(f, p->dst);
        compare(f, "cuda", p->dst, want, limit);
        if (order && memcmp(first, p->dst->data, bytes)) fail_msg("%s: two runs differ", f->what);
        memcpy(first, p->dst->data, bytes);
    }
    unsetenv("GGAUGE_EMU_ORDER");
    free(want);
    free(first);
}

/* The bits of a token do not depend on how many come with it. */
static void check_alone(struct op_fixture *f, struct product *p) {
    const int64_t n_tok = p->x->ne[1];
    float *whole = malloc((size_t)p->dst->ne[0] * sizeof *whole);
    assert_non_null(whole);
    for (int64_t t = 0; t<n_tok; t += n_tok> 9 ? 5 : 1) {
        struct tensor x = *p->x, dst = *p->dst;
        struct node n = p->n;
        x.data = tensor_row(p->x, t), dst.data = tensor_row(p->dst, t);
        x.ne[1] = dst.ne[1] = 1;
        n.src[1] = &x, n.dst = &dst;
        memcpy(whole, dst.data, (size_t)dst.ne[0] * sizeof *whole);
        run_on(&n, 0);
        if (memcmp(whole, dst.data, (size_t)dst.ne[0] * sizeof *whole))
            fail_msg("%s: token %lld alone has other bits", f->what, (long long)t);
    }
    free(whole);
}

static bool has_product(int t) {
    return qtype_has_cell(COL_cuda, (enum qtype)t);
}

static void products(void **state) {
    struct op_fixture *f = *state;
    static const int64_t rows[] = { 1, 2, 3, 7, 17, 33, 131 };
    static const int64_t tokens[] = { 1, 2, 3, 7, 8, 9, 17, 33, 70, 131 };
    int turn = 0;
    for (int t = 0; t < QT_count; t++) {
        if (!has_product(t)) continue;
        const int64_t n_blk = qtype_info((enum qtype)t)->n_blk;
        for (size_t i = 0; i < N_ELEMS(tokens); i++, turn++) {
            /* shorter than what is decoded at a time, equal, with a tail, several */
            const int64_t ns[] = { n_blk, 2 * n_blk, 5 * n_blk, n_blk == 256 ? 1536 : 1184 };
            const int64_t n = n_blk == 1 ? 37 + 64 * (turn % 4) : ns[turn % 4];
            const enum fill fill = (enum fill)(turn % FILL_count);
            struct product p = product(f, (enum qtype)t, rows[turn % 7], n, tokens[i], fill);
            check_product(f, &p, fill, tokens[i] > 8);
            if (tokens[i] <= 8) check_product(f, &p, fill, true);
            check_alone(f, &p);
            fixture_reset(f);
        }
    }
}

/* More of a row than is ever on its way at a time. */
static void long_rows(void **state) {
    struct op_fixture *f = *state;
    for (int t = 0; t < QT_count; t++) {
        if (!has_product(t)) continue;
        for (int64_t n_tok = 1; n_tok <= 9; n_tok += 8) {
            struct product p = product(f, (enum qtype)t, 5, 7168, n_tok, FILL_RANDOM);
            check_product(f, &p, FILL_RANDOM, n_tok > 8);
            fixture_reset(f);
        }
    }
}

/* Few rows are shared by warps, of many rows a warp has more: one token has the bits that it has
 * among others, whose warps have other parts. */
static void many_rows(void **state) {
    struct op_fixture *f = *state;
    static const int64_t rows[] = { 23, 263 }, tokens[] = { 2, 3, 8 };
    for (int t = 0; t < QT_count; t++) {
        if (!has_product(t)) continue;
        for (int i = 0; i < 6; i++) {
            const int64_t n = i < 2 ? 768 : 3328;
            struct product p =
                product(f, (enum qtype)t, rows[i % 2], n, tokens[i / 2], FILL_RANDOM);
            check_product(f, &p, FILL_RANDOM, false);
            check_alone(f, &p);
            fixture_reset(f);
        }
    }
}

/* Aligned floats take a way of their own. */
static void aligned_floats(void **state) {
    struct op_fixture *f = *state;
    static const enum qtype types[] = { QT_f32, QT_f16, QT_bf16 };
    for (size_t i = 0; i < N_ELEMS(types); i++)
        for (int64_t n_tok = 1; n_tok <= 4; n_tok++) {
            struct product p = product(f, types[i], 9, 64 * (int64_t)(7 + i), n_tok, FILL_RANDOM);
            check_product(f, &p, FILL_RANDOM, false);
            fixture_reset(f);
        }
}

/* Many tokens that are no text go to cuBLAS. */
static void float_blas(void **state) {
    struct op_fixture *f = *state;
    static const enum qtype types[] = { QT_f32, QT_f16, QT_bf16 };
    for (size_t i = 0; i < N_ELEMS(types); i++)
        for (int fill = 0; fill < FILL_count; fill++) {
            struct product p = product(f, types[i], 37, 96, 41, (enum fill)fill);
            check_product(f, &p, (enum fill)fill, false);
            fixture_reset(f);
        }
}

static size_t bytes_of(const struct tensor *t) {
    return t->row_bytes * (size_t)t->ne[1];
}

/* Give each of t [n] an image of what it holds, or take the images away. */
static void on_device(const struct tensor *const *t, size_t n) {
    struct err e = { 0 };
    for (size_t i = 0; i < n; i++)
        if (device.ops->mirror(&device, t[i]->data, bytes_of(t[i]), t[i]->name, &e) ||
            device.ops->push(&device, t[i]->data, bytes_of(t[i]), &e))
            fail_msg("%s", e.msg);
}

static void off_device(const struct tensor *const *t, size_t n) {
    for (size_t i = 0; i < n; i++)
        device.ops->unmirror(&device, t[i]->data);
}

/* Copy what an image holds to the host, or the other way round. */
static void pull(const struct tensor *t) {
    struct err e = { 0 };
    if (device.ops->pull(&device, t->data, bytes_of(t), &e)) fail_msg("%s", e.msg);
}

static void push(const struct tensor *t) {
    struct err e = { 0 };
    if (device.ops->push(&device, t->data, bytes_of(t), &e)) fail_msg("%s", e.msg);
}

/* Pull y; the first time its bytes are kept in *kept, which the caller frees, and later ones have
 * to be the same. */
static void pull_same(const struct tensor *y, char **kept, const char *what) {
    pull(y);
    if (*kept) {
        if (memcmp(*kept, y->data, bytes_of(y))) fail_msg("%s: other bits than before", what);
        return;
    }
    *kept = malloc(bytes_of(y));
    assert_non_null(*kept);
    memcpy(*kept, y->data, bytes_of(y));
}

/* Three products of the same rows: the rows are quantised once, and again when they have changed.
 */
static void shared_activations(void **state) {
    struct op_fixture *f = *state;
    struct err e = { 0 };
    struct product p = product(f, QT_q8_0, 16, 64, 3, FILL_RANDOM);
    struct tensor *y = new_tensor(f, QT_f32, 3, 16), *twice = new_tensor(f, QT_f32, 3, 64);
    const struct tensor *mirrored[] = { p.w, p.x, p.dst, y, twice };
    on_device(mirrored, N_ELEMS(mirrored));
    struct node second = p.n, add = { .op = OP_add, .dst = p.x, .src = { twice, twice } };
    second.dst = y;
    for (int64_t t = 0; t < 3; t++)
        memcpy(f32_row(twice, t), f32_row(p.x, t), 64 * sizeof(float));
    push(twice);
    const struct node *nodes[] = { &p.n, &add, &second }; /* x becomes 2 x in between */
    if (device.ops->run(&device, nodes, 3, 1, false, 0, &e)) fail_msg("%s", e.msg);
    pull(p.dst);
    pull(y);
    for (int64_t t = 0; t < 3; t++)
        for (int64_t r = 0; r < 16; r++)
            if (f32_row(y, t)[r] != 2 * f32_row(p.dst, t)[r])
                fail_msg("row %lld: %g is not twice %g", (long long)r, (double)f32_row(y, t)[r],
                         (double)f32_row(p.dst, t)[r]);
    off_device(mirrored, N_ELEMS(mirrored));
    fixture_reset(f);
}

/* Results of nodes[n] one by one, then together: the same bits, in every one of them. */
static void check_together(const struct node *const *nodes, int n, const char *what) {
    struct err e = { 0 };
    char *want[FUSED_MOST] = { NULL };
    for (int alone = 1; alone >= 0; alone--) {
        for (int i = 0; i < n; i++) {
            memset(nodes[i]->dst->data, GUARD, bytes_of(nodes[i]->dst));
            push(nodes[i]->dst);
        }
        for (int i = 0; i < n; i += alone ? 1 : n)
            if (device.ops->run(&device, nodes + i, alone ? 1 : n, 1, false, 0, &e))
                fail_msg("%s: %s", what, e.msg);
        for (int i = 0; i < n; i++)
            pull_same(nodes[i]->dst, &want[i], what);
    }
    for (int i = 0; i < n; i++)
        free(want[i]);
}

/* A gated unit, a product that is added to something, three products of the same rows. */
static void check_fused(struct op_fixture *f, enum qtype t, int64_t n_rows, int64_t n,
                        int64_t n_tok) {
    char what[96];
    struct product a = product(f, t, n_rows, n, n_tok, FILL_RANDOM);
    struct product b = product(f, t, n_rows, n, n_tok, FILL_RANDOM);
    struct product c = product(f, t, 8, n, n_tok, FILL_RANDOM); /* as k and v are smaller than q */
    struct product v = product(f, t, 24, n, n_tok, FILL_RANDOM);
    struct tensor *out = new_tensor(f, QT_f32, n_tok, n_rows), *y = new_normal(f, n_tok, n_rows, 1);
    b.n.src[1] = c.n.src[1] = v.n.src[1] = a.x;
    const struct node unit = { .op = OP_swiglu, .dst = out, .src = { a.dst, b.dst } };
    const struct node sum = { .op = OP_add, .dst = out, .src = { a.dst, y } };
    const struct node *const units[] = { &a.n, &b.n, &unit }, *const sums[] = { &a.n, &sum };
    const struct node *const products[] = { &a.n, &c.n, &v.n };
    const struct tensor *all[] = { a.w, b.w, c.w, v.w, a.x, a.dst, b.dst, c.dst, v.dst, out, y };
    on_device(all, N_ELEMS(all));
    for (int k = 0; k < 3; k++) {
        snprintf(what, sizeof what, "%s, %lld rows, %lld tokens, %s", qtype_info(t)->name,
                 (long long)n_rows, (long long)n_tok,
                 k == 0   ? "unit"
                 : k == 1 ? "sum"
                          : "q k v");
        check_together(k == 0 ? units : k == 1 ? sums : products, k == 1 ? 2 : 3, what);
    }
    off_device(all, N_ELEMS(all));
    fixture_reset(f);
}

/* Of all types, by few and by many warps. */
static void fused_products(void **state) {
    static const int64_t shapes[][2] = { { 16, 768 }, { 80, 3328 }, { 203, 256 }, { 720, 2304 } };
    for (int turn = 0; turn < (int)N_ELEMS(shapes) * QT_count; turn++) {
        const int64_t *shape = shapes[turn % N_ELEMS(shapes)];
        const int t = turn / (int)N_ELEMS(shapes);
        if (has_product(t) && qtype_info((enum qtype)t)->n_blk > 1)
            check_fused(*state, (enum qtype)t, shape[0], shape[1], 1);
    }
}

/* Many tokens: tiles of 64, 128 and 256 of them, rows that are no multiple of anything. */
static void fused_many(void **state) {
    static const enum qtype types[] = { QT_iq2_kt, QT_iq3_kt, QT_iq4_kt };
    static const int64_t tokens[] = { 9, 65, 130, 257 }, rows[] = { 16, 203, 136 };
    for (size_t i = 0; i < N_ELEMS(tokens) * N_ELEMS(types); i++)
        check_fused(*state, types[i % 3], rows[i / 3 % 3], 256 * (int64_t)(1 + i % 2),
                    tokens[i / 3]);
}

/* A recorded run in which products of many tokens want more shared memory than those behind them.
 */
static void recorded_sizes(void **state) {
    struct op_fixture *f = *state;
    struct err e = { 0 };
    for (int64_t n_tok = 33; n_tok <= 128; n_tok += 95) {
        char *want[3] = { NULL };
        struct product p[3];
        const struct tensor *all[9];
        for (int i = 0; i < 3; i++) {
            p[i] = product(f, QT_iq4_kt, i == 1 ? 20000 : 48, 256, n_tok, FILL_RANDOM);
            all[3 * i] = p[i].w;
            all[3 * i + 1] = p[i].x;
            all[3 * i + 2] = p[i].dst;
        }
        on_device(all, N_ELEMS(all));
        const struct node *const nodes[] = { &p[0].n, &p[1].n, &p[2].n };
        for (int round = 0; round < 3; round++) {
            if (device.ops->run(&device, nodes, 3, 1, false, round ? 815 + (uint64_t)n_tok : 0, &e))
                fail_msg("%lld tokens: %s", (long long)n_tok, e.msg);
            for (int i = 0; i < 3; i++)
                pull_same(p[i].dst, &want[i], "a recorded run");
        }
        for (int i = 0; i < 3; i++)
            free(want[i]);
        off_device(all, N_ELEMS(all));
        fixture_reset(f);
    }
}

/* ---- recorded runs, images ------------------------------------------------------------------- */

static void recorded(void **state) {
    struct op_fixture *f = *state;
    struct product p = product(f, QT_iq4_kt, 24, 512, 2, FILL_RANDOM);
    const struct tensor *all[] = { p.w, p.x, p.dst };
    on_device(all, N_ELEMS(all));
    float plain[2][24];
    for (int round = 0; round < 4; round++) { /* recorded, then replayed with other activations */
        f32_row(p.x, 1)[round] = 100;
        push(p.x);
        for (int key = 0; key < 2; key++) {
            run_on(&p.n, key ? 4711 : 0);
            pull(p.dst);
            for (int t = 0; t < 2; t++)
                if (!key)
                    memcpy(plain[t], f32_row(p.dst, t), sizeof plain[t]);
                else
                    assert_memory_equal(plain[t], f32_row(p.dst, t), sizeof plain[t]);
        }
    }
    off_device(all, N_ELEMS(all));
    fixture_reset(f);
}

static void images(void **state) {
    (void)state;
    struct err e = { 0 };
    char a[256], b[256];
    memset(a, 1, sizeof a);
    assert_int_equal(device.ops->push(&device, a, 1, &e), ERR_ARG); /* has none */
    assert_int_equal(device.ops->mirror(&device, a, sizeof a, "a", &e), 0);
    assert_int_equal(device.ops->mirror(&device, a + 100, 10, "part of a", &e), ERR_ARG);
    assert_int_equal(device.ops->mirror(&device, b, sizeof b, "b", &e), 0);
    assert_int_equal(device.ops->push(&device, a, sizeof a, &e), 0);
    assert_int_equal(device.ops->push(&device, a, sizeof a + 1, &e), ERR_ARG); /* too long */
    memset(a, 2, sizeof a);
    assert_int_equal(device.ops->pull(&device, a + 17, 3, &e), 0);
    assert_true(a[16] == 2 && a[17] == 1 && a[19] == 1 && a[20] == 2);
    device.ops->unmirror(&device, a);
    assert_int_equal(device.ops->pull(&device, a, 1, &e), ERR_ARG);
    device.ops->unmirror(&device, b);
}

/* ---- copies beside what runs ------------------------------------------------------------------
 */

enum { N_ORDERS = 12, N_SUMS = 8 * 1024 };

/* x and the results y, each an exchange of its own. */
struct sums {
    struct tensor x, y[2];
    struct node n[2]; /* y = x + x */
};

static struct tensor exchange_new(struct backend *b, const char *name) {
    struct err e = { 0 };
    struct tensor t = { .type = QT_f32, .ne = { N_SUMS, 1, 1, 1 } };
    t.row_bytes = N_SUMS * sizeof(float);
    snprintf(t.name, sizeof t.name, "%s", name);
    t.data = aligned_alloc(EXCHANGE_ALIGN, EXCHANGE_ALIGN);
    assert_non_null(t.data);
    if (b->ops->exchange(b, t.data, EXCHANGE_ALIGN, name, &e)) fail_msg("%s", e.msg);
    return t;
}

static void sums_init(struct sums *s, struct backend *b) {
    s->x = exchange_new(b, "x");
    for (int i = 0; i < 2; i++) {
        s->y[i] = exchange_new(b, i ? "y1" : "y0");
        s->n[i] = (struct node){ .op = OP_add, .dst = &s->y[i], .src = { &s->x, &s->x } };
    }
}

static void sums_release(struct sums *s, struct backend *b) {
    struct tensor *t[] = { &s->x, &s->y[0], &s->y[1] };
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        b->ops->unmirror(b, t[i]->data);
        free(t[i]->data);
    }
}

static void fill_with(struct tensor *t, float x) {
    for (int i = 0; i < N_SUMS; i++)
        ((float *)t->data)[i] = x + (float)(i % 7);
}

static void check_sums(const struct tensor *t, float x, const char *what) {
    for (int i = 0; i < N_SUMS; i++) {
        const float want = 2 * (x + (float)(i % 7)), have = ((const float *)t->data)[i];
        if (have != want)
            fail_msg("%s: element %d is %g, not %g", what, i, (double)have, (double)want);
    }
}

/* What is pushed may be written over at once. */
static void push_x(struct sums *s, struct backend *b, float x) {
    struct err e = { 0 };
    fill_with(&s->x, x);
    if (b->ops->push(b, s->x.data, s->x.row_bytes, &e)) fail_msg("%s", e.msg);
    fill_with(&s->x, -1000);
}

static void start(struct backend *b, const struct node *n, uint64_t key) {
    struct err e = { 0 };
    if (b->ops->run(b, &n, 1, 1, false, key, &e)) fail_msg("%s", e.msg);
}

static void pull_begin(struct backend *b, struct tensor *t) {
    struct err e = { 0 };
    if (b->ops->pull_begin(b, t->data, t->row_bytes, &e)) fail_msg("%s", e.msg);
}

static void pull_end(struct backend *b, struct tensor *t) {
    struct err e = { 0 };
    if (b->ops->pull_end(b, t->data, &e)) fail_msg("%s", e.msg);
}

/* Results of a round travel and are looked at while the next round runs. */
static void rounds(struct sums *s, struct backend *b, bool recorded, const char *what) {
    enum { N_ROUNDS = 6 };
    for (int i = 0; i <= N_ROUNDS; i++) {
        if (i < N_ROUNDS) {
            push_x(s, b, (float)(10 * i));
            start(b, &s->n[i % 2], recorded ? 815 + (uint64_t)(i % 2) : 0);
            pull_begin(b, &s->y[i % 2]);
        }
        if (i == 0) continue;
        pull_end(b, &s->y[(i - 1) % 2]);
        check_sums(&s->y[(i - 1) % 2], (float)(10 * (i - 1)), what);
    }
}

/* The next results are computed where those that travel still are. */
static void one_result(struct sums *s, struct backend *b, const char *what) {
    push_x(s, b, 1);
    start(b, &s->n[0], 0);
    pull_begin(b, &s->y[0]);
    push_x(s, b, 2);
    start(b, &s->n[0], 0);
    pull_end(b, &s->y[0]);
    check_sums(&s->y[0], 1, what);
    pull_begin(b, &s->y[0]);
    pull_end(b, &s->y[0]);
    check_sums(&s->y[0], 2, what);
}

static void there_and_back(struct sums *s, struct backend *b, const char *what) {
    struct err e = { 0 };
    push_x(s, b, 3);
    if (b->ops->pull(b, s->x.data, s->x.row_bytes, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < N_SUMS; i++)
        if (((float *)s->x.data)[i] != 3 + (float)(i % 7)) fail_msg("%s: element %d", what, i);
}

static void all_orders(struct sums *s, struct backend *b) {
    for (int seed = -1; seed < N_ORDERS; seed++) { /* -1: as late as may be */
        char text[32];
        snprintf(text, sizeof text, "%d", seed);
        if (seed >= 0) setenv("GGAUGE_EMU_SEED", text, 1);
        snprintf(text, sizeof text, "order %d", seed);
        for (int recorded = 0; recorded < 2; recorded++)
            rounds(s, b, recorded, text);
        one_result(s, b, text);
        there_and_back(s, b, text);
    }
    unsetenv("GGAUGE_EMU_SEED");
}

static void exchanges(void **state) {
    (void)state;
    struct sums s;
    sums_init(&s, &device);
    all_orders(&s, &device);
    sums_release(&s, &device);
}

/* Where no memory may be page-locked copies are slower, and no different. */
static void exchanges_unlocked(void **state) {
    (void)state;
    struct err e = { 0 };
    struct backend b;
    struct sums s;
    setenv("GGAUGE_EMU_LOCKED", "0", 1);
    if (backend_cuda_init(&b, 0, &e)) fail_msg("%s", e.msg);
    sums_init(&s, &b);
    all_orders(&s, &b);
    sums_release(&s, &b);
    backend_release(&b);
    unsetenv("GGAUGE_EMU_LOCKED");
}

static unsigned char byte_of(size_t i) {
    return (unsigned char)((uint32_t)i * 2654435761u >> 24);
}

/* More than fits into all buffers at once, from memory of either kind. */
static void large_push(void **state) {
    (void)state;
    struct err e = { 0 };
    const size_t n = 289 * EXCHANGE_ALIGN, part = n - 5;
    unsigned char *p = aligned_alloc(EXCHANGE_ALIGN, n);
    assert_non_null(p);
    for (int turn = 0; turn < 4; turn++) {
        if (turn & 1) setenv("GGAUGE_EMU_SEED", "1", 1);
        if (turn < 2 ? device.ops->exchange(&device, p, n, "p", &e)
                     : device.ops->mirror(&device, p, n, "p", &e))
            fail_msg("%s", e.msg);
        for (size_t i = 0; i < n; i++)
            p[i] = byte_of(i);
        if (device.ops->push(&device, p + 3, part, &e)) fail_msg("%s", e.msg);
        memset(p, 0, n);
        if (device.ops->pull(&device, p + 3, part, &e)) fail_msg("%s", e.msg);
        for (size_t i = 0; i < n; i++)
            if (p[i] != (i < 3 || i >= 3 + part ? 0 : byte_of(i)))
                fail_msg("byte %zu, turn %d", i, turn);
        device.ops->unmirror(&device, p);
        unsetenv("GGAUGE_EMU_SEED");
    }
    free(p);
}

/* ---- what waits for what: the emulation says how much was carried out -------------------------
 */

static char trace_path[64];

static void trace_begin(void) {
    snprintf(trace_path, sizeof trace_path, "/tmp/ggauge_trace_XXXXXX");
    const int fd = mkstemp(trace_path);
    assert_true(fd >= 0);
    close(fd);
    setenv("GGAUGE_EMU_TRACE", trace_path, 1);
}

/* Waits for `what` so far; *done and *left of the last one. */
static int trace_count(const char *what, long *done, long *left) {
    char line[128];
    int n = 0;
    FILE *f = fopen(trace_path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char name[16];
        long d, l;
        if (sscanf(line, "%15[a-z]: done %ld, left %ld", name, &d, &l) != 3) fail_msg("%s", line);
        if (strcmp(name, what)) continue;
        n++;
        *done = d;
        *left = l;
    }
    fclose(f);
    return n;
}

static void trace_end(void) {
    unsetenv("GGAUGE_EMU_TRACE");
    remove(trace_path);
}

static bool is_emulated(void) {
    struct err e = { 0 };
    struct cuda_info info;
    assert_int_equal(backend_cuda_info(&device, &info, &e), 0);
    return info.emulated;
}

static void waits(void **state) {
    (void)state;
    struct sums s;
    struct err e = { 0 };
    long done = -1, left = -1;
    if (!is_emulated()) skip();
    sums_init(&s, &device);
    trace_begin();
    push_x(&s, &device, 1);
    start(&device, &s.n[0], 0);
    pull_begin(&device, &s.y[0]);
    push_x(&s, &device, 2); /* behind the first sums, but the host goes on */
    start(&device, &s.n[1], 0);
    assert_int_equal(trace_count("copy", &done, &left), 0);
    assert_int_equal(trace_count("stream", &done, &left), 0);
    if (trace_count("event", &done, &left)) assert_int_equal(done, 0);
    pull_end(&device, &s.y[0]); /* not for the second sums */
    assert_true(trace_count("event", &done, &left) > 0);
    assert_true(done > 0 && left > 0);
    check_sums(&s.y[0], 1, "the first sums");
    assert_int_equal(device.ops->synchronize(&device, &e), 0);
    assert_true(trace_count("stream", &done, &left) > 0);
    assert_int_equal(left, 0);
    trace_end();
    sums_release(&s, &device);
}

/* Memory of two devices stays locked until both have given it up. */
static void locked_for_two(void **state) {
    (void)state;
    struct err e = { 0 };
    struct backend two[2];
    struct tensor t;
    long done, left;
    if (!is_emulated()) skip();
    setenv("GGAUGE_EMU_DEVICES", "2", 1);
    for (int i = 0; i < 2; i++)
        if (backend_cuda_init(&two[i], i, &e)) fail_msg("%s", e.msg);
    t = exchange_new(&two[0], "t");
    assert_int_equal(two[1].ops->exchange(&two[1], t.data, EXCHANGE_ALIGN, "t", &e), 0);
    trace_begin();
    for (int i = 0; i < 2; i++) {
        pull_begin(&two[i], &t);
        pull_end(&two[i], &t);
        assert_int_equal(trace_count("copy", &done, &left), 0); /* to memory that is not locked */
        two[i].ops->unmirror(&two[i], t.data);
    }
    assert_int_equal(device.ops->mirror(&device, t.data, EXCHANGE_ALIGN, "t", &e), 0);
    pull_begin(&device, &t);
    assert_int_equal(trace_count("copy", &done, &left), 1);
    device.ops->unmirror(&device, t.data);
    trace_end();
    free(t.data);
    for (int i = 0; i < 2; i++)
        backend_release(&two[i]);
    unsetenv("GGAUGE_EMU_DEVICES");
}

static void device_time(void **state) {
    struct op_fixture *f = *state;
    struct err e = { 0 };
    double s = -1;
    struct product p = product(f, QT_q8_0, 64, 512, 16, FILL_RANDOM);
    assert_int_equal(backend_cuda_mark(&device, 0, &e), 0);
    run_on(&p.n, 0);
    assert_int_equal(backend_cuda_mark(&device, 1, &e), 0);
    assert_int_equal(backend_cuda_elapsed(&device, &s, &e), 0);
    assert_true(s > 0 && s < 60);
    fixture_reset(f);
}

static void peaks(void **state) {
    (void)state;
    struct err e = { 0 };
    for (int p = 0; p < PEAK_count; p++) {
        double rate = 0;
        assert_int_equal(cuda_peak((enum peak)p, &rate, &e), 0);
        if (!(rate > 0)) fail_msg("peak %s is %g", peak_name((enum peak)p), rate);
    }
}

static void out_of_memory(void **state) {
    (void)state;
    struct err e = { 0 };
    if (!is_emulated()) skip();
    setenv("GGAUGE_EMU_MEMORY", "1048576", 1);
    const int rc = device.ops->mirror(&device, &e, (size_t)3 << 20, "blk.0.ffn_up.weight", &e);
    unsetenv("GGAUGE_EMU_MEMORY");
    assert_int_equal(rc, ERR_NOMEM);
    for (const char *const *s = (const char *const[]){ "blk.0.ffn_up.weight needs 3 MiB",
                                                       "are free", "CUDA0", "lower -ngl", NULL };
         *s; s++)
        if (!strstr(e.msg, *s)) fail_msg("no '%s' in: %s", *s, e.msg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(long_rows),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(fused_products),
        cmocka_unit_test(fused_many),
        cmocka_unit_test(recorded_sizes),
        cmocka_unit_test(aligned_floats),
        cmocka_unit_test(float_blas),
        cmocka_unit_test(shared_activations),
        cmocka_unit_test(recorded),
        cmocka_unit_test(images),
        cmocka_unit_test(exchanges),
        cmocka_unit_test(exchanges_unlocked),
        cmocka_unit_test(large_push),
        cmocka_unit_test(waits),
        cmocka_unit_test(locked_for_two),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(device_time),
        cmocka_unit_test(peaks),
    };
    return cmocka_run_group_tests_name("cuda", tests, setup, teardown);
}
