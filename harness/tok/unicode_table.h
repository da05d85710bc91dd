/* SPDX-License-Identifier: MIT
 * unicode_table.h - the character classes that pre-tokenizer expressions name, in Unicode 15.1.
 *
 * The regular expression library has tables of its own, of whatever version it was built with; the
 * tokenizers were made with these, so the expressions are compiled with these. */
#ifndef GGAUGE_UNICODE_TABLE_H
#define GGAUGE_UNICODE_TABLE_H

#include <stdint.h>

#define CODE_POINT_MAX 0x10FFFFu

struct code_range {
    uint32_t first, last; /* inclusive */
};

struct code_class {
    char name;                  /* L N P S M: the general category; s: White_Space */
    int n;
    const struct code_range *r; /* rising, disjoint, not adjacent */
};

/* NULL if there is no class of this name. */
const struct code_class *code_class_find(char name);

#endif
