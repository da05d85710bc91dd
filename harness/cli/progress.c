/* SPDX-License-Identifier: MIT
 * progress.c - the progress line; see progress.h. Escape sequences are those of ECMA-48 and the DEC
 * VT100: J wipes from the cursor on, D and M move down and up and scroll, 7 and 8 keep the cursor.
 */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/timer.h"

void progress_start(struct progress *p, const char *what, int64_t total, int64_t first) {
    const char *term = getenv("TERM");
    *p = (struct progress){ .what = what, .total = total, .first = first, .done = first };
    p->on = isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb");
    p->below = isatty(STDOUT_FILENO);
    p->t_start = timer_s();
}

void progress_duration(char *buf, size_t n, double seconds) {
    int64_t s = seconds > 0 ? (int64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(buf, n, "%" PRId64 " h %02d min", s / 3600, (int)(s % 3600 / 60));
    else if (s >= 60)
        snprintf(buf, n, "%d min %02d s", (int)(s / 60), (int)(s % 60));
    else
        snprintf(buf, n, "%d s", (int)s);
}

void progress_update(struct progress *p, int64_t done) {
    p->done = done;
    if (!p->on || done <= p->first) return;
    double each = (timer_s() - p->t_start) / (double)(done - p->first);
    char left[64], text[320];
    progress_duration(left, sizeof left, each * (double)(p->total - done));
    snprintf(text, sizeof text, "%s %" PRId64 " of %" PRId64 ", %.2f s each, %s left%s", p->what,
             done, p->total, each, left, p->note);
    if (p->below)
        fprintf(stderr, "\033[J\033D\033M\0337\r\n%s\0338", text);
    else
        fprintf(stderr, "\r%s\033[K", text);
    fflush(stderr);
    p->drawn = true;
}

void progress_clear(struct progress *p) {
    if (!p->drawn) return;
    p->drawn = false;
    fputs(p->below ? "\033[J" : "\r\033[K", stderr);
    fflush(stderr);
}
