/* SPDX-License-Identifier: MIT
 * clean_text.c - any bytes as UTF-8; see clean_text.h. Source of the grammar: The Unicode Standard
 * 15, table 3-7. */
#include "result/clean_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"

/* Bytes of the character at s, 0 if there is none. tok/utf8.h has the same for tokenizers, which
 * this layer does not know. */
static int char_length(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = p[0];
    if (c < 0x80) return 1;
    const int len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || (size_t)len > n) return 0;
    c &= 0x7fu >> len;
    for (int i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    const bool overlong = (len == 3 && c < 0x800) || (len == 4 && c < 0x10000);
    return overlong || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
}

size_t clean_text(char *to, size_t cap, const char *from, size_t n) {
    static const char bad[] = "\xef\xbf\xbd"; /* U+FFFD */
    size_t n_all = 0, n_kept = 0;
    for (size_t i = 0; i < n;) {
        const int len = char_length(from + i, n - i);
        const size_t n_out = (size_t)(len ? len : 3);
        /* Behind the first character without room none is kept, however short. */
        if (n_kept == n_all && n_all + n_out < cap) {
            memcpy(to + n_all, len ? from + i : bad, n_out);
            n_kept += n_out;
        }
        n_all += n_out;
        i += (size_t)(len ? len : 1);
    }
    if (cap) to[n_kept] = '\0';
    return n_all;
}

char *clean_text_dup(const char *from, size_t n, struct err *e) {
    const size_t cap = clean_text(NULL, 0, from, n) + 1;
    char *to = heap_alloc(cap, e);
    if (to) clean_text(to, cap, from, n);
    return to;
}
