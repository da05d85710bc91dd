/* SPDX-License-Identifier: MIT
 * tool.h - another program run to its end, what it prints handed on as it comes. */
#ifndef GGAUGE_TOOL_H
#define GGAUGE_TOOL_H

#include <stddef.h>

#include "base/err.h"

/* n bytes of its standard output and standard error, in the order written. Negative ends the
 * program. */
typedef int (*tool_text_fn)(void *arg, const char *text, size_t n, struct err *e);

/* Run argv[0] (found as a shell would) with NULL-terminated argv in folder `dir` (NULL: this one),
 * with an empty input. *status is what waitpid gives. `silence_s` without a byte ends it as
 * ERR_ARM; 0 = it may be silent for ever. */
int tool_run(const char *const *argv, const char *dir, int silence_s, tool_text_fn fn, void *arg,
             int *status, struct err *e);
/* "exit code 1", "signal 9". */
void tool_how(int status, char *buf, size_t n);

#endif
