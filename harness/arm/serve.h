/* SPDX-License-Identifier: MIT
 * serve.h - the worker's side: an arm served to the program that has started this process.
 *
 * The program sends FRAME_hello and gets FRAME_welcome, then FRAME_open and gets FRAME_opened or
 * FRAME_error. After that each request is answered before the next one:
 *
 *     decode, rows     row* done
 *     trim, observe    done
 *     (any)            error instead of done
 *
 * With an observer on, FRAME_graph comes before a graph runs and is answered by FRAME_wants; each
 * wanted node then gives FRAME_see with its data, answered by FRAME_seen. FRAME_stop, sent while
 * rows arrive, ends them with an error. The end of the input is the end of the worker. */
#ifndef GGAUGE_SERVE_H
#define GGAUGE_SERVE_H

#include "arm/arm.h"

typedef int (*serve_open_fn)(struct arm **out, const struct arm_params *p, struct err *e);

/* Serve requests from `in` until it ends, answers to `out`. A request that fails is no error here;
 * one that breaks the protocol is. */
int arm_serve(int in, int out, serve_open_fn open_arm, struct err *e);

/* The same on standard input and output. Those are taken away first: what a library prints goes to
 * standard error, what it reads is empty. */
int arm_serve_stdio(serve_open_fn open_arm, struct err *e);

#endif
