/* SPDX-License-Identifier: MIT
 * peak_cell.h - the third table: loops that do one kind of work and nothing else, as fast as a
 * column can.
 *
 * What they reach is the peak that speeds of real cells are compared with (harness/measure/peak.c).
 * PEAK_LIST is the only registration. Y = the column has its own loop, a constant named
 * peak_<name>_<column> of struct peak_cell in kernels/<column>/peak_<column>.c; _ = the parent
 * column of BACKEND_LIST serves.
 *
 *   f32   multiply-adds of binary32 to binary32
 *   i8    products of two signed bytes (one may be unsigned), summed exactly in int32
 *   bf16  products of two bfloat16, summed in binary32
 *   read  bytes of memory read from front to back */
#ifndef GGAUGE_PEAK_CELL_H
#define GGAUGE_PEAK_CELL_H

#include <stddef.h>
#include <stdint.h>

/*    name  ref avx2 avx512 amx requant cuda */
#define PEAK_LIST(X)                                                                               \
    X(f32,  _, Y, Y, _, _, _)                                                                      \
    X(i8,   _, Y, Y, Y, _, _)                                                                      \
    X(bf16, _, _, _, Y, _, _)                                                                      \
    X(read, Y, Y, Y, _, _, _)

enum peak {
#define X(name, ...) PEAK_##name,
    PEAK_LIST(X)
#undef X
    PEAK_count,
};

/* One of the two is set. Thread safe; each thread of a team makes its own calls. */
struct peak_cell {
    /* Do `turns` turns of the loop, `macs` multiply-adds of 1 * 1 each, and return the sum of all:
     * macs * turns, as long as the sums of the loop can hold it (some 2^20 turns). */
    int64_t macs;
    double (*compute)(int64_t turns);
    /* Read n bytes, a multiple of 4096, at a 64-byte aligned address; returns something that
     * depends on all of them. */
    uint64_t (*read)(const void *p, size_t n_bytes);
};

const char *peak_name(enum peak p);

#endif
