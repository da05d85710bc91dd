/* SPDX-License-Identifier: MIT
 * copies.cu - see copies.cuh.
 *
 * What is pushed goes through page-locked buffers in turn: the host fills the next one (reading a
 * mapped file, perhaps) while those before travel, and its own memory is free at once. That costs a
 * copy in the host's memory, some 0.1 ms for a MiB, and saves every caller a rule about what may
 * not be written yet. What is pulled goes straight into memory that is page-locked itself, where it
 * can be. */
#include "cuda/copies.cuh"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS 16
#define BUFFER_BYTES ((size_t)1 << 20)
#define MAX_LOCKED 64
#define MAX_EXCHANGES 32
#define KEPT_RUNS 16

struct copies {
    cudaStream_t lane[LANE_count]; /* [LANE_run] is the device's */
    struct exchange *first;
    char *buffer; /* [BUFFERS][BUFFER_BYTES], NULL = none could be had */
    bool buffer_tried;
    cudaEvent_t sent[BUFFERS]; /* the buffer may be filled again */
    int turn;
    unsigned in_run; /* exchanges of the run that is being started */
    struct {
        uint64_t key;
        unsigned used;
    } kept[KEPT_RUNS]; /* exchanges of runs with keys, which need not be looked for */
};

/* ---- points -----------------------------------------------------------------------------------
 */

static int point_init(struct point *p, struct err *e) {
    int rc = 0;
    CU_TRY(cudaEventCreateWithFlags(&p->event, cudaEventDisableTiming));
    p->passed = ~0u; /* nothing to wait for */
out:
    return rc;
}

/* Behind what the lane has been given so far. */
static int point_set(struct cuda_device *d, struct point *p, enum lane at, struct err *e) {
    int rc = 0;
    CU_TRY(cudaEventRecord(p->event, d->copies->lane[at]));
    p->passed = 1u << at;
out:
    return rc;
}

static int point_wait(struct cuda_device *d, struct point *p, enum lane at, struct err *e) {
    int rc = 0;
    if (p->passed >> at & 1) return 0;
    CU_TRY(cudaStreamWaitEvent(d->copies->lane[at], p->event, 0));
    p->passed |= 1u << at;
out:
    return rc;
}

/* ---- page-locked memory of the host ------------------------------------------------------------
 */

/* Locked once for all devices, and until the last one gives it up. */
static struct {
    pthread_mutex_t mutex;
    int n;
    struct {
        const void *p;
        size_t n_bytes;
        int n_users;
    } range[MAX_LOCKED];
} locked = { PTHREAD_MUTEX_INITIALIZER, 0, {} };

/* False where it cannot be had: copies are slower then. */
static bool lock_memory(const void *p, size_t n_bytes) {
    bool ok = false;
    pthread_mutex_lock(&locked.mutex);
    int i = 0;
    while (i < locked.n && (locked.range[i].p != p || locked.range[i].n_bytes != n_bytes))
        i++;
    if (i < locked.n) {
        locked.range[i].n_users++;
        ok = true;
    } else if (locked.n < MAX_LOCKED) {
        ok = cudaHostRegister((void *)p, n_bytes, cudaHostRegisterPortable) == cudaSuccess;
        if (ok)
            locked.range[locked.n++] = { p, n_bytes, 1 };
        else
            cudaGetLastError(); /* not sticky */
    }
    pthread_mutex_unlock(&locked.mutex);
    return ok;
}

static void unlock_memory(const void *p) {
    pthread_mutex_lock(&locked.mutex);
    for (int i = 0; i < locked.n; i++) {
        if (locked.range[i].p != p || --locked.range[i].n_users) continue;
        cudaHostUnregister((void *)p);
        locked.range[i] = locked.range[--locked.n];
        break;
    }
    pthread_mutex_unlock(&locked.mutex);
}

/* ---- devices ---------------------------------------------------------------------------------
 */

int copies_open(struct cuda_device *d, struct err *e) {
    int rc = 0;
    struct copies *c = d->copies = (struct copies *)calloc(1, sizeof *c);
    FAIL_IF(!c, e, ERR_NOMEM, "out of memory for a device");
    c->lane[LANE_run] = d->stream;
    CU_TRY(cudaStreamCreateWithFlags(&c->lane[LANE_in], cudaStreamNonBlocking));
    CU_TRY(cudaStreamCreateWithFlags(&c->lane[LANE_out], cudaStreamNonBlocking));
    for (int i = 0; i < BUFFERS; i++)
        CU_TRY(cudaEventCreateWithFlags(&c->sent[i], cudaEventDisableTiming));
out:
    return rc;
}

void copies_close(struct cuda_device *d) {
    struct copies *c = d->copies;
    if (!c) return;
    for (int i = 0; i < BUFFERS; i++)
        if (c->sent[i]) cudaEventDestroy(c->sent[i]);
    if (c->buffer) cudaFreeHost(c->buffer);
    if (c->lane[LANE_in]) cudaStreamDestroy(c->lane[LANE_in]);
    if (c->lane[LANE_out]) cudaStreamDestroy(c->lane[LANE_out]);
    free(c);
}

int copies_finish(struct cuda_device *d, struct err *e) {
    int rc = 0;
    for (int i = 0; i < LANE_count; i++)
        CU_TRY(cudaStreamSynchronize(d->copies->lane[i]));
out:
    return rc;
}

/* One that no other exchange has; what is known of runs is of the old ones. */
static int give_bit(struct copies *c, struct exchange *x, struct err *e) {
    int rc = 0;
    unsigned taken = 0;
    for (const struct exchange *y = c->first; y; y = y->next)
        taken |= y->bit;
    FAIL_IF(!~taken, e, ERR_NOMEM, "more than %d images that are exchanged", MAX_EXCHANGES);
    x->bit = ~taken & -~taken;
    memset(c->kept, 0, sizeof c->kept);
out:
    return rc;
}

int exchange_new(struct cuda_device *d, const void *p, size_t n, struct exchange **out,
                 struct err *e) {
    int rc = 0;
    struct exchange *x = (struct exchange *)calloc(1, sizeof *x);
    FAIL_IF(!x, e, ERR_NOMEM, "out of memory for an image");
    x->host = (const char *)p;
    x->n = n;
    TRY(give_bit(d->copies, x, e));
    TRY(point_init(&x->pushed, e));
    TRY(point_init(&x->used, e));
    TRY(point_init(&x->pulled, e));
    x->locked = (uintptr_t)p % EXCHANGE_ALIGN == 0 && n % EXCHANGE_ALIGN == 0 && lock_memory(p, n);
    x->next = d->copies->first;
    d->copies->first = x;
    *out = x;
    x = NULL;
out:
    exchange_free(d, x);
    return rc;
}

void exchange_free(struct cuda_device *d, struct exchange *x) {
    if (!x) return;
    for (struct exchange **at = &d->copies->first; *at; at = &(*at)->next)
        if (*at == x) {
            *at = x->next;
            break;
        }
    struct point *points[] = { &x->pushed, &x->used, &x->pulled };
    for (int i = 0; i < 3; i++)
        if (points[i]->event) cudaEventDestroy(points[i]->event);
    if (x->locked) unlock_memory(x->host);
    free(x);
}

/* ---- copies ----------------------------------------------------------------------------------
 */

static char *buffers(struct copies *c) {
    void *p = NULL;
    if (!c->buffer && !c->buffer_tried) {
        if (cudaHostAlloc(&p, BUFFERS * BUFFER_BYTES, cudaHostAllocPortable) == cudaSuccess)
            c->buffer = (char *)p;
        else
            cudaGetLastError(); /* not sticky */
    }
    c->buffer_tried = true;
    return c->buffer;
}

static int send(struct cuda_device *d, enum lane at, char *dev, const char *p, size_t n,
                struct err *e) {
    int rc = 0;
    struct copies *c = d->copies;
    if (!buffers(c)) {
        CU_TRY(cudaMemcpyAsync(dev, p, n, cudaMemcpyHostToDevice, c->lane[at]));
        CU_TRY(cudaStreamSynchronize(c->lane[at])); /* p may be locked, and not read yet */
        return 0;
    }
    for (size_t done = 0; done < n; done += BUFFER_BYTES) {
        const size_t part = n - done < BUFFER_BYTES ? n - done : BUFFER_BYTES;
        char *buffer = c->buffer + (size_t)c->turn * BUFFER_BYTES;
        CU_TRY(cudaEventSynchronize(c->sent[c->turn]));
        memcpy(buffer, p + done, part);
        CU_TRY(cudaMemcpyAsync(dev + done, buffer, part, cudaMemcpyHostToDevice, c->lane[at]));
        CU_TRY(cudaEventRecord(c->sent[c->turn], c->lane[at]));
        c->turn = (c->turn + 1) % BUFFERS;
    }
out:
    return rc;
}

int copy_in(struct cuda_device *d, struct exchange *x, char *dev, const void *p, size_t n,
            struct err *e) {
    int rc = 0;
    if (!x) return send(d, LANE_run, dev, (const char *)p, n, e);
    TRY(point_wait(d, &x->used, LANE_in, e));
    TRY(send(d, LANE_in, dev, (const char *)p, n, e));
    TRY(point_set(d, &x->pushed, LANE_in, e));
out:
    return rc;
}

int copy_out(struct cuda_device *d, struct exchange *x, void *p, const char *dev, size_t n,
             struct err *e) {
    int rc = 0;
    const enum lane at = x ? LANE_out : LANE_run;
    if (x) {
        TRY(point_wait(d, &x->used, at, e));
        TRY(point_wait(d, &x->pushed, at, e));
    }
    CU_TRY(cudaMemcpyAsync(p, dev, n, cudaMemcpyDeviceToHost, d->copies->lane[at]));
    if (x)
        TRY(point_set(d, &x->pulled, at, e));
    else
        CU_TRY(cudaStreamSynchronize(d->copies->lane[at]));
out:
    return rc;
}

int copy_out_end(struct cuda_device *d, struct exchange *x, struct err *e) {
    (void)d;
    int rc = 0;
    if (x) CU_TRY(cudaEventSynchronize(x->pulled.event));
out:
    return rc;
}

/* ---- runs ------------------------------------------------------------------------------------
 */

static bool lies_in(const struct tensor *t, const struct exchange *x) {
    const char *p = t ? (const char *)t->data : NULL;
    return p && p >= x->host && p < x->host + x->n;
}

static bool uses(const struct node *const *nodes, int n, const struct exchange *x) {
    for (int i = 0; i < n; i++) {
        if (lies_in(nodes[i]->dst, x)) return true;
        for (int k = 0; k < OP_MAX_SRC; k++)
            if (lies_in(nodes[i]->src[k], x)) return true;
    }
    return false;
}

static unsigned used_by(struct copies *c, const struct node *const *nodes, int n, uint64_t key) {
    auto *k = &c->kept[key % KEPT_RUNS];
    unsigned used = 0;
    if (key && k->key == key) return k->used;
    for (const struct exchange *x = c->first; x; x = x->next)
        if (uses(nodes, n, x)) used |= x->bit;
    if (key) *k = { key, used };
    return used;
}

int copies_before_run(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
                      struct err *e) {
    int rc = 0;
    d->copies->in_run = used_by(d->copies, nodes, n, key);
    for (struct exchange *x = d->copies->first; x; x = x->next) {
        if (!(d->copies->in_run & x->bit)) continue;
        TRY(point_wait(d, &x->pushed, LANE_run, e));
        TRY(point_wait(d, &x->pulled, LANE_run, e));
    }
out:
    return rc;
}

int copies_after_run(struct cuda_device *d, struct err *e) {
    int rc = 0;
    for (struct exchange *x = d->copies->first; x; x = x->next)
        if (d->copies->in_run & x->bit) TRY(point_set(d, &x->used, LANE_run, e));
out:
    return rc;
}
