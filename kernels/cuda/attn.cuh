/* SPDX-License-Identifier: MIT
 * attn.cuh - what both kernels of attention share: the operands, and reading a
 * cache. */
#ifndef GGAUGE_ATTN_CUH
#define GGAUGE_ATTN_CUH

#include "cuda/acts.cuh"

struct attn_cache {
    const char *p;
    size_t stride; /* from cell to cell */
    int hd;        /* elements of a head */
    int head_bytes;
    bool vec; /* 16-byte aligned cells and heads */
    int type;
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
    unsigned *n_done;     /* [n_tok, blocks of a token and range], zeros between launches */
    float *parts;         /* of attn_few: what ranges leave for the last one to add up */
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

/* Types of a cache: 8 elements of a head from element i on, a multiple of 8, in two steps, fetch
 * from memory and open (with the shift of the place), so that many can be on their way before the
 * first is used. Heads are 16-byte aligned and have a multiple of 8 elements, or blocks of q8_0 and
 * words from cell to cell, but for kv_any. */
struct kv_f32 {
    struct raw {
        float4 a, b;
    };
    static __device__ __forceinline__ struct raw none(void) {
        return { make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0) };
    }
    static __device__ __forceinline__ uint32_t shift(const char *place) {
        return (void)place, 0;
    }
    static __device__ __forceinline__ const char *place(const char *head, int i) {
        return head + 4 * i;
    }
    static __device__ __forceinline__ struct raw fetch(const struct attn_cache &c,
                                                       const char *place, int i) {
        (void)c, (void)i;
        return { ((const float4 *)place)[0], ((const float4 *)place)[1] };
    }
    static __device__ __forceinline__ void open(const struct raw &r, uint32_t shift, float *y) {
        (void)shift;
        y[0] = r.a.x, y[1] = r.a.y, y[2] = r.a.z, y[3] = r.a.w;
        y[4] = r.b.x, y[5] = r.b.y, y[6] = r.b.z, y[7] = r.b.w;
    }
};
struct kv_f16 {
    typedef uint4 raw;
    static __device__ __forceinline__ raw none(void) {
        return make_uint4(0, 0, 0, 0);
    }
    static __device__ __forceinline__ uint32_t shift(const char *place) {
        return (void)place, 0;
    }
    static __device__ __forceinline__ const char *place(const char *head, int i) {
        return head + 2 * i;
    }
    static __device__ __forceinline__ raw fetch(const struct attn_cache &c, const char *place,
                                                int i) {
        (void)c, (void)i;
        return *(const uint4 *)place;
    }
    static __device__ __forceinline__ void open(const raw &r, uint32_t shift, float *y) {
        const uint32_t w[4] = { r.x, r.y, r.z, r.w };
        (void)shift;
#pragma unroll
        for (int k = 0; k < 8; k++)
            y[k] = hd_f16((uint16_t)(w[k / 2] >> 16 * (k % 2)));
    }
};
struct kv_q8_0 {
    struct raw {
        uint32_t w[3]; /* 8 integers, from bit `shift` (0 or 16) of the words on */
        uint16_t d;
    };
    static __device__ __forceinline__ struct raw none(void) {
        return { { 0, 0, 0 }, 0 };
    }
    /* The same for all cells if those are words apart. */
    static __device__ __forceinline__ uint32_t shift(const char *place) {
        return ((uint32_t)(uintptr_t)place & 2u) * 8;
    }
    static __device__ __forceinline__ const char *place(const char *head, int i) {
        return head + i / 32 * 34 + 2 + i % 32;
    }
    /* Blocks have 34 bytes: integers begin at a word or in its middle. The last word that is read
     * may end 2 bytes behind the cache, in the slack of its memory. */
    static __device__ __forceinline__ struct raw fetch(const struct attn_cache &c,
                                                       const char *place, int i) {
        const char *blk = place - 2 - i % 32;
        const uint32_t odd = shift(place) / 8;
        const uint32_t *w = (const uint32_t *)(place - odd);
        const uint16_t d =
            *(const uint16_t *)(FAULT_IN(c, q8_cache_scale) ? blk - i / 32 * 34 : blk);
        return { { w[0], w[1], odd ? w[2] : 0 }, d };
    }
    static __device__ __forceinline__ void open(const struct raw &r, uint32_t shift, float *y) {
        const float d = hd_f16(r.d);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const uint64_t two = (uint64_t)r.w[k / 4 + 1] << 32 | r.w[k / 4];
            /* byte u of a number from 2^23 on is u more */
            const uint32_t q = (uint32_t)(two >> shift) ^ 0x80808080u;
            y[k] = d * (f32_of(0x4B000000u | (q >> 8 * (k % 4) & 0xFFu)) - 8388736.0f);
        }
    }
};

/* Whatever the others cannot do. */
struct kv_any {
    struct raw {
        float y[8];
    };
    static __device__ __forceinline__ struct raw none(void) {
        return { { 0, 0, 0, 0, 0, 0, 0, 0 } };
    }
    static __device__ __forceinline__ uint32_t shift(const char *place) {
        return (void)place, 0;
    }
    static __device__ __forceinline__ const char *place(const char *head, int i) {
        return (void)i, head;
    }
    static __device__ __forceinline__ struct raw fetch(const struct attn_cache &c,
                                                       const char *place, int i) {
        struct raw r = none();
        if (c.type == QT_q8_0) {
            const char *q = kv_q8_0::place(place, i);
            kv_q8_0::open(kv_q8_0::fetch(c, q, i), kv_q8_0::shift(q), r.y);
            return r;
        }
        for (int k = 0; k < 8 && i + k < c.hd; k++)
            r.y[k] = c.type == QT_f32 ? ((const float *)place)[i + k]
                                      : hd_f16(((const uint16_t *)place)[i + k]);
        return r;
    }
    static __device__ __forceinline__ void open(const struct raw &r, uint32_t shift, float *y) {
#pragma unroll
        for (int k = 0; k < 8; k++)
            y[k] = r.y[k];
        (void)shift;
    }
};

/* Rows of few tokens: attn_few_cuda.cu; of many: attn_many_cuda.cu. */
int attn_few(struct cuda_device *d, const struct node *n, struct attn_args *a, struct err *e);
int attn_many(struct cuda_device *d, const struct node *n, const struct attn_args *a,
              struct err *e);
bool attn_many_can(const struct node *n);

#endif
