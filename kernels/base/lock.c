/* SPDX-License-Identifier: MIT
 * lock.c - whose a file is; see lock.h. */
#include "lock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

int file_lock(int fd, const char *path, struct err *e) {
    int rc = 0;
    struct stat st;
    if (fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))) return 0;
    FAIL_IF(flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK, e, ERR_IO,
            "%s: is being written by another run", path);
out:
    return rc;
}

int file_may_hold(const char *path, const char *start, const char *what, struct err *e) {
    int rc = 0;
    struct stat st;
    char found[64];
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return 0;
    FILE *f = fopen(path, "re");
    FAIL_IF(!f, e, ERR_IO, "%s: %s", path, strerror(errno));
    size_t n = strlen(start) < sizeof found ? strlen(start) : sizeof found;
    n = fread(found, 1, n, f);
    fclose(f);
    FAIL_IF(memcmp(found, start, n) != 0, e, ERR_ARG,
            "%s: is there already and does not hold %s; it is left alone", path, what);
out:
    return rc;
}
