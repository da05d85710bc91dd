/* SPDX-License-Identifier: MIT
 * frame.c - frames and their payloads; see frame.h. Like all files of this program it relies on a
 * little-endian processor. */
#include "arm/frame.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"

#define MAGIC "GGwk"
#define NO_STRING UINT32_MAX

static const struct {
    const char *name;
    uint32_t max;
} types[] = {
#define X(name, number, max) [number] = { #name, max },
    FRAME_LIST(X)
#undef X
};

const char *frame_name(enum frame_type t) {
    return (size_t)t < N_ELEMS(types) && types[t].name ? types[t].name : "?";
}

/* ---- payloads -------------------------------------------------------------------------------- */

void payload_release(struct payload *p) {
    heap_free(p->p);
    *p = (struct payload){ 0 };
}

void payload_clear(struct payload *p) {
    p->n = p->at = 0;
    p->failed = p->torn = false;
}

static bool reserve(struct payload *p, size_t n) {
    if (n <= p->cap) return true;
    size_t cap = n < 2 * p->cap ? 2 * p->cap : n;
    unsigned char *q = heap_realloc(p->p, cap, NULL);
    if (!q) return false;
    p->p = q;
    p->cap = cap;
    return true;
}

void put_bytes(struct payload *p, const void *v, size_t n) {
    if (p->failed || n == 0) return;
    p->failed = !reserve(p, p->n + n);
    if (p->failed) return;
    memcpy(p->p + p->n, v, n);
    p->n += n;
}

void put_u8(struct payload *p, uint8_t v) {
    put_bytes(p, &v, sizeof v);
}

void put_u32(struct payload *p, uint32_t v) {
    put_bytes(p, &v, sizeof v);
}

void put_u64(struct payload *p, uint64_t v) {
    put_bytes(p, &v, sizeof v);
}

void put_f32(struct payload *p, float v) {
    put_bytes(p, &v, sizeof v);
}

void put_f64(struct payload *p, double v) {
    put_bytes(p, &v, sizeof v);
}

/* Length, bytes and a NUL, so that the reader need not copy. */
void put_str(struct payload *p, const char *s) {
    size_t n = s ? strlen(s) : 0;
    put_u32(p, s ? (uint32_t)n : NO_STRING);
    if (s) put_bytes(p, s, n + 1);
}

const void *get_bytes(struct payload *p, size_t n) {
    if (p->torn || n > p->n - p->at) {
        p->torn = true;
        return NULL;
    }
    const void *v = p->p + p->at;
    p->at += n;
    return v;
}

static void get(struct payload *p, void *v, size_t n) {
    const void *from = get_bytes(p, n);
    if (from)
        memcpy(v, from, n);
    else
        memset(v, 0, n);
}

uint8_t get_u8(struct payload *p) {
    uint8_t v;
    get(p, &v, sizeof v);
    return v;
}

uint32_t get_u32(struct payload *p) {
    uint32_t v;
    get(p, &v, sizeof v);
    return v;
}

uint64_t get_u64(struct payload *p) {
    uint64_t v;
    get(p, &v, sizeof v);
    return v;
}

float get_f32(struct payload *p) {
    float v;
    get(p, &v, sizeof v);
    return v;
}

double get_f64(struct payload *p) {
    double v;
    get(p, &v, sizeof v);
    return v;
}

const char *get_str(struct payload *p) {
    uint32_t n = get_u32(p);
    if (n == NO_STRING && !p->torn) return NULL;
    const char *s = get_bytes(p, (size_t)n + 1);
    if (!s) return "";
    if (s[n] || strlen(s) != n) p->torn = true;
    return p->torn ? "" : s;
}

int payload_end(const struct payload *p, enum frame_type t, struct err *e) {
    int rc = 0;
    FAIL_IF(p->torn, e, ERR_ARM,
            "malformed frame: its %zu bytes of '%s' end too early or hold a value that "
            "cannot be",
            p->n, frame_name(t));
    FAIL_IF(p->at != p->n, e, ERR_ARM, "malformed frame: '%s' of %zu bytes where %zu were expected",
            frame_name(t), p->n, p->at);
out:
    return rc;
}

/* ---- conversation ---------------------------------------------------------------------------- */

/* write(2) that gives EPIPE and leaves the caller's signals as they are. */
static ssize_t write_no_signal(int fd, const void *p, size_t n) {
    sigset_t pipe_only, old, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &old);
    sigpending(&pending);
    ssize_t k = write(fd, p, n);
    int why = errno;
    if (k < 0 && why == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&pipe_only, NULL, &(struct timespec){ 0 });
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = why;
    return k;
}

static int write_all(struct frame_io *io, const void *data, size_t n, struct err *e) {
    int rc = 0;
    const char *p = data;
    while (n > 0) {
        ssize_t k = io->wait ? write_no_signal(io->out, p, n) : write(io->out, p, n);
        if (k >= 0) {
            p += k;
            n -= (size_t)k;
            continue;
        }
        if (errno == EPIPE || errno == ECONNRESET) return FRAME_END;
        if (errno == EINTR) continue;
        FAIL_IF(errno != EAGAIN || !io->wait, e, ERR_IO, "writing to the pipe of an arm: %s",
                strerror(errno));
        TRY(io->wait(io->arg, io->out, POLLOUT, e));
    }
out:
    return rc;
}

static int read_all(struct frame_io *io, void *data, size_t n, struct err *e) {
    int rc = 0;
    char *p = data;
    while (n > 0) {
        ssize_t k = read(io->in, p, n);
        if (k == 0) return FRAME_END;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
            continue;
        }
        if (errno == ECONNRESET) return FRAME_END;
        if (errno == EINTR) continue;
        FAIL_IF(errno != EAGAIN || !io->wait, e, ERR_IO, "reading from the pipe of an arm: %s",
                strerror(errno));
        TRY(io->wait(io->arg, io->in, POLLIN, e));
    }
out:
    return rc;
}

static int send_bytes(struct frame_io *io, enum frame_type t, const void *data, size_t n,
                      struct err *e) {
    int rc = 0;
    unsigned char head[FRAME_HEAD_BYTES] = MAGIC;
    uint32_t type = t, length = (uint32_t)n;
    FAIL_IF(n > types[t].max, e, ERR_ARG, "a request of %zu bytes is more than the %u of '%s'", n,
            types[t].max, types[t].name);
    memcpy(head + 4, &type, sizeof type);
    memcpy(head + 8, &length, sizeof length);
    if (io->lock) pthread_mutex_lock(io->lock);
    if (io->wait) io->fresh = true;
    rc = write_all(io, head, sizeof head, e);
    if (rc == 0) rc = write_all(io, data, n, e);
    if (io->lock) pthread_mutex_unlock(io->lock);
out:
    return rc;
}

int frame_send(struct frame_io *io, enum frame_type t, const struct payload *p, struct err *e) {
    int rc = 0;
    FAIL_IF(p && p->failed, e, ERR_NOMEM, "out of memory for a frame '%s'", frame_name(t));
    rc = send_bytes(io, t, p ? p->p : NULL, p ? p->n : 0, e);
out:
    return rc;
}

int frame_send_data(struct frame_io *io, const void *data, size_t n, struct err *e) {
    int rc = 0;
    for (const char *p = data; rc == 0 && n > 0;) {
        size_t k = n < FRAME_DATA_MAX ? n : FRAME_DATA_MAX;
        rc = send_bytes(io, FRAME_data, p, k, e);
        p += k;
        n -= k;
    }
    return rc;
}

/* What a wrong program writes is most likely a line of text: show its beginning. */
static int not_ours(struct frame_io *io, const unsigned char *head, struct err *e) {
    char text[41] = { 0 };
    memcpy(text, head, 4);
    ssize_t more = io->wait ? read(io->in, text + 4, sizeof text - 5) : 0;
    for (ssize_t i = 0; i < 4 + (more > 0 ? more : 0); i++)
        text[i] = isprint((unsigned char)text[i]) ? text[i] : '.';
    return ERR(e, ERR_ARM, "malformed frame: it begins with '%s', not with " MAGIC, text);
}

static int receive_head(struct frame_io *io, enum frame_type *t, uint32_t *n, struct err *e) {
    int rc = 0;
    unsigned char head[FRAME_HEAD_BYTES] = { 0 };
    uint32_t type;
    if (io->wait) io->fresh = true;
    do {
        rc = read_all(io, head, 4, e); /* 4 first: a wrong program may say less than a head */
        if (rc == 0 && memcmp(head, MAGIC, 4)) return not_ours(io, head, e);
        if (rc == 0) rc = read_all(io, head + 4, sizeof head - 4, e);
        if (rc) return rc;
        memcpy(&type, head + 4, sizeof type);
        memcpy(n, head + 8, sizeof *n);
        FAIL_IF(type >= N_ELEMS(types) || !types[type].name, e, ERR_ARM,
                "malformed frame: no frame has the type %u", type);
        FAIL_IF(*n > types[type].max, e, ERR_ARM,
                "malformed frame: '%s' of %u bytes, at most %u are allowed", types[type].name, *n,
                types[type].max);
    } while (type == FRAME_beat);
    *t = (enum frame_type)type;
out:
    return rc;
}

int frame_receive(struct frame_io *io, enum frame_type *t, struct payload *p, struct err *e) {
    uint32_t n = 0;
    payload_clear(p);
    int rc = receive_head(io, t, &n, e);
    if (rc) return rc;
    if (!reserve(p, (size_t)n + 1))
        return ERR(e, ERR_NOMEM, "out of memory for a frame of %u bytes", n);
    rc = read_all(io, p->p, n, e);
    if (rc == 0) p->n = n;
    return rc;
}

int frame_receive_data(struct frame_io *io, void *data, size_t n, struct err *e) {
    int rc = 0;
    for (char *p = data; rc == 0 && n > 0;) {
        enum frame_type t;
        uint32_t k = 0;
        rc = receive_head(io, &t, &k, e);
        if (rc) break;
        FAIL_IF(t != FRAME_data || k == 0 || k > n, e, ERR_ARM,
                "malformed frame: '%s' of %u bytes where %zu bytes of data are missing",
                frame_name(t), k, n);
        rc = read_all(io, p, k, e);
        p += k;
        n -= k;
    }
out:
    return rc;
}
