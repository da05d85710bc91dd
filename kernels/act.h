/* SPDX-License-Identifier: MIT
 * act.h - layouts of activation types: what a row of activations becomes before it meets quantised
 * weights. They live in memory only and never in a file.
 *
 * q8_2_x4: blocks of 32 values, packed in groups of four:
 *   D = bf16(amax / 127), q = round to nearest even of x * (1 / D), clamped to int8, s = sum of q.
 *   A group holds D[4], s[4], then 4 x 32 values. A tail of fewer than four blocks at the end of a
 *   row is stored as single q8_2 blocks. Source: ik_llama.cpp 8337e4cd, x86 variant.
 *
 * q8_k_tile: blocks of 256 values; two share a scale, and the last of an odd number has its own:
 *   d = amax / 127 in binary32, q = round to nearest even of x * (1 / d), in -127..127.
 *   A block is a multiple of 64 bytes, as the rows of tiles want it. Ours. */
#ifndef GGAUGE_ACT_H
#define GGAUGE_ACT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define QK_Q8_2 32
#define QK_Q8_K 256
#define Q8_K_BLOCKS 2 /* that share a scale */

struct blk_q8_2 {
    uint16_t d; /* bf16 */
    int16_t s;
    int8_t qs[32];
};
struct blk_q8_2_x4 { /* 128 values */
    uint16_t d[4];
    int16_t s[4];
    int8_t qs[128];
};
struct blk_q8_k_tile {
    int8_t qs[QK_Q8_K];
    float d;
    uint8_t rest[60]; /* zeros */
};

static_assert(sizeof(struct blk_q8_2) == 36, "q8_2");
static_assert(sizeof(struct blk_q8_2_x4) == 4 * sizeof(struct blk_q8_2), "q8_2_x4");
static_assert(sizeof(struct blk_q8_k_tile) == 5 * 64, "q8_k_tile");

/* Block b of a q8_2_x4 row of n_blocks blocks. */
struct q8_2_view {
    uint16_t d;
    int16_t s;
    const int8_t *qs; /* [32] */
};

static inline struct q8_2_view q8_2_x4_block(const void *row, int64_t b, int64_t n_blocks) {
    if (b / 4 < n_blocks / 4) {
        const struct blk_q8_2_x4 *g = (const struct blk_q8_2_x4 *)row + b / 4;
        return (struct q8_2_view){ g->d[b % 4], g->s[b % 4], g->qs + 32 * (b % 4) };
    }
    const struct blk_q8_2 *t = (const struct blk_q8_2 *)row + b; /* same bytes per block */
    return (struct q8_2_view){ t->d, t->s, t->qs };
}

#endif
