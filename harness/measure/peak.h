/* SPDX-License-Identifier: MIT
 * peak.h - what this machine can do at best, measured on the spot with the loops of
 * kernels/peak_cell.h: the roof that speeds of kernels are compared with.
 *
 * A peak is the best of many short samples: other work on the machine can only make it smaller.
 * Values are measured when they are first asked for and kept. Not thread safe. */
#ifndef GGAUGE_PEAK_H
#define GGAUGE_PEAK_H

#include "backend.h"

#define PEAKS_MAX 256 /* different values that are kept */

struct peak_value {
    enum column col;
    enum peak peak;
    int n_threads;
    size_t n_bytes; /* 0 of a compute peak */
    double value;
};

struct peaks {
    struct thread_pool *pool; /* borrowed */
    void *memory;             /* borrowed; 64-byte aligned, written before: else reads are free */
    size_t memory_bytes;
    double seconds; /* for each measurement */
    struct peak_value known[PEAKS_MAX];
    int n_known;
};

/* The size of the last cache in bytes, 0 if the system does not tell. */
size_t peak_cache_bytes(void);
/* Bytes through which cold data rotate: twice the last cache, at least 64 MiB, at most 1 GiB and
 * half of the memory that is available. */
size_t peak_cold_bytes(void);

/* G multiply-adds a second of all threads together in column c or its nearest parent that has such
 * a loop; 0 if there is none. p is not PEAK_read. */
double peak_gmacs(struct peaks *s, enum column c, enum peak p, int n_threads);
/* GB/s of reading n_bytes over and over on all threads: of all of `memory` if n_bytes is that
 * large, else of the next power of two, which a cache may hold. */
double peak_gbs(struct peaks *s, enum column c, size_t n_bytes, int n_threads);

#endif
