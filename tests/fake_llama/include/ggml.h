/* SPDX-License-Identifier: MIT
 * ggml.h - of the fake engine: the part of the tensor library's interface that harness/worker uses,
 * with tensors that are filled by our own engine (fake_llama.c). Types have the numbers of GGUF. */
#ifndef GGML_H
#define GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGML_MAX_NAME 64
#define GGML_MAX_SRC 10

/* Only what the tests use; the numbers are those of the file format. */
enum ggml_type {
    GGML_TYPE_F32 = 0,
    GGML_TYPE_F16 = 1,
    GGML_TYPE_Q8_0 = 8,
    GGML_TYPE_I32 = 26,
    GGML_TYPE_I64 = 27,
    GGML_TYPE_COUNT = 40,
};

enum ggml_op {
    GGML_OP_NONE,
    GGML_OP_GET_ROWS,
    GGML_OP_RMS_NORM,
    GGML_OP_FUSED_RMS_NORM,
    GGML_OP_MUL,
    GGML_OP_ADD,
    GGML_OP_MUL_MAT,
    GGML_OP_RESHAPE,
    GGML_OP_ROPE,
    GGML_OP_SET_ROWS,
    GGML_OP_FLASH_ATTN_EXT,
    GGML_OP_FUSED_UP_GATE,
    GGML_OP_GLU,
    GGML_OP_COUNT,
};

enum ggml_log_level { GGML_LOG_LEVEL_INFO = 1, GGML_LOG_LEVEL_ERROR = 4 };

struct ggml_tensor {
    enum ggml_type type;
    int64_t ne[4];
    size_t nb[4];
    enum ggml_op op;
    struct ggml_tensor *src[GGML_MAX_SRC];
    void *data;
    char name[GGML_MAX_NAME];
};

const char *ggml_op_name(enum ggml_op op);
const char *ggml_type_name(enum ggml_type type);
int64_t ggml_nelements(const struct ggml_tensor *t);
int ggml_n_dims(const struct ggml_tensor *t);
bool ggml_is_contiguous(const struct ggml_tensor *t);
size_t ggml_row_size(enum ggml_type type, int64_t ne);

#endif
