/* SPDX-License-Identifier: MIT
 * ggml-backend.h - of the fake engine; see ggml.h. */
#ifndef GGML_BACKEND_H
#define GGML_BACKEND_H

#include "ggml.h"

typedef struct ggml_backend_buffer_type *ggml_backend_buffer_type_t;
typedef struct ggml_backend_device *ggml_backend_dev_t;

/* As in llama.cpp, and with FAKE_OLD as in ik_llama.cpp. */
#ifdef FAKE_OLD
typedef int (*ggml_backend_sched_eval_callback)(struct ggml_tensor *t, bool ask, void *arg);
size_t ggml_backend_reg_get_count(void);
ggml_backend_buffer_type_t ggml_backend_reg_get_default_buffer_type(size_t i);
#else
typedef bool (*ggml_backend_sched_eval_callback)(struct ggml_tensor *t, bool ask, void *arg);
size_t ggml_backend_dev_count(void);
ggml_backend_dev_t ggml_backend_dev_get(size_t i);
ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t d);
#endif
const char *ggml_backend_buft_name(ggml_backend_buffer_type_t t);
void ggml_backend_tensor_get(const struct ggml_tensor *t, void *data, size_t offset, size_t n);
void ggml_backend_tensor_set(struct ggml_tensor *t, const void *data, size_t offset, size_t n);

#endif
