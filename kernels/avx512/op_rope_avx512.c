/* SPDX-License-Identifier: MIT
 * op_rope_avx512.c - rotates pairs of each head by the table of op_rope_table; contract in op.h.
 *
 * Cosines and sines of sixteen pairs are taken apart once and serve all heads of the token. */
#include <string.h>

#include "exp_avx512.h"
#include "op.h"

/* Pairs i .. i + 15 of all heads; half = n_rot / 2. */
static void neox(const float *cs, const float *in, float *out, const struct node *node, int64_t i) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    int64_t half = node->p.rope.n_rot / 2, hd = node->p.rope.n_embd_head;
    __mmask16 m = lanes16(half - i);
    __m512 low = _mm512_maskz_loadu_ps(lanes16(2 * (half - i)), cs + 2 * i);
    __m512 high = _mm512_maskz_loadu_ps(lanes16(2 * (half - i) - 16), cs + 2 * i + 16);
    __m512 c = _mm512_permutex2var_ps(low, even, high), s = _mm512_permutex2var_ps(low, odd, high);
    for (int64_t h = 0; h < node->p.rope.n_head; h++, in += hd, out += hd) {
        __m512 a = _mm512_maskz_loadu_ps(m, in + i), b = _mm512_maskz_loadu_ps(m, in + i + half);
        _mm512_mask_storeu_ps(out + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(out + i + half, m, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

/* Elements e .. e + 15, eight pairs, of all heads. */
static void norm(const float *cs, const float *in, float *out, const struct node *node, int64_t e) {
    int64_t hd = node->p.rope.n_embd_head;
    __mmask16 m = lanes16(node->p.rope.n_rot - e);
    __m512 t = _mm512_maskz_loadu_ps(m, cs + e);
    __m512 c = _mm512_moveldup_ps(t), s = _mm512_movehdup_ps(t);
    for (int64_t h = 0; h < node->p.rope.n_head; h++, in += hd, out += hd) {
        __m512 x = _mm512_maskz_loadu_ps(m, in + e);
        __m512 other = _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), s);
        _mm512_mask_storeu_ps(out + e, m, _mm512_fmaddsub_ps(x, c, other));
    }
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *x = node->src[0], *table = node->src[1];
    int64_t n_rot = node->p.rope.n_rot, hd = node->p.rope.n_embd_head;
    const int64_t grain = work_grain(x->row_bytes);
    for (int64_t t, end; work_rows(w, x->ne[1], grain, &t, &end);)
        for (; t < end; t++) {
            const float *cs = tensor_row(table, t), *in = tensor_row(x, t);
            float *out = tensor_row(node->dst, t);
            if (node->p.rope.mode == ROPE_NEOX)
                for (int64_t i = 0; i < n_rot / 2; i += 16)
                    neox(cs, in, out, node, i);
            else
                for (int64_t e = 0; e < n_rot; e += 16)
                    norm(cs, in, out, node, e);
            for (int64_t h = 0; h < node->p.rope.n_head && n_rot < hd; h++)
                memcpy(out + h * hd + n_rot, in + h * hd + n_rot,
                       (size_t)(hd - n_rot) * sizeof *out);
        }
}

const struct op_cell op_rope_avx512 = { .run = run };
