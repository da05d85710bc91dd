/* SPDX-License-Identifier: MIT
 * opt.h - option tables: parsing, validation and grouped help from one description.
 *
 * A command lists its options as an array of struct opt; opt_parse fills the variables that they
 * point at. Letters and names are those of llama.cpp. Options take their value as the next argument
 * or after '='; a long option may be written with one or two dashes when it has two in the
 * table. */
#ifndef GGAUGE_OPT_H
#define GGAUGE_OPT_H

#include <stdbool.h>
#include <stdint.h>

#include "arm/arm.h"
#include "base/err.h"
#include "exec/topology.h"

enum opt_kind {
    OPT_GROUP,   /* a heading in the help: `help` is its text */
    OPT_FLAG,    /* bool: present or not */
    OPT_NO_FLAG, /* bool: clears it */
    OPT_ON,      /* const char *: "on" if present */
    OPT_OFF,     /* const char *: "off" if present */
    OPT_INT,     /* int in [min, max] */
    OPT_DOUBLE,  /* double in [min, max], finite */
    OPT_STR,     /* const char *, points into argv */
    OPT_LIST,    /* struct opt_list */
    OPT_CHOICE,  /* const char *, one of `choices` separated by '|' */
    OPT_ONOFF,   /* bool from on|off|1|0 */
    OPT_STRS,    /* struct arm_rules: may be given several times */
};

/* Values between commas, which may also come one by one: "-p 32 -p 64" is "-p 32,64". */
struct opt_list {
    const char *text; /* the default until some are given */
    bool given;
    char joined[4096];
};

struct opt {
    enum opt_kind kind;
    const char *flags;  /* all spellings, separated by ' ': "-c --ctx-size" */
    const char *arg;    /* name of the value in the help, NULL for flags */
    void *dst;
    double min, max;    /* OPT_INT and OPT_DOUBLE */
    const char *choices;
    const char *help;   /* one line; the default is appended from *dst */
};

/* Options of the build with seeded faults alone (base/fault.h). */
#ifdef GGAUGE_FAULTS
#define OPT_IF_FAULTS(...) __VA_ARGS__,
#else
#define OPT_IF_FAULTS(...)
#endif

/* The columns that an option takes, beside ref and cuda. */
#define FAST_COLUMNS "avx2|avx512|amx|amx_requant"

#define OPT_END { .flags = NULL, .kind = OPT_GROUP, .help = NULL }

/* Parse argv[1..]. On --help or -h print the grouped help to stdout and return 1. Positional
 * arguments are an error. `usage` is the text after "usage: ggauge ". */
int opt_parse(int argc, char **argv, const struct opt *table, const char *usage, struct err *e);

/* A warning on stderr if the largest of -t and -tb is more than the processors there are. */
void opt_warn_threads(int n_threads, int n_threads_batch);

/* A note on stderr if the value of -fa asks for something else than there is. */
void opt_note_fa(const char *fa);

/* The options every measuring command shares; expand inside a table. P is a struct arm_params
 * lvalue; set its defaults first. */
#define OPT_MODEL(P)                                                                               \
    { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "model" },                                          \
    { OPT_STR, "-m --model", "FILE", &(P).model, 0, 0, NULL,                                       \
      "GGUF file (first part of a split model)" }
#define OPT_ENGINE(P)                                                                              \
    { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "engine" },                                         \
    OPT_IF_FAULTS({ OPT_STR, "--fault", "NAME", &(P).fault, 0, 0, NULL,                            \
                    "seeded fault of this arm; see ggauge types --faults" })                       \
    { OPT_CHOICE, "--backend", "COLUMN", &(P).backend, 0, 0, "ref|" FAST_COLUMNS "|cuda",          \
      "kernels to use (default: the best CPU column of this machine)" },                           \
        OPT_PLACE(P), OPT_THREADS_BATCHES(P)
#define OPT_PLACE(P)                                                                               \
    { OPT_STR, "-ngl --n-gpu-layers", "N", &(P).n_gpu_layers, 0, 0, NULL,                          \
      "with cuda: layers on devices, the last ones first (default: all, and the output)" },        \
    { OPT_STRS, "-ot --override-tensor", "REGEX=DEVICE", &(P).rules, 0, 0, NULL,                   \
      "with cuda: where products with weights of such names run, CPU or CUDA0; several "           \
      "between commas or one by one, the first match wins" },                                      \
    { OPT_STR, "-ts --tensor-split", "SHARES", &(P).tensor_split, 0, 0, NULL,                      \
      "with cuda: shares of layers of the devices: 3,1" },                                         \
    { OPT_INT, "-mg --main-gpu", "N", &(P).main_gpu, 0, 64, NULL,                                  \
      "with cuda: the device if -ts names none" },                                                 \
    { OPT_CHOICE, "--cpu-backend", "COLUMN", &(P).cpu_backend, 0, 0, "ref|" FAST_COLUMNS,          \
      "with cuda: kernels of what stays on the CPU (default: the best column)" }
#define OPT_THREADS_BATCHES(P)                                                                     \
    OPT_BATCHES(P),                                                                                \
    OPT_HUGE_PAGES(P),                                                                             \
    OPT_REPACK(P),                                                                                 \
    OPT_NUMA((P).numa),                                                                            \
    { OPT_CHOICE, "-ctk --cache-type-k", "TYPE", &(P).type_k, 0, 0, "f32|f16|q8_0",                \
      "type of the K cache" },                                                                     \
    { OPT_CHOICE, "-ctv --cache-type-v", "TYPE", &(P).type_v, 0, 0, "f32|f16|q8_0",                \
      "type of the V cache" }
#define OPT_BATCHES(P)                                                                             \
    { OPT_INT, "-t --threads", "N", &(P).n_threads, 0, 512, NULL,                                  \
      "threads (0 = all processors)" },                                                            \
    { OPT_INT, "-tb --threads-batch", "N", &(P).n_threads_batch, 0, 512, NULL,                     \
      "threads for batches (0 = as -t)" },                                                         \
    { OPT_INT, "-b --batch-size", "N", &(P).n_batch, 1, 1 << 20, NULL,                             \
      "logical batch: tokens handed over at a time" },                                             \
    { OPT_INT, "-ub --ubatch-size", "N", &(P).n_ubatch, 1, 1 << 16, NULL,                          \
      "physical batch: tokens computed at a time" }
/* Their values are what differs: llama-bench takes 0 or 1. */
#define HUGE_PAGES_FLAGS "-thp --transparent-huge-pages"
#define HUGE_PAGES_HELP "copy the weights into huge pages, if there is memory for it"
#define REPACK_FLAGS "-rtr --run-time-repack"
#define REPACK_HELP "copy trellis weights into the order in which single tokens read them"
#define OPT_HUGE_PAGES(P)                                                                          \
    { OPT_FLAG, HUGE_PAGES_FLAGS, NULL, &(P).huge_pages, 0, 0, NULL, HUGE_PAGES_HELP }
#define OPT_REPACK(P)                                                                              \
    { OPT_ON, REPACK_FLAGS, NULL, &(P).engine.rtr, 0, 0, NULL, REPACK_HELP }
#define OPT_OTHER_ARM(TEXT)                                                                        \
    { OPT_STR, "--arm", "ARM", &(TEXT), 0, 0, NULL,                                                \
      "measure another arm, written as for compare: \"lib:build/workers/llama.cpp-1a2b -fa on\"" }
#define OPT_NUMA(MODE)                                                                             \
    { OPT_CHOICE, "--numa", "MODE", &(MODE), 0, 0, NUMA_MODES,                                     \
      "pin threads, place copies (-thp, -rtr): over all nodes, on that of the start, as numactl " \
      "says" }
#define OPT_ACT_LIKE(P)                                                                            \
    { OPT_CHOICE, "--act-like", "COLUMN", &(P).act_like, 0, 0, FAST_COLUMNS "|cuda",               \
      "with ref: every product gets the rounding errors of COLUMN's activations" }

#endif
