/* SPDX-License-Identifier: MIT
 * card.c - facts of one card; see card.h. */
#include "exec/card.h"

#include <stdio.h>

#include "backend.h"
#include "cuda_plugin.h"
#include "exec/nvml.h"

void card_driver(const struct cuda_info *info, const char *nvidia, char *buf, size_t n_bytes) {
    snprintf(buf, n_bytes, "%s%s%s", info->versions, nvidia[0] ? ", NVIDIA " : "", nvidia);
}

void card_close(struct card *c) {
    nvml_close(c->nvml);
    *c = (struct card){ 0 };
}

int card_open(struct card *c, struct err *e) {
    int rc = 0;
    struct backend b = { 0 };
    struct cuda_info info;
    struct err ignored; /* without an address nothing more is known */
    char id[1][NVML_BUS_ID_BYTES];
    *c = (struct card){ 0 };
    TRY(cuda_available(e));
    if (cuda_bus_id(0, id[0], sizeof id[0], &ignored) == 0)
        TRY(nvml_open(&c->nvml, (const char(*)[NVML_BUS_ID_BYTES])id, 1, e));
    TRY(backend_cuda_init(&b, 0, e));
    TRY(backend_cuda_info(&b, &info, e));
    snprintf(c->gpu, sizeof c->gpu, "%s", info.name);
    card_driver(&info, nvml_driver(c->nvml), c->driver, sizeof c->driver);
    c->n_sm = info.n_sm;
out:
    backend_release(&b);
    return rc;
}
