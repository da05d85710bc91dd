/* SPDX-License-Identifier: MIT
 * acts_cuda.cu - activations as 8-bit integers for the products of quantised types; see acts.cuh.
 *
 * Grid [n / 512, n_tok], block of 4 warps; a thread has 4 elements, 8 threads a block of 32. Moves
 * 4 n + 1.25 n bytes a row; memory bound, and small beside the product. */
#include "cuda/acts.cuh"
#include "cuda/elements.cuh"

#define THREADS 128

template <bool WIDE>
static __global__ void acts_kernel(const char *x, size_t stride, int64_t n, struct acts_out out) {
    await_previous();
    const int64_t t = blockIdx.y, i = 4 * ((int64_t)blockIdx.x * THREADS + threadIdx.x);
    acts_put4(out, t, n, i, row_get4<WIDE>(x + (size_t)t * stride, i, n));
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
    const bool wide = row_is_wide(x->p, x->stride, x->n);
    const auto kernel = wide ? &acts_kernel<true> : &acts_kernel<false>;
    for (int64_t t = 0; t < x->rows; t += 32768) { /* a grid has 65535 rows */
        const int64_t m = x->rows - t < 32768 ? x->rows - t : 32768;
        LAUNCH(kernel, dim3(div_up(x->n, 4 * THREADS), (unsigned)m), THREADS, 0,
               x->p + (size_t)t * x->stride, x->stride, x->n, acts_from(to, t, x->n));
    }
    acts_made(d, x);
out:
    return rc;
}
