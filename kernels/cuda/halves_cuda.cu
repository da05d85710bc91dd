/* SPDX-License-Identifier: MIT
 * halves_cuda.cu - makes the activations of halves.cuh.
 *
 * Grid [n_tok], block of 8 warps; 8 lanes have a block of 32, a thread 4 elements in a row. A row is
 * read twice, the second time out of a cache: 4 n bytes in, 2 n out; memory bound. */
#include "cuda/acts.cuh"
#include "cuda/halves.cuh"

#define THREADS 256

struct halves_args {
    const char *x;
    size_t stride;
    int n;
    uint16_t *q;
    float *scale;
    int64_t n_tok;
    struct acts_out faults; /* no memory: for seeded faults of rounding alone */
};

/* The largest of a block of 32, of which 8 lanes have 4 each. */
DEV float max_of_eight(float4 v) {
    float m = max_nan(max_nan(fabsf(v.x), fabsf(v.y)), max_nan(fabsf(v.z), fabsf(v.w)));
#pragma unroll
    for (int i = 4; i > 0; i /= 2)
        m = max_nan(m, __shfl_xor_sync(FULL_WARP, m, i));
    return m;
}

/* 2^(6 - e) for a scale of which 2^e is the largest power of two below it, and its inverse; integers
 * times scales are then below 2^14. */
DEV float power_for(float d, float *inverse) {
    int e = (int)(bits_of(d) >> 23 & 255u) - 127 - 6;
    e = e < -126 ? -126 : e > 126 ? 126 : e;
    *inverse = f32_of((uint32_t)(127 + e) << 23);
    return f32_of((uint32_t)(127 - e) << 23);
}

static __global__ void halves_kernel(struct halves_args a) {
    await_previous();
    SHARED(shared);
    float *part = (float *)shared;
    const int64_t t = blockIdx.x;
    const float *x = (const float *)(a.x + (size_t)t * a.stride);
    float amax = 0, up;
    for (int i = 4 * (int)threadIdx.x; i < a.n; i += 4 * THREADS) {
        const float4 v = *(const float4 *)(x + i);
        amax = max_nan(amax, max_nan(max_nan(fabsf(v.x), fabsf(v.y)), max_nan(fabsf(v.z), fabsf(v.w))));
    }
    amax = warp_max_nan(amax);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = amax;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / WARP; i++)
        amax = max_nan(amax, part[i]);
    const float down = power_for(acts_scale(amax), &up);
    if (threadIdx.x == 0) a.scale[t] = up;
    for (int i = 4 * (int)threadIdx.x; i < (a.n + 127) / 128 * 128; i += 4 * THREADS) {
        const bool real = i < a.n;
        const float4 v = real ? *(const float4 *)(x + i) : make_float4(0, 0, 0, 0);
        const float m = max_of_eight(v);
        const float d = acts_scale(m), id = acts_inverse(d);
        const float s = is_lost(a.faults, i / 32, a.n / 32) ? 0 : d * down;
        const int at = i % 32, k = at / 8 * 2 + at / 4 % 2 * 16; /* 2 t + 16 s */
        char *to = (char *)(a.q + ((int64_t)(i / 64) * a.n_tok + t) * 64);
        const int chunk = i / 32 % 2 * 4 + k / 8;
        if (!real) continue;
        *(uint32_t *)(to + ((chunk ^ (int)(t % 8)) * 16 + k % 8 * 2)) =
            pack_f16((float)acts_round(a.faults, v.x, m, id) * s, (float)acts_round(a.faults, v.y, m, id) * s);
        *(uint32_t *)(to + (((chunk + 1) ^ (int)(t % 8)) * 16 + k % 8 * 2)) =
            pack_f16((float)acts_round(a.faults, v.z, m, id) * s, (float)acts_round(a.faults, v.w, m, id) * s);
    }
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
    LAUNCH(halves_kernel, (unsigned)x->rows, THREADS, THREADS / WARP * sizeof(float), a);
    acts_made(d, x);
    d->acts_halves = true;
out:
    return rc;
}
