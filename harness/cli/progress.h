/* SPDX-License-Identifier: MIT
 * progress.h - a line on stderr that says how far a run is and how long it will still take.
 *
 * It is drawn only when stderr is a terminal. When stdout is the same terminal and holds an
 * unfinished line of results, the progress line stands one row below it and is wiped before more is
 * printed. */
#ifndef GGAUGE_PROGRESS_H
#define GGAUGE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    const char *what; /* "chunk" */
    int64_t total, first, done;
    double t_start;
    bool on, below; /* drawing; one row below stdout's line */
    bool drawn;
    char note[128]; /* shown behind the remaining time; may change before every update */
};

/* first: items that were done before the clock starts. */
void progress_start(struct progress *p, const char *what, int64_t total, int64_t first);
/* After item number `done` (1-based count) and after stdout was flushed. */
void progress_update(struct progress *p, int64_t done);
/* Wipe the line; before anything else is printed. Harmless if none was drawn. */
void progress_clear(struct progress *p);

/* "1 h 02 min", "3 min 20 s" or "45 s"; buf of n bytes. */
void progress_duration(char *buf, size_t n, double seconds);

#endif
