/* SPDX-License-Identifier: MIT
 * peak_amx.c - peaks of AMX: tile products of bytes and of bfloat16; see peak_cell.h.
 *
 * Four result tiles, two of each factor, as a GEMM has them: a product takes 16 cycles and its
 * result 52, so four in flight are what the unit can hold.
 *
 * The compiler is told that the tile configuration and the factors are read: the intrinsics of
 * GCC 12 do not say so, and stores that nobody reads are dropped. */
#include <immintrin.h>
#include <string.h>

#include "base/compiler.h"
#include "peak_cell.h"

#define TILES 8
#define ROWS 16
#define ROW_BYTES 64

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Tiles 0..3 are results of 0, 4..7 factors with `ones` in every element. */
static void tiles_begin(const void *ones) {
    _Alignas(64) struct tile_config c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < TILES; i++) {
        c.row_bytes[i] = ROW_BYTES;
        c.rows[i] = ROWS;
    }
    __asm__ volatile("" : : "r"(ones), "m"(c) : "memory");
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, ROW_BYTES);
    _tile_loadd(5, ones, ROW_BYTES);
    _tile_loadd(6, ones, ROW_BYTES);
    _tile_loadd(7, ones, ROW_BYTES);
}

/* out: [4][ROWS][16] of 4 bytes */
static void tiles_end(char *out) {
    _tile_stored(0, out, ROW_BYTES);
    _tile_stored(1, out + ROWS * ROW_BYTES, ROW_BYTES);
    _tile_stored(2, out + 2 * ROWS * ROW_BYTES, ROW_BYTES);
    _tile_stored(3, out + 3 * ROWS * ROW_BYTES, ROW_BYTES);
    _tile_release();
}

static double i8_turns(int64_t turns) {
    int8_t ones[ROWS * ROW_BYTES];
    int32_t out[4 * ROWS * ROW_BYTES / sizeof(int32_t)];
    double sum = 0;
    memset(ones, 1, sizeof ones);
    tiles_begin(ones);
    for (int64_t t = 0; t < turns; t++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    tiles_end((char *)out);
    for (size_t i = 0; i < N_ELEMS(out); i++)
        sum += (double)out[i];
    return sum;
}

static double bf16_turns(int64_t turns) {
    uint16_t ones[ROWS * ROW_BYTES / sizeof(uint16_t)];
    float out[4 * ROWS * ROW_BYTES / sizeof(float)];
    double sum = 0;
    for (size_t i = 0; i < N_ELEMS(ones); i++)
        ones[i] = 0x3f80; /* bf16 1 */
    tiles_begin(ones);
    for (int64_t t = 0; t < turns; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    tiles_end((char *)out);
    for (size_t i = 0; i < N_ELEMS(out); i++)
        sum += (double)out[i];
    return sum;
}

/* Multiply-adds of a tile product: 16 x 16 results, each over a row of 64 bytes. */
const struct peak_cell peak_i8_amx = { .macs = 4 * 16 * 16 * 64, .compute = i8_turns };
const struct peak_cell peak_bf16_amx = { .macs = 4 * 16 * 16 * 32, .compute = bf16_turns };
