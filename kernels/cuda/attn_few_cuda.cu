/* SPDX-License-Identifier: MIT
 * attn_few_cuda.cu - attention of few tokens: the cache is cut into ranges of 256 cells that blocks
 * work on at the same time, in binary32; also any number of tokens for what the tensor cores cannot
 * do (F32 caches, odd head sizes).
 *
 * Grid [ranges, kv heads x chunks of heads, tokens], block of 4 warps, GH heads of a group at once.
 * Scores: 8 lanes a cell. Values: a warp every 4th cell, 4 columns a lane. Shared: (GH (hd_k + 256) +
 * 4 GH hd_v) x 4 bytes, 28 KiB for GH = 8 and heads of 128. Reads the cells once for each chunk of
 * heads: memory bound.
 *
 * With one range a row is finished at once; otherwise every range leaves its sum, maximum and sum of
 * exponentials, and combine adds ranges in order. A row's bits depend on its own position alone. */
#include "cuda/attn.cuh"

#define RANGE 256 /* cells */
#define RANGE_LOG2 8
#define THREADS 128
#define PARTS_BYTES ((size_t)64 << 20) /* tokens are taken in slices whose ranges fit */

struct few_shared {
    float *q, *score, *red, *max, *sum;
};

template <int GH> DEV struct few_shared few_layout(const struct attn_args &a, unsigned char *p) {
    struct few_shared s;
    s.q = (float *)p;
    s.score = s.q + GH * ((a.k.hd + 3) / 4 * 4);
    s.red = s.score + GH * RANGE;
    s.max = s.red + 4 * GH * ((a.v.hd + 3) / 4 * 4);
    s.sum = s.max + GH;
    return s;
}

static size_t few_shared_bytes(const struct attn_args *a, int gh) {
    return (size_t)gh *
           (size_t)((a->k.hd + 3) / 4 * 4 + RANGE + 4 * ((a->v.hd + 3) / 4 * 4) + 2) *
           sizeof(float);
}

/* score[g][j] of cells [c0, c0 + n) of the cache. */
template <class K, int GH>
DEV void few_scores(const struct attn_args &a, const struct few_shared &s, int64_t c0, int n,
                    int kv_head, int n_heads) {
    const int lane = (int)threadIdx.x % WARP, part = lane % 8, hd4 = (a.k.hd + 3) / 4 * 4;
    for (int j0 = 0; j0 < n; j0 += THREADS / 8) {
        const int j = j0 + (int)threadIdx.x / 8;
        const char *head = a.k.p + (size_t)(c0 + (j < n ? j : 0)) * a.k.stride +
                           (size_t)kv_head * (size_t)a.k.head_bytes;
        float sum[GH];
#pragma unroll
        for (int g = 0; g < GH; g++)
            sum[g] = 0;
        for (int i = 4 * part; i < a.k.hd; i += 32) {
            float k[4];
            kv_get4<K>(a.k, head, i, k);
#pragma unroll
            for (int g = 0; g < GH; g++) {
                const float4 q = *(const float4 *)(s.q + g * hd4 + i);
                sum[g] = fmaf(q.w, k[3], fmaf(q.z, k[2], fmaf(q.y, k[1], fmaf(q.x, k[0], sum[g]))));
            }
        }
#pragma unroll
        for (int g = 0; g < GH; g++) {
#pragma unroll
            for (int m = 4; m > 0; m /= 2)
                sum[g] += __shfl_xor_sync(FULL_WARP, sum[g], m);
            if (part == 0 && j < n && g < n_heads) s.score[g * RANGE + j] = sum[g] * a.scale;
        }
    }
}

/* Scores become exponentials; max[g] and sum[g]. A warp a head. */
template <int GH> DEV void few_softmax(const struct few_shared &s, int n, int n_heads) {
    const int lane = (int)threadIdx.x % WARP;
    for (int g = (int)threadIdx.x / WARP; g < n_heads; g += THREADS / WARP) {
        float *p = s.score + g * RANGE, max = -INFINITY, sum = 0;
        for (int j = lane; j < n; j += WARP)
            max = max_nan(max, p[j]);
        max = warp_max_nan(max);
        for (int j = lane; j < n; j += WARP)
            sum += p[j] = max == -INFINITY ? 0 : expf(p[j] - max); /* no key matters here */
        sum = warp_sum(sum);
        if (lane == 0) s.max[g] = max, s.sum[g] = sum;
    }
}

/* red[warp][g][i] = sum of exponential times value over the warp's cells. */
template <class V, int GH>
DEV void few_values(const struct attn_args &a, const struct few_shared &s, int64_t c0, int n,
                    int kv_head) {
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int hd4 = (a.v.hd + 3) / 4 * 4;
    for (int i = 4 * lane; i < a.v.hd; i += 4 * WARP) {
        float acc[GH][4];
#pragma unroll
        for (int g = 0; g < 4 * GH; g++)
            acc[g / 4][g % 4] = 0;
#pragma unroll 4
        for (int j = warp; j < n; j += THREADS / WARP) {
            float v[4];
            kv_get4<V>(a.v, a.v.p + (size_t)(c0 + j) * a.v.stride +
                                (size_t)kv_head * (size_t)a.v.head_bytes,
                       i, v);
#pragma unroll
            for (int g = 0; g < GH; g++) {
                const float p = s.score[g * RANGE + j];
#pragma unroll
                for (int k = 0; k < 4; k++)
                    acc[g][k] = fmaf(p, v[k], acc[g][k]);
            }
        }
#pragma unroll
        for (int g = 0; g < 4 * GH; g++)
            s.red[(warp * GH + g / 4) * hd4 + i + g % 4] = acc[g / 4][g % 4];
    }
}

/* Element `at` of a head's result; with acts a warp has 32 in a row. */
DEV void few_result(const struct attn_args &a, int t, int head, int at, float y) {
    const int i = head * a.v.hd + at;
    ((float *)(a.dst + (size_t)t * a.dst_stride))[i] = y;
    if (a.acts.q) acts_put(a.acts, t, (int64_t)a.n_head * a.v.hd, i / 32, y);
}

template <class K, class V, int GH>
static __global__ void __launch_bounds__(THREADS, 1) attn_few_kernel(struct attn_args a) {
    await_previous();
    SHARED(shared);
    const struct few_shared s = few_layout<GH>(a, shared);
    const int range = (int)blockIdx.x, t = (int)blockIdx.z;
    const int n_chunks = (a.group + GH - 1) / GH, kv_head = (int)blockIdx.y / n_chunks;
    const int h0 = (int)blockIdx.y % n_chunks * GH; /* in the group */
    const int n_heads = a.group - h0 < GH ? a.group - h0 : GH;
    const int last = last_of(a, t);
    const int n = last + 1 - range * RANGE < RANGE ? last + 1 - range * RANGE : RANGE;
    if (n <= 0) return; /* the whole block */
    const int64_t c0 = (int64_t)first_of(a, t) + range * RANGE;
    const int hd4 = (a.k.hd + 3) / 4 * 4, v4 = (a.v.hd + 3) / 4 * 4;
    const float *q = (const float *)(a.q + (size_t)t * a.q_stride) +
                     ((int64_t)kv_head * a.group + h0) * a.k.hd;
    for (int i = (int)threadIdx.x; i < GH * hd4; i += THREADS)
        s.q[i] = i / hd4 < n_heads && i % hd4 < a.k.hd ? q[i / hd4 * a.k.hd + i % hd4] : 0;
    for (int i = (int)threadIdx.x; i < GH * RANGE; i += THREADS)
        s.score[i] = 0;
    __syncthreads();
    few_scores<K, GH>(a, s, c0, n, kv_head, n_heads);
    __syncthreads();
    few_softmax<GH>(s, n, n_heads);
    __syncthreads();
    few_values<V, GH>(a, s, c0, n, kv_head);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_heads * a.v.hd; i += THREADS) {
        const int g = i / a.v.hd, at = i % a.v.hd, head = kv_head * a.group + h0 + g;
        float y = s.red[g * v4 + at];
        for (int w = 1; w < THREADS / WARP; w++)
            y += s.red[(w * GH + g) * v4 + at];
        if (a.n_ranges == 1) {
            few_result(a, t, head, at, y / s.sum[g]);
            continue;
        }
        float *part = a.parts + (((int64_t)t * a.n_head + head) * a.n_ranges + range) *
                                    (a.v.hd + 2);
        part[at] = y;
        if (at == 0) part[a.v.hd] = s.max[g], part[a.v.hd + 1] = s.sum[g];
    }
}

/* Grid [heads, tokens]: the ranges of a row, in order. */
static __global__ void __launch_bounds__(THREADS) attn_combine_kernel(struct attn_args a) {
    await_previous();
    const int head = (int)blockIdx.x, t = (int)blockIdx.y, n_all = last_of(a, t) / RANGE + 1;
    const int n = n_all - (FAULT_IN(a, last_range) && n_all > 1);
    const float *part = a.parts + ((int64_t)t * a.n_head + head) * a.n_ranges * (a.v.hd + 2);
    float max = -INFINITY, sum = 0;
    for (int r = 0; r < n; r++)
        max = max_nan(max, part[(int64_t)r * (a.v.hd + 2) + a.v.hd]);
    for (int r = 0; r < n; r++) {
        const float *p = part + (int64_t)r * (a.v.hd + 2) + a.v.hd;
        sum = fmaf(p[1], expf(p[0] - max), sum);
    }
    for (int i = (int)threadIdx.x; i < a.v.hd; i += THREADS) {
        float y = 0;
        for (int r = 0; r < n; r++) {
            const float *p = part + (int64_t)r * (a.v.hd + 2);
            y = fmaf(p[i], FAULT_IN(a, attn_beyond_256) ? 1.0f : expf(p[a.v.hd] - max), y);
        }
        few_result(a, t, head, i, y / sum);
    }
}

/* ---- launching -------------------------------------------------------------------------------- */

typedef void (*few_kernel)(struct attn_args a);

template <class K, class V> static few_kernel few_of(int gh) {
    return gh == 1 ? &attn_few_kernel<K, V, 1>
         : gh == 2 ? &attn_few_kernel<K, V, 2>
         : gh == 4 ? &attn_few_kernel<K, V, 4>
                   : &attn_few_kernel<K, V, 8>;
}

template <class K> static few_kernel few_for(enum qtype v, int gh) {
    return v == QT_f32   ? few_of<K, kv_f32>(gh)
           : v == QT_f16 ? few_of<K, kv_f16>(gh)
                         : few_of<K, kv_q8_0>(gh);
}

int attn_depth(const struct node *n) {
    const int32_t *pos = (const int32_t *)n->src[4]->data;
    int depth = RANGE_LOG2;
    for (int64_t t = 0; t < n->src[0]->ne[1]; t++)
        while (pos[t] >= (int64_t)1 << depth)
            depth++;
    return depth;
}

/* Ranges that a launch covers. A row that needs fewer is combined from those it has, so its bits
 * are the same. */
int attn_few_ranges(const struct node *n) {
    const int64_t most = (n->src[1]->ne[1] + RANGE - 1) / RANGE;
    const int64_t now = ((int64_t)1 << attn_depth(n)) / RANGE;
    return (int)(now < most ? now : most);
}

/* Tokens of a slice. */
static int64_t few_slice(const struct node *n) {
    const int64_t n_tok = n->src[0]->ne[1];
    const size_t row = (size_t)n->p.attn.n_head * (size_t)attn_few_ranges(n) *
                       (size_t)(n->p.attn.n_embd_head_v + 2) * sizeof(float);
    const int64_t fit = (int64_t)(PARTS_BYTES / row);
    return fit < 1 ? 1 : fit < n_tok ? fit : n_tok;
}

static bool is_many(const struct node *n) {
    return node_tokens(n) > FEW_TOKENS && attn_many_can(n);
}

size_t attn_parts_bytes(const struct node *n) {
    if (is_many(n)) return 0;
    const int64_t ranges = attn_few_ranges(n);
    if (ranges == 1) return 0;
    return (size_t)few_slice(n) * (size_t)n->p.attn.n_head * (size_t)ranges *
           (size_t)(n->p.attn.n_embd_head_v + 2) * sizeof(float);
}

int attn_few(struct cuda_device *d, const struct node *n, struct attn_args *a, struct err *e) {
    int rc = 0;
    const enum qtype k = (enum qtype)n->src[1]->type, v = (enum qtype)n->src[2]->type;
    const int gh = a->group <= 1 ? 1 : a->group <= 2 ? 2 : a->group <= 4 ? 4 : 8;
    const few_kernel kernel = k == QT_f32   ? few_for<kv_f32>(v, gh)
                              : k == QT_f16 ? few_for<kv_f16>(v, gh)
                                            : few_for<kv_q8_0>(v, gh);
    const int64_t slice = few_slice(n) < 32768 ? few_slice(n) : 32768, n_tok = a->n_tok;
    a->parts = (float *)d->parts.p;
    a->n_ranges = attn_few_ranges(n);
    for (int64_t t = 0; t < n_tok; t += slice) {
        struct attn_args s = *a;
        s.n_tok = (int)(n_tok - t < slice ? n_tok - t : slice);
        s.q += (size_t)t * a->q_stride;
        s.dst += (size_t)t * a->dst_stride;
        s.first += t;
        s.pos += t;
        if (a->acts.q) s.acts = acts_from(a->acts, t, (int64_t)a->n_head * a->v.hd);
        LAUNCH(kernel,
               dim3((unsigned)s.n_ranges, (unsigned)(s.n_head / s.group) * div_up(s.group, gh),
                    (unsigned)s.n_tok),
               THREADS, few_shared_bytes(&s, gh), s);
        if (s.n_ranges > 1)
            LAUNCH(attn_combine_kernel, dim3((unsigned)s.n_head, (unsigned)s.n_tok), THREADS, 0,
                   s);
    }
out:
    return rc;
}

static struct attn_cache cache_of(const struct dtensor *t, int64_t hd) {
    struct attn_cache c = { t->p, t->stride, (int)hd, (int)qtype_row_bytes(t->type, hd), false };
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
                           1,
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
