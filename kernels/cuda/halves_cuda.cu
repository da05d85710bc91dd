/* SPDX-License-Identifier: MIT
 * halves_cuda.cu - makes the activations of halves.cuh.
 *
 * Grid [n_tok], block of 8 or 16 warps; a thread has 4 elements in a row at a time, 8 lanes a block of
 * 32. A row stays in registers between its two passes, up to 32 elements a thread: 4 n bytes in, 2 n
 * out; memory bound. */
#include "cuda/acts.cuh"
#include "cuda/halves.cuh"

#define KEPT 8 /* times 4 elements of a thread */

struct halves_args {
    const char *x;
    size_t stride;
    int n;
    uint16_t *q;
    float *scale;
    int64_t n_tok;
    struct acts_out faults; /* no memory: for seeded faults of rounding alone */
};

DEV float max_of_four(float4 v) {
    return max_nan(max_nan(fabsf(v.x), fabsf(v.y)), max_nan(fabsf(v.z), fabsf(v.w)));
}

/* 2^(6 - e) for a scale of which 2^e is the largest power of two below it, and its inverse; integers
 * times scales are then below 2^14. */
DEV float power_for(float d, float *inverse) {
    int e = (int)(bits_of(d) >> 23 & 255u) - 127 - 6;
    e = e < -126 ? -126 : e > 126 ? 126 : e;
    *inverse = f32_of((uint32_t)(127 + e) << 23);
    return f32_of((uint32_t)(127 - e) << 23);
}

/* Elements i .. i + 3 of token t, all lanes of a warp together; `down` is the row's power of two. */
DEV void halves_put(const struct halves_args &a, int64_t t, int i, float4 v, float down) {
    float m = max_of_four(v);
#pragma unroll
    for (int k = 4; k > 0; k /= 2)
        m = max_nan(m, __shfl_xor_sync(FULL_WARP, m, k));
    if (i >= a.n) return;
    const float d = acts_scale(m), id = acts_inverse(d);
    const float s = is_lost(a.faults, i / 32, a.n / 32) ? 0 : d * down;
    const int pos = i % 32 / 8 * 2 + i / 4 % 2 * 16; /* 2 t + 16 s */
    const int chunk = i / 32 % 2 * 4 + pos / 8;
    char *to = (char *)(a.q + ((int64_t)(i / 64) * a.n_tok + t) * 64) + pos % 8 * 2;
    *(uint32_t *)(to + (chunk ^ (int)(t % 8)) * 16) =
        pack_f16((float)acts_round(a.faults, v.x, m, id) * s, (float)acts_round(a.faults, v.y, m, id) * s);
    *(uint32_t *)(to + ((chunk + 1) ^ (int)(t % 8)) * 16) =
        pack_f16((float)acts_round(a.faults, v.z, m, id) * s, (float)acts_round(a.faults, v.w, m, id) * s);
}

template <int THREADS>
static __global__ void __launch_bounds__(THREADS) halves_kernel(struct halves_args a) {
    await_previous();
    SHARED(shared);
    float *part = (float *)shared;
    const int64_t t = blockIdx.x;
    const float *x = (const float *)(a.x + (size_t)t * a.stride);
    const int i0 = 4 * (int)threadIdx.x, step = 4 * THREADS;
    float4 v[KEPT];
    float amax = 0, up;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        v[k] = i0 + k * step < a.n ? *(const float4 *)(x + i0 + k * step) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        amax = max_nan(amax, max_of_four(v[k]));
    for (int i = i0 + KEPT * step; i < a.n; i += step)
        amax = max_nan(amax, max_of_four(*(const float4 *)(x + i)));
    amax = warp_max_nan(amax);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = amax;
    __syncthreads();
    amax = warp_max_nan(part[threadIdx.x % (THREADS / WARP)]);
    const float down = power_for(acts_scale(amax), &up);
    if (threadIdx.x == 0) a.scale[t] = up;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (i0 / 128 * 128 + k * step < a.n) halves_put(a, t, i0 + k * step, v[k], down);
    for (int i = i0 + KEPT * step; i / 128 * 128 < a.n; i += step) /* whole warps */
        halves_put(a, t, i, i < a.n ? *(const float4 *)(x + i) : make_float4(0, 0, 0, 0), down);
}

static size_t align256(size_t n) {
    return (n + 255) / 256 * 256;
}

size_t halves_bytes(int64_t n_tok, int64_t n) {
    return align256((size_t)(n_tok * n + HALVES_MOST * 64) * sizeof(uint16_t)) +
           (size_t)n_tok * sizeof(float);
}

int halves_make(struct cuda_device *d, const struct dtensor *x, struct halves *out, struct err *e) {
    int rc = 0;
    uint16_t *q = (uint16_t *)d->acts.p;
    float *scale = (float *)(d->acts.p + (halves_bytes(x->rows, x->n) - (size_t)x->rows * sizeof(float)));
    struct halves_args a = { x->p, x->stride, (int)x->n, q, scale, x->rows, acts_room(d, x) };
    *out = { q, scale };
    if (d->acts_of == x->p && d->acts_rows == x->rows && d->acts_halves) return 0;
    if (x->n <= 4 * KEPT * 256)
        LAUNCH(halves_kernel<256>, (unsigned)x->rows, 256, 256 / WARP * sizeof(float), a);
    else
        LAUNCH(halves_kernel<512>, (unsigned)x->rows, 512, 512 / WARP * sizeof(float), a);
    acts_made(d, x);
    d->acts_halves = true;
out:
    return rc;
}
