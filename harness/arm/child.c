/* SPDX-License-Identifier: MIT
 * child.c - the process of a worker; see child.h. */
#include "arm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/timer.h"

#define SELF "/proc/self/exe"
#define MAX_WORDS 64
#define PIPE_BYTES (1 << 20) /* a slice of logits; the default is 64 KiB */
#define GRACE_MS 2000        /* for each polite way to end */

extern char **environ;

/* Cut text into words in place. */
static int split(char *text, char **words, int *n, struct err *e) {
    int rc = 0;
    for (char *from = text; *from;) {
        from += strspn(from, " \t");
        if (!*from) break;
        FAIL_IF(*n == MAX_WORDS, e, ERR_ARG, "a launch prefix of more than %d words", MAX_WORDS);
        char *to = words[(*n)++] = from;
        bool quoted = false;
        for (; *from && (quoted || !strchr(" \t", *from)); from++) {
            if (*from == '\'')
                quoted = !quoted;
            else
                *to++ = *from;
        }
        FAIL_IF(quoted, e, ERR_ARG, "the launch prefix has a ' without its second: %s",
                words[*n - 1]);
        if (*from) from++;
        *to = '\0';
    }
out:
    return rc;
}

/* fd[0] = ours, fd[1] = the child's. */
static int make_pipe(int fd[2], bool to_child, struct err *e) {
    int rc = 0, p[2];
    FAIL_IF(pipe2(p, O_CLOEXEC), e, ERR_IO, "no pipe for a worker: %s", strerror(errno));
    fcntl(p[0], F_SETPIPE_SZ, PIPE_BYTES); /* refused where users have a limit: only slower */
    fd[0] = p[to_child];
    fd[1] = p[!to_child];
    FAIL_IF(fcntl(fd[0], F_SETFL, O_NONBLOCK), e, ERR_IO, "no pipe for a worker: %s",
            strerror(errno));
out:
    return rc;
}

static int spawn(struct child *c, char **argv, int in, int out, struct err *e) {
    int rc = 0;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, dfl;
    sigemptyset(&none);
    sigemptyset(&dfl);
    sigaddset(&dfl, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &dfl);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int why = posix_spawnp(&c->pid, argv[0], &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (why) c->pid = 0;
    FAIL_IF(why, e, ERR_MISSING, "cannot start %s: %s", argv[0], strerror(why));
out:
    return rc;
}

int child_start(struct child *c, const char *launch, const char *program, struct err *e) {
    int rc = 0, n = 0, in[2] = { -1, -1 }, out[2] = { -1, -1 };
    char *words[MAX_WORDS + 3] = { 0 }, self[PATH_MAX] = SELF, verb[] = "worker";
    char *copy = NULL, *own = NULL;
    *c = (struct child){ .in = -1, .out = -1, .status = -1 };
    if (launch) {
        copy = heap_strndup(launch, strlen(launch), e);
        if (!copy) return ERR_NOMEM;
        TRY(split(copy, words, &n, e));
    }
    if (program) {
        own = heap_strndup(program, strlen(program), e);
        if (!own) rc = ERR_NOMEM;
        if (!own) goto out;
    } else if (n > 0) { /* in another process SELF would be another program */
        ssize_t k = readlink(SELF, self, sizeof self - 1);
        FAIL_IF(k < 0, e, ERR_IO, SELF ": %s", strerror(errno));
        self[k] = '\0';
    }
    words[n++] = own ? own : self;
    words[n] = verb;
    TRY(make_pipe(in, true, e));
    TRY(make_pipe(out, false, e));
    TRY(spawn(c, words, in[1], out[1], e));
    c->in = in[0];
    c->out = out[0];
    in[0] = out[0] = -1;
out:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0) close(in[i]);
        if (out[i] >= 0) close(out[i]);
    }
    heap_free(copy);
    heap_free(own);
    return rc;
}

bool child_ended(struct child *c, int wait_ms) {
    const int64_t end = timer_ns() + (int64_t)wait_ms * 1000000;
    for (int64_t pause = 200000; c->pid && !c->reaped;
         pause = pause < 20000000 ? 2 * pause : pause) {
        int status;
        pid_t got = waitpid(c->pid, &status, WNOHANG);
        if (got < 0 && errno == EINTR) continue;
        if (got != 0) { /* < 0: somebody else took it, or SIGCHLD is ignored */
            c->reaped = true;
            c->status = got > 0 ? status : -1;
        } else if (timer_ns() >= end) {
            return false;
        } else {
            nanosleep(&(struct timespec){ .tv_nsec = pause }, NULL);
        }
    }
    return true;
}

void child_how(const struct child *c, char *buf, size_t n) {
    if (c->status < 0)
        snprintf(buf, n, "nobody knows how");
    else if (WIFSIGNALED(c->status))
        snprintf(buf, n, "signal %d", WTERMSIG(c->status));
    else
        snprintf(buf, n, "exit code %d", WEXITSTATUS(c->status));
}

/* What /proc/<pid>/stat says behind "pid (name) ", in buf; "" if nothing. */
static const char *proc_stat(const struct child *c, char *buf, size_t n_bytes) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)c->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, n_bytes - 1) : 0;
    if (fd >= 0) close(fd);
    buf[n > 0 ? n : 0] = '\0';
    const char *name_end = strrchr(buf, ')');
    return name_end && name_end[1] == ' ' ? name_end + 2 : "";
}

char child_state(const struct child *c) {
    char text[512];
    const char *s = proc_stat(c, text, sizeof text);
    return *s ? *s : '?';
}

double child_cpu_s(const struct child *c) {
    char text[512];
    unsigned long user = 0, system = 0;
    sscanf(proc_stat(c, text, sizeof text), "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
           &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

void child_stop(struct child *c) {
    static const int signals[] = { 0, SIGTERM, SIGKILL };
    if (c->in >= 0) close(c->in);
    if (c->out >= 0) close(c->out);
    c->in = c->out = -1;
    bool stopped = c->pid && !c->reaped && child_state(c) == 'T'; /* deaf to all but SIGKILL */
    for (size_t i = stopped ? N_ELEMS(signals) - 1 : 0; i < N_ELEMS(signals); i++) {
        if (child_ended(c, 0)) return;
        if (signals[i]) kill(c->pid, signals[i]);
        if (child_ended(c, GRACE_MS)) return;
    }
    log_msg(LOG_WARN, "process %lld of an arm cannot be killed", (long long)c->pid);
}
