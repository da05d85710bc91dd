/* SPDX-License-Identifier: MIT
 * attn_many_cuda.cu - attention of many tokens on tensor cores: tiles of the cache stream by, the
 * softmax is corrected on the way (Dao et al. 2022), and nothing of size n_tok x n_kv exists.
 *
 * Grid [rows / 64, kv heads], block of 4 warps; a row is a token and a head of the group, so heads
 * that share K and V share its tile. 64 cells at a time: K and V as binary16 in shared memory,
 * while the next 64 are fetched, and q: 96 KiB for heads of 128, two blocks an SM. Compute bound.
 *
 * q and the exponentials are split into two binary16 each (22 bits), q after its row was scaled by
 * a power of two to below 2, so a result is as good as binary32 makes it; the price is twice the
 * products. K and V of a q8_0 cache are rounded to binary16.
 *
 * A row sees its own cells in steps of 64 from its first one on; cells that it does not see change
 * no bit of it, whatever other rows the tile has. Keys that are not finite show in their scores,
 * which are then made by hand; values that are not are taken out of a tile, and added by hand to
 * the rows that see them. */
#include "cuda/attn.cuh"

#define THREADS 128
#define ROWS 64  /* of a tile */
#define CELLS 64 /* of a step */
#define LOG2_E 1.4426950408889634f

template <int HD> struct many_shape {
    /* Rows are turned or padded so that ldmatrix has no bank conflicts. */
    static constexpr bool TURNED = HD % 64 == 0;
    static constexpr int PITCH = TURNED ? HD : HD + 8; /* halfs */
    static constexpr size_t TILE_BYTES = (size_t)CELLS * PITCH * 2;
    static constexpr int CHUNKS = HD / 8;            /* of 16 bytes, of a cell */
    static constexpr int AT_ONCE = THREADS / CHUNKS; /* cells that the block fetches at once */
    static constexpr int TIMES = (CELLS + AT_ONCE - 1) / AT_ONCE;
    /* two tiles of K and V; fragments of q: [HD / 16][2][THREADS] of 16 bytes, each for the thread
     * that wrote it */
    static constexpr size_t SHARED_BYTES = 4 * TILE_BYTES + (size_t)HD / 16 * 2 * THREADS * 16;
};

/* Where the chunk of a cell lies in a tile, in halfs. */
template <int HD> DEV int many_at(int cell, int chunk) {
    return cell * many_shape<HD>::PITCH + 8 * (many_shape<HD>::TURNED ? chunk ^ (cell % 8) : chunk);
}

DEV bool is_bad(uint16_t h) {
    return (h & 0x7C00u) == 0x7C00u;
}

struct many_f16 {
    static constexpr bool IS_F16 = true;
    typedef kv_f16 kv;
};
struct many_q8_0 {
    static constexpr bool IS_F16 = false;
    typedef kv_q8_0 kv;
};

/* A chunk that is not copied as it is: from a head of the cache, as binary16. */
template <class T> DEV uint4 many_chunk(const struct attn_cache &c, const char *head, int at) {
    float v[8];
    const char *place = T::kv::place(head, at);
    if (T::IS_F16) {
        const uint16_t *h = (const uint16_t *)place;
        return make_uint4(h[0] | (uint32_t)h[1] << 16, h[2] | (uint32_t)h[3] << 16,
                          h[4] | (uint32_t)h[5] << 16, h[6] | (uint32_t)h[7] << 16);
    }
    T::kv::open(T::kv::fetch(c, place, at), T::kv::shift(place), v);
    return make_uint4(pack_f16(v[0], v[1]), pack_f16(v[2], v[3]), pack_f16(v[4], v[5]),
                      pack_f16(v[6], v[7]));
}

/* Starts to fetch cells [c0, c0 + CELLS) of one head as binary16; zeros from cell `end` on. */
template <class T, int HD>
DEV void many_load(const struct attn_cache &c, int64_t c0, int64_t end, int kv_head, uint16_t *to) {
    typedef many_shape<HD> shape;
    const int chunk = (int)threadIdx.x % shape::CHUNKS, cell0 = (int)threadIdx.x / shape::CHUNKS;
    const char *head =
        c.p + (size_t)(c0 + cell0) * c.stride + (size_t)kv_head * (size_t)c.head_bytes;
    const int n = end - c0 < CELLS ? (int)(end - c0) : CELLS;
    if (shape::CHUNKS * shape::AT_ONCE < THREADS && cell0 >= shape::AT_ONCE) return;
    if (T::IS_F16 && c.vec) {
#pragma unroll
        for (int i = 0; i < shape::TIMES; i++) {
            const int cell = cell0 + i * shape::AT_ONCE;
            if (CELLS % shape::AT_ONCE == 0 || cell < CELLS)
                cp_async16_if(cell < n, to + many_at<HD>(cell, chunk),
                              head + (size_t)(i * shape::AT_ONCE) * c.stride + 16 * chunk);
        }
        return;
    }
#pragma unroll 4
    for (int i = 0; i < shape::TIMES; i++) {
        const int cell = cell0 + i * shape::AT_ONCE;
        const char *from = head + (size_t)(i * shape::AT_ONCE) * c.stride;
        if (CELLS % shape::AT_ONCE == 0 || cell < CELLS)
            *(uint4 *)(to + many_at<HD>(cell, chunk)) =
                cell < n ? many_chunk<T>(c, from, 8 * chunk) : make_uint4(0, 0, 0, 0);
    }
}

/* Whether one of the elements that this thread fetched is not finite. */
template <int HD> DEV bool many_bad(const uint16_t *tile) {
    typedef many_shape<HD> shape;
    const int chunk = (int)threadIdx.x % shape::CHUNKS, cell0 = (int)threadIdx.x / shape::CHUNKS;
    uint32_t bad = 0;
    if (shape::CHUNKS * shape::AT_ONCE < THREADS && cell0 >= shape::AT_ONCE) return false;
#pragma unroll
    for (int i = 0; i < shape::TIMES; i++) {
        const int cell = cell0 + i * shape::AT_ONCE;
        if (CELLS % shape::AT_ONCE != 0 && cell >= CELLS) continue;
        const uint4 x = *(const uint4 *)(tile + many_at<HD>(cell, chunk));
        const uint32_t w[4] = { x.x, x.y, x.z, x.w };
#pragma unroll
        for (int k = 0; k < 4; k++) /* an exponent of ones, plus one, reaches the sign */
            bad |= ((w[k] & 0x7C007C00u) + 0x04000400u) & 0x80008000u;
    }
    return bad != 0;
}

/* Of the two rows of the tile that a thread has a part of: lane / 4 and 8 below it. */
struct many_rows {
    float scale[2], max[2], sum[2]; /* max before scale; sum: of the thread's own columns */
};

/* Row k of these, found anew where it is needed: no registers keep it over the tiles. */
struct many_row {
    int token, head;
    bool real; /* or behind the last one, and what is computed is not stored */
};
DEV int many_row0(void) {
    return (int)(gridDim.x - 1u - (unsigned)block_now().x) * ROWS;
}
DEV struct many_row many_row_now(const struct attn_args &a, int k) {
    const int thread = (int)thread_now();
    const int row = many_row0() + thread / WARP * 16 + thread % WARP / 4 + 8 * k;
    const bool real = row < a.n_tok * a.group;
    return { real ? row / a.group : a.n_tok - 1,
             block_now().y * a.group + (real ? row % a.group : 0), real };
}

/* hi + lo = x with 22 bits. */
DEV void split_f16(float x, float y, uint32_t *hi, uint32_t *lo) {
    *hi = pack_f16(x, y);
    *lo = pack_f16(x - hd_f16((uint16_t)*hi), y - hd_f16((uint16_t)(*hi >> 16)));
}

/* q of both rows as fragments of A, scaled by a power of two that goes into r->scale. */
template <int HD>
DEV void many_load_q(const struct attn_args &a, struct many_rows *r, uint4 *frag, int lane) {
    uint32_t hi[HD / 16][4], lo[HD / 16][4];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const struct many_row row = many_row_now(a, k);
        const float *q =
            (const float *)(a.q + (size_t)row.token * a.q_stride) + (int64_t)row.head * HD;
        float v[HD / 4], amax = 0;
#pragma unroll
        for (int i = 0; i < HD / 4; i++) {
            v[i] = q[i / 4 * 16 + i / 2 % 2 * 8 + lane % 4 * 2 + i % 2];
            amax = max_nan(amax, fabsf(v[i]));
        }
        amax = max_nan(amax, __shfl_xor_sync(FULL_WARP, amax, 1));
        amax = max_nan(amax, __shfl_xor_sync(FULL_WARP, amax, 2));
        int ex = (int)(bits_of(amax) >> 23) - 127; /* 128: not finite, and stays so */
        ex = ex < -120 ? -120 : ex > 120 ? (ex == 128 ? 0 : 120) : ex;
        const float down = f32_of((uint32_t)(127 - ex) << 23);
        r->scale[k] = f32_of((uint32_t)(127 + ex) << 23) * a.scale * LOG2_E;
#pragma unroll
        for (int i = 0; i < HD / 4; i += 2)
            split_f16(v[i] * down, v[i + 1] * down, &hi[i / 4][i / 2 % 2 * 2 + k],
                      &lo[i / 4][i / 2 % 2 * 2 + k]);
    }
#pragma unroll
    for (int i = 0; i < HD / 16; i++) {
        frag[2 * i * THREADS] = make_uint4(hi[i][0], hi[i][1], hi[i][2], hi[i][3]);
        frag[(2 * i + 1) * THREADS] = make_uint4(lo[i][0], lo[i][1], lo[i][2], lo[i][3]);
    }
}

/* s = q k^T of the step's 64 cells. A product waits for the one before it with the same sums, so
 * four sums take turns. */
template <int HD>
DEV void many_scores(const uint4 *frag, const uint16_t *k, int lane, float s[CELLS / 8][4]) {
#pragma unroll
    for (int i = 0; i < CELLS / 8 * 4; i++)
        s[i / 4][i % 4] = 0;
#pragma unroll
    for (int i = 0; i < HD / 16; i += 2) {
        uint32_t q[4][4]; /* hi and lo of columns 16 i, then of the next 16 */
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const uint4 x = frag[(2 * i + m) * THREADS];
            q[m][0] = x.x, q[m][1] = x.y, q[m][2] = x.z, q[m][3] = x.w;
        }
#pragma unroll
        for (int j0 = 0; j0 < CELLS / 8; j0 += 4) {
            uint32_t b[4][4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                ldmatrix4(b[j], k + 8 * (j0 + j) * many_shape<HD>::PITCH +
                                    many_at<HD>(lane % 8, 2 * i + lane / 8));
            }
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    mma_f16(s[j0 + j], q[m], b[j] + m / 2 * 2);
        }
    }
}

/* Whether a score of the lane is NaN or plus infinity, which finite keys never make: q is below 2.
 */
DEV bool many_odd_scores(const float s[CELLS / 8][4]) {
    float max = -INFINITY;
#pragma unroll
    for (int i = 0; i < CELLS / 8 * 4; i++)
        max = max_nan(max, s[i / 4][i % 4]);
    return !(max < INFINITY);
}

/* Sets the scores of keys that are not finite: what is finite of them makes no difference, and
 * infinity times either half of q would be infinity less infinity. */
template <int HD>
DEV void many_bad_keys(const struct attn_args &a, const uint16_t *keys, float s[CELLS / 8][4]) {
    const int lane = (int)threadIdx.x % WARP;
    const struct many_row r0 = many_row_now(a, 0), r1 = many_row_now(a, 1);
    const float *q0 = (const float *)(a.q + (size_t)r0.token * a.q_stride) + (int64_t)r0.head * HD;
    const float *q1 = (const float *)(a.q + (size_t)r1.token * a.q_stride) + (int64_t)r1.head * HD;
    uint32_t cells = 0; /* of the lane, with a bad element */
#pragma unroll 1
    for (int i = 0; i < HD; i++)
#pragma unroll
        for (int j = 0; j < CELLS / 8 * 2; j++) {
            float *x = &s[j / 2][j % 2], *y = &s[j / 2][j % 2 + 2];
            const int cell = j / 2 * 8 + lane % 4 * 2 + j % 2;
            const uint16_t key = keys[many_at<HD>(cell, i / 8) + i % 8];
            if (!is_bad(key)) continue;
            if (!(cells >> j & 1)) *x = *y = 0;
            cells |= 1u << j;
            *x += q0[i] * hd_f16(key);
            *y += q1[i] * hd_f16(key);
        }
}

/* Scores of cells from c0 (of the sequence) on become exponentials of what each row sees, up to
 * position seen[]; returns the factor that corrects what was added up before. */
DEV void many_softmax(struct many_rows *r, float s[CELLS / 8][4], int c0, const int *seen, int lane,
                      float alpha[2]) {
    const bool hides = c0 + CELLS - 1 > seen[0] || c0 + CELLS - 1 > seen[1];
    if (__any_sync(FULL_WARP, hides)) {
#pragma unroll
        for (int i = 0; i < CELLS / 8 * 4; i++) {
            const int cell = c0 + i / 4 * 8 + lane % 4 * 2 + i % 2, k = i % 4 / 2;
            if (cell > seen[k]) s[i / 4][i % 4] = -INFINITY;
        }
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float max = r->max[k];
#pragma unroll
        for (int i = 0; i < CELLS / 8 * 2; i++)
            max = max_nan(max, s[i / 2][2 * k + i % 2]);
        max = max_nan(max, __shfl_xor_sync(FULL_WARP, max, 1));
        max = max_nan(max, __shfl_xor_sync(FULL_WARP, max, 2));
        const bool nothing = max == -INFINITY; /* no cell seen yet */
        const float less = nothing ? 0.0f : -max * r->scale[k];
        alpha[k] =
            nothing ? 1.0f : exp2_fast(less + r->max[k] * r->scale[k]); /* 1 for equal ones */
        float sum = 0;
#pragma unroll
        for (int i = 0; i < CELLS / 8 * 2; i++) {
            float *x = &s[i / 2][2 * k + i % 2];
            *x = exp2_fast(fmaf(*x, r->scale[k], less)); /* 0 where nothing is seen */
            sum += *x;
        }
        r->sum[k] = fmaf(r->sum[k], alpha[k], sum);
        r->max[k] = max;
    }
}

/* A tile with values that are not finite: rows that see one get it, and it becomes 0 for the tensor
 * cores. How large its weight is does not matter. */
template <int HD>
DEV void many_bad_values(float acc[HD / 8][4], int c0, const int *seen, uint16_t *values) {
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < HD / 8 * 4; i++)
#pragma unroll 1
        for (int cell = 0; cell < CELLS; cell++) {
            const uint16_t v = values[many_at<HD>(cell, i / 4) + lane % 4 * 2 + i % 2];
            if (is_bad(v) && c0 + cell <= seen[i % 4 / 2]) acc[i / 4][i % 4] += hd_f16(v);
        }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < CELLS * HD; i += THREADS) {
        uint16_t *x = values + many_at<HD>(i / HD, i % HD / 8) + i % 8;
        if (is_bad(*x)) *x = 0;
    }
    __syncthreads();
}

/* acc = acc + p v; four sums take turns, as above. */
template <int HD>
DEV void many_values(float acc[HD / 8][4], float s[CELLS / 8][4], const uint16_t *v, int lane) {
#pragma unroll
    for (int j = 0; j < CELLS / 16; j++) {
        uint32_t p[2][4]; /* hi and lo */
#pragma unroll
        for (int k = 0; k < 4; k++)
            split_f16(s[2 * j + k / 2][2 * (k % 2)], s[2 * j + k / 2][2 * (k % 2) + 1], &p[0][k],
                      &p[1][k]);
#pragma unroll
        for (int i = 0; i < HD / 8; i += 4) {
            uint32_t b[2][4];
#pragma unroll
            for (int k = 0; k < 2; k++)
                ldmatrix4_trans(b[k], v + 16 * j * many_shape<HD>::PITCH +
                                          many_at<HD>(lane % 16, i + 2 * k + lane / 16));
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    mma_f16(acc[i + k], p[m], b[k / 2] + k % 2 * 2);
        }
    }
}

/* Cells of a sequence that tokens [t0, t1) of the tile see. */
template <class K, class V, int HD>
DEV void many_sequence(const struct attn_args &a, struct many_rows *r, float acc[HD / 8][4],
                       unsigned char *shared, int kv_head, int t0, int t1) {
    constexpr size_t TILE = many_shape<HD>::TILE_BYTES;
    const int lane = (int)threadIdx.x % WARP, first = first_of(a, t0);
    const uint4 *frag = (const uint4 *)(shared + 4 * TILE) + threadIdx.x;
    int seen[2]; /* position of the last cell that a row sees, -1 = none */
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int t = many_row_now(a, k).token;
        seen[k] = t >= t0 && t < t1 ? last_of(a, t) : -1;
    }
    int last = 0; /* position of the last cell that one of them sees */
    for (int t = t0; t < t1; t++)
        last = last_of(a, t) > last ? last_of(a, t) : last;
    for (int c0 = -CELLS, stage = 1; c0 <= last; c0 += CELLS, stage ^= 1) {
        uint16_t *ks = (uint16_t *)(shared + (size_t)stage * 2 * TILE), *vs = ks + TILE / 2;
        cp_async_wait<0>();
        const bool bad_values = __syncthreads_or(c0 >= 0 && many_bad<HD>(vs));
        if (c0 + CELLS <= last) { /* the other tiles, which no warp uses any more */
            uint16_t *next = (uint16_t *)(shared + (size_t)(stage ^ 1) * 2 * TILE);
            const int64_t c = (int64_t)first + c0 + CELLS, end = (int64_t)first + last + 1;
            many_load<K, HD>(a.k, c, end, kv_head, next);
            many_load<V, HD>(a.v, c, end, kv_head, next + TILE / 2);
            cp_async_commit();
            if (FAULT_IN(a, q8_cache_pp) && !K::IS_F16 && threadIdx.x == 0) next[0] = 0x7E00u;
        }
        if (c0 < 0) continue;
        float s[CELLS / 8][4], alpha[2];
        many_scores<HD>(frag, ks, lane, s);
        if (__any_sync(FULL_WARP, many_odd_scores(s))) many_bad_keys<HD>(a, ks, s);
        many_softmax(r, s, c0, seen, lane, alpha);
        if (FAULT_IN(a, attn_beyond_256) && c0 >= 256) alpha[0] = alpha[1] = 1;
        if (__any_sync(FULL_WARP, alpha[0] != 1 || alpha[1] != 1)) {
#pragma unroll
            for (int i = 0; i < HD / 8 * 4; i++)
                acc[i / 4][i % 4] *= alpha[i % 4 / 2];
        }
        if (bad_values) many_bad_values<HD>(acc, c0, seen, vs);
        many_values<HD>(acc, s, vs, lane);
    }
}

/* Blocks with the last rows, which see most cells, begin first. */
template <class K, class V, int HD>
static __global__ void __launch_bounds__(THREADS, 2) attn_many_kernel(struct attn_args a) {
    await_previous();
    SHARED(shared);
    const int lane = (int)threadIdx.x % WARP, kv_head = (int)blockIdx.y;
    const int row0 = many_row0();
    struct many_rows r = { { 0, 0 }, { -INFINITY, -INFINITY }, { 0, 0 } };
    float acc[HD / 8][4];
    many_load_q<HD>(a, &r, (uint4 *)(shared + 4 * many_shape<HD>::TILE_BYTES) + threadIdx.x, lane);
#pragma unroll
    for (int i = 0; i < HD / 8 * 4; i++)
        acc[i / 4][i % 4] = 0;
    const int end_row = row0 + ROWS < a.n_tok * a.group ? row0 + ROWS : a.n_tok * a.group;
    const int end = (end_row - 1) / a.group + 1; /* behind the last token */
    for (int t0 = row0 / a.group, t1; t0 < end; t0 = t1) {
        for (t1 = t0 + 1; t1 < end && first_of(a, t1) == first_of(a, t0);)
            t1++;
        many_sequence<K, V, HD>(a, &r, acc, shared, kv_head, t0, t1);
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float sum = r.sum[k];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        const float inverse = 1.0f / sum;
        const struct many_row row = many_row_now(a, k);
        if (!row.real) continue;
        float *y = (float *)(a.dst + (size_t)row.token * a.dst_stride) + (int64_t)row.head * HD +
                   lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < HD / 8; i++) {
            y[8 * i] = acc[i][2 * k] * inverse;
            y[8 * i + 1] = acc[i][2 * k + 1] * inverse;
        }
    }
}

/* ---- launching --------------------------------------------------------------------------------
 */

template <class K, class V, int HD>
static int many_launch(struct cuda_device *d, const struct attn_args *a, struct err *e) {
    int rc = 0;
    auto kernel = &attn_many_kernel<K, V, HD>;
    LAUNCH(kernel,
           dim3(div_up((int64_t)a->n_tok * a->group, ROWS), (unsigned)(a->n_head / a->group)),
           THREADS, many_shape<HD>::SHARED_BYTES, *a);
out:
    return rc;
}

template <class K, class V>
static int many_heads(struct cuda_device *d, const struct attn_args *a, struct err *e) {
    switch (a->k.hd) {
    case 32: return many_launch<K, V, 32>(d, a, e);
    case 64: return many_launch<K, V, 64>(d, a, e);
    case 96: return many_launch<K, V, 96>(d, a, e);
    default: return many_launch<K, V, 128>(d, a, e);
    }
}

bool attn_many_can(const struct node *n) {
    const int64_t hd = n->p.attn.n_embd_head_k;
    return n->src[1]->type != QT_f32 && n->src[2]->type != QT_f32 &&
           hd == n->p.attn.n_embd_head_v && hd % 32 == 0 && hd <= 128;
}

int attn_many(struct cuda_device *d, const struct node *n, const struct attn_args *a,
              struct err *e) {
    const bool k = n->src[1]->type == QT_f16, v = n->src[2]->type == QT_f16;
    return k   ? v ? many_heads<many_f16, many_f16>(d, a, e)
                   : many_heads<many_f16, many_q8_0>(d, a, e)
             : v ? many_heads<many_q8_0, many_f16>(d, a, e)
               : many_heads<many_q8_0, many_q8_0>(d, a, e);
}
