/* SPDX-License-Identifier: MIT
 * ops_print.h - what localisation found, for people (text, Markdown) and for scripts (ops.csv). */
#ifndef GGAUGE_OPS_PRINT_H
#define GGAUGE_OPS_PRINT_H

#include <stdio.h>

#include "measure/localise.h"

/* One sentence that names the op, the arm and the kind: "B is wrong in Qcur-0 ...". */
void ops_sentence(const struct localise *l, char *buf, size_t n_bytes);
/* The section of the report: sentence, nodes around the first bad one, what is all good, and with
 * `capsule` (a path) the reproducer. */
void ops_print(FILE *f, const struct localise *l, const char *capsule);
/* A line for each cell of another engine that is as far from ref as it is known to be; none
 * otherwise. */
void ops_print_known(FILE *f, const struct localise *l);
/* One line per node, with a header. ERR_IO names the file. */
void ops_csv(const struct localise *l, FILE *f);

#endif
