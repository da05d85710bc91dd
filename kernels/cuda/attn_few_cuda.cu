/* SPDX-License-Identifier: MIT
 * attn_few_cuda.cu - attention of few tokens, in binary32: the cache is cut into ranges of cells
 * that blocks work on at the same time; also any number of tokens for what the tensor cores cannot
 * do (F32 caches, odd head sizes).
 *
 * Grid [ranges, kv heads x chunks of GH heads x chunks of 128 columns of V, tokens], block of 8
 * warps. A warp takes every eighth step of 8 cells by itself: 16 lanes a cell, 8 elements a lane, K
 * and V of a step under way before the first is used, a softmax of its own that is corrected on the
 * way. Warps meet at the end. Shared: (GH (hd_k, to 128) + 8 GH 128) x 4 bytes and a little, 19 KiB
 * for 4 heads of 128. Reads the cells once for each chunk of heads (those meet in the L2 cache):
 * memory bound.
 *
 * Up to 256 cells are one range, whose row is finished at once; more are at most 32, of 64 cells or
 * 128, 256, ... Each of those leaves its sum, maximum and sum of exponentials, and the last block
 * to come adds them, in order. So a row's bits depend on its own position alone. */
#include <type_traits>

#include "cuda/attn.cuh"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define STEP 8           /* cells of a warp */
#define COLS 128         /* of V; and of a chunk of K */
#define ONE_RANGE_LOG2 8 /* cells */
#define MIN_RANGE_LOG2 6
#define MAX_RANGES_LOG2 5 /* a lane each, when they are added */
#define MAX_RANGES (1 << MAX_RANGES_LOG2)
#define PARTS_BYTES ((size_t)64 << 20) /* tokens are taken in slices whose ranges fit */
#define COUNTERS ((int64_t)(ATTN_COUNTER_BYTES / sizeof(unsigned)))

static_assert(MAX_RANGES == WARP, "few_combine");

/* Cells of a range of a row that sees n. */
DEV int range_cells(int n) {
    if (n <= 1 << ONE_RANGE_LOG2) return 1 << ONE_RANGE_LOG2;
    int cells = 1 << MIN_RANGE_LOG2;
#pragma unroll 1
    while (cells << MAX_RANGES_LOG2 < n)
        cells *= 2;
    return cells;
}

struct few_shared {
    float *q;         /* [chunks of hd_k, GH, COLS], zeros behind the end */
    float *acc;       /* [WARPS, GH, COLS] */
    float *max, *sum; /* [WARPS, GH]; in max, later, factors of ranges [GH, MAX_RANGES] */
    unsigned *flag;
    int *n_ranges; /* of the row */
};

static __host__ __device__ inline int few_chunks(int n) {
    return (n + COLS - 1) / COLS;
}

template <int GH> DEV struct few_shared few_layout(unsigned char *p) {
    struct few_shared s;
    s.acc = (float *)p;
    s.max = s.acc + WARPS * GH * COLS;
    s.sum = s.max + MAX_RANGES * GH;
    s.flag = (unsigned *)(s.sum + WARPS * GH);
    s.n_ranges = (int *)s.flag + 1;
    s.q = s.sum + WARPS * GH + 4;
    return s;
}

static size_t few_shared_bytes(const struct attn_args *a, int gh) {
    return (size_t)(gh * (few_chunks(a->k.hd) * COLS + WARPS * COLS + MAX_RANGES + WARPS) + 4) *
           sizeof(float);
}

/* What a lane has to do with: every second cell of its warp's steps, 8 columns of K or V. */
struct few_lane {
    const char *p; /* in the lane's first cell of the step */
    int at;        /* the first column */
    bool in;       /* there are such columns */
};

template <class T>
DEV struct few_lane few_lane_of(const struct attn_cache &c, int64_t cell, int kv_head, int at) {
    const char *head = c.p + (size_t)(cell + (int)threadIdx.x % WARP / 16) * c.stride +
                       (size_t)kv_head * (size_t)c.head_bytes;
    return { T::place(head, at), at, at < c.hd };
}

/* A step of n cells. */
template <class T>
DEV void few_fetch(const struct attn_cache &c, const struct few_lane &l, int n,
                   typename T::raw r[STEP / 2]) {
    const int odd = (int)threadIdx.x % WARP / 16;
#pragma unroll
    for (int j = 0; j < STEP / 2; j++)
        r[j] = l.in && 2 * j + odd < n ? T::fetch(c, l.p + (size_t)(2 * j) * c.stride, l.at)
                                       : T::none();
}

/* It comes into the L2 cache, but for what is still to be written. */
DEV void few_prefetch(const struct attn_cache &c, const struct few_lane &l, int n) {
    const int odd = (int)threadIdx.x % WARP / 16;
#pragma unroll
    for (int j = 0; j < STEP / 2; j++)
        if (l.in && 2 * j + odd < n) prefetch_shared(l.p + (size_t)(2 * j) * c.stride);
}

/* sum[j * GH + g] += a lane's part of head g times cell j. */
template <class T, int GH>
DEV void few_products(const typename T::raw r[STEP / 2], uint32_t shift, const float *q,
                      float *sum) {
#pragma unroll
    for (int half = 0; half < 8; half += 4) {
        float k[STEP / 2][8];
#pragma unroll
        for (int j = 0; j < STEP / 2; j++)
            T::open(r[j], shift, k[j]);
#pragma unroll
        for (int g = 0; g < GH; g++) {
            const float4 w = *(const float4 *)(q + g * COLS + half);
#pragma unroll
            for (int j = 0; j < STEP / 2; j++) {
                const float *y = k[j] + half;
                float *x = &sum[j * GH + g];
                *x = fmaf(w.w, y[3], fmaf(w.z, y[2], fmaf(w.y, y[1], fmaf(w.x, y[0], *x))));
            }
        }
    }
}

/* Sums over 2 M lanes of v[N]: with M = 8 a lane gets that of element lane % 16 * N / 16, rounded
 * down. Lanes halve what is theirs until it is one element each. */
template <int N, int M> DEV float few_fold(float *v) {
    if constexpr (N == 1) {
        v[0] += __shfl_xor_sync(FULL_WARP, v[0], M);
    } else {
        const bool upper = threadIdx.x & M;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float give = upper ? v[i] : v[i + N / 2], keep = upper ? v[i + N / 2] : v[i];
            v[i] = keep + __shfl_xor_sync(FULL_WARP, give, M);
        }
    }
    if constexpr (M > 1) return few_fold<(N > 1 ? N / 2 : 1), M / 2>(v);
    return v[0];
}

/* Over the lanes with scores of one head. */
DEV float few_max(float x) {
#pragma unroll
    for (int m = 4; m < WARP; m *= 2)
        x = max_nan(x, __shfl_xor_sync(FULL_WARP, x, m));
    return x;
}
DEV float few_sum(float x) {
#pragma unroll
    for (int m = 4; m < WARP; m *= 2)
        x += __shfl_xor_sync(FULL_WARP, x, m);
    return x;
}

/* e^(x - max), if that is not infinity less itself. */
DEV float few_exp(float x, float max) {
    return x == max ? 1.0f : expf(x - max);
}

/* Lane 4 c + g * 4 / GH (of either half) has the score of the half's cell c and head g. */
template <int GH> struct few_row {
    float max, sum;   /* sum: of the lane's own cells */
    float acc[GH][8]; /* exponentials times V, of the half's cells */
};

template <class V, int GH>
DEV void few_values(struct few_row<GH> *row, const typename V::raw r[STEP / 2], uint32_t shift,
                    float p, float alpha) {
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int g = 0; g < GH; g++) {
        const float x = __shfl_sync(FULL_WARP, alpha, g * 4 / GH);
#pragma unroll
        for (int i = 0; i < 8; i++)
            row->acc[g][i] *= x;
    }
#pragma unroll
    for (int j = 0; j < STEP / 2; j++) {
        float v[8];
        V::open(r[j], shift, v);
#pragma unroll
        for (int g = 0; g < GH; g++) {
            const float x = __shfl_sync(FULL_WARP, p, lane / 16 * 16 + 4 * j + g * 4 / GH);
#pragma unroll
            for (int i = 0; i < 8; i++)
                row->acc[g][i] = fmaf(x, v[i], row->acc[g][i]);
        }
    }
}

/* The warp's steps, the first of which is in k and v; n: cells from there to the range's end. */
template <class K, class V, int GH, bool WIDE>
DEV void few_steps(const struct attn_args &a, struct few_lane kl, struct few_lane vl, int n,
                   const float *q, typename K::raw *k, typename V::raw *v,
                   struct few_row<GH> *row) {
    constexpr int NEXT = WARPS * STEP; /* cells */
    for (; n > 0; n -= NEXT) {
        const int lane = (int)threadIdx.x % WARP;
        float sum[STEP / 2 * GH];
#pragma unroll
        for (int i = 0; i < STEP / 2 * GH; i++)
            sum[i] = 0;
        few_products<K, GH>(k, K::shift(kl.p), q, sum);
        for (int at = COLS; WIDE && at < a.k.hd; at += COLS) {
            const struct few_lane l = { kl.p + (K::place(kl.p, at) - K::place(kl.p, 0)), kl.at + at,
                                        kl.at + at < a.k.hd };
            few_fetch<K>(a.k, l, n, k);
            few_products<K, GH>(k, K::shift(l.p), q + at * GH, sum);
        }
        kl.p += NEXT * a.k.stride;
        few_fetch<K>(a.k, kl, n - NEXT, k);
        const float s = few_fold<STEP / 2 * GH, 8>(sum) * a.scale;
        const float x = 2 * (lane % 16 / 4) + lane / 16 < n ? s : -INFINITY;
        const float max = max_nan(row->max, few_max(x));
        const float p = max == -INFINITY ? 0 : expf(x - max); /* no key matters yet */
        const float alpha = few_exp(row->max, max);
        row->sum = fmaf(row->sum, alpha, p);
        row->max = max;
        few_values<V, GH>(row, v, V::shift(vl.p), p, alpha);
        vl.p += NEXT * a.v.stride;
        few_fetch<V>(a.v, vl, n - NEXT, v);
    }
}

/* acc, max and sum of the warp to shared memory. */
template <int GH> DEV void few_leave(const struct few_shared &s, struct few_row<GH> *row) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const bool upper = lane >= 16;
    const float sum = few_sum(row->sum);
    if (lane < 4 && lane % (4 / GH) == 0) {
        s.max[warp * GH + lane / (4 / GH)] = row->max;
        s.sum[warp * GH + lane / (4 / GH)] = sum;
    }
#pragma unroll
    for (int g = 0; g < GH; g++) {
        float y[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float give = upper ? row->acc[g][i] : row->acc[g][i + 4];
            y[i] = (upper ? row->acc[g][i + 4] : row->acc[g][i]) +
                   __shfl_xor_sync(FULL_WARP, give, 16);
        }
        *(float4 *)(s.acc + (warp * GH + g) * COLS + lane % 16 * 8 + lane / 16 * 4) =
            make_float4(y[0], y[1], y[2], y[3]);
    }
}

/* What a range leaves: [GH, COLS], maxima [GH], sums [GH]; whole units of 16 bytes. */
template <int GH> static constexpr int part_floats = GH *(COLS + 4);

/* Where the block works. */
struct few_block {
    int t, kv_head, head, n_heads; /* of the first of n_heads heads */
    int col, n_cols;               /* of V */
};

/* Found anew where it is needed: no registers keep it over the steps. */
template <int GH> DEV struct few_block few_block_now(const struct attn_args &a) {
    const int n_chunks = (a.group + GH - 1) / GH, n_cols = few_chunks(a.v.hd);
    const int y = block_now().y / n_cols, kv_head = y / n_chunks, h0 = y % n_chunks * GH;
    const int col = (block_now().y - y * n_cols) * COLS;
    return { (int)blockIdx.z,
             kv_head,
             kv_head * a.group + h0,
             a.group - h0 < GH ? a.group - h0 : GH,
             col,
             a.v.hd - col < COLS ? a.v.hd - col : COLS };
}

/* Columns [at, at + 4) of a head's result, from column col on, by all lanes of a warp: lane l has
 * at = 4 l. */
DEV void few_result(const struct attn_args &a, const struct few_block &b, int g, int at,
                    const float4 &y) {
    const int n = a.n_head * a.v.hd, i = (b.head + g) * a.v.hd + b.col + at;
    float *to = (float *)(a.dst + (size_t)b.t * a.dst_stride) + i;
    const float each[4] = { y.x, y.y, y.z, y.w };
    if (at + 4 <= b.n_cols && (uintptr_t)to % 16 == 0)
        *(float4 *)to = y;
    else
        for (int k = 0; k < 4 && at + k < b.n_cols; k++)
            to[k] = each[k];
    if (a.acts.q) acts_put4(a.acts, b.t, n, at < b.n_cols ? i : n, y);
}

/* acc + f x. */
DEV float4 add4(const float4 &acc, float f, const float4 &x) {
    return make_float4(fmaf(x.x, f, acc.x), fmaf(x.y, f, acc.y), fmaf(x.z, f, acc.z),
                       fmaf(x.w, f, acc.w));
}
DEV float4 scale4(const float4 &x, float f) {
    return make_float4(x.x * f, x.y * f, x.z * f, x.w * f);
}

/* What the warps have left is the row's result, or goes to part. A warp a head. */
template <int GH>
DEV void few_finish(const struct attn_args &a, const struct few_block &b,
                    const struct few_shared &s, float *part) {
    const int g = warp_index(), at = (int)threadIdx.x % WARP * 4;
    if (g >= b.n_heads) return;
    float max = s.max[g], sum = 0;
    float4 y = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        max = max_nan(max, s.max[w * GH + g]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        const float f = few_exp(s.max[w * GH + g], max);
        sum = fmaf(s.sum[w * GH + g], f, sum);
        y = add4(y, f, *(const float4 *)(s.acc + (w * GH + g) * COLS + at));
    }
    if (!part) {
        few_result(a, b, g, at, scale4(y, 1.0f / sum));
        return;
    }
    *(float4 *)(part + g * COLS + at) = y;
    if (at == 0) part[GH * COLS + g] = max, part[GH * COLS + GH + g] = sum;
}

/* The ranges of a row, in order; by the last block of them, a warp a head. */
template <int GH>
DEV void few_combine(const struct attn_args &a, const struct few_block &b,
                     const struct few_shared &s, const float *parts, int n_ranges) {
    constexpr int BATCH = 16;
    const int g = warp_index(), lane = (int)threadIdx.x % WARP, at = lane * 4;
    const int n = n_ranges - (FAULT_IN(a, last_range) ? 1 : 0);
    if (g >= b.n_heads) return;
    const float *p = parts + lane * part_floats<GH> + GH * COLS + g; /* a lane a range */
    const float max = lane < n ? load_shared(p) : -INFINITY;
    const float part_sum = lane < n ? load_shared(p + GH) : 0;
    float sum = 0;
    float4 x[BATCH], y = make_float4(0, 0, 0, 0);
    for (int r0 = 0; r0 < n; r0 += BATCH) {
#pragma unroll
        for (int r = 0; r < BATCH; r++)
            x[r] = r0 + r < n ? load_shared((const float4 *)(parts + (r0 + r) * part_floats<GH> +
                                                             g * COLS + at))
                              : make_float4(0, 0, 0, 0);
        if (r0 == 0) {
            const float all = warp_max_nan(max);
            const float f = FAULT_IN(a, attn_beyond_256) ? 1 : few_exp(max, all);
            sum = warp_sum(part_sum * f);
            s.max[g * MAX_RANGES + lane] = f;
            __syncwarp();
        }
#pragma unroll
        for (int r = 0; r < BATCH; r++)
            if (r0 + r < n) y = add4(y, s.max[g * MAX_RANGES + r0 + r], x[r]);
    }
    few_result(a, b, g, at, scale4(y, 1.0f / sum));
}

/* q of n_heads heads, with zeros for others and behind the end. */
template <int GH, bool WIDE>
DEV void few_load_q(const struct attn_args &a, const struct few_block &b, float *to) {
    const float *q = (const float *)(a.q + (size_t)b.t * a.q_stride) + (int64_t)b.head * a.k.hd;
    constexpr int EACH = GH * COLS < THREADS ? 1 : GH * COLS / THREADS;
    for (int chunk = 0; chunk == 0 || (WIDE && chunk * COLS < a.k.hd); chunk++) {
        float x[EACH];
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const int i = k * THREADS + (int)threadIdx.x, g = i / COLS;
            const int at = chunk * COLS + i % COLS;
            x[k] = g < b.n_heads && at < a.k.hd ? q[g * a.k.hd + at] : 0;
        }
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (k * THREADS + (int)threadIdx.x < GH * COLS)
                to[chunk * GH * COLS + k * THREADS + (int)threadIdx.x] = x[k];
    }
}

/* Blocks that an SM has at once: for two, a thread has 128 registers, which does not suffice for
 * two wide caches, nor for a q8_0 one the way ptxas allots them for 10.0. */
template <class K, class V> constexpr int few_resident(void) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
    if (std::is_same_v<K, kv_q8_0>) return 1;
#endif
    return sizeof(typename K::raw) + sizeof(typename V::raw) > 32 ? 1 : 2;
}

/* pos and first are pushed and may be read, and K and V prefetched, while earlier kernels run. */
template <class K, class V, int GH, bool WIDE>
static __global__ void
__launch_bounds__(THREADS, (few_resident<K, V>()))
    attn_few_kernel(struct attn_args a) {
    SHARED(shared);
    const struct few_shared s = few_layout<GH>(shared);
    const int lane = (int)threadIdx.x % WARP, warp = warp_index();
    const int first = first_of(a, (int)blockIdx.z); /* on its way together with the position */
    const int n_seen = last_of(a, (int)blockIdx.z) + 1, cells = range_cells(n_seen);
    const int c0 = (int)blockIdx.x * cells;
    struct few_block b = few_block_now<GH>(a);
    const int n = n_seen - c0 < cells ? n_seen - c0 : cells, at = lane % 16 * 8;
    const int64_t cell = (int64_t)first + c0 + STEP * warp; /* of the warp's first step */
    const struct few_lane kl = few_lane_of<K>(a.k, cell, b.kv_head, at);
    const struct few_lane vl = few_lane_of<V>(a.v, cell, b.kv_head, b.col + at);
    few_prefetch(a.k, kl, n - STEP * warp);
    few_prefetch(a.v, vl, n - STEP * warp);
    await_previous();
    if (n <= 0) return; /* the whole block */
    typename K::raw k[STEP / 2];
    typename V::raw v[STEP / 2];
    few_fetch<K>(a.k, kl, n - STEP * warp, k);
    few_fetch<V>(a.v, vl, n - STEP * warp, v);
    few_load_q<GH, WIDE>(a, b, s.q);
    if (threadIdx.x == 0) *s.n_ranges = (n_seen + cells - 1) / cells;
    __syncthreads();
    struct few_row<GH> row;
    row.max = -INFINITY;
    row.sum = 0;
#pragma unroll
    for (int i = 0; i < GH * 8; i++)
        row.acc[i / 8][i % 8] = 0;
    few_steps<K, V, GH, WIDE>(a, kl, vl, n - STEP * warp, s.q + at, k, v, &row);
    few_leave<GH>(s, &row);
    __syncthreads();
    b = few_block_now<GH>(a);
    const int n_ranges = *s.n_ranges;
    const int64_t group = (int64_t)b.t * gridDim.y + blockIdx.y;
    float *parts = a.parts + group * gridDim.x * part_floats<GH>;
    few_finish<GH>(a, b, s, n_ranges == 1 ? NULL : parts + (int64_t)blockIdx.x * part_floats<GH>);
    if (n_ranges > 1 && is_last_block(a.n_done + group, (unsigned)n_ranges, s.flag))
        few_combine<GH>(a, b, s, parts, n_ranges);
}

/* ---- launching --------------------------------------------------------------------------------
 */

typedef void (*few_kernel)(struct attn_args a);

/* WIDE: heads of K have more than COLS elements. */
template <class K, class V> static few_kernel few_of(const struct attn_args *a, int gh) {
    return a->k.hd > COLS ? &attn_few_kernel<K, V, 2, true>
           : gh == 1      ? &attn_few_kernel<K, V, 1, false>
           : gh == 2      ? &attn_few_kernel<K, V, 2, false>
                          : &attn_few_kernel<K, V, 4, false>;
}

template <class K> static few_kernel few_for(const struct attn_args *a, int gh) {
    return a->v.type == QT_f32   ? few_of<K, kv_f32>(a, gh)
           : a->v.type == QT_f16 ? few_of<K, kv_f16>(a, gh)
                                 : few_of<K, kv_q8_0>(a, gh);
}

static bool is_odd(const struct attn_cache *c) {
    return c->type == QT_q8_0 ? c->stride % 4 != 0 : !c->vec || c->hd % 8 != 0;
}

static few_kernel few_kernel_of(const struct attn_args *a, int gh) {
    if (is_odd(&a->k) || is_odd(&a->v)) return few_of<kv_any, kv_any>(a, gh);
    return a->k.type == QT_f32   ? few_for<kv_f32>(a, gh)
           : a->k.type == QT_f16 ? few_for<kv_f16>(a, gh)
                                 : few_for<kv_q8_0>(a, gh);
}

/* GH, heads of a block. */
static int few_heads(const struct node *n) {
    const int64_t group = n->p.attn.n_head / n->p.attn.n_head_kv;
    return n->p.attn.n_embd_head_k > COLS ? 2 : group <= 1 ? 1 : group <= 2 ? 2 : 4;
}

int attn_depth(const struct node *n) {
    const int32_t *pos = (const int32_t *)n->src[4]->data;
    int depth = ONE_RANGE_LOG2;
    for (int64_t t = 0; t < n->src[0]->ne[1]; t++)
        while (pos[t] + (FAULT(causal_mask) ? 1 : 0) >= (int64_t)1 << depth)
            depth++;
    return depth;
}

/* The shape of a launch. Rows that need fewer ranges leave the others out. */
struct few_grid {
    int gh;
    int64_t n_ranges, n_groups; /* n_groups: of a token */
    size_t token_bytes;         /* of parts */
};

static struct few_grid few_grid_of(const struct node *n) {
    struct few_grid g;
    const int depth = attn_depth(n);
    const int64_t n_kv = n->p.attn.n_head_kv, group = n->p.attn.n_head / n_kv;
    g.gh = few_heads(n);
    g.n_ranges = depth == ONE_RANGE_LOG2                    ? 1
                 : depth < MIN_RANGE_LOG2 + MAX_RANGES_LOG2 ? 1 << (depth - MIN_RANGE_LOG2)
                                                            : MAX_RANGES;
    g.n_groups = n_kv * div_up(group, g.gh) * few_chunks((int)n->p.attn.n_embd_head_v);
    g.token_bytes = (size_t)(g.n_groups * g.n_ranges) * (size_t)g.gh * (COLS + 4) * sizeof(float);
    return g;
}

/* Tokens of a slice. */
static int64_t few_slice(const struct node *n, const struct few_grid *g) {
    int64_t slice = n->src[0]->ne[1];
    const int64_t fit = (int64_t)(PARTS_BYTES / g->token_bytes);
    if (g->n_ranges > 1 && slice > fit) slice = fit;
    if (g->n_ranges > 1 && slice > COUNTERS / g->n_groups) slice = COUNTERS / g->n_groups;
    return slice < 1 ? 1 : slice < 32768 ? slice : 32768;
}

static bool is_many(const struct node *n) {
    return node_tokens(n) > FEW_TOKENS && attn_many_can(n);
}

size_t attn_parts_bytes(const struct node *n) {
    if (is_many(n)) return 0;
    const struct few_grid g = few_grid_of(n);
    return g.n_ranges == 1 ? 0 : ATTN_COUNTER_BYTES + (size_t)few_slice(n, &g) * g.token_bytes;
}

int attn_few(struct cuda_device *d, const struct node *n, struct attn_args *a, struct err *e) {
    int rc = 0;
    const struct few_grid g = few_grid_of(n);
    const few_kernel kernel = few_kernel_of(a, g.gh);
    const int64_t slice = few_slice(n, &g), n_tok = a->n_tok;
    a->n_done = (unsigned *)d->parts.p;
    a->parts = (float *)(d->parts.p + ATTN_COUNTER_BYTES);
    for (int64_t t = 0; t < n_tok; t += slice) {
        struct attn_args s = *a;
        s.n_tok = (int)(n_tok - t < slice ? n_tok - t : slice);
        s.q += (size_t)t * a->q_stride;
        s.dst += (size_t)t * a->dst_stride;
        s.first += t;
        s.pos += t;
        if (a->acts.q) s.acts = acts_from(a->acts, t, (int64_t)a->n_head * a->v.hd);
        LAUNCH(kernel, dim3((unsigned)g.n_ranges, (unsigned)g.n_groups, (unsigned)s.n_tok), THREADS,
               few_shared_bytes(&s, g.gh), s);
    }
out:
    return rc;
}

static struct attn_cache cache_of(const struct dtensor *t, int64_t hd) {
    struct attn_cache c = { t->p,  t->stride, (int)hd, (int)qtype_row_bytes(t->type, hd),
                            false, t->type };
    c.vec = ((uintptr_t)c.p | c.stride | (size_t)c.head_bytes) % 16 == 0;
    return c;
}

/* Seeded fault: the last head is taken for the first. */
static void reverse_heads(struct attn_cache *c, int64_t n_head) {
    c->p += (n_head - 1) * c->head_bytes;
    c->head_bytes = -c->head_bytes;
}

int attn_run(struct cuda_device *d, const struct node *n, bool acts, struct err *e) {
    int rc = 0;
    const struct dtensor q = device_tensor(d, n->src[0]), k = device_tensor(d, n->src[1]);
    const bool v_is_k = FAULT(v_is_k) && n->src[2]->type == QT_q8_0;
    const struct dtensor v = device_tensor(d, n->src[v_is_k ? 1 : 2]);
    const struct dtensor dst = device_tensor(d, n->dst);
    struct attn_args a = { q.p,
                           q.stride,
                           cache_of(&k, n->p.attn.n_embd_head_k),
                           cache_of(&v, n->p.attn.n_embd_head_v),
                           (const int32_t *)device_tensor(d, n->src[3]).p,
                           (const int32_t *)device_tensor(d, n->src[4]).p,
                           dst.p,
                           dst.stride,
                           (int)q.rows,
                           (int)n->p.attn.n_head,
                           (int)(n->p.attn.n_head / n->p.attn.n_head_kv),
                           n->p.attn.scale,
                           NULL,
                           NULL,
                           { NULL, NULL, NULL } };
    if (FAULT(attn_scale)) a.scale *= a.scale;
    if (FAULT(kv_head_order)) {
        reverse_heads(&a.k, n->p.attn.n_head_kv);
        reverse_heads(&a.v, n->p.attn.n_head_kv);
    }
    if (acts) a.acts = acts_room(d, &dst);
    TRY(is_many(n) ? attn_many(d, n, &a, e) : attn_few(d, n, &a, e));
    if (acts) acts_made(d, &dst);
out:
    return rc;
}

bool attn_makes_acts(const struct node *n) {
    return !is_many(n) && n->p.attn.n_embd_head_v % 32 == 0;
}

int op_attn_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return attn_run(d, n, false, e);
}
