/* SPDX-License-Identifier: MIT
 * nvml.c - facts of cards from NVIDIA's management library; see nvml.h.
 *
 * Source of the functions, their types and constants: NVML API reference (docs.nvidia.com/deploy/
 * nvml-api), whose ABI is kept from version to version; no header of it is needed. */
#include "exec/nvml.h"

#include <ctype.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"

#define LIBRARY "libnvidia-ml.so.1"
#define NVML_SUCCESS 0
enum { CLOCK_SM = 1, CLOCK_MEM = 2 }; /* nvmlClockType_t */
#define DRIVER_BYTES 80               /* NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE */

/* Beyond these a value is a mistake: several times what any card has. */
#define MAX_CARD_WATTS 5000.0
#define MAX_CLOCK_MHZ 100000u

struct memory { /* nvmlMemory_t, bytes */
    unsigned long long total, free, used;
};

/*    field   function                             arguments */
#define NVML_LIST(X)                                                                               \
    X(init, nvmlInit_v2, (void))                                                                   \
    X(stop, nvmlShutdown, (void))                                                                  \
    X(find, nvmlDeviceGetHandleByPciBusId_v2, (const char *id, void **card))                       \
    X(mig, nvmlDeviceGetMigMode, (void *card, unsigned *now, unsigned *pending))                   \
    X(driver, nvmlSystemGetDriverVersion, (char *text, unsigned n_bytes))                          \
    X(energy, nvmlDeviceGetTotalEnergyConsumption, (void *card, unsigned long long *mj))           \
    X(power, nvmlDeviceGetPowerUsage, (void *card, unsigned *mw))                                  \
    X(clock, nvmlDeviceGetClockInfo, (void *card, int which, unsigned *mhz))                       \
    X(memory, nvmlDeviceGetMemoryInfo, (void *card, struct memory *m))

struct api { /* NULL: this library does not have it */
#define X(field, function, args) int(*field) args;
    NVML_LIST(X)
#undef X
};

struct nvml {
    void *so;
    bool running; /* init has succeeded */
    struct api api;
    int n_cards;
    void *card[NVML_CARDS_MAX];
    bool counted;
    double begin_j, begin_bytes; /* of a timed part; when opened */
    char driver[DRIVER_BYTES];
};

/* The library has the function, and the function an answer. */
#define SAYS(v, field, ...) ((v)->api.field && (v)->api.field(__VA_ARGS__) == NVML_SUCCESS)

/* ---- reading --------------------------------------------------------------------------------- */

static double joules_of(struct nvml *v) {
    double sum = 0;
    for (int i = 0; i < v->n_cards; i++) {
        unsigned long long mj = 0;
        sum += SAYS(v, energy, v->card[i], &mj) ? (double)mj * 1e-3 : (double)NAN;
    }
    return sum;
}

static double watts_of(struct nvml *v) {
    double sum = 0;
    for (int i = 0; i < v->n_cards; i++) {
        unsigned mw = 0;
        sum += SAYS(v, power, v->card[i], &mw) && mw > 0 ? mw * 1e-3 : (double)NAN;
    }
    return sum;
}

static double mhz_of(struct nvml *v, int which) {
    unsigned slowest = MAX_CLOCK_MHZ;
    for (int i = 0; i < v->n_cards; i++) {
        unsigned mhz = 0;
        if (!SAYS(v, clock, v->card[i], which, &mhz) || mhz == 0 || mhz >= MAX_CLOCK_MHZ)
            return (double)NAN;
        if (mhz < slowest) slowest = mhz;
    }
    return slowest;
}

static double used_bytes_of(struct nvml *v) {
    double sum = 0;
    for (int i = 0; i < v->n_cards; i++) {
        struct memory m = { 0 };
        const bool ok = SAYS(v, memory, v->card[i], &m) && m.total > 0 && m.used <= m.total;
        sum += ok ? (double)m.used : (double)NAN;
    }
    return sum;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Whoever names a library is told when it cannot be had; a machine without one is an ordinary one.
 */
static void *open_library(void) {
    const char *named = getenv("GGAUGE_NVML");
    if (named && !named[0]) return NULL;
    void *so = dlopen(named ? named : LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!so && named) log_msg(LOG_WARN, "GGAUGE_NVML: %s; nothing is known of cards", dlerror());
    return so;
}

static void load(struct nvml *v) {
    void *p;
    /* ISO C has no cast from object to function pointers. */
#define X(field, function, args)                                                                   \
    p = dlsym(v->so, #function);                                                                   \
    memcpy(&v->api.field, &p, sizeof p);
    NVML_LIST(X)
#undef X
}

static bool find_cards(struct nvml *v, const char (*bus_id)[NVML_BUS_ID_BYTES], int n) {
    for (int i = 0; i < n; i++) {
        unsigned split = 0, pending = 0;
        if (!SAYS(v, find, bus_id[i], &v->card[i])) return false;
        if (SAYS(v, mig, v->card[i], &split, &pending) && split) return false;
    }
    v->n_cards = n;
    return true;
}

static void read_driver(struct nvml *v) {
    if (!SAYS(v, driver, v->driver, DRIVER_BYTES)) v->driver[0] = '\0';
    v->driver[DRIVER_BYTES - 1] = '\0';
    for (const char *c = v->driver; *c; c++)
        if (!isgraph((unsigned char)*c)) v->driver[0] = '\0';
}

int nvml_open(struct nvml **out, const char (*bus_id)[NVML_BUS_ID_BYTES], int n, struct err *e) {
    *out = NULL;
    if (n < 1 || n > NVML_CARDS_MAX) return 0;
    struct nvml *v = heap_calloc(1, sizeof *v, e);
    if (!v) return ERR_NOMEM;
    v->so = open_library();
    if (v->so) load(v);
    v->running = v->api.stop && v->api.init && v->api.init() == NVML_SUCCESS;
    if (!v->running || !find_cards(v, bus_id, n)) {
        nvml_close(v);
        return 0;
    }
    read_driver(v);
    v->counted = !isnan(joules_of(v));
    v->begin_bytes = used_bytes_of(v);
    *out = v;
    return 0;
}

void nvml_close(struct nvml *v) {
    if (!v) return;
    if (v->running) v->api.stop();
    if (v->so) dlclose(v->so);
    heap_free(v);
}

const char *nvml_driver(const struct nvml *v) {
    return v ? v->driver : "";
}

/* ---- facts ----------------------------------------------------------------------------------- */

void nvml_begin(struct nvml *v) {
    if (v && v->counted) v->begin_j = joules_of(v);
}

void nvml_end(struct nvml *v, double seconds, struct nvml_use *u) {
    if (!v) return;
    const double joules = v->counted ? joules_of(v) - v->begin_j : watts_of(v) * seconds;
    u->counted = v->counted;
    u->n_cards = v->n_cards;
    u->n_parts++;
    u->seconds += seconds;
    u->joules +=
        joules >= 0 ? joules : (double)NAN; /* a driver that was loaded anew counts from 0 */
    u->sm_mhz += mhz_of(v, CLOCK_SM);
    u->mem_mhz += mhz_of(v, CLOCK_MEM);
}

struct nvml_facts nvml_facts_of(const struct nvml_use *u, int64_t n_tokens) {
    const double none = (double)NAN;
    struct nvml_facts f = { none, none, none, none, u->counted };
    if (u->n_parts == 0) return f;
    f.sm_mhz = u->sm_mhz / u->n_parts;
    f.mem_mhz = u->mem_mhz / u->n_parts;
    const double watts = u->joules / u->seconds;
    const bool long_enough =
        u->seconds / u->n_parts >= (u->counted ? NVML_COUNTED_S : NVML_POWER_S);
    if (!long_enough || !(watts > 0 && watts <= MAX_CARD_WATTS * u->n_cards)) return f;
    f.watts = watts;
    if (n_tokens > 0) f.token_j = u->joules / ((double)n_tokens * u->n_parts);
    return f;
}

struct nvml_vram nvml_vram_of(struct nvml *v) {
    const double used = v ? used_bytes_of(v) : (double)NAN;
    const double delta = v ? used - v->begin_bytes : (double)NAN;
    /* Below zero somebody else has given memory back. */
    return (struct nvml_vram){ used, delta >= 0 ? delta : (double)NAN };
}
