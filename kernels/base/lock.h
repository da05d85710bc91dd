/* SPDX-License-Identifier: MIT
 * lock.h - whose a file is: one writer at a time, and none of another kind written over. */
#ifndef GGAUGE_LOCK_H
#define GGAUGE_LOCK_H

#include "err.h"

/* The open file, or folder, belongs to this process until fd is closed: an advisory lock, where the
 * file system knows locks. ERR_IO if another run has it. Pipes and devices are everybody's. */
int file_lock(int fd, const char *path, struct err *e);

/* ERR_ARG unless what is at path is empty, not there, no regular file, or begins with `start` as
 * far as it goes: else it is somebody's model or text, named here by mistake. `what` is what we
 * would write: "limits". */
int file_may_hold(const char *path, const char *start, const char *what, struct err *e);

#endif
