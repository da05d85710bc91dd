/* SPDX-License-Identifier: MIT
 * cmd.h - COMMAND_LIST: the subcommands of ggauge. Each lives in cmd_<name>.c with '-' as '_'.
 *
 * Only this folder prints or exits. Results go to stdout, everything else to stderr. */
#ifndef GGAUGE_CMD_H
#define GGAUGE_CMD_H

#include "base/err.h"

/*    name          symbol       one line for the overview */
#define COMMAND_LIST(X)                                                                            \
    X("types",       types,       "the tables of types, ops and backends of this build")           \
    X("perplexity",  perplexity,  "is the quant still good? PPL and KL divergence of a text")      \
    X("compare",     compare,     "do two ways of running it agree? a verdict, and where not")     \
    X("sweep-bench", sweep_bench, "how fast, and how far in? PP and TG at growing KV depth")       \
    X("regress",     regress,     "two revisions of llama.cpp: do they agree, is one slower?")     \
    X("bench",       bench,       "llama-bench's table: prompt and generation speed")              \
    X("replay",      replay,      "one op of a capsule again, on any column, against its limit")   \
    X("limits",      limits,      "the error of every cell on real activations, and its limit")    \
    X("kernel-bench", kernel_bench, "every cell of the tables: right? how fast? near the peak?")   \
    X("synth",       synth,       "a GGUF file of random weights at any shape, for speed tests")   \
    X("history",     history,     "rebuild the SQLite index over the result CSV files")            \
    X("import",      import,      "tables of llama-sweep-bench and llama-bench as result rows")    \
    X("inspect",     inspect,     "metadata, hyper-parameters and tensors of a GGUF file")         \
    X("tokenize",    tokenize,    "token ids of a text")                                           \
    X("dump",        dump,        "one tensor, dequantised, as raw little-endian f32")           \
    X("worker",      worker,      "an engine for another process, which starts this by itself")

/* Exit codes of the program. */
enum {
    EXIT_PASS = 0,
    EXIT_FAIL = 1,        /* a check failed */
    EXIT_USAGE = 2,
    EXIT_ENVIRONMENT = 3, /* files, memory, devices */
    EXIT_UNDECIDED = 125,
};

/* argv[0] is the command's name. Returns the exit code, or a negative ERR_ code with *e set, which
 * main prints and maps to an exit code. */
typedef int (*cmd_fn)(int argc, char **argv, struct err *e);

#define X(name, symbol, help) int cmd_##symbol(int argc, char **argv, struct err *e);
COMMAND_LIST(X)
#undef X

#endif
