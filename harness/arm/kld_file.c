/* SPDX-License-Identifier: MIT
 * kld_file.c - records of log-probabilities and the reader of their file; see kld_file.h. */
#include "arm/kld_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "arm/kld_format.h"
#include "base/arena.h"
#include "base/fp16.h"
#include "result/row.h"

size_t kld_record_words(int32_t n_vocab) {
    return 2 * (((size_t)n_vocab + 1) / 2) + 4;
}

int kld_n_records(int32_t n_ctx) {
    return n_ctx - 1 - n_ctx / 2;
}

/* 0 <= x <= 65535.5 to the nearest integer, ties to even: adding 1.5 * 2^23 leaves it in the
 * mantissa. */
static inline uint16_t round_u16(float x) {
    return (uint16_t)f32_bits(x + 12582912.0f);
}

void kld_encode(uint16_t *rec, const float *logits, int32_t n_vocab, float max, double lse,
                int floor_nats) {
    float lo = max;
    for (int32_t i = 0; i < n_vocab; i++)
        lo = logits[i] < lo ? logits[i] : lo;
    if (lo < max - (float)floor_nats) lo = max - (float)floor_nats;
    float head[2] = { (max - lo) / 65535.0f, lo - max - (float)lse };
    memcpy(rec, head, sizeof head);
    uint16_t *q = rec + 4;
    float inv = head[0] != 0 ? 1 / head[0] : 0;
    for (int32_t i = 0; i < n_vocab; i++)
        q[i] = logits[i] > lo ? round_u16(inv * (logits[i] - lo)) : 0;
    if (n_vocab & 1) q[n_vocab] = 0;
}

int kld_decode(float *log_prob, const uint16_t *rec, int32_t n_vocab, struct err *e) {
    int rc = 0;
    float head[2]; /* scale, min_log_prob */
    memcpy(head, rec, sizeof head);
    bool sane = isfinite(head[0]) && head[0] >= 0 && isfinite(head[1]);
    FAIL_IF(!sane || head[0] * 65535.0f + head[1] > KLD_MAX_LOG_PROB, e, ERR_FORMAT,
            "scale %g and minimum %g cannot be those of log-probabilities", (double)head[0],
            (double)head[1]);
    const uint16_t *q = rec + 4;
    for (int32_t i = 0; i < n_vocab; i++)
        log_prob[i] = head[0] * (float)q[i] + head[1];
out:
    return rc;
}

int kld_nll_bounds(const uint16_t *rec, int32_t token, double *low, double *high, struct err *e) {
    const double rounding = 1e-4; /* nat: several ulp of logits around 100 */
    int rc = 0;
    float head[2]; /* scale, min_log_prob */
    memcpy(head, rec, sizeof head);
    FAIL_IF(!isfinite(head[0]) || !isfinite(head[1]), e, ERR_FORMAT,
            "scale %g and minimum %g are not finite", (double)head[0], (double)head[1]);
    uint16_t q = rec[4 + token];
    double nll = -((double)head[0] * q + (double)head[1]), half = 0.5 * (double)head[0] + rounding;
    *low = nll - half;
    *high = q ? nll + half : (double)INFINITY;
out:
    return rc;
}

/* ---- reader ---------------------------------------------------------------------------------- */

struct kld_reader {
    FILE *f;
    const char *name;
    struct kld_shape shape;
    int32_t *tokens;
    uint16_t *rec;
    int64_t n_whole, n_read; /* chunks, records */
};

/* Header and sizes. n_bytes bounds every product before it is formed. */
static int read_header(struct kld_reader *r, uint64_t n_bytes, struct err *e) {
    int rc = 0;
    unsigned char head[KLD_HEADER_BYTES];
    FAIL_IF(n_bytes < sizeof head || fread(head, 1, sizeof head, r->f) != sizeof head, e,
            ERR_FORMAT, "%s: %" PRIu64 " bytes are too short for a header of %d", r->name, n_bytes,
            KLD_HEADER_BYTES);
    FAIL_IF(memcmp(head, KLD_MAGIC, 8), e, ERR_FORMAT,
            "%s: not a file of saved logits: it does not begin with " KLD_MAGIC, r->name);
    memcpy(&r->shape, head + 8, sizeof r->shape);
    const struct kld_shape *s = &r->shape;
    FAIL_IF(s->n_ctx < 3 || s->n_vocab < 1 || s->n_chunk < 1, e, ERR_FORMAT,
            "%s: n_ctx %d, n_vocab %d, n_chunk %d cannot be: at least 3, 1 and 1 are needed",
            r->name, s->n_ctx, s->n_vocab, s->n_chunk);
    uint64_t n_tokens = (uint64_t)s->n_ctx * (uint64_t)s->n_chunk; /* below 2^62 */
    uint64_t left = n_bytes - KLD_HEADER_BYTES;
    FAIL_IF(n_tokens > left / 4, e, ERR_FORMAT,
            "%s: %d chunks of %d tokens do not fit into a file of %" PRIu64 " bytes", r->name,
            s->n_chunk, s->n_ctx, n_bytes);
    left -= 4 * n_tokens;
    uint64_t chunk = kld_chunk_bytes(s); /* below 2^30 * 2^33 */
    r->n_whole = (int64_t)(left / chunk);
    FAIL_IF(r->n_whole < 1, e, ERR_FORMAT,
            "%s: no chunk is complete: %" PRIu64 " bytes behind the tokens, a chunk has %" PRIu64,
            r->name, left, chunk);
    if (r->n_whole > s->n_chunk) r->n_whole = s->n_chunk;
out:
    return rc;
}

static int read_tokens(struct kld_reader *r, struct err *e) {
    int rc = 0;
    size_t n = (size_t)r->shape.n_ctx * (size_t)r->shape.n_chunk;
    r->tokens = heap_alloc(n * sizeof *r->tokens, e);
    r->rec = heap_alloc(kld_record_words(r->shape.n_vocab) * sizeof *r->rec, e);
    if (!r->tokens || !r->rec) {
        rc = ERR_NOMEM;
        goto out;
    }
    FAIL_IF(fread(r->tokens, sizeof *r->tokens, n, r->f) != n, e, ERR_IO,
            "%s: reading %zu tokens: %s", r->name, n,
            ferror(r->f) ? strerror(errno) : "end of file");
    for (size_t i = 0; i < n; i++)
        FAIL_IF(r->tokens[i] < 0 || r->tokens[i] >= r->shape.n_vocab, e, ERR_FORMAT,
                "%s: token %zu is %d, the vocabulary has %d", r->name, i, r->tokens[i],
                r->shape.n_vocab);
out:
    return rc;
}

int kld_reader_open_stream(struct kld_reader **out, FILE *f, uint64_t n_bytes, const char *name,
                           struct err *e) {
    int rc = 0;
    *out = NULL;
    struct kld_reader *r = heap_calloc(1, sizeof *r, e);
    if (!r) {
        fclose(f);
        return ERR_NOMEM;
    }
    r->f = f;
    r->name = name;
    TRY(read_header(r, n_bytes, e));
    TRY(read_tokens(r, e));
    *out = r;
    r = NULL;
out:
    kld_reader_close(r);
    return rc;
}

int kld_reader_open(struct kld_reader **out, const char *path, struct err *e) {
    int rc = 0;
    struct stat st;
    *out = NULL;
    FILE *f = fopen(path, "rbe");
    FAIL_IF(!f || fstat(fileno(f), &st), e, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: %s", path,
            strerror(errno));
    FAIL_IF(!S_ISREG(st.st_mode), e, ERR_IO, "%s: not a regular file", path);
    FILE *mine = f;
    f = NULL; /* the reader closes it */
    TRY(kld_reader_open_stream(out, mine, (uint64_t)st.st_size, path, e));
out:
    if (f) fclose(f);
    return rc;
}

void kld_reader_close(struct kld_reader *r) {
    if (!r) return;
    fclose(r->f);
    heap_free(r->tokens);
    heap_free(r->rec);
    heap_free(r);
}

const struct kld_shape *kld_reader_shape(const struct kld_reader *r) {
    return &r->shape;
}

const int32_t *kld_reader_tokens(const struct kld_reader *r) {
    return r->tokens;
}

int64_t kld_reader_n_whole(const struct kld_reader *r) {
    return r->n_whole;
}

static int read_record(struct kld_reader *r, struct err *e) {
    int rc = 0;
    size_t n = kld_record_words(r->shape.n_vocab);
    FAIL_IF(fread(r->rec, sizeof *r->rec, n, r->f) != n, e, ERR_IO,
            "%s: reading record %" PRId64 ": %s", r->name, r->n_read,
            ferror(r->f) ? strerror(errno) : "the file became shorter");
out:
    return rc;
}

/* Let record i be the next one. */
static int seek_record(struct kld_reader *r, int64_t i, struct err *e) {
    int rc = 0;
    const int64_t tokens = (int64_t)r->shape.n_ctx * (int64_t)r->shape.n_chunk;
    const int64_t rec_bytes = (int64_t)(kld_record_words(r->shape.n_vocab) * sizeof *r->rec);
    if (i == r->n_read && !feof(r->f) && !ferror(r->f)) return 0;
    clearerr(r->f);
    FAIL_IF(fseeko(r->f, (off_t)(KLD_HEADER_BYTES + 4 * tokens + i * rec_bytes), SEEK_SET), e,
            ERR_IO, "%s: %s", r->name, strerror(errno));
    r->n_read = i;
out:
    return rc;
}

int kld_reader_at(struct kld_reader *r, int64_t i, const uint16_t **rec, struct err *e) {
    int rc = 0;
    FAIL_IF(i < 0 || i >= r->n_whole * kld_n_records(r->shape.n_ctx), e, ERR_ARG,
            "%s: no whole chunk has the record %" PRId64, r->name, i);
    TRY(seek_record(r, i, e));
    TRY(read_record(r, e));
    r->n_read++;
    *rec = r->rec;
out:
    return rc;
}

int kld_reader_fingerprint(struct kld_reader *r, char fp[17], struct err *e) {
    int rc = 0;
    const int64_t here = r->n_read, at[] = { 0, kld_n_records(r->shape.n_ctx) - 1 };
    char both[2][17];
    for (size_t i = 0; i < N_ELEMS(at); i++) {
        const uint16_t *rec;
        TRY(kld_reader_at(r, at[i], &rec, e));
        fingerprint_bytes(rec, kld_record_words(r->shape.n_vocab) * sizeof *rec, both[i]);
    }
    fingerprint_bytes(both, sizeof both, fp);
    TRY(seek_record(r, here, e));
out:
    return rc;
}

int kld_reader_next(struct kld_reader *r, float *log_prob, struct err *e) {
    int rc = 0;
    int n_rec = kld_n_records(r->shape.n_ctx);
    FAIL_IF(r->n_read >= r->n_whole * n_rec, e, ERR_FORMAT, "%s: no record behind chunk %" PRId64,
            r->name, r->n_whole);
    TRY(read_record(r, e));
    rc = kld_decode(log_prob, r->rec, r->shape.n_vocab, e);
    if (rc < 0)
        err_prefix(e, "%s: chunk %" PRId64 ", record %" PRId64, r->name, r->n_read / n_rec + 1,
                   r->n_read % n_rec);
    r->n_read++;
out:
    return rc;
}
