/* SPDX-License-Identifier: MIT
 * place.h - where each node runs: place 0 is the CPU, place i the i-th CUDA device in use.
 *
 * A node that reads a weight whose name a rule of -ot matches goes where the rule says, the first
 * match winning; every other one goes with its layer. The last -ngl layers are on devices; one more
 * than there are layers, and what is before and behind the layers is, too. The cache of a layer is
 * where its attention is, which no rule moves. */
#ifndef GGAUGE_PLACE_H
#define GGAUGE_PLACE_H

#include "backend.h"
#include "model/graph.h"

#define PLACES_MAX 9
#define PLACE_RULES_MAX 16
#define PLACE_NAME_MAX 16 /* "CUDA12" */

struct place_params {
    enum column column;     /* COL_cuda: layers are offloaded; else all is on this CPU column */
    enum column cpu_column; /* of what stays on the CPU, when column is COL_cuda */
    int n_gpu_layers;       /* -ngl */
    int main_gpu;           /* -mg: the device that is used if -ts names none */
    const char *tensor_split; /* -ts: shares of layers, "3,1"; NULL = all on main_gpu */
    int n_rules;
    const char *rule[PLACE_RULES_MAX]; /* -ot: "regex=CPU,regex=CUDA0" */
};

struct place_rule {
    void *regex; /* pcre2_code */
    int place;
};

struct place_map {
    int n_places, device[PLACES_MAX]; /* CUDA index of a place; [0] unused */
    int64_t n_layer;
    int *layer;     /* [n_layer] */
    int outside[2]; /* before and behind the layers */
    int n_rules;
    struct place_rule rule[PLACE_RULES_MAX];
};

/* ERR_ARG for rules and numbers that make no sense. n_devices = those of the machine. */
int place_init(struct place_map *m, const struct place_params *p, int64_t n_layer, int n_devices,
               struct err *e);
void place_release(struct place_map *m);
int place_of(const struct place_map *m, const struct node *n);

#endif
