/* SPDX-License-Identifier: MIT
 * attn_many_cuda.cu - attention of many tokens on tensor cores: tiles of the cache stream by, the
 * softmax is corrected on the way (Dao et al. 2022), and nothing of size n_tok x n_kv exists.
 *
 * Grid [rows / 64, kv heads], block of 4 warps; a row is a token and a head of the group, so heads
 * that share K and V share its tile. 64 cells at a time: K and V as binary16 in shared memory, and q,
 * 67 KiB for heads of 128. Compute bound.
 *
 * q and the exponentials are split into two binary16 each (22 bits), q after its row was scaled by a
 * power of two to below 2, so a result is as good as binary32 makes it; the price is twice the
 * products. K and V of a q8_0 cache are rounded to binary16.
 *
 * A row sees its own cells in steps of 64 from its first one on; cells that it does not see change
 * no bit of it, whatever other rows the tile has. Elements of K and V that are not finite are taken
 * out of a tile, and their products added by hand to the rows that see them. */
#include "cuda/attn.cuh"

#define THREADS 128
#define ROWS 64  /* of a tile */
#define CELLS 64 /* of a step */
#define LOG2_E 1.4426950408889634f

template <int HD> struct many_shape {
    static constexpr int PITCH = HD + 8; /* halfs: no bank conflicts of ldmatrix */
    static constexpr size_t TILE_BYTES = (size_t)CELLS * PITCH * 2;
    /* fragments of q: [HD / 16][2][THREADS] of 16 bytes, each for the thread that wrote it */
    static constexpr size_t SHARED_BYTES = 2 * TILE_BYTES + (size_t)HD / 16 * 2 * THREADS * 16;
};

/* Cells [c0, c0 + CELLS) of one head as binary16 [CELLS, PITCH]; zeros from cell `end` on. */
template <class T, int HD>
DEV void many_load(const struct attn_cache &c, int64_t c0, int64_t end, int kv_head,
                   uint16_t *to) {
    constexpr int PITCH = many_shape<HD>::PITCH;
    for (int i = (int)threadIdx.x; i < CELLS * HD / 8; i += THREADS) {
        const int cell = i / (HD / 8), at = i % (HD / 8) * 8;
        const char *head = c.p + (size_t)(c0 + cell) * c.stride +
                           (size_t)kv_head * (size_t)c.head_bytes;
        uint16_t *y = to + cell * PITCH + at;
        if (c0 + cell >= end) {
            *(uint4 *)y = make_uint4(0, 0, 0, 0);
        } else if (T::IS_F16 && c.vec) {
            cp_async16(y, head + 2 * at);
        } else {
            float v[8];
            T::kv::get4(c, head, at, v);
            T::kv::get4(c, head, at + 4, v + 4);
            *(uint4 *)y = make_uint4(pack_f16(v[0], v[1]), pack_f16(v[2], v[3]),
                                     pack_f16(v[4], v[5]), pack_f16(v[6], v[7]));
        }
    }
}

struct many_f16 {
    static constexpr bool IS_F16 = true;
    typedef kv_f16 kv;
};
struct many_q8_0 {
    static constexpr bool IS_F16 = false;
    typedef kv_q8_0 kv;
};

/* The two rows of the tile that a thread has a part of: lane / 4 and 8 below it. */
struct many_rows {
    int token[2], head[2], pos[2];
    bool real[2];
    float scale[2], max[2], sum[2]; /* sum: of the thread's own columns */
};

/* hi + lo = x with 22 bits. */
DEV void split_f16(float x, float y, uint32_t *hi, uint32_t *lo) {
    const uint16_t a = to_f16(x), b = to_f16(y);
    *hi = (uint32_t)a | (uint32_t)b << 16;
    *lo = pack_f16(x - hd_f16(a), y - hd_f16(b));
}

/* q of both rows as fragments of A, scaled by a power of two that goes into r->scale. */
template <int HD>
DEV void many_load_q(const struct attn_args &a, struct many_rows *r, uint4 *frag, int lane) {
    uint32_t hi[HD / 16][4], lo[HD / 16][4];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const float *q = (const float *)(a.q + (size_t)r->token[k] * a.q_stride) +
                         (int64_t)r->head[k] * HD;
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

/* s = s + q k^T of the step's 64 cells. */
template <int HD>
DEV void many_scores(const uint4 *frag, const uint16_t *k, int lane, float s[CELLS / 8][4]) {
#pragma unroll
    for (int i = 0; i < HD / 16; i += 2) {
        uint32_t q[4][4]; /* hi and lo of columns 16 i, then of the next 16 */
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const uint4 x = frag[(2 * i + m) * THREADS];
            q[m][0] = x.x, q[m][1] = x.y, q[m][2] = x.z, q[m][3] = x.w;
        }
#pragma unroll
        for (int j = 0; j < CELLS / 8; j++) {
            uint32_t b[4];
            ldmatrix4(b, k + (8 * j + lane % 8) * many_shape<HD>::PITCH + 16 * i + 8 * (lane / 8));
            mma_f16(s[j], q[0], b);
            mma_f16(s[j], q[1], b);
            mma_f16(s[j], q[2], b + 2);
            mma_f16(s[j], q[3], b + 2);
        }
    }
}

/* Scores become exponentials of what each row sees, cells from c0 (of its sequence) on; returns the
 * factor that corrects what was added up before. */
DEV void many_softmax(struct many_rows *r, float s[CELLS / 8][4], int c0, const bool *in, int lane,
                      float alpha[2]) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float max = r->max[k];
#pragma unroll
        for (int j = 0; j < CELLS / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int cell = c0 + 8 * j + lane % 4 * 2 + i;
                float *x = &s[j][2 * k + i];
                *x = in[k] && cell <= r->pos[k] ? *x * r->scale[k] : -INFINITY;
                max = max_nan(max, *x);
            }
        max = max_nan(max, __shfl_xor_sync(FULL_WARP, max, 1));
        max = max_nan(max, __shfl_xor_sync(FULL_WARP, max, 2));
        const bool nothing = max == -INFINITY; /* no cell seen yet */
        alpha[k] = nothing ? 1.0f : exp2_fast(r->max[k] - max);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < CELLS / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[j][2 * k + i];
                *x = nothing ? 0.0f : exp2_fast(*x - max);
                sum += *x;
            }
        r->sum[k] = fmaf(r->sum[k], alpha[k], sum);
        r->max[k] = max;
    }
}

/* Whether one of the elements that this thread fetched is not finite. */
template <int HD> DEV bool many_bad(const uint16_t *tile) {
    uint32_t bad = 0;
    for (int i = (int)threadIdx.x; i < CELLS * HD / 8; i += THREADS) {
        const uint4 x =
            *(const uint4 *)(tile + i / (HD / 8) * many_shape<HD>::PITCH + i % (HD / 8) * 8);
        const uint32_t w[4] = { x.x, x.y, x.z, x.w };
#pragma unroll
        for (int k = 0; k < 4; k++) /* an exponent of ones, plus one, reaches the sign */
            bad |= ((w[k] & 0x7C007C00u) + 0x04000400u) & 0x80008000u;
    }
    return bad != 0;
}

DEV bool is_bad(uint16_t h) {
    return (h & 0x7C00u) == 0x7C00u;
}

/* What is not finite becomes 0 for the tensor cores. */
template <int HD> DEV void many_clean(uint16_t *tile) {
    __syncthreads();
    for (int i = (int)threadIdx.x; i < CELLS * HD; i += THREADS) {
        uint16_t *x = tile + i / HD * many_shape<HD>::PITCH + i % HD;
        if (is_bad(*x)) *x = 0;
    }
    __syncthreads();
}

/* A tile with keys that are not finite: s = their products with q. (Infinity times either half of q
 * would be infinity less infinity.) */
template <int HD>
DEV void many_bad_keys(const struct attn_args &a, const struct many_rows &r, uint16_t *keys,
                       float s[CELLS / 8][4]) {
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int j = 0; j < CELLS / 8 * 4; j++) {
        const uint16_t *key =
            keys + (j / 4 * 8 + lane % 4 * 2 + j % 2) * many_shape<HD>::PITCH;
        const float *q = (const float *)(a.q + (size_t)r.token[j % 4 / 2] * a.q_stride) +
                         (int64_t)r.head[j % 4 / 2] * HD;
#pragma unroll 1
        for (int i = 0; i < HD; i++)
            if (is_bad(key[i])) s[j / 4][j % 4] += q[i] * hd_f16(key[i]);
    }
    many_clean<HD>(keys);
}

/* A tile with values that are not finite: rows that see one get it. How large its weight is does not
 * matter. */
template <int HD>
DEV void many_bad_values(const struct many_rows &r, float acc[HD / 8][4], int c0, const bool *in,
                         uint16_t *values) {
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < HD / 8 * 4; i++)
#pragma unroll 1
        for (int cell = 0; cell < CELLS; cell++) {
            const uint16_t v =
                values[cell * many_shape<HD>::PITCH + i / 4 * 8 + lane % 4 * 2 + i % 2];
            if (is_bad(v) && in[i % 4 / 2] && c0 + cell <= r.pos[i % 4 / 2])
                acc[i / 4][i % 4] += hd_f16(v);
        }
    many_clean<HD>(values);
}

/* acc = acc + p v. */
template <int HD>
DEV void many_values(float acc[HD / 8][4], float s[CELLS / 8][4], const uint16_t *v, int lane) {
#pragma unroll
    for (int j = 0; j < CELLS / 16; j++) {
        uint32_t hi[4], lo[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            split_f16(s[2 * j + k / 2][2 * (k % 2)], s[2 * j + k / 2][2 * (k % 2) + 1], &hi[k],
                      &lo[k]);
#pragma unroll
        for (int i = 0; i < HD / 8; i += 2) {
            uint32_t b[4];
            ldmatrix4_trans(b, v + (16 * j + lane % 16) * many_shape<HD>::PITCH + 8 * i +
                                   8 * (lane / 16));
            mma_f16(acc[i], hi, b);
            mma_f16(acc[i], lo, b);
            mma_f16(acc[i + 1], hi, b + 2);
            mma_f16(acc[i + 1], lo, b + 2);
        }
    }
}

DEV void many_row(const struct attn_args &a, struct many_rows *r, int k, int row, int kv_head) {
    r->real[k] = row < a.n_tok * a.group;
    r->token[k] = r->real[k] ? row / a.group : a.n_tok - 1;
    r->head[k] = kv_head * a.group + (r->real[k] ? row % a.group : 0);
    r->pos[k] = last_of(a, r->token[k]);
    r->max[k] = -INFINITY;
    r->sum[k] = 0;
}

template <class K, class V, int HD>
static __global__ void __launch_bounds__(THREADS, 1) attn_many_kernel(struct attn_args a) {
    await_previous();
    SHARED(shared);
    uint16_t *ks = (uint16_t *)shared, *vs = ks + CELLS * many_shape<HD>::PITCH;
    const int lane = (int)threadIdx.x % WARP, kv_head = (int)blockIdx.y;
    const int row0 = (int)blockIdx.x * ROWS;
    struct many_rows r;
    uint4 *frag = (uint4 *)(shared + 2 * many_shape<HD>::TILE_BYTES) + threadIdx.x;
    float acc[HD / 8][4];
#pragma unroll
    for (int k = 0; k < 2; k++)
        many_row(a, &r, k, row0 + (int)threadIdx.x / WARP * 16 + lane / 4 + 8 * k, kv_head);
    many_load_q<HD>(a, &r, frag, lane);
#pragma unroll
    for (int i = 0; i < HD / 8 * 4; i++)
        acc[i / 4][i % 4] = 0;
    const int end_row = row0 + ROWS < a.n_tok * a.group ? row0 + ROWS : a.n_tok * a.group;
    const int end = (end_row - 1) / a.group + 1; /* behind the last token */
    for (int t0 = row0 / a.group, t1; t0 < end; t0 = t1) {
        /* tokens of the tile that share a first cell */
        const int first = first_of(a, t0);
        int last = 0; /* position of the last cell that one of them sees */
        for (t1 = t0; t1 < end && first_of(a, t1) == first; t1++)
            last = last_of(a, t1) > last ? last_of(a, t1) : last;
        const bool in[2] = { r.token[0] >= t0 && r.token[0] < t1,
                             r.token[1] >= t0 && r.token[1] < t1 };
        for (int c0 = 0; c0 <= last; c0 += CELLS) {
            float s[CELLS / 8][4], alpha[2];
            many_load<K, HD>(a.k, (int64_t)first + c0, (int64_t)first + last + 1, kv_head, ks);
            cp_async_commit();
            many_load<V, HD>(a.v, (int64_t)first + c0, (int64_t)first + last + 1, kv_head, vs);
            cp_async_commit();
#pragma unroll
            for (int i = 0; i < CELLS / 8 * 4; i++)
                s[i / 4][i % 4] = 0;
            if (FAULT_IN(a, q8_cache_pp) && !K::IS_F16 && threadIdx.x == 0) ks[0] = 0x7E00u;
            cp_async_wait<1>();
            if (__syncthreads_or(many_bad<HD>(ks))) many_bad_keys<HD>(a, r, ks, s);
            many_scores<HD>(frag, ks, lane, s);
            many_softmax(&r, s, c0, in, lane, alpha);
            if (FAULT_IN(a, attn_beyond_256) && c0 >= 256) alpha[0] = alpha[1] = 1;
#pragma unroll
            for (int i = 0; i < HD / 8 * 4; i++)
                acc[i / 4][i % 4] *= alpha[i % 4 / 2];
            cp_async_wait<0>();
            if (__syncthreads_or(many_bad<HD>(vs)))
                many_bad_values<HD>(r, acc, c0, in, vs);
            many_values<HD>(acc, s, vs, lane);
            __syncthreads(); /* the tiles are filled again */
        }
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        float sum = r.sum[k];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        if (!r.real[k]) continue;
        float *y = (float *)(a.dst + (size_t)r.token[k] * a.dst_stride) +
                   (int64_t)r.head[k] * HD + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < HD / 8; i++) {
            y[8 * i] = acc[i][2 * k] / sum;
            y[8 * i + 1] = acc[i][2 * k + 1] / sum;
        }
    }
}

/* ---- launching -------------------------------------------------------------------------------- */

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
    return k ? v ? many_heads<many_f16, many_f16>(d, a, e) : many_heads<many_f16, many_q8_0>(d, a, e)
           : v ? many_heads<many_q8_0, many_f16>(d, a, e)
               : many_heads<many_q8_0, many_q8_0>(d, a, e);
}
