/* SPDX-License-Identifier: MIT
 * halves.cuh - activations as binary16 for products of many tokens on tensor cores (gemm_half.cuh).
 *
 * They are first rounded to integers as q8_2_x4 (act.h), as for every other product with quantised
 * weights, and what an integer stands for then to binary16, after a power of two was taken out of
 * the row: relative errors of 2^-12 at most, but for elements below 2^-28 of the row's largest.
 *
 * Layout: stages of 64 elements, those of all tokens after each other, [n / 64, n_tok, 64]; stage s
 * of a block of 256 has its elements 32 s .. 32 s + 31 and those 128 behind them; so what a tile
 * reads of consecutive tokens is in one piece, and lies in shared memory as it lies here. Within
 * the 128 bytes of a token, 16 bytes at position c are at c ^ (token % 8), which tensor cores want
 * against bank conflicts; and each 32 elements are in the order in which lanes hold weights
 * (decode_half.h): element 8 t + 4 s + 2 h + j is number 16 s + 8 h + 2 t + j. */
#ifndef GGAUGE_HALVES_CUH
#define GGAUGE_HALVES_CUH

#include "cuda/device.cuh"

#define HALVES_MOST 256 /* tokens of a tile at most: so many can be read behind the last */

size_t halves_bytes(int64_t n_tok, int64_t n);
/* Of x, in the scratch memory of quantised activations. */
int halves_make(struct cuda_device *d, const struct dtensor *x, struct halves *out, struct err *e);

#endif
