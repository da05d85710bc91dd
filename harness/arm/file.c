/* SPDX-License-Identifier: MIT
 * file.c - the arm of saved logits; see arm.h and kld_file.h.
 *
 * A batch says which tokens it is made of, the file which chunk they are. The tokens of a sequence
 * are kept until it is trimmed, and its chunk is looked up when rows are wanted: behind the chunk
 * found last, then from the start. While a window arrives in pieces its chunk may still be another
 * one with the same beginning; rows already held then follow. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arm/arm.h"
#include "arm/kld_file.h"
#include "base/arena.h"
#include "result/row.h"
#include "tok/tok.h"

/* What a sequence has been fed since position 0. */
struct fed {
    int32_t *token; /* [n_ctx] */
    int n;
    int64_t serial; /* another window, another number */
    int64_t chunk;  /* -1 = not looked up yet */
};

struct held_row {
    int32_t seq, pos;
    int64_t serial, chunk;
};

struct file_arm {
    struct arm arm;
    char *path;
    struct kld_reader *reader;
    struct tok *tok;
    struct fed *fed; /* [n_seq] */
    int32_t *tokens; /* of all sequences */
    int64_t last_chunk, last_serial;
    struct held_row *held;
    int64_t n_held, max_held;
    float *log_prob; /* [n_vocab] */
    char fp[17];
};

static struct file_arm *self(struct arm *a) {
    return (struct file_arm *)a;
}

/* ---- which chunk ----------------------------------------------------------------------------- */

/* First position at which the chunk differs from what was fed, or f->n. */
static int first_difference(const struct file_arm *s, const struct fed *f, int64_t chunk) {
    const int n_ctx = kld_reader_shape(s->reader)->n_ctx;
    const int32_t *t = kld_reader_tokens(s->reader) + chunk * n_ctx;
    bool bos = !s->tok || f->token[0] == tok_bos(s->tok);
    if (!bos && f->token[0] != t[0]) return 0;
    int p = 1;
    while (p < f->n && f->token[p] == t[p])
        p++;
    return p < f->n ? p : f->n;
}

static int find_chunk(struct file_arm *s, struct fed *f, struct err *e) {
    int rc = 0;
    const struct kld_shape *shape = kld_reader_shape(s->reader);
    const int64_t n = shape->n_chunk, guess = (s->last_chunk + 1) % n;
    if (f->chunk >= 0 && first_difference(s, f, f->chunk) == f->n) return 0;
    int64_t k = 0;
    while (k < n && first_difference(s, f, (guess + k) % n) < f->n)
        k++;
    int at = k == n ? first_difference(s, f, guess) : 0;
    FAIL_IF(k == n, e, ERR_MISMATCH,
            "%s: none of its %" PRId64 " chunks has these tokens; chunk %" PRId64
            " has %d at position %d, not %d",
            s->path, n, guess + 1, kld_reader_tokens(s->reader)[guess * shape->n_ctx + at], at,
            f->token[at]);
    f->chunk = (guess + k) % n;
    FAIL_IF(f->chunk >= kld_reader_n_whole(s->reader), e, ERR_FORMAT,
            "%s: the file ends before the logits of chunk %" PRId64 ", of %" PRId64
            " chunks %" PRId64 " are whole",
            s->path, f->chunk + 1, n, kld_reader_n_whole(s->reader));
    s->last_chunk = f->chunk;
    for (int64_t r = 0; r < s->n_held; r++)
        if (s->held[r].serial == f->serial) s->held[r].chunk = f->chunk;
out:
    if (rc < 0) f->chunk = -1;
    return rc;
}

static int feed(struct file_arm *s, const struct arm_batch *b, int i, struct err *e) {
    int rc = 0;
    const struct kld_shape *shape = kld_reader_shape(s->reader);
    FAIL_IF(b->seq[i] < 0 || b->seq[i] >= s->arm.info.n_seq, e, ERR_ARG,
            "token %d of the batch belongs to sequence %d of %d", i, b->seq[i], s->arm.info.n_seq);
    struct fed *f = &s->fed[b->seq[i]];
    FAIL_IF(b->pos[i] != f->n, e, ERR_ARG,
            "token %d of the batch is at position %d of sequence %d, whose next position is %d", i,
            b->pos[i], b->seq[i], f->n);
    FAIL_IF(f->n >= shape->n_ctx, e, ERR_ARG,
            "position %d of sequence %d does not fit in a context of %d", f->n, b->seq[i],
            shape->n_ctx);
    if (f->n == 0) {
        f->serial = ++s->last_serial;
        f->chunk = -1;
    }
    f->token[f->n++] = b->token[i];
out:
    return rc;
}

static int hold_row(struct file_arm *s, const struct arm_batch *b, int i, struct err *e) {
    int rc = 0;
    struct fed *f = &s->fed[b->seq[i]];
    const int n_ctx = kld_reader_shape(s->reader)->n_ctx, first = n_ctx / 2;
    FAIL_IF(b->pos[i] < first || b->pos[i] >= n_ctx - 1, e, ERR_MISMATCH,
            "%s: no record of position %d; those of a context of %d are %d to %d", s->path,
            b->pos[i], n_ctx, first, n_ctx - 2);
    TRY(find_chunk(s, f, e));
    if (s->n_held == s->max_held) {
        int64_t max = s->max_held ? 2 * s->max_held : 256;
        struct held_row *p = heap_realloc(s->held, (size_t)max * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        s->held = p;
        s->max_held = max;
    }
    s->held[s->n_held++] = (struct held_row){ b->seq[i], b->pos[i], f->serial, f->chunk };
out:
    return rc;
}

/* Windows that arrive together are looked up in the order of their sequences. */
static int take(struct file_arm *s, const struct arm_batch *b, struct err *e) {
    int rc = 0;
    for (int i = 0; i < b->n; i++)
        TRY(feed(s, b, i, e));
    for (int i = 0; b->want && i < b->n; i++)
        if (b->want[i]) TRY(hold_row(s, b, i, e));
out:
    return rc;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* The log-probabilities of a held row, as logits: their log-sum-exp is 0 by definition. */
static int read_row(struct file_arm *s, int64_t r, struct arm_answer *a, struct err *e) {
    int rc = 0;
    const struct kld_shape *shape = kld_reader_shape(s->reader);
    const struct held_row *h = &s->held[r];
    const int64_t record = h->chunk * kld_n_records(shape->n_ctx) + h->pos - shape->n_ctx / 2;
    const uint16_t *rec;
    float head[2], *lp = s->log_prob;
    *a = (struct arm_answer){ .logits = lp };
    TRY(kld_reader_at(s->reader, record, &rec, e));
    memcpy(head, rec, sizeof head);
    if (isfinite(head[0]) && isfinite(head[1])) {
        rc = kld_decode(lp, rec, shape->n_vocab, e);
        if (rc < 0)
            err_prefix(e, "%s: chunk %" PRId64 ", position %d", s->path, h->chunk + 1, h->pos);
        TRY(rc);
    } else { /* the saved logits were not finite */
        for (int32_t i = 0; i < shape->n_vocab; i++)
            lp[i] = NAN;
    }
    for (int32_t i = 1; i < shape->n_vocab; i++)
        if (lp[i] > lp[a->top1]) a->top1 = i;
    a->max = (double)lp[a->top1];
    a->lse = -a->max;
out:
    return rc;
}

static int decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    int rc = 0;
    struct file_arm *s = self(a);
    const int64_t before = s->n_held;
    TRY(take(s, b, e));
    int64_t r = before;
    for (int i = 0; fn && b->want && i < b->n; i++) {
        struct arm_answer answer;
        if (!b->want[i]) continue;
        TRY(read_row(s, r++, &answer, e));
        answer.i = i;
        TRY(fn(arg, &answer, e));
    }
out:
    s->n_held = before;
    return rc;
}

static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    struct file_arm *s = self(a);
    if (!append) s->n_held = 0;
    return take(s, b, e);
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct file_arm *s = self(a);
    const int32_t n_vocab = a->info.n_vocab;
    FAIL_IF(r0 < 0 || n < 0 || r0 + n > s->n_held, e, ERR_ARG,
            "rows [%" PRId64 ", %" PRId64 ") were asked for, %" PRId64 " are held", r0, r0 + n,
            s->n_held);
    for (int64_t i = 0; i < n; i++) {
        struct arm_answer answer;
        struct arm_row row;
        FAIL_IF(target[i] < 0 || target[i] >= n_vocab, e, ERR_ARG,
                "target %" PRId64 " is token %d, outside of the vocabulary of %d", i, target[i],
                n_vocab);
        TRY(read_row(s, r0 + i, &answer, e));
        arm_reduce(&row, r0 + i, &answer, n_vocab, target[i], logits);
        if (row.bad < 0)
            row.nll = -(double)s->log_prob[target[i]]; /* without a rounding on the way */
        TRY(fn(arg, &row, e));
    }
out:
    return rc;
}

static int kv_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    (void)e;
    struct file_arm *s = self(a);
    for (int32_t i = 0; i < a->info.n_seq; i++)
        if ((seq == i || seq == -1) && s->fed[i].n > pos) s->fed[i].n = pos > 0 ? pos : 0;
    return 0;
}

static int observe(struct arm *a, struct observer *o, struct err *e) {
    (void)a;
    return o ? ERR(e, ERR_UNSUPPORTED, "saved logits cannot be observed") : 0;
}

static int describe(const struct arm *a, struct row *r, struct err *e) {
    int rc = 0;
    const struct file_arm *s = (const struct file_arm *)a;
    TRY(row_set(r, ROW_engine, "saved logits", e));
    TRY(row_set(r, ROW_backend, a->info.backend, e));
    TRY(row_set(r, ROW_model, a->info.name, e));
    TRY(row_set(r, ROW_model_fp, s->fp, e));
    TRY(row_set_int(r, ROW_n_ctx, a->info.n_ctx, e));
out:
    return rc;
}

static void release(struct arm *a) {
    struct file_arm *s = self(a);
    kld_reader_close(s->reader);
    tok_free(s->tok);
    heap_free(s->path);
    heap_free(s->fed);
    heap_free(s->tokens);
    heap_free(s->held);
    heap_free(s->log_prob);
    heap_free(s);
}

static const struct arm_ops file_ops = {
    .release = release,
    .decode = decode,
    .hold = hold,
    .rows = rows,
    .kv_trim = kv_trim,
    .observe = observe,
    .describe = describe,
};

/* ---- opening --------------------------------------------------------------------------------- */

static int load_tok(struct file_arm *s, const char *model, struct err *e) {
    int rc = 0;
    struct gguf *g = NULL;
    TRY(gguf_open(&g, model, e));
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    const int32_t n_vocab = kld_reader_shape(s->reader)->n_vocab;
    FAIL_IF(t && t->ne[1] != n_vocab, e, ERR_MISMATCH,
            "%s: saved logits of a vocabulary of %d, and %s has one of %" PRId64, s->path, n_vocab,
            model, t->ne[1]);
    s->tok = arm_load_tok(g, model);
out:
    gguf_close(g);
    return rc;
}

static int allocate(struct file_arm *s, int n_seq, struct err *e) {
    const struct kld_shape *shape = kld_reader_shape(s->reader);
    s->fed = heap_calloc((size_t)n_seq, sizeof *s->fed, e);
    s->tokens =
        s->fed ? heap_calloc((size_t)n_seq, sizeof(int32_t) * (size_t)shape->n_ctx, e) : NULL;
    s->log_prob = s->tokens ? heap_calloc((size_t)shape->n_vocab, sizeof *s->log_prob, e) : NULL;
    if (!s->log_prob) return ERR_NOMEM;
    for (int i = 0; i < n_seq; i++)
        s->fed[i] =
            (struct fed){ .token = s->tokens + (size_t)i * (size_t)shape->n_ctx, .chunk = -1 };
    return 0;
}

int arm_open_file(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct file_arm *s = heap_calloc(1, sizeof *s, e);
    if (!s) return ERR_NOMEM;
    s->arm.ops = &file_ops;
    s->last_chunk = -1;
    FAIL_IF(!p->path, e, ERR_ARG, "an arm of saved logits needs their file");
    s->path = heap_strndup(p->path, strlen(p->path), e);
    if (!s->path) rc = ERR_NOMEM;
    if (!s->path) goto out;
    TRY(kld_reader_open(&s->reader, s->path, e));
    const struct kld_shape *shape = kld_reader_shape(s->reader);
    FAIL_IF(p->n_ctx && p->n_ctx != shape->n_ctx, e, ERR_MISMATCH,
            "%s: logits saved with -c %d cannot answer for -c %d", s->path, shape->n_ctx, p->n_ctx);
    if (p->model) TRY(load_tok(s, p->model, e));
    const int n_seq = p->n_seq > 0 ? p->n_seq : 1;
    TRY(allocate(s, n_seq, e));
    TRY(kld_reader_fingerprint(s->reader, s->fp, e));
    const char *slash = strrchr(s->path, '/');
    s->arm.info = (struct arm_info){ .promise = ARM_RECORDED,
                                     .n_vocab = shape->n_vocab,
                                     .n_ctx_train = shape->n_ctx,
                                     .n_ctx = shape->n_ctx,
                                     .n_seq = n_seq,
                                     .n_chunks = kld_reader_n_whole(s->reader),
                                     .n_batch = p->n_batch,
                                     .n_ubatch = p->n_ubatch,
                                     .backend = "file",
                                     .desc = "saved logits" };
    snprintf(s->arm.info.name, sizeof s->arm.info.name, "%s", slash ? slash + 1 : s->path);
    s->arm.tok = s->tok;
    *out = &s->arm;
out:
    if (rc < 0) release(&s->arm);
    return rc;
}
