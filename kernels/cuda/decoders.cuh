/* SPDX-License-Identifier: MIT
 * decoders.cuh - the decoders of decode_row.h as types, so that a kernel is one template. */
#ifndef GGAUGE_DECODERS_CUH
#define GGAUGE_DECODERS_CUH

#include "cuda/decode_row.h"
#include "cuda/device.cuh"

#define X(name, n_blk, bytes, meta, has_min)                                                       \
    struct dec_##name {                                                                            \
        static constexpr int BLK = n_blk, BYTES = bytes, META = meta, MIN = has_min;               \
        static constexpr int PER = n_blk / 32; /* sub-blocks of a block */                         \
        static __device__ __forceinline__ void decode(const uint8_t *blk, int b, float d,          \
                                                      struct decoded *o) {                         \
            name##_decode(blk, b, d, o);                                                           \
        }                                                                                          \
        static __device__ __forceinline__ float scale(const uint8_t *row) {                        \
            return META ? *(const float *)row : 0.0f;                                              \
        }                                                                                          \
    };
DECODER_LIST(X)
#undef X

/* The scale in front of a row, 0 for a type without one. */
template <class D> DEV float row_scale(const uint8_t *row) {
    return D::scale(row);
}

#endif
