/* SPDX-License-Identifier: MIT
 * arm.c - opening the arm that its parameters describe; see arm.h. */
#include "arm/arm.h"

#include <stddef.h>

int arm_open(struct arm **out, const struct arm_params *p, struct err *e) {
    return p->act_like ? arm_open_act_like(out, p, e) : arm_open_builtin(out, p, e);
}

void arm_close(struct arm *a) {
    if (a) a->ops->release(a);
}
