/* SPDX-License-Identifier: MIT
 * kld_format.h - sizes that the reader and the writer of saved logits share; see kld_file.h. */
#ifndef GGAUGE_KLD_FORMAT_H
#define GGAUGE_KLD_FORMAT_H

#include "arm/kld_file.h"

#define KLD_MAGIC "_logits_"
#define KLD_HEADER_BYTES 20

static inline uint64_t kld_chunk_bytes(const struct kld_shape *s) {
    return (uint64_t)kld_n_records(s->n_ctx) * kld_record_words(s->n_vocab) * sizeof(uint16_t);
}

#endif
