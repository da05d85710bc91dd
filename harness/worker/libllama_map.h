/* SPDX-License-Identifier: MIT
 * libllama_map.h - which node of ours a tensor of a ggml graph is.
 *
 * Engines name their tensors differently, and differently from month to month; what does not change
 * are the names of the weights in the file. So nodes are recognised by what they do: an operation
 * on a weight, or on nodes that are recognised already. A fused node is the last of the nodes of
 * ours that it stands for; those before it are not shown. Views, copies and rows picked by index
 * are what they are made of. */
#ifndef GGAUGE_LIBLLAMA_MAP_H
#define GGAUGE_LIBLLAMA_MAP_H

#include "exec/observer.h"
#include "libllama_api.h"

struct ggml_map;

/* The graph of the model file as our engine builds it. ERR_UNSUPPORTED etc. if it cannot. Cache
 * types that our engine lacks are taken for f16, and the nodes that store in a cache are not
 * recognised. */
int ggml_map_open(struct ggml_map **out, const char *model, const char *type_k, const char *type_v,
                  struct err *e);
void ggml_map_free(struct ggml_map *m); /* NULL is allowed */

/* Forget the tensors of the last decode. */
void ggml_map_begin(struct ggml_map *m);

/* Called for every node of a graph in run order: a node of ours for as many rows as t has, valid
 * until the next call, or NULL. */
const struct node *ggml_map_node(struct ggml_map *m, const struct ggml_tensor *t);
/* What was returned last: the engine asks for a node, runs it, and comes back. */
const struct node *ggml_map_last(const struct ggml_map *m);
/* The node of the output matrix for n rows. */
const struct node *ggml_map_output(struct ggml_map *m, int64_t n);

#endif
