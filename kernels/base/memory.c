/* SPDX-License-Identifier: MIT
 * memory.c - how much memory there is to be had; see memory.h. */
#include "memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

/* Files of a control group's folder, and keys of its memory.stat. */
struct group_files {
    const char *root, *limit, *used, *active, *inactive;
};

static const struct group_files cgroup_v1 = { "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                              "memory.usage_in_bytes", "total_active_file ",
                                              "total_inactive_file " };
static const struct group_files cgroup_v2 = { "/sys/fs/cgroup", "memory.max", "memory.current",
                                              "active_file ", "inactive_file " };

/* What is left of one group's limit; UINT64_MAX if it has none. */
static uint64_t group_leaves(const struct group_files *f, const char *path) {
    char limit_in[PATH_MAX], used_in[PATH_MAX], stat_in[PATH_MAX];
    uint64_t limit, used, active = 0, inactive = 0;
    if (snprintf(limit_in, PATH_MAX, "%s%s/%s", f->root, path, f->limit) >= PATH_MAX ||
        snprintf(used_in, PATH_MAX, "%s%s/%s", f->root, path, f->used) >= PATH_MAX ||
        snprintf(stat_in, PATH_MAX, "%s%s/memory.stat", f->root, path) >= PATH_MAX ||
        !number_in(limit_in, "", &limit) || /* "max" is no number */
        !number_in(used_in, "", &used))
        return UINT64_MAX;
    /* Pages of files count as used, but give way. */
    (void)number_in(stat_in, f->active, &active);
    (void)number_in(stat_in, f->inactive, &inactive);
    const uint64_t files = active + inactive;
    used -= files < used ? files : used;
    return used < limit ? limit - used : 0;
}

/* The group of this process that counts its memory: its files, and its path to path [PATH_MAX]. */
static const struct group_files *own_group(char *path) {
    const struct group_files *found = NULL;
    char line[PATH_MAX];
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f) return NULL;
    while (found != &cgroup_v1 && fgets(line, sizeof line, f)) { /* "4:memory:/a/b", "0::/a/b" */
        char *names = strchr(line, ':'), *at = names ? strchr(names + 1, ':') : NULL;
        if (!at) continue;
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        const char *memory = strstr(names, "memory");
        if (memory)
            found = &cgroup_v1;
        else if (names[1] == '\0')
            found = &cgroup_v2;
        else
            continue;
        snprintf(path, PATH_MAX, "%s", at);
    }
    fclose(f);
    return found;
}

/* The least that this process's groups leave, from its own to the outermost. In a container the
 * path may be one that only the host sees: its root is the container's group. */
static uint64_t groups_leave(void) {
    char path[PATH_MAX];
    uint64_t least = UINT64_MAX;
    const struct group_files *f = own_group(path);
    if (!f) return least;
    for (;;) {
        const uint64_t n = group_leaves(f, path);
        if (n < least) least = n;
        char *end = strrchr(path, '/');
        if (!end) return least;
        *end = '\0';
    }
}

static uint64_t pretended; /* by tests */

void memory_pretend(uint64_t n_bytes) {
    pretended = n_bytes;
}

uint64_t memory_available(void) {
    uint64_t kib;
    if (pretended) return pretended;
    if (!number_in("/proc/meminfo", "MemAvailable:", &kib)) return 0;
    const uint64_t group = groups_leave(), n = kib << 10 < group ? kib << 10 : group;
    return n ? n : 1; /* 0 would be unknown */
}
