/* SPDX-License-Identifier: MIT
 * foreign.h - how far an operation of another engine may be from ref.
 *
 * Nobody has measured these cells on this machine, and their engines have rounded differently since
 * before there was a ref to compare with. So a cell of another engine is judged in three steps:
 *
 *   - Its product is compared with ref for each way in which activations may have been rounded
 *     (foreign_act), and the nearest one counts: an engine that keeps its own promise then differs
 *     by summation order, within the limit of an unmeasured cell (limits.h).
 *   - Beyond it, but within what is known of this engine and type, and rounding by its looks, the
 *     deviation is reported as `known`, with its size. It is no fault.
 *   - Beyond that it is wrong.
 *
 * Source of the known sizes: measurements of ik_llama.cpp 8337e4cd on an AVX-512 machine, relative
 * RMS of a product's error on normal data. */
#ifndef GGAUGE_FOREIGN_H
#define GGAUGE_FOREIGN_H

#include "measure/limits.h"

/* Activation types of the engines: call for k = 0, 1, ... until QT_none. The first is none at
 * all. */
enum qtype foreign_act(int k);

/* "q8_0@ik_llama.cpp", "attn@llama.cpp"; engine: its backend's name. */
void foreign_cell_name(const char *engine, const struct node *n, char *buf, size_t n_bytes);

/* What is known of an operation of this engine: `attention`, or a product with weights of a type
 * (QT_none: neither), by itself or fused with the operation behind it. *limit, and why in a few
 * words. NULL: nothing is. */
const char *foreign_known(const char *engine, bool attention, bool fused, enum qtype weight,
                          struct op_limit *limit);
/* Rounding goes either way, so that the factor between what was computed and what should have been
 * is 1. A kernel that loses something, or scales it, makes another. */
bool foreign_only_rounds(const struct op_error *s);

#endif
