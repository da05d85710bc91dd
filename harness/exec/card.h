/* SPDX-License-Identifier: MIT
 * card.h - the card on which single operations run, as result rows have it. */
#ifndef GGAUGE_CARD_H
#define GGAUGE_CARD_H

#include <stddef.h>

#include "base/err.h"

struct cuda_info;
struct nvml;

struct card {
    char gpu[256], driver[256]; /* name; as card_driver */
    int n_sm;
    struct nvml *nvml; /* owned; may be NULL */
};

/* The first card; starts as { 0 }. Errors: those of backend_init. Calls of one card come from one
 * thread at a time. */
int card_open(struct card *c, struct err *e);
void card_close(struct card *c);

/* "CUDA driver 13.0, runtime 13.0, NVIDIA 580.95.05"; the last part is nvml_driver's and may be
 * "". */
void card_driver(const struct cuda_info *info, const char *nvidia, char *buf, size_t n_bytes);

#endif
