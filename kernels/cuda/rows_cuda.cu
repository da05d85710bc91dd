/* SPDX-License-Identifier: MIT
 * rows_cuda.cu - get_rows and set_rows: rows of any type as f32, and rows of f32 into a cache;
 * contracts in op.h, bit for bit ref.
 *
 * Memory bound and small. get_rows of a quantised type: grid [n / 32 / 128, rows], a thread a
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
};

template <class D> DEV int is_negative(D, const uint8_t *, int, int) {
    return 0;
}
DEV int is_negative(dec_iq3_kt, const uint8_t *blk, int b, int i) {
    return iq3_kt_negative(blk, b, i);
}

template <class D> static __global__ void get_rows_kernel(struct rows_args a) {
    const int64_t sub = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (sub >= a.n / 32) return;
    const uint8_t *row = (const uint8_t *)a.src + (size_t)a.ids[t] * a.src_stride;
    const uint8_t *blk = row + D::META + sub / D::PER * D::BYTES;
    struct decoded o;
    D::decode(blk, (int)(sub % D::PER), row_scale<D>(row), &o);
    float *y = (float *)(a.dst + (size_t)t * a.dst_stride) + 32 * sub;
    for (int i = 0; i < 32; i++)
        y[i] = decoded_value(&o, i, D::MIN, is_negative(D(), blk, (int)(sub % D::PER), i));
}

template <class E> static __global__ void get_elements_kernel(struct rows_args a) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= a.n) return;
    const char *row = a.src + (size_t)a.ids[t] * a.src_stride;
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
        const struct rows_args a = { table.p,
                                     table.stride,
                                     (const int32_t *)ids.p + t,
                                     dst.p + (size_t)t * dst.stride,
                                     dst.stride,
                                     table.n };
        LAUNCH(c.kernel, dim3(div_up(div_up(a.n, c.per_thread), THREADS), (unsigned)m), THREADS, 0,
               a);
    }
out:
    return rc;
}

/* ---- set_rows -------------------------------------------------------------------------------- */

struct store_f32 {
    static __device__ __forceinline__ void put(char *row, int64_t i, float x) {
        ((float *)row)[i] = x;
    }
};
struct store_f16 { /* a NaN keeps its upper bits, as f32_to_f16 does */
    static __device__ __forceinline__ void put(char *row, int64_t i, float x) {
        const uint32_t u = bits_of(x);
        const uint16_t nan = (uint16_t)((u >> 16 & 0x8000u) | 0x7E00u | (u >> 13 & 0x1FFu));
        ((uint16_t *)row)[i] = (u & 0x7FFFFFFFu) > 0x7F800000u ? nan : to_f16(x);
    }
};

struct store_args {
    const char *src;
    size_t src_stride;
    const int32_t *cell; /* rows of dst */
    char *dst;
    size_t dst_stride;
    int64_t n;
};

template <class S> static __global__ void set_rows_kernel(struct store_args a) {
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= a.n) return;
    S::put(a.dst + (size_t)a.cell[t] * a.dst_stride, i,
           ((const float *)(a.src + (size_t)t * a.src_stride))[i]);
}

/* q8_0 as legacy_ref.c quantises it: d = amax / 127, q = x * (1 / d) rounded half away from zero, d
 * then rounded to binary16; a block with a NaN or infinity gets a NaN scale. A warp a block. */
static __global__ void set_rows_q8_0_kernel(struct store_args a) {
    const int lane = (int)threadIdx.x % WARP;
    const int64_t b = (int64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, t = blockIdx.y;
    if (b >= a.n / 32) return; /* a whole warp */
    const float v = ((const float *)(a.src + (size_t)t * a.src_stride))[32 * b + lane];
    const float amax = warp_max_nan(fabsf(v));
    const bool finite = (bits_of(amax) & 0x7F800000u) != 0x7F800000u;
    const float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
    char *blk = a.dst + (size_t)a.cell[t] * a.dst_stride + 34 * b;
    blk[2 + lane] = (char)(finite ? (int)roundf(v * id) : 0);
    if (lane == 0) *(uint16_t *)blk = finite ? to_f16(d) : (uint16_t)0x7E00u;
}

int op_set_rows_run(struct cuda_device *d, const struct node *n, struct err *e) {
    int rc = 0;
    const struct dtensor x = device_tensor(d, n->src[0]), cell = device_tensor(d, n->src[1]);
    const struct dtensor dst = device_tensor(d, n->dst);
    for (int64_t t = 0; t < x.rows; t += MAX_GRID_ROWS) {
        const int64_t m = x.rows - t < MAX_GRID_ROWS ? x.rows - t : MAX_GRID_ROWS;
        const struct store_args a = { x.p + (size_t)t * x.stride,
                                      x.stride,
                                      (const int32_t *)cell.p + t,
                                      dst.p,
                                      dst.stride,
                                      x.n };
        const dim3 grid(div_up(x.n, THREADS), (unsigned)m);
        auto f32 = &set_rows_kernel<store_f32>;
        auto f16 = &set_rows_kernel<store_f16>;
        if (dst.type == QT_f32)
            LAUNCH(f32, grid, THREADS, 0, a);
        else if (dst.type == QT_f16)
            LAUNCH(f16, grid, THREADS, 0, a);
        else
            LAUNCH(set_rows_q8_0_kernel, grid, THREADS, 0, a);
    }
out:
    return rc;
}
