/* SPDX-License-Identifier: MIT
 * libllama.c - the program ggauge-libllama: another engine as the arm of a process that has started
 * this one; see libllama.h, and arm/serve.h for what passes between the two. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arm/serve.h"
#include "base/log.h"
#include "libllama.h"

static void on_log(enum log_level level, const char *msg) {
    fprintf(stderr, "%s%s\n", level == LOG_WARN ? "warning: " : "", msg);
}

/* The engine's own messages: errors only; what it loads and allocates would drown ours. */
static void on_engine_log(enum ggml_log_level level, const char *text, void *arg) {
    (void)arg;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

int main(int argc, char **argv) {
    struct err e = { 0 };
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        printf("ggauge-libllama for %s %s (%s)\n", ENGINE_NAME, ENGINE_COMMIT, ENGINE_FLAGS);
        return 0;
    }
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "worker")) || isatty(STDIN_FILENO)) {
        fprintf(stderr,
                "usage: %s worker   (started by an arm \"lib:%s\")\n"
                "serves %s %s to ggauge on its standard input and output\n",
                argv[0], argv[0], ENGINE_NAME, ENGINE_COMMIT);
        return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
    }
    log_set_hook(on_log);
    signal(SIGPIPE, SIG_DFL); /* who started this has gone: so does this */
    llama_log_set(on_engine_log, NULL);
    ll_backends_load();
    llama_backend_init();
    int rc = arm_serve_stdio(libllama_open, &e);
    if (rc < 0) fprintf(stderr, "error: %s\n", e.msg);
    llama_backend_free();
    return rc < 0 ? 3 : 0;
}
