/* SPDX-License-Identifier: MIT
 * arm.c - opening the arm that its parameters describe; see arm.h. */
#include "arm/arm.h"

#include <math.h>
#include <stddef.h>

#include "base/fp16.h"

int arm_open(struct arm **out, const struct arm_params *p, struct err *e) {
    if (p->kind == ARM_WORKER) return arm_open_worker(out, p, e);
    if (p->kind == ARM_FILE) return arm_open_file(out, p, e);
    return p->act_like ? arm_open_act_like(out, p, e) : arm_open_builtin(out, p, e);
}

void arm_close(struct arm *a) {
    if (a) a->ops->release(a);
}

static bool is_finite_f32(float x) {
    return (f32_bits(x) & 0x7f800000u) != 0x7f800000u;
}

void arm_reduce(struct arm_row *out, int64_t r, const struct arm_answer *a, int32_t n_vocab,
                int32_t target, bool logits) {
    const float *l = a->logits;
    *out = (struct arm_row){ .r = r,
                             .max = a->max,
                             .lse = a->lse,
                             .top1 = a->top1,
                             .bad = -1,
                             .second = -INFINITY,
                             .logits = logits ? l : NULL };
    for (int32_t i = 0; i < n_vocab; i++) {
        if (!is_finite_f32(l[i])) {
            out->bad = i;
            out->nll = (double)NAN;
            return;
        }
        if (l[i] > out->second && i != a->top1) out->second = l[i];
    }
    out->nll = a->lse - (double)(l[target] - (float)a->max);
}
