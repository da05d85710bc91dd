/* SPDX-License-Identifier: MIT
 * memory.h - how much memory there is to be had. */
#ifndef GGAUGE_MEMORY_H
#define GGAUGE_MEMORY_H

#include <stdint.h>

/* Bytes that this process could fill without anything being swapped out or killed: what the machine
 * has free or could free of its file cache, and no more than its control groups leave of their
 * limits (Linux: /proc/meminfo, cgroup v1 and v2). 0 = unknown. */
uint64_t memory_available(void);

/* Tests only: what memory_available says from now on; 0 = the truth again. */
void memory_pretend(uint64_t n_bytes);

#endif
