/* SPDX-License-Identifier: MIT
 * fault.c - the catalogue of seeded faults and the one that is active; see fault.h. Empty in a
 * build without faults. */
#include "base/fault.h"

#ifdef GGAUGE_FAULTS

#include <stddef.h>
#include <string.h>

struct fault_run fault_now;

const struct fault_info *fault_info(enum fault f) {
    static const struct fault_info infos[FAULT_count] = {
#define X(name, ...) [FAULT_##name] = { #name, __VA_ARGS__ },
        FAULT_LIST(X)
#undef X
    };
    return f > FAULT_none && f < FAULT_count ? &infos[f] : NULL;
}

const struct fault_shown *fault_on_cuda(enum fault f) {
    static const struct fault_shown shown[FAULT_count] = {
#define X(name, ...) [FAULT_##name] = { __VA_ARGS__ },
        FAULT_CUDA_LIST(X)
#undef X
    };
    return f > FAULT_none && f < FAULT_count && shown[f].options ? &shown[f] : NULL;
}

enum fault fault_from_name(const char *name) {
    const struct fault_info *i;
    for (int f = FAULT_none + 1; (i = fault_info((enum fault)f)); f++)
        if (!strcmp(i->name, name)) return (enum fault)f;
    return FAULT_none;
}

#endif
