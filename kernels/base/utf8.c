/* SPDX-License-Identifier: MIT
 * utf8.c - well-formed UTF-8; see utf8.h. Source: The Unicode Standard 15, table 3-7. */
#include "utf8.h"

#include <string.h>

#include "arena.h"

int utf8_char(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xBF; /* of the second byte */
    int k;
    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    k = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < (size_t)k) return 0;
    switch (p[0]) {
    case 0xE0: low = 0xA0; break;
    case 0xED: high = 0x9F; break;
    case 0xF0: low = 0x90; break;
    case 0xF4: high = 0x8F; break;
    default: break;
    }
    if (p[1] < low || p[1] > high) return 0;
    for (int i = 2; i < k; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return k;
}

bool utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        int k = utf8_char(s + i, n - i);
        if (!k) return false;
        i += (size_t)k;
    }
    return true;
}

size_t utf8_repair(char *to, size_t cap, const char *from, size_t n) {
    static const char bad[] = "\xef\xbf\xbd"; /* U+FFFD */
    size_t n_all = 0, n_kept = 0;
    for (size_t i = 0; i < n;) {
        const int len = utf8_char(from + i, n - i);
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

char *utf8_repair_dup(const char *from, size_t n, struct err *e) {
    const size_t cap = utf8_repair(NULL, 0, from, n) + 1;
    char *to = heap_alloc(cap, e);
    if (to) utf8_repair(to, cap, from, n);
    return to;
}

int utf8_put(uint32_t cp, char dst[4]) {
    if (cp < 0x80) {
        dst[0] = (char)cp;
        return 1;
    }
    int k = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = k - 1; i > 0; i--, cp >>= 6)
        dst[i] = (char)(0x80 | (cp & 0x3F));
    dst[0] = (char)((0xF00 >> k & 0xF0) | cp);
    return k;
}
