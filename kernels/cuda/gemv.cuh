/* SPDX-License-Identifier: MIT
 * gemv.cuh - a quantised matrix times 1 to 8 tokens: every weight is read once.
 *
 * Grid n_rows / 8, block of 4 warps; a warp has 2 rows, a lane every 32nd sub-block of them. Up to
 * three matrices that multiply the same tokens share a launch; results can be added to others, or
 * two matrices be the gate and the other factor of a gated unit (then a warp has a row of each). The raw
 * bytes of 32 sub-blocks a row pass through the warp's own shared memory in copies of 16 bytes,
 * whatever the alignment of blocks is, 3 ahead of what is decoded, the first ones
 * while the kernel that makes the activations still runs; decoded weights stay in
 * registers and meet the int8 activations of all tokens there. Shared: 4 warps x 2 rows x 4 stages
 * of 32 sub-blocks (8 KiB to 35 KiB). Bytes moved: the matrix, once. Limit: memory for plain types,
 * integer arithmetic for a trellis (about 5 instructions a weight).
 *
 * Sums: a lane adds its sub-blocks in order, then lanes are added in a fixed tree; they depend
 * neither on the number of tokens nor on which rows a block has. */
#ifndef GGAUGE_GEMV_CUH
#define GGAUGE_GEMV_CUH

#include "cuda/decoders.cuh"

#define GEMV_WARPS 4
#define GEMV_ROWS 2   /* of a warp */
#define GEMV_STAGES 4

struct gemv_matrix {
    const uint8_t *w;
    size_t w_stride;
    int64_t n_rows;
    char *dst;
    size_t dst_stride;
    unsigned first_block;
};

struct gemv_args {
    struct gemv_matrix m[FEW_MATRICES]; /* whoever has no rows has no blocks either */
    int64_t n;
    struct acts x;
    int n_tok;
    float gain;
    /* out = silu(results of m[0]) * results of m[1], or results of m[0] + add; NULL = neither */
    bool glu;
    const char *add;
    size_t add_stride;
    char *out;
    size_t out_stride;
};

template <class D> struct gemv_shape {
    static constexpr int CHUNK = 32 / D::PER * D::BYTES; /* bytes of 32 sub-blocks */
    static constexpr int SLOT = CHUNK + 32;              /* and where they begin and end */
    static constexpr size_t SHARED_BYTES = (size_t)GEMV_WARPS * GEMV_STAGES * GEMV_ROWS * SLOT;
    static_assert(CHUNK % 16 == 0, "a chunk is a whole number of copies");
};

/* Start the copies of chunk c of both rows, if there is one. */
template <class D>
DEV void gemv_load(const uint8_t *const *row, int64_t n_sub, int64_t c, uint8_t *slot, int lane) {
    typedef gemv_shape<D> S;
    const int64_t left = n_sub - 32 * c;
    if (left > 0) {
        const int bytes = (int)(left < 32 ? left : 32) / D::PER * D::BYTES;
#pragma unroll
        for (int r = 0; r < GEMV_ROWS; r++) {
            const uint8_t *from = row[r] + D::META + c * S::CHUNK;
            const int off = (int)((uintptr_t)from & 15);
            for (int i = 16 * lane; i < off + bytes; i += 16 * WARP)
                cp_async16(slot + r * S::SLOT + i, from - off + i);
        }
    }
    cp_async_commit();
}

/* One sub-block of both rows with all tokens. */
template <class D, int NT>
DEV void gemv_sub_block(const struct gemv_args &a, const struct decoded *w, int64_t sub,
                        float acc[GEMV_ROWS][NT]) {
    const int64_t n_sub = a.n / 32;
#pragma unroll
    for (int t = 0; t < NT; t++) {
        const int64_t tok = t < a.n_tok ? t : 0;
        const uint4 *x = (const uint4 *)(a.x.q + tok * a.n + 32 * sub);
        const uint4 x0 = x[0], x1 = x[1];
        const float d = a.x.d[tok * n_sub + sub];
        const uint32_t xs[8] = { x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w };
#pragma unroll
        for (int r = 0; r < GEMV_ROWS; r++) {
            int sum = 0;
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum = dot4(w[r].q[i], xs[i], sum);
            acc[r][t] = fmaf(w[r].scale * d, (float)sum, acc[r][t]);
            if (D::MIN) acc[r][t] = fmaf(w[r].min, a.x.s[tok * n_sub + sub], acc[r][t]);
        }
    }
}

/* The matrix of this block. */
DEV struct gemv_matrix gemv_matrix_of(const struct gemv_args &a) {
    struct gemv_matrix m = a.m[0];
#pragma unroll
    for (int i = 1; i < FEW_MATRICES; i++)
        if (blockIdx.x >= a.m[i].first_block) m = a.m[i];
    return m;
}

/* Results y of row r of m, one for each token. */
template <int NT>
DEV void gemv_store(const struct gemv_args &a, const struct gemv_matrix &m, int64_t r,
                    const float *y) {
#pragma unroll
    for (int t = 0; t < NT; t++) {
        if (t >= a.n_tok) continue;
        ((float *)(m.dst + (size_t)t * m.dst_stride))[r] = y[t];
        if (a.add)
            ((float *)(a.out + (size_t)t * a.out_stride))[r] =
                y[t] + ((const float *)(a.add + (size_t)t * a.add_stride))[r];
    }
}

template <class D, int NT>
static __global__ void __launch_bounds__(GEMV_WARPS *WARP, 1) gemv_kernel(struct gemv_args a) {
    typedef gemv_shape<D> S;
    SHARED(shared);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    uint8_t *slots = shared + (size_t)warp * GEMV_STAGES * GEMV_ROWS * S::SLOT;
    const struct gemv_matrix m = gemv_matrix_of(a);
    const int64_t v = (int64_t)(blockIdx.x - m.first_block) * GEMV_WARPS + warp;
    /* rows r0 and r0 + 1 of a matrix, or row r0 of both */
    const int64_t r0 = a.glu ? v : v * GEMV_ROWS;
    if (r0 >= m.n_rows) {
        await_previous();
        return;
    }
    const bool second = a.glu || r0 + 1 < m.n_rows;
    const uint8_t *row[GEMV_ROWS];
    float scale[GEMV_ROWS], acc[GEMV_ROWS][NT];
    row[0] = m.w + (size_t)r0 * m.w_stride;
    row[1] = a.glu ? a.m[1].w + (size_t)r0 * a.m[1].w_stride : row[0] + (second ? m.w_stride : 0);
#pragma unroll
    for (int r = 0; r < GEMV_ROWS; r++) {
        scale[r] = row_scale<D>(row[r]);
#pragma unroll
        for (int t = 0; t < NT; t++)
            acc[r][t] = 0;
    }
    const int64_t n_sub = a.n / 32, n_chunks = (n_sub + 31) / 32;
    for (int s = 0; s < GEMV_STAGES - 1; s++)
        gemv_load<D>(row, n_sub, s, slots + s * GEMV_ROWS * S::SLOT, lane);
    await_previous(); /* who makes the activations */
    for (int64_t c = 0; c < n_chunks; c++) {
        const int64_t next = c + GEMV_STAGES - 1;
        gemv_load<D>(row, n_sub, next, slots + next % GEMV_STAGES * GEMV_ROWS * S::SLOT, lane);
        cp_async_wait<GEMV_STAGES - 1>();
        __syncwarp();
        const uint8_t *slot = slots + c % GEMV_STAGES * GEMV_ROWS * S::SLOT;
        const int64_t sub = 32 * c + lane;
        if (sub < n_sub) {
            struct decoded w[GEMV_ROWS];
#pragma unroll
            for (int r = 0; r < GEMV_ROWS; r++) {
                const uint8_t *from = row[r] + D::META + c * S::CHUNK;
                D::decode(slot + r * S::SLOT + ((uintptr_t)from & 15) + lane / D::PER * D::BYTES,
                          lane % D::PER, scale[r], &w[r]);
            }
            gemv_sub_block<D, NT>(a, w, sub, acc);
        }
        __syncwarp(); /* the slot is filled again by the next turn */
    }
#pragma unroll
    for (int r = 0; r < GEMV_ROWS; r++)
#pragma unroll
        for (int t = 0; t < NT; t++)
            acc[r][t] = a.gain * warp_sum(acc[r][t]);
    if (lane > 0) return;
    gemv_store<NT>(a, m, r0, acc[0]);
    if (!second) return;
    gemv_store<NT>(a, a.glu ? a.m[1] : m, a.glu ? r0 : r0 + 1, acc[1]);
#pragma unroll
    for (int t = 0; t < NT; t++)
        if (a.glu && t < a.n_tok)
            ((float *)(a.out + (size_t)t * a.out_stride))[r0] = swiglu(acc[0][t], acc[1][t]);
}

template <class D, int NT>
static int gemv_launch(struct cuda_device *d, const struct gemv_args &a, unsigned n_blocks,
                       struct err *e) {
    int rc = 0;
    auto kernel = &gemv_kernel<D, NT>;
    LAUNCH(kernel, n_blocks, GEMV_WARPS * WARP, gemv_shape<D>::SHARED_BYTES, a);
out:
    return rc;
}

/* At most 8 tokens. */
template <class D>
static int gemv_run(struct cuda_device *d, const struct few_job *f, struct err *e) {
    struct gemv_args a = {};
    unsigned n_blocks = 0;
    const bool glu = f->n == 2 && f->out;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const struct mul_job *j = &f->m[i];
        a.m[i].first_block = ~0u;
        if (i >= f->n) continue;
        a.m[i] = { (const uint8_t *)j->w.p, j->w.stride, j->w.rows, j->dst.p, j->dst.stride,
                   glu && i > 0 ? ~0u : n_blocks };
        if (a.m[i].first_block == n_blocks)
            n_blocks += div_up(j->w.rows, GEMV_WARPS * (glu ? 1 : GEMV_ROWS));
    }
    a.n = f->m[0].w.n;
    a.x = f->m[0].acts;
    a.n_tok = (int)f->m[0].x.rows;
    a.gain = f->m[0].gain;
    a.glu = glu;
    if (f->out) a.out = f->out->p, a.out_stride = f->out->stride;
    if (f->add) a.add = f->add->p, a.add_stride = f->add->rows == 1 ? 0 : f->add->stride;
    if (a.n_tok <= 1) return gemv_launch<D, 1>(d, a, n_blocks, e);
    if (a.n_tok <= 2) return gemv_launch<D, 2>(d, a, n_blocks, e);
    if (a.n_tok <= 4) return gemv_launch<D, 4>(d, a, n_blocks, e);
    return gemv_launch<D, 8>(d, a, n_blocks, e);
}

#endif
