/* SPDX-License-Identifier: MIT
 * gpu_rows.h - what is known of cards (exec/nvml.h) as the metrics of result rows: only what is
 * known, so that arms without cards, and cards that say nothing, have no rows. */
#ifndef GGAUGE_GPU_ROWS_H
#define GGAUGE_GPU_ROWS_H

#include "exec/nvml.h"
#include "result/metric.h"

#define GPU_ROWS_MAX 4

struct gpu_row {
    enum metric m;
    double value;
};

/* Fill `out` with what is known, and return how many. */
int gpu_rows_facts(const struct nvml_facts *f, struct gpu_row out[GPU_ROWS_MAX]);
int gpu_rows_vram(const struct nvml_vram *v, struct gpu_row out[GPU_ROWS_MAX]);

#endif
