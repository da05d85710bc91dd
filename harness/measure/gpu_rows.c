/* SPDX-License-Identifier: MIT
 * gpu_rows.c - facts of cards as metrics; see gpu_rows.h. */
#include "measure/gpu_rows.h"

#include <math.h>

static int add(struct gpu_row *out, int n, enum metric m, double value) {
    if (isnan(value)) return n;
    out[n] = (struct gpu_row){ m, value };
    return n + 1;
}

int gpu_rows_facts(const struct nvml_facts *f, struct gpu_row out[GPU_ROWS_MAX]) {
    int n = add(out, 0, METRIC_gpu_sm_mhz, f->sm_mhz);
    n = add(out, n, METRIC_gpu_mem_mhz, f->mem_mhz);
    n = add(out, n, METRIC_gpu_w, f->watts);
    return add(out, n, f->counted ? METRIC_gpu_jpt : METRIC_gpu_jpt_power, f->token_j);
}

int gpu_rows_vram(const struct nvml_vram *v, struct gpu_row out[GPU_ROWS_MAX]) {
    int n = add(out, 0, METRIC_vram_bytes, v->used_bytes);
    return add(out, n, METRIC_vram_delta_bytes, v->delta_bytes);
}
