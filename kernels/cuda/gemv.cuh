/* SPDX-License-Identifier: MIT
 * gemv.cuh - a quantised matrix times 1 to 8 tokens: every weight is read once.
 *
 * A block has 4 warps, a warp 2 rows (4 of a trellis, for one token), a lane every 32nd sub-block
 * of them; of a trellis two warps can share rows, each with half of their chunks of 32 sub-blocks.
 * Up to three matrices that multiply the same tokens share a launch; results can be added to
 * others, or two matrices be the gate and the other factor of a gated unit (then half of a warp's
 * rows are of each).
 *
 * The raw bytes of a chunk pass through the warp's own shared memory in copies of 16 bytes,
 * whatever the alignment of blocks is, 2 ahead of what is decoded, the first ones while the kernel
 * that makes the activations still runs. The first token's activations are fetched one turn ahead,
 * those of the others before they are needed. Decoded weights stay in registers and meet the int8
 * activations of all tokens there; with one token a trellis is not even decoded (NAME_dot of
 * decode_trellis.h). Shared: 4 warps x 2 or 4 rows x 3 chunks (7 KiB to 30 KiB). Bytes moved: the
 * matrix, once. Limit: memory for plain types, instructions for a trellis (4.6 to 6.7 a weight).
 *
 * Sums: a lane adds its sub-blocks in order, then lanes are added in a fixed tree; of a trellis
 * half of the chunks so, and then both sums, whether one warp makes them or two. They depend
 * neither on the number of tokens nor on which rows a block has. */
#ifndef GGAUGE_GEMV_CUH
#define GGAUGE_GEMV_CUH

#include "cuda/decoders.cuh"

#define GEMV_WARPS 4
#define GEMV_ROWS 2 /* of a warp */
#define GEMV_STAGES 3 /* more would but delay activations, which queue behind weights */
/* From one row of a warp to the next: such rows, if of a multiple of 4 bytes, are aligned alike. */
#define GEMV_STEP 4

struct gemv_matrix {
    const uint8_t *w;
    uint32_t w_stride; /* a row's weights are below 4 GiB: 32 bits take a third of the
                        * instructions */
    int n_rows;
    char *dst;
    size_t dst_stride;
    unsigned first_block;
};

/* What a launch multiplies, and what becomes of it; gemm_half.cuh has the same. */
struct joint_args {
    struct gemv_matrix m[FEW_MATRICES]; /* whoever has no rows has no blocks either */
    int n, n_tok;
    float gain;
    /* out = silu(results of m[0]) * results of m[1], or results of m[0] + add; NULL = neither */
    bool glu;
    const char *add;
    size_t add_stride;
    char *out;
    size_t out_stride;
};

struct gemv_args : joint_args {
    struct acts x;
};

static void joint_fill(struct joint_args *a, const struct few_job *f) {
    for (int i = 0; i < f->n; i++) {
        const struct mul_job *j = &f->m[i];
        a->m[i] = { (const uint8_t *)j->w.p, (uint32_t)j->w.stride, (int)j->w.rows,
                    j->dst.p, j->dst.stride, 0 };
    }
    a->n = (int)f->m[0].w.n;
    a->n_tok = (int)f->m[0].x.rows;
    a->gain = f->m[0].gain;
    a->glu = f->n == 2 && f->out;
    if (f->out) a->out = f->out->p, a->out_stride = f->out->stride;
    if (f->add) a->add = f->add->p, a->add_stride = f->add->rows == 1 ? 0 : f->add->stride;
}

/* The matrix that a block works on. Not as a result: the compiler would no longer know that its
 * pointers are to global memory. */
DEV void joint_matrix(const struct joint_args &a, unsigned block, struct gemv_matrix *m) {
    *m = a.m[0];
#pragma unroll
    for (int i = 1; i < FEW_MATRICES; i++)
        if (block >= a.m[i].first_block) *m = a.m[i];
}

/* Types that multiply one token without decoded weights: NAME_dot of decode_trellis.h. */
template <class D> struct gemv_dot {
    static constexpr bool HAS = false;
};
#define GEMV_DOT(name)                                                                             \
    template <> struct gemv_dot<dec_##name> {                                                      \
        static constexpr bool HAS = true;                                                          \
        static __device__ __forceinline__ void dot(int n, const uint8_t *const *blk, int b,        \
                                                   const uint32_t *x, int *sum) {                  \
            name##_dot(n, blk, b, x, sum);                                                         \
        }                                                                                          \
        static __device__ __forceinline__ float scale(const uint8_t *blk, int b, float d) {        \
            return name##_scale(blk, b, d);                                                        \
        }                                                                                          \
    };
GEMV_DOT(iq2_kt)
GEMV_DOT(iq3_kt)
GEMV_DOT(iq4_kt)

template <class D, int ROWS> struct gemv_shape {
    static constexpr int SUMS = gemv_dot<D>::HAS ? 2 : 1; /* of a row */
    static constexpr int BLOCKS = 32 / D::PER;
    static constexpr int CHUNK = BLOCKS * D::BYTES; /* bytes of 32 sub-blocks */
    /* Blocks of 128 bytes would lie in the same banks, all of them: they are 160 bytes apart. */
    static constexpr bool APART = D::BYTES % 128 == 0;
    static constexpr int PITCH = D::BYTES + (APART ? 32 : 0);
    /* and the 16 bytes in which they begin and end */
    static constexpr int SLOT = BLOCKS * PITCH + (APART ? 0 : 32);
    /* of rows GEMV_STEP apart: what they have is where the first one's is */
    static constexpr bool ALIKE = D::BYTES % 4 == 0 && D::META % 4 == 0;
    static constexpr int STAGE = ROWS * SLOT;
    static constexpr size_t SHARED_BYTES = (size_t)GEMV_WARPS * GEMV_STAGES * STAGE;
    /* Blocks that a multiprocessor has at once: for so many the registers suffice without
     * spills. */
    static constexpr int resident(int n_tok) {
        return n_tok == 1 ? (ROWS == GEMV_ROWS ? 6 : 5) : n_tok == 2 ? 5 : n_tok == 4 ? 4 : 3;
    }
    static_assert(CHUNK % 16 == 0, "a chunk is a whole number of copies");
    static_assert(!APART || (CHUNK == 16 * WARP && ROWS * BLOCKS <= WARP), "a lane has one end");
};

/* A row, and what a lane copies of it: 16 bytes out of every 512 of a chunk. */
struct gemv_row {
    const uint8_t *from; /* the lane's first piece of the next chunk */
    int off;             /* where in its first 16 bytes a chunk begins */
    int blk;             /* the lane's block, from where a stage begins */
    float scale;
};

/* The 16 bytes in which a block ends and the next one begins belong to both, so if blocks are
 * apart, to two places. Lane r * BLOCKS + k copies them once more, to the end of block k of row
 * r. */
struct gemv_end {
    const uint8_t *from;
    int left; /* copy if a chunk has more bytes than this */
};

/* Row r of a warp that begins with chunk `first`. */
template <class D, int ROWS>
DEV struct gemv_row gemv_row_at(const uint8_t *row, int first, int r, int lane) {
    typedef gemv_shape<D, ROWS> S;
    const uint8_t *p = row + D::META;
    const int off = (int)((uintptr_t)p & 15);
    return { p - off + 16 * lane + first * S::CHUNK, off,
             r * S::SLOT + off + lane / D::PER * S::PITCH, row_scale<D>(row) };
}

/* Of the lane's row. */
template <class D, int ROWS>
DEV struct gemv_end gemv_end_of(const uint8_t *row, int first, int lane) {
    typedef gemv_shape<D, ROWS> S;
    const int off = (int)((uintptr_t)(row + D::META) & 15);
    const int to = (lane % S::BLOCKS + 1) * D::BYTES;
    return { row + D::META - off + to + first * S::CHUNK,
             lane < ROWS * S::BLOCKS ? to - off : S::CHUNK };
}

/* Start the copies of the warp's next chunk of all rows, from which on `left` bytes are left, to a
 * stage. */
template <class D, int ROWS>
DEV void gemv_load(const struct gemv_row *row, const struct gemv_end &end, unsigned at, int left,
                   shared_place stage, int lane) {
    typedef gemv_shape<D, ROWS> S;
    const int bytes = left <= 0 ? -16 : left < S::CHUNK ? left : S::CHUNK;
    const shared_place to = stage + (S::APART ? lane / 8 * S::PITCH + lane % 8 * 16 : 16 * lane);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < (S::APART ? S::CHUNK : S::SLOT); i += 16 * WARP)
            if (i + 16 * lane < row[r].off + bytes)
                cp_async16_to(to + r * S::SLOT + i, row[r].from + at + i);
    }
    if (S::APART) {
        if (end.left < bytes)
            cp_async16_to(stage + lane / S::BLOCKS * S::SLOT + lane % S::BLOCKS * S::PITCH +
                              D::BYTES,
                          end.from + at);
    }
    cp_async_commit();
}

/* The activations of sub-block `sub` of token t. */
struct gemv_acts {
    uint32_t q[8];
    float d;
};

DEV struct gemv_acts gemv_acts_of(const struct gemv_args &a, int t, int sub) {
    const uint4 *x = (const uint4 *)(a.x.q + (size_t)t * a.n + 32 * sub);
    const uint4 x0 = x[0], x1 = x[1];
    return { { x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w },
             a.x.d[(size_t)t * (a.n / 32) + sub] };
}

/* Sub-block b of the blocks blk of all rows with one token's activations x. */
template <class D, int ROWS>
DEV void gemv_one(const uint8_t *const *blk, const struct gemv_row *row, int b,
                  const struct gemv_acts &x, float acc[ROWS][1]) {
    int sum[ROWS];
    gemv_dot<D>::dot(ROWS, blk, b, x.q, sum);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        acc[r][0] = fmaf(gemv_dot<D>::scale(blk[r], b, row[r].scale) * x.d, (float)sum[r],
                         acc[r][0]);
}

/* The same of sub-block `sub` of the rows with all tokens, decoded; x: those of the first one, and
 * of the second one if there are more. The next one's are fetched before one's are used. */
template <class D, int NT, int ROWS>
DEV void gemv_sub_block(const struct gemv_args &a, const uint8_t *const *blk,
                        const struct gemv_row *row, int b, int sub, struct gemv_acts x,
                        struct gemv_acts ahead, float acc[ROWS][NT]) {
    struct decoded w[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        D::decode(blk[r], b, row[r].scale, &w[r]);
#pragma unroll
    for (int t = 0; t < NT; t++) {
        struct gemv_acts after = {};
        if (t + 2 < NT) after = gemv_acts_of(a, t + 2 < a.n_tok ? t + 2 : 0, sub);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int sum = 0;
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum = hd_dot4(w[r].q[i], x.q[i], sum);
            acc[r][t] = fmaf(w[r].scale * x.d, (float)sum, acc[r][t]);
            if (D::MIN)
                acc[r][t] = fmaf(w[r].min, a.x.s[(size_t)(t < a.n_tok ? t : 0) * (a.n / 32) + sub],
                                 acc[r][t]);
        }
        x = ahead, ahead = after;
    }
}

/* What a warp has: ROWS rows of m, r0 and every GEMV_STEP-th behind it, or half of them and the
 * same of the other matrix. */
struct gemv_part {
    struct gemv_matrix m;
    int r0;
};

/* Read anew, so that no registers keep it while sums are made. */
template <int ROWS, int PARTS> DEV struct gemv_part gemv_part_now(const struct gemv_args &a) {
    const unsigned block = (unsigned)block_now().x;
    struct gemv_part p = {};
    joint_matrix(a, block, &p.m);
    const unsigned set = (block - p.m.first_block) * (GEMV_WARPS / PARTS) +
                         thread_now() / (WARP * PARTS);
    p.r0 = (int)(set / GEMV_STEP * GEMV_STEP * (a.glu ? ROWS / 2 : ROWS) + set % GEMV_STEP);
    return p;
}

template <int ROWS>
DEV const uint8_t *gemv_row_start(const struct gemv_args &a, const struct gemv_part &p, int i) {
    const bool other = a.glu && i >= ROWS / 2;
    const int first = p.r0 < p.m.n_rows ? p.r0 : 0;
    const int r = p.r0 + GEMV_STEP * (other ? i - ROWS / 2 : i);
    return (other ? a.m[1].w : p.m.w) + (uint64_t)(uint32_t)(r < p.m.n_rows ? r : first) *
                                            (other ? a.m[1].w_stride : p.m.w_stride);
}

/* What a lane has of the results: those of one row for one token, if any. */
struct gemv_result {
    struct gemv_matrix m;
    int row, t;
    bool gate; /* of a gated unit, whose other factor another lane has */
    bool is;   /* and is it the lane of the warp that stores it? */
};

/* After warp_sums lane i * LANES has result i; rows come first, tokens second. */
template <int NT, int ROWS, int PARTS>
DEV struct gemv_result gemv_result_now(const struct gemv_args &a) {
    constexpr int LANES = WARP / (NT * ROWS);
    const struct gemv_part p = gemv_part_now<ROWS, PARTS>(a);
    const int lane = (int)(thread_now() % WARP), i = lane / LANES, r = i / NT;
    const bool other = a.glu && r >= ROWS / 2;
    struct gemv_result y = { p.m, p.r0 + GEMV_STEP * (other ? r - ROWS / 2 : r), i % NT,
                             a.glu && !other, false };
    if (other) y.m = a.m[1];
    y.is = lane % LANES == 0 && thread_now() / WARP % PARTS == 0 && y.t < a.n_tok &&
           y.row < y.m.n_rows;
    return y;
}

/* What is added to it. */
template <int NT, int ROWS, int PARTS> DEV float gemv_added(const struct gemv_args &a) {
    if (!a.add) return 0;
    const struct gemv_result at = gemv_result_now<NT, ROWS, PARTS>(a);
    return at.is ? ((const float *)(a.add + (size_t)at.t * a.add_stride))[at.row] : 0;
}

template <int NT, int ROWS, int PARTS>
DEV void gemv_store(const struct gemv_args &a, float y, float added) {
    const float up = __shfl_xor_sync(FULL_WARP, y, WARP / 2); /* of a gate */
    const struct gemv_result at = gemv_result_now<NT, ROWS, PARTS>(a);
    if (!at.is) return;
    ((float *)(at.m.dst + (size_t)at.t * at.m.dst_stride))[at.row] = y;
    if (a.add || at.gate)
        ((float *)(a.out + (size_t)at.t * a.out_stride))[at.row] = a.glu ? swiglu(y, up)
                                                                         : y + added;
}

/* The sums of all warps of some rows; `mine` is the warp's own shared memory, `size` bytes. */
template <int PARTS> DEV float gemv_parts_sum(float y, uint8_t *mine, size_t size) {
    if (PARTS == 1) return y;
    const unsigned part = threadIdx.x / WARP % PARTS, lane = threadIdx.x % WARP;
    __syncwarp();
    ((float *)mine)[lane] = y;
    __syncthreads();
    return part ? y : y + ((const float *)(mine + size))[lane];
}

template <class D, int NT, int ROWS, int PARTS>
static __global__ void __launch_bounds__(GEMV_WARPS *WARP, (gemv_shape<D, ROWS>::resident(NT)))
gemv_kernel(struct gemv_args a) {
    typedef gemv_shape<D, ROWS> S;
    SHARED(shared);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    uint8_t *slots = shared + warp * GEMV_STAGES * S::STAGE;
    const struct gemv_part part = gemv_part_now<ROWS, PARTS>(a);
    const int n_sub = part.r0 < part.m.n_rows ? (int)((unsigned)a.n / 32) : 0;
    /* chunks of a sum, and of this warp */
    const int n_chunks = (n_sub + 31) / 32, half = (n_chunks + S::SUMS - 1) / S::SUMS;
    const int first = warp % PARTS * half, n_own = PARTS == 1 ? n_chunks : half;
    struct gemv_row row[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        row[i] = gemv_row_at<D, ROWS>(gemv_row_start<ROWS>(a, part, i), first, i, lane);
        if (S::ALIKE && i % (ROWS / 2)) {
            row[i].off = row[i - 1].off;
            row[i].blk = row[i - 1].blk + S::SLOT;
        }
    }
    struct gemv_end end = {};
    if (S::APART)
        end = gemv_end_of<D, ROWS>(gemv_row_start<ROWS>(a, part, lane / S::BLOCKS % ROWS), first,
                                   lane);
    int left = (int)((unsigned)n_sub / D::PER) * D::BYTES - first * S::CHUNK;
    if (PARTS > 1 && left > n_own * S::CHUNK) left = n_own * S::CHUNK;
    unsigned at = 0; /* of the chunk that is fetched next, from the first one on */
    const shared_place place = place_of(slots);
#pragma unroll
    for (int s = 0; s < GEMV_STAGES - 1; s++, at += S::CHUNK, left -= S::CHUNK)
        gemv_load<D, ROWS>(row, end, at, left, place + s * S::STAGE, lane);
    await_previous(); /* who makes the activations */
    int sub = lane + 32 * first;
    struct gemv_acts next_x = gemv_acts_of(a, 0, sub < n_sub ? sub : 0);
    const float added = gemv_added<NT, ROWS, PARTS>(a);
    int now = 0, next = (GEMV_STAGES - 1) * S::STAGE; /* places of stages */
    float y = -0.0f;
#pragma unroll 1
    for (int k = 0; k < S::SUMS / PARTS; k++) {
        const int to = 32 * (first + half + k * half), stop = to < n_sub ? to : n_sub;
        float acc[ROWS][NT] = {};
#pragma unroll 1
        for (; sub - lane < stop; sub += 32) {
            gemv_load<D, ROWS>(row, end, at, left, place + next, lane);
            at += S::CHUNK, left -= S::CHUNK;
            const struct gemv_acts x = next_x; /* fetched a turn ago */
            next_x = gemv_acts_of(a, 0, sub + 32 < n_sub ? sub + 32 : 0);
            struct gemv_acts second = {};
            if (NT > 1) second = gemv_acts_of(a, a.n_tok > 1 ? 1 : 0, sub < n_sub ? sub : 0);
            cp_async_wait<GEMV_STAGES - 1>();
            __syncwarp();
            if (sub < n_sub) {
                const uint8_t *blk[ROWS];
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    blk[r] = slots + now + row[r].blk;
                if constexpr (NT == 1 && gemv_dot<D>::HAS)
                    gemv_one<D, ROWS>(blk, row, lane % D::PER, x, acc);
                else
                    gemv_sub_block<D, NT, ROWS>(a, blk, row, lane % D::PER, sub, x, second, acc);
            }
            __syncwarp(); /* the slot is filled again by the next turn */
            next = now;
            now = now == (GEMV_STAGES - 1) * S::STAGE ? 0 : now + S::STAGE;
        }
        y += warp_sums<ROWS * NT>(acc[0], lane);
    }
    y = gemv_parts_sum<PARTS>(y, slots, GEMV_STAGES * S::STAGE);
    gemv_store<NT, ROWS, PARTS>(a, a.gain * y, added);
}

/* Fills in where the blocks of each matrix begin; how many there are. */
template <int ROWS, int PARTS> static unsigned gemv_blocks(struct gemv_args *a) {
    unsigned n = 0;
    for (int i = 0; i < FEW_MATRICES; i++) {
        const bool none = !a->m[i].w || (a->glu && i > 0);
        a->m[i].first_block = none ? ~0u : n;
        if (!none)
            n += div_up(GEMV_STEP * (int64_t)div_up(a->m[i].n_rows,
                                                    GEMV_STEP * (a->glu ? ROWS / 2 : ROWS)),
                        GEMV_WARPS / PARTS);
    }
    return n;
}

template <class D, int NT, int ROWS, int PARTS>
static int gemv_launch(struct cuda_device *d, struct gemv_args a, struct err *e) {
    int rc = 0;
    const unsigned n_blocks = gemv_blocks<ROWS, PARTS>(&a);
    auto kernel = &gemv_kernel<D, NT, ROWS, PARTS>;
    LAUNCH(kernel, n_blocks, GEMV_WARPS * WARP, (gemv_shape<D, ROWS>::SHARED_BYTES), a);
out:
    return rc;
}

/* One token by NAME_dot: two warps for some rows if all blocks that this gives run at once; if not,
 * there are warps enough, and half as many have half as many beginnings. */
template <class D>
static int gemv_run_dot(struct cuda_device *d, struct gemv_args a, struct err *e) {
    const int at_once = gemv_shape<D, KT_DOT_ROWS>::resident(1) * d->prop.multiProcessorCount;
    if (gemv_blocks<KT_DOT_ROWS, 2>(&a) <= (unsigned)at_once)
        return gemv_launch<D, 1, KT_DOT_ROWS, 2>(d, a, e);
    return gemv_launch<D, 1, KT_DOT_ROWS, 1>(d, a, e);
}

/* At most 8 tokens. */
template <class D>
static int gemv_run(struct cuda_device *d, const struct few_job *f, struct err *e) {
    struct gemv_args a = {};
    joint_fill(&a, f);
    a.x = f->m[0].acts;
    if (a.n_tok <= 1) {
        if constexpr (gemv_dot<D>::HAS)
            return gemv_run_dot<D>(d, a, e);
        else
            return gemv_launch<D, 1, GEMV_ROWS, 1>(d, a, e);
    }
    if (a.n_tok <= 2) return gemv_launch<D, 2, GEMV_ROWS, 1>(d, a, e);
    if (a.n_tok <= 4) return gemv_launch<D, 4, GEMV_ROWS, 1>(d, a, e);
    return gemv_launch<D, 8, GEMV_ROWS, gemv_shape<D, GEMV_ROWS>::SUMS>(d, a, e);
}

template <class D>
static int gemv_run_one(struct cuda_device *d, const struct mul_job *j, struct err *e) {
    struct few_job f = {};
    f.m[0] = *j;
    f.n = 1;
    return gemv_run<D>(d, &f, e);
}

#endif
