/* SPDX-License-Identifier: MIT
 * fuzz_opt.c - command lines: the first byte picks a command, the rest is its arguments, one a
 * line.
 *
 * Commands get as far as opening a model that does not exist; kernel-bench, which needs none, only
 * lists its cells. Arguments with a '/' are dropped, so that no input can name a file outside of
 * the empty folder the target runs in; and regress, which runs what its arguments say, is left out.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cmd.h"

#define MAX_ARGS 64

static char only_list[] = "--list";

static const struct {
    const char *name;
    cmd_fn fn;
} commands[] = {
#define X(name, symbol, help) { name, cmd_##symbol },
    COMMAND_LIST(X)
#undef X
};

static void enter_empty_folder(void) {
    static int done;
    char path[] = "/tmp/ggauge-fuzz-XXXXXX";
    if (done++) return;
    if (!mkdtemp(path) || chdir(path)) abort();
    if (!freopen("/dev/null", "w", stdout)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 || n > 4096) return 0;
    enter_empty_folder();
    size_t which = data[0] % N_ELEMS(commands);
    if (!strcmp(commands[which].name, "regress")) return 0;
    char *text = malloc(n), *args[MAX_ARGS + 3], name[32];
    if (!text) return 0;
    memcpy(text, data + 1, n - 1);
    text[n - 1] = '\0';
    snprintf(name, sizeof name, "%s", commands[which].name);
    int argc = 0;
    args[argc++] = name;
    for (char *p = strtok(text, "\n"); p && argc <= MAX_ARGS; p = strtok(NULL, "\n"))
        if (!strchr(p, '/')) args[argc++] = p;
    if (!strcmp(name, "kernel-bench")) args[argc++] = only_list;
    args[argc] = NULL;
    struct err e = { 0 };
    int rc = commands[which].fn(argc, args, &e);
    if (rc < 0 && !e.msg[0]) abort(); /* an error without a message */
    free(text);
    return 0;
}
