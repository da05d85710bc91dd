/* SPDX-License-Identifier: MIT
 * main.c - ggauge COMMAND [options]: finds the command, prints its error, maps it to an exit code.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cmd.h"

static const struct {
    const char *name;
    cmd_fn fn;
    const char *help;
} commands[] = {
#define X(name, symbol, help) { name, cmd_##symbol, help },
    COMMAND_LIST(X)
#undef X
};

static void print_log(enum log_level level, const char *msg) {
    fprintf(stderr, "%s%s\n", level == LOG_WARN ? "warning: " : "", msg);
}

static void print_usage(FILE *f) {
    fprintf(f, "ggauge measures GGUF models: how good, how fast, and whether two ways agree.\n\n"
               "usage: ggauge COMMAND [options]\n       ggauge COMMAND --help\n\ncommands\n");
    for (size_t i = 0; i < N_ELEMS(commands); i++)
        fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\nexit codes\n  0 pass, 1 a check failed, 2 usage, 3 environment (files, memory, "
               "devices), 125 undecided\n");
}

static int exit_code(int err_code) {
    switch (err_code) {
    case ERR_ARG: return EXIT_USAGE;
    case ERR_NONFINITE: return EXIT_FAIL;
    default: return EXIT_ENVIRONMENT;
    }
}

int main(int argc, char **argv) {
    log_set_hook(print_log);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is then an ordinary write error */
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        print_usage(stdout);
        return EXIT_PASS;
    }
    for (size_t i = 0; i < N_ELEMS(commands); i++) {
        if (strcmp(argv[1], commands[i].name)) continue;
        struct err e = { 0 };
        int code = commands[i].fn(argc - 1, argv + 1, &e);
        if (code >= 0 && (fflush(stdout) || ferror(stdout)))
            code = ERR(&e, ERR_IO, "writing to stdout failed; is its disk full?");
        if (code >= 0) return code;
        fprintf(stderr, "error: %s\n", e.msg[0] ? e.msg : err_name(code));
        return exit_code(code);
    }
    fprintf(stderr, "error: '%s' is not a command; see ggauge --help\n", argv[1]);
    return EXIT_USAGE;
}
