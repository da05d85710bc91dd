/* SPDX-License-Identifier: MIT
 * faulty_arm.h - an arm whose node is computed wrongly, for tests of localisation: it wraps a
 * built-in arm and spoils the data of one node before anybody else sees it, observed or not. */
#ifndef GGAUGE_TEST_FAULTY_ARM_H
#define GGAUGE_TEST_FAULTY_ARM_H

#include <string.h>

#include "arm/arm.h"
#include "base/arena.h"
#include "exec/observer.h"

/* Row r of the node, counted from the start of the window: data [n_cols]. */
typedef void (*spoil_fn)(const struct node *n, int64_t t, int64_t r, void *row);

struct faulty_arm {
    struct arm base; /* first: ops get this pointer */
    struct arm *inner;
    struct observer mine, *theirs;
    const char *name;
    int occurrence;
    spoil_fn spoil;
    bool only_unobserved; /* a fault that hides from observers */
    bool hidden;          /* the node is shown to nobody */
    int64_t n_rows;       /* of the node so far */
};

static inline bool faulty_is(const struct faulty_arm *f, const struct node *n) {
    return n->occurrence == f->occurrence && !strcmp(n->dst->name, f->name);
}

static inline bool faulty_want(void *arg, const struct node *n) {
    struct faulty_arm *f = arg;
    if (f->hidden && faulty_is(f, n)) return false;
    return faulty_is(f, n) || (f->theirs && f->theirs->want(f->theirs->arg, n));
}

static inline int faulty_see(void *arg, const struct node *n, void *data, struct err *e) {
    struct faulty_arm *f = arg;
    bool spoilt = faulty_is(f, n) && !(f->only_unobserved && f->theirs);
    for (int64_t t = 0; spoilt && t < node_rows(n); t++)
        f->spoil(n, t, f->n_rows++, (char *)data + (size_t)t * n->dst->row_bytes);
    if (!f->theirs || !f->theirs->want(f->theirs->arg, n)) return 0;
    return f->theirs->see(f->theirs->arg, n, data, e);
}

static inline int faulty_observe(struct arm *a, struct observer *o, struct err *e) {
    struct faulty_arm *f = (struct faulty_arm *)a;
    f->theirs = o;
    return arm_observe(f->inner, &f->mine, e);
}

static inline int faulty_decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn,
                                void *arg, struct err *e) {
    return arm_decode(((struct faulty_arm *)a)->inner, b, fn, arg, e);
}

static inline int faulty_hold(struct arm *a, const struct arm_batch *b, bool append,
                              struct err *e) {
    return arm_hold(((struct faulty_arm *)a)->inner, b, append, e);
}

static inline int faulty_rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target,
                              bool logits, arm_row_fn fn, void *arg, struct err *e) {
    struct faulty_arm *f = (struct faulty_arm *)a;
    f->n_rows = r0;
    return arm_rows(f->inner, r0, n, target, logits, fn, arg, e);
}

static inline int faulty_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    struct faulty_arm *f = (struct faulty_arm *)a;
    f->n_rows = pos;
    return arm_kv_trim(f->inner, seq, pos, e);
}

/* Wrap `inner`, which stays the caller's. */
static inline int faulty_arm_init(struct faulty_arm *f, struct arm *inner, const char *name,
                                  int occurrence, spoil_fn spoil, struct err *e) {
    static const struct arm_ops ops = { .decode = faulty_decode,
                                        .hold = faulty_hold,
                                        .rows = faulty_rows,
                                        .kv_trim = faulty_trim,
                                        .observe = faulty_observe };
    *f = (struct faulty_arm){ .inner = inner, .name = name, .occurrence = occurrence,
                              .spoil = spoil };
    f->base.ops = &ops;
    f->base.info = inner->info;
    f->mine = (struct observer){ .arg = f, .want = faulty_want, .see = faulty_see };
    return arm_observe(inner, &f->mine, e);
}

#endif
