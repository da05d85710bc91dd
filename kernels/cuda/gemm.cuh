/* SPDX-License-Identifier: MIT
 * gemm.cuh - a quantised matrix times many tokens on int8 tensor cores (mma.sync m16n8k32).
 *
 * Grid [n_tok / BN, n_rows / 128], block of 8 warps; tile 128 rows x BN tokens, 128 weights of a row
 * at a time. Per turn: the raw bytes of the weights, fetched during the last turn, are decoded once
 * into shared memory; the next raw bytes and activations are on their way (cp.async) while warps
 * multiply. A turn has two barriers. Shared: 128 raw pieces (96 to 160 bytes a row), 18 KiB decoded
 * weights, twice BN x 144 bytes of activations, scales: 62 to 85 KiB at BN = 128, so 2 blocks fit on
 * an SM of 228 KiB.
 *
 * Exact scales: the int32 sum of 32 products becomes binary32 without a conversion (the sum starts
 * at the bits of 1.5 * 2^23 and stays below 2^22), then fma(scale_w * scale_x, sum, acc). These 3
 * operations a result bound the kernel: about 28 % of an H100's int8 peak.
 *
 * A result adds sub-blocks in order, so it depends neither on BN nor on where in a tile it is. */
#ifndef GGAUGE_GEMM_CUH
#define GGAUGE_GEMM_CUH

#include "cuda/gemv.cuh"

#define GEMM_BM 128     /* rows of a tile */
#define GEMM_BK 128     /* weights of a turn */
#define GEMM_PITCH 144  /* bytes of a decoded row in shared memory: no bank conflicts */
#define GEMM_THREADS 256
#define GEMM_SUBS 4     /* sub-blocks of a turn */
#define GEMM_MAGIC 0x4B400000 /* 1.5 * 2^23 */

/* Blocks of the largest tile on an SM: 128 registers a thread, which older cards cannot do without
 * spilling two of them. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define GEMM_BLOCKS 1
#else
#define GEMM_BLOCKS 2
#endif

struct gemm_args {
    const uint8_t *w;
    size_t w_stride;
    int n_rows, n;
    struct acts x;
    int n_tok;
    char *dst;
    size_t dst_stride;
    float gain;
};

/* Sizes and places in shared memory of a tile. */
template <class D, int BN> struct gemm_shape {
    /* a trellis block is decoded in two turns from one piece of raw bytes */
    static constexpr int RAW_SUBS = D::PER > GEMM_SUBS ? D::PER : GEMM_SUBS;
    static constexpr int RAW = RAW_SUBS / D::PER * D::BYTES;
    static constexpr int RAW_PITCH = (RAW + 15) / 16 * 16 + 32;
    static constexpr int TURNS = RAW_SUBS / GEMM_SUBS; /* of one piece */

    static constexpr int SCALES = GEMM_BM * GEMM_SUBS * 4, X = BN * GEMM_PITCH,
                         X_SCALES = BN * GEMM_SUBS * 4, KINDS = D::MIN ? 2 : 1;
    static constexpr int AT_ROW = GEMM_BM * RAW_PITCH, /* scales of whole rows */
                         AT_W = AT_ROW + (D::META ? GEMM_BM * 4 : 0), AT_SCALE = AT_W + GEMM_BM * GEMM_PITCH,
                         AT_MIN = AT_SCALE + SCALES, AT_X = AT_SCALE + KINDS * SCALES,
                         AT_D = AT_X + 2 * X, AT_S = AT_D + 2 * X_SCALES,
                         BYTES = AT_D + 2 * KINDS * X_SCALES;
};

/* Start the copies of raw piece p of the tile's rows. */
template <class D, int BN>
DEV void gemm_load_raw(const struct gemm_args &a, int r0, int p, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const int left = a.n / 32 - p * S::RAW_SUBS;
    const int bytes = (left < S::RAW_SUBS ? left : S::RAW_SUBS) / D::PER * D::BYTES;
    /* 8 threads a row */
    for (int r = (int)threadIdx.x / 8; r < GEMM_BM; r += GEMM_THREADS / 8) {
        const int row = r0 + r < a.n_rows ? r0 + r : a.n_rows - 1;
        const uint8_t *from = a.w + (size_t)row * a.w_stride + D::META + (size_t)p * S::RAW;
        const int off = (int)((uintptr_t)from & 15);
        for (int i = 16 * ((int)threadIdx.x % 8); i < off + bytes; i += 16 * 8)
            cp_async16(shared + r * S::RAW_PITCH + i, from - off + i);
    }
}

/* Start the copies of the activations of turn c, into half h. */
template <class D, int BN>
DEV void gemm_load_x(const struct gemm_args &a, int t0, int c, int h,
                     unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const int n_sub = a.n / 32, k0 = c * GEMM_BK;
#pragma unroll 1 /* registers are the products' */
    for (int i = (int)threadIdx.x; i < BN * (GEMM_BK / 16); i += GEMM_THREADS) {
        const int t = i / (GEMM_BK / 16), at = 16 * (i % (GEMM_BK / 16));
        const int tok = t0 + t < a.n_tok ? t0 + t : a.n_tok - 1;
        if (k0 + at < a.n)
            cp_async16(shared + S::AT_X + h * S::X + t * GEMM_PITCH + at,
                       a.x.q + (size_t)tok * a.n + k0 + at);
    }
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < BN * GEMM_SUBS; i += GEMM_THREADS) {
        const int t = i / GEMM_SUBS, sub = c * GEMM_SUBS + i % GEMM_SUBS;
        const int tok = t0 + t < a.n_tok ? t0 + t : a.n_tok - 1;
        if (sub >= n_sub) continue;
        cp_async4(shared + S::AT_D + h * S::X_SCALES + 4 * i, a.x.d + (size_t)tok * n_sub + sub);
        if (D::MIN)
            cp_async4(shared + S::AT_S + h * S::X_SCALES + 4 * i, a.x.s + (size_t)tok * n_sub + sub);
    }
}

/* Where in its first 16 bytes raw piece p of a row begins. */
template <class D, int BN> DEV int gemm_offset(const struct gemm_args &a, int row, int p) {
    typedef gemm_shape<D, BN> S;
    const unsigned low = (unsigned)(uintptr_t)a.w + (unsigned)row * (unsigned)a.w_stride;
    return (int)((low + D::META + (unsigned)(p * S::RAW)) & 15);
}

/* Decode the sub-blocks of turn c from the raw bytes. */
template <class D, int BN>
DEV void gemm_decode(const struct gemm_args &a, int r0, int c, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < GEMM_BM * GEMM_SUBS; i += GEMM_THREADS) {
        const int r = i / GEMM_SUBS, s = i % GEMM_SUBS;
        if (c * GEMM_SUBS + s >= a.n / 32) continue;
        const int row = r0 + r < a.n_rows ? r0 + r : a.n_rows - 1;
        const int off = gemm_offset<D, BN>(a, row, c / S::TURNS);
        const int sub = c % S::TURNS * GEMM_SUBS + s;
        struct decoded o;
        D::decode(shared + r * S::RAW_PITCH + off + sub / D::PER * D::BYTES, sub % D::PER,
                  D::META ? ((const float *)(shared + S::AT_ROW))[r] : 0, &o);
        uint4 *to = (uint4 *)(shared + S::AT_W + r * GEMM_PITCH + 32 * s);
        to[0] = make_uint4(o.q[0], o.q[1], o.q[2], o.q[3]);
        to[1] = make_uint4(o.q[4], o.q[5], o.q[6], o.q[7]);
        ((float *)(shared + S::AT_SCALE))[i] = o.scale;
        if (D::MIN) ((float *)(shared + S::AT_MIN))[i] = o.min;
    }
}

/* A warp's part of a tile: MI x 16 rows from row m0 on, NI x 8 tokens from token n0 on. */
template <int MI, int NI> struct gemm_warp {
    float acc[MI][NI][4];
    int m0, n0, lane;
};

template <int WN, int MI, int NI> DEV void gemm_place(struct gemm_warp<MI, NI> &w) {
    const int thread = thread_now(), warp = thread / WARP;
    w.lane = thread % WARP;
    w.m0 = warp / WN * 16 * MI;
    w.n0 = warp % WN * 8 * NI;
}

/* Sub-block s of the turn whose activations are in half h. */
template <class D, int BN, int MI, int NI>
DEV void gemm_multiply(struct gemm_warp<MI, NI> &w, int s, int h, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const int lane = w.lane, g = lane / 4, t = 2 * (lane % 4);
    const unsigned char *W = shared + S::AT_W + 32 * s, *x = shared + S::AT_X + h * S::X + 32 * s;
    const float *ws = (const float *)(shared + S::AT_SCALE) + s;
    const float *wm = (const float *)(shared + S::AT_MIN) + s;
    const float *xd = (const float *)(shared + S::AT_D + h * S::X_SCALES) + s;
    const float *xs = (const float *)(shared + S::AT_S + h * S::X_SCALES) + s;
    uint32_t b[NI][2];
#pragma unroll
    for (int j = 0; j < NI; j += 2) {
        uint32_t r[4];
        ldmatrix4(r, x + (w.n0 + 8 * j + lane % 8 + 8 * (lane / 16)) * GEMM_PITCH +
                         16 * (lane / 8 % 2));
        b[j][0] = r[0], b[j][1] = r[1], b[j + 1][0] = r[2], b[j + 1][1] = r[3];
    }
#pragma unroll
    for (int i = 0; i < MI; i++) {
        uint32_t A[4];
        const int row = w.m0 + 16 * i;
        ldmatrix4(A, W + (row + lane % 16) * GEMM_PITCH + 16 * (lane / 16));
        const float s0 = ws[(row + g) * GEMM_SUBS], s1 = ws[(row + g + 8) * GEMM_SUBS];
#pragma unroll
        for (int j = 0; j < NI; j++) {
            int p[4];
            const int tok = w.n0 + 8 * j + t;
            mma_s8(p, A, b[j], GEMM_MAGIC);
            const float d0 = xd[tok * GEMM_SUBS], d1 = xd[(tok + 1) * GEMM_SUBS];
            const float scale[4] = { s0 * d0, s0 * d1, s1 * d0, s1 * d1 };
            float *acc = w.acc[i][j];
#pragma unroll
            for (int k = 0; k < 4; k++)
                acc[k] = fmaf(scale[k], f32_of((uint32_t)p[k]) - f32_of(GEMM_MAGIC), acc[k]);
            if (D::MIN) {
                const float m0 = wm[(row + g) * GEMM_SUBS], m1 = wm[(row + g + 8) * GEMM_SUBS];
                const float x0 = xs[tok * GEMM_SUBS], x1 = xs[(tok + 1) * GEMM_SUBS];
                acc[0] = fmaf(m0, x0, acc[0]);
                acc[1] = fmaf(m0, x1, acc[1]);
                acc[2] = fmaf(m1, x0, acc[2]);
                acc[3] = fmaf(m1, x1, acc[3]);
            }
        }
    }
}

template <int MI, int NI>
DEV void gemm_store(const struct gemm_args &a, const struct gemm_warp<MI, NI> &w, int r0,
                    int t0) {
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NI; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int row = r0 + w.m0 + 16 * i + w.lane / 4 + 8 * (k / 2);
                const int tok = t0 + w.n0 + 8 * j + 2 * (w.lane % 4) + k % 2;
                if (row < a.n_rows && tok < a.n_tok)
                    ((float *)(a.dst + (size_t)tok * a.dst_stride))[row] =
                        a.gain * w.acc[i][j][k];
            }
}

/* WN warps side by side along the tokens, 8 / WN along the rows. */
template <class D, int BN, int WN>
static __global__ void __launch_bounds__(GEMM_THREADS, BN > 64 ? GEMM_BLOCKS : 1)
    gemm_kernel(struct gemm_args a) {
    await_previous();
    typedef gemm_shape<D, BN> S;
    constexpr int MI = GEMM_BM * WN / 8 / 16, NI = BN / WN / 8;
    SHARED(shared);
    const int t0 = (int)blockIdx.x * BN, r0 = (int)blockIdx.y * GEMM_BM;
    struct gemm_warp<MI, NI> w;
    gemm_place<WN>(w);
#pragma unroll
    for (int i = 0; i < MI * NI * 4; i++)
        w.acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
    if (D::META && (int)threadIdx.x < GEMM_BM) {
        const int r = r0 + (int)threadIdx.x;
        ((float *)(shared + S::AT_ROW))[threadIdx.x] =
            row_scale<D>(a.w + (size_t)(r < a.n_rows ? r : a.n_rows - 1) * a.w_stride);
    }
    const int n_turns = (a.n + GEMM_BK - 1) / GEMM_BK;
    gemm_load_raw<D, BN>(a, r0, 0, shared);
    gemm_load_x<D, BN>(a, t0, 0, 0, shared);
    cp_async_commit();
    for (int c = 0; c < n_turns; c++) {
        cp_async_wait<0>();
        __syncthreads(); /* what was fetched is there, and the last turn's weights were used */
        gemm_decode<D, BN>(a, r0, c, shared);
        __syncthreads(); /* the weights are there, and raw bytes were used */
        if (c + 1 < n_turns) {
            if ((c + 1) % S::TURNS == 0) gemm_load_raw<D, BN>(a, r0, (c + 1) / S::TURNS, shared);
            gemm_load_x<D, BN>(a, t0, c + 1, (c + 1) % 2, shared);
        }
        cp_async_commit();
        const int left = a.n / 32 - c * GEMM_SUBS;
#pragma unroll 1 /* 16 products a turn of the loop are enough, and more would spill */
        for (int s = 0; s < (left < GEMM_SUBS ? left : GEMM_SUBS); s++)
            gemm_multiply<D, BN, MI, NI>(w, s, c % 2, shared);
    }
    gemm_place<WN>(w); /* again, so that no register has to keep it */
    gemm_store<MI, NI>(a, w, r0, t0);
}

template <class D, int BN, int WN>
static int gemm_launch(struct cuda_device *d, const struct gemm_args &a, struct err *e) {
    int rc = 0;
    auto kernel = &gemm_kernel<D, BN, WN>;
    LAUNCH(kernel, dim3(div_up(a.n_tok, BN), div_up(a.n_rows, GEMM_BM)), GEMM_THREADS,
           (size_t)(gemm_shape<D, BN>::BYTES), a);
out:
    return rc;
}

template <class D>
static int gemm_run(struct cuda_device *d, const struct mul_job *j, struct err *e) {
    const struct gemm_args a = { (const uint8_t *)j->w.p, j->w.stride,   (int)j->w.rows,
                                 (int)j->w.n,             j->acts,       (int)j->x.rows,
                                 j->dst.p,                j->dst.stride, j->gain };
    if (a.n_tok <= 16) return gemm_launch<D, 16, 1>(d, a, e);
    if (a.n_tok <= 64) return gemm_launch<D, 64, 2>(d, a, e);
    return gemm_launch<D, 128, 4>(d, a, e);
}

/* Products with one type, of few tokens by gemv.cuh. */
template <class D>
static int mul_quantised(struct cuda_device *d, const struct mul_job *j, struct err *e) {
    if (!j->few) return gemm_run<D>(d, j, e);
    struct few_job f = {};
    f.m[0] = *j;
    f.n = 1;
    return gemv_run<D>(d, &f, e);
}

#define MUL_QUANTISED(D) { true, mul_quantised<D>, gemv_run<D> }

#endif
