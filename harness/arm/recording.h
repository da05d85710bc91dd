/* SPDX-License-Identifier: MIT
 * recording.h - an arm that remembers what another arm answered, so that a slow one has to compute
 * a text once only, however often it is compared with others.
 *
 * A row's key is all tokens of its sequence up to it, and its target. What is remembered is the row
 * without logits, 56 bytes. */
#ifndef GGAUGE_RECORDING_H
#define GGAUGE_RECORDING_H

#include "arm/arm.h"

/* *out passes everything on to `source`, which the caller keeps open until it is closed or
 * recording_detach is called, and remembers every row that was asked for. */
int arm_open_recording(struct arm **out, struct arm *source, struct err *e);
/* From now on only what is remembered is answered, without `source`; anything else is
 * ERR_MISSING. */
void recording_detach(struct arm *a);

#endif
