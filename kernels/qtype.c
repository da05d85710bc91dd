/* SPDX-License-Identifier: MIT
 * qtype.c - facts about types, made from the lists in qtype.h. */
#include "qtype.h"

#include <assert.h>
#include <strings.h>

static const struct qtype_info infos[QT_count] = {
#define X(name, id, n_blk, block, row_meta, gain, ...)                                             \
    [QT_##name] = { #name, id, n_blk, sizeof(block), row_meta, gain },
    QTYPE_LIST(X)
#undef X
#define X(name, id, n_blk, bytes, row_meta)                                                        \
    [QT_##name] = { #name, id, n_blk, bytes, row_meta, 1.0 },
        QTYPE_SIZE_LIST(X)
#undef X
};

const struct qtype_info *qtype_info(enum qtype t) {
    assert(t >= 0 && t < QT_count);
    return &infos[t];
}

enum qtype qtype_from_gguf(uint32_t gguf_id) {
    for (int t = 0; t < QT_count; t++)
        if (infos[t].gguf_id == gguf_id) return (enum qtype)t;
    return QT_none;
}

enum qtype qtype_from_name(const char *name) {
    for (int t = 0; t < QT_count; t++)
        if (strcasecmp(infos[t].name, name) == 0) return (enum qtype)t;
    return QT_none;
}

size_t qtype_row_bytes(enum qtype t, int64_t n) {
    const struct qtype_info *i = qtype_info(t);
    assert(n % i->n_blk == 0);
    return i->row_meta + (size_t)(n / i->n_blk) * i->blk_bytes;
}
