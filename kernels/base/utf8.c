/* SPDX-License-Identifier: MIT
 * utf8.c - well-formed UTF-8; see utf8.h. Source: The Unicode Standard 15, table 3-7. */
#include "utf8.h"

#include <string.h>

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

size_t utf8_repair(const char *s, size_t n, char *dst) {
    size_t out = 0;
    for (size_t i = 0; i < n;) {
        int k = utf8_char(s + i, n - i);
        memcpy(dst + out, k ? s + i : "\xEF\xBF\xBD", k ? (size_t)k : 3);
        out += k ? (size_t)k : 3;
        i += k ? (size_t)k : 1;
    }
    return out;
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
