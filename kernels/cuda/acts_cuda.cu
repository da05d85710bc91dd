/* SPDX-License-Identifier: MIT
 * acts_cuda.cu - activations as 8-bit integers for the products of quantised types; see acts.cuh.
 *
 * Grid [n / 32 / 8, n_tok], block of 8 warps, a warp a block of 32. Moves 4 n + 1.25 n bytes a row;
 * memory bound, and small beside the product. */
#include "cuda/acts.cuh"

#define BLOCKS_AT_ONCE 8

static __global__ void acts_kernel(const char *x, size_t stride, int64_t n, struct acts_out out) {
    await_previous();
    const int lane = (int)threadIdx.x % WARP;
    const int64_t t = blockIdx.y, b = (int64_t)blockIdx.x * BLOCKS_AT_ONCE + threadIdx.x / WARP;
    if (b >= n / 32) return; /* a whole warp */
    acts_put(out, t, n, b, ((const float *)(x + (size_t)t * stride))[32 * b + lane]);
}

static size_t align256(size_t n) {
    return (n + 255) / 256 * 256;
}

size_t acts_bytes(int64_t n_tok, int64_t n) {
    return align256((size_t)(n_tok * n)) + 2 * align256((size_t)(n_tok * (n / 32)) * sizeof(float));
}

struct acts_out acts_room(const struct cuda_device *d, const struct dtensor *x) {
    const size_t q_bytes = align256((size_t)(x->rows * x->n));
    const size_t d_bytes = align256((size_t)(x->rows * (x->n / 32)) * sizeof(float));
    struct acts_out out = { (int8_t *)d->acts.p, (float *)(d->acts.p + q_bytes),
                            (float *)(d->acts.p + q_bytes + d_bytes) };
    FAULT_ONLY_IF(out, FAULT(k_tail)    ? x->rows > FEW_TOKENS
                       : FAULT(tg_tail) ? x->rows <= 2
                                        : true);
    return out;
}

void acts_made(struct cuda_device *d, const struct dtensor *x) {
    d->acts_of = x->p;
    d->acts_rows = x->rows;
    d->acts_halves = false;
}

int acts_quantize(struct cuda_device *d, const struct dtensor *x, struct acts *out,
                  struct err *e) {
    int rc = 0;
    const struct acts_out to = acts_room(d, x);
    *out = { to.q, to.d, to.s };
    if (d->acts_of == x->p && d->acts_rows == x->rows && !d->acts_halves) return 0;
    for (int64_t t = 0; t < x->rows; t += 32768) { /* a grid has 65535 rows */
        const int64_t m = x->rows - t < 32768 ? x->rows - t : 32768;
        LAUNCH(acts_kernel, dim3(div_up(x->n / 32, BLOCKS_AT_ONCE), (unsigned)m),
               BLOCKS_AT_ONCE * WARP, 0, x->p + (size_t)t * x->stride, x->stride, x->n,
               acts_from(to, t, x->n));
    }
    acts_made(d, x);
out:
    return rc;
}
