/* SPDX-License-Identifier: MIT
 * heads_cuda.cu - what happens to the heads of q, k and v between their products and attention: the
 * norm of a head, its rotation, its way into the cache. As the ops rms_norm (of parts of a row),
 * rope and set_rows, contracts in op.h, or as all of them in one launch (fuse.cuh).
 *
 * Grid [heads / 4, tokens], block of 4 warps, a warp a head, whose elements stay in registers from
 * step to step (element lane + 32 k is slot k) and are written where each step has to leave them.
 * Shared: a head for each warp, where rotated pairs meet. set_rows has the bits of ref. Bound by
 * the latency of one load from memory: what no kernel writes (weights, cell numbers) is fetched
 * while the one before still runs, elements and the rotation's table at once. */
#include "cuda/fuse.cuh"

#define THREADS 128
#define MAX_GRID_ROWS 32768
#define PARTS 3

/* Heads of one tensor and their steps, each NULL if it is not taken. */
struct heads_part {
    const char *x; /* [n_tok, n], heads of hd; the last one may be shorter if it is only stored */
    size_t x_stride;
    int n_head, hd, n;
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
    const char *table; /* cos and sin of the rotation, a row a token */
    size_t table_stride;
    int n_rot, step, other; /* pair i: elements step * i and step * i + other */
};

/* A NaN keeps its upper bits, as f32_to_f16 does. */
DEV uint16_t cache_f16(float x) {
    const uint32_t u = bits_of(x);
    const uint16_t nan = (uint16_t)((u >> 16 & 0x8000u) | 0x7E00u | (u >> 13 & 0x1FFu));
    return (u & 0x7FFFFFFFu) > 0x7F800000u ? nan : to_f16(x);
}

/* Element `lane` of a block, whose largest magnitude is amax, as legacy_ref.c quantises it: d =
 * amax / 127, q = x * (1 / d) rounded half away from zero, d then rounded to binary16; a block with
 * a NaN or infinity gets a NaN scale. */
DEV void cache_q8_0(char *blk, float x, float amax) {
    const int lane = (int)threadIdx.x % WARP;
    const bool finite = (bits_of(amax) & 0x7F800000u) != 0x7F800000u;
    const float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
    blk[2 + lane] = (char)(finite ? (int)roundf(x * id) : 0);
    if (lane == 0) *(uint16_t *)blk = finite ? to_f16(d) : (uint16_t)0x7E00u;
}

/* A head, or what becomes of it; zeros behind its len elements. */
template <int SLOTS> struct head {
    float x[SLOTS];
    int len;
};
/* Slots are worked on side by side: what one lane in a branch waits for, all do. */
#define FOR_SLOTS(k, e)                                                                            \
    _Pragma("unroll") for (int k = 0, e = (int)threadIdx.x % WARP; k < SLOTS; k++, e += WARP)

template <int SLOTS>
DEV void head_norm(const struct heads_part &p, struct head<SLOTS> *h, const float *weight) {
    float sum = 0;
    FOR_SLOTS(k, e) {
        sum = fmaf(h->x[k], h->x[k], sum);
    }
    const float scale =
        1.0f / sqrtf(warp_sum(sum) / (FAULT_IN(p, norm_mean) ? 1.0f : (float)p.hd) + p.eps);
    FOR_SLOTS(k, e) {
        h->x[k] = h->x[k] * scale * weight[k];
    }
}

/* The elements that those of the slots are rotated with, themselves if they are not. */
template <int SLOTS> DEV void head_partners(const struct heads_args &a, int *partner) {
    if (a.step == 2) {
        FOR_SLOTS(k, e) {
            partner[k] = e < a.n_rot ? e ^ 1 : e;
        }
    } else {
        FOR_SLOTS(k, e) {
            partner[k] = e < a.other ? e + a.other : e < a.n_rot ? e - a.other : e;
        }
    }
}

/* cs: cosines and sines of the slots' pairs; all: shared memory for the head. */
template <int SLOTS>
DEV void head_turn(struct head<SLOTS> *h, const int *partner, const float2 *cs, float *all) {
    float other[SLOTS];
    FOR_SLOTS(k, e) {
        all[e] = h->x[k];
    }
    __syncwarp();
    FOR_SLOTS(k, e) {
        other[k] = all[partner[k]];
    }
    FOR_SLOTS(k, e) {
        const float x = h->x[k], y = other[k];
        const float first = x * cs[k].x - y * cs[k].y, second = y * cs[k].y + x * cs[k].x;
        h->x[k] = e == partner[k] ? x : e < partner[k] ? first : second;
    }
}

template <int SLOTS> DEV void head_put(const struct head<SLOTS> &h, char *row, int64_t at) {
    FOR_SLOTS(k, e) {
        if (e < h.len) ((float *)row)[at + e] = h.x[k];
    }
}

/* Elements [at, at + len) of a row of the cache; a block of q8_0 belongs to one head. */
template <int SLOTS>
DEV void cache_put(int type, const struct head<SLOTS> &h, char *row, int64_t at) {
    if (type == QT_f32) {
        head_put(h, row, at);
    } else if (type == QT_f16) {
        FOR_SLOTS(k, e) {
            if (e < h.len) ((uint16_t *)row)[at + e] = cache_f16(h.x[k]);
        }
    } else {
        float amax[SLOTS];
        FOR_SLOTS(k, e) {
            amax[k] = warp_max_nan(fabsf(h.x[k]));
        }
        FOR_SLOTS(k, e) {
            if (e < h.len) cache_q8_0(row + (at + e) / 32 * 34, h.x[k], amax[k]);
        }
    }
}

template <int SLOTS>
DEV void head_steps(const struct heads_args &a, const struct heads_part &p, int i, int64_t t,
                    float *all) {
    const int64_t at = (int64_t)i * p.hd;
    struct head<SLOTS> h;
    float weight[SLOTS];
    float2 cs[SLOTS];
    int partner[SLOTS];
    h.len = p.n - at < p.hd ? (int)(p.n - at) : p.hd;
    const int32_t cell = p.cache ? p.cell[t] : 0;
    if (p.weight) FOR_SLOTS(k, e) {
            weight[k] = e < h.len ? p.weight[e] : 0;
        }
    if (p.turned) head_partners<SLOTS>(a, partner);
    await_previous();
    FOR_SLOTS(k, e) {
        h.x[k] = e < h.len ? ((const float *)(p.x + (size_t)t * p.x_stride))[at + e] : 0;
    }
    if (p.turned) FOR_SLOTS(k, e) {
            const int first = e < partner[k] ? e : partner[k], pair = first >> (a.step - 1);
            cs[k] = ((const float2 *)(a.table +
                                      (size_t)t * a.table_stride))[e == partner[k] ? 0 : pair];
        }
    if (p.weight) {
        head_norm(p, &h, weight);
        head_put(h, p.normed + (size_t)t * p.normed_stride, at);
    }
    if (p.turned) {
        head_turn(&h, partner, cs, all);
        head_put(h, p.turned + (size_t)t * p.turned_stride, at);
    }
    if (p.cache && !(FAULT_IN(p, stale_kv) && cell % 8 == 5))
        cache_put(p.cache_type, h, p.cache + (size_t)cell * p.cache_stride, at);
}

template <int SLOTS>
static __global__ void __launch_bounds__(THREADS) heads_kernel(struct heads_args a) {
    SHARED(shared);
    float *all = (float *)shared + warp_index() * SLOTS * WARP;
    int i = (int)blockIdx.x * (THREADS / WARP) + warp_index();
    struct heads_part p = a.part[0];
#pragma unroll
    for (int k = 1; k < PARTS; k++)
        if (i >= p.n_head) {
            i -= p.n_head;
            p = a.part[k];
        }
    if (i < p.n_head)
        head_steps<SLOTS>(a, p, i, blockIdx.y, all);
    else
        await_previous(); /* a whole warp */
}

/* ---- launching --------------------------------------------------------------------------------
 */

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
#define PIECE 256

/* Takes a node's step up into p, whose x is there unless this is the first. */
static void take_step(struct cuda_device *d, const struct node *n, struct heads_args *a,
                      struct heads_part *p) {
    const struct dtensor x = device_tensor(d, n->src[0]), dst = device_tensor(d, n->dst);
    int64_t hd = x.n < PIECE ? x.n : PIECE;
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
    p->n = (int)x.n;
    p->n_head = (int)div_up(x.n, (int)hd);
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
    bool large = false;
    int n_heads = 0;
    for (int i = 0; i < n_parts; i++) {
        n_heads += a.part[i].n_head;
        large |= a.part[i].hd > 8 * WARP;
    }
    {
        const auto kernel = large ? &heads_kernel<HEADS_MAX / WARP> : &heads_kernel<8>;
        const int64_t n_tok = tensor_rows(nodes[0]->src[0]);
        for (int64_t t = 0; t < n_tok; t += MAX_GRID_ROWS) {
            const int64_t m = n_tok - t < MAX_GRID_ROWS ? n_tok - t : MAX_GRID_ROWS;
            LAUNCH(kernel, dim3(div_up(n_heads, THREADS / WARP), (unsigned)m), THREADS,
                   (THREADS / WARP) * (large ? HEADS_MAX : 8 * WARP) * sizeof(float),
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
