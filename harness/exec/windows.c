/* SPDX-License-Identifier: MIT
 * windows.c - cutting a text into windows; see windows.h. */
#include "exec/windows.h"

#include <inttypes.h>

int windows_plain(struct windows *w, int64_t n_tokens, int n_ctx, int64_t limit, struct err *e) {
    int rc = 0;
    *w = (struct windows){ 0 };
    FAIL_IF(n_ctx < 3, e, ERR_ARG, "a context of %d scores nothing; 3 is the least", n_ctx);
    FAIL_IF(n_tokens < 2 * (int64_t)n_ctx, e, ERR_ARG,
            "you need at least %" PRId64 " tokens for a context of %d (-c); the text has %" PRId64,
            2 * (int64_t)n_ctx, n_ctx, n_tokens);
    w->n_ctx = n_ctx;
    w->step = n_ctx;
    w->first = n_ctx / 2;
    w->end = n_ctx - 1;
    w->n = n_tokens / n_ctx;
    if (limit >= 0 && limit < w->n) w->n = limit;
    FAIL_IF(w->n < 1, e, ERR_ARG, "0 chunks (--chunks) leave nothing to evaluate");
out:
    return rc;
}

int windows_strided(struct windows *w, int64_t n_tokens, int n_ctx, int stride, int64_t limit,
                    struct err *e) {
    int rc = 0;
    *w = (struct windows){ 0 };
    FAIL_IF(stride < 1, e, ERR_ARG, "a stride of %d does not move on", stride);
    FAIL_IF(n_ctx < 1 || n_ctx > INT32_MAX - stride / 2, e, ERR_ARG,
            "a context of %d with a stride of %d is out of range", n_ctx, stride);
    int len = n_ctx + stride / 2;
    FAIL_IF(stride > len - 1, e, ERR_ARG,
            "a stride of %d needs a window of more tokens than -c %d + %d / 2 = %d", stride, n_ctx,
            stride, len);
    FAIL_IF(n_tokens <= len, e, ERR_ARG,
            "you need more than %d tokens for windows of %d (-c + stride/2); the text has %" PRId64,
            len, len, n_tokens);
    w->n_ctx = len;
    w->step = stride;
    w->first = len - stride - 1;
    w->end = len - 1;
    w->n = (n_tokens - len + stride - 1) / stride;
    if (limit >= 0 && limit < w->n) w->n = limit;
    FAIL_IF(w->n < 1, e, ERR_ARG, "0 chunks (--chunks) leave nothing to evaluate");
out:
    return rc;
}
