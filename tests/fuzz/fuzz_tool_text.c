/* SPDX-License-Identifier: MIT
 * fuzz_tool_text.c - what other programs print is believed in nothing: tables and chunk values in
 * any bytes.
 *
 * The first byte says into how many pieces the text is cut for the chunk values. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "measure/tool_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static double sum; /* so that values are looked at */

static int on_value(void *arg, int64_t i, double ppl, struct err *e) {
    (void)e;
    int64_t *last = arg;
    if (i != ++*last) abort();
    sum += ppl;
    return 0;
}

static int on_speed(void *arg, const struct speed_text *s, struct err *e) {
    (void)arg, (void)e;
    sum += s->n_kv + s->n_pp + s->n_tg;
    if (s->pp_tps <= 0 || s->tg_tps <= 0 || s->eval_tps <= 0) abort();
    for (int f = 0; f < ROW_field_count; f++)
        if (s->said[f]) sum += (double)strlen(s->said[f]);
    return 0;
}

static void on_refused(void *arg, int64_t line, const char *why) {
    (void)arg;
    if (line < 1 || !why[0]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e;
    struct ppl_text p = { 0 };
    int64_t last = 0;
    if (n < 1) return 0;
    const char *text = (const char *)data + 1;
    const size_t step = data[0] ? data[0] : n;
    n--;
    for (size_t at = 0; at < n; at += step)
        if (ppl_text_feed(&p, text + at, n - at < step ? n - at : step, on_value, &last, &e) < 0)
            break;
    speed_text_read(text, n, "fuzz", on_speed, on_refused, NULL, &e);
    return 0;
}
