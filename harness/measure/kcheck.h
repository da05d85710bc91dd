/* SPDX-License-Identifier: MIT
 * kcheck.h - one cell of the tables at a real shape: what it computes against ref, and running it.
 *
 * A case is loaded with random data, checked, and then run as often as a timer wants. Weights and
 * KV caches are copied through a large block of memory and used in turn, so that they come from
 * memory (cold), as in a model whose layers take turns; activations stay where they are (warm).
 *
 * The check runs the very call that is timed. ref is too slow to follow at full size, so it
 * computes a sample: some rows of weights for all tokens of a product, some tokens of any other op.
 * An error is a mean square over the mean square of what is right, of the worst row. */
#ifndef GGAUGE_KCHECK_H
#define GGAUGE_KCHECK_H

#include "base/rng.h"
#include "measure/kcase.h"

/* Shapes of one layer; those of Llama 3.1 8B with kshape_default. */
struct kshape {
    int64_t n, n_rows; /* row length and rows of a product's weights */
    int64_t n_ff, n_head, n_head_kv, n_embd_head, n_vocab;
};
#define KSHAPE_DEFAULT { 4096, 4096, 14336, 32, 8, 128, 128256 }

struct kcheck_params {
    struct kshape shape;
    struct thread_pool *pool; /* borrowed */
    int n_threads;            /* 1..size of the pool */
    void *cold;               /* borrowed, 64-byte aligned: copies of what is cold */
    size_t cold_bytes;
    double tolerance; /* what promised errors are multiplied by; 1 is what is promised */
    uint64_t seed;
};

struct kcheck;

/* *out: the case ready to run; ERR_UNSUPPORTED if nothing here makes data for it, or the shape does
 * not suit the type. */
int kcheck_new(struct kcheck **out, const struct kcheck_params *p, const struct kcase *c,
               struct err *e);
void kcheck_free(struct kcheck *k); /* NULL is allowed */

struct kresult {
    bool passed;
    double nmse, limit;
    char why[160]; /* empty if it passed */
};

/* Compute once on n_threads threads and compare with ref and, bit for bit, with one thread. */
int kcheck_run(struct kcheck *k, struct kresult *r, struct err *e);

/* `calls` calls, each on the next copy of what is cold. */
int kcheck_call(struct kcheck *k, int64_t calls, struct err *e);

/* What one call does. */
struct kwork {
    int n_tok;         /* of the case, or fewer where memory sets a limit */
    double macs;       /* multiply-adds; 0 where the count says nothing */
    double cold_bytes; /* read from memory */
    double warm_bytes; /* read and written in caches, counted only where nothing is cold */
    double footprint;  /* bytes that all calls together go through */
    enum peak peak;    /* the compute peak to compare with */
    int64_t n_copies;  /* of the cold data */
};
void kcheck_work(const struct kcheck *k, struct kwork *w);

/* NMSE of the worst of n_rows rows of n elements; rows are judged by their own mean square, but not
 * by less than that of all. INFINITY if an element is finite on one side alone. */
double kcheck_nmse(const double *got, const double *want, int64_t n_rows, int64_t n);

/* False if an op of the table has no shapes here. */
bool kcheck_has_op(enum op op);

#endif
