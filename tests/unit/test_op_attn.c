/* SPDX-License-Identifier: MIT
 * test_op_attn.c - attention in every column against a direct evaluation in double: several
 * sequences in a batch, grouped heads, odd sizes, all cache types, order of tokens, and what NaN
 * and infinities may and may not reach; and against itself: the bits of a token do not depend on
 * the batch that it came in. */
#include "op_fixture.h"

#define LIMIT_REF 1e-7       /* rounding of the result to f32 */
#define LIMIT 1e-6           /* f32 arithmetic over a few hundred cells */
#define LIMIT_CUDA_Q8_0 1e-3 /* half a unit of 11 bits, of keys and values */
#define LIMIT_AMX                                                                                  \
    3e-5 /* products of 16 bits (attn_tile_amx.h); 1.7e-5 is the largest error seen here */
#define SEQ_MAX 3

struct shape {
    int n_head, n_head_kv, hd_k, hd_v;
};

/* One batch: tokens of up to SEQ_MAX sequences, each at the end of its own cells. */
struct batch {
    struct shape s;
    enum qtype type_k, type_v;
    int n_tok, n_cells;
    int n_seq, first[SEQ_MAX], len[SEQ_MAX]; /* cells of each sequence */
    int32_t *tok_first, *tok_pos;            /* [n_tok] */
    struct tensor *q, *k, *v, *dst;
    struct node node;
};

static void shuffle(struct rng *r, struct batch *b) {
    for (int i = b->n_tok - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint32_t)i + 1);
        int32_t first = b->tok_first[i], pos = b->tok_pos[i];
        b->tok_first[i] = b->tok_first[j], b->tok_pos[i] = b->tok_pos[j];
        b->tok_first[j] = first, b->tok_pos[j] = pos;
    }
}

/* Cells outside of all sequences hold NaN: nobody may see them. */
static struct tensor *new_cache(struct op_fixture *f, const struct batch *b, enum qtype type,
                                int64_t n) {
    struct tensor *t = new_tensor(f, type, b->n_cells, n);
    const struct qkernel *k = qkernel_find(COL_ref, type, false, NULL);
    float *row = malloc((size_t)n * sizeof *row);
    assert_non_null(row);
    for (int c = 0; c < b->n_cells; c++) {
        bool used = false;
        for (int s = 0; s < b->n_seq; s++)
            used |= c >= b->first[s] && c < b->first[s] + b->len[s];
        for (int64_t i = 0; i < n; i++)
            row[i] = (float)rng_normal(&f->rng);
        k->quantize_row(row, tensor_row(t, c), n, NULL);
        if (used) continue;
        if (type == QT_f32) memset(tensor_row(t, c), 0xff, (size_t)n * sizeof(float));
        if (type == QT_f16) memset(tensor_row(t, c), 0xff, (size_t)n * sizeof(f16_t));
        for (int64_t i = 0; type == QT_q8_0 && i < n / QK_LEGACY; i++)
            ((struct blk_q8_0 *)tensor_row(t, c))[i].d = 0xffff;
    }
    free(row);
    return t;
}

/* depth = cells of the first sequence before its first token of the batch. */
static void batch_init(struct op_fixture *f, struct batch *b, struct shape s, enum qtype type_k,
                       enum qtype type_v, int n_tok, int depth, bool shuffled) {
    fixture_reset(f);
    *b = (struct batch){ .s = s, .type_k = type_k, .type_v = type_v, .n_tok = n_tok };
    b->tok_first = malloc((size_t)n_tok * sizeof(int32_t));
    b->tok_pos = malloc((size_t)n_tok * sizeof(int32_t));
    assert_true(b->tok_first && b->tok_pos);
    b->n_seq = n_tok < SEQ_MAX ? n_tok : SEQ_MAX;
    int t = 0, cell = 2;
    for (int i = 0; i < b->n_seq; i++) {
        int n = i < b->n_seq - 1 ? n_tok / b->n_seq : n_tok - t;
        int before = i == 0 ? depth : (int)rng_below(&f->rng, (uint32_t)depth / 2 + 2);
        b->first[i] = cell;
        b->len[i] = before + n;
        for (int j = 0; j < n; j++, t++) {
            b->tok_first[t] = cell;
            b->tok_pos[t] = before + j;
        }
        cell += b->len[i] + (int)rng_below(&f->rng, 5);
    }
    b->n_cells = cell + 3;
    if (shuffled) shuffle(&f->rng, b);
    b->q = new_normal(f, n_tok, s.n_head * s.hd_k, 1.5);
    b->k = new_cache(f, b, type_k, s.n_head_kv * s.hd_k);
    b->v = new_cache(f, b, type_v, s.n_head_kv * s.hd_v);
    b->dst = new_tensor(f, QT_f32, n_tok, s.n_head * s.hd_v);
    b->node = (struct node){
        .op = OP_attn,
        .dst = b->dst,
        .src = { b->q, b->k, b->v, new_ids(f, n_tok, b->tok_first), new_ids(f, n_tok, b->tok_pos) },
        .p.attn = { s.n_head, s.n_head_kv, s.hd_k, s.hd_v, (float)(1 / sqrt(s.hd_k)), 0 },
    };
}

static void batch_release(struct batch *b) {
    free(b->tok_first);
    free(b->tok_pos);
}

/* One element of a cache row, decoded here and not by the project. */
static double cache_at(const struct tensor *t, int64_t cell, int64_t i) {
    const void *row = tensor_row(t, cell);
    if (t->type == QT_f32) return (double)((const float *)row)[i];
    if (t->type == QT_f16) return (double)f16_to_f32(((const f16_t *)row)[i]);
    const struct blk_q8_0 *x = (const struct blk_q8_0 *)row + i / QK_LEGACY;
    return (double)f16_to_f32(x->d) * x->qs[i % QK_LEGACY];
}

/* y [hd_v] of one token and head. p: [cells seen] */
static void attend(const struct batch *b, int t, int h, double *p, double *y) {
    int g = h / (b->s.n_head / b->s.n_head_kv), n = b->tok_pos[t] + 1;
    double max = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++) {
        double s = 0;
        for (int i = 0; i < b->s.hd_k; i++)
            s += (double)f32_row(b->q, t)[h * b->s.hd_k + i] *
                 cache_at(b->k, b->tok_first[t] + j, g * b->s.hd_k + i);
        p[j] = s * (double)b->node.p.attn.scale;
        if (p[j] > max) max = p[j];
    }
    for (int j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - max);
    for (int i = 0; i < b->s.hd_v; i++) {
        y[i] = 0;
        for (int j = 0; j < n; j++)
            y[i] += p[j] / sum * cache_at(b->v, b->tok_first[t] + j, g * b->s.hd_v + i);
    }
}

static void check_batch(struct op_fixture *f, struct batch *b) {
    char what[160];
    snprintf(what, sizeof what, "attn %d/%d heads of %d and %d, %s and %s, %d tokens, %d cells",
             b->s.n_head, b->s.n_head_kv, b->s.hd_k, b->s.hd_v, qtype_info(b->type_k)->name,
             qtype_info(b->type_v)->name, b->n_tok, b->n_cells);
    f->what = what;
    int width = b->s.n_head * b->s.hd_v;
    double *want = malloc((size_t)(b->n_tok * width) * sizeof *want);
    double *p = malloc((size_t)b->n_cells * sizeof *p);
    assert_true(want && p);
    for (int t = 0; t < b->n_tok; t++)
        for (int h = 0; h < b->s.n_head; h++)
            attend(b, t, h, p, want + t * width + h * b->s.hd_v);
    /* tiles of tensor cores hold a q8_0 cache as binary16 */
    f->limit[COL_cuda] = b->type_k == QT_q8_0 || b->type_v == QT_q8_0 ? LIMIT_CUDA_Q8_0 : 0;
    check_node(f, &b->node, want, LIMIT_REF, LIMIT);
    free(want);
    free(p);
}

static const enum qtype cache_types[] = { QT_f16, QT_f32, QT_q8_0 };

/* The turn-th pair of types; heads that are no whole blocks are stored as f16 where q8_0 is due. */
static void cache_pair(int turn, struct shape s, enum qtype *k, enum qtype *v) {
    *k = cache_types[turn % 3];
    *v = cache_types[(turn + turn / 3) % 3];
    if (*k == QT_q8_0 && s.hd_k % QK_LEGACY != 0) *k = QT_f16;
    if (*v == QT_q8_0 && s.hd_v % QK_LEGACY != 0) *v = QT_f16;
}

/* Every pair of shape and number of tokens; types, depths and order change along. */
static void test_shapes(void **state) {
    struct op_fixture *f = *state;
    static const struct shape shapes[] = {
        { 4, 2, 64, 64 },   { 8, 1, 128, 128 }, { 4, 4, 32, 32 }, { 3, 1, 96, 96 },
        { 2, 1, 192, 128 }, { 2, 2, 256, 256 }, { 4, 1, 80, 80 }, { 6, 2, 20, 12 },
        { 33, 1, 32, 64 },  { 130, 1, 8, 8 },   { 5, 1, 64, 64 }, { 6, 1, 128, 80 },
        { 7, 1, 32, 96 },   { 300, 1, 16, 16 },
    };
    static const int n_toks[] = { 1, 2, 3, 7, 17, 33 };
    static const int depths[] = { 0, 1, 61, 127, 66 };
    int turn = 0;
    for (size_t s = 0; s < N_ELEMS(shapes); s++)
        for (size_t i = 0; i < N_ELEMS(n_toks); i++, turn++) {
            enum qtype k, v;
            struct batch b;
            cache_pair(turn, shapes[s], &k, &v);
            batch_init(f, &b, shapes[s], k, v, n_toks[i], depths[(size_t)turn % N_ELEMS(depths)],
                       turn % 4 == 3);
            check_batch(f, &b);
            batch_release(&b);
        }
}

/* A prompt of several tiles, whose last tokens see several ranges. */
static void test_prompt(void **state) {
    struct op_fixture *f = *state;
    static const struct shape shapes[] = { { 2, 1, 64, 64 }, { 3, 3, 32, 80 } };
    for (int i = 0; i < 4; i++) {
        enum qtype k, v;
        struct batch b;
        cache_pair(i + 2, shapes[i % 2], &k, &v);
        batch_init(f, &b, shapes[i % 2], k, v, 511, i < 2 ? 0 : 300, i == 3);
        check_batch(f, &b);
        batch_release(&b);
    }
}

static void fill(struct tensor *t, double sigma, struct rng *r) {
    for (int64_t c = 0; c < tensor_rows(t); c++)
        for (int64_t i = 0; i < t->ne[0]; i++) {
            float x = (float)(sigma * rng_normal(r));
            if (t->type == QT_f32)
                f32_row(t, c)[i] = x;
            else
                ((f16_t *)tensor_row(t, c))[i] = f32_to_f16(x);
        }
}

/* Zeros; numbers of f16 that are subnormal or near its largest; far beyond f16 in f32. */
static void test_magnitudes(void **state) {
    struct op_fixture *f = *state;
    static const struct {
        enum qtype type;
        double q, k, v;
    } cases[] = {
        { QT_f16, 1, 0, 0 },           { QT_f16, 1e5, 3e-6, 3e-7 },    { QT_f16, 1e-4, 1e4, 1e4 },
        { QT_f32, 1e-15, 1e15, 1e30 }, { QT_f32, 1e20, 1e-20, 1e-30 }, { QT_f32, 0, 1e30, 1 },
        { QT_f16, 5, 1, 1 },
    };
    for (size_t i = 0; i < N_ELEMS(cases); i++)
        for (int n_tok = 1; n_tok <= 37; n_tok += 12) {
            struct batch b;
            batch_init(f, &b, (struct shape){ 4, 2, 64, 96 }, cases[i].type, cases[i].type, n_tok,
                       290, false);
            fill(b.q, cases[i].q, &f->rng);
            fill(b.k, cases[i].k, &f->rng);
            fill(b.v, cases[i].v, &f->rng);
            check_batch(f, &b);
            batch_release(&b);
        }
}

/* Tiles take a V below the normal numbers of f32 for zero; the other columns do not. */
static void test_subnormal(void **state) {
    struct op_fixture *f = *state;
    for (int c = COL_ref; c < COL_count; c++) {
        if (!column_available((enum column)c) || !op_has_cell((enum column)c, OP_attn)) continue;
        struct batch b;
        batch_init(f, &b, (struct shape){ 2, 1, 32, 32 }, QT_f32, QT_f32, 5, 40, false);
        for (int64_t i = 0; i < tensor_rows(b.v); i++)
            for (int64_t d = 0; d < 32; d++)
                f32_row(b.v, i)[d] = 0x1p-130f;
        run_node(f, (enum column)c, &b.node, 1);
        for (int t = 0; t < b.n_tok; t++)
            for (int i = 0; i < 64; i++) {
                float x = f32_row(b.dst, t)[i];
                if (c == COL_amx ? x != 0 : fabsf(x - 0x1p-130f) > 0x1p-140f)
                    fail_msg("attn, %s: a mean of 2^-130 is %g", column_name((enum column)c),
                             (double)x);
            }
        batch_release(&b);
    }
}

/* Depths around the sizes at which the cells of few tokens are cut. */
static void test_depths(void **state) {
    struct op_fixture *f = *state;
    static const int depths[] = { 255, 256, 257, 511, 512, 700, 1100 };
    for (size_t i = 0; i < N_ELEMS(depths); i++)
        for (int n_tok = 1; n_tok <= 9; n_tok += 4) {
            struct batch b;
            enum qtype k, v;
            cache_pair((int)i + n_tok, (struct shape){ 4, 2, 32, 32 }, &k, &v);
            batch_init(f, &b, (struct shape){ 4, 2, 32, 32 }, k, v, n_tok, depths[i], n_tok == 5);
            check_batch(f, &b);
            batch_release(&b);
        }
}

/* One token at a depth at which few threads share ranges of cells and many share heads. */
static void test_deep_token(void **state) {
    struct op_fixture *f = *state;
    static const struct shape shapes[] = {
        { 6, 2, 64, 64 }, { 8, 2, 72, 128 }, { 10, 2, 128, 64 }, { 14, 2, 32, 64 },
        { 3, 3, 64, 64 }, { 4, 2, 64, 80 },  { 3, 1, 192, 160 },
    };
    static const int depths[] = { 1023, 2070, 4111 };
    for (size_t s = 0; s < N_ELEMS(shapes); s++)
        for (size_t i = 0; i < N_ELEMS(depths); i++) {
            struct batch b;
            enum qtype k, v;
            cache_pair((int)s + depths[i], shapes[s], &k, &v);
            batch_init(f, &b, shapes[s], k, v, 1, depths[i], false);
            check_batch(f, &b);
            batch_release(&b);
        }
}

/* A bad number in one cell of K or V reaches the tokens that see the cell and the heads that read
 * it, nobody else; `want` of the direct evaluation says which. */
static void test_nonfinite(void **state) {
    struct op_fixture *f = *state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static const int n_toks[] = { 5, 40, 200 };
    for (size_t i = 0; i < N_ELEMS(bad); i++)
        for (size_t n = 0; n < N_ELEMS(n_toks); n++)
            for (int side = 0; side < 2; side++) {
                const int n_tok = n_toks[n];
                struct batch b;
                enum qtype type = i == 0 ? QT_f32 : QT_f16;
                batch_init(f, &b, (struct shape){ 4, 2, 32, 32 }, type, type, n_tok, 70, false);
                int cell = b.first[0] + 71; /* between the tokens of the first sequence */
                struct tensor *t = side ? b.v : b.k;
                if (type == QT_f32)
                    ((float *)tensor_row(t, cell))[5] = bad[i];
                else
                    ((f16_t *)tensor_row(t, cell))[5] = f32_to_f16(bad[i]);
                check_batch(f, &b);
                batch_release(&b);
            }
}

/* A NaN of q is one of the result, whatever its bits are. */
static void test_nan_of_q(void **state) {
    struct op_fixture *f = *state;
    static const uint32_t bits[] = { 0x7fc00000, 0x7fffe000, 0xffffe000, 0xffffffff, 0x7f800001 };
    for (size_t i = 0; i < N_ELEMS(bits); i++)
        for (int n_tok = 1; n_tok <= 40; n_tok += 39) {
            struct batch b;
            batch_init(f, &b, (struct shape){ 4, 2, 64, 64 }, QT_f16, QT_f16, n_tok, 70, false);
            memcpy(&f32_row(b.q, n_tok / 2)[3], &bits[i], sizeof bits[i]);
            check_batch(f, &b);
            batch_release(&b);
        }
}

/* A first cell tile whose scores are all -inf leaves a maximum of -inf, which must not turn the
 * finite rest into NaN. */
static void test_minus_infinity(void **state) {
    struct op_fixture *f = *state;
    for (int n_tok = 1; n_tok <= 33; n_tok += 16) {
        struct batch b;
        batch_init(f, &b, (struct shape){ 2, 1, 32, 32 }, QT_f32, QT_f32, n_tok, 800, false);
        for (int t = 0; t < n_tok; t++)
            for (int h = 0; h < 2; h++)
                f32_row(b.q, t)[h * 32] = 1;
        for (int c = 0; c < 600 && c < b.len[0]; c++)
            ((float *)tensor_row(b.k, b.first[0] + c))[0] = -INFINITY;
        check_batch(f, &b);
        batch_release(&b);
    }
}

/* Equal keys give the mean of V, one overwhelming key gives its V. */
static void test_closed_forms(void **state) {
    struct op_fixture *f = *state;
    const int depth = 300, n = depth + 1;
    for (int big = 0; big < 2; big++) {
        struct batch b;
        batch_init(f, &b, (struct shape){ 2, 1, 32, 32 }, QT_f32, QT_f32, 1, depth, false);
        for (int c = 0; c < n; c++)
            for (int i = 0; i < 32; i++) {
                ((float *)tensor_row(b.k, b.first[0] + c))[i] = big && c == 97 ? 1000.0f : 1.0f;
                ((float *)tensor_row(b.v, b.first[0] + c))[i] = (float)(c + i);
            }
        double want[64];
        for (int i = 0; i < 64; i++) {
            f32_row(b.q, 0)[i] = 1;
            want[i] = (big ? 97.0 : depth / 2.0) + i % 32;
        }
        f->what = "attn closed forms";
        check_node(f, &b.node, want, LIMIT_REF, LIMIT);
        batch_release(&b);
    }
}

/* Rows t .. t + n - 1 of a tensor with one row per token. */
static struct tensor rows_of(const struct tensor *t, int64_t first, int64_t n) {
    struct tensor part = *t;
    part.data = tensor_row(t, first);
    part.ne[1] = n;
    return part;
}

/* Elements t .. t + n - 1 of ids. */
static struct tensor ids_of(const struct tensor *t, int64_t first, int64_t n) {
    struct tensor part = *t;
    part.data = (int32_t *)t->data + first;
    part.ne[0] = n;
    part.row_bytes = (size_t)n * sizeof(int32_t);
    return part;
}

/* The whole batch in calls of n_call tokens. */
static void run_in_calls(struct op_fixture *f, enum column c, const struct batch *b, int n_call,
                         int n_threads) {
    for (int t = 0; t < b->n_tok; t += n_call) {
        int n = b->n_tok - t < n_call ? b->n_tok - t : n_call;
        struct tensor q = rows_of(b->q, t, n), dst = rows_of(b->dst, t, n);
        struct tensor first = ids_of(b->node.src[3], t, n), pos = ids_of(b->node.src[4], t, n);
        struct node part = b->node;
        part.dst = &dst;
        part.src[0] = &q, part.src[3] = &first, part.src[4] = &pos;
        run_node(f, c, &part, n_threads);
    }
}

static void check_calls(struct op_fixture *f, enum column c, struct batch *b) {
    static const int n_calls[] = { 1, 2, 7, 33 };
    size_t bytes = (size_t)b->n_tok * b->dst->row_bytes;
    char *whole = malloc(bytes);
    assert_non_null(whole);
    b->node.p.attn.n_tok_as = TOKENS_MANY; /* a text: no bit depends on how it is cut */
    run_node(f, c, &b->node, 1);
    memcpy(whole, b->dst->data, bytes);
    /* an emulated device takes its time */
    for (size_t i = c == COL_cuda ? 3 : 0; i < N_ELEMS(n_calls); i++) {
        for (int t = 0; t < b->n_tok; t++)
            memset(tensor_row(b->dst, t), GUARD, payload_bytes(b->dst));
        run_in_calls(f, c, b, n_calls[i], 1 + (int)i % 2);
        check_guards(f, b->dst);
        for (int t = 0; t < b->n_tok; t++) {
            const float *want = (const float *)(whole + (size_t)t * b->dst->row_bytes);
            const float *got = f32_row(b->dst, t);
            for (int j = 0; j < b->dst->ne[0]; j++)
                if (memcmp(want + j, got + j, sizeof *got) != 0)
                    fail_msg("attn %d/%d heads of %d and %d, %s and %s, %s: token %d, element %d: "
                             "%.9g in calls of %d tokens, %.9g in one of %d",
                             b->s.n_head, b->s.n_head_kv, b->s.hd_k, b->s.hd_v,
                             qtype_info(b->type_k)->name, qtype_info(b->type_v)->name,
                             column_name(c), t, j, (double)got[j], n_calls[i], (double)want[j],
                             b->n_tok);
        }
    }
    free(whole);
}

/* The same tokens over the same cache in calls of other sizes: the same bits. Sequences lie one
 * behind the other or interleaved, and begin near and beyond the sizes at which cells are cut. */
static void test_any_batch(void **state) {
    struct op_fixture *f = *state;
    static const struct shape shapes[] = {
        { 2, 2, 64, 64 }, { 4, 2, 128, 128 }, { 3, 1, 96, 96 }, { 2, 1, 192, 128 },
        { 4, 1, 80, 80 }, { 6, 2, 20, 12 },   { 5, 1, 32, 64 }, { 33, 1, 16, 32 },
    };
    static const int depths[] = { 235, 0, 520 };
    int turn = 0;
    for (size_t s = 0; s < N_ELEMS(shapes); s++)
        for (int i = 0; i < 3; i++, turn++)
            for (int c = COL_ref; c < COL_count; c++) {
                if (!column_available((enum column)c) || !op_has_cell((enum column)c, OP_attn))
                    continue;
                if (c == COL_cuda && (size_t)i != s % 3) continue; /* emulated, it is slow */
                enum qtype k, v;
                struct batch b;
                cache_pair(turn, shapes[s], &k, &v);
                batch_init(f, &b, shapes[s], k, v, 105, depths[turn % 3], turn % 2 == 1);
                if (i == 2) /* one bad cell, which some of the tokens see */
                    memset(tensor_row(turn % 2 ? b.v : b.k, b.first[1] + b.len[1] - 20), 0xff, 8);
                check_calls(f, (enum column)c, &b);
                batch_release(&b);
            }
}

static int setup(void **state) {
    int rc = fixture_setup(state);
    ((struct op_fixture *)*state)->limit[COL_amx] = LIMIT_AMX;
    return rc;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_magnitudes), cmocka_unit_test(test_subnormal),
        cmocka_unit_test(test_depths),     cmocka_unit_test(test_deep_token),
        cmocka_unit_test(test_nonfinite),  cmocka_unit_test(test_minus_infinity),
        cmocka_unit_test(test_nan_of_q),   cmocka_unit_test(test_closed_forms),
        cmocka_unit_test(test_any_batch),
    };
    return cmocka_run_group_tests(tests, setup, fixture_teardown);
}
