/* SPDX-License-Identifier: MIT
 * nvml.h - what NVIDIA's management library says of the cards on which a context runs: clocks,
 * power, energy, memory, driver.
 *
 * The library is opened at run time and asked for one fact at a time. What it does not say, or says
 * absurdly, is NAN here, and whoever writes rows leaves it out; without the library or without a
 * card there is no struct nvml at all, and every function takes NULL. Nothing is sampled while
 * something is timed: counters are read before it and behind it, and clocks behind it, before the
 * card can rest.
 *
 * All facts are of whole cards, whoever uses them. Several cards: energy, power and memory are
 * sums, a clock is that of the slowest. Calls for one struct come from one thread at a time. */
#ifndef GGAUGE_NVML_H
#define GGAUGE_NVML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define NVML_CARDS_MAX 8
#define NVML_BUS_ID_BYTES 32

struct nvml;

/* Find n cards by their PCI addresses ("0000:17:00.0") and note the memory in use, which is then
 * what was there before: call it before anything is allocated on them. *out = NULL without an error
 * if the library or one of the cards is missing, if one is split into instances (MIG: its facts are
 * of all of them), or n = 0. The library is libnvidia-ml.so.1, or the file that GGAUGE_NVML names,
 * none if that is empty. The only error is ERR_NOMEM. */
int nvml_open(struct nvml **out, const char (*bus_id)[NVML_BUS_ID_BYTES], int n, struct err *e);
void nvml_close(struct nvml *v);

/* "550.54.14", or "". Valid until nvml_close. */
const char *nvml_driver(const struct nvml *v);

/* ---- timed parts ----------------------------------------------------------------------------- */

/* Sums over timed parts of one kind; starts as { 0 }. */
struct nvml_use {
    int n_parts, n_cards;
    bool counted; /* joules come from the cards' counters, else from power at the end, times time */
    double seconds, joules, sm_mhz, mem_mhz;
};

/* Around what is timed, outside of the readings of its clock; seconds is what it took. */
void nvml_begin(struct nvml *v);
void nvml_end(struct nvml *v, double seconds, struct nvml_use *u);

struct nvml_facts {
    double sm_mhz, mem_mhz; /* means of what was read at the end of each part */
    double watts;           /* mean over the parts */
    double token_j;         /* joules a token */
    bool counted;           /* as in struct nvml_use */
};

/* Shortest parts (their mean) whose power and energy are told. What a card says of its power is up
 * to 100 ms old (arXiv 2312.02741), so a counter shifts a part by as much, into whatever ran
 * before; a reading of power is a mean over a second since Ampere (NVML API reference,
 * nvmlDeviceGetPowerUsage). */
#define NVML_COUNTED_S 0.5
#define NVML_POWER_S 1.0

/* Facts of parts with n_tokens tokens each. */
struct nvml_facts nvml_facts_of(const struct nvml_use *u, int64_t n_tokens);

/* ---- memory ---------------------------------------------------------------------------------- */

struct nvml_vram {
    double used_bytes;  /* on the cards, now */
    double delta_bytes; /* of it, what was not in use at nvml_open */
};

struct nvml_vram nvml_vram_of(struct nvml *v);

#endif
