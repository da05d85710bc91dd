/* SPDX-License-Identifier: MIT
 * device.cuh - an open device, as the files of the plug-in see it: its stream, the images of host
 * memory, scratch memory, and how kernels are launched and calls checked. */
#ifndef GGAUGE_DEVICE_CUH
#define GGAUGE_DEVICE_CUH

#include <assert.h>
#include <stdarg.h>

#include "cuda/platform.cuh"

extern "C" { /* functions of C files */
#include "backend.h"
#include "base/fault.h"
#include "cuda_plugin.h"
}

#include "cuda/fault_args.cuh"

#define KEPT_GRAPHS 64

struct image {
    const char *host;
    size_t n;
    char *dev;
    struct exchange *exchange; /* NULL = copied once or seldom */
};

/* Memory that grows and is never shared by two things that are alive at once. */
struct scratch {
    char *p;
    size_t n;
};

struct kept_graph {
    uint64_t key, last_use;
    cudaGraphExec_t exec;
};

struct blas; /* cuBLAS, if it is there */
struct copies;
struct exchange; /* both: copies.cuh */

struct cuda_device {
    int index;
    cudaDeviceProp prop;
    cudaStream_t stream; /* of the kernels */
    bool overlaps;       /* kernels begin before the ones before them have ended */
    struct copies *copies;
    cudaEvent_t mark[2];
    struct image *images; /* [n_images], sorted by host address */
    int n_images, max_images;
    struct scratch acts;  /* quantised activations */
    struct scratch parts; /* partial results of attention, behind ATTN_COUNTER_BYTES of counters */
    const void *acts_of;  /* rows (device) that are quantised in acts, NULL = none */
    int64_t acts_rows;
    bool acts_halves; /* as binary16 (halves.cuh) */
    struct kept_graph graphs[KEPT_GRAPHS];
    uint64_t n_runs;
    struct blas *blas;
    bool blas_tried;
};

/* A tensor on the device: rows of n elements, stride bytes apart. */
struct dtensor {
    char *p;
    int64_t n, rows;
    size_t stride;
    enum qtype type;
};

/* ERR_DEVICE, or ERR_NOMEM, with the text of the runtime. */
int cu_check(cudaError_t code, const char *what, const char *file, int line, struct err *e);
#define CU_TRY(call) TRY(cu_check((call), #call, __FILE__, __LINE__, e))

/* Device memory, or ERR_NOMEM that says how much was asked for, is free and what to lower. */
int device_malloc(struct cuda_device *d, size_t n, const char *what, char **out, struct err *e);

/* The image of host memory [p, p + n), or NULL. */
char *device_image(const struct cuda_device *d, const void *p, size_t n);

/* t has an image: device_run has seen to it. */
struct dtensor device_tensor(const struct cuda_device *d, const struct tensor *t);

/* Kernels with more than 48 KiB of shared memory have to ask for it: for all that there is, since
 * the limit is the kernel's, not the launch's, and a recorded launch may need more than the one
 * behind it. */
#define LAUNCH_SHARED_FREE ((size_t)48 << 10)

/* Launch `kernel`, a function pointer, which may begin while the one before it still runs
 * (await_previous); needs d, e, rc and the label out. */
#if !defined(GGAUGE_CUDA_EMU)
template <class... P, class... A>
static inline cudaError_t device_launch(const struct cuda_device *d, void (*kernel)(P...),
                                        dim3 grid, dim3 block, size_t shared, A... args) {
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = d->stream;
    c.attrs = &overlap;
    c.numAttrs = d->overlaps ? 1 : 0;
    return cudaLaunchKernelEx(&c, kernel, (P)args...);
}
#endif

#if defined(GGAUGE_CUDA_EMU)
#define LAUNCH(kernel, grid, block, shared, ...)                                                   \
    do {                                                                                           \
        auto launch_ = [=](auto... args) {                                                         \
            emu_launch(d->stream, grid, block, shared, [=]() { kernel(args...); });                \
        };                                                                                         \
        launch_(__VA_ARGS__);                                                                      \
        TRY(cu_check(cudaGetLastError(), #kernel, __FILE__, __LINE__, e));                         \
    } while (0)
#else
#define LAUNCH(kernel, grid, block, shared, ...)                                                   \
    do {                                                                                           \
        if ((shared) > LAUNCH_SHARED_FREE)                                                         \
            CU_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,       \
                                        (int)d->prop.sharedMemPerBlockOptin));                     \
        TRY(cu_check(device_launch(d, kernel, (grid), (block), (shared), __VA_ARGS__), #kernel,    \
                     __FILE__, __LINE__, e));                                                      \
    } while (0)
#endif

static inline size_t align256(size_t n) {
    return (n + 255) / 256 * 256;
}

static inline unsigned div_up(int64_t a, int64_t b) {
    return (unsigned)((a + b - 1) / b);
}

/* ---- operations ------------------------------------------------------------------------------ */

/* Activations of n_tok rows of n as 8-bit integers, for the products of quantised types: the
 * numbers of q8_2_x4 (act.h) in another order. */
struct acts {
    const int8_t *q;    /* [n_tok, n] */
    const float *d, *s; /* [n_tok, n / 32]: scale, and scale times sum of q */
};

/* The same as binary16, for tensor cores that multiply those; see halves.cuh. */
struct halves {
    const uint16_t *x;  /* [n / 64, n_tok, 64], each times the row's scale */
    const float *scale; /* [n_tok], a power of two */
};

/* dst [n_tok, n_rows] = gain * x W^T. few: with the sums of a kernel for up to 8 tokens. */
struct mul_job {
    struct dtensor w, x, dst;
    struct acts acts; /* of x, for quantised types, */
    struct halves halves; /* or this */
    float gain;
    bool few;
};

/* Products of the same activations with matrices of one type and length, and what becomes of them;
 * for up to FEW_TOKENS tokens, of a trellis for any number. */
#define FEW_MATRICES 3
struct few_job {
    struct mul_job m[FEW_MATRICES];
    int n;
    const struct dtensor *add, *out; /* m[0] + add (one row = for every token), or swiglu of m[0]
                                        and m[1], goes to out; NULL = nothing more is wanted */
};

/* What multiplies with one type. Weights are fetched while earlier kernels still run, so none of
 * them may write weights: those come by push alone. */
struct mul_cell {
    bool needs_acts;
    bool wants_halves; /* instead, for more than FEW_TOKENS tokens */
    int (*run)(struct cuda_device *d, const struct mul_job *j, struct err *e);
    int (*run_few)(struct cuda_device *d, const struct few_job *f, struct err *e); /* or NULL */
};
const struct mul_cell *mul_cell_legacy(enum qtype t); /* NULL = another file's type */
const struct mul_cell *mul_cell_trellis(enum qtype t);
const struct mul_cell *mul_cell_floats(enum qtype t);

/* Seeded faults of products (mul_faults_cuda.cu), in a build that has them: a cell that decodes
 * wrongly instead of that of type t, or NULL; and what wrong indices leave in node n's result. */
const struct mul_cell *mul_cell_faulty(enum qtype t);
int mul_faults(struct cuda_device *d, const struct node *n, const struct dtensor *dst,
               struct err *e);

/* Most tokens for the kernels that stream weights. */
#define FEW_TOKENS DEVICE_FEW_TOKENS

/* cuBLAS, for plain types and at least so many tokens. */
#define BLAS_TOKENS 32
bool blas_has(struct cuda_device *d);
size_t blas_bytes(enum qtype t, int64_t n_tok, int64_t n); /* scratch, of the activations' */
int blas_mul(struct cuda_device *d, const struct mul_job *j, struct err *e);

size_t acts_bytes(int64_t n_tok, int64_t n);
/* Quantise x into d->acts, which is large enough. */
int acts_quantize(struct cuda_device *d, const struct dtensor *x, struct acts *out, struct err *e);

/* One operation: starts it on d's stream. */
#define CUDA_OP_LIST(X)                                                                            \
    X(get_rows) X(rms_norm) X(add) X(swiglu) X(rope_table) X(rope) X(set_rows) X(attn) X(lse)
#define X(name) int op_##name##_run(struct cuda_device *d, const struct node *n, struct err *e);
CUDA_OP_LIST(X)
#undef X

/* attn, which can leave the rows of few tokens quantised as well (acts), if it says so. */
int attn_run(struct cuda_device *d, const struct node *n, bool acts, struct err *e);
bool attn_makes_acts(const struct node *n);
/* Scratch of attention: 0, or more than its counters, which are to be zeros at first. */
#define ATTN_COUNTER_BYTES ((size_t)64 << 10)
size_t attn_parts_bytes(const struct node *n);
/* log2 of the cells that a launch of attention covers, rounded up. */
int attn_depth(const struct node *n);
bool rows_type_supported(enum qtype t); /* get_rows */
/* Most elements of a head that is normed or rotated. */
#define HEADS_MAX 512

#endif
