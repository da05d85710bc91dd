/* SPDX-License-Identifier: MIT
 * synth.h - writes GGUF files of random weights: any architecture of ARCH_LIST, any shape, any
 * mixture of types; for speed tests at sizes that nobody wants to download, and for shapes that no
 * real model has.
 *
 * A file is streamed in blocks of rows, so its size needs no memory. Every row is seeded by the
 * seed, the tensor's name and the row's number: the same call gives the same bytes on any number of
 * threads, and a tensor keeps its weights whatever else is in the file. */
#ifndef GGAUGE_SYNTH_H
#define GGAUGE_SYNTH_H

#include "base/rng.h"
#include "gguf/gguf.h"
#include "model/hparams.h"

struct synth_params {
    const char *name;   /* general.name; NULL = "synth" */
    struct hparams hp;  /* every field that a file has a key for; hp.n_vocab >= SYNTH_MIN_VOCAB */
    bool tied;          /* no output.weight: the embedding serves */
    double llama3_factor; /* for rope_freqs.weight as in Llama 3; 0 = no such tensor */
    enum qtype type, type_embd, type_output; /* of matrices; QT_none = as type */
    const char *custom; /* "REGEX=TYPE,REGEX=TYPE": types by tensor name, the first match wins */
    /* Random quant bits with scales of the right size for every quantised type, also for those that
     * weights could be quantised to: fast. Types without a quantiser get them in any case. */
    bool random_bits;
    uint64_t seed;
    int n_threads; /* >= 1 */
    /* May be NULL; after every block of rows. */
    void (*progress)(void *arg, int64_t done_bytes, int64_t total_bytes);
    void *progress_arg;
};

/* The alphabet of bytes and two control tokens. */
#define SYNTH_MIN_VOCAB 258

/* What the types of the file got, for messages; the file says the same in its keys synth.*. */
struct synth_report {
    int64_t n_tensors, n_params, n_bytes; /* n_bytes: of all tensors */
    bool random[QT_count];                /* filled with random bits */
};

/* "llama-3.2-1b|llama-3.1-8b|..." */
const char *synth_preset_names(void);
/* Shape and settings of a preset; types, seed and the like keep their values. ERR_ARG for an
 * unknown name. */
int synth_preset(struct synth_params *p, const char *name, struct err *e);

/* Write the file. ERR_ARG names what does not fit; ERR_UNSUPPORTED a type that nothing here can
 * fill; ERR_IO a disk without room. Nothing is left behind after an error. r may be NULL. */
int synth_write(const struct synth_params *p, const char *path, struct synth_report *r,
                struct err *e);

/* ---- rows (synth_rows.c) --------------------------------------------------------------------- */

enum synth_kind { SYNTH_MATRIX, SYNTH_NORM, SYNTH_BIAS, SYNTH_ROPE_FREQS };

struct synth_tensor {
    char name[64];
    int64_t n0, n1; /* row length, rows */
    enum qtype type;
    enum synth_kind kind;
    double sd;     /* standard deviation of a matrix's weights */
    uint64_t seed; /* of this tensor */
    bool bits;     /* random quant bits */
    float *column; /* [n0] scales of the columns of a matrix, borrowed */
};

/* Tables that all rows share; read-only after synth_rows_init, thread safe. */
struct synth_rows {
    float *quantile;         /* [65536] of the standard normal distribution */
    double unit[QT_count];   /* root mean square of random bits at scale 1 */
};

int synth_rows_init(struct synth_rows *s, struct err *e);
void synth_rows_release(struct synth_rows *s);
/* Fill t->column. */
void synth_columns(const struct synth_rows *s, struct synth_tensor *t);
/* Row r of a tensor but rope_freqs, in its own type; f32: scratch [n0] floats. */
void synth_row(const struct synth_rows *s, const struct synth_tensor *t, int64_t r, float *f32,
               void *out);
/* The generator of one row, or any other part, of what has this seed. */
struct rng synth_rng(uint64_t seed, uint64_t part);

/* ---- vocabulary (synth_vocab.c) -------------------------------------------------------------- */

/* A byte-level BPE vocabulary of n tokens: 256 bytes, words in the order of a tree over the
 * letters, BOS and EOS; any text can be tokenised. pre: tokenizer.ggml.pre. */
int synth_put_vocab(struct gguf_writer *w, int64_t n, const char *pre, bool add_bos,
                    struct err *e);

#endif
