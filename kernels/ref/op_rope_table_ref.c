/* SPDX-License-Identifier: MIT
 * op_rope_table_ref.c - cosines and sines of the rotary embedding for the positions of a batch;
 * contract in op.h. One table serves all layers.
 *
 * theta_e = pos * base^(-2i / n_rot) / divisor_i; theta = freq_scale * theta_e, or with YaRN
 * (ext_factor != 0) a mixture of both by a ramp over i, and an amplitude above 1.
 * Sources: Su et al. 2021 (RoPE); Peng et al. 2023 (YaRN, sections 3.2 to 3.4). */
#include <math.h>

#include "base/fault.h"
#include "op.h"

/* The dimension whose wavelength makes `turns` full turns over the original context. */
static double correction_dim(const struct node *n, double turns) {
    double ctx = (double)n->p.rope_table.n_ctx_orig;
    return n->p.rope_table.n_rot * log(ctx / (turns * 2 * M_PI)) /
           (2 * log(n->p.rope_table.freq_base));
}

static void run(const struct node *node, struct work *w) {
    const struct tensor *pos = node->src[0], *divisors = node->src[1];
    int n_rot = node->p.rope_table.n_rot;
    double ext = node->p.rope_table.ext_factor, scale = node->p.rope_table.freq_scale;
    double amplitude = node->p.rope_table.attn_factor, low = 0, high = 0;
    if (ext != 0) {
        low = fmax(0, floor(correction_dim(node, node->p.rope_table.beta_fast)));
        high = fmin(n_rot - 1, ceil(correction_dim(node, node->p.rope_table.beta_slow)));
        amplitude *= 1 + 0.1 * log(1 / scale);
    }
    for (int64_t t; (t = work_next(w)) < node->dst->ne[1];) {
        float *out = tensor_row(node->dst, t);
        double p = ((const int32_t *)pos->data)[t];
        for (int i = 0; i < n_rot / 2; i++) {
            double divisor = divisors ? ((const float *)divisors->data)[i] : 1.0;
            double base = FAULT(rope_base) ? 10000 : node->p.rope_table.freq_base;
            double theta_e = p * pow(base, -2.0 * i / n_rot) / divisor;
            double theta = scale * theta_e;
            if (ext != 0) {
                double ramp = (i - low) / fmax(0.001, high - low);
                double mix = (1 - fmin(1, fmax(0, ramp))) * ext;
                theta = theta * (1 - mix) + theta_e * mix;
            }
            out[2 * i] = (float)(amplitude * cos(theta));
            out[2 * i + 1] = (float)(amplitude * sin(theta));
        }
    }
}

const struct op_cell op_rope_table_ref = { .run = run };
