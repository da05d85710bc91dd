/* SPDX-License-Identifier: MIT
 * pretok.h - cuts text into the pieces inside which byte-level BPE merges.
 *
 * Each pre-tokenizer (`tokenizer.ggml.pre`) is a list of the model's own regular expressions. Each
 * is applied in turn to the pieces left by the one before: a match is a piece, and so is the text
 * between matches; nothing is lost. */
#ifndef GGAUGE_PRETOK_H
#define GGAUGE_PRETOK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct pretok;

/* Compile the expressions of the pre-tokenizer of this name (n bytes). */
int pretok_new(struct pretok **out, const char *name, size_t n, struct err *e);
void pretok_free(struct pretok *p); /* NULL is allowed */

/* What else the name implies. */
bool pretok_ignore_merges(const struct pretok *p); /* a piece that is a token is never merged */
bool pretok_add_bos(const struct pretok *p);       /* if the file does not say */

/* One thread's state for splitting; its result is valid until the next call with it. */
struct pretok_run;

int pretok_run_new(struct pretok_run **out, struct err *e);
void pretok_run_free(struct pretok_run *r); /* NULL is allowed */

/* Cut n bytes of valid UTF-8: piece i is [end[i - 1], end[i]), the first one begins at 0. */
int pretok_split(const struct pretok *p, struct pretok_run *r, const char *text, size_t n,
                 const size_t **end, size_t *n_end, struct err *e);

#endif
