/* SPDX-License-Identifier: MIT
 * cuda.c - the backend of the cuda column: opens the plug-in and hands over; see cuda_plugin.h. */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "cuda_plugin.h"

static struct {
    pthread_once_t once;
    const struct cuda_api *api; /* NULL: err says why */
    struct err err;
} plugin = { .once = PTHREAD_ONCE_INIT };

/* ---- opening --------------------------------------------------------------------------------- */

/* Where the plug-in should be, or "" for where the linker looks. */
static void plugin_path(char *buf, size_t n_bytes) {
    const char *named = getenv("GGAUGE_CUDA_PLUGIN");
    if (named) {
        snprintf(buf, n_bytes, "%s", named);
        return;
    }
    char exe[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    buf[0] = '\0';
    if (n <= 0) return;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (!slash) return;
    *slash = '\0';
    snprintf(buf, n_bytes, "%s/%s", exe, CUDA_PLUGIN_FILE);
    if (access(buf, F_OK)) buf[0] = '\0';
}

/* The plug-in was built from these headers and has the cells that the tables say. */
static int check_api(const struct cuda_api *a, const char *path, struct err *e) {
    int rc = 0;
    FAIL_IF(a->abi != CUDA_PLUGIN_ABI || a->node_bytes != sizeof(struct node) ||
                a->err_bytes != sizeof(struct err) || a->n_types != QT_count ||
                a->n_ops != OP_count,
            e, ERR_UNSUPPORTED, "%s belongs to another build (ABI %d, expected %d): make cuda",
            path, a->abi, CUDA_PLUGIN_ABI);
    FAIL_IF(a->n_faults != FAULTS_BUILT, e, ERR_UNSUPPORTED,
            "%s has %d seeded faults, the program %d: make cuda builds for one that has none, make "
            "cuda-faults for one that has",
            path, a->n_faults, FAULTS_BUILT);
    for (int t = 0; t < QT_count; t++)
        FAIL_IF(a->type_cell[t] != qtype_has_cell(COL_cuda, (enum qtype)t), e, ERR_UNSUPPORTED,
                "%s and the program disagree about type %s: make cuda", path,
                qtype_info((enum qtype)t)->name);
    for (int o = 0; o < OP_count; o++)
        FAIL_IF(a->op_cell[o] != op_has_cell(COL_cuda, (enum op)o), e, ERR_UNSUPPORTED,
                "%s and the program disagree about op %s: make cuda", path, op_name((enum op)o));
out:
    return rc;
}

static void open_plugin(void) {
    char path[PATH_MAX + 32];
    struct err *e = &plugin.err;
    plugin_path(path, sizeof path);
    const char *file = path[0] ? path : CUDA_PLUGIN_FILE;
    void *so = dlopen(file, RTLD_NOW | RTLD_LOCAL); /* never closed: errors name its files */
    if (!so) {
        ERR(e, ERR_UNSUPPORTED,
            "backend cuda cannot run here: %s (make cuda builds it beside the "
            "program)",
            dlerror());
        return;
    }
    cuda_api_fn get;
    void *symbol = dlsym(so, CUDA_PLUGIN_SYMBOL);
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointers */
    if (!symbol) {
        ERR(e, ERR_UNSUPPORTED, "backend cuda cannot run here: %s has no %s", file,
            CUDA_PLUGIN_SYMBOL);
        return;
    }
    const struct cuda_api *api = get();
    if (check_api(api, file, e) < 0) {
        err_prefix(e, "backend cuda cannot run here");
        return;
    }
    struct err why = { 0 };
    if (api->count(&why) < 1)
        ERR(e, ERR_UNSUPPORTED, "backend cuda cannot run here: no CUDA device (%s)", why.msg);
    else
        plugin.api = api;
}

int cuda_available(struct err *e) {
    pthread_once(&plugin.once, open_plugin);
    if (plugin.api) return 0;
    return err_set(e, plugin.err.code, plugin.err.file, plugin.err.line, "%s", plugin.err.msg);
}

int cuda_device_count(void) {
    struct err ignored;
    return cuda_available(NULL) == 0 ? plugin.api->count(&ignored) : 0;
}

int cuda_bus_id(int index, char *buf, size_t n_bytes, struct err *e) {
    int rc = 0;
    TRY(cuda_available(e));
    TRY(plugin.api->bus_id(index, buf, n_bytes, e));
out:
    return rc;
}

/* ---- the backend ----------------------------------------------------------------------------- */

static void cuda_release(struct backend *b) {
    plugin.api->close(b->impl);
    b->impl = NULL;
}

static int cuda_mirror(struct backend *b, const void *p, size_t n_bytes, const char *what,
                       struct err *e) {
    return plugin.api->mirror(b->impl, p, n_bytes, what, e);
}

static int cuda_exchange(struct backend *b, const void *p, size_t n_bytes, const char *what,
                         struct err *e) {
    return plugin.api->exchange(b->impl, p, n_bytes, what, e);
}

static void cuda_unmirror(struct backend *b, const void *p) {
    plugin.api->unmirror(b->impl, p);
}

static int cuda_push(struct backend *b, const void *p, size_t n_bytes, struct err *e) {
    return plugin.api->push(b->impl, p, n_bytes, e);
}

static int cuda_pull(struct backend *b, void *p, size_t n_bytes, struct err *e) {
    return plugin.api->pull(b->impl, p, n_bytes, e);
}

static int cuda_pull_begin(struct backend *b, void *p, size_t n_bytes, struct err *e) {
    return plugin.api->pull_begin(b->impl, p, n_bytes, e);
}

static int cuda_pull_end(struct backend *b, const void *p, struct err *e) {
    return plugin.api->pull_end(b->impl, p, e);
}

static int cuda_synchronize(struct backend *b, struct err *e) {
    return plugin.api->synchronize(b->impl, e);
}

static bool cuda_supports(const struct backend *b, const struct node *n) {
    (void)b;
    return plugin.api->supports(n);
}

static int cuda_run(struct backend *b, const struct node *const *nodes, int n, int n_threads,
                    bool whole, uint64_t key, struct err *e) {
    (void)n_threads, (void)whole;
    fault_pass(plugin.api->fault);
    return plugin.api->run(b->impl, nodes, n, key, e);
}

static const struct backend_ops cuda_ops = {
    .release = cuda_release,
    .mirror = cuda_mirror,
    .exchange = cuda_exchange,
    .unmirror = cuda_unmirror,
    .push = cuda_push,
    .pull = cuda_pull,
    .pull_begin = cuda_pull_begin,
    .pull_end = cuda_pull_end,
    .synchronize = cuda_synchronize,
    .supports = cuda_supports,
    .run = cuda_run,
};

int backend_cuda_init(struct backend *b, int index, struct err *e) {
    int rc = 0;
    struct cuda_device *d = NULL;
    memset(b, 0, sizeof *b);
    TRY(cuda_available(e));
    TRY(plugin.api->open(&d, index, e));
    *b = (struct backend){ .ops = &cuda_ops, .col = COL_cuda, .impl = d };
out:
    return rc;
}

int backend_cuda_info(const struct backend *b, struct cuda_info *info, struct err *e) {
    return plugin.api->info(b->impl, info, e);
}

int cuda_peak(enum peak p, double *per_second, struct err *e) {
    int rc = 0;
    struct cuda_device *d = NULL;
    TRY(cuda_available(e));
    TRY(plugin.api->open(&d, 0, e));
    TRY(plugin.api->peak(d, p, per_second, e));
out:
    if (d) plugin.api->close(d);
    return rc;
}

int backend_cuda_mark(const struct backend *b, int which, struct err *e) {
    return plugin.api->mark(b->impl, which, e);
}

int backend_cuda_elapsed(const struct backend *b, double *seconds, struct err *e) {
    return plugin.api->elapsed(b->impl, seconds, e);
}
