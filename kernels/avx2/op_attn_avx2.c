/* SPDX-License-Identifier: MIT
 * op_attn_avx2.c - causal attention over the cache; contract in op.h.
 *
 * A unit of work is a tile of tokens of one sequence and one kv head. It walks the cells in tiles:
 * K and V become f32 once for all query rows (a row = a token and a head of the group), scores and
 * weighted sums are register-tiled products, and the softmax is kept online by a running maximum
 * and sum, so nothing of size n_tok x n_kv exists. Source: Milakov and Gimelshein 2018, "Online
 * normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention".
 *
 * A batch of few tokens at depth has fewer units than a machine has threads. Its cells are cut into
 * ranges too, whose partial maximum, sum and accumulator are combined in order afterwards. Every
 * cut depends on shapes and positions alone, so the result does not depend on the threads.
 *
 * A score beyond a token's position never meets that token's row: its weights stop at the number of
 * cells that it sees, so what lies in the cells behind may be anything, NaN included. */
#include <math.h>
#include <string.h>

#include "exp_avx2.h"
#include "legacy.h"
#include "op.h"
#include "simd_avx2.h"

#define TILE_TOKENS 32  /* tokens per unit at most */
#define TILE_ROWS 128   /* query rows per unit, so that their accumulators fit in the L2 cache */
#define TILE_CELLS 64   /* cells converted at once */
#define PANEL 16        /* columns of a panel of K or V: two registers */
#define BLOCK 6         /* rows of a register tile: 12 accumulators, 2 loads, 1 broadcast */
#define FEW_ROWS 16     /* up to here K is not worth transposing */
#define SPLIT_TOKENS 8  /* up to here the cells are cut into ranges */
#define RANGE_CELLS 256 /* cells per range, a multiple of TILE_CELLS */
/* Cells fetched ahead: a head's part of a row is too short for the hardware to see the pattern. */
#define AHEAD 4

/* One side of the cache, K or V. */
struct side {
    const struct tensor *t;
    size_t head_bytes;
    int64_t hd;  /* elements per head */
    int64_t pad; /* hd rounded up to whole registers (K) or panels (V) */
};

struct attn {
    const struct node *node;
    const int32_t *first, *pos;
    int64_t n_tok, n_head_kv, group; /* group = heads per kv head */
    struct side k, v;
    int64_t tile_tok; /* tokens per unit at most */
};

struct unit {
    int64_t t0, n_rows; /* row r is token t0 + r / group, head g * group + r % group */
    int64_t g;          /* kv head */
    int64_t first;      /* cell of position 0 */
    int64_t begin, end; /* positions of this unit */
    int64_t block;      /* rows per register tile, even shares of n_rows if these are few */
    bool transposed;    /* K as panels, for many rows */
};

/* Scratch of one thread. */
struct bufs {
    float *q;    /* transposed: [n_rows / BLOCK, k.hd, BLOCK], else [n_rows, k.pad] */
    float *k;    /* transposed: [TILE_CELLS / PANEL, k.pad, PANEL], else [TILE_CELLS, k.pad] */
    float *v;    /* [v.pad / PANEL, TILE_CELLS, PANEL] */
    float *s;    /* scores, then weights [n_rows, TILE_CELLS] */
    float *acc;  /* [n_rows, v.pad] */
    float *line; /* [8, max(k.pad, v.pad)], rows on their way to panels */
    float *max, *sum, *scale; /* [n_rows]; scale = what a new maximum makes of older sums */
    int32_t *n;               /* [n_rows], cells of the tile that the row sees */
};

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

static struct side side_of(const struct tensor *t, int64_t hd, int64_t unit) {
    size_t bytes = qtype_row_bytes((enum qtype)t->type, hd);
    return (struct side){ .t = t, .head_bytes = bytes, .hd = hd, .pad = round_up(hd, unit) };
}

static struct attn attn_of(const struct node *n) {
    struct attn a = { .node = n, .first = n->src[3]->data, .pos = n->src[4]->data };
    a.n_tok = n->src[0]->ne[1];
    a.n_head_kv = n->p.attn.n_head_kv;
    a.group = n->p.attn.n_head / n->p.attn.n_head_kv;
    a.k = side_of(n->src[1], n->p.attn.n_embd_head_k, 8);
    a.v = side_of(n->src[2], n->p.attn.n_embd_head_v, PANEL);
    a.tile_tok = max64(1, min64(TILE_TOKENS, TILE_ROWS / a.group));
    return a;
}

/* Sets b (if there is memory) and returns the bytes it takes. */
static size_t carve(const struct attn *a, void *memory, struct bufs *b) {
    size_t rows = (size_t)round_up(a->tile_tok * a->group, BLOCK), used = 0;
    struct {
        float **p;
        size_t n;
    } parts[] = {
        { &b->q, rows * (size_t)a->k.pad },
        { &b->k, TILE_CELLS * (size_t)a->k.pad },
        { &b->v, TILE_CELLS * (size_t)a->v.pad },
        { &b->s, rows * TILE_CELLS },
        { &b->acc, rows * (size_t)a->v.pad },
        { &b->line, 8 * (size_t)max64(a->k.pad, a->v.pad) },
        { &b->max, rows },
        { &b->sum, rows },
        { &b->scale, rows },
    };
    for (size_t i = 0; i < N_ELEMS(parts); i++) {
        if (memory) *parts[i].p = (float *)memory + used;
        used += (parts[i].n + 15) / 16 * 16; /* whole cache lines */
    }
    if (memory) b->n = (int32_t *)memory + used;
    return (used + rows) * sizeof(float);
}

static size_t scratch_bytes(const struct node *n) {
    struct attn a = attn_of(n);
    struct bufs b;
    return carve(&a, NULL, &b);
}

/* Head g of a cell as f32 with zeros behind: y [pad]. */
static void load_cell(const struct side *side, int64_t cell, int64_t g, float *y) {
    const char *row = (const char *)tensor_row(side->t, cell) + (size_t)g * side->head_bytes;
    if (cell + AHEAD < side->t->ne[1])
        for (size_t i = 0; i < side->head_bytes; i += 64)
            _mm_prefetch(row + AHEAD * side->t->row_bytes + i, _MM_HINT_T0);
    int64_t n = side->hd, i = 0;
    if (side->t->type == QT_f32) {
        memcpy(y, row, side->head_bytes);
        i = n;
    } else if (side->t->type == QT_f16) {
        const f16_t *x = (const f16_t *)row;
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(y + i, load8_f16(x + i));
        for (; i < n; i++)
            y[i] = load_f16(x + i);
    } else { /* q8_0: qtype_row_bytes wants whole blocks of a head */
        const struct blk_q8_0 *x = (const struct blk_q8_0 *)row;
        for (; i < n; i += QK_LEGACY, x++) {
            const __m256 d = _mm256_set1_ps(load_f16(&x->d));
            for (int j = 0; j < QK_LEGACY; j += 8) {
                __m128i q = _mm_loadl_epi64((const __m128i *)(x->qs + j));
                __m256 f = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
                _mm256_storeu_ps(y + i + j, _mm256_mul_ps(d, f));
            }
        }
    }
    for (; i < side->pad; i++)
        y[i] = 0;
}

static void load_q(const struct attn *a, const struct unit *u, const struct bufs *b) {
    const struct tensor *q = a->node->src[0];
    int64_t rows = u->transposed ? round_up(u->n_rows, BLOCK) : u->n_rows;
    memset(b->q, 0, (size_t)(rows * a->k.pad) * sizeof *b->q);
    for (int64_t r = 0; r < u->n_rows; r++) {
        int64_t head = u->g * a->group + r % a->group;
        const float *x = (const float *)tensor_row(q, u->t0 + r / a->group) + head * a->k.hd;
        if (!u->transposed) {
            memcpy(b->q + r * a->k.pad, x, (size_t)a->k.hd * sizeof *x);
            continue;
        }
        float *y = b->q + r / BLOCK * BLOCK * a->k.hd + r % BLOCK;
        for (int64_t i = 0; i < a->k.hd; i++)
            y[i * BLOCK] = x[i];
    }
}

/* Cells c0 .. c0 + n - 1 as rows, the rest of the last group of four zeros. */
static void load_k_rows(const struct attn *a, const struct unit *u, int64_t c0, int64_t n,
                        const struct bufs *b) {
    for (int64_t c = 0; c < n; c++)
        load_cell(&a->k, u->first + c0 + c, u->g, b->k + c * a->k.pad);
    int64_t n_zero = round_up(n, 4) - n;
    memset(b->k + n * a->k.pad, 0, (size_t)(n_zero * a->k.pad) * sizeof *b->k);
}

/* The same as panels of PANEL cells; the rest of the last panel is zeros. */
static void load_k_panels(const struct attn *a, const struct unit *u, int64_t c0, int64_t n,
                          const struct bufs *b) {
    for (int64_t c = 0; c < round_up(n, PANEL); c += 8) {
        for (int64_t i = 0; i < 8; i++) {
            float *line = b->line + i * a->k.pad;
            if (c + i < n)
                load_cell(&a->k, u->first + c0 + c + i, u->g, line);
            else
                memset(line, 0, (size_t)a->k.pad * sizeof *line);
        }
        float *panel = b->k + c / PANEL * PANEL * a->k.pad + c % PANEL;
        for (int64_t d = 0; d < a->k.pad; d += 8) {
            __m256i x[8];
            UNROLL for (int i = 0; i < 8; i++) x[i] = load256(b->line + i * a->k.pad + d);
            transpose8x8(x);
            UNROLL for (int i = 0; i < 8; i++)
                _mm256_store_si256((__m256i *)(panel + (d + i) * PANEL), x[i]);
        }
    }
}

static void load_v(const struct attn *a, const struct unit *u, int64_t c0, int64_t n,
                   const struct bufs *b) {
    for (int64_t c = 0; c < n; c++) {
        load_cell(&a->v, u->first + c0 + c, u->g, b->line);
        for (int64_t i = 0; i < a->v.pad; i += PANEL) {
            float *y = b->v + i * TILE_CELLS + c * PANEL;
            _mm256_store_ps(y, _mm256_load_ps(b->line + i));
            _mm256_store_ps(y + 8, _mm256_load_ps(b->line + i + 8));
        }
    }
}

/* s [BLOCK, PANEL], row stride TILE_CELLS = scale * transpose(q [hd, BLOCK]) * k [hd, PANEL] */
static void score_block(const float *RESTRICT q, const float *RESTRICT k, int64_t hd, float scale,
                        float *RESTRICT s) {
    __m256 acc[BLOCK][2];
    UNROLL for (int r = 0; r < BLOCK; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (int64_t i = 0; i < hd; i++, q += BLOCK, k += PANEL) {
        __m256 k0 = _mm256_load_ps(k), k1 = _mm256_load_ps(k + 8);
        UNROLL for (int r = 0; r < BLOCK; r++) {
            __m256 x = _mm256_broadcast_ss(q + r);
            acc[r][0] = _mm256_fmadd_ps(x, k0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(x, k1, acc[r][1]);
        }
    }
    const __m256 m = _mm256_set1_ps(scale);
    UNROLL for (int r = 0; r < BLOCK; r++) {
        _mm256_store_ps(s + r * TILE_CELLS, _mm256_mul_ps(acc[r][0], m));
        _mm256_store_ps(s + r * TILE_CELLS + 8, _mm256_mul_ps(acc[r][1], m));
    }
}

static void scores_panels(const struct attn *a, const struct unit *u, int64_t n,
                          const struct bufs *b) {
    float scale = a->node->p.attn.scale;
    for (int64_t c = 0; c < n; c += PANEL)
        for (int64_t r = 0; r < u->n_rows; r += BLOCK) {
            int32_t seen = 0;
            for (int64_t i = r; i < r + BLOCK && i < u->n_rows; i++)
                seen = b->n[i] > seen ? b->n[i] : seen;
            if (c < seen)
                score_block(b->q + r * a->k.hd, b->k + c * a->k.pad, a->k.hd, scale,
                            b->s + r * TILE_CELLS + c);
        }
}

/* s [n_rows, 4], row stride TILE_CELLS, from rows of q and of k; n_rows is 1 or 2. */
ALWAYS_INLINE void dot_block(int n_rows, const float *q, const float *k, int64_t k_pad, float scale,
                             float *s) {
    __m256 acc[2][4];
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int c = 0; c < 4; c++) acc[r][c] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < k_pad; i += 8) {
        __m256 x[2];
        UNROLL for (int r = 0; r < n_rows; r++) x[r] = _mm256_loadu_ps(q + r * k_pad + i);
        UNROLL for (int c = 0; c < 4; c++) {
            __m256 y = _mm256_loadu_ps(k + c * k_pad + i);
            UNROLL for (int r = 0; r < n_rows; r++) acc[r][c] = _mm256_fmadd_ps(x[r], y, acc[r][c]);
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(acc[r][0], acc[r][1]),
                                  _mm256_hadd_ps(acc[r][2], acc[r][3]));
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
        _mm_store_ps(s + r * TILE_CELLS, _mm_mul_ps(sum, _mm_set1_ps(scale)));
    }
}

static void scores_rows(const struct attn *a, const struct unit *u, int64_t n,
                        const struct bufs *b) {
    float scale = a->node->p.attn.scale;
    for (int64_t c = 0; c < n; c += 4) {
        const float *k = b->k + c * a->k.pad;
        int64_t r = 0;
        for (; r + 2 <= u->n_rows; r += 2)
            dot_block(2, b->q + r * a->k.pad, k, a->k.pad, scale, b->s + r * TILE_CELLS + c);
        if (r < u->n_rows)
            dot_block(1, b->q + r * a->k.pad, k, a->k.pad, scale, b->s + r * TILE_CELLS + c);
    }
}

/* What sums relative to `old` are worth relative to `new`; -inf stands for "no score yet". */
ALWAYS_INLINE float rescale(float old, float new) {
    if (old == new) return 1;
    return _mm256_cvtss_f32(exp_f32x8(_mm256_set1_ps(old - new)));
}

/* Scores s [n] become weights exp(s - max), n in 1..TILE_CELLS. max_ps(x, m) is m where x is a NaN,
 * so the maximum stays a number and the NaN goes on in its weight. */
static void softmax_row(float *s, int32_t n, float *max, float *sum, float *scale) {
    for (int32_t i = n; i % 8 != 0; i++)
        s[i] = -INFINITY;
    __m256 top = _mm256_set1_ps(*max);
    for (int32_t i = 0; i < n; i += 8)
        top = _mm256_max_ps(_mm256_load_ps(s + i), top);
    float new_max = hmax_f32(top);
    const __m256 m = _mm256_set1_ps(new_max == -INFINITY ? 0 : new_max);
    __m256 total = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += 8) {
        __m256 e = exp_f32x8(_mm256_sub_ps(_mm256_load_ps(s + i), m));
        _mm256_store_ps(s + i, e);
        total = _mm256_add_ps(total, e);
    }
    *scale = rescale(*max, new_max);
    *sum = *sum * *scale + hsum_f32(total);
    *max = new_max;
}

/* acc [n_rows, n_panels * PANEL] = scale * acc + weights s [n_rows, c0..c1) * V [c0..c1), with row
 * strides v_pad and TILE_CELLS. One row cannot fill the pipelines with one panel, so up to three
 * rows take two. */
ALWAYS_INLINE void sum_block(int n_rows, int n_panels, const float *s, const float *v, int64_t c0,
                             int64_t c1, const float *scale, float *acc, int64_t v_pad) {
    __m256 t[BLOCK][4];
    UNROLL for (int r = 0; r < n_rows; r++) {
        UNROLL for (int i = 0; i < 2 * n_panels; i++) t[r][i] = _mm256_setzero_ps();
    }
    for (int64_t c = c0; c < c1; c++) {
        __m256 x[4];
        UNROLL for (int i = 0; i < 2 * n_panels; i++) {
            x[i] = _mm256_load_ps(v + i / 2 * TILE_CELLS * PANEL + c * PANEL + i % 2 * 8);
        }
        UNROLL for (int r = 0; r < n_rows; r++) {
            __m256 w = _mm256_broadcast_ss(s + r * TILE_CELLS + c);
            UNROLL for (int i = 0; i < 2 * n_panels; i++) {
                t[r][i] = _mm256_fmadd_ps(w, x[i], t[r][i]);
            }
        }
    }
    UNROLL for (int r = 0; r < n_rows; r++) {
        const __m256 m = _mm256_set1_ps(scale[r]);
        UNROLL for (int i = 0; i < 2 * n_panels; i++) {
            float *y = acc + r * v_pad + 8 * i;
            _mm256_store_ps(y, _mm256_fmadd_ps(_mm256_load_ps(y), m, t[r][i]));
        }
    }
}

static void sum_rows(int64_t n_rows, int64_t n_panels, const float *s, const float *v, int64_t c0,
                     int64_t c1, const float *scale, float *acc, int64_t v_pad) {
#define CASE(rows, panels)                                                                         \
    case 2 * rows + panels: sum_block(rows, panels, s, v, c0, c1, scale, acc, v_pad); break
    switch (2 * n_rows + n_panels) {
        CASE(1, 1);
        CASE(1, 2);
        CASE(2, 1);
        CASE(2, 2);
        CASE(3, 1);
        CASE(3, 2);
        CASE(4, 1);
        CASE(5, 1);
        CASE(6, 1);
    }
#undef CASE
}

/* acc = scale * acc + weights * V for all rows of the unit. Rows of a block go together over the
 * cells that all of them see, then each alone. */
static void weighted_sums(const struct attn *a, const struct unit *u, const struct bufs *b) {
    static const float one = 1;
    int64_t width = u->block > 3 ? PANEL : 2 * PANEL;
    for (int64_t d = 0; d < a->v.pad; d += width) {
        int64_t n_panels = min64(width, a->v.pad - d) / PANEL;
        const float *v = b->v + d * TILE_CELLS;
        for (int64_t r0 = 0; r0 < u->n_rows; r0 += u->block) {
            int64_t n_rows = min64(u->block, u->n_rows - r0), common = b->n[r0];
            for (int64_t r = r0 + 1; r < r0 + n_rows; r++)
                common = min64(common, b->n[r]);
            if (common > 0)
                sum_rows(n_rows, n_panels, b->s + r0 * TILE_CELLS, v, 0, common, b->scale + r0,
                         b->acc + r0 * a->v.pad + d, a->v.pad);
            for (int64_t r = r0; r < r0 + n_rows; r++)
                if (b->n[r] > common)
                    sum_rows(1, n_panels, b->s + r * TILE_CELLS, v, common, b->n[r],
                             common > 0 ? &one : b->scale + r, b->acc + r * a->v.pad + d, a->v.pad);
        }
    }
}

/* Leaves acc, max and sum of the unit's rows in b. */
static void run_unit(const struct attn *a, struct unit *u, const struct bufs *b) {
    u->transposed = u->n_rows > FEW_ROWS;
    int64_t n_blocks = (u->n_rows + BLOCK - 1) / BLOCK;
    u->block = u->transposed ? BLOCK : (u->n_rows + n_blocks - 1) / n_blocks;
    load_q(a, u, b);
    memset(b->acc, 0, (size_t)(u->n_rows * a->v.pad) * sizeof *b->acc);
    for (int64_t r = 0; r < u->n_rows; r++) {
        b->max[r] = -INFINITY;
        b->sum[r] = 0;
    }
    for (int64_t c = u->begin; c < u->end; c += TILE_CELLS) {
        int64_t n = min64(TILE_CELLS, u->end - c);
        for (int64_t r = 0; r < u->n_rows; r++) {
            int64_t seen = a->pos[u->t0 + r / a->group] + 1 - c;
            b->n[r] = (int32_t)max64(0, min64(n, seen));
        }
        load_v(a, u, c, n, b);
        if (u->transposed) {
            load_k_panels(a, u, c, n, b);
            scores_panels(a, u, n, b);
        } else {
            load_k_rows(a, u, c, n, b);
            scores_rows(a, u, n, b);
        }
        for (int64_t r = 0; r < u->n_rows; r++)
            if (b->n[r] > 0)
                softmax_row(b->s + r * TILE_CELLS, b->n[r], b->max + r, b->sum + r, b->scale + r);
        weighted_sums(a, u, b);
    }
}

static float *dst_head(const struct attn *a, int64_t t, int64_t head) {
    return (float *)tensor_row(a->node->dst, t) + head * a->v.hd;
}

/* The tiles of a batch from the last token, whose units are the longest, to the first. A tile ends
 * at multiples of tile_tok and where another sequence begins. */
struct tiles {
    int64_t index; /* of the tile [t0, t1) */
    int64_t t0, t1;
};

/* Go on to tile `index`, not before the present one; false if there is none. */
static bool tiles_seek(struct tiles *it, const struct attn *a, int64_t index) {
    while (it->index < index) {
        if (it->t0 == 0) return false;
        it->t1 = it->t0;
        int64_t low = (it->t1 - 1) / a->tile_tok * a->tile_tok;
        for (it->t0 = it->t1 - 1; it->t0 > low && a->first[it->t0 - 1] == a->first[it->t1 - 1];)
            it->t0--;
        it->index++;
    }
    return true;
}

static struct unit unit_of(const struct attn *a, const struct tiles *it, int64_t g) {
    struct unit u = { .t0 = it->t0, .g = g, .first = a->first[it->t0] };
    u.n_rows = (it->t1 - it->t0) * a->group;
    for (int64_t t = it->t0; t < it->t1; t++)
        u.end = max64(u.end, a->pos[t] + 1);
    return u;
}

static void run_whole(const struct attn *a, const struct bufs *b, struct work *w) {
    struct tiles it = { .index = -1, .t0 = a->n_tok };
    for (int64_t c; tiles_seek(&it, a, (c = work_next(w)) / a->n_head_kv);) {
        struct unit u = unit_of(a, &it, c % a->n_head_kv);
        run_unit(a, &u, b);
        for (int64_t r = 0; r < u.n_rows; r++) {
            float *y = dst_head(a, u.t0 + r / a->group, u.g * a->group + r % a->group);
            for (int64_t i = 0; i < a->v.hd; i++)
                y[i] = b->acc[r * a->v.pad + i] / b->sum[r];
        }
    }
}

/* What one range leaves of a row: acc [v.pad], max, sum, in whole cache lines. */
static int64_t partial_floats(const struct attn *a) {
    return round_up(a->v.pad + 2, 16);
}

static int64_t ranges_for(int64_t n_cells) {
    return (n_cells + RANGE_CELLS - 1) / RANGE_CELLS;
}

static size_t shared_bytes(const struct node *n) {
    struct attn a = attn_of(n);
    int64_t rows = min64(a.n_tok, SPLIT_TOKENS) * n->p.attn.n_head;
    return (size_t)(rows * ranges_for(n->src[1]->ne[1]) * partial_floats(&a)) * sizeof(float);
}

/* One row from its partials [n_ranges]. */
static void combine(const struct attn *a, const float *partials, int64_t n_ranges, float *y) {
    int64_t stride = partial_floats(a);
    float max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n_ranges; i++)
        max = fmaxf(max, partials[i * stride + a->v.pad]);
    for (int64_t d = 0; d < a->v.hd; d++)
        y[d] = 0;
    for (int64_t i = 0; i < n_ranges; i++) {
        const float *p = partials + i * stride;
        float scale = rescale(p[a->v.pad], max);
        sum += p[a->v.pad + 1] * scale;
        for (int64_t d = 0; d < a->v.hd; d++)
            y[d] += p[d] * scale;
    }
    for (int64_t d = 0; d < a->v.hd; d++)
        y[d] /= sum;
}

static void run_split(const struct attn *a, const struct bufs *b, struct work *w) {
    int64_t n_head = a->n_head_kv * a->group, stride = partial_floats(a), n_ranges = 0;
    float *partials = w->shared; /* [n_tok, n_head, n_ranges, stride] */
    for (int64_t t = 0; t < a->n_tok; t++)
        n_ranges = max64(n_ranges, ranges_for(a->pos[t] + 1));
    struct tiles it = { .index = -1, .t0 = a->n_tok };
    for (int64_t c; tiles_seek(&it, a, (c = work_next(w)) / (a->n_head_kv * n_ranges));) {
        int64_t range = c / a->n_head_kv % n_ranges;
        struct unit u = unit_of(a, &it, c % a->n_head_kv);
        u.begin = range * RANGE_CELLS;
        u.end = min64(u.end, u.begin + RANGE_CELLS);
        if (u.begin >= u.end) continue;
        run_unit(a, &u, b);
        for (int64_t r = 0; r < u.n_rows; r++) {
            int64_t row = u.t0 * n_head + r / a->group * n_head + u.g * a->group + r % a->group;
            float *p = partials + (row * n_ranges + range) * stride;
            memcpy(p, b->acc + r * a->v.pad, (size_t)a->v.pad * sizeof *p);
            p[a->v.pad] = b->max[r];
            p[a->v.pad + 1] = b->sum[r];
        }
    }
    work_barrier(w);
    for (int64_t row; (row = work_next(w)) < a->n_tok * n_head;)
        combine(a, partials + row * n_ranges * stride, ranges_for(a->pos[row / n_head] + 1),
                dst_head(a, row / n_head, row % n_head));
}

static void run(const struct node *n, struct work *w) {
    struct attn a = attn_of(n);
    struct bufs b;
    carve(&a, w->scratch, &b);
    if (a.n_tok <= SPLIT_TOKENS)
        run_split(&a, &b, w);
    else
        run_whole(&a, &b, w);
}

const struct op_cell op_attn_avx2 = { .run = run,
                                      .shared_bytes = shared_bytes,
                                      .scratch_bytes = scratch_bytes };
