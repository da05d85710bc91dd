/* SPDX-License-Identifier: MIT
 * log.c - the log hook; see log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

static log_fn hook;

void log_set_hook(log_fn fn) {
    hook = fn;
}

void log_msg(enum log_level level, const char *fmt, ...) {
    if (!hook) return;
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    hook(level, buf);
}
