/* SPDX-License-Identifier: MIT
 * gemm_half.cuh - a trellis matrix times many tokens on tensor cores for binary16.
 *
 * Grid [row tiles, token tiles], block of 8 warps; tile 128 rows x BN tokens, a warp 16 rows of it and
 * all tokens. A lane decodes its weights right into the registers of the product (decode_half.h), times
 * their scale, so tensor cores have no work of scaling to wait for: while they multiply one sub-block
 * (warpgroup.cuh) the lanes decode the next. Activations (halves.cuh) come to shared memory 64 elements
 * of all tokens at a time, 2 stages ahead; a warp's own raw bytes a block of 256 weights ahead. Shared:
 * 4 stages of BN x 128 bytes, twice 8 x 16 blocks (18 to 34 KiB): up to 162 KiB.
 *
 * Bounds: products of binary16 (128 cycles of a processor's quarter for 16 x 16 weights and 256
 * tokens), decoding (about 60 instructions of a warp for the same), activations out of the second
 * level cache (32 bytes a cycle and SM at full speed).
 *
 * Rounding: weights and activations to binary16, 2^-12 each; sums in binary32 as tensor cores add.
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

struct half_matrix {
    const uint8_t *w;
    size_t w_stride;
    int n_rows;
    char *dst;
    size_t dst_stride;
    unsigned first_tile;
};

struct half_args {
    struct half_matrix m[FEW_MATRICES]; /* whoever has no rows has no tiles either */
    int n;
    struct halves x;
    int n_tok;
    float gain;
    /* as in gemv_args; with glu a tile has 64 rows of both matrices */
    bool glu;
    const char *add;
    size_t add_stride;
    char *out;
    size_t out_stride;
};

/* How a type's weights become binary16. */
template <class D> struct half_decoder;
#define HALF_DECODER(name)                                                                         \
    template <> struct half_decoder<dec_##name> {                                                  \
        static __device__ __forceinline__ void decode(const struct half_lane *l,                   \
                                                      const uint8_t *blk, int b, uint32_t w[4]) {  \
            name##_halves(l, blk, b, w);                                                           \
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
    static constexpr size_t BYTES = AT_W + 2 * (HALF_THREADS / WARP) * W;
};

/* A warp's rows 8 k .. 8 k + 7: eight in a row of a matrix, from r on. */
struct half_rows {
    struct half_matrix m;
    int r;
};

DEV void half_rows_now(const struct half_args &a, struct half_rows rows[2]) {
    const int warp = (int)(thread_now() / WARP);
    const unsigned tile = (unsigned)block_now().x;
    int i = 0;
#pragma unroll
    for (int k = 1; k < FEW_MATRICES; k++)
        if (tile >= a.m[k].first_tile) i = k;
    const int own = (int)(tile - a.m[i].first_tile) * (a.glu ? HALF_BM / 2 : HALF_BM);
    rows[0] = { a.m[i], own + (a.glu ? 8 : 16) * warp };
    rows[1] = { a.m[a.glu ? 1 : i], rows[0].r + (a.glu ? 0 : 8) };
}

/* Start the copies of block kb of the warp's rows. */
template <class D, int BN>
DEV void half_load_w(const struct half_rows *rows, int kb, shared_place to) {
    typedef half_shape<D, BN> S;
    const int lane = (int)(thread_now() % WARP);
    if (lane >= S::WORDS) return;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const struct half_rows &h = rows[i / 8];
        const int r = h.r + i % 8 < h.m.n_rows ? h.r + i % 8 : h.m.n_rows - 1;
        cp_async4_to(to + i * S::PITCH + 4 * lane,
                     h.m.w + (size_t)(unsigned)r * h.m.w_stride +
                         (unsigned)(D::META + kb * D::BYTES + 4 * lane));
    }
}

/* Start the copies of stage c of the tile's activations. */
template <int BN> DEV void half_load_x(const struct half_args &a, int c, shared_place to) {
    const unsigned thread = thread_now();
    const char *from = (const char *)a.x.x +
                       ((size_t)c * (unsigned)a.n_tok + (size_t)block_now().y * BN) * 128 +
                       16 * thread;
#pragma unroll
    for (int i = 0; i < BN * 128; i += 16 * HALF_THREADS)
        cp_async16_to(to + (int)(16 * thread) + i, from + i);
}

/* Sub-block b of rows g and g + 8 of a block in shared memory as operands of two products. */
template <class D, int BN>
DEV void half_decode(const struct half_lane &l, const unsigned char *blk, int b, uint32_t w[2][4]) {
    uint32_t upper[4], lower[4];
    half_decoder<D>::decode(&l, blk, b, upper);
    half_decoder<D>::decode(&l, blk + 8 * half_shape<D, BN>::PITCH, b, lower);
#pragma unroll
    for (int s = 0; s < 2; s++) {
        w[s][0] = upper[2 * s], w[s][1] = lower[2 * s];
        w[s][2] = upper[2 * s + 1], w[s][3] = lower[2 * s + 1];
    }
}

/* Results of token t: y[k] of the lane's row in both of the warp's. */
DEV void half_put(const struct half_args &a, const struct half_rows *rows, const bool *real, int t,
                  const float y[2]) {
    const int g = (int)(thread_now() % WARP) / 4;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        if (!real[k]) continue;
        const struct half_matrix &m = rows[k].m;
        const size_t r = (size_t)(rows[k].r + g);
        ((float *)(m.dst + (size_t)t * m.dst_stride))[r] = y[k];
        if (a.add)
            ((float *)(a.out + (size_t)t * a.out_stride))[r] =
                y[k] + ((const float *)(a.add + (size_t)t * a.add_stride))[r];
    }
    if (a.glu && real[0])
        ((float *)(a.out + (size_t)t * a.out_stride))[rows[0].r + g] = swiglu(y[0], y[1]);
}

template <class D, int BN> DEV void half_store(const struct half_args &a, const float (*acc)[4]) {
    const int lane = (int)(thread_now() % WARP), t0 = block_now().y * BN + 2 * (lane % 4);
    struct half_rows rows[2];
    bool real[2];
    float scale[2];
    half_rows_now(a, rows);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const int r = rows[k].r + lane / 4;
        real[k] = r < rows[k].m.n_rows;
        scale[k] = real[k] ? row_scale<D>(rows[k].m.w + (size_t)(unsigned)r * rows[k].m.w_stride) * a.gain
                           : 0;
    }
#pragma unroll
    for (int j = 0; j < BN / 8 * 2; j++) {
        const int t = t0 + j / 2 * 8 + j % 2;
        if (t >= a.n_tok) continue;
        const float up = a.x.scale[t];
        const float y[2] = { acc[j / 2][j % 2] * up * scale[0], acc[j / 2][2 + j % 2] * up * scale[1] };
        half_put(a, rows, real, t, y);
    }
}

template <class D, int BN>
static __global__ void __launch_bounds__(HALF_THREADS, 1) half_kernel(struct half_args a) {
    typedef half_shape<D, BN> S;
    SHARED(shared);
    const int warp = (int)(threadIdx.x / WARP), lane = (int)(threadIdx.x % WARP);
    const int n_stages = a.n / HALF_BK;
    struct half_rows rows[2];
    half_rows_now(a, rows);
    const struct half_lane l = half_lane_of(lane % 4);
    unsigned char *const own = shared + S::AT_W + 2 * warp * S::W;
    float acc[BN / 8][4];
    uint32_t w[2][2][4] = {}; /* of the sub-block that is decoded and the one that is multiplied */
#pragma unroll
    for (int i = 0; i < BN / 8 * 4; i++)
        acc[i / 4][i % 4] = 0;
    half_load_w<D, BN>(rows, 0, place_of(own));
    await_previous(); /* who makes the activations */
#pragma unroll
    for (int c = 0; c < 2; c++) { /* n is a multiple of 256 */
        half_load_x<BN>(a, c, place_of(shared + c * S::X));
        cp_async_commit();
    }
#pragma unroll 1
    for (int kb = 0; kb < a.n / D::BLK; kb++) {
        const unsigned char *blk = own + kb % 2 * S::W + lane / 4 * S::PITCH;
#pragma unroll
        for (int st = 0; st < HALF_STAGES; st++) {
            const int c = kb * HALF_STAGES + st;
            cp_async_wait<1>();
            warpgroup_see_shared();
            __syncthreads(); /* stage c is there, and stage c - 2 was used */
            if (c + 2 < n_stages)
                half_load_x<BN>(a, c + 2, place_of(shared + (st + 2) % HALF_STAGES * S::X));
            if (st == 0 && kb + 1 < a.n / D::BLK)
                half_load_w<D, BN>(rows, kb + 1, place_of(own + (kb + 1) % 2 * S::W));
            cp_async_commit();
            const struct warpgroup_b b = warpgroup_b_at(shared + st * S::X);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                half_decode<D, BN>(l, blk, 2 * st + i, w[i]);
                warpgroup_arrive();
                warpgroup_multiply<BN>(acc, w[i][0], b, 2 * i);
                warpgroup_multiply<BN>(acc, w[i][1], b, 2 * i + 1);
                warpgroup_commit();
                warpgroup_wait<1>(); /* the sub-block before this one: its registers are free */
                warpgroup_keep4(w[1 - i][0]);
                warpgroup_keep4(w[1 - i][1]);
            }
        }
    }
    warpgroup_wait<0>();
    warpgroup_keep<BN / 8>(acc);
    cp_async_wait<0>();
    half_store<D, BN>(a, acc);
}

/* Row tiles of all matrices, and where those of each begin. */
static int64_t half_tiles(struct half_args *a) {
    int64_t n = 0;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const bool none = !a->m[i].w || (a->glu && i > 0);
        a->m[i].first_tile = none ? ~0u : (unsigned)n;
        if (!none) n += div_up(a->m[i].n_rows, a->glu ? HALF_BM / 2 : HALF_BM);
    }
    return n;
}

template <class D, int BN>
static int half_launch(struct cuda_device *d, const struct half_args &a, int64_t n_tiles, struct err *e) {
    int rc = 0;
    auto kernel = &half_kernel<D, BN>;
    const int lost = FAULT(grid_tail) && a.n_tok > BN ? a.n_tok % BN : 0;
    LAUNCH(kernel, dim3((unsigned)n_tiles, div_up(a.n_tok - lost, BN)), HALF_THREADS,
           (half_shape<D, BN>::BYTES), a);
out:
    return rc;
}

/* Tokens of a tile: 256 decode every weight least often, if there are tiles for all SMs. */
template <class D>
static int half_run(struct cuda_device *d, const struct few_job *f, struct err *e) {
    struct half_args a = {};
    for (int i = 0; i < f->n; i++) {
        const struct mul_job *j = &f->m[i];
        a.m[i] = { (const uint8_t *)j->w.p, j->w.stride, (int)j->w.rows, j->dst.p, j->dst.stride, 0 };
    }
    a.n = (int)f->m[0].w.n;
    a.x = f->m[0].halves;
    a.n_tok = (int)f->m[0].x.rows;
    a.gain = f->m[0].gain;
    a.glu = f->n == 2 && f->out;
    if (f->out) a.out = f->out->p, a.out_stride = f->out->stride;
    if (f->add) a.add = f->add->p, a.add_stride = f->add->rows == 1 ? 0 : f->add->stride;
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
