/* SPDX-License-Identifier: MIT
 * child.h - the process of a worker: started, asked how it is, ended. It inherits the standard
 * error and the environment; its standard input and output are ours. */
#ifndef GGAUGE_CHILD_H
#define GGAUGE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct child {
    pid_t pid;     /* 0 = none */
    int in, out;   /* its input and its output: O_NONBLOCK, closed on exec; -1 = closed */
    bool reaped;
    int status;    /* of waitpid, if reaped; -1 if nobody knows */
};

/* Start `launch` words, `program` and "worker". launch is split at blanks, '...' keeps them; no
 * shell is asked. program = NULL is the program that runs. ERR_ARM if the first word cannot be
 * run. */
int child_start(struct child *c, const char *launch, const char *program, struct err *e);

/* Wait up to wait_ms for its end. */
bool child_ended(struct child *c, int wait_ms);
/* "signal 11", "exit code 3"; c has ended. */
void child_how(const struct child *c, char *buf, size_t n);
/* 'R', 'S', 'T' ... as /proc says; '?' if it says nothing. */
char child_state(const struct child *c);
/* Processor time that it has used, all threads together, in seconds; 0 if unknown. */
double child_cpu_s(const struct child *c);

/* Close its input, which ends a worker; what does not end gets SIGTERM and then SIGKILL. Leaves no
 * zombie. At most a few seconds. */
void child_stop(struct child *c);

#endif
