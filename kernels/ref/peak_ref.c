/* SPDX-License-Identifier: MIT
 * peak_ref.c - peaks of plain C: reading; see peak_cell.h. There is no compute peak of scalar
 * double arithmetic: ref is a definition and is compared with nothing. */
#include "peak_cell.h"

static uint64_t read_bytes(const void *p, size_t n_bytes) {
    const uint64_t *v = p;
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (size_t i = 0; i < n_bytes / sizeof *v; i += 4)
        s0 += v[i], s1 += v[i + 1], s2 += v[i + 2], s3 += v[i + 3];
    return s0 + s1 + s2 + s3;
}

const struct peak_cell peak_read_ref = { .read = read_bytes };
