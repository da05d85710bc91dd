/* SPDX-License-Identifier: MIT
 * gemv_tensor.cuh - IQ2_KT and IQ4_KT times 1 to 8 tokens on int8 tensor cores: every weight is read
 * once, and what bounds gemv.cuh, one multiply-add a weight, leaves the lanes.
 *
 * A state's four bytes, whose sum is the weight, meet the weight's activation four times in
 * mma.sync m16n8k32. Of the operand A a lane has whole sub-blocks of two rows, so the four lanes of a
 * row have four sub-blocks, whose scales differ: operand B has a column for each of them, with the
 * activations of that sub-block where its lane is, and zeros elsewhere. 4 columns a token, so two
 * tokens a product.
 *
 * A block has 8 warps and 16 rows at a time (of a gated unit 8 of both matrices), tile after tile; a
 * warp every 8th block of 256 weights. Raw bytes come in copies of 16, 3 blocks of 256 ahead, beyond
 * the end of a tile too, the first ones while the kernel that makes the activations still runs. The
 * activations lie in shared memory repeated four times if there is room (up to 2 tokens), beside what
 * sub-blocks begin with (the offset of the weights) and their scales. Shared: 30 to 74 KiB and K x 4
 * bytes a token.
 *
 * Sums: a warp adds its sub-blocks in order, then the 8 warps are added in order; they depend neither
 * on the number of tokens nor on which rows a block has. For matrices with a multiple of 16 rows. */
#ifndef GGAUGE_GEMV_TENSOR_CUH
#define GGAUGE_GEMV_TENSOR_CUH

#include "cuda/gemv.cuh"

#define TENSOR_WARPS 8
#define TENSOR_THREADS (TENSOR_WARPS * WARP)
#define TENSOR_ROWS 16 /* of a tile */
#define TENSOR_STAGES 4
#define TENSOR_X_MOST ((size_t)64 << 10) /* of repeated activations in shared memory */

template <class D> struct tensor_shape {
    static constexpr int PIECES = (D::BYTES + 12 + 15) / 16; /* of a row's block, wherever it begins */
    static constexpr int PITCH = 16 * PIECES;
    static constexpr int COPIES = (TENSOR_ROWS * PIECES + WARP - 1) / WARP; /* of a lane */
    static constexpr int STAGE = 16 * WARP * COPIES;
    static constexpr int RAW = TENSOR_WARPS * TENSOR_STAGES * STAGE;
    static_assert(TENSOR_WARPS * D::BYTES % 16 == 0, "a warp's blocks are aligned alike");
};

/* Where things are in shared memory, behind the raw bytes. */
struct tensor_layout {
    int sums;  /* [2][TENSOR_WARPS][n_tok][TENSOR_ROWS] floats */
    int table; /* [n_tok][n / 64] of struct tensor_pair */
    int zero;  /* 128 bytes */
    int x;     /* [n_tok][n / 32][32] words */
    size_t bytes;
};

/* Of two sub-blocks in a row: their sums' beginning, their scales. */
struct tensor_pair {
    int start[2];
    float d[2];
};

template <class D>
static inline __host__ __device__ struct tensor_layout tensor_layout_of(int n, int n_tok, bool repeated) {
    struct tensor_layout l;
    l.sums = tensor_shape<D>::RAW;
    l.table = l.sums + 2 * TENSOR_WARPS * TENSOR_ROWS * n_tok * 4;
    l.zero = l.table + n_tok * (n / 64) * 16;
    l.zero = (l.zero + 127) / 128 * 128;
    l.x = l.zero + 128;
    l.bytes = (size_t)l.x + (repeated ? (size_t)n_tok * (size_t)n * 4 : 0);
    return l;
}

/* ---- weights -------------------------------------------------------------------------------------
 * tensor_decoder: load: what sub-block t + 4 h of a block is made from; states: the four of its word w. */

template <class D> struct tensor_decoder {
    static constexpr bool HAS = false;
};

DEV void tensor_states(uint32_t x, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t p3, uint32_t m[4]) {
    m[0] = x * p0 & KT_MASK, m[1] = x * p1 & KT_MASK;
    m[2] = x * p2 & KT_MASK, m[3] = x * p3 & KT_MASK;
}

template <> struct tensor_decoder<dec_iq4_kt> {
    static constexpr bool HAS = true;
    struct parts {
        uint32_t seed[8];
        int scale;
    };
    static __device__ __forceinline__ struct parts load(const uint8_t *blk, int t, int h) {
        struct iq4_kt_parts p;
        struct parts o;
        hd_words4(blk + 4 * t + 16 * h, &p.S, 1);
        hd_words4(blk + 32 + 8 * t + 32 * h, p.ql, 2);
        hd_words4(blk + 96 + 8 * t, p.qh, 2);
#pragma unroll
        for (int i = 0; i < 2; i++)
            p.qh[i] = p.qh[i] >> 4 * h & 0x0F0F0F0Fu;
        p.base = (p.S << 15 & KT_BASE_STEP) + KT_BASE;
#pragma unroll
        for (int i = 0; i < 4; i++)
            iq4_kt_seeds(&p, i, o.seed + 2 * i);
        o.scale = (int)(p.S >> 1 & 127u) - 64;
        return o;
    }
    static __device__ __forceinline__ void states(const struct parts &p, int w, uint32_t m[4]) {
        tensor_states(p.seed[w], KT_P1, KT_P2, KT_P3, KT_P4, m);
    }
};

template <> struct tensor_decoder<dec_iq2_kt> {
    static constexpr bool HAS = true;
    struct parts {
        uint32_t seed[4];
        int scale;
    };
    static __device__ __forceinline__ struct parts load(const uint8_t *blk, int t, int h) {
        struct parts o;
        kt_seeds4(blk, t + 4 * h, o.seed);
        o.scale = kt_scale_value(kt_scale_nibble(blk, t + 4 * h));
        return o;
    }
    static __device__ __forceinline__ void states(const struct parts &p, int w, uint32_t m[4]) {
        if (w % 2)
            tensor_states(p.seed[w / 2], KT_P5, KT_P6, KT_P7, KT_P8, m);
        else
            tensor_states(p.seed[w / 2], KT_P1, KT_P2, KT_P3, KT_P4, m);
    }
};

/* ---- rows ----------------------------------------------------------------------------------------- */

/* A tile's rows: 8 of one matrix and 8 of the same or the other one. */
struct tensor_tile {
    struct gemv_matrix m[2];
    int64_t r[2]; /* the first of each */
};

DEV struct tensor_tile tensor_tile_of(const struct gemv_args &a, unsigned tile) {
    struct gemv_matrix m = a.m[0];
#pragma unroll
    for (int i = 1; i < FEW_MATRICES; i++)
        if (tile >= a.m[i].first_block) m = a.m[i];
    const int64_t r = (int64_t)(tile - m.first_block) * (a.glu ? TENSOR_ROWS / 2 : TENSOR_ROWS);
    if (a.glu) return { { m, a.m[1] }, { r, r } };
    return { { m, m }, { r, r + TENSOR_ROWS / 2 } };
}

/* Row i of the tile. */
DEV const uint8_t *tensor_row(const struct tensor_tile &t, int i) {
    const struct gemv_matrix &m = i < 8 ? t.m[0] : t.m[1];
    return m.w + (size_t)((i < 8 ? t.r[0] : t.r[1]) + i % 8) * m.w_stride;
}

/* Where block `warp` of a row begins in its first 16 bytes, and with it every 8th block behind it. */
template <class D> DEV int tensor_off(const uint8_t *row, int warp) {
    return (int)((uintptr_t)(row + (D::META + warp * D::BYTES)) & 15);
}

/* Of a lane, for every tile: all rows have one length, so tiles are aligned alike (tensor_can). */
template <class D> struct tensor_lane {
    int64_t copy[tensor_shape<D>::COPIES]; /* what it copies, from the warp's block of the tile's first row */
    int blk[2];                            /* its rows' blocks, from the beginning of a stage */
    unsigned x, x_step, key; /* activations: its sub-block of the first step, how far to that of the
                                warp's next block, 16 times the swizzle */
    unsigned pair;           /* the table, likewise */
    int from;                /* the lane that has the first one's scale of two that it needs */
};

template <class D>
DEV struct tensor_lane<D> tensor_lane_of(const struct gemv_args &a, int warp, int lane) {
    typedef tensor_shape<D> S;
    const struct tensor_tile t = tensor_tile_of(a, 0);
    struct tensor_lane<D> l;
#pragma unroll
    for (int c = 0; c < S::COPIES; c++) {
        /* whoever has nothing to copy repeats what another one copies */
        const int piece = lane + WARP * c, row = piece / S::PIECES % TENSOR_ROWS;
        const uint8_t *p = tensor_row(t, row);
        const int off = tensor_off<D>(p, warp);
        const int last = (off + D::BYTES - 1) / 16, col = piece % S::PIECES < last ? piece % S::PIECES : last;
        l.copy[c] = p - t.m[0].w + 16 * col - off;
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l.blk[r] = (lane / 4 + 8 * r) * S::PITCH + tensor_off<D>(tensor_row(t, lane / 4 + 8 * r), warp);
        keep(l.blk[r]);
    }
    l.from = (lane & ~3) + lane % 2 * 2;
    keep(l.from);
    return l;
}

/* Activations: column n = lane / 4 of operand B is of token n / 4, and the lane's if n % 4 = lane % 4. */
template <class D>
DEV void tensor_lane_acts(const struct gemv_args &a, const struct tensor_layout &at, int warp, int lane,
                          struct tensor_lane<D> *l) {
    const int t = lane % 4, n = lane / 4, n_sub = a.n / 32, token = n / 4, sub = D::PER * warp + t;
    const bool active = n % 4 == t && token < a.n_tok;
    const int own = t / 2 < a.n_tok ? t / 2 : 0;
    l->x = (unsigned)(active ? at.x + 128 * (token * n_sub + sub) : at.zero);
    l->x_step = active ? 128u * D::PER * TENSOR_WARPS : 0;
    l->key = 16u * ((unsigned)(t + 4 * token) % 8);
    l->pair = (unsigned)(at.table + 16 * (own * (n_sub / 2) + D::PER / 2 * warp + t % 2));
    keep(l->x), keep(l->x_step), keep(l->key), keep(l->pair);
}

/* What is copied next, running ahead of what is multiplied. */
struct tensor_ahead {
    const uint8_t *from; /* the warp's next block of the tile's first row */
    unsigned tile;
    int left; /* blocks of the tile */
};

template <class D>
DEV const uint8_t *tensor_first(const struct gemv_args &a, unsigned tile, int warp) {
    const struct tensor_tile t = tensor_tile_of(a, tile);
    return t.m[0].w + (size_t)t.r[0] * t.m[0].w_stride + (D::META + warp * D::BYTES);
}

/* Start the copies of the next block, if there is one. */
template <class D>
DEV void tensor_load(const struct gemv_args &a, const struct tensor_lane<D> &l, struct tensor_ahead *s, int n_own,
                     unsigned n_tiles, shared_place to, int warp) {
    if (s->left == 0 && s->tile + gridDim.x < n_tiles) {
        s->tile += gridDim.x;
        s->left = n_own;
        s->from = tensor_first<D>(a, s->tile, warp);
    }
    if (s->left > 0) {
#pragma unroll
        for (int c = 0; c < tensor_shape<D>::COPIES; c++)
            cp_async16_to(to + 16 * WARP * c, s->from + l.copy[c]);
        s->from += TENSOR_WARPS * D::BYTES;
        s->left--;
    }
    cp_async_commit();
}

/* ---- activations --------------------------------------------------------------------------------- */

/* The table, and the repeated activations: 16 bytes at position c of a sub-block's 128 are at
 * c ^ (sub + 4 token) % 8, against bank conflicts. A thread has a sub-block at a time. */
DEV void tensor_acts(const struct gemv_args &a, const struct tensor_layout &l, bool repeated,
                     unsigned char *shared) {
    const int n_sub = a.n / 32;
    for (int i = (int)threadIdx.x; i < a.n_tok * n_sub; i += TENSOR_THREADS) {
        const int t = i / n_sub, sub = i % n_sub;
        const struct gemv_acts x = gemv_acts_of(a, t, sub);
        struct tensor_pair *pair = (struct tensor_pair *)(shared + l.table) + t * (n_sub / 2) + sub / 2;
        int sum = 0;
#pragma unroll
        for (int w = 0; w < 8; w++)
            sum = hd_dot4(x.q[w], 0x01010101u, sum);
        pair->start[sub % 2] = -KT_OFFSET * sum;
        pair->d[sub % 2] = x.d;
        if (!repeated) continue;
        uint4 *to = (uint4 *)(shared + l.x + 128 * i);
        const int key = (sub + 4 * t) % 8;
#pragma unroll
        for (int w = 0; w < 8; w++) {
            uint32_t four[4];
            kt_repeat(x.q[w], four);
            to[w ^ key] = make_uint4(four[0], four[1], four[2], four[3]);
        }
    }
    if (threadIdx.x < 32) ((uint32_t *)(shared + l.zero))[threadIdx.x] = 0;
}

/* A lane's part of B for word w of its sub-block, four words: repeated in shared memory at `at`, or
 * from q. */
template <bool REPEATED> struct tensor_x {
    const unsigned char *at;
    unsigned key;
    uint32_t q[REPEATED ? 1 : 8];
};

template <bool REPEATED>
DEV void tensor_x_get(const struct tensor_x<REPEATED> &x, int w, uint32_t b[4]) {
    if constexpr (REPEATED) {
        const uint4 v = *(const uint4 *)(x.at + ((unsigned)(16 * w) ^ x.key));
        b[0] = v.x, b[1] = v.y, b[2] = v.z, b[3] = v.w;
    } else {
        kt_repeat(x.q[w], b);
    }
}

/* ---- products ------------------------------------------------------------------------------------- */

/* Where a warp is: the block, and what tensor_lane has of it. */
struct tensor_now {
    int kb;
    unsigned x, pair;
};

template <bool REPEATED, class D>
DEV void tensor_x_find(const struct gemv_args &a, const struct tensor_lane<D> &l, const struct tensor_now &now,
                       unsigned char *shared, int p, int h, int lane, struct tensor_x<REPEATED> *x) {
    if constexpr (REPEATED) {
        x->at = shared + (now.x + (l.x_step ? 512u * h : 0));
        x->key = l.key ^ 64u * h;
    } else {
        const int token = 2 * p + lane / 16;
        const bool active = lane / 4 % 4 == lane % 4 && token < a.n_tok;
        const uint4 *q = (const uint4 *)(a.x.q + (size_t)(active ? token : 0) * a.n +
                                         32 * (D::PER * now.kb + 4 * h + lane % 4));
        const uint4 x0 = q[0], x1 = q[1];
        const uint32_t all[8] = { x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w };
#pragma unroll
        for (int i = 0; i < 8; i++)
            x->q[i] = active ? all[i] : 0;
    }
}

/* Sub-blocks t + 4 h of two rows, the lane's, with all tokens: acc[pair][row]. */
template <class D, int PAIRS, bool REPEATED>
DEV void tensor_step(const struct gemv_args &a, const struct tensor_lane<D> &l, const struct tensor_now &now,
                     unsigned char *shared, const uint8_t *const blk[2], int h, int lane, float acc[PAIRS][2]) {
    typedef tensor_decoder<D> T;
    typename T::parts w[2];
    struct tensor_x<REPEATED> x[PAIRS];
    struct tensor_pair pair[PAIRS];
    int sum[PAIRS][4];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        tensor_x_find<REPEATED>(a, l, now, shared, p, h, lane, &x[p]);
        /* tokens 2 p and 2 p + 1, or whoever is there */
        const int more = 2 * p + lane % 4 / 2 < a.n_tok ? 2 * p * (a.n / 64) : 0;
        pair[p] = *(const struct tensor_pair *)(shared + (now.pair + 32 * h + 16 * (p ? more : 0)));
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[p][i] = pair[p].start[i % 2];
    }
#pragma unroll
    for (int r = 0; r < 2; r++)
        w[r] = T::load(blk[r], lane % 4, h);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint32_t m[2][4];
#pragma unroll
        for (int r = 0; r < 2; r++)
            T::states(w[r], i, m[r]);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            uint32_t b[4];
            tensor_x_get(x[p], i, b);
            const uint32_t first[4] = { m[0][0], m[1][0], m[0][1], m[1][1] };
            const uint32_t second[4] = { m[0][2], m[1][2], m[0][3], m[1][3] };
            mma_s8_add(sum[p], first, b);
            mma_s8_add(sum[p], second, b + 2);
        }
    }
    /* the lane's results are of columns 2 t and 2 t + 1 */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float scale = (float)w[r].scale;
        const float s0 = __shfl_sync(FULL_WARP, scale, l.from);
        const float s1 = __shfl_sync(FULL_WARP, scale, l.from + 1);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            acc[p][r] = fmaf(s0 * pair[p].d[0], (float)sum[p][2 * r], acc[p][r]);
            acc[p][r] = fmaf(s1 * pair[p].d[1], (float)sum[p][2 * r + 1], acc[p][r]);
        }
    }
}

/* What a thread gathers of a tile: row tid % 16 of token tid / 16. */
struct tensor_result {
    char *dst;   /* NULL = none */
    float scale; /* that of the row, and the gain */
    float added;
    char *out; /* of the sum, or of the gated unit's first factor */
};

template <class D>
DEV struct tensor_result tensor_result_of(const struct gemv_args &a, unsigned tile) {
    const int i = (int)threadIdx.x % TENSOR_ROWS, tok = (int)threadIdx.x / TENSOR_ROWS;
    if (tok >= a.n_tok) return { NULL, 0, 0, NULL };
    const struct tensor_tile t = tensor_tile_of(a, tile);
    const struct gemv_matrix &m = i < 8 ? t.m[0] : t.m[1];
    const int64_t r = (i < 8 ? t.r[0] : t.r[1]) + i % 8;
    const size_t at = (size_t)r * sizeof(float);
    struct tensor_result y = { m.dst + (size_t)tok * m.dst_stride + at, row_scale<D>(tensor_row(t, i)) * a.gain, 0,
                               NULL };
    if (a.add) y.added = *(const float *)(a.add + (size_t)tok * a.add_stride + at);
    if (a.add || (a.glu && i < 8)) y.out = a.out + (size_t)tok * a.out_stride + at;
    return y;
}

/* All threads of warps that have results come here. */
DEV void tensor_put(const struct gemv_args &a, const struct tensor_result &to, const float *sums) {
    float y = 0;
    if (to.dst) {
        const int n = a.n_tok * TENSOR_ROWS;
#pragma unroll
        for (int w = 0; w < TENSOR_WARPS; w++)
            y += sums[w * n + (int)threadIdx.x];
        y *= to.scale;
        *(float *)to.dst = y;
    }
    const float other = __shfl_xor_sync(FULL_WARP, y, TENSOR_ROWS / 2);
    if (to.out) *(float *)to.out = a.glu ? swiglu(y, other) : y + to.added;
}

template <class D, int PAIRS, bool REPEATED>
static __global__ void __launch_bounds__(TENSOR_THREADS, PAIRS == 1 ? 2 : 1)
    tensor_kernel(struct gemv_args a, unsigned n_tiles) {
    typedef tensor_shape<D> S;
    SHARED(shared);
    const struct tensor_layout layout = tensor_layout_of<D>(a.n, a.n_tok, REPEATED);
    const int lane = (int)threadIdx.x % WARP, warp = warp_index();
    const int n_own = (a.n / D::BLK - warp + TENSOR_WARPS - 1) / TENSOR_WARPS; /* blocks of a row */
    unsigned char *const raw = shared + warp * TENSOR_STAGES * S::STAGE;
    struct tensor_lane<D> l = tensor_lane_of<D>(a, warp, lane);
    struct tensor_ahead ahead = { tensor_first<D>(a, blockIdx.x, warp), blockIdx.x, n_own };
    shared_place to = place_of(raw) + 16 * lane;
#pragma unroll 1
    for (int i = 0; i < TENSOR_STAGES - 1; i++)
        tensor_load<D>(a, l, &ahead, n_own, n_tiles, to + i * S::STAGE, warp);
    int stage = 0; /* the next to be used */
    await_previous(); /* who makes the activations */
    tensor_acts(a, layout, REPEATED, shared);
    tensor_lane_acts(a, layout, warp, lane, &l);
    __syncthreads();
    int turn = 0;
#pragma unroll 1
    for (unsigned tile = blockIdx.x; tile < n_tiles; tile += gridDim.x, turn ^= 1) {
        float acc[PAIRS][2] = {};
        const struct tensor_result result = tensor_result_of<D>(a, tile);
        struct tensor_now now = { warp, l.x, l.pair };
#pragma unroll 1
        for (int i = 0; i < n_own; i++) {
            cp_async_wait<TENSOR_STAGES - 2>();
            __syncwarp(); /* the block is there, and the one before was used */
            tensor_load<D>(a, l, &ahead, n_own, n_tiles,
                           to + (stage == 0 ? TENSOR_STAGES - 1 : stage - 1) * S::STAGE, warp);
            const uint8_t *const blk[2] = { raw + stage * S::STAGE + l.blk[0],
                                            raw + stage * S::STAGE + l.blk[1] };
            stage = stage == TENSOR_STAGES - 1 ? 0 : stage + 1;
#pragma unroll
            for (int h = 0; h < 2; h++)
                tensor_step<D, PAIRS, REPEATED>(a, l, now, shared, blk, h, lane, acc);
            now.kb += TENSOR_WARPS;
            now.x += l.x_step;
            now.pair += 16 * D::PER / 2 * TENSOR_WARPS;
        }
        float *sums = (float *)(shared + layout.sums) + turn * TENSOR_WARPS * TENSOR_ROWS * a.n_tok;
#pragma unroll
        for (int p = 0; p < PAIRS; p++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float y = acc[p][r] + __shfl_xor_sync(FULL_WARP, acc[p][r], 1);
                const int token = 2 * p + lane % 4 / 2;
                if (lane % 2 == 0 && token < a.n_tok)
                    sums[(warp * a.n_tok + token) * TENSOR_ROWS + lane / 4 + 8 * r] = y;
            }
        __syncthreads();
        if (warp * WARP < a.n_tok * TENSOR_ROWS) tensor_put(a, result, sums);
    }
    cp_async_wait<0>();
}

/* ---- launching ------------------------------------------------------------------------------------ */

template <class D, int PAIRS, bool REPEATED>
static int tensor_launch(struct cuda_device *d, const struct gemv_args &a, unsigned n_tiles, struct err *e) {
    int rc = 0;
    auto kernel = &tensor_kernel<D, PAIRS, REPEATED>;
    const size_t bytes = tensor_layout_of<D>(a.n, a.n_tok, REPEATED).bytes;
    const size_t all = d->prop.sharedMemPerBlockOptin;
    const unsigned resident = (unsigned)((PAIRS == 1 && 2 * (bytes + 1024) <= all ? 2 : 1) *
                                         d->prop.multiProcessorCount);
    LAUNCH(kernel, n_tiles < resident ? n_tiles : resident, TENSOR_THREADS, bytes, a, n_tiles);
out:
    return rc;
}

/* Whether the kernel above multiplies all of the job's matrices. */
template <class D> static bool tensor_can(const struct cuda_device *d, const struct gemv_args &a) {
    if (tensor_layout_of<D>(a.n, a.n_tok, false).bytes > d->prop.sharedMemPerBlockOptin) return false;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const struct gemv_matrix &m = a.m[i];
        if (!m.w) continue;
        if (m.n_rows % TENSOR_ROWS || m.w_stride % 4 || m.w_stride != a.m[0].w_stride) return false;
        if (((uintptr_t)m.w ^ (uintptr_t)a.m[0].w) % 16) return false;
    }
    return true;
}

template <class D>
static int tensor_run(struct cuda_device *d, struct gemv_args a, struct err *e) {
    unsigned n_tiles = 0;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const bool none = !a.m[i].w || (a.glu && i > 0);
        a.m[i].first_block = none ? ~0u : n_tiles;
        if (!none) n_tiles += (unsigned)(a.m[i].n_rows / (a.glu ? TENSOR_ROWS / 2 : TENSOR_ROWS));
    }
    const struct tensor_layout l = tensor_layout_of<D>(a.n, a.n_tok, true);
    const bool repeated = l.bytes <= d->prop.sharedMemPerBlockOptin && l.bytes - (size_t)l.x <= TENSOR_X_MOST;
    if (a.n_tok <= 2)
        return repeated ? tensor_launch<D, 1, true>(d, a, n_tiles, e)
                        : tensor_launch<D, 1, false>(d, a, n_tiles, e);
    if (a.n_tok <= 4) return tensor_launch<D, 2, false>(d, a, n_tiles, e);
    return tensor_launch<D, 4, false>(d, a, n_tiles, e);
}

#endif
