/* SPDX-License-Identifier: MIT
 * card.c - names of cards; see card.h. */
#include "exec/card.h"

#include <stdio.h>

#include "backend.h"
#include "cuda_plugin.h"
#include "exec/nvml.h"

void card_driver(const struct cuda_info *info, const char *nvidia, char *buf, size_t n_bytes) {
    snprintf(buf, n_bytes, "%s%s%s", info->versions, nvidia[0] ? ", NVIDIA " : "", nvidia);
}

int card_first(char *gpu, char *driver, size_t n_bytes, struct err *e) {
    int rc = 0;
    struct backend b = { 0 };
    struct nvml *card = NULL;
    struct cuda_info info;
    struct err ignored; /* without an address the driver of the system is unknown */
    char id[1][NVML_BUS_ID_BYTES];
    TRY(backend_cuda_init(&b, 0, e));
    TRY(backend_cuda_info(&b, &info, e));
    if (cuda_bus_id(0, id[0], sizeof id[0], &ignored) == 0)
        TRY(nvml_open(&card, (const char(*)[NVML_BUS_ID_BYTES])id, 1, e));
    snprintf(gpu, n_bytes, "%s", info.name);
    card_driver(&info, nvml_driver(card), driver, n_bytes);
out:
    nvml_close(card);
    backend_release(&b);
    return rc;
}
