/* SPDX-License-Identifier: MIT
 * read_file.h - a whole file of golden vectors. */
#ifndef GGAUGE_TEST_READ_FILE_H
#define GGAUGE_TEST_READ_FILE_H

#include <stdio.h>
#include <stdlib.h>

/* The file at dir, stem and suffix, one behind the other, or NULL if there is none. The caller
 * frees. */
static inline void *read_file(const char *dir, const char *stem, const char *suffix, size_t *size) {
    char path[256];
    snprintf(path, sizeof path, "%s%s%s", dir, stem, suffix);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    void *p = malloc(*size + 1);
    if (!p || fread(p, 1, *size, f) != *size) fail_msg("cannot read %s", path);
    fclose(f);
    return p;
}

#endif
