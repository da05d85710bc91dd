/* SPDX-License-Identifier: MIT
 * retype.h - a model with its float matrices in another simple type, by rounding to nearest: gives
 * cells of types that no model at hand has real weights to be measured on. Not a quantiser for use:
 * it makes no attempt at a small error. */
#ifndef GGAUGE_RETYPE_H
#define GGAUGE_RETYPE_H

#include "gguf/gguf.h"

/* f32, bf16, q4_1, q5_0, q5_1, q6_0. */
bool retype_knows(enum qtype t);
/* Write `path`: the model with every f16 matrix (two dimensions) of rows that fit in type t. */
int retype_model(const struct gguf *g, enum qtype t, const char *path, struct err *e);

#endif
