/* SPDX-License-Identifier: MIT
 * tool_text.h - reading what the programs of llama.cpp and ik_llama.cpp print: the chunk values of
 * llama-perplexity, the tables of llama-sweep-bench and llama-bench in each of their forms. */
#ifndef GGAUGE_TOOL_TEXT_H
#define GGAUGE_TOOL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "result/row.h"

/* ---- llama-perplexity ------------------------------------------------------------------------ */

/* "[1]54.9318,[2]60.4144,...", in pieces as they come. Start from { 0 }. */
struct ppl_text {
    char word[64]; /* of a value that is not yet complete, from its '[' on */
    size_t n;
    int64_t n_chunks; /* seen so far; they must come in order */
    int64_t n_planned;  /* "over N chunks", 0 = not said */
    int n_ctx;          /* "n_ctx=N", 0 = not said */
    char line[512];     /* the line that is being read, for the above */
    size_t n_line;
};
/* The running perplexity up to chunk i (from 1 on); NaN where the program printed one. */
typedef int (*ppl_text_fn)(void *arg, int64_t i, double ppl, struct err *e);

/* ERR_FORMAT if chunks do not follow each other. */
int ppl_text_feed(struct ppl_text *p, const char *text, size_t n, ppl_text_fn fn, void *arg,
                  struct err *e);

/* ---- tables of speeds ------------------------------------------------------------------------ */

/* What a table says of the run: column of Markdown, key of CSV and JSON, field of a result row. */
#define SPEED_SAID_LIST(X)                                                                         \
    X("model", "model_type", ROW_model)                                                            \
    X(NULL, "build_commit", ROW_engine_commit)                                                     \
    X("threads", "n_threads", ROW_n_threads)                                                       \
    X("n_batch", "n_batch", ROW_n_batch)                                                           \
    X("n_ubatch", "n_ubatch", ROW_n_ubatch)                                                        \
    X("type_k", "type_k", ROW_type_k)                                                              \
    X("type_v", "type_v", ROW_type_v)

/* One measurement: n_pp tokens as a prompt, n_tg one by one, or both in one go, behind n_kv in the
 * cache. The standard deviations of llama-bench are passed over: they are no intervals. */
struct speed_text {
    const char *test; /* "sweep-bench" or "bench" */
    int n_pp, n_tg, n_kv;
    double pp_tps, tg_tps, eval_tps; /* finite and above 0; NaN: not measured */
    const char *said[ROW_field_count]; /* by the fields of SPEED_SAID_LIST; NULL: not said */
};
typedef int (*speed_text_fn)(void *arg, const struct speed_text *s, struct err *e);
/* A measurement, or half of one, that is not handed on, and the line where it stands. */
typedef void (*speed_refused_fn)(void *arg, int64_t line, const char *why);

/* A whole file: llama-sweep-bench as a table or JSON lines, llama-bench as Markdown, CSV or JSON
 * lines, one after the other. Other lines and tables are passed over. `refused` may be NULL.
 * ERR_FORMAT if no measurement is handed on. */
int speed_text_read(const char *text, size_t n, const char *name, speed_text_fn fn,
                    speed_refused_fn refused, void *arg, struct err *e);

#endif
