/* SPDX-License-Identifier: MIT
 * fuzz_gguf.c - any bytes are a model whose every part can be read, or one error with a message.
 *
 * Each input is opened twice: as it is, and with one allocation failing. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "gguf/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile uint64_t sink; /* so that no read is optimised away */

static void check(int ok) {
    if (!ok) abort();
}

static void touch(const void *p, uint64_t n) {
    const unsigned char *b = p;
    if (n) sink += (uint64_t)b[0] + b[n / 2] + b[n - 1];
}

static void read_pair(const struct gguf *g, const struct gguf_kv *kv) {
    char key[256];
    struct gguf_str s;
    struct err e = { 0 };
    uint64_t u;
    int64_t i;
    double d;
    bool b;
    touch(kv->key.p, kv->key.n);
    for (uint64_t k = 0; k < kv->count && k < 4096; k++) {
        if (kv->strs) touch(kv->strs[k].p, kv->strs[k].n);
        sink += (uint64_t)gguf_kv_i64(kv, k) + (gguf_kv_f64(kv, k) > 0);
    }
    if (kv->key.n >= sizeof key) return;
    memcpy(key, kv->key.p, kv->key.n);
    key[kv->key.n] = '\0';
    check(gguf_find(g, key) == kv);
    int found = (gguf_get_u64(g, key, &u, &e) == 1) + (gguf_get_f64(g, key, &d, &e) == 1) +
                (gguf_get_bool(g, key, &b, &e) == 1) + (gguf_get_str(g, key, &s, &e) == 1);
    check(found <= 1 && (found == 0 || kv->type != GGUF_ARRAY));
    check(gguf_get_i64(g, key, &i, &e) != 0);
}

static void read_model(const struct gguf *g, const uint8_t *data, size_t n) {
    char fingerprint[17];
    gguf_fingerprint(g, fingerprint);
    check(strlen(fingerprint) == 16);
    for (int64_t i = 0; i < gguf_n_kv(g); i++)
        read_pair(g, gguf_kv_at(g, i));
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        check(gguf_find_tensor(g, t->name) == t);
        if (t->type == QT_none) continue;
        const uint8_t *p = t->data;
        check(p >= data && p <= data + n && t->n_bytes <= (uint64_t)(data + n - p));
        check(t->n_bytes ==
              qtype_row_bytes(t->type, t->ne[0]) * (uint64_t)(t->ne[1] * t->ne[2] * t->ne[3]));
        touch(p, t->n_bytes);
    }
}

static int open_and_read(const uint8_t *data, size_t n) {
    struct gguf *g = NULL;
    struct err e = { 0 };
    int rc = gguf_open_memory(&g, data, n, &e);
    heap_fail_at(0);
    if (rc < 0)
        check(!g && e.code == rc && e.msg[0] != '\0');
    else
        read_model(g, data, n);
    gguf_close(g);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    open_and_read(data, n);
    heap_fail_at(1 + (n ? data[n - 1] % 64 : 0));
    open_and_read(data, n);
    return 0;
}
