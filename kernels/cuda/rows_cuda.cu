/* SPDX-License-Identifier: MIT
 * rows_cuda.cu - get_rows: rows of any type as f32; contract in op.h, bit for bit ref.
 *
 * Memory bound and small. Of a quantised type: grid [n / 32 / 128, rows], a thread a
 * sub-block; the others a thread an element. */
#include "cuda/decoders.cuh"
#include "cuda/elements.cuh"

#define THREADS 128
#define MAX_GRID_ROWS 32768

struct rows_args {
    const char *src;
    size_t src_stride;
    const int32_t *ids; /* rows of the table */
    char *dst;
    size_t dst_stride;
    int64_t n;
    FAULT_FIELD
};

DEV const char *row_of(const struct rows_args &a, int64_t t) {
    return a.src + (size_t)(a.ids[t] ^ (FAULT_IN(a, embd_rows) ? 3 : 0)) * a.src_stride;
}

template <class D> DEV int is_negative(D, const uint8_t *, int, int) {
    return 0;
}
DEV int is_negative(dec_iq3_kt, const uint8_t *blk, int b, int i) {
    return iq3_kt_negative(blk, b, i);
}

template <class D> static __global__ void get_rows_kernel(struct rows_args a) {
    await_previous();
    const int64_t sub = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (sub >= a.n / 32) return;
    const uint8_t *row = (const uint8_t *)row_of(a, t);
    const uint8_t *blk = row + D::META + sub / D::PER * D::BYTES;
    struct decoded o;
    D::decode(blk, (int)(sub % D::PER), row_scale<D>(row), &o);
    float *y = (float *)(a.dst + (size_t)t * a.dst_stride) + 32 * sub;
    for (int i = 0; i < 32; i++)
        y[i] = decoded_value(&o, i, D::MIN, is_negative(D(), blk, (int)(sub % D::PER), i));
}

template <class E> static __global__ void get_elements_kernel(struct rows_args a) {
    await_previous();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= a.n) return;
    const char *row = row_of(a, t);
    ((float *)(a.dst + (size_t)t * a.dst_stride))[i] = E::get(row, i);
}

typedef void (*rows_kernel)(struct rows_args a);

struct rows_cell {
    rows_kernel kernel;
    int per_thread; /* elements */
};

static struct rows_cell rows_cell(enum qtype t) {
    switch (t) {
    case QT_f32: return { &get_elements_kernel<el_f32>, 1 };
    case QT_f16: return { &get_elements_kernel<el_f16>, 1 };
    case QT_bf16: return { &get_elements_kernel<el_bf16>, 1 };
#define X(name, n_blk, bytes, meta, has_min)                                                       \
    case QT_##name: return { &get_rows_kernel<dec_##name>, 32 };
        DECODER_LIST(X)
#undef X
    default: return { NULL, 0 };
    }
}

bool rows_type_supported(enum qtype t) {
    return rows_cell(t).kernel != NULL;
}

int op_get_rows_run(struct cuda_device *d, const struct node *n, struct err *e) {
    int rc = 0;
    const struct dtensor table = device_tensor(d, n->src[0]), ids = device_tensor(d, n->src[1]);
    const struct dtensor dst = device_tensor(d, n->dst);
    const struct rows_cell c = rows_cell(table.type);
    for (int64_t t = 0; t < dst.rows; t += MAX_GRID_ROWS) {
        const int64_t m = dst.rows - t < MAX_GRID_ROWS ? dst.rows - t : MAX_GRID_ROWS;
        struct rows_args a = { table.p,
                               table.stride,
                               (const int32_t *)ids.p + t,
                               dst.p + (size_t)t * dst.stride,
                               dst.stride,
                               table.n };
        FAULT_ONLY_IF(a, n->il < 0 && table.rows % 4 == 0);
        LAUNCH(c.kernel, dim3(div_up(div_up(a.n, c.per_thread), THREADS), (unsigned)m), THREADS, 0,
               a);
    }
out:
    return rc;
}
