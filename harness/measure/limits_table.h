/* SPDX-License-Identifier: MIT
 * limits_table.h - written by `make limits` from results/limits.csv; not by hand. */
#ifndef GGAUGE_LIMITS_TABLE_H
#define GGAUGE_LIMITS_TABLE_H

/*    cell  max_rel  row_nmse */
#define LIMIT_LIST(X)                                                                              \
    X("mul_mat@ref", 1e-6, 1e-13)

#endif
