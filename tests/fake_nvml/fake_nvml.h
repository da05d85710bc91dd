/* SPDX-License-Identifier: MIT
 * fake_nvml.h - a management library without cards, for tests of harness/exec/nvml.h: two cards at
 * the addresses of the emulated devices (tests/cuda_emu), which say what struct fake_nvml tells
 * them.
 *
 * A test opens the same file, finds the struct by its name and changes it. As it lies there, each
 * card takes FAKE_WATTS by the clock, so that whole runs can be checked. -DFAKE_OLD makes a library
 * of a time before cards counted their energy. */
#ifndef GGAUGE_FAKE_NVML_H
#define GGAUGE_FAKE_NVML_H

#define FAKE_CARDS 2
#define FAKE_WATTS 250
#define FAKE_DRIVER "550.54.14"
#define FAKE_SYMBOL "fake_nvml_state"

enum fake_call {
    FAKE_init,
    FAKE_find,
    FAKE_mig,
    FAKE_driver,
    FAKE_energy,
    FAKE_power,
    FAKE_sm,
    FAKE_mem,
    FAKE_memory,
    FAKE_count,
};

struct fake_nvml {
    int fail[FAKE_count]; /* what a call returns instead of an answer; 0 = it answers */
    int n_calls[FAKE_count];
    int n_open; /* nvmlInit_v2 less nvmlShutdown */
    const char *driver;
    unsigned split; /* instances are enabled */
    unsigned mw[FAKE_CARDS], sm_mhz[FAKE_CARDS], mem_mhz[FAKE_CARDS];
    unsigned long long used[FAKE_CARDS], total;
    int by_clock;                         /* 0: mj is what a card has counted */
    unsigned long long mj[FAKE_CARDS];
};

#endif
