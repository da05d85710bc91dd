/* SPDX-License-Identifier: MIT
 * blas_cuda.cu - products of F32, F16 and BF16 matrices with many tokens by cuBLAS, which is opened
 * at run time and not needed.
 *
 * Activations stay binary32 in effect: with F16 weights a token is scaled by a power of two to
 * below 2 and split into two binary16 (22 bits), with BF16 weights into three bfloat16 (24 bits),
 * and the products of the parts are added in binary32 by cuBLAS itself; two or three passes on
 * tensor cores. With F32 weights nothing is split, and no TF32 is allowed.
 *
 * cuBLAS chooses its kernels by shape, so bits depend on the number of tokens: texts, whose bits
 * must not, keep to floats_cuda.cu. */
#include <dlfcn.h>

#include "cuda/run.cuh"

/* From cublas_api.h and library_types.h. */
enum { OP_NONE = 0, OP_TRANSPOSE = 1, R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68 };
#define GEMM_DEFAULT (-1)

typedef struct cublasContext *blas_handle;
typedef int (*create_fn)(blas_handle *h);
typedef int (*destroy_fn)(blas_handle h);
typedef int (*set_stream_fn)(blas_handle h, cudaStream_t s);
typedef int (*gemm_fn)(blas_handle h, int op_a, int op_b, int m, int n, int k, const void *alpha,
                       const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                       const void *beta, void *c, int type_c, int ldc, int compute, int algo);

struct blas {
    blas_handle handle;
    destroy_fn destroy;
    gemm_fn gemm;
};

/* ---- opening --------------------------------------------------------------------------------- */

#if !defined(GGAUGE_CUDA_EMU)
static void *open_library(void) {
    static const char *const names[] = { "libcublas.so.13", "libcublas.so.12", "libcublas.so" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (void *so = dlopen(names[i], RTLD_NOW | RTLD_LOCAL)) return so;
    return NULL;
}
#endif

/* NULL where there is no cuBLAS, or one that does not start. */
static struct blas *blas_open(struct cuda_device *d) {
#if defined(GGAUGE_CUDA_EMU)
    struct blas *b = (struct blas *)calloc(1, sizeof *b);
    if (b) *b = { (blas_handle)d->stream, NULL, emu_gemm };
    return b;
#else
    void *so = open_library();
    if (!so) return NULL;
    create_fn create = (create_fn)dlsym(so, "cublasCreate_v2");
    set_stream_fn set_stream = (set_stream_fn)dlsym(so, "cublasSetStream_v2");
    struct blas *b = (struct blas *)calloc(1, sizeof *b);
    if (!b) return NULL;
    b->destroy = (destroy_fn)dlsym(so, "cublasDestroy_v2");
    b->gemm = (gemm_fn)dlsym(so, "cublasGemmEx");
    if (create && set_stream && b->destroy && b->gemm && create(&b->handle) == 0) {
        if (set_stream(b->handle, d->stream) == 0) return b;
        b->destroy(b->handle);
    }
    free(b);
    return NULL;
#endif
}

void blas_close(struct blas *b) {
    if (b && b->destroy) b->destroy(b->handle);
    free(b);
}

bool blas_has(struct cuda_device *d) {
    if (!d->blas && !d->blas_tried) d->blas = blas_open(d);
    d->blas_tried = true;
    return d->blas != NULL;
}

/* ---- parts of activations -------------------------------------------------------------------- */

#define THREADS 256
#define PARTS_MAX 3

static int n_parts(enum qtype t) {
    return t == QT_f16 ? 2 : t == QT_bf16 ? 3 : 0;
}

static size_t part_bytes(int64_t n_tok, int64_t n) {
    return (size_t)(n_tok * n * 2 + 255) / 256 * 256;
}

size_t blas_bytes(enum qtype t, int64_t n_tok, int64_t n) {
    return (size_t)n_parts(t) * part_bytes(n_tok, n) + (size_t)n_tok * sizeof(float);
}

struct split_args {
    const char *x;
    size_t stride;
    int64_t n;
    uint16_t *part[PARTS_MAX];
    float *scale; /* [n_tok] what the products have to be multiplied by */
    bool f16;
};

DEV uint16_t to_bf16(float x) { /* a part of a finite number: no NaN comes in between */
    const uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 64u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

/* A block a token. */
static __global__ void split_kernel(struct split_args a) {
    await_previous();
    SHARED(shared);
    float *part_max = (float *)shared;
    const int64_t t = blockIdx.x;
    const float *x = (const float *)(a.x + (size_t)t * a.stride);
    float amax = 0;
    for (int64_t i = threadIdx.x; i < a.n; i += THREADS)
        amax = max_nan(amax, fabsf(x[i]));
    amax = warp_max_nan(amax);
    if (threadIdx.x % WARP == 0) part_max[threadIdx.x / WARP] = amax;
    __syncthreads();
    for (int i = 0; i < THREADS / WARP; i++)
        amax = max_nan(amax, part_max[i]);
    int ex = (int)(bits_of(amax) >> 23) - 127; /* 128: not finite, and stays so */
    ex = !a.f16 || ex == 128 ? 0 : ex < -120 ? -120 : ex > 120 ? 120 : ex;
    const float down = f32_of((uint32_t)(127 - ex) << 23);
    if (threadIdx.x == 0) a.scale[t] = f32_of((uint32_t)(127 + ex) << 23);
    for (int64_t i = threadIdx.x; i < a.n; i += THREADS) {
        const float v = x[i] * down;
        const size_t at = (size_t)(t * a.n + i);
        if (a.f16) {
            a.part[0][at] = to_f16(v);
            a.part[1][at] = to_f16(v - hd_f16(a.part[0][at]));
            continue;
        }
        float rest = v;
        for (int p = 0; p < 3; p++) {
            a.part[p][at] = to_bf16(rest);
            rest -= bf16_value(a.part[p][at]);
        }
    }
}

static __global__ void scale_kernel(char *dst, size_t stride, int64_t n, const float *scale) {
    await_previous();
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = blockIdx.y;
    if (i < n) ((float *)(dst + (size_t)t * stride))[i] *= scale[t];
}

/* ---- the product ----------------------------------------------------------------------------- */

/* dst [n_tok, n_rows] (+)= x W^T: to cuBLAS, whose matrices are stored by columns, W is transposed
 * and dst is [n_rows, n_tok]. */
static int one_pass(struct cuda_device *d, const struct mul_job *j, int type, const void *x,
                    size_t x_stride, bool add, struct err *e) {
    const float one = 1, beta = add ? 1 : 0;
    const size_t size = type == R_32F ? 4 : 2;
    const int rc = d->blas->gemm(
        d->blas->handle, OP_TRANSPOSE, OP_NONE, (int)j->w.rows, (int)j->x.rows, (int)j->w.n, &one,
        j->w.p, type, (int)(j->w.stride / size), x, type, (int)(x_stride / size), &beta, j->dst.p,
        R_32F, (int)(j->dst.stride / sizeof(float)), COMPUTE_32F, GEMM_DEFAULT);
    if (rc == 0) return 0;
    return ERR(e, ERR_DEVICE, "cuBLAS: status %d for a product of %d x %d with %d tokens", rc,
               (int)j->w.rows, (int)j->w.n, (int)j->x.rows);
}

int blas_mul(struct cuda_device *d, const struct mul_job *j, struct err *e) {
    int rc = 0;
    const int parts = n_parts(j->w.type), type = j->w.type == QT_f16 ? R_16F : R_16BF;
    struct split_args a = { j->x.p, j->x.stride, j->w.n, { NULL }, NULL, j->w.type == QT_f16 };
    if (parts == 0) return one_pass(d, j, R_32F, j->x.p, j->x.stride, false, e);
    d->acts_of = NULL; /* the scratch memory is shared with quantised activations */
    for (int p = 0; p < parts; p++)
        a.part[p] = (uint16_t *)(d->acts.p + (size_t)p * part_bytes(j->x.rows, j->w.n));
    a.scale = (float *)(d->acts.p + (size_t)parts * part_bytes(j->x.rows, j->w.n));
    LAUNCH(split_kernel, (unsigned)j->x.rows, THREADS, THREADS / WARP * sizeof(float), a);
    for (int p = parts - 1; p >= 0; p--) /* the small ones first */
        TRY(one_pass(d, j, type, a.part[p], (size_t)j->w.n * 2, p < parts - 1, e));
    if (a.f16)
        LAUNCH(scale_kernel, dim3(div_up(j->w.rows, THREADS), (unsigned)j->x.rows), THREADS, 0,
               j->dst.p, j->dst.stride, j->w.rows, a.scale);
out:
    return rc;
}
