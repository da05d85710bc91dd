/* SPDX-License-Identifier: MIT
 * windows.h - which tokens are fed together and which of their positions are scored.
 *
 * A window is n_ctx tokens evaluated from an empty cache at positions 0 .. n_ctx-1. The logits at
 * position p predict the token at p+1, so p is scored for first <= p < end and `end` is at most
 * n_ctx-1: the target of the last position would belong to somebody else. Pure functions of
 * their arguments; nothing here allocates or remembers.
 *
 * Source: the perplexity tool of ik_llama.cpp 8337e4cd (examples/perplexity). */
#ifndef GGAUGE_WINDOWS_H
#define GGAUGE_WINDOWS_H

#include <stdint.h>

#include "base/err.h"

struct windows {
    int n_ctx;      /* tokens per window */
    int first, end; /* scored positions [first, end) */
    int64_t step;   /* tokens from the start of a window to the start of the next */
    int64_t n;      /* windows */
};

/* Chunks that do not overlap, the second half scored: n_ctx - 1 - n_ctx/2 positions of each.
 * A remainder of less than n_ctx tokens is dropped; limit < 0 = all chunks. Less than 2*n_ctx
 * tokens are an error, and so is n_ctx < 3, where nothing would be scored. */
int windows_plain(struct windows *w, int64_t n_tokens, int n_ctx, int64_t limit, struct err *e);

/* Overlapping windows of W = n_ctx + stride/2 tokens, one every `stride` tokens, whose last
 * `stride` targets are scored: each token after the first window is predicted once, from W - stride
 * to W - 1 tokens. The peer takes for W the padded size of its cache, which depends on -b and
 * -fa; W is unpadded here, and equal to the peer's where -b equals -c and W is a multiple of
 * 256. */
int windows_strided(struct windows *w, int64_t n_tokens, int n_ctx, int stride, int64_t limit,
                    struct err *e);

/* Sequences that one logical batch of n_batch tokens holds: max(1, n_batch / n_ctx). A batch
 * shorter than a window feeds one window in pieces. */
static inline int windows_n_seq(int n_batch, int n_ctx) {
    return n_batch > n_ctx ? n_batch / n_ctx : 1;
}

static inline int64_t windows_start(const struct windows *w, int64_t i) {
    return i * w->step;
}

static inline int windows_n_scored(const struct windows *w) {
    return w->end - w->first;
}

/* The token fed at position p of window i: the text's own, but `bos` at position 0 of every window
 * when bos >= 0 (pass -1 for a vocabulary without add_bos). */
static inline int32_t windows_input(const struct windows *w, const int32_t *tokens, int64_t i,
                                    int p, int32_t bos) {
    return p == 0 && bos >= 0 ? bos : tokens[windows_start(w, i) + p];
}

/* The token that the logits at position p of window i are asked for: always the text's own. */
static inline int32_t windows_target(const struct windows *w, const int32_t *tokens, int64_t i,
                                     int p) {
    return tokens[windows_start(w, i) + p + 1];
}

#endif
