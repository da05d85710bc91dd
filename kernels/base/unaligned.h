/* SPDX-License-Identifier: MIT
 * unaligned.h - scalars from any address: blocks of a row are aligned to 1, 2 or 4 bytes only. */
#ifndef GGAUGE_UNALIGNED_H
#define GGAUGE_UNALIGNED_H

#include <stdint.h>
#include <string.h>

#include "compiler.h"

ALWAYS_INLINE uint16_t load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE uint32_t load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE int64_t load_i64(const void *p) {
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE float load_f32(const void *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
