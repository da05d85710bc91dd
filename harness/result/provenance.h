/* SPDX-License-Identifier: MIT
 * provenance.h - the pieces of provenance_fill that have an input of their own. */
#ifndef GGAUGE_PROVENANCE_H
#define GGAUGE_PROVENANCE_H

#include <stddef.h>

/* What the first processor of a /proc/cpuinfo text says: its model name and, space separated in our
 * order, those of its flags that a backend column asks about. "" for what is not there. */
void cpuinfo_parse(const char *text, char *model, size_t n_model, char *features,
                   size_t n_features);

#endif
