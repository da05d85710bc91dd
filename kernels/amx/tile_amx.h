/* SPDX-License-Identifier: MIT
 * tile_amx.h - the state of the tile registers.
 *
 * Every cell of the column uses one configuration: eight tiles of 16 rows of 64 bytes. The table is
 * a constant, because the intrinsic does not tell every compiler that it reads memory: stores into
 * a table of its own can vanish, and the first use of a tile then kills the process. */
#ifndef GGAUGE_TILE_AMX_H
#define GGAUGE_TILE_AMX_H

#include <immintrin.h>
#include <stdint.h>

#include "base/compiler.h"

struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

/* The same trap with the loads of tiles: put this between the last store to memory and the first
 * tile load from it. */
#define TILES_SEE_MEMORY() COMPILER_BARRIER()

/* Set up this thread's tiles; they are zero. */
static inline void tiles_begin(void) {
    static const struct tile_config config = {
        .palette = 1,
        .bytes_per_row = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
    };
    _tile_loadconfig(&config);
}

/* Give the state up, so that the kernel need not save it when the thread is switched out. */
static inline void tiles_end(void) {
    _tile_release();
}

#endif
