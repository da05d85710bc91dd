/* SPDX-License-Identifier: MIT
 * utf8.h - UTF-8: valid or not, and how long is a character. */
#ifndef GGAUGE_UTF8_H
#define GGAUGE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Bytes of the character at s (1..4), or 0 if no well-formed one begins there within n bytes:
 * overlong forms, surrogates and anything above U+10FFFF are not well formed. n > 0. */
int utf8_char(const char *s, size_t n);

bool utf8_valid(const char *s, size_t n);

/* n bytes into at most `cap` bytes of UTF-8 with the NUL, cut between characters: a byte that
 * belongs to no well-formed character becomes U+FFFD. Returns the length without a cut: 3 * n + 1
 * bytes are always enough, and cap may be 0. `to` and `from` do not overlap. */
size_t utf8_repair(char *to, size_t cap, const char *from, size_t n);

/* The same on the heap, to be released with heap_free; NULL: no memory. */
char *utf8_repair_dup(const char *from, size_t n, struct err *e);

/* Write cp (a valid code point) to dst; returns its 1 to 4 bytes. */
int utf8_put(uint32_t cp, char dst[4]);

/* The length that the lead byte announces, 1 for continuation bytes, at most n: how SPM cuts text
 * into characters, whatever it contains. */
static inline size_t utf8_lead_length(const char *s, size_t n) {
    static const uint8_t length[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };
    size_t k = length[(unsigned char)s[0] >> 4];
    return k < n ? k : n;
}

#endif
