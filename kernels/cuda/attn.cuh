/* SPDX-License-Identifier: MIT
 * attn.cuh - what both kernels of attention share: the operands, and reading a cache. */
#ifndef GGAUGE_ATTN_CUH
#define GGAUGE_ATTN_CUH

#include "cuda/acts.cuh"

struct attn_cache {
    const char *p;
    size_t stride; /* from cell to cell */
    int hd;        /* elements of a head */
    int head_bytes;
    bool vec;      /* 16-byte aligned cells and heads */
    FAULT_FIELD
};

struct attn_args {
    const char *q;
    size_t q_stride;
    struct attn_cache k, v;
    const int32_t *first, *pos;
    char *dst;
    size_t dst_stride;
    int n_tok, n_head, group; /* heads; heads of a kv head */
    float scale;
    float *parts; /* [n_tok, n_head, n_ranges, v.hd + 2] */
    int n_ranges;
    struct acts_out acts; /* of dst */
    FAULT_FIELD
};

/* The first cell of token t's sequence, and the position of the last one that it sees. */
DEV int first_of(const struct attn_args &a, int t) {
    return a.first[FAULT_IN(a, seq_offset) ? 0 : t];
}
DEV int last_of(const struct attn_args &a, int t) {
    const bool more = FAULT_IN(a, causal_mask) && t + 1 < a.n_tok && a.first[t + 1] == a.first[t];
    return a.pos[t] + (more ? 1 : 0);
}

/* Types of a cache: 4 elements of a head from element i on, a multiple of 4. */
struct kv_f32 {
    static __device__ __forceinline__ void get4(const struct attn_cache &c, const char *head,
                                                int i, float *y) {
        const float *p = (const float *)head + i;
        if (c.vec) {
            const float4 v = *(const float4 *)p;
            y[0] = v.x, y[1] = v.y, y[2] = v.z, y[3] = v.w;
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++)
                y[k] = p[k];
        }
    }
    static __device__ __forceinline__ float get(const char *head, int i) {
        return ((const float *)head)[i];
    }
};
struct kv_f16 {
    static __device__ __forceinline__ void get4(const struct attn_cache &c, const char *head,
                                                int i, float *y) {
        const uint16_t *p = (const uint16_t *)head + i;
        if (c.vec) {
            const uint2 v = *(const uint2 *)p;
            y[0] = hd_f16((uint16_t)v.x), y[1] = hd_f16((uint16_t)(v.x >> 16));
            y[2] = hd_f16((uint16_t)v.y), y[3] = hd_f16((uint16_t)(v.y >> 16));
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++)
                y[k] = hd_f16(p[k]);
        }
    }
    static __device__ __forceinline__ float get(const char *head, int i) {
        return hd_f16(((const uint16_t *)head)[i]);
    }
};
struct kv_q8_0 {
    static __device__ __forceinline__ void get4(const struct attn_cache &c, const char *head,
                                                int i, float *y) {
        const uint16_t *blk = (const uint16_t *)(head + i / 32 * 34);
        const float d = hd_f16(FAULT_IN(c, q8_cache_scale) ? *(const uint16_t *)head : blk[0]);
        const uint32_t lo = blk[1 + i % 32 / 2], hi = blk[2 + i % 32 / 2];
        y[0] = d * (float)(int8_t)lo, y[1] = d * (float)(int8_t)(lo >> 8);
        y[2] = d * (float)(int8_t)hi, y[3] = d * (float)(int8_t)(hi >> 8);
    }
    static __device__ __forceinline__ float get(const char *head, int i) {
        return hd_f16(*(const uint16_t *)(head + i / 32 * 34)) *
               (float)(int8_t)head[i / 32 * 34 + 2 + i % 32];
    }
};

/* Elements [i, i + 4) of a head of hd elements; zeros behind its end. */
template <class T>
DEV void kv_get4(const struct attn_cache &c, const char *head, int i, float *y) {
    if (i + 4 <= c.hd) {
        T::get4(c, head, i, y);
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        y[k] = i + k < c.hd ? T::get(head, i + k) : 0.0f;
}

/* Rows of few tokens: attn_few_cuda.cu; of many: attn_many_cuda.cu. */
int attn_few(struct cuda_device *d, const struct node *n, struct attn_args *a, struct err *e);
int attn_many(struct cuda_device *d, const struct node *n, const struct attn_args *a,
              struct err *e);
bool attn_many_can(const struct node *n);
int attn_few_ranges(const struct node *n);

#endif
