/* SPDX-License-Identifier: MIT
 * tool.c - running another program; see tool.h. */
#include "arm/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void run_child(const char *const *argv, const char *dir, int out) {
    int empty = open("/dev/null", O_RDONLY);
    if (empty >= 0) dup2(empty, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    if (!dir || chdir(dir) == 0) execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", dir ? dir : argv[0], strerror(errno));
    _exit(127);
}

static int read_all(int fd, int silence_s, tool_text_fn fn, void *arg, struct err *e) {
    int rc = 0;
    char buf[4096];
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int ready = poll(&p, 1, silence_s > 0 ? silence_s * 1000 : -1);
        if (ready < 0 && errno == EINTR) continue;
        FAIL_IF(ready == 0, e, ERR_ARM, "does not answer: nothing printed for %d s", silence_s);
        ssize_t n = read(fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        TRY(fn(arg, buf, (size_t)n, e));
    }
out:
    return rc;
}

int tool_run(const char *const *argv, const char *dir, int silence_s, tool_text_fn fn, void *arg,
             int *status, struct err *e) {
    int rc = 0, out[2];
    FAIL_IF(pipe2(out, O_CLOEXEC), e, ERR_IO, "no pipe for %s: %s", argv[0], strerror(errno));
    pid_t pid = fork();
    if (pid == 0) run_child(argv, dir, out[1]);
    close(out[1]);
    if (pid < 0) {
        close(out[0]);
        return ERR(e, ERR_IO, "cannot start %s: %s", argv[0], strerror(errno));
    }
    rc = read_all(out[0], silence_s, fn, arg, e);
    close(out[0]);
    if (rc < 0) kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR) {
    }
out:
    return rc;
}

void tool_how(int status, char *buf, size_t n) {
    if (WIFSIGNALED(status))
        snprintf(buf, n, "signal %d", WTERMSIG(status));
    else
        snprintf(buf, n, "exit code %d", WEXITSTATUS(status));
}
