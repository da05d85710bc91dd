/* SPDX-License-Identifier: MIT
 * fake_nvml.c - a management library without cards; see fake_nvml.h. The functions are declared
 * here once more from NVML's API reference, so that a mistake in the program's list shows. */
#include "fake_nvml.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

typedef int nvmlReturn_t; /* an enum of the same size */
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef enum {
    NVML_CLOCK_GRAPHICS,
    NVML_CLOCK_SM,
    NVML_CLOCK_MEM,
    NVML_CLOCK_VIDEO
} nvmlClockType_t;
typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;
#define NVML_ERROR_UNINITIALIZED 1
#define NVML_ERROR_INVALID_ARGUMENT 2
#define NVML_ERROR_NOT_FOUND 6

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode,
                                  unsigned int *pendingMode);
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy);
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power);
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);

struct nvmlDevice_st {
    int index;
};
static struct nvmlDevice_st devices[FAKE_CARDS] = { { 0 }, { 1 } };

extern struct fake_nvml fake_nvml_state;
struct fake_nvml fake_nvml_state = {
    .driver = FAKE_DRIVER,
    .mw = { 1000 * FAKE_WATTS, 1000 * FAKE_WATTS },
    .sm_mhz = { 1980, 1755 },
    .mem_mhz = { 2619, 2600 },
    .used = { 3ull << 30, 1ull << 30 },
    .total = 80ull << 30,
    .by_clock = 1,
};

/* 0 if the call is to be answered. */
static nvmlReturn_t enter(enum fake_call c) {
    fake_nvml_state.n_calls[c]++;
    if (c != FAKE_init && fake_nvml_state.n_open < 1) return NVML_ERROR_UNINITIALIZED;
    return fake_nvml_state.fail[c];
}

nvmlReturn_t nvmlInit_v2(void) {
    const nvmlReturn_t rc = enter(FAKE_init);
    if (rc == 0) fake_nvml_state.n_open++;
    return rc;
}

nvmlReturn_t nvmlShutdown(void) {
    if (fake_nvml_state.n_open < 1) return NVML_ERROR_UNINITIALIZED;
    fake_nvml_state.n_open--;
    return 0;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    const nvmlReturn_t rc = enter(FAKE_driver);
    if (rc == 0) snprintf(version, length, "%s", fake_nvml_state.driver);
    return rc;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device) {
    unsigned domain, bus, dev, function;
    const nvmlReturn_t rc = enter(FAKE_find);
    if (rc) return rc;
    if (sscanf(pciBusId, "%x:%x:%x.%x", &domain, &bus, &dev, &function) != 4)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (domain != 0xFFFF || bus >= FAKE_CARDS || dev || function) return NVML_ERROR_NOT_FOUND;
    *device = &devices[bus];
    return 0;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *currentMode,
                                  unsigned int *pendingMode) {
    (void)device;
    *currentMode = *pendingMode = fake_nvml_state.split;
    return enter(FAKE_mig);
}

#ifndef FAKE_OLD
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy) {
    struct timespec t;
    const nvmlReturn_t rc = enter(FAKE_energy);
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (rc) return rc;
    *energy = fake_nvml_state.mj[device->index];
    if (fake_nvml_state.by_clock)
        *energy = FAKE_WATTS * (1000ull * (unsigned long long)t.tv_sec +
                                (unsigned long long)t.tv_nsec / 1000000);
    return 0;
}
#endif

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power) {
    const nvmlReturn_t rc = enter(FAKE_power);
    if (rc == 0) *power = fake_nvml_state.mw[device->index];
    return rc;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                    unsigned int *clock) {
    if (type != NVML_CLOCK_SM && type != NVML_CLOCK_MEM) return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t rc = enter(type == NVML_CLOCK_SM ? FAKE_sm : FAKE_mem);
    if (rc == 0)
        *clock = (type == NVML_CLOCK_SM ? fake_nvml_state.sm_mhz
                                        : fake_nvml_state.mem_mhz)[device->index];
    return rc;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    const nvmlReturn_t rc = enter(FAKE_memory);
    if (rc == 0)
        *memory =
            (nvmlMemory_t){ .total = fake_nvml_state.total,
                            .free = fake_nvml_state.total - fake_nvml_state.used[device->index],
                            .used = fake_nvml_state.used[device->index] };
    return rc;
}
