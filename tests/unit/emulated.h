/* SPDX-License-Identifier: MIT
 * emulated.h - lets a test have the cuda column without a card: the plug-in is the one whose kernels
 * run on the host (tests/cuda_emu). Call it before anything asks for the column. */
#ifndef GGAUGE_TEST_EMULATED_H
#define GGAUGE_TEST_EMULATED_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A plug-in that the environment names is left alone: so the same tests run on a card. */
static inline void use_emulated_cuda(void) {
    char path[PATH_MAX + 64];
    const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n <= 0) return;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    snprintf(slash, sizeof path - (size_t)(slash - path), "/../libggauge-cuda-emu.so");
    setenv("GGAUGE_CUDA_PLUGIN", path, 0);
}

#endif
