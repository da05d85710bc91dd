/* SPDX-License-Identifier: MIT
 * kld_file.h - saved log-probabilities of a base model: llama.cpp's --kl-divergence-base file.
 *
 *     0   8 bytes  "_logits_"
 *     8   i32      n_ctx, tokens per chunk
 *    12   i32      n_vocab
 *    16   i32      n_chunk, as planned: an interrupted run leaves a short file
 *    20   i32      tokens [n_chunk, n_ctx], the text's own (without BOS in place of the first)
 *     .   records  [n_chunk, n_ctx - 1 - n_ctx/2], of the scored positions in order
 *
 * A record is f32 scale, f32 min_log_prob and a u16 q for every token of the vocabulary, padded to
 * an even number: ln p = scale * q + min_log_prob. Everything is little-endian. Logits more than
 * `floor` nats below the largest are stored as q = 0: 24 in ik_llama.cpp, 16 in llama.cpp.
 *
 * Source: ik_llama.cpp 8337e4cd, examples/perplexity/perplexity.cpp. */
#ifndef GGAUGE_KLD_FILE_H
#define GGAUGE_KLD_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define KLD_FLOOR_IK 24
#define KLD_FLOOR_LLAMA 16
#define KLD_MAX_LOG_PROB 0.01f /* 0 and ample room for rounding */

/* Shape of a file. */
struct kld_shape {
    int32_t n_ctx, n_vocab, n_chunk;
};

/* u16 words of one record, the four of the two f32 included. */
size_t kld_record_words(int32_t n_vocab);
/* Records of one chunk. */
int kld_n_records(int32_t n_ctx);

/* Encode logits [n_vocab] as one record [kld_record_words]. max and lse as in struct arm_answer;
 * lse is rounded to f32, as the peer does. */
void kld_encode(uint16_t *rec, const float *logits, int32_t n_vocab, float max, double lse,
                int floor_nats);
/* ln p [n_vocab] of a record, at most KLD_MAX_LOG_PROB. A scale or minimum that is not finite or
 * that allows more is ERR_FORMAT. */
int kld_decode(float *log_prob, const uint16_t *rec, int32_t n_vocab, struct err *e);

/* Between what the nll of a token was when the record was made, f32 rounding included. A token
 * stored as 0 may have been any further away: *high is infinite. */
int kld_nll_bounds(const uint16_t *rec, int32_t token, double *low, double *high, struct err *e);

/* ---- writing --------------------------------------------------------------------------------- */

struct kld_writer;

/* Create PATH, or replace the saved logits there; another kind of file is left alone, ERR_ARG.
 * tokens [n_chunk, n_ctx] are written at once. */
int kld_writer_open(struct kld_writer **out, const char *path, const struct kld_shape *shape,
                    const int32_t *tokens, int floor_nats, struct err *e);
/* Go on with a file of the same shape and tokens, otherwise ERR_MISMATCH. *n_chunks in: keep at
 * most so many; out: whole chunks kept. Anything behind them is cut off. A file that does not exist
 * is created. nll_sum [*n_chunks]: what another record of the run says of each chunk; the last one
 * kept must agree within the file's rounding, otherwise these are another model's logits,
 * ERR_MISMATCH. */
int kld_writer_resume(struct kld_writer **out, const char *path, const struct kld_shape *shape,
                      const int32_t *tokens, int floor_nats, const double *nll_sum,
                      int64_t *n_chunks, struct err *e);
/* The next record. */
int kld_writer_add(struct kld_writer *w, const float *logits, float max, double lse, struct err *e);
/* Hand everything to the operating system: what was added survives the end of the process. */
int kld_writer_flush(struct kld_writer *w, struct err *e);
/* Errors of the last write are reported here; w is gone afterwards in any case. NULL is allowed. */
int kld_writer_close(struct kld_writer *w, struct err *e);

/* ---- reading --------------------------------------------------------------------------------- */

struct kld_reader;

/* Header and tokens are checked against each other and the size of the file: every token lies in
 * the vocabulary, kld_reader_n_whole() chunks are complete. No whole chunk is ERR_FORMAT. */
int kld_reader_open(struct kld_reader **out, const char *path, struct err *e);
/* The same for an open stream of n_bytes (tests, fuzzing); f is closed with the reader, or at once
 * if this fails. `name` is for messages and must outlive the reader. */
int kld_reader_open_stream(struct kld_reader **out, FILE *f, uint64_t n_bytes, const char *name,
                           struct err *e);
void kld_reader_close(struct kld_reader *r); /* NULL is allowed */

const struct kld_shape *kld_reader_shape(const struct kld_reader *r);
const int32_t *kld_reader_tokens(const struct kld_reader *r); /* [n_chunk, n_ctx] */
int64_t kld_reader_n_whole(const struct kld_reader *r);       /* complete chunks, 1..n_chunk */

/* 16 hex digits of the first and the last record of chunk 1: which model was saved. They are the
 * same for a file that was cut off behind them. */
int kld_reader_fingerprint(struct kld_reader *r, char fp[17], struct err *e);

/* Record i of the file, as stored: [kld_record_words], valid until the next call. Records of whole
 * chunks only, otherwise ERR_ARG. kld_reader_next goes on behind it. */
int kld_reader_at(struct kld_reader *r, int64_t i, const uint16_t **rec, struct err *e);

/* Decode the next record into log_prob [n_vocab]; ERR_FORMAT behind the last whole chunk. */
int kld_reader_next(struct kld_reader *r, float *log_prob, struct err *e);

#endif
