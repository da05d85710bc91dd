/* SPDX-License-Identifier: MIT
 * heads_cuda.cu - what happens to the heads of q, k and v between their products and attention: the
 * norm of a head, its rotation, its way into the cache. As the ops rms_norm (of parts of a row), rope
 * and set_rows, contracts in op.h, or as all of them in one launch (fuse.cuh).
 *
 * Grid [heads / 4, tokens], block of 4 warps, a warp a head; what one step leaves for the next one
 * passes through its place in device memory. set_rows has the bits of ref. Memory bound and small. */
#include "cuda/fuse.cuh"

#define THREADS 128
#define MAX_GRID_ROWS 32768
#define PARTS 3

/* Heads of one tensor and their steps, each NULL if it is not taken. */
struct heads_part {
    const char *x; /* [n_tok, n_head, hd] */
    size_t x_stride;
    int n_head, hd;
    const float *weight; /* [hd], of the norm, which goes to normed */
    char *normed;
    size_t normed_stride;
    float eps;
    char *turned; /* the rotated head */
    size_t turned_stride;
    char *cache; /* rows cell[t], of cache_type */
    size_t cache_stride;
    const int32_t *cell; /* [n_tok] */
    int cache_type;
    FAULT_FIELD
};

struct heads_args {
    struct heads_part part[PARTS];
    int n_heads; /* of all parts */
    const char *table; /* cos and sin of the rotation, a row a token */
    size_t table_stride;
    int n_rot, step, other; /* pair i: elements step * i and step * i + other */
};

DEV float norm_scale(const float *x, const struct heads_part &p) {
    float sum = 0;
    for (int i = (int)threadIdx.x % WARP; i < p.hd; i += WARP)
        sum = fmaf(x[i], x[i], sum);
    return 1.0f / sqrtf(warp_sum(sum) / (FAULT_IN(p, norm_mean) ? 1.0f : (float)p.hd) + p.eps);
}

/* Pair i is rotated, or element i + n_rot / 2 behind the rotated ones copied. */
DEV void turn(const struct heads_args &a, int i, const float *x, const float *cs, float *y) {
    if (i >= a.n_rot / 2) {
        y[i + a.n_rot / 2] = x[i + a.n_rot / 2];
        return;
    }
    const float p = x[a.step * i], q = x[a.step * i + a.other];
    y[a.step * i] = p * cs[2 * i] - q * cs[2 * i + 1];
    y[a.step * i + a.other] = p * cs[2 * i + 1] + q * cs[2 * i];
}

/* A NaN keeps its upper bits, as f32_to_f16 does. */
DEV uint16_t cache_f16(float x) {
    const uint32_t u = bits_of(x);
    const uint16_t nan = (uint16_t)((u >> 16 & 0x8000u) | 0x7E00u | (u >> 13 & 0x1FFu));
    return (u & 0x7FFFFFFFu) > 0x7F800000u ? nan : to_f16(x);
}

/* Element `lane` of a block as legacy_ref.c quantises it: d = amax / 127, q = x * (1 / d) rounded
 * half away from zero, d then rounded to binary16; a block with a NaN or infinity gets a NaN scale.
 */
DEV void cache_q8_0(char *blk, float x) {
    const int lane = (int)threadIdx.x % WARP;
    const float amax = warp_max_nan(fabsf(x));
    const bool finite = (bits_of(amax) & 0x7F800000u) != 0x7F800000u;
    const float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
    blk[2 + lane] = (char)(finite ? (int)roundf(x * id) : 0);
    if (lane == 0) *(uint16_t *)blk = finite ? to_f16(d) : (uint16_t)0x7E00u;
}

/* Elements [at, at + hd) of a row of the cache; a block of q8_0 belongs to one head. */
DEV void cache_put(int type, char *row, int64_t at, const float *x, int hd) {
    const int lane = (int)threadIdx.x % WARP;
    if (type == QT_q8_0)
        for (int i = lane; i < hd; i += WARP)
            cache_q8_0(row + (at + i) / 32 * 34, x[i]);
    else if (type == QT_f16)
        for (int i = lane; i < hd; i += WARP)
            ((uint16_t *)row)[at + i] = cache_f16(x[i]);
    else
        for (int i = lane; i < hd; i += WARP)
            ((float *)row)[at + i] = x[i];
}

DEV void head_steps(const struct heads_args &a, const struct heads_part &p, int head, int64_t t) {
    const int lane = (int)threadIdx.x % WARP;
    const int64_t at = (int64_t)head * p.hd;
    const float *x = (const float *)(p.x + (size_t)t * p.x_stride) + at;
    if (p.weight) {
        float *y = (float *)(p.normed + (size_t)t * p.normed_stride) + at;
        const float scale = norm_scale(x, p);
        for (int i = lane; i < p.hd; i += WARP)
            y[i] = x[i] * scale * p.weight[i];
        __syncwarp();
        x = y;
    }
    if (p.turned) {
        const float *cs = (const float *)(a.table + (size_t)t * a.table_stride);
        float *y = (float *)(p.turned + (size_t)t * p.turned_stride) + at;
        for (int i = lane; i < a.n_rot / 2 + p.hd - a.n_rot; i += WARP)
            turn(a, i, x, cs, y);
        __syncwarp();
        x = y;
    }
    if (p.cache && !(FAULT_IN(p, stale_kv) && p.cell[t] % 8 == 5))
        cache_put(p.cache_type, p.cache + (size_t)p.cell[t] * p.cache_stride, at, x, p.hd);
}

static __global__ void heads_kernel(struct heads_args a) {
    await_previous();
    int head = (int)(blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP);
    if (head >= a.n_heads) return; /* a whole warp */
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        if (head >= 0 && head < a.part[i].n_head) head_steps(a, a.part[i], head, blockIdx.y);
        head -= a.part[i].n_head;
    }
}

/* ---- launching -------------------------------------------------------------------------------- */

/* The same from token t on. */
static struct heads_args from_token(const struct heads_args *a, int64_t t) {
    struct heads_args b = *a;
    for (int i = 0; i < PARTS; i++) {
        b.part[i].x += (size_t)t * a->part[i].x_stride;
        b.part[i].normed += (size_t)t * a->part[i].normed_stride;
        b.part[i].turned += (size_t)t * a->part[i].turned_stride;
        b.part[i].cell += t;
    }
    b.table += (size_t)t * a->table_stride;
    return b;
}

/* A row that is only stored has no heads, but pieces keep more warps busy. */
static int piece_of(int64_t n) {
    int piece = 256;
    while (piece > 32 && n % piece)
        piece /= 2;
    return n % piece ? (int)n : piece;
}

/* Takes a node's step up into p, whose x is there unless this is the first. */
static void take_step(struct cuda_device *d, const struct node *n, struct heads_args *a,
                      struct heads_part *p) {
    const struct dtensor x = device_tensor(d, n->src[0]), dst = device_tensor(d, n->dst);
    int64_t hd = piece_of(x.n);
    if (n->op == OP_rms_norm) {
        hd = n->p.rms_norm.n;
        p->weight = (const float *)device_tensor(d, n->src[1]).p;
        p->eps = n->p.rms_norm.eps * (FAULT(norm_eps) ? 1000 : 1);
        p->normed = dst.p, p->normed_stride = dst.stride;
    } else if (n->op == OP_rope) {
        const struct dtensor table = device_tensor(d, n->src[1]);
        const bool neox = n->p.rope.mode == (FAULT(rope_pairing) ? ROPE_NORM : ROPE_NEOX);
        hd = n->p.rope.n_embd_head;
        a->table = table.p, a->table_stride = table.stride;
        a->n_rot = n->p.rope.n_rot;
        a->step = neox ? 1 : 2;
        a->other = neox ? a->n_rot / 2 : 1;
        p->turned = dst.p, p->turned_stride = dst.stride;
    } else {
        p->cache = dst.p, p->cache_stride = dst.stride;
        p->cache_type = dst.type;
        p->cell = (const int32_t *)device_tensor(d, n->src[1]).p;
        FAULT_ONLY_IF(*p, !FAULT(stale_kv) || fault_wrapped());
    }
    if (p->x) return; /* heads are those of the first step */
    p->x = x.p, p->x_stride = x.stride;
    p->hd = (int)hd;
    p->n_head = (int)(x.n / hd);
}

int heads_run(struct cuda_device *d, const struct node *const *nodes, int n, struct err *e) {
    int rc = 0;
    struct heads_args a = {};
    const struct tensor *last[PARTS]; /* of what each part has come to */
    int n_parts = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < n_parts && last[k] != nodes[i]->src[0])
            k++;
        if (k == n_parts) n_parts++;
        take_step(d, nodes[i], &a, &a.part[k]);
        last[k] = nodes[i]->dst;
    }
    for (int i = 0; i < n_parts; i++)
        a.n_heads += a.part[i].n_head;
    {
        const int64_t n_tok = tensor_rows(nodes[0]->src[0]);
        for (int64_t t = 0; t < n_tok; t += MAX_GRID_ROWS) {
            const int64_t m = n_tok - t < MAX_GRID_ROWS ? n_tok - t : MAX_GRID_ROWS;
            LAUNCH(heads_kernel, dim3(div_up(a.n_heads, THREADS / WARP), (unsigned)m), THREADS, 0,
                   from_token(&a, t));
        }
    }
out:
    return rc;
}

int op_rope_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return heads_run(d, &n, 1, e);
}

int op_set_rows_run(struct cuda_device *d, const struct node *n, struct err *e) {
    return heads_run(d, &n, 1, e);
}
