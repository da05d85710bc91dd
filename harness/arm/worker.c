/* SPDX-License-Identifier: MIT
 * worker.c - the arm of an engine in a process of its own; see arm.h, and serve.h for the other
 * side.
 *
 * Whatever the process does, a call ends: with its answer, or with one ERR_ARM that begins "arm
 * ...". After that the arm is dead and every call says so again. A worker that computes beats each
 * second; one from which nothing comes for SILENCE_S has been stopped or is stuck, unless it only
 * waits for a processor. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "arm/arm.h"
#include "arm/child.h"
#include "arm/frame.h"
#include "arm/wire.h"
#include "base/arena.h"
#include "base/log.h"
#include "base/timer.h"
#include "tok/tok.h"

#define SILENCE_S 10
#define STARVED_S                                                                                  \
    120 /* silence of a process that could run, if it were let: other work is in its way */
#define ANSWER_S 600  /* unless the parameters say otherwise */
#define DYING_MS 2000 /* from the end of its output to the end of the process */

struct worker {
    struct arm arm;
    struct child child;
    struct frame_io io;
    struct payload request, reply;
    struct tok *tok;
    struct row what; /* the fields of a result row that the worker knows */
    char host[256];  /* where it runs */
    char dead[1024]; /* why it cannot be asked any more, or "" */
    int64_t limit_ns, answer_until;
    bool beats; /* silence means something */

    struct observer *observer;
    struct wire_node *nodes; /* of the graph that runs */
    int n_nodes;
    void *data; /* of the node that is seen */
    size_t data_bytes;
    float *logits; /* [n_vocab] */
};

static struct worker *self(struct arm *a) {
    return (struct worker *)a;
}

/* ---- life and death -------------------------------------------------------------------------- */

/* The end of the conversation: rc and *e say why. */
static int dead(struct worker *s, int rc, struct err *e) {
    if (rc == FRAME_END) {
        char how[64];
        if (!child_ended(&s->child, DYING_MS))
            return dead(s, ERR(e, ERR_ARM, "arm closed its output, but its process runs on"), e);
        child_how(&s->child, how, sizeof how);
        rc = ERR(e, ERR_ARM, "arm died: %s", how);
    } else if (rc == ERR_ARM && e && strncmp(e->msg, "arm ", 4)) {
        err_prefix(e, "arm broke the protocol");
    }
    snprintf(s->dead, sizeof s->dead, "%s", e ? e->msg : "arm is dead");
    return rc;
}

/* Nothing for `seconds`. 0: it is only starved, and may be so for some time yet. */
static int silent(struct worker *s, int seconds, double cpu_s, struct err *e) {
    char state = child_state(&s->child);
    if (state == 'R' && seconds < STARVED_S) return 0;
    if (state == 'R')
        return ERR(e, ERR_ARM,
                   "arm does not answer: nothing for %d s; it is starved: ready to run (R), but it "
                   "has had "
                   "%.1f s of processors in that time",
                   seconds, child_cpu_s(&s->child) - cpu_s);
    if (state == 'T')
        return ERR(e, ERR_ARM, "arm does not answer: nothing for %d s; it is stopped (T)",
                   SILENCE_S);
    return ERR(e, ERR_ARM, "arm does not answer: nothing for %d s; its process is in state %c",
               SILENCE_S, state);
}

static int wait_io(void *arg, int fd, short event, struct err *e) {
    int rc = 0;
    struct worker *s = arg;
    const int64_t start = timer_ns(), silence = SILENCE_S * (int64_t)1000000000;
    const double cpu_s = s->beats ? child_cpu_s(&s->child) : 0;
    int64_t now = start, silent_at = start + silence;
    if (s->io.fresh) s->answer_until = now + s->limit_ns;
    s->io.fresh = false;
    for (;; now = timer_ns()) {
        int64_t until = s->answer_until;
        if (s->beats && silent_at < until) until = silent_at;
        struct pollfd p = { .fd = fd, .events = event };
        int n = poll(&p, 1, now < until ? (int)((until - now) / 1000000) + 1 : 0);
        if (n > 0) return 0;
        FAIL_IF(n < 0 && errno != EINTR, e, ERR_IO, "waiting for an arm: %s", strerror(errno));
        if (n < 0) continue;
        FAIL_IF(timer_ns() >= s->answer_until, e, ERR_ARM,
                "arm does not answer: more than %" PRId64 " s for one answer",
                s->limit_ns / 1000000000);
        if (timer_ns() < until) continue;
        rc = silent(s, (int)((timer_ns() - start) / 1000000000), cpu_s, e);
        if (rc < 0) return rc;
        silent_at += silence;
    }
out:
    return rc;
}

static int check_alive(struct worker *s, struct err *e) {
    return s->dead[0] ? ERR(e, ERR_ARM, "%s", s->dead) : 0;
}

static int send(struct worker *s, enum frame_type t, struct err *e) {
    int rc = check_alive(s, e);
    if (rc == 0) rc = frame_send(&s->io, t, &s->request, e);
    /* What it said before it ended is still to be read, and tells more than how it ended. */
    if (rc == FRAME_END && child_ended(&s->child, DYING_MS)) return 0;
    return rc == 0 || rc == ERR_NOMEM || rc == ERR_ARG ? rc : dead(s, rc, e); /* nothing was sent */
}

static int send_data(struct worker *s, const void *data, size_t n, struct err *e) {
    int rc = frame_send_data(&s->io, data, n, e);
    return rc == 0 ? 0 : dead(s, rc, e);
}

static int receive(struct worker *s, enum frame_type *t, struct err *e) {
    int rc = frame_receive(&s->io, t, &s->reply, e);
    return rc == 0 ? 0 : dead(s, rc, e);
}

static int receive_data(struct worker *s, void *data, size_t n, struct err *e) {
    int rc = frame_receive_data(&s->io, data, n, e);
    return rc == 0 ? 0 : dead(s, rc, e);
}

static int end_reply(struct worker *s, enum frame_type t, struct err *e) {
    int rc = payload_end(&s->reply, t, e);
    return rc == 0 ? 0 : dead(s, rc, e);
}

/* What FRAME_error says, in this program's own words about where it comes from. */
static int remote_error(struct worker *s, struct err *e) {
    int rc = get_i32(&s->reply);
    const char *msg = get_str(&s->reply);
    if (!msg || rc >= 0) s->reply.torn = true;
    int torn = end_reply(s, FRAME_error, e);
    if (torn < 0) return torn;
    if (!strcmp(err_name(rc), err_name(1))) rc = ERR_ARM; /* a code of another build */
    return ERR(e, rc, "%s", msg);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* One request and what its answer may hold. */
struct call {
    const struct arm_batch *batch; /* whose wanted rows are answered, */
    arm_answer_fn answer;
    const int32_t *target; /* or rows [next, end) */
    arm_row_fn row;
    void *arg;
    int64_t next, end;
    bool logits;
    int rc; /* the caller's own error, kept in err while the worker finishes */
    struct err err;
};

/* The next index that an answer must have. */
static int64_t next_row(const struct call *c) {
    int64_t i = c->next;
    while (c->batch && i < c->end && !c->batch->want[i])
        i++;
    return i;
}

static int hand_over(struct worker *s, struct call *c, const struct arm_row *r, struct err *e) {
    if (c->row) return c->row(c->arg, r, e);
    (void)s;
    struct arm_answer a = { (int)r->r, r->logits, r->max, r->lse, r->top1 };
    return c->answer(c->arg, &a, e);
}

static int on_row(struct worker *s, struct call *c, struct err *e) {
    int rc = 0;
    struct arm_row r;
    uint32_t n;
    const int32_t n_vocab = s->arm.info.n_vocab;
    get_row(&s->reply, &r, &n, n_vocab);
    TRY(end_reply(s, FRAME_row, e));
    int64_t expected = next_row(c);
    FAIL_IF(r.r != expected || expected >= c->end, e, ERR_ARM,
            "malformed frame: row %" PRId64 " where row %" PRId64 " of %" PRId64 " was expected",
            r.r, expected, c->end);
    FAIL_IF(n != (c->logits ? (uint32_t)n_vocab : 0), e, ERR_ARM,
            "malformed frame: a row of %u logits, and the vocabulary has %d", n, n_vocab);
    if (n) TRY(receive_data(s, s->logits, (size_t)n * sizeof *s->logits, e));
    r.logits = n ? s->logits : NULL;
    c->next = expected + 1;
    if (c->rc < 0) return 0; /* on its way when it was told to stop */
    c->rc = hand_over(s, c, &r, &c->err);
    payload_clear(&s->request);
    if (c->rc < 0) TRY(send(s, FRAME_stop, e));
out:
    if (rc < 0 && !s->dead[0]) rc = dead(s, rc, e);
    return rc;
}

static int on_graph(struct worker *s, struct call *c, struct err *e) {
    int rc = 0;
    heap_free(s->nodes);
    s->n_nodes = 0;
    TRY(get_graph(&s->reply, &s->nodes, &s->n_nodes, e));
    FAIL_IF(!s->observer, e, ERR_ARM, "malformed frame: nobody asked for 'graph'");
    payload_clear(&s->request);
    for (int i = 0; i < s->n_nodes; i++)
        put_u8(&s->request, c->rc >= 0 && s->observer->want(s->observer->arg, &s->nodes[i].node));
    TRY(send(s, FRAME_wants, e));
out:
    if (rc < 0 && !s->dead[0]) rc = dead(s, rc, e);
    return rc;
}

/* Data for the observer, and back if it has changed them. */
static int show(struct worker *s, struct call *c, struct wire_node *w, size_t n_bytes,
                struct err *e) {
    int rc = 0;
    char before[17] = "", after[17] = "";
    enum wire_seen seen = WIRE_STOP;
    if (c->rc >= 0) {
        fingerprint_bytes(s->data, n_bytes, before);
        w->t[0].data = w->node.op == OP_set_rows ? NULL : s->data;
        c->rc = s->observer->see(s->observer->arg, &w->node, s->data, &c->err);
        w->t[0].data = NULL;
        fingerprint_bytes(s->data, n_bytes, after);
        seen = c->rc < 0 ? WIRE_STOP : strcmp(before, after) ? WIRE_CHANGED : WIRE_SAME;
    }
    payload_clear(&s->request);
    put_u8(&s->request, (uint8_t)seen);
    TRY(send(s, FRAME_seen, e));
    if (seen == WIRE_CHANGED) TRY(send_data(s, s->data, n_bytes, e));
out:
    return rc;
}

static int on_see(struct worker *s, struct call *c, struct err *e) {
    int rc = 0;
    uint32_t i = get_u32(&s->reply);
    uint64_t n_bytes = get_u64(&s->reply), expected = 0;
    TRY(end_reply(s, FRAME_see, e));
    FAIL_IF(!s->observer || i >= (uint32_t)s->n_nodes ||
                !wire_node_bytes(&s->nodes[i].node, &expected) || n_bytes != expected,
            e, ERR_ARM, "malformed frame: %" PRIu64 " bytes of node %u of %d, expected %" PRIu64,
            n_bytes, i, s->n_nodes, expected);
    if (n_bytes > s->data_bytes) {
        void *p = heap_realloc(s->data, n_bytes, e);
        FAIL_IF(!p, e, ERR_NOMEM, "out of memory for a node of %" PRIu64 " bytes", n_bytes);
        s->data = p;
        s->data_bytes = n_bytes;
    }
    TRY(receive_data(s, s->data, n_bytes, e));
    TRY(show(s, c, &s->nodes[i], n_bytes, e));
out:
    if (rc < 0 && !s->dead[0]) rc = dead(s, rc, e);
    return rc;
}

/* The request is sent: serve its answer until `last` (or an error) ends it. */
static int converse(struct worker *s, struct call *c, enum frame_type last, struct err *e) {
    int rc = 0;
    enum frame_type t = FRAME_done;
    do {
        TRY(receive(s, &t, e));
        if (t == FRAME_row && (c->row || c->answer))
            TRY(on_row(s, c, e));
        else if (t == FRAME_graph)
            TRY(on_graph(s, c, e));
        else if (t == FRAME_see)
            TRY(on_see(s, c, e));
        else if (t != FRAME_error && t != last)
            return dead(s, ERR(e, ERR_ARM, "malformed frame: nobody asked for '%s'", frame_name(t)),
                        e);
    } while (t != FRAME_error && t != last);
    if (c->rc < 0) { /* the worker could not know why */
        if (e) *e = c->err;
        return c->rc;
    }
    if (t == FRAME_error) return remote_error(s, e);
    if (t == FRAME_done) {
        s->arm.decode_ns = get_i64(&s->reply);
        s->arm.rss_bytes = get_i64(&s->reply);
        TRY(end_reply(s, t, e));
    }
    if (next_row(c) < c->end)
        return dead(s,
                    ERR(e, ERR_ARM, "malformed frame: 'done' before row %" PRId64 " of %" PRId64,
                        next_row(c), c->end),
                    e);
out:
    return rc;
}

static int ask(struct worker *s, enum frame_type t, struct call *c, struct err *e) {
    int rc = send(s, t, e);
    return rc < 0 ? rc : converse(s, c, FRAME_done, e);
}

/* ---- the arm --------------------------------------------------------------------------------- */

static int send_batch(struct worker *s, const struct arm_batch *b, int how, struct call *c,
                      struct err *e) {
    payload_clear(&s->request);
    put_u8(&s->request, (uint8_t)how);
    put_batch(&s->request, b);
    return ask(s, FRAME_decode, c, e);
}

static int decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    struct call c = { .batch = fn && b->want ? b : NULL, .answer = fn, .arg = arg, .logits = true };
    c.end = c.batch ? b->n : 0;
    return send_batch(self(a), b, fn ? WIRE_ANSWER : 0, &c, e);
}

static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    struct call c = { 0 };
    return send_batch(self(a), b, WIRE_HOLD | (append ? WIRE_APPEND : 0), &c, e);
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    struct worker *s = self(a);
    struct call c = { .row = fn, .arg = arg, .next = r0, .end = r0 + n, .logits = logits };
    payload_clear(&s->request);
    put_i64(&s->request, r0);
    put_u8(&s->request, logits);
    put_bytes(&s->request, target, (size_t)n * sizeof *target);
    return ask(s, FRAME_rows, &c, e);
}

static int kv_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    struct worker *s = self(a);
    payload_clear(&s->request);
    put_i32(&s->request, seq);
    put_i32(&s->request, pos);
    return ask(s, FRAME_trim, &(struct call){ 0 }, e);
}

static int observe(struct arm *a, struct observer *o, struct err *e) {
    int rc = 0;
    struct worker *s = self(a);
    if (!o == !s->observer) { /* the worker need not know who looks */
        s->observer = o;
        return check_alive(s, e);
    }
    payload_clear(&s->request);
    put_u8(&s->request, o != NULL);
    TRY(ask(s, FRAME_observe, &(struct call){ 0 }, e));
    s->observer = o;
out:
    return rc;
}

static int describe(const struct arm *a, struct row *r, struct err *e) {
    int rc = 0;
    const struct worker *s = (const struct worker *)a;
    const char *here = row_get(r, ROW_host), *placement = row_get(&s->what, ROW_placement);
    char there[320];
    for (int f = 0; f < ROW_field_count; f++)
        if (s->what.field[f]) TRY(row_set(r, (enum row_field)f, s->what.field[f], e));
    snprintf(there, sizeof there, "%s of %s", placement, s->host);
    if (here[0] && strcmp(here, s->host)) TRY(row_set(r, ROW_placement, there, e));
out:
    return rc;
}

static void release(struct arm *a) {
    struct worker *s = self(a);
    child_stop(&s->child);
    payload_release(&s->request);
    payload_release(&s->reply);
    row_release(&s->what);
    tok_free(s->tok);
    heap_free(s->nodes);
    heap_free(s->data);
    heap_free(s->logits);
    heap_free(s);
}

static const struct arm_ops worker_ops = {
    .release = release,
    .decode = decode,
    .hold = hold,
    .rows = rows,
    .kv_trim = kv_trim,
    .observe = observe,
    .describe = describe,
};

/* ---- opening --------------------------------------------------------------------------------- */

static int greet(struct worker *s, struct err *e) {
    int rc = 0;
    enum frame_type t;
    struct row r;
    row_init(&r);
    TRY(provenance_fill(&r, e));
    payload_clear(&s->request);
    put_u32(&s->request, FRAME_PROTOCOL);
    put_str(&s->request, row_get(&r, ROW_commit_id));
    TRY(send(s, FRAME_hello, e));
    TRY(receive(s, &t, e));
    FAIL_IF(t != FRAME_welcome, e, ERR_ARM, "malformed frame: '%s' where 'welcome' was expected",
            frame_name(t));
    uint32_t version = get_u32(&s->reply);
    const char *commit = get_str(&s->reply);
    FAIL_IF(version != FRAME_PROTOCOL, e, ERR_ARM,
            "arm speaks protocol %u, this program %d: its commit is '%s'", version, FRAME_PROTOCOL,
            commit ? commit : "");
    TRY(end_reply(s, t, e));
    s->beats = true;
out:
    row_release(&r);
    if (rc < 0 && !s->dead[0]) rc = dead(s, rc, e);
    return rc;
}

static int open_remote(struct worker *s, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct arm_info *i = &s->arm.info;
    payload_clear(&s->request);
    put_params(&s->request, p);
    TRY(send(s, FRAME_open, e));
    TRY(converse(s, &(struct call){ 0 }, FRAME_opened, e));
    get_info(&s->reply, i);
    const char *host = get_str(&s->reply);
    snprintf(s->host, sizeof s->host, "%s", host ? host : "");
    TRY(get_what(&s->reply, &s->what, e));
    TRY(end_reply(s, FRAME_opened, e));
    FAIL_IF((p->n_ctx && i->n_ctx != p->n_ctx) || i->n_seq < p->n_seq, e, ERR_ARM,
            "arm has %d sequences of %d positions, %d of %d were asked for", i->n_seq, i->n_ctx,
            p->n_seq, p->n_ctx);
    s->logits = heap_calloc((size_t)i->n_vocab, sizeof *s->logits, e);
    if (!s->logits) rc = ERR_NOMEM;
out:
    return rc;
}

/* The tokenizer of the same file, where this program can read it. */
static int load_tok(struct worker *s, const char *path, struct err *e) {
    int rc = 0;
    char fp[17];
    struct gguf *g = NULL;
    struct err why = { 0 };
    const char *theirs = row_get(&s->what, ROW_model_fp);
    if (gguf_open(&g, path, &why) < 0) {
        log_msg(LOG_WARN, "no tokenizer for the arm of a worker: %s", why.msg);
        return 0;
    }
    gguf_fingerprint(g, fp);
    if (strcmp(fp, theirs)) {
        log_msg(LOG_WARN, "no tokenizer for the arm of a worker: %s is %s here and %s there", path,
                fp, theirs);
    } else {
        s->tok = arm_load_tok(g, path);
    }
    FAIL_IF(s->tok && tok_n_vocab(s->tok) > s->arm.info.n_vocab, e, ERR_ARM,
            "arm has a vocabulary of %d, and its model one of %d", s->arm.info.n_vocab,
            tok_n_vocab(s->tok));
out:
    gguf_close(g);
    return rc;
}

static int worker_new(struct worker **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct worker *s = heap_calloc(1, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    s->arm.ops = &worker_ops;
    s->child = (struct child){ .in = -1, .out = -1, .status = -1 };
    row_init(&s->what);
    FAIL_IF(!p->model, e, ERR_ARG, "the arm of a worker needs a model");
    FAIL_IF(p->timeout_s < 0, e, ERR_ARG, "a timeout of %d s", p->timeout_s);
    s->limit_ns = (p->timeout_s ? p->timeout_s : ANSWER_S) * (int64_t)1000000000;
    s->beats = !p->launch; /* ssh and srun may take their time */
    *out = s;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}

/* The process is there: from the greeting to an arm that answers. s is released on failure. */
static int begin(struct arm **out, struct worker *s, const struct arm_params *p, struct err *e) {
    int rc = 0;
    s->io = (struct frame_io){ .in = s->child.out, .out = s->child.in, .wait = wait_io, .arg = s };
    TRY(greet(s, e));
    TRY(open_remote(s, p, e));
    TRY(load_tok(s, p->model, e));
    s->arm.tok = s->tok;
    *out = &s->arm;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}

int arm_open_worker(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    struct worker *s = NULL;
    *out = NULL;
    TRY(worker_new(&s, p, e));
    rc = child_start(&s->child, p->launch, p->path, e);
    if (rc < 0) release(&s->arm);
    TRY(rc);
    TRY(begin(out, s, p, e));
out:
    return rc;
}

int arm_attach_worker(struct arm **out, int in, int out_fd, const struct arm_params *p,
                      struct err *e) {
    int rc = 0;
    struct worker *s = NULL;
    *out = NULL;
    TRY(worker_new(&s, p, e));
    s->child.out = in; /* what the worker writes, we read */
    s->child.in = out_fd;
    TRY(begin(out, s, p, e));
out:
    return rc;
}
