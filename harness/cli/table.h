/* SPDX-License-Identifier: MIT
 * table.h - how speeds are shown: the Markdown tables people paste, and the CSV and JSON that
 * scripts read, in the columns of llama-sweep-bench and llama-bench.
 *
 * Sources: ik_llama.cpp 8337e4cd, examples/sweep-bench and examples/llama-bench; llama.cpp
 * tools/llama-bench, spring 2026, for the fields of CSV and JSON. Nothing here reports a write
 * error: callers check with table_flush. */
#ifndef GGAUGE_TABLE_H
#define GGAUGE_TABLE_H

#include <stdio.h>

#include "measure/bench.h"
#include "measure/sweep.h"

/* Flush, so that a killed run leaves what it measured; ERR_IO names the file. */
int table_flush(FILE *f, const char *name, struct err *e);

/* ---- sweep-bench ----------------------------------------------------------------------------- */

/* What is the same for all depths. */
struct sweep_run_info {
    const struct arm_info *arm;
    int n_kv_max;
    const char *run_id;
};

/* The seven familiar columns, of medians; with n_rep > 1 two more follow that hold the intervals of
 * both speeds, headed by what they cover. n_rep = 0: without. */
void table_sweep_head(FILE *f, int n_rep);
void table_sweep_row(FILE *f, const struct sweep_step *s, bool intervals);

/* One line: the fields of llama-sweep-bench's JSONL in their order, then ours. */
void table_sweep_jsonl(FILE *f, const struct sweep_run_info *r, const struct sweep_step *s);

/* ---- bench ----------------------------------------------------------------------------------- */

/* One line of the table. */
struct bench_line {
    const struct arm_info *arm;
    const char *model_path, *commit_id, *cpu, *gpu;
    bool repack; /* -rtr was given */
    char time_utc[32];
    struct nvml_vram vram; /* of all engines */
    const struct bench_result *r;
};

/* Columns that llama-bench shows only if a value differs from its default. */
struct bench_columns {
    bool n_batch, n_ubatch, type_k, type_v, repack;
    int test_width; /* characters: the longest label, at least 13 */
};

/* "pp512", "tg128", "pp512+tg128", with " @ d4096" behind a depth. */
void table_bench_label(const struct bench_test *t, char *buf, size_t n_bytes);

void table_bench_md_head(FILE *f, const struct bench_columns *c);
void table_bench_md_row(FILE *f, const struct bench_columns *c, const struct bench_line *l);
void table_bench_csv_head(FILE *f);
void table_bench_csv_row(FILE *f, const struct bench_line *l);
/* One object in one line, without a newline. */
void table_bench_json(FILE *f, const struct bench_line *l);

#endif
