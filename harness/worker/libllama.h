/* SPDX-License-Identifier: MIT
 * libllama.h - the arm of another engine: llama.cpp or ik_llama.cpp through its C API alone.
 *
 * This folder is compiled once for each engine build (libllama_build.sh), against that engine's own
 * headers. libllama_config.h, written by that script, says which spellings its API has; the files
 * here use them through libllama_api.h. Everything else is ours: the program serves the arm with
 * arm/serve.h, as `ggauge worker` serves our own engine. */
#ifndef GGAUGE_LIBLLAMA_H
#define GGAUGE_LIBLLAMA_H

#include "arm/arm.h"
#include "gguf/gguf.h"
#include "libllama_api.h"

struct ggml_map;

#define OVERRIDES_MAX 64 /* patterns of -ot */

struct libllama {
    struct arm arm;
    struct gguf *g; /* the file as we read it: fingerprint, types */
    struct llama_model *model;
    struct llama_context_params cparams;
    /* `watched` calls see_eval for every node, has a cache of its own and is opened when somebody
     * observes: what is only measured runs as it does for the engine's own programs. */
    struct llama_context *plain, *watched;
    struct llama_batch batch; /* [n_batch] */
    char placement[512];      /* of the result row: devices and options */
    char *system_info;        /* owned */
    char *patterns;           /* of -ot, owned */
#if LL_OVERRIDES
    struct llama_model_tensor_buft_override overrides[OVERRIDES_MAX + 1];
#endif

    /* Logits of the held rows [n_held, n_vocab], as they are or as an observer wants them. */
    float *held;
    int64_t n_held, max_held;

    struct observer *observer; /* NULL: nobody looks */
    struct ggml_map *map;      /* their nodes to ours; opened with `watched` */
    void *data;                /* [data_bytes] of the node that is seen */
    size_t data_bytes;
    int see_rc; /* what the observer made of the present decode */
    struct err see_err;
};

/* The model and a context as the parameters say, released with arm_close. */
int libllama_open(struct arm **out, const struct arm_params *p, struct err *e);
/* For libllama_open: what the engine's API makes of the parameters. */
int libllama_load(struct libllama *s, const struct arm_params *p, struct err *e);
/* One more context; NULL with *e set. `watched`: it calls libllama_eval with s. */
struct llama_context *libllama_context(struct libllama *s, bool watched, struct err *e);

/* The engine's callback: asks the observer for every node of ours that t is, shows it, and writes
 * back what the observer changed. */
bool libllama_eval(struct ggml_tensor *t, bool ask, void *arg);
/* Rows [r0, r0 + n) of the held logits as the node result_output. */
int libllama_show_logits(struct libllama *s, int64_t r0, int64_t n, struct err *e);

#endif
