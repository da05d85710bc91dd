/* SPDX-License-Identifier: MIT
 * clean_text.c - any bytes as UTF-8; see clean_text.h. */
#include "result/clean_text.h"

#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"

size_t clean_text(char *to, size_t cap, const char *from, size_t n) {
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

char *clean_text_dup(const char *from, size_t n, struct err *e) {
    const size_t cap = clean_text(NULL, 0, from, n) + 1;
    char *to = heap_alloc(cap, e);
    if (to) clean_text(to, cap, from, n);
    return to;
}
