/* SPDX-License-Identifier: MIT
 * peak_amx.c - peaks of AMX: tile products of bytes and of bfloat16; see peak_cell.h.
 *
 * Four result tiles, two of each factor, as a GEMM has them: a product takes 16 cycles and its
 * result 52, so four in flight are what the unit can hold. */
#include <string.h>

#include "base/compiler.h"
#include "peak_cell.h"
#include "tile_amx.h"

/* Tiles 0..3 are results of 0, 4..7 factors with `ones` in every element. */
static void begin(const void *ones) {
    tiles_begin();
    TILE_LOAD(4, ones, 64);
    TILE_LOAD(5, ones, 64);
    TILE_LOAD(6, ones, 64);
    TILE_LOAD(7, ones, 64);
}

/* out: four tiles */
static void end(char *out) {
    TILE_STORE(0, out, 64);
    TILE_STORE(1, out + TILE_BYTES, 64);
    TILE_STORE(2, out + 2 * TILE_BYTES, 64);
    TILE_STORE(3, out + 3 * TILE_BYTES, 64);
    tiles_end();
}

static double i8_turns(int64_t turns) {
    int8_t ones[TILE_BYTES];
    int32_t out[4 * TILE_BYTES / sizeof(int32_t)];
    double sum = 0;
    memset(ones, 1, sizeof ones);
    begin(ones);
    for (int64_t t = 0; t < turns; t++) {
        TILE_PRODUCT_I8(0, 4, 6);
        TILE_PRODUCT_I8(1, 4, 7);
        TILE_PRODUCT_I8(2, 5, 6);
        TILE_PRODUCT_I8(3, 5, 7);
    }
    end((char *)out);
    for (size_t i = 0; i < N_ELEMS(out); i++)
        sum += (double)out[i];
    return sum;
}

static double bf16_turns(int64_t turns) {
    uint16_t ones[TILE_BYTES / sizeof(uint16_t)];
    float out[4 * TILE_BYTES / sizeof(float)];
    double sum = 0;
    for (size_t i = 0; i < N_ELEMS(ones); i++)
        ones[i] = 0x3f80; /* bf16 1 */
    begin(ones);
    for (int64_t t = 0; t < turns; t++) {
        TILE_PRODUCT(0, 4, 6);
        TILE_PRODUCT(1, 4, 7);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    end((char *)out);
    for (size_t i = 0; i < N_ELEMS(out); i++)
        sum += (double)out[i];
    return sum;
}

/* Multiply-adds of a tile product: 16 x 16 results, each over a row of 64 bytes. */
const struct peak_cell peak_i8_amx = { .macs = 4 * 16 * 16 * 64, .compute = i8_turns };
const struct peak_cell peak_bf16_amx = { .macs = 4 * 16 * 16 * 32, .compute = bf16_turns };
