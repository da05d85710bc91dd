/* SPDX-License-Identifier: MIT
 * device.cu - devices, their memory and the images of host memory; the table that the plug-in
 * exports. See cuda_plugin.h. */
#include "cuda/device.cuh"

#include <stdio.h>
#include <stdlib.h>

#include "cuda/copies.cuh"
#include "cuda/run.cuh"

#ifndef GGAUGE_CUDA_TARGETS
#define GGAUGE_CUDA_TARGETS "emulation"
#endif

int cu_check(cudaError_t code, const char *what, const char *file, int line, struct err *e) {
    if (code == cudaSuccess) return 0;
    const int rc = code == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_DEVICE;
    return err_set(e, rc, file, line, "CUDA: %.80s: %s", what, cudaGetErrorString(code));
}

int device_malloc(struct cuda_device *d, size_t n, const char *what, char **out, struct err *e) {
    void *p = NULL;
    *out = NULL;
    cudaError_t code = cudaMalloc(&p, n + DECODE_SLACK);
    if (code == cudaErrorMemoryAllocation) {
        size_t n_free = 0, total = 0;
        cudaGetLastError(); /* not sticky */
        cudaMemGetInfo(&n_free, &total);
        return ERR(e, ERR_NOMEM,
                   "out of memory on CUDA%d (%s): %s needs %zu MiB, %zu of %zu MiB are free; lower "
                   "-ngl, -c or -ub, or use a smaller -ctk and -ctv",
                   d->index, d->prop.name, what, (n + ((size_t)1 << 20) - 1) >> 20, n_free >> 20,
                   total >> 20);
    }
    int rc = cu_check(code, what, __FILE__, __LINE__, e);
    *out = (char *)p;
    return rc;
}

/* The device of calls of this thread, which may have several. */
static int use(const struct cuda_device *d, struct err *e) {
    return cu_check(cudaSetDevice(d->index), "choosing a device", __FILE__, __LINE__, e);
}

/* ---- images ----------------------------------------------------------------------------------
 */

/* Index of the first image that begins behind p. */
static int image_after(const struct cuda_device *d, const char *p) {
    int lo = 0, hi = d->n_images;
    while (lo < hi) {
        const int mid = (lo + hi) / 2;
        if (d->images[mid].host > p)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* The image that holds [p, p + n), or NULL. */
static const struct image *image_of(const struct cuda_device *d, const void *p, size_t n) {
    const char *host = (const char *)p;
    const int i = image_after(d, host) - 1;
    if (i < 0) return NULL;
    const struct image *m = &d->images[i];
    const size_t at = (size_t)(host - m->host);
    return at <= m->n && n <= m->n - at ? m : NULL;
}

char *device_image(const struct cuda_device *d, const void *p, size_t n) {
    const struct image *m = image_of(d, p, n);
    return m ? m->dev + ((const char *)p - m->host) : NULL;
}

struct dtensor device_tensor(const struct cuda_device *d, const struct tensor *t) {
    struct dtensor out = { NULL, t->ne[0], tensor_rows(t), t->row_bytes, (enum qtype)t->type };
    out.p = device_image(d, t->data, 1);
    return out;
}

static int add_image(struct cuda_device *d, const void *p, size_t n, const char *what,
                     bool is_exchange, struct err *e) {
    int rc = 0;
    const char *host = (const char *)p;
    const int i = image_after(d, host);
    const struct image *before = i > 0 ? &d->images[i - 1] : NULL;
    const struct image *after = i < d->n_images ? &d->images[i] : NULL;
    char *dev = NULL;
    struct exchange *exchange = NULL;
    FAIL_IF((before && before->host + before->n > host) || (after && host + n > after->host), e,
            ERR_ARG, "%s: its memory overlaps that of an image on CUDA%d", what, d->index);
    if (d->n_images == d->max_images) {
        const int max = d->max_images ? 2 * d->max_images : 64;
        struct image *m = (struct image *)realloc(d->images, (size_t)max * sizeof *m);
        FAIL_IF(!m, e, ERR_NOMEM, "out of memory for %d images", max);
        d->images = m;
        d->max_images = max;
    }
    TRY(use(d, e));
    TRY(device_malloc(d, n, what, &dev, e));
    if (is_exchange) TRY(exchange_new(d, p, n, &exchange, e));
    memmove(d->images + i + 1, d->images + i, (size_t)(d->n_images - i) * sizeof *d->images);
    d->images[i] = { host, n, dev, exchange };
    d->n_images++;
    dev = NULL;
out:
    if (dev) cudaFree(dev);
    return rc;
}

static int mirror(struct cuda_device *d, const void *p, size_t n, const char *what,
                  struct err *e) {
    return add_image(d, p, n, what, false, e);
}

static int exchange(struct cuda_device *d, const void *p, size_t n, const char *what,
                    struct err *e) {
    return add_image(d, p, n, what, true, e);
}

static void unmirror(struct cuda_device *d, const void *p) {
    const int i = image_after(d, (const char *)p) - 1;
    if (i < 0 || d->images[i].host != p) return;
    cudaSetDevice(d->index);
    run_forget(d);
    copies_finish(d, NULL);
    exchange_free(d, d->images[i].exchange);
    cudaFree(d->images[i].dev);
    d->n_images--;
    memmove(d->images + i, d->images + i + 1, (size_t)(d->n_images - i) * sizeof *d->images);
}

static int find(struct cuda_device *d, const void *p, size_t n, const struct image **m,
                struct err *e) {
    int rc = 0;
    *m = image_of(d, p, n);
    FAIL_IF(!*m, e, ERR_ARG, "%zu bytes without an image on CUDA%d", n, d->index);
    TRY(use(d, e));
out:
    return rc;
}

static int push(struct cuda_device *d, const void *p, size_t n, struct err *e) {
    int rc = 0;
    const struct image *m;
    TRY(find(d, p, n, &m, e));
    TRY(copy_in(d, m->exchange, device_image(d, p, n), p, n, e));
    d->acts_of = NULL;
out:
    return rc;
}

static int pull_begin(struct cuda_device *d, void *p, size_t n, struct err *e) {
    int rc = 0;
    const struct image *m;
    TRY(find(d, p, n, &m, e));
    TRY(copy_out(d, m->exchange, p, device_image(d, p, n), n, e));
out:
    return rc;
}

static int pull_end(struct cuda_device *d, const void *p, struct err *e) {
    int rc = 0;
    const struct image *m;
    TRY(find(d, p, 1, &m, e));
    TRY(copy_out_end(d, m->exchange, e));
out:
    return rc;
}

static int pull(struct cuda_device *d, void *p, size_t n, struct err *e) {
    int rc = 0;
    TRY(pull_begin(d, p, n, e));
    TRY(pull_end(d, p, e));
out:
    return rc;
}

/* ---- devices ---------------------------------------------------------------------------------
 */

static int count(struct err *e) {
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    if (code != cudaSuccess) {
        cudaGetLastError();
        ERR(e, ERR_UNSUPPORTED, "%s", cudaGetErrorString(code));
        return 0;
    }
    if (n == 0) ERR(e, ERR_UNSUPPORTED, "the driver knows no device");
    return n;
}

static int bus_id(int index, char *buf, size_t n_bytes, struct err *e) {
    int rc = 0;
    CU_TRY(cudaDeviceGetPCIBusId(buf, (int)n_bytes, index));
out:
    return rc;
}

static void device_close(struct cuda_device *d) {
    if (!d) return;
    cudaSetDevice(d->index);
    if (d->copies) copies_finish(d, NULL);
    run_forget(d);
    blas_close(d->blas);
    for (int i = 0; i < d->n_images; i++) {
        exchange_free(d, d->images[i].exchange);
        cudaFree(d->images[i].dev);
    }
    copies_close(d);
    cudaFree(d->acts.p);
    cudaFree(d->parts.p);
    for (int i = 0; i < 2; i++)
        if (d->mark[i]) cudaEventDestroy(d->mark[i]);
    if (d->stream) cudaStreamDestroy(d->stream);
    free(d->images);
    free(d);
}

/* Whether kernels wait for those before them: only code for compute capability 9.0 and later does,
 * which the driver may have made from older. GGAUGE_CUDA_SERIAL=1 forbids it, to see if something
 * depends on it. */
static __global__ void probe_kernel(void) {
    await_previous();
}

static int find_overlap(struct cuda_device *d, struct err *e) {
    int rc = 0;
#if defined(GGAUGE_CUDA_EMU)
    (void)e, (void)probe_kernel;
    d->overlaps = false;
#else
    const char *serial = getenv("GGAUGE_CUDA_SERIAL");
    cudaFuncAttributes a;
    CU_TRY(cudaFuncGetAttributes(&a, probe_kernel));
    d->overlaps = d->prop.major >= 9 && a.ptxVersion >= 90 && !(serial && serial[0] == '1');
out:
#endif
    return rc;
}

static int device_open(struct cuda_device **out, int index, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct cuda_device *d = (struct cuda_device *)calloc(1, sizeof *d);
    if (!d) return ERR(e, ERR_NOMEM, "out of memory for a device");
    d->index = index;
    const int n = count(e);
    FAIL_IF(n == 0, e, ERR_UNSUPPORTED, "%s", e ? e->msg : "");
    FAIL_IF(index < 0 || index >= n, e, ERR_ARG, "there is no CUDA%d: %d device(s)", index, n);
    CU_TRY(cudaSetDevice(index));
    CU_TRY(cudaGetDeviceProperties(&d->prop, index));
    FAIL_IF(d->prop.major < 8, e, ERR_UNSUPPORTED,
            "CUDA%d (%s) has compute capability %d.%d; the kernels need 8.0", index, d->prop.name,
            d->prop.major, d->prop.minor);
    TRY(find_overlap(d, e));
    CU_TRY(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    TRY(copies_open(d, e));
    CU_TRY(cudaEventCreate(&d->mark[0]));
    CU_TRY(cudaEventCreate(&d->mark[1]));
    *out = d;
    d = NULL;
out:
    device_close(d);
    return rc;
}

static int info(struct cuda_device *d, struct cuda_info *i, struct err *e) {
    int rc = 0, driver = 0, runtime = 0;
    memset(i, 0, sizeof *i);
    snprintf(i->name, sizeof i->name, "%.127s", d->prop.name);
    CU_TRY(cudaDriverGetVersion(&driver));
    CU_TRY(cudaRuntimeGetVersion(&runtime));
    snprintf(i->versions, sizeof i->versions, "CUDA driver %d.%d, runtime %d.%d", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    i->major = d->prop.major;
    i->minor = d->prop.minor;
    i->n_sm = d->prop.multiProcessorCount;
    TRY(use(d, e));
    CU_TRY(cudaMemGetInfo(&i->free_bytes, &i->total_bytes));
#if defined(GGAUGE_CUDA_EMU)
    i->emulated = true;
#endif
out:
    return rc;
}

static int run(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
               struct err *e) {
    int rc = 0;
    TRY(use(d, e));
    TRY(copies_before_run(d, nodes, n, key, e));
    rc = device_run(d, nodes, n, key, e);
    {
        const int after = copies_after_run(d, rc < 0 ? NULL : e); /* of what it has started */
        if (rc >= 0) rc = after;
    }
out:
    return rc;
}

static int synchronize(struct cuda_device *d, struct err *e) {
    int rc = 0;
    TRY(use(d, e));
    TRY(copies_finish(d, e));
out:
    return rc;
}

static int peak(struct cuda_device *d, enum peak p, double *per_second, struct err *e) {
    int rc = 0;
    TRY(use(d, e));
    TRY(peak_measure(d, p, per_second, e));
out:
    return rc;
}

static int mark(struct cuda_device *d, int which, struct err *e) {
    int rc = 0;
    TRY(use(d, e));
    CU_TRY(cudaEventRecord(d->mark[which & 1], d->stream));
out:
    return rc;
}

static int elapsed(struct cuda_device *d, double *seconds, struct err *e) {
    int rc = 0;
    float ms = 0;
    TRY(use(d, e));
    CU_TRY(cudaEventSynchronize(d->mark[1]));
    CU_TRY(cudaEventElapsedTime(&ms, d->mark[0], d->mark[1]));
    *seconds = (double)ms * 1e-3;
out:
    return rc;
}

__attribute__((visibility("default"))) const struct cuda_api *ggauge_cuda_api(void) {
    static bool type_cell[QT_count], op_cell[OP_count];
    static struct cuda_api api;
    run_cells(type_cell, op_cell);
    api.abi = CUDA_PLUGIN_ABI;
    api.node_bytes = sizeof(struct node);
    api.err_bytes = sizeof(struct err);
    api.n_types = QT_count;
    api.n_ops = OP_count;
    api.type_cell = type_cell;
    api.op_cell = op_cell;
    api.targets = GGAUGE_CUDA_TARGETS;
    api.n_faults = FAULTS_BUILT;
    api.fault = fault_place();
    api.count = count;
    api.bus_id = bus_id;
    api.open = device_open;
    api.close = device_close;
    api.info = info;
    api.mirror = mirror;
    api.unmirror = unmirror;
    api.exchange = exchange;
    api.push = push;
    api.pull = pull;
    api.pull_begin = pull_begin;
    api.pull_end = pull_end;
    api.supports = run_supports;
    api.run = run;
    api.synchronize = synchronize;
    api.peak = peak;
    api.mark = mark;
    api.elapsed = elapsed;
    return &api;
}
