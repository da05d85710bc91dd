/* SPDX-License-Identifier: MIT
 * fault_cell.h - which column has which seeded fault (base/fault.h): a fault that an arm's column
 * has not got is refused, for an arm that is called faulty and is not would be found healthy. */
#ifndef GGAUGE_FAULT_CELL_H
#define GGAUGE_FAULT_CELL_H

#include "backend.h"
#include "base/fault.h"

/* Whose cell an arm of column c takes for the operation that has fault f; COL_none if that cell is
 * without it. */
enum column fault_column(enum fault f, enum column c);

/* The fault `name` for an arm of column c; NULL is FAULT_none. ERR_ARG if this build has no such
 * fault, or not in that column. */
int fault_choose(const char *name, enum column c, enum fault *out, struct err *e);

#endif
