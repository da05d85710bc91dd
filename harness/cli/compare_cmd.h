/* SPDX-License-Identifier: MIT
 * compare_cmd.h - what the files of `ggauge compare` share: cmd_compare.c parses, compare_run.c
 * runs, compare_print.c says it to people, compare_files.c writes the files of --out. */
#ifndef GGAUGE_COMPARE_CMD_H
#define GGAUGE_COMPARE_CMD_H

#include <stdio.h>

#include "cli/arm_spec.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "measure/compare.h"
#include "measure/floor.h"
#include "measure/localise.h"
#include "measure/run_rows.h"
#include "tok/tok.h"

struct compare_cmd {
    /* options */
    struct arm_params common;
    const char *model_b, *text, *spec_text[SIDE_count], *launch_b;
    const char *out, *csv, *results, *floor_file;
    int chunks, seed;
    double margin, alpha;
    bool escape, no_kld, full, matrix, ops, no_ops;
    const char *matrix_ub, *matrix_ctx, *matrix_kv, *matrix_backends;
    char *text_name, *arm_text[SIDE_count]; /* text and spec_text as UTF-8, for files; owned */

    /* while running */
    struct arm_spec spec[SIDE_count];
    struct arm *arm[SIDE_count];
    struct row what[SIDE_count]; /* arm_describe of each */
    struct text words;
    struct tok_ids ids;
    struct windows win;
    struct compare run;
    struct floor floor[SIDE_count];
    bool has_floor[SIDE_count];
    struct localise *where;  /* NULL: operations were not looked into */
    const char *ops_why_not; /* then: why */
    char ops_note[1024];
    bool has_capsule; /* OUT/capsule.gguf is there */
    struct run_rows rows;
    struct progress progress;
    int out_fd;         /* OUT, ours while it is open; -1: not yet */
    FILE *chunk_csv;    /* OUT/compare.csv while it is written */
    double t_start, t_first, t_verdict; /* first: after chunk 1; verdict: when it stood */
    double t_end;                       /* with floors and operations */
    struct verdict verdict;
};

/* Whether an arm is this very program, and no other or one elsewhere. */
static inline bool compare_arm_is_own(const struct arm_params *p) {
    return !p->path && !p->launch;
}

/* ---- compare_run.c --------------------------------------------------------------------------- */

/* Everything behind the options. Exit code or error; what it opened is the caller's to release. */
int compare_command(struct compare_cmd *c, struct err *e);
/* The vocabulary of arm A, or B's if A has none, cuts the text into c->ids and c->win. */
int compare_tokenize(struct compare_cmd *c, struct err *e);
/* A sentence of an arm's error: "arm B died: signal 9 after 3 chunks". side < 0: nobody's. */
void compare_arm_error(char *buf, size_t n, int side, const char *msg, int64_t n_chunks);

/* ---- compare_tool.c -------------------------------------------------------------------------- */

/* Is one of the arms a program that only prints chunk values? */
bool compare_has_tool(const struct compare_cmd *c);
/* Then this instead of everything behind the loaded text. Exit code or error. */
int compare_tool(struct compare_cmd *c, struct err *e);

/* ---- compare_print.c: stdout ----------------------------------------------------------------- */

void compare_print_arms(const struct compare_cmd *c);
/* The table of figures and the verdict. */
int compare_print_result(const struct compare_cmd *c, struct err *e);
/* The same as Markdown, for a pull request or a step summary. */
void compare_print_report(const struct compare_cmd *c, FILE *out);

/* ---- compare_ops.c --------------------------------------------------------------------------- */

/* Look for the first wrong operation where the verdict asks for it; may turn a PASS into a FAIL. */
int compare_look(struct compare_cmd *c, struct err *e);
/* One row for each node and arm: its error as a share of its limit. */
int compare_ops_rows(struct compare_cmd *c, struct err *e);
/* One line if all is well, the whole finding otherwise. */
void compare_ops_print(const struct compare_cmd *c, FILE *out);

/* ---- compare_files.c ------------------------------------------------------------------------- */

/* The folder of --out, made if need be; no other run writes there until this one ends. */
int compare_files_folder(struct compare_cmd *c, struct err *e);
/* Create OUT/compare.csv with its header. */
int compare_files_open(struct compare_cmd *c, struct err *e);
/* A line of compare.csv, handed to the operating system at once. */
int compare_files_chunk(struct compare_cmd *c, const struct compare_chunk *k, struct err *e);
/* report.md, summary.json, junit.xml. */
int compare_files_close(struct compare_cmd *c, struct err *e);

/* ---- compare_matrix.c ------------------------------------------------------------------------ */

/* Instead of one comparison; the arms are open, the text is cut into tokens. Exit code or error. */
int compare_matrix(struct compare_cmd *c, struct err *e);

/* "avx2 -t 2 -ub 512 f16/f16": an arm in few words. */
void compare_arm_name(const struct compare_cmd *c, int side, char *buf, size_t n);

#endif
