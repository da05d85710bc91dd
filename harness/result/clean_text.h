/* SPDX-License-Identifier: MIT
 * clean_text.h - text for files that have to be UTF-8: result rows, JSON, XML. Names of files and
 * what other programs print are any bytes. */
#ifndef GGAUGE_CLEAN_TEXT_H
#define GGAUGE_CLEAN_TEXT_H

#include <stddef.h>

#include "base/err.h"

/* n bytes into at most `cap` bytes of UTF-8 with the NUL, cut between characters: a byte that is
 * part of no character becomes U+FFFD. Returns the length without a cut; cap may be 0. `to` and
 * `from` do not overlap. */
size_t clean_text(char *to, size_t cap, const char *from, size_t n);

/* The same on the heap, to be released with heap_free; NULL: no memory. */
char *clean_text_dup(const char *from, size_t n, struct err *e);

#endif
