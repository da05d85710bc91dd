/* SPDX-License-Identifier: MIT
 * emulated.h - lets a test have the cuda column without a card: the plug-in is the one whose
 * kernels run on the host (tests/cuda_emu). Call it before anything asks for the column. And the
 * path of other libraries that are built for tests. */
#ifndef GGAUGE_TEST_EMULATED_H
#define GGAUGE_TEST_EMULATED_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Path of a library of the build folder, whose tests/ the running program is in. */
static inline const char *built_library(const char *file) {
    static char path[PATH_MAX + 64];
    const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n <= 0) return file;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    snprintf(slash, sizeof path - (size_t)(slash - path), "/../%s", file);
    return path;
}

/* A plug-in that the environment names is left alone: so the same tests run on a card. */
static inline void use_emulated_cuda(void) {
    setenv("GGAUGE_CUDA_PLUGIN", built_library("libggauge-cuda-emu.so"), 0);
}

#endif
