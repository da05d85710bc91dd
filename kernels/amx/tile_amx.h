/* SPDX-License-Identifier: MIT
 * tile_amx.h - the state of the tile registers, and the instructions on them.
 *
 * Most cells use one configuration: eight tiles of 16 rows of 64 bytes. The table is
 * a constant, because the intrinsic does not tell every compiler that it reads memory: stores into
 * a table of its own can vanish, and the first use of a tile then kills the process.
 *
 * What the kernels of this folder are built on, measured on Sapphire Rapids:
 *   - a product begins every 16 cycles and takes 52, so four sums are enough to keep the unit busy;
 *   - a load takes 8 cycles of the ports, a store 16, and neither holds up products as long as what
 *     they touch is in the first level cache;
 *   - about 13 loads and products may be on the way; the next waits until the oldest retires. Other
 *     work hides behind products only if it comes a little after each, not in one piece after many;
 *   - beside products, vector instructions of the multiply-add unit find one port instead of two,
 *     integer ones both;
 *   - tileloaddt1 reads from the second level cache at 49 bytes a cycle and leaves the first alone;
 *   - with data that change the clock falls from 3.3 to about 2.7 GHz. */
#ifndef GGAUGE_TILE_AMX_H
#define GGAUGE_TILE_AMX_H

#include <immintrin.h>
#include <stdint.h>

#define TILE_BYTES 1024 /* of a whole one: 16 rows of 64 */

struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

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

/* As tiles_begin, for tiles of m0 (1..16) and m1 (0..16, 0 = unused) rows: m0 in 0, 1 and 4, m1 in
 * 2, 3 and 5; 6 and 7 are whole. */
static inline void tiles_begin_rows(int m0, int m1) {
    struct tile_config s = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        const int m = i == 2 || i == 3 || i == 5 ? m1 : m0;
        s.rows[i] = (uint8_t)(i > 5 ? 16 : m);
        s.bytes_per_row[i] = s.rows[i] ? 64 : 0;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(s) : "memory");
}

/* Instructions that say what they read and write. */
#define TILE_LOAD(t, at, stride)                                                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(at), "r"((int64_t)(stride)) : "memory")
/* The same for what is not needed again soon: it displaces nothing from the first level cache. */
#define TILE_LOAD_ONCE(t, at, stride)                                                              \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t ::"r"(at), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(t, at, stride)                                                                  \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(at), "r"((int64_t)(stride))         \
                     : "memory")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t ::)
/* sums += rows of bf16 x pairs of bf16, and rows of bytes x quads of bytes, all signed */
#define TILE_PRODUCT(sum, a, b)                                                                    \
    __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)
#define TILE_PRODUCT_I8(sum, a, b)                                                                 \
    __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

#endif
