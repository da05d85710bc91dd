/* SPDX-License-Identifier: MIT
 * list.h - values of options that take several, separated by commas. */
#ifndef GGAUGE_LIST_H
#define GGAUGE_LIST_H

#include "base/err.h"

#define LIST_MAX 32
#define LIST_MAX_TEXT 4096 /* bytes of one list */

struct int_list {
    int n, v[LIST_MAX];
};

struct str_list {
    int n;
    const char *v[LIST_MAX];
    char text[LIST_MAX_TEXT]; /* the list with its commas replaced */
};

/* Whole numbers in [min, max]; at least one. Errors name the flag. */
int list_ints(const char *flag, const char *text, int min, int max, struct int_list *out,
              struct err *e);
/* Words, none of them empty. They live in *out. */
int list_strs(const char *flag, const char *text, struct str_list *out, struct err *e);

#endif
