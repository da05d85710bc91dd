/* SPDX-License-Identifier: MIT
 * halves_cuda.cu - makes the activations of halves.cuh.
 *
 * Grid [n_tok], block of 8 or 16 warps; a thread has 4 elements in a row at a time, 8 lanes a block
 * of 32. A row stays in registers between its two passes, up to 28 elements a thread: 4 n bytes in,
 * 2 n out; memory bound. */
#include "cuda/acts.cuh"
#include "cuda/elements.cuh"
#include "cuda/halves.cuh"

#define KEPT 7 /* times 4 elements of a thread */

struct halves_args {
    const char *x;
    size_t stride;
    int n;
    uint16_t *q;
    float *scale;
    int64_t n_tok;
    struct acts_out faults; /* no memory: for seeded faults of rounding alone */
};

/* 2^(6 - e) for a scale of which 2^e is the largest power of two below it, and its inverse;
 * integers times scales are then below 2^14. */
DEV float power_for(float d, float *inverse) {
    int e = (int)(bits_of(d) >> 23 & 255u) - 127 - 6;
    e = e < -126 ? -126 : e > 126 ? 126 : e;
    *inverse = f32_of((uint32_t)(127 + e) << 23);
    return f32_of((uint32_t)(127 - e) << 23);
}

/* Elements i .. i + 3 of token t, all lanes of a warp together; `down` is the row's power of
 * two. */
DEV void halves_put(const struct halves_args &a, int64_t t, int i, float4 v, float down) {
    const struct acts_scale scale = acts_scale4(v);
    if (i >= a.n) return;
    const float s = is_lost(a.faults, i / 32, a.n / 32) ? 0 : scale.d * down;
    const int pos = i % 32 / 8 * 2 + i / 4 % 2 * 16; /* 2 t + 16 s */
    const int chunk = i / 128 % 2 * 4 + pos / 8, stage = i / 256 * 4 + i / 32 % 4;
    char *to = (char *)(a.q + ((int64_t)stage * a.n_tok + t) * 64) + pos % 8 * 2;
    *(uint32_t *)(to + (chunk ^ (int)(t % 8)) * 16) = pack_f16(
        (float)acts_int(a.faults, scale, v.x) * s, (float)acts_int(a.faults, scale, v.y) * s);
    *(uint32_t *)(to + ((chunk + 1) ^ (int)(t % 8)) * 16) = pack_f16(
        (float)acts_int(a.faults, scale, v.z) * s, (float)acts_int(a.faults, scale, v.w) * s);
}

template <int THREADS, bool WIDE>
static __global__ void __launch_bounds__(THREADS) halves_kernel(struct halves_args a) {
    await_previous();
    SHARED(shared);
    uint32_t *part = (uint32_t *)shared, amax = 0;
    const int64_t t = blockIdx.x;
    const char *x = a.x + (size_t)t * a.stride;
    const int i0 = 4 * (int)threadIdx.x, step = 4 * THREADS;
    float4 v[KEPT];
    float up;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        v[k] = row_get4<WIDE>(x, i0 + k * step, a.n);
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        amax = larger(amax, max_of_four(v[k]));
    for (int i = i0 + KEPT * step; i < a.n; i += step)
        amax = larger(amax, max_of_four(row_get4<WIDE>(x, i, a.n)));
#pragma unroll
    for (int k = WARP / 2; k > 0; k /= 2)
        amax = larger(amax, __shfl_xor_sync(FULL_WARP, amax, k));
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = amax;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < THREADS / WARP; k++)
        amax = larger(amax, part[k]);
    const float down = power_for(acts_scale_of(f32_of(amax)).d, &up);
    if (threadIdx.x == 0) a.scale[t] = up;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (i0 / 128 * 128 + k * step < a.n) halves_put(a, t, i0 + k * step, v[k], down);
    for (int i = i0 + KEPT * step; i / 128 * 128 < a.n; i += step) /* whole warps */
        halves_put(a, t, i, row_get4<WIDE>(x, i, a.n), down);
}

/* Of the activations, behind which their scales are. */
static size_t q_bytes(int64_t n_tok, int64_t n) {
    return align256((size_t)(n_tok * n + HALVES_MOST * 64) * sizeof(uint16_t));
}

size_t halves_bytes(int64_t n_tok, int64_t n) {
    return q_bytes(n_tok, n) + (size_t)n_tok * sizeof(float);
}

int halves_make(struct cuda_device *d, const struct dtensor *x, struct halves *out, struct err *e) {
    int rc = 0;
    uint16_t *q = (uint16_t *)d->acts.p;
    float *scale = (float *)(d->acts.p + q_bytes(x->rows, x->n));
    struct halves_args a = { x->p, x->stride, (int)x->n, q, scale, x->rows, acts_room(d, x) };
    *out = { q, scale };
    if (d->acts_of == x->p && d->acts_rows == x->rows && d->acts_halves) return 0;
    {
        const bool wide = row_is_wide(x->p, x->stride, x->n), is_long = x->n > 4 * KEPT * 256;
        const auto kernel = is_long ? wide ? &halves_kernel<512, true> : &halves_kernel<512, false>
                            : wide  ? &halves_kernel<256, true>
                                    : &halves_kernel<256, false>;
        const int threads = is_long ? 512 : 256;
        LAUNCH(kernel, (unsigned)x->rows, threads, threads / WARP * sizeof(float), a);
    }
    acts_made(d, x);
    d->acts_halves = true;
out:
    return rc;
}
