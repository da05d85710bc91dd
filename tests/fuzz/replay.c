/* SPDX-License-Identifier: MIT
 * replay.c - runs a fuzz target without a fuzzer: every file of its corpus, and seeded mutations of
 * each. Linked with one fuzz_<target>.c; usage: replay CORPUS_DIR. Prints TAP on stderr, since a
 * target may close stdout.
 *
 * `make fuzz` searches with libFuzzer; this keeps what it found from coming back. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define MUTATIONS 50 /* of each file */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint8_t *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *data = size >= 0 ? malloc((size_t)size + 1) : NULL;
    *n = data ? fread(data, 1, (size_t)size, f) : 0;
    fclose(f);
    return data;
}

/* A few flipped bytes or a cut, in an allocation of the exact size so that sanitizers see overruns.
 */
static void run_mutated(const uint8_t *data, size_t n, struct rng *rng) {
    size_t m = n && rng_below(rng, 4) == 0 ? rng_below(rng, (uint32_t)n) : n;
    uint8_t *copy = malloc(m ? m : 1);
    if (!copy) return;
    if (m) memcpy(copy, data, m);
    for (uint32_t k = rng_below(rng, 8); m && k > 0; k--)
        copy[rng_below(rng, (uint32_t)m)] = (uint8_t)rng_u64(rng);
    LLVMFuzzerTestOneInput(copy, m);
    free(copy);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: replay CORPUS_DIR\n");
        return 2;
    }
    char root[PATH_MAX]; /* absolute: a target may change its folder */
    DIR *dir = realpath(argv[1], root) ? opendir(root) : NULL;
    if (!dir) {
        fprintf(stderr, "not ok - corpus %s cannot be opened\n", argv[1]);
        return 1;
    }
    struct rng rng = { 1 };
    int n_files = 0;
    for (struct dirent *d; (d = readdir(dir));) {
        if (d->d_name[0] == '.') continue;
        char path[PATH_MAX + 300];
        snprintf(path, sizeof path, "%s/%s", root, d->d_name);
        size_t n;
        uint8_t *data = read_file(path, &n);
        if (!data) continue;
        fprintf(stderr, "# %s\n", path); /* the last one printed is the one that crashed */
        LLVMFuzzerTestOneInput(data, n);
        for (int i = 0; i < MUTATIONS; i++)
            run_mutated(data, n, &rng);
        free(data);
        n_files++;
    }
    closedir(dir);
    fprintf(stderr, "%sok - %d files of %s and %d mutations of each\n", n_files ? "" : "not ",
            n_files, argv[1], MUTATIONS);
    return n_files ? 0 : 1;
}
