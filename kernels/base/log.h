/* SPDX-License-Identifier: MIT
 * log.h - messages from library code to whoever runs it.
 *
 * Library code never prints; it calls log_msg(), which hands the text to the installed hook.
 * Without a hook messages are dropped. The hook is set once, before any thread starts. */
#ifndef GGAUGE_LOG_H
#define GGAUGE_LOG_H

#include "compiler.h"

enum log_level { LOG_INFO, LOG_WARN };

typedef void (*log_fn)(enum log_level level, const char *msg);

void log_set_hook(log_fn fn);

/* One line without its newline. Safe from any thread if the hook is. */
void log_msg(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
