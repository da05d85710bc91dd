/* SPDX-License-Identifier: MIT
 * kld_print.h - the tables of a KL divergence, in the words and widths of llama-perplexity.
 *
 * Source: ik_llama.cpp 8337e4cd, examples/perplexity/perplexity.cpp. */
#ifndef GGAUGE_KLD_PRINT_H
#define GGAUGE_KLD_PRINT_H

#include <stdio.h>

#include "measure/kld.h"

#define KLD_MIN_FINAL 100 /* positions below which the final tables say too little */

void kld_print_head(FILE *f);
/* The running values after chunk i (0-based). */
void kld_print_chunk(FILE *f, int64_t i, const struct kld *k);
/* The three tables; sorts the values of k. Nothing for less than KLD_MIN_FINAL positions. */
void kld_print_tables(FILE *f, struct kld *k);

#endif
