/* SPDX-License-Identifier: MIT
 * serve.c - serving an arm over a pair of pipes; see serve.h. */
#include "arm/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "arm/frame.h"
#include "arm/wire.h"
#include "base/arena.h"
#include "base/timer.h"

#define BEAT_S 1

struct server {
    struct frame_io io;
    struct arm *arm;
    serve_open_fn open_arm;
    struct payload request, reply, store;
    struct observer observer;
    const struct node *const *nodes; /* of the graph that runs */
    int n_nodes, next;               /* next: where want() goes on to look */
    unsigned char *wanted;           /* [max_nodes] */
    int max_nodes;
    int64_t decode_ns; /* of the request `decode`, otherwise 0 */
    bool gone;         /* the program that we serve */

    /* Heart: beats while `busy`. */
    pthread_t heart;
    pthread_mutex_t lock, write_lock;
    pthread_cond_t change;
    bool busy, quit;
};

/* ---- heart ----------------------------------------------------------------------------------- */

static void *beat(void *arg) {
    struct server *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_sec += BEAT_S;
        while (!s->quit && pthread_cond_timedwait(&s->change, &s->lock, &at) != ETIMEDOUT) {
        }
        if (s->quit || !s->busy) continue;
        pthread_mutex_unlock(&s->lock);
        frame_send(&s->io, FRAME_beat, NULL, NULL); /* without a reader SIGPIPE ends the process */
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void set_busy(struct server *s, bool busy) {
    pthread_mutex_lock(&s->lock);
    s->busy = busy;
    pthread_mutex_unlock(&s->lock);
}

static int heart_start(struct server *s, struct err *e) {
    int rc = 0;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->write_lock, NULL);
    pthread_cond_init(&s->change, &attr);
    pthread_condattr_destroy(&attr);
    int why = pthread_create(&s->heart, NULL, beat, s);
    FAIL_IF(why, e, ERR_NOMEM, "no thread for a worker: %s", strerror(why));
out:
    return rc;
}

static void heart_stop(struct server *s) {
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_signal(&s->change);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->heart, NULL);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Errors of the pipe, as seen by an engine that is asked to stop. */
static int broken(struct server *s, int rc, struct err *e) {
    if (rc == FRAME_END) {
        s->gone = true;
        return ERR(e, ERR_ARM, "the program that this worker serves has gone");
    }
    return rc;
}

static int send(struct server *s, enum frame_type t, struct err *e) {
    return broken(s, frame_send(&s->io, t, &s->reply, e), e);
}

static int receive(struct server *s, enum frame_type want, struct err *e) {
    int rc = 0;
    enum frame_type t = FRAME_done;
    TRY(broken(s, frame_receive(&s->io, &t, &s->request, e), e));
    FAIL_IF(t != want, e, ERR_ARM, "malformed request: '%s' where '%s' was expected", frame_name(t),
            frame_name(want));
out:
    return rc;
}

/* While an answer is on its way only `stop` can arrive. */
static int check_stop(struct server *s, struct err *e) {
    struct pollfd p = { .fd = s->io.in, .events = POLLIN };
    if (poll(&p, 1, 0) <= 0) return 0;
    int rc = receive(s, FRAME_stop, e);
    return rc < 0 ? rc : ERR(e, ERR_ARM, "stopped");
}

static int send_row(struct server *s, const struct arm_row *r, struct err *e) {
    int rc = 0;
    uint32_t n = r->logits ? (uint32_t)s->arm->info.n_vocab : 0;
    TRY(check_stop(s, e));
    payload_clear(&s->reply);
    put_row(&s->reply, r, n);
    TRY(send(s, FRAME_row, e));
    TRY(broken(s, frame_send_data(&s->io, r->logits, n * sizeof *r->logits, e), e));
out:
    return rc;
}

static int on_row(void *arg, const struct arm_row *r, struct err *e) {
    return send_row(arg, r, e);
}

static int on_answer(void *arg, const struct arm_answer *a, struct err *e) {
    struct arm_row r = {
        .r = a->i, .max = a->max, .lse = a->lse, .top1 = a->top1, .bad = -1, .logits = a->logits
    };
    if (r.top1 < 0 || a->max - a->max != 0) r.bad = 0; /* the receiver judges the logits */
    return send_row(arg, &r, e);
}

/* ---- observer -------------------------------------------------------------------------------- */

static int on_graph(void *arg, const struct node *const *nodes, int n_nodes, struct err *e) {
    int rc = 0;
    struct server *s = arg;
    s->nodes = nodes;
    s->n_nodes = 0;
    s->next = 0;
    if (n_nodes > s->max_nodes) {
        unsigned char *p = heap_realloc(s->wanted, (size_t)n_nodes, e);
        if (!p) return ERR_NOMEM;
        s->wanted = p;
        s->max_nodes = n_nodes;
    }
    payload_clear(&s->reply);
    put_graph(&s->reply, nodes, n_nodes);
    TRY(send(s, FRAME_graph, e));
    TRY(receive(s, FRAME_wants, e));
    const void *wants = get_bytes(&s->request, (size_t)n_nodes);
    TRY(payload_end(&s->request, FRAME_wants, e));
    memcpy(s->wanted, wants, (size_t)n_nodes);
    s->n_nodes = n_nodes;
out:
    return rc;
}

/* Nodes are asked for in the order of the graph. */
static bool want(void *arg, const struct node *n) {
    struct server *s = arg;
    while (s->next < s->n_nodes && s->nodes[s->next] != n)
        s->next++;
    return s->next < s->n_nodes && s->wanted[s->next];
}

static int see(void *arg, const struct node *n, void *data, struct err *e) {
    int rc = 0;
    struct server *s = arg;
    uint64_t n_bytes = (uint64_t)node_rows(n) * n->dst->row_bytes;
    payload_clear(&s->reply);
    put_u32(&s->reply, (uint32_t)s->next);
    put_u64(&s->reply, n_bytes);
    TRY(send(s, FRAME_see, e));
    TRY(broken(s, frame_send_data(&s->io, data, n_bytes, e), e));
    TRY(receive(s, FRAME_seen, e));
    int seen = get_u8(&s->request);
    TRY(payload_end(&s->request, FRAME_seen, e));
    FAIL_IF(seen == WIRE_STOP, e, ERR_ARM, "stopped");
    if (seen == WIRE_CHANGED) TRY(broken(s, frame_receive_data(&s->io, data, n_bytes, e), e));
out:
    return rc;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int open_request(struct server *s, struct err *e) {
    int rc = 0;
    struct arm_params p;
    struct row r;
    row_init(&r);
    get_params(&s->request, &p);
    TRY(payload_end(&s->request, FRAME_open, e));
    FAIL_IF(s->arm, e, ERR_ARM, "malformed request: this worker has an arm already");
    TRY(s->open_arm(&s->arm, &p, e));
    TRY(provenance_fill(&r, e));
    TRY(arm_describe(s->arm, &r, e));
    payload_clear(&s->reply);
    put_info(&s->reply, &s->arm->info);
    put_str(&s->reply, row_get(&r, ROW_host));
    put_what(&s->reply, &r);
    TRY(send(s, FRAME_opened, e));
out:
    row_release(&r);
    return rc;
}

static int decode_request(struct server *s, struct err *e) {
    int rc = 0;
    struct arm_batch b;
    int how = get_u8(&s->request);
    TRY(get_batch(&s->request, &b, &s->store, e));
    TRY(payload_end(&s->request, FRAME_decode, e));
    const int64_t start = timer_ns();
    s->arm->decode_ns = 0;
    if (how & WIRE_HOLD)
        TRY(arm_hold(s->arm, &b, how & WIRE_APPEND, e));
    else
        TRY(arm_decode(s->arm, &b, how & WIRE_ANSWER ? on_answer : NULL, s, e));
    s->decode_ns = s->arm->decode_ns ? s->arm->decode_ns : timer_ns() - start;
out:
    return rc;
}

static int rows_request(struct server *s, struct err *e) {
    int rc = 0;
    int64_t r0 = get_i64(&s->request);
    bool logits = get_u8(&s->request);
    size_t n = payload_left(&s->request) / sizeof(int32_t);
    const void *targets = get_bytes(&s->request, n * sizeof(int32_t));
    TRY(payload_end(&s->request, FRAME_rows, e));
    payload_clear(&s->store);
    put_bytes(&s->store, targets, n * sizeof(int32_t)); /* aligned, unlike the payload */
    put_u8(&s->store, 0);
    FAIL_IF(s->store.failed, e, ERR_NOMEM, "out of memory for %zu targets", n);
    const int32_t *target = (const int32_t *)(const void *)s->store.p;
    for (size_t i = 0; i < n; i++)
        FAIL_IF(target[i] < 0 || target[i] >= s->arm->info.n_vocab, e, ERR_ARG,
                "target %zu is token %d, outside of the vocabulary of %d", i, target[i],
                s->arm->info.n_vocab);
    TRY(arm_rows(s->arm, r0, (int64_t)n, target, logits, on_row, s, e));
out:
    return rc;
}

static int small_request(struct server *s, enum frame_type t, struct err *e) {
    int rc = 0;
    if (t == FRAME_trim) {
        int32_t seq = get_i32(&s->request), pos = get_i32(&s->request);
        TRY(payload_end(&s->request, t, e));
        TRY(arm_kv_trim(s->arm, seq, pos, e));
    } else {
        bool on = get_u8(&s->request);
        TRY(payload_end(&s->request, t, e));
        s->observer = (struct observer){ .arg = s, .want = want, .see = see, .graph = on_graph };
        TRY(arm_observe(s->arm, on ? &s->observer : NULL, e));
    }
out:
    return rc;
}

/* The answer of a request is complete: done, or the error that it met. */
static int finish(struct server *s, int rc, const struct err *why, struct err *e) {
    struct rusage u;
    payload_clear(&s->reply);
    if (rc >= 0) {
        put_i64(&s->reply, s->decode_ns);
        put_i64(&s->reply, getrusage(RUSAGE_SELF, &u) ? 0 : (int64_t)u.ru_maxrss * 1024); /* KiB */
        return send(s, FRAME_done, e);
    }
    put_i32(&s->reply, rc);
    put_str(&s->reply, why->msg);
    return send(s, FRAME_error, e);
}

static int serve_one(struct server *s, enum frame_type t, struct err *e) {
    int rc = 0;
    struct err why = { 0 };
    s->decode_ns = 0;
    switch (t) {
    case FRAME_stop: return 0; /* it crossed the end of its answer */
    case FRAME_open:
        rc = open_request(s, &why);
        if (rc >= 0) return 0;
        break;
    case FRAME_decode:
    case FRAME_rows:
    case FRAME_trim:
    case FRAME_observe:
        FAIL_IF(!s->arm, e, ERR_ARM, "malformed request: '%s' before 'open'", frame_name(t));
        rc = t == FRAME_decode ? decode_request(s, &why)
             : t == FRAME_rows ? rows_request(s, &why)
                               : small_request(s, t, &why);
        break;
    default: return ERR(e, ERR_ARM, "malformed request: nobody asks for '%s'", frame_name(t));
    }
    if (s->gone) return 0;
    return finish(s, rc, &why, e);
out:
    return rc;
}

/* Greet whoever speaks any version: it can then say which one this is. */
static int greet(struct server *s, struct err *e) {
    int rc = 0;
    struct row r;
    row_init(&r);
    TRY(receive(s, FRAME_hello, e));
    uint32_t version = get_u32(&s->request);
    TRY(provenance_fill(&r, e));
    payload_clear(&s->reply);
    put_u32(&s->reply, FRAME_PROTOCOL);
    put_str(&s->reply, row_get(&r, ROW_commit_id));
    TRY(send(s, FRAME_welcome, e));
    FAIL_IF(version != FRAME_PROTOCOL, e, ERR_ARM,
            "this worker speaks protocol %d, the program that started it %u", FRAME_PROTOCOL,
            version);
out:
    row_release(&r);
    return rc;
}

static int serve(struct server *s, struct err *e) {
    int rc = 0;
    TRY(greet(s, e));
    while (!s->gone) {
        enum frame_type t;
        rc = frame_receive(&s->io, &t, &s->request, e);
        if (rc == FRAME_END) return 0;
        if (rc < 0) return rc;
        set_busy(s, true);
        rc = serve_one(s, t, e);
        set_busy(s, false);
        if (rc < 0) goto out;
    }
out:
    return s->gone ? 0 : rc;
}

int arm_serve(int in, int out, serve_open_fn open_arm, struct err *e) {
    struct server s = { .open_arm = open_arm };
    s.io = (struct frame_io){ .in = in, .out = out, .lock = &s.write_lock };
    int rc = heart_start(&s, e);
    if (rc == 0) {
        rc = serve(&s, e);
        heart_stop(&s);
    }
    pthread_cond_destroy(&s.change);
    pthread_mutex_destroy(&s.write_lock);
    pthread_mutex_destroy(&s.lock);
    arm_close(s.arm);
    payload_release(&s.request);
    payload_release(&s.reply);
    payload_release(&s.store);
    heap_free(s.wanted);
    return rc;
}

int arm_serve_stdio(serve_open_fn open_arm, struct err *e) {
    int rc = 0, empty = -1;
    int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3),
        out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    FAIL_IF(in < 0 || out < 0, e, ERR_IO, "standard input or output is closed: %s",
            strerror(errno));
    empty = open("/dev/null", O_RDWR | O_CLOEXEC);
    FAIL_IF(empty < 0 || dup2(empty, STDIN_FILENO) < 0, e, ERR_IO, "/dev/null: %s",
            strerror(errno));
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0) dup2(empty, STDOUT_FILENO);
    TRY(arm_serve(in, out, open_arm, e));
out:
    if (empty >= 0) close(empty);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return rc;
}
