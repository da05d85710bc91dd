/* SPDX-License-Identifier: MIT
 * fuzz_kld.c - the reader of saved logits on arbitrary bytes.
 *
 * The first byte says which allocation fails (0 = none). Whatever the header promises, exactly the
 * whole chunks can be read, and one error comes behind them. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "arm/kld_file.h"
#include "base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_records(struct kld_reader *r, size_t n_bytes) {
    struct err e = { 0 };
    const struct kld_shape *s = kld_reader_shape(r);
    int64_t n = kld_reader_n_whole(r) * kld_n_records(s->n_ctx);
    if (n < 1 || (uint64_t)n * kld_record_words(s->n_vocab) * 2 > n_bytes) abort();
    for (int64_t i = 0; i < (int64_t)s->n_ctx * s->n_chunk; i++)
        if (kld_reader_tokens(r)[i] < 0 || kld_reader_tokens(r)[i] >= s->n_vocab) abort();
    float *lp = heap_alloc((size_t)s->n_vocab * sizeof *lp, &e);
    if (!lp) return;
    int rc = 0;
    for (int64_t i = 0; i < n && rc == 0; i++) {
        rc = kld_reader_next(r, lp, &e);
        if (rc < 0 && !e.msg[0]) abort();
        if (rc == 0 && isnan(lp[s->n_vocab - 1])) abort();
    }
    if (rc == 0 && kld_reader_next(r, lp, &e) != ERR_FORMAT) abort();
    heap_free(lp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = { 0 };
    struct kld_reader *r;
    if (n < 2) return 0;
    FILE *f = fmemopen((void *)(uintptr_t)(data + 1), n - 1, "rb");
    if (!f) return 0;
    heap_fail_at(data[0]);
    if (kld_reader_open_stream(&r, f, n - 1, "fuzz", &e) == 0)
        read_records(r, n);
    else if (!e.msg[0] || r)
        abort();
    heap_fail_at(0);
    kld_reader_close(r);
    return 0;
}
