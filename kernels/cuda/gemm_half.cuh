/* SPDX-License-Identifier: MIT
 * gemm_half.cuh - a trellis matrix times many tokens on tensor cores for binary16.
 *
 * Grid [row tiles, token tiles], block of 8 warps; tile 128 rows x BN tokens, a warp 16 rows of it
 * and all tokens. A lane decodes its weights right into the registers of the product
 * (decode_half.h), times their scale, so tensor cores have no work of scaling to wait for: while
 * they multiply one stage (warpgroup.cuh) the lanes decode the next. Activations (halves.cuh) come
 * to shared memory 64 elements of all tokens at a time, 2 stages ahead (before 9.0 one); a warp's
 * own raw bytes a block of 256 weights ahead. Shared: 4 stages of BN x 128 bytes, twice 8 x 16
 * blocks (18 to 34 KiB): up to 162 KiB.
 *
 * Bounds: products of binary16 (128 cycles of a processor's quarter for 16 x 16 weights and 256
 * tokens), decoding (about 60 instructions of a warp for the same), activations out of the second
 * level cache (32 bytes a cycle and SM at full speed).
 *
 * Rounding: weights and activations to binary16, 2^-12 each; sums in binary32 as tensor cores add.
 * Activations above 1e33 overflow before the scale of the row brings them back, and an infinite one
 * may become a NaN.
 * A result depends neither on BN nor on where in a tile it is. */
#ifndef GGAUGE_GEMM_HALF_CUH
#define GGAUGE_GEMM_HALF_CUH

#include "cuda/decode_half.h"
#include "cuda/gemv.cuh"
#include "cuda/halves.cuh"
#include "cuda/warpgroup.cuh"

#define HALF_BM 128
#define HALF_THREADS 256
#define HALF_STAGES 4
#define HALF_BK 64 /* elements of a stage */
#define HALF_OUT_PITCH 132 /* floats of a token's results on their way: no bank conflicts */

struct half_args : joint_args { /* with glu a tile has 64 rows of both matrices */
    struct halves x;
    bool vec; /* results, 4 at a time, are 16-byte aligned */
};

/* How a type's weights become binary16. */
template <class D> struct half_decoder;
#define HALF_DECODER(name)                                                                         \
    template <> struct half_decoder<dec_##name> {                                                  \
        static constexpr int TIMES = HALF_TIMES_##name;                                            \
        static __device__ __forceinline__ void decode(const struct half_lane *l,                   \
                                                      const uint8_t *blk, int lo, int up,          \
                                                      uint32_t w[4]) {                             \
            name##_halves(l, blk, lo, up, w);                                                      \
        }                                                                                          \
    };
HALF_DECODER(iq2_kt)
HALF_DECODER(iq3_kt)
HALF_DECODER(iq4_kt)

template <class D, int BN> struct half_shape {
    static constexpr int WORDS = D::BYTES / 4;
    /* of a row's block: 8 rows and two words of each have banks of their own */
    static constexpr int PITCH = 4 * (WORDS + (WORDS % 2 ? 1 : 2));
    static constexpr int X = BN * 2 * HALF_BK, W = 16 * PITCH; /* of a stage; of a warp's block */
    static constexpr int AT_W = HALF_STAGES * X;
    static constexpr int AT_BARRIER = AT_W + 2 * (HALF_THREADS / WARP) * W;
    static constexpr size_t BYTES = AT_BARRIER + HALF_STAGES * sizeof(uint64_t);
    static_assert((size_t)BN * HALF_OUT_PITCH * sizeof(float) <= BYTES,
                  "results use the same memory");
};

/* Rows 8 k .. 8 k + 7 of a warp: eight in a row of a matrix, from r on. */
struct half_rows {
    struct gemv_matrix m;
    int r;
};

DEV void half_rows_now(const struct half_args &a, struct half_rows rows[2], int warp) {
    const unsigned tile = (unsigned)block_now().x;
    struct gemv_matrix m;
    joint_matrix(a, tile, &m);
    const int own = (int)(tile - m.first_block) * (a.glu ? HALF_BM / 2 : HALF_BM);
    rows[0] = { m, own + (a.glu ? 8 : 16) * warp };
    if (a.glu) m = a.m[1];
    rows[1] = { m, rows[0].r + (a.glu ? 0 : 8) };
}

/* What a lane copies of every block: 8 lanes go along a row, a quarter of the warp's rows at a
 * time. */
struct half_raw {
    const uint8_t *from[4]; /* rows lane / 8 + 4 i, the lane's first word of the block before the
                             * next */
};

template <class D> DEV struct half_raw half_raw_of(const struct half_rows *rows) {
    const int lane = (int)(thread_now() % WARP);
    struct half_raw raw;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const struct half_rows &h = rows[i / 2];
        const int want = h.r + i % 2 * 4 + lane / 8, r = want < h.m.n_rows ? want : h.m.n_rows - 1;
        raw.from[i] =
            h.m.w + (size_t)(unsigned)r * h.m.w_stride + (D::META + 4 * (lane % 8)) - D::BYTES;
    }
    return raw;
}

/* Start the copies of the next block of the warp's rows. */
template <class D, int BN> DEV void half_load_w(struct half_raw *raw, shared_place to) {
    typedef half_shape<D, BN> S;
    const int lane = (int)(thread_now() % WARP);
    to += lane / 8 * S::PITCH + 4 * (lane % 8);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        raw->from[i] += D::BYTES; /* not behind the copies, which would have to be waited for */
#pragma unroll
        for (int k = 0; k < S::WORDS; k += 8)
            if (k + 8 <= S::WORDS || k + lane % 8 < S::WORDS)
                cp_async4_to(to + 4 * i * S::PITCH + 4 * k, raw->from[i] + 4 * k);
    }
    cp_async_commit();
}

/* Where the tile's activations of a stage are, and how far from those of the next. */
struct half_x {
    const char *from;
    size_t step;
    int thread;
};

/* Start the copy of the next stage: one piece. */
template <int BN> DEV void half_load_x(struct half_x *x, unsigned char *to, uint64_t *barrier) {
#if HAS_BULK
    if (x->thread == 0) bulk_copy(to, x->from, BN * 2 * HALF_BK, barrier);
#else
    (void)barrier;
#pragma unroll
    for (int i = 0; i < BN * 2 * HALF_BK; i += 16 * HALF_THREADS)
        cp_async16_to(place_of(to) + 16 * x->thread + i, x->from + 16 * x->thread + i);
    cp_async_commit();
#endif
    x->from += x->step;
}

/* Sub-block lo + 4 up of rows g and g + 8 of a block in shared memory as operands of two
 * products. */
template <class D, int BN>
DEV void half_decode(const struct half_lane &l, const unsigned char *blk, int lo, int up,
                     uint32_t w[2][4]) {
    uint32_t upper[4], lower[4];
    half_decoder<D>::decode(&l, blk, lo, up, upper);
    half_decoder<D>::decode(&l, blk + 8 * half_shape<D, BN>::PITCH, lo, up, lower);
#pragma unroll
    for (int s = 0; s < 2; s++) {
        w[s][0] = upper[2 * s], w[s][1] = lower[2 * s];
        w[s][2] = upper[2 * s + 1], w[s][3] = lower[2 * s + 1];
    }
}

/* Results change places: [BN, HALF_OUT_PITCH], a token's 128 next to each other. */
template <int BN> DEV void half_turn(float *tile, const float (*acc)[4]) {
    const int lane = (int)(thread_now() % WARP), warp = (int)(thread_now() / WARP);
    float *to = tile + lane % 4 * 2 * HALF_OUT_PITCH + 16 * warp + lane / 4;
#pragma unroll
    for (int j = 0; j < BN / 8 * 4; j++)
        to[(j / 4 * 8 + j % 2) * HALF_OUT_PITCH + j % 4 / 2 * 8] = acc[j / 4][j % 4];
}

/* Four results of a token. */
struct half_four {
    float y[4];
};

DEV struct half_four half_scaled(const float *tile, float up, const float *scale) {
    const float4 v = *(const float4 *)tile;
    return { { v.x * up * scale[0], v.y * up * scale[1], v.z * up * scale[2],
               v.w * up * scale[3] } };
}

DEV void half_put(char *row, int r, int n_rows, bool vec, const struct half_four &v) {
    float *to = (float *)row + r;
    if (vec) {
        *(float4 *)to = make_float4(v.y[0], v.y[1], v.y[2], v.y[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (r + i < n_rows) to[i] = v.y[i];
}

/* Scales of four rows from r on, 0 behind the last one. */
template <class D>
DEV void half_row_scales(const struct half_args &a, const struct gemv_matrix &m, int r,
                         float scale[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        scale[i] = r + i < m.n_rows
                       ? row_scale<D>(m.w + (size_t)(unsigned)(r + i) * m.w_stride) * a.gain *
                             (1.0f / half_decoder<D>::TIMES)
                       : 0;
}

/* The tile's results: a lane has four rows of every 8th token. */
template <class D, int BN> DEV void half_store(const struct half_args &a, const float *tile) {
    const int lane = (int)(thread_now() % WARP), warp = (int)(thread_now() / WARP);
    struct half_rows rows[2];
    float scale[4], up_scale[4]; /* up: of the other factor of a gated unit */
    half_rows_now(a, rows, lane / 4);
    const bool first = lane / 2 % 2 == 0, gate = a.glu && first;
    const struct gemv_matrix m = first ? rows[0].m : rows[1].m;
    const int r = (first ? rows[0].r : rows[1].r) + lane % 2 * 4;
    const bool vec = a.vec && r + 4 <= m.n_rows;
    half_row_scales<D>(a, m, r, scale);
    if (gate) half_row_scales<D>(a, rows[1].m, r, up_scale);
    constexpr int STEP = HALF_THREADS / WARP;
    const int t0 = block_now().y * BN, n = a.n_tok - t0 < BN ? a.n_tok - t0 : BN;
    /* scales of the warp's tokens, a lane one */
    const float ups = warp + STEP * lane < n ? a.x.scale[t0 + warp + STEP * lane] : 0;
#pragma unroll 4
    for (int t = warp; t < n; t += STEP) {
        const float *at = tile + t * HALF_OUT_PITCH + 4 * lane;
        const float up = __shfl_sync(FULL_WARP, ups, t / STEP);
        struct half_four v = half_scaled(at, up, scale);
        half_put(m.dst + (size_t)(t0 + t) * m.dst_stride, r, m.n_rows, vec, v);
        char *out = a.out + (size_t)(t0 + t) * a.out_stride;
        if (gate) {
            const struct half_four u = half_scaled(at + 8, up, up_scale);
#pragma unroll
            for (int i = 0; i < 4; i++)
                v.y[i] = swiglu(v.y[i], u.y[i]);
            half_put(out, r, m.n_rows, vec, v);
        }
        if (a.add) {
            const float *add = (const float *)(a.add + (size_t)(t0 + t) * a.add_stride) + r;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (r + i < m.n_rows) v.y[i] += add[i];
            half_put(out, r, m.n_rows, vec, v);
        }
    }
}

template <class D, int BN>
static __global__ void __launch_bounds__(HALF_THREADS, 1) half_kernel(struct half_args a) {
    typedef half_shape<D, BN> S;
    SHARED(shared);
    const int warp = (int)(threadIdx.x / WARP), lane = (int)(threadIdx.x % WARP);
    const int n_blocks = a.n / D::BLK;
    struct half_lane l = half_lane_of(lane % 4);
    keep(l.word), keep(l.zip), keep(l.half), keep(l.turn[0]), keep(l.turn[1]), keep(l.t),
        keep(l.base);
    unsigned char *const own = shared + S::AT_W + 2 * warp * S::W;
    uint64_t *const barrier = (uint64_t *)(shared + S::AT_BARRIER);
    float acc[BN / 8][4];
    uint32_t w[2][2][2][4] = {}; /* of the stage that is decoded and the one that is multiplied */
#pragma unroll
    for (int i = 0; i < BN / 8 * 4; i++)
        acc[i / 4][i % 4] = 0;
    struct half_raw raw;
    {
        struct half_rows rows[2];
        half_rows_now(a, rows, warp);
        raw = half_raw_of<D>(rows);
    }
    half_load_w<D, BN>(&raw, place_of(own));
    struct half_x x = { (const char *)a.x.x + (size_t)blockIdx.y * BN * 2 * HALF_BK,
                        (size_t)a.n_tok * 2 * HALF_BK, (int)threadIdx.x };
    keep(x.thread);
    if (threadIdx.x == 0)
        for (int i = 0; i < HALF_STAGES; i++)
            bulk_init(barrier + i);
    await_previous(); /* who makes the activations */
    __syncthreads();
    for (int c = 0; c < 2; c++) /* n is a multiple of 256 */
        half_load_x<BN>(&x, shared + c * S::X, barrier + c);
#pragma unroll 1
    for (int kb = 0; kb < n_blocks; kb++) {
        unsigned at = (unsigned)(S::AT_W + (2 * warp + kb % 2) * S::W + lane / 4 * S::PITCH);
        keep(at);
        const unsigned char *blk = shared + at;
        cp_async_wait<0>(); /* the block's raw bytes */
        __syncwarp();
        if (kb + 1 < n_blocks) half_load_w<D, BN>(&raw, place_of(own + (kb + 1) % 2 * S::W));
#pragma unroll 1
        for (int st0 = 0; st0 < HALF_STAGES; st0 += 2)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int st = st0 + h;
                half_decode<D, BN>(l, blk, st, 0, w[h][0]);
                half_decode<D, BN>(l, blk, st, 1, w[h][1]);
                if (!HAS_BULK) cp_async_wait<0>();
                __syncthreads(); /* stage c - 2 was used */
                if (st0 == 0 || kb + 1 < n_blocks)
                    half_load_x<BN>(&x, shared + (st ^ 2) * S::X, barrier + (st ^ 2));
                bulk_wait(barrier + st, (unsigned)kb);
                const struct warpgroup_b b = warpgroup_b_at(shared + st * S::X);
                warpgroup_arrive();
#pragma unroll
                for (int i = 0; i < 4; i++)
                    warpgroup_multiply<BN>(acc, w[h][i / 2][i % 2], b, i);
                warpgroup_commit();
                warpgroup_wait<1>(); /* the stage before this one: its registers are free */
#pragma unroll
                for (int i = 0; i < 4; i++)
                    warpgroup_keep4(w[1 - h][i / 2][i % 2]);
            }
    }
    warpgroup_wait<0>();
    warpgroup_keep<BN / 8>(acc);
    __syncthreads(); /* nobody needs the stages any more */
    half_turn<BN>((float *)shared, acc);
    __syncthreads();
    half_store<D, BN>(a, (const float *)shared);
}

/* Row tiles of all matrices, and where those of each begin. */
static int64_t half_tiles(struct half_args *a) {
    int64_t n = 0;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const bool none = !a->m[i].w || (a->glu && i > 0);
        a->m[i].first_block = none ? ~0u : (unsigned)n;
        if (!none) n += div_up(a->m[i].n_rows, a->glu ? HALF_BM / 2 : HALF_BM);
    }
    return n;
}

template <class D, int BN>
static int half_launch(struct cuda_device *d, const struct half_args &a, int64_t n_tiles,
                       struct err *e) {
    int rc = 0;
    auto kernel = &half_kernel<D, BN>;
    const int lost = FAULT(grid_tail) && a.n_tok > BN ? a.n_tok % BN : 0;
    const dim3 grid((unsigned)n_tiles, div_up(a.n_tok - lost, BN));
    size_t bytes = half_shape<D, BN>::BYTES;
    /* A kernel may begin beside its predecessor, on SMs that are free. Tiles that are few must not
     * go there in pairs: more than half of the memory keeps others away. */
    const size_t alone = d->prop.sharedMemPerBlockOptin / 2 + 4096;
    if (grid.x * grid.y <= (unsigned)d->prop.multiProcessorCount && bytes < alone) bytes = alone;
    LAUNCH(kernel, grid, HALF_THREADS, bytes, a);
out:
    return rc;
}

/* Tokens of a tile: 256 decode every weight least often, if there are tiles for all SMs. */
template <class D>
static int half_run(struct cuda_device *d, const struct few_job *f, struct err *e) {
    struct half_args a = {};
    joint_fill(&a, f);
    a.x = f->m[0].halves;
    a.vec = ((uintptr_t)a.out | a.out_stride) % 16 == 0;
    for (int i = 0; i < f->n; i++)
        a.vec = a.vec && ((uintptr_t)a.m[i].dst | a.m[i].dst_stride) % 16 == 0;
    /* turns of all SMs, and what one costs: a tile of half as many tokens takes 5/8 of the time */
    const int64_t n_sm = d->prop.multiProcessorCount, n_tiles = half_tiles(&a);
    const int64_t large = 8 * div_up(n_tiles * div_up(a.n_tok, 256), n_sm);
    const int64_t small = 5 * div_up(n_tiles * div_up(a.n_tok, 128), n_sm);
    const bool fits = half_shape<D, 256>::BYTES <= d->prop.sharedMemPerBlockOptin;
    if (a.n_tok > 128 && fits && large <= small) return half_launch<D, 256>(d, a, n_tiles, e);
    if (a.n_tok > 64) return half_launch<D, 128>(d, a, n_tiles, e);
    return half_launch<D, 64>(d, a, n_tiles, e);
}

/* Products with one type: few tokens by gemv.cuh. */
template <class D>
static int mul_trellis_joint(struct cuda_device *d, const struct few_job *f, struct err *e) {
    return f->m[0].few ? gemv_run<D>(d, f, e) : half_run<D>(d, f, e);
}

template <class D>
static int mul_trellis(struct cuda_device *d, const struct mul_job *j, struct err *e) {
    struct few_job f = {};
    f.m[0] = *j;
    f.n = 1;
    return mul_trellis_joint<D>(d, &f, e);
}

#define MUL_TRELLIS(D) { true, true, mul_trellis<D>, mul_trellis_joint<D> }

#endif
