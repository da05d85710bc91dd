/* SPDX-License-Identifier: MIT
 * fuzz_frame.c - what either side of a worker's pipes believes of the other.
 *
 * The first byte says which side reads the rest (0 = the arm, 1 = the worker), the second which
 * allocation fails (0 = none). Neither side may crash, hang or hand on a number that is out of
 * range. */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arm/arm.h"
#include "arm/serve.h"
#include "base/arena.h"
#include "exec/observer.h"
#include "result/row.h"

#define N_VOCAB 8
#define N_TOK 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const float logits[N_VOCAB] = { 1, 2, 3, 4, 5, 6, 7, 8 };
static unsigned checksum; /* so that reads of data are not optimised away */

/* ---- the worker's side: an arm that does nothing but call back ------------------------------- */

static struct observer *watcher;

static int show_graph(struct err *e) {
    int rc = 0;
    float out[6] = { 0 };
    int32_t cell[2] = { 0, 1 };
    struct tensor w = { .type = QT_iq4_kt, .ne = { 256, 3, 1, 1 }, .row_bytes = 132, .name = "w" };
    struct tensor x = { .type = QT_f32, .ne = { 256, 2, 1, 1 }, .row_bytes = 1024, .name = "x" };
    struct tensor y = {
        .type = QT_f32, .ne = { 3, 2, 1, 1 }, .row_bytes = 12, .data = out, .name = "y"
    };
    struct tensor c = {
        .type = QT_i32, .ne = { 2, 1, 1, 1 }, .row_bytes = 8, .data = cell, .name = "c"
    };
    struct node product = { .op = OP_mul_mat, .dst = &y, .src = { &w, &x } };
    struct node store = { .op = OP_set_rows, .il = 1, .dst = &y, .src = { &y, &c } };
    const struct node *nodes[] = { &product, &store };
    if (!watcher) return 0;
    TRY(watcher->graph(watcher->arg, nodes, N_ELEMS(nodes), e));
    for (size_t i = 0; i < N_ELEMS(nodes); i++)
        if (watcher->want(watcher->arg, nodes[i]))
            TRY(watcher->see(watcher->arg, nodes[i], out, e));
out:
    return rc;
}

static void check_batch(const struct arm_batch *b) {
    for (int i = 0; i < b->n; i++)
        checksum += (unsigned)b->token[i] ^ (unsigned)b->pos[i] ^ (unsigned)b->seq[i] ^
                    (b->want && b->want[i]);
}

static int serve_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                        struct err *e) {
    int rc = 0;
    (void)a;
    check_batch(b);
    TRY(show_graph(e));
    for (int i = 0; fn && b->want && i < b->n; i++) {
        struct arm_answer x = { i, logits, 8, 0.5, 7 };
        if (b->want[i]) TRY(fn(arg, &x, e));
    }
out:
    return rc;
}

static int serve_hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    (void)a;
    check_batch(b);
    return append ? ERR(e, ERR_ARG, "nothing is held") : show_graph(e);
}

static int serve_rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool l,
                      arm_row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    (void)a;
    for (int64_t i = 0; i < n; i++) {
        struct arm_row r = { .r = (int64_t)((uint64_t)r0 + (uint64_t)i),
                             .nll = (double)logits[target[i]],
                             .bad = -1,
                             .logits = l ? logits : NULL };
        TRY(fn(arg, &r, e));
    }
out:
    return rc;
}

static int serve_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    (void)a, (void)e;
    checksum += (unsigned)(seq ^ pos);
    return 0;
}

static int serve_observe(struct arm *a, struct observer *o, struct err *e) {
    (void)a, (void)e;
    watcher = o;
    return 0;
}

static int serve_describe(const struct arm *a, struct row *r, struct err *e) {
    (void)a;
    return row_set(r, ROW_engine, "fuzz", e);
}

static void serve_release(struct arm *a) {
    (void)a;
    watcher = NULL;
}

static const struct arm_ops serve_ops = {
    .release = serve_release,
    .decode = serve_decode,
    .hold = serve_hold,
    .rows = serve_rows,
    .kv_trim = serve_trim,
    .observe = serve_observe,
    .describe = serve_describe,
};

static struct arm served;

static int open_served(struct arm **out, const struct arm_params *p, struct err *e) {
    (void)e;
    const char *s[] = { p->model, p->backend, p->act_like, p->type_k, p->type_v };
    for (size_t i = 0; i < N_ELEMS(s); i++)
        checksum += s[i] ? (unsigned)strlen(s[i]) : 0;
    served =
        (struct arm){ .ops = &serve_ops, .info = { .n_vocab = N_VOCAB, .n_ctx = 8, .n_seq = 1 } };
    *out = &served;
    return 0;
}

/* ---- the arm's side ---------------------------------------------------------------------------
 */

static bool want_node(void *arg, const struct node *n) {
    (void)arg;
    checksum += (unsigned)strlen(n->dst->name) + (unsigned)n->il + (unsigned)n->occurrence;
    for (int i = 0; i < OP_MAX_SRC; i++)
        if (n->src[i] && n->src[i]->data) abort();
    return n->il >= 0;
}

static int see_node(void *arg, const struct node *n, void *data, struct err *e) {
    unsigned char *p = data;
    size_t bytes = (size_t)node_rows(n) * n->dst->row_bytes;
    if (bytes && n->il == 1) p[bytes - 1] ^= 1;
    for (size_t i = 0; i < bytes; i++)
        checksum += p[i];
    return ++*(int *)arg == 5 ? ERR(e, ERR_NONFINITE, "enough seen") : 0;
}

static int check_row(void *arg, const struct arm_row *r, struct err *e) {
    int n_vocab = *(int *)arg;
    (void)e;
    if (!r->logits || r->bad >= n_vocab || (r->bad < 0 && (r->top1 < 0 || r->top1 >= n_vocab)))
        abort();
    for (int i = 0; i < n_vocab; i++)
        checksum += r->logits[i] > 0;
    return 0;
}

static int check_answer(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    if (a->i < 0 || a->i >= N_TOK) abort();
    for (int i = 0; i < *(int *)arg; i++)
        checksum += a->logits[i] > 0;
    return 0;
}

static void must_say(int rc, const struct err *e) {
    if (rc < 0 && !e->msg[0]) abort();
}

static void use_arm(struct arm *a) {
    struct err e = { 0 };
    const int32_t token[N_TOK] = { 1, 2, 3, 4 }, pos[N_TOK] = { 0, 1, 2, 3 }, seq[N_TOK] = { 0 };
    const bool want[N_TOK] = { false, false, true, true };
    const struct arm_batch b = { N_TOK, token, pos, seq, want, true };
    int n_vocab = a->info.n_vocab, n_seen = 0;
    struct observer o = { .arg = &n_seen, .want = want_node, .see = see_node };
    struct row r;
    row_init(&r);
    must_say(arm_describe(a, &r, &e), &e);
    must_say(arm_observe(a, &o, &e), &e);
    must_say(arm_hold(a, &b, false, &e), &e);
    must_say(arm_rows(a, 0, 2, token, true, check_row, &n_vocab, &e), &e);
    must_say(arm_observe(a, NULL, &e), &e);
    must_say(arm_kv_trim(a, -1, 0, &e), &e);
    must_say(arm_decode(a, &b, check_answer, &n_vocab, &e), &e);
    row_release(&r);
}

/* ---- both ------------------------------------------------------------------------------------ */

static int pipe_of(const uint8_t *data, size_t n) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET)) abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = { 0 };
    if (n < 2) return 0;
    int in = pipe_of(data + 2, n - 2), out = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (out < 0) abort();
    bool worker = data[0] & 1;
    if (worker) {
        heap_fail_at(data[1]);
        must_say(arm_serve(in, out, open_served, &e), &e);
        close(in);
        close(out);
    } else {
        struct arm *a;
        struct arm_params p = { .kind = ARM_WORKER, .model = "/nowhere.gguf" };
        heap_fail_at(data[1] ? data[1] + 1 : 0); /* the first one would keep the files open */
        int rc = arm_attach_worker(&a, in, out, &p, &e);
        must_say(rc, &e);
        if (rc == 0)
            use_arm(a);
        else if (a)
            abort();
        arm_close(a);
    }
    heap_fail_at(0);
    return 0;
}
