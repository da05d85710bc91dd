/* SPDX-License-Identifier: MIT
 * gemm.cuh - a matrix of blocks of 32 weights (Q8_0, Q4_0 ...) times many tokens on int8 tensor
 * cores (mma.sync m16n8k32). Types of a trellis: gemm_half.cuh.
 *
 * Grid [n_tok / BN, n_rows / 128], block of 8 warps; tile 128 rows x BN tokens, 128 weights of a
 * row at a time. Per turn: the raw bytes of the weights, fetched during the last turn, are decoded
 * once into shared memory; the next raw bytes and activations are on their way (cp.async) while
 * warps multiply. A turn has two barriers. Shared: 128 raw pieces (96 to 160 bytes a row), 18 KiB
 * decoded weights, twice BN x 144 bytes of activations, scales: 72 to 83 KiB at BN = 128, so 2
 * blocks fit on an SM of 228 KiB.
 *
 * Exact scales: the int32 sum of 32 products becomes binary32 without a conversion, because it
 * starts at the bits of m = 1.5 * 2^23 and stays within 2^22 of them: fma(m + sum, scale_x, -m *
 * scale_x) is scale_x * sum, rounded once, since a scale of 8 bits times m is exact (up to 2^104:
 * activations above 1e33 become a NaN). fma(scale_w, that, acc) is the second and last operation of
 * a result; these two and decoding bound the kernel.
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
    static_assert(D::PER == 1 && D::META == 0, "blocks of 32, nothing in front of a row");
    static constexpr int RAW = GEMM_SUBS * D::BYTES; /* bytes of a row in a turn */
    static constexpr int RAW_PITCH = (RAW + 15) / 16 * 16 + 32;

    static constexpr int SCALES = GEMM_BM * GEMM_SUBS * 4, X = BN * GEMM_PITCH,
                         X_SCALES = BN * GEMM_SUBS * 4, KINDS = D::MIN ? 2 : 1;
    static constexpr int AT_W = GEMM_BM * RAW_PITCH, AT_SCALE = AT_W + GEMM_BM * GEMM_PITCH,
                         AT_MIN = AT_SCALE + SCALES, AT_X = AT_SCALE + KINDS * SCALES,
                         AT_D = AT_X + 2 * X, AT_S = AT_D + 2 * X_SCALES,
                         BYTES = AT_D + 2 * KINDS * X_SCALES;
};

/* First row of the block's tile. */
DEV int gemm_row0(void) {
    return block_now().y * GEMM_BM;
}

/* Row r, or the last one there is. */
DEV const uint8_t *gemm_row(const struct gemm_args &a, int r) {
    return a.w + (size_t)(unsigned)(r < a.n_rows ? r : a.n_rows - 1) * a.w_stride;
}

/* Start the copies of the raw bytes of turn c of the tile's rows: 8 threads a row. */
template <class D, int BN>
DEV void gemm_load_raw(const struct gemm_args &a, int c, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const int left = a.n / 32 - c * GEMM_SUBS;
    const int bytes = (left < GEMM_SUBS ? left : GEMM_SUBS) * D::BYTES;
    const unsigned thread = thread_now();
    const int r = (int)(thread / 8), at = 16 * (int)(thread % 8);
    const shared_place to = place_of(shared + r * S::RAW_PITCH + at);
#pragma unroll
    for (int k = 0; k < GEMM_BM; k += GEMM_THREADS / 8) {
        const uint8_t *from = gemm_row(a, gemm_row0() + r + k) + c * S::RAW;
        const int off = (int)((uintptr_t)from & 15);
        from += at - off;
#pragma unroll
        for (int i = 0; i < S::RAW + 15; i += 16 * 8)
            if (i + at < off + bytes) cp_async16_to(to + k * S::RAW_PITCH + i, from + i);
    }
}

/* Start the copies of the activations of turn c, into the half that is its own: 8 threads a token,
 * then 4. */
template <class D, int BN>
DEV void gemm_load_x(const struct gemm_args &a, int c, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const unsigned thread = thread_now();
    const int at = 16 * (int)(thread % 8), t = (int)(thread / 8);
    const int t0 = block_now().x * BN, h = c % 2;
    const int n_sub = a.n / 32, sub = c * GEMM_SUBS + (int)(thread % GEMM_SUBS);
    const shared_place q = place_of(shared + S::AT_X + h * S::X + t * GEMM_PITCH + at);
    const shared_place d = place_of(shared + S::AT_D + h * S::X_SCALES + 4 * (int)thread);
#pragma unroll
    for (int k = 0; k < BN; k += GEMM_THREADS / 8) {
        const int tok = t0 + t + k < a.n_tok ? t0 + t + k : a.n_tok - 1;
        if ((BN % (GEMM_THREADS / 8) == 0 || t + k < BN) && c * GEMM_BK + at < a.n)
            cp_async16_to(q + k * GEMM_PITCH,
                          a.x.q + (size_t)(unsigned)tok * (unsigned)a.n + (c * GEMM_BK + at));
    }
#pragma unroll
    for (int k = 0; k < BN; k += GEMM_THREADS / GEMM_SUBS) {
        const int u = (int)(thread / GEMM_SUBS) + k;
        const int tok = t0 + u < a.n_tok ? t0 + u : a.n_tok - 1;
        if ((BN % (GEMM_THREADS / GEMM_SUBS) != 0 && u >= BN) || sub >= n_sub) continue;
        const size_t i = (size_t)(unsigned)tok * (unsigned)n_sub + sub;
        cp_async4_to(d + 4 * GEMM_SUBS * k, a.x.d + i);
        if (D::MIN) cp_async4_to(d + (S::AT_S - S::AT_D + 4 * GEMM_SUBS * k), a.x.s + i);
    }
}

/* Decode the sub-blocks of turn c from the raw bytes: a thread takes one of every 64th row. */
template <class D, int BN>
DEV void gemm_decode(const struct gemm_args &a, int c, unsigned char *shared) {
    typedef gemm_shape<D, BN> S;
    const unsigned thread = thread_now();
    const int s = (int)(thread % GEMM_SUBS);
    if (c * GEMM_SUBS + s >= a.n / 32) return;
#pragma unroll 1
    for (int r = (int)(thread / GEMM_SUBS); r < GEMM_BM; r += GEMM_THREADS / GEMM_SUBS) {
        const int at = gemm_row0() + r;
        const unsigned row = (unsigned)(at < a.n_rows ? at : a.n_rows - 1);
        /* where in its first 16 bytes the raw piece begins */
        const unsigned off = ((unsigned)(uintptr_t)a.w + row * (unsigned)a.w_stride +
                              (unsigned)(c * S::RAW)) & 15;
        struct decoded o;
        D::decode(shared + r * S::RAW_PITCH + off + s * D::BYTES, 0, 0, &o);
        uint4 *to = (uint4 *)(shared + S::AT_W + r * GEMM_PITCH + 32 * s);
        to[0] = make_uint4(o.q[0], o.q[1], o.q[2], o.q[3]);
        to[1] = make_uint4(o.q[4], o.q[5], o.q[6], o.q[7]);
        ((float *)(shared + S::AT_SCALE))[GEMM_SUBS * r + s] = o.scale;
        if (D::MIN) ((float *)(shared + S::AT_MIN))[GEMM_SUBS * r + s] = o.min;
    }
}

/* A warp's part of a tile: MI x 16 rows from row m0 on, NI x 8 tokens from token n0 on. */
struct gemm_warp {
    int m0, n0, lane;
};

template <int WN, int MI, int NI> DEV struct gemm_warp gemm_warp_now(void) {
    const unsigned thread = thread_now();
    const int warp = (int)(thread / WARP);
    return { warp / WN * 16 * MI, warp % WN * 8 * NI, (int)(thread % WARP) };
}

/* Where a lane finds its parts of a sub-block in shared memory, in bytes. */
struct gemm_at {
    int w, x;   /* rows of tiles for ldmatrix */
    int ws, xd; /* scales of its first row and its first token */
};

template <class D, int BN> DEV struct gemm_at gemm_at_of(const struct gemm_warp &w, int c) {
    typedef gemm_shape<D, BN> S;
    const int lane = w.lane, h = c % 2;
    return { S::AT_W + (w.m0 + lane % 16) * GEMM_PITCH + 16 * (lane / 16),
             S::AT_X + h * S::X + (w.n0 + lane % 8 + 8 * (lane / 16)) * GEMM_PITCH +
                 16 * (lane / 8 % 2),
             S::AT_SCALE + (w.m0 + lane / 4) * GEMM_SUBS * 4,
             S::AT_D + h * S::X_SCALES + (w.n0 + 2 * (lane % 4)) * GEMM_SUBS * 4 };
}

/* The sum of 32 products, which mma_s8 began at GEMM_MAGIC, times d; md is -GEMM_MAGIC times d. */
template <class D> struct gemm_sum {
    static __device__ __forceinline__ float times(int p, float d, float md) {
        return fmaf(f32_of((uint32_t)p), d, md);
    }
};

/* Add the products of a sub-block, two tokens' tiles at a time: registers are the sums'. */
template <class D, int BN, int MI, int NI>
DEV void gemm_multiply(const struct gemm_at &at, const unsigned char *shared,
                       float acc[MI][NI][4]) {
    typedef gemm_shape<D, BN> S;
    const float *ws = (const float *)(shared + at.ws), *xd = (const float *)(shared + at.xd);
    const float *wm = ws + (S::AT_MIN - S::AT_SCALE) / 4, *xs = xd + (S::AT_S - S::AT_D) / 4;
#pragma unroll
    for (int j0 = 0; j0 < NI; j0 += 2) {
        uint32_t b[4];
        float d[2][2], md[2][2];
        if (j0 > 0)
            __syncwarp(); /* or everything is fetched before the first product, and spills */
        ldmatrix4(b, shared + at.x + 8 * j0 * GEMM_PITCH);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            d[j / 2][j % 2] = xd[(8 * (j0 + j / 2) + j % 2) * GEMM_SUBS];
            md[j / 2][j % 2] = -f32_of(GEMM_MAGIC) * d[j / 2][j % 2];
        }
#pragma unroll
        for (int i = 0; i < MI; i++) {
            uint32_t A[4];
            if (i > 0 && i % 2 == 0) __syncwarp();
            ldmatrix4(A, shared + at.w + 16 * i * GEMM_PITCH);
            const float s0 = ws[16 * i * GEMM_SUBS], s1 = ws[(16 * i + 8) * GEMM_SUBS];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int p[4];
                float *y = acc[i][j0 + j];
                mma_s8(p, A, b + 2 * j, GEMM_MAGIC);
#pragma unroll
                for (int k = 0; k < 4; k++)
                    y[k] = fmaf(k < 2 ? s0 : s1,
                                gemm_sum<D>::times(p[k], d[j][k % 2], md[j][k % 2]), y[k]);
                if (D::MIN) {
                    const float m0 = wm[16 * i * GEMM_SUBS], m1 = wm[(16 * i + 8) * GEMM_SUBS];
                    const float x0 = xs[8 * (j0 + j) * GEMM_SUBS];
                    const float x1 = xs[(8 * (j0 + j) + 1) * GEMM_SUBS];
                    y[0] = fmaf(m0, x0, y[0]);
                    y[1] = fmaf(m0, x1, y[1]);
                    y[2] = fmaf(m1, x0, y[2]);
                    y[3] = fmaf(m1, x1, y[3]);
                }
            }
        }
    }
}

template <int MI, int NI>
DEV void gemm_store(const struct gemm_args &a, const struct gemm_warp &w, int r0, int t0,
                    float acc[MI][NI][4]) {
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
                        a.gain * acc[i][j][k];
            }
}

/* WN warps side by side along the tokens, 8 / WN along the rows. */
template <class D, int BN, int WN>
static __global__ void __launch_bounds__(GEMM_THREADS, BN > 64 ? GEMM_BLOCKS : 1)
    gemm_kernel(struct gemm_args a) {
    constexpr int MI = GEMM_BM * WN / 8 / 16, NI = BN / WN / 8;
    SHARED(shared);
    float acc[MI][NI][4];
#pragma unroll
    for (int i = 0; i < MI * NI * 4; i++)
        acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
    gemm_load_raw<D, BN>(a, 0, shared);
    await_previous(); /* who makes the activations */
    gemm_load_x<D, BN>(a, 0, shared);
    cp_async_commit();
    for (int k0 = 0; k0 < a.n; k0 += GEMM_BK) {
        const int c = (int)((unsigned)k0 / GEMM_BK);
        cp_async_wait<0>();
        __syncthreads(); /* what was fetched is there, and the last turn's weights were used */
        gemm_decode<D, BN>(a, c, shared);
        __syncthreads(); /* the weights are there, and raw bytes were used */
        if (k0 + GEMM_BK < a.n) {
            gemm_load_raw<D, BN>(a, c + 1, shared);
            gemm_load_x<D, BN>(a, c + 1, shared);
        }
        cp_async_commit();
        struct gemm_at at = gemm_at_of<D, BN>(gemm_warp_now<WN, MI, NI>(), c);
        const int left = a.n - k0 < GEMM_BK ? a.n - k0 : GEMM_BK;
#pragma unroll 1 /* 16 products a turn of the loop are enough */
        for (int s = 0; s < left; s += 32) {
            gemm_multiply<D, BN, MI, NI>(at, shared, acc);
            at.w += 32, at.x += 32, at.ws += 4, at.xd += 4;
        }
    }
    gemm_store<MI, NI>(a, gemm_warp_now<WN, MI, NI>(), gemm_row0(), block_now().x * BN, acc);
}

template <class D, int BN, int WN>
static int gemm_launch(struct cuda_device *d, const struct gemm_args &a, struct err *e) {
    int rc = 0;
    auto kernel = &gemm_kernel<D, BN, WN>;
    const int lost = FAULT(grid_tail) && a.n_tok > BN ? a.n_tok % BN : 0;
    LAUNCH(kernel, dim3(div_up(a.n_tok - lost, BN), div_up(a.n_rows, GEMM_BM)), GEMM_THREADS,
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
    return j->few ? gemv_run_one<D>(d, j, e) : gemm_run<D>(d, j, e);
}

#define MUL_QUANTISED(D) { true, false, mul_quantised<D>, gemv_run<D> }

#endif
