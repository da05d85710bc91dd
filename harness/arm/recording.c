/* SPDX-License-Identifier: MIT
 * recording.c - rows of another arm, remembered; see recording.h. */
#include "arm/recording.h"

#include <string.h>

#include "base/arena.h"

struct entry {
    uint64_t key; /* 0 = empty */
    struct arm_row row;
};

struct recording {
    struct arm arm;
    struct arm *source; /* NULL once detached */
    uint64_t *seq_hash; /* [n_seq] of the tokens so far */
    uint64_t *held;     /* [n_held] hash of each held row's sequence */
    int64_t n_held, max_held;
    struct entry *table; /* [n_slots], a power of two; open addressing */
    int64_t n_slots, n_used;
    int64_t r0; /* while rows() runs */
    const int32_t *target;
    arm_row_fn fn;
    void *arg;
};

static struct recording *self(struct arm *a) {
    return (struct recording *)a;
}

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

/* ---- the table ------------------------------------------------------------------------------- */

static struct entry *slot(const struct recording *s, uint64_t key) {
    int64_t i = (int64_t)(key & (uint64_t)(s->n_slots - 1));
    while (s->table[i].key && s->table[i].key != key)
        i = (i + 1) & (s->n_slots - 1);
    return &s->table[i];
}

static int grow(struct recording *s, struct err *e) {
    struct recording old = *s;
    s->n_slots = old.n_slots ? 2 * old.n_slots : 1024;
    s->table = heap_calloc((size_t)s->n_slots, sizeof *s->table, e);
    if (!s->table) {
        *s = old;
        return ERR_NOMEM;
    }
    for (int64_t i = 0; i < old.n_slots; i++)
        if (old.table[i].key) *slot(s, old.table[i].key) = old.table[i];
    heap_free(old.table);
    return 0;
}

static uint64_t key_of(const struct recording *s, int64_t r, int32_t target) {
    uint64_t k = mix(s->held[r], (uint64_t)(uint32_t)target + 1);
    return k ? k : 1;
}

/* ---- the arm --------------------------------------------------------------------------------- */

static int hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    int rc = 0;
    struct recording *s = self(a);
    if (s->source) TRY(arm_hold(s->source, b, append, e));
    if (!append) s->n_held = 0;
    if (s->n_held + b->n > s->max_held) {
        int64_t max = 2 * (s->n_held + b->n);
        uint64_t *p = heap_realloc(s->held, (size_t)max * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        s->held = p;
        s->max_held = max;
    }
    for (int i = 0; i < b->n; i++) {
        uint64_t *h = &s->seq_hash[b->seq[i]];
        *h = mix(b->pos[i] == 0 ? 0 : *h, (uint64_t)(uint32_t)b->token[i] + 1);
        if (b->want && b->want[i]) s->held[s->n_held++] = *h;
    }
out:
    return rc;
}

static int remember(void *arg, const struct arm_row *row, struct err *e) {
    int rc = 0;
    struct recording *s = arg;
    if (2 * (s->n_used + 1) > s->n_slots) TRY(grow(s, e));
    uint64_t key = key_of(s, row->r, s->target[row->r - s->r0]);
    struct entry *t = slot(s, key);
    s->n_used += !t->key;
    *t = (struct entry){ key, *row };
    t->row.logits = NULL;
    TRY(s->fn(s->arg, row, e));
out:
    return rc;
}

static int rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                arm_row_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct recording *s = self(a);
    FAIL_IF(r0 < 0 || n < 0 || r0 + n > s->n_held, e, ERR_ARG,
            "rows [%lld, %lld) were asked for, %lld are held", (long long)r0, (long long)(r0 + n),
            (long long)s->n_held);
    if (s->source) {
        s->r0 = r0;
        s->target = target;
        s->fn = fn;
        s->arg = arg;
        return arm_rows(s->source, r0, n, target, logits, remember, s, e);
    }
    FAIL_IF(logits, e, ERR_UNSUPPORTED, "logits are not remembered");
    for (int64_t r = r0; r < r0 + n; r++) {
        const struct entry *t = s->n_slots ? slot(s, key_of(s, r, target[r - r0])) : NULL;
        FAIL_IF(!t || !t->key, e, ERR_MISSING, "row %lld was never computed", (long long)r);
        struct arm_row row = t->row;
        row.r = r;
        TRY(fn(arg, &row, e));
    }
out:
    return rc;
}

static int kv_trim(struct arm *a, int32_t seq, int32_t pos, struct err *e) {
    struct recording *s = self(a);
    return s->source ? arm_kv_trim(s->source, seq, pos, e) : 0;
}

static int decode(struct arm *a, const struct arm_batch *b, arm_answer_fn fn, void *arg,
                  struct err *e) {
    struct recording *s = self(a);
    return s->source ? arm_decode(s->source, b, fn, arg, e)
                     : ERR(e, ERR_UNSUPPORTED, "a recording cannot compute");
}

static int observe(struct arm *a, struct observer *o, struct err *e) {
    struct recording *s = self(a);
    if (s->source) return arm_observe(s->source, o, e);
    return o ? ERR(e, ERR_UNSUPPORTED, "a recording cannot be observed") : 0;
}

static int describe(const struct arm *a, struct row *r, struct err *e) {
    const struct recording *s = (const struct recording *)a;
    return s->source ? arm_describe(s->source, r, e)
                     : ERR(e, ERR_UNSUPPORTED, "a detached recording has no engine");
}

static void release(struct arm *a) {
    struct recording *s = self(a);
    heap_free(s->seq_hash);
    heap_free(s->held);
    heap_free(s->table);
    heap_free(s);
}

void recording_detach(struct arm *a) {
    struct recording *s = self(a);
    s->source = NULL;
    a->tok = NULL;
}

int arm_open_recording(struct arm **out, struct arm *source, struct err *e) {
    static const struct arm_ops ops = { .release = release,
                                        .decode = decode,
                                        .hold = hold,
                                        .rows = rows,
                                        .kv_trim = kv_trim,
                                        .observe = observe,
                                        .describe = describe };
    struct recording *s = heap_calloc(1, sizeof *s, e);
    *out = NULL;
    if (!s) return ERR_NOMEM;
    s->arm = (struct arm){ .ops = &ops, .info = source->info, .tok = source->tok };
    s->source = source;
    s->seq_hash = heap_calloc((size_t)(source->info.n_seq > 0 ? source->info.n_seq : 1),
                              sizeof *s->seq_hash, e);
    if (!s->seq_hash) {
        release(&s->arm);
        return ERR_NOMEM;
    }
    *out = &s->arm;
    return 0;
}
