/* SPDX-License-Identifier: MIT
 * cmd_worker.c - our engine as the arm of another process, which has started this one and speaks to
 * it through pipes; see arm/serve.h. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "arm/serve.h"
#include "cli/cmd.h"
#include "cli/opt.h"

int cmd_worker(int argc, char **argv, struct err *e) {
    const struct opt table[] = { OPT_END };
    int rc = opt_parse(argc, argv, table, "worker   (started by an arm \"worker:PROGRAM ...\")", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    if (isatty(STDIN_FILENO))
        return ERR(e, ERR_ARG,
                   "worker speaks a protocol of its own on its standard input and "
                   "output; other commands start it");
    signal(SIGPIPE, SIG_DFL); /* who started this has gone: so does this */
    rc = arm_serve_stdio(arm_open, e);
    return rc < 0 ? rc : EXIT_PASS;
}
