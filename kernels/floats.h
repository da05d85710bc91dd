/* SPDX-License-Identifier: MIT
 * floats.h - block structs of the plain types: one element is one block. */
#ifndef GGAUGE_FLOATS_H
#define GGAUGE_FLOATS_H

#include <stdint.h>

struct blk_f32 {
    float v;
};
struct blk_f16 {
    uint16_t v; /* IEEE binary16 */
};
struct blk_bf16 {
    uint16_t v; /* upper half of a binary32 */
};
struct blk_f64 {
    double v;
};
struct blk_i32 {
    int32_t v;
};

#endif
