/* SPDX-License-Identifier: MIT
 * exec.h - a context: a model on a backend with a KV cache. It cuts batches into micro-batches,
 * runs their graphs, and hands the logits of wanted tokens to the caller in slices, so that memory
 * never grows with n_vocab times the length of a batch. */
#ifndef GGAUGE_EXEC_H
#define GGAUGE_EXEC_H

#include "base/fault.h"
#include "exec/batch.h"
#include "exec/nvml.h"
#include "exec/observer.h"
#include "exec/place.h"
#include "exec/topology.h"
#include "model/graph.h"

struct exec_params {
    struct place_params place;
    enum column weights_as; /* ref: rounded as this column does; COL_none = not at all */
    enum qtype type_k, type_v;
    int n_ctx, n_seq, n_ubatch, n_threads, n_threads_batch;
    const struct topology *topology; /* borrowed until exec_free; NULL = threads run anywhere */
    bool repack; /* -rtr */
    enum fault fault; /* FAULT_none but in a build with seeded faults */
};

struct exec;

/* m must outlive the context. All memory of the graphs is allocated here. */
int exec_new(struct exec **out, const struct model *m, const struct exec_params *p, struct err *e);
void exec_free(struct exec *x); /* NULL is allowed */

/* As arm_decode: see arm.h. */
int exec_decode(struct exec *x, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                struct err *e);
/* As arm_hold: the wanted rows of result_norm are kept, their logits computed by exec_rows. */
int exec_hold(struct exec *x, const struct arm_batch *b, bool append, struct err *e);
/* Answers of held rows [r0, r0 + n); answer.i counts from r0. */
int exec_rows(struct exec *x, int64_t r0, int64_t n, arm_answer_fn fn, void *arg, struct err *e);
int exec_kv_trim(struct exec *x, int32_t seq, int32_t pos, struct err *e);
void exec_observe(struct exec *x, struct observer *o); /* NULL: nobody */

/* The cells that this context runs: "iq4_kt@avx2 ... attn@avx2 ...", each once. */
int exec_cells(struct exec *x, char *buf, size_t n_bytes, struct err *e);

/* Where it runs: "CPU", or "CUDA0 (NVIDIA H100 80GB HBM3) 119 nodes, CPU 2 nodes". */
int exec_placement(struct exec *x, char *buf, size_t n_bytes, struct err *e);
/* Bytes of weights that were copied for -rtr; 0 = none were. */
size_t exec_repacked_bytes(const struct exec *x);
/* Layers on devices; the output counts as one. */
int exec_gpu_layers(const struct exec *x);
/* What is known of the devices in use, owned by x; NULL without any, or without NVML. */
struct nvml *exec_cards(const struct exec *x);
/* Names and versions of the devices in use; "" without any. */
int exec_devices(struct exec *x, char *gpu, char *driver, size_t n_bytes, struct err *e);

#endif
