/* SPDX-License-Identifier: MIT
 * tool_text.h - reading what the programs of llama.cpp and ik_llama.cpp print: the chunk values of
 * llama-perplexity, the tables of llama-sweep-bench and llama-bench in each of their forms. */
#ifndef GGAUGE_TOOL_TEXT_H
#define GGAUGE_TOOL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

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

/* One measurement: n_pp tokens as a prompt or n_tg one by one, behind n_kv in the cache. */
struct speed_text {
    int n_pp, n_tg, n_kv;
    double pp_tps, tg_tps;   /* NaN: not measured */
    double pp_low, pp_high, tg_low, tg_high; /* one standard deviation around it; NaN */
    char model[128], build[64]; /* "" if the table does not say */
};
typedef int (*speed_text_fn)(void *arg, const struct speed_text *s, struct err *e);

/* A whole file: llama-sweep-bench as a table or JSON lines, llama-bench as Markdown, CSV or JSON
 * lines. Other lines are passed over. *kind: "sweep-bench" or "bench". ERR_FORMAT if there is no
 * measurement. */
int speed_text_read(const char *text, size_t n, const char *name, const char **kind,
                    speed_text_fn fn, void *arg, struct err *e);

#endif
