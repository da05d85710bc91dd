/* SPDX-License-Identifier: MIT
 * card.h - names of cards and their drivers, as result rows have them. */
#ifndef GGAUGE_CARD_H
#define GGAUGE_CARD_H

#include <stddef.h>

#include "base/err.h"

struct cuda_info;

/* "CUDA driver 13.0, runtime 13.0, NVIDIA 580.95.05"; the last part is nvml_driver's and may be "". */
void card_driver(const struct cuda_info *info, const char *nvidia, char *buf, size_t n_bytes);
/* Name and driver of the first card, on which single operations run; buffers of n_bytes each. Opens
 * and closes it. Errors: those of backend_init. */
int card_first(char *gpu, char *driver, size_t n_bytes, struct err *e);

#endif
