/* SPDX-License-Identifier: MIT
 * localise_impl.h - what the files of localisation share: captures of both arms, the runs of a
 * window under an observer, judging, and naming. Only localise.c, capture.c, judge_rows.c, probe.c
 * and classify.c include it. */
#ifndef GGAUGE_LOCALISE_IMPL_H
#define GGAUGE_LOCALISE_IMPL_H

#include "exec/observer.h"
#include "measure/judge.h"
#include "measure/localise.h"

/* Rows that one node of one arm made in the last run; cells of a cache in its own type. */
struct captured {
    enum qtype type;
    size_t row_bytes;
    int64_t n_cols;
    int64_t r0, cap; /* rows [r0, r0 + cap) are kept */
    int64_t n_seen;  /* rows seen so far: the next row's place in the batch */
    void *data;      /* [cap] rows; NULL: not captured */
};

struct side {
    struct arm *arm;
    const char *model;
    struct judge *judge;   /* B's is A's if model and cache types are the same */
    enum column column;    /* COL_none: another engine */
    enum qtype *act;       /* [n_nodes] COL_none: how it seems to round what goes into products */
    enum qtype last_act;   /* of the product judged last */
    struct captured *cap;  /* [n_nodes] */
    double *nll;           /* [n_seq][end - first] of the last observed run */
    int flag;              /* WRONG_A or WRONG_B */
};

/* The window once more under an observer. */
enum see_mode {
    SEE_CAPTURE, /* keep the rows */
    SEE_COMPARE, /* compare with A's rows */
    SEE_FORCE,   /* keep, compare, and go on with A's rows */
};

struct loc {
    const struct localise_params *p;
    struct localise *out;
    struct side a, b;
    int n_tok;       /* of the batch: n_seq windows of n_ctx */
    int n_nodes, n_groups;
    int *group;      /* [n_nodes] 0 = in front of the layers, il + 1, n_layer + 1 = behind them */
    int *layer_out;  /* [n_layer] node l_out-il */
    bool *want;      /* [n_nodes] of the current run */
    bool *report;    /* [n_nodes] compared on equal inputs in the current run */
    float *row_err;  /* [n_nodes][n_tok] NMSE of B's row against A's, on equal inputs */
    int64_t head_step; /* rows of a slice of the head */
    float *x, *y;    /* [longest row] */
    int32_t *pos, *seq; /* [n_tok] of the batch */
    int32_t *other;     /* [n_tok] other tokens, for loc_scrub */
    bool *all;          /* [n_tok] true */
};

/* ---- capture.c: runs ------------------------------------------------------------------------ */

/* Feed the window from an empty cache, every position wanted, its rows held; o = NULL:
 * unobserved. */
int loc_feed(struct loc *l, struct side *s, struct observer *o, struct err *e);
/* Fill the cache with other tokens, so that a cell which is not stored again shows. */
int loc_scrub(struct loc *l, struct side *s, struct err *e);
/* Rows [r0, r0 + n) of the head; with nll (may be NULL) the scored ones' are noted there. */
int loc_ask(struct loc *l, struct side *s, struct observer *o, int64_t r0, int64_t n, double *nll,
            struct err *e);
/* Run the body under mode; what B's rows differ goes to errors[i] (may be NULL for SEE_CAPTURE) for
 * the nodes in l->want. */
int loc_body(struct loc *l, struct side *s, enum see_mode mode, struct op_error *const *errors,
             struct err *e);
/* The same for rows of the head, after loc_body of the same side. */
int loc_head(struct loc *l, struct side *s, enum see_mode mode, struct op_error *const *errors,
             int64_t r0, int64_t n, double *nll, struct err *e);
void loc_release_captures(struct loc *l);

/* ---- judge_rows.c: the judge's part ---------------------------------------------------------- */

/* Judge the nodes of l->report whose rows are captured; budget in multiplications. head_only: those
 * of the head, for the slice that is there. */
int loc_judge(struct loc *l, bool head, double budget, struct err *e);
/* Both arms' rows of node i are here. */
bool loc_captured(const struct loc *l, int i);
/* Node i for these rows by the judge of s, as f32 [n, n_cols] in ref, with the arm's own rows in
 * got. *c (released by the caller) holds the inputs. */
int loc_expected(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n,
                 struct op_case *c, float *ref, float *got, struct err *e);
/* Node i of side s for these rows, ascending, on the inputs that it went on with: A's where B was
 * forced to them, and what ref makes of those where the arm shows nothing. */
int loc_case(struct loc *l, struct side *s, int i, const int32_t *row, int64_t n, struct op_case *c,
             struct err *e);
/* A's capture of node i, or B's if A does not show it. */
const struct captured *loc_shown(const struct loc *l, int i);
/* Up to n_max rows of node i: the worst and some spread over the window; ascending. */
int64_t loc_pick_rows(const struct loc *l, int i, int64_t n_max, int32_t *row);
enum qtype loc_act(const struct side *s, int i);

/* ---- probe.c -------------------------------------------------------------------------------- */

/* Why side s computes product i wrongly; fills kind and the weight's part of the finding. */
int loc_probe(struct loc *l, struct side *s, int i, struct finding_detail *f, struct err *e);

/* ---- classify.c ----------------------------------------------------------------------------- */

/* Whether a weight of node i differs between the files: WEIGHTS, FORMAT or NONE. f may be NULL. */
enum finding loc_files(const struct loc *l, int i, struct finding_detail *f);
/* Choose and explain the first bad node; makes the capsule. */
int loc_classify(struct loc *l, struct err *e);

#endif
