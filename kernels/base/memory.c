/* SPDX-License-Identifier: MIT
 * memory.c - how much memory there is to be had; see memory.h. */
#include "memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CGROUP "/sys/fs/cgroup/memory."

/* The number behind `key` at the start of a line. */
static bool number_in(const char *path, const char *key, uint64_t *out) {
    char line[128];
    bool found = false;
    FILE *f = fopen(path, "r");
    if (!f) return false;
    while (!found && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            found = sscanf(line + strlen(key), "%" SCNu64, out) == 1;
    fclose(f);
    return found;
}

/* What is left of the limit of the control group; UINT64_MAX if there is none. */
static uint64_t group_leaves(void) {
    uint64_t limit, used, active = 0, inactive = 0;
    if (!number_in(CGROUP "max", "", &limit)) return UINT64_MAX; /* "max" is no number */
    if (!number_in(CGROUP "current", "", &used)) return UINT64_MAX;
    /* Pages of files count as used, but give way. */
    (void)number_in(CGROUP "stat", "active_file ", &active);
    (void)number_in(CGROUP "stat", "inactive_file ", &inactive);
    const uint64_t files = active + inactive;
    used -= files < used ? files : used;
    return used < limit ? limit - used : 0;
}

static uint64_t pretended; /* by tests */

void memory_pretend(uint64_t n_bytes) {
    pretended = n_bytes;
}

uint64_t memory_available(void) {
    uint64_t kib;
    if (pretended) return pretended;
    if (!number_in("/proc/meminfo", "MemAvailable:", &kib)) return 0;
    const uint64_t group = group_leaves();
    return kib << 10 < group ? kib << 10 : group;
}
