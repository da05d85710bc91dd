/* SPDX-License-Identifier: MIT
 * arch.c - the architectures, made from ARCH_LIST. */
#include "model/arch.h"

#define X(name) extern const struct arch_ops arch_##name;
ARCH_LIST(X)
#undef X

const struct arch_ops *arch_ops(enum arch a) {
    static const struct arch_ops *const all[ARCH_count] = {
#define X(name) &arch_##name,
        ARCH_LIST(X)
#undef X
    };
    return all[a];
}
