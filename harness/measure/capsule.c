/* SPDX-License-Identifier: MIT
 * capsule.c - writing and reading capsules; see capsule.h. Whatever the file says, a capsule that
 * opens can be run: op_case_check has seen it. */
#include "measure/capsule.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"

#define INT_MAX_KEY ((int64_t)1 << 31)
#define N_ROT_MAX 1024 /* several times what any model has */

void capsule_free(struct capsule *c) {
    if (!c) return;
    op_case_release(&c->c);
    heap_free(c->out_a);
    heap_free(c->out_b);
    heap_free(c->position);
    heap_free(c);
}

/* ---- writing -------------------------------------------------------------------------------- */

static int put(struct gguf_writer *w, const char *key, enum gguf_value type, const void *v,
               struct err *e) {
    struct gguf_kv kv = {
        .key = { key, strlen(key) }, .type = type, .elem_type = type, .count = 1, .data = v
    };
    return gguf_put_kv(w, &kv, e);
}

static int put_int(struct gguf_writer *w, const char *key, int64_t v, struct err *e) {
    return put(w, key, GGUF_INT64, &v, e);
}

static int put_real(struct gguf_writer *w, const char *key, double v, struct err *e) {
    return put(w, key, GGUF_FLOAT64, &v, e);
}

static int put_text(struct gguf_writer *w, const char *key, const char *v, struct err *e) {
    return gguf_put_str(w, key, v, strlen(v), e);
}

static int put_params(struct gguf_writer *w, const struct op_case *c, struct err *e) {
    int rc = 0;
#define INT(o, f)                                                                                  \
    if (c->op == OP_##o) TRY(put_int(w, "capsule." #o "." #f, (int64_t)c->p.o.f, e));
#define REAL(o, f)                                                                                 \
    if (c->op == OP_##o) TRY(put_real(w, "capsule." #o "." #f, (double)c->p.o.f, e));
    CAPSULE_PARAM_LIST(INT, REAL)
#undef INT
#undef REAL
out:
    return rc;
}

static int put_keys(struct gguf_writer *w, const struct capsule *k, struct err *e) {
    int rc = 0;
    const struct op_case *c = &k->c;
    TRY(put_text(w, "general.type", "ggauge-capsule", e));
    TRY(put_int(w, "capsule.version", CAPSULE_VERSION, e));
    TRY(put_text(w, "capsule.op", op_name(c->op), e));
    TRY(put_text(w, "capsule.node", c->name, e));
    TRY(put_int(w, "capsule.occurrence", c->occurrence, e));
    TRY(put_int(w, "capsule.il", c->il, e));
    TRY(put_text(w, "capsule.dst_type", qtype_info(c->dst_type)->name, e));
    TRY(put_int(w, "capsule.n_cols", c->n_cols, e));
    TRY(put_int(w, "capsule.col0", k->col0, e));
    TRY(put_int(w, "capsule.n_cols_all", k->n_cols_all, e));
    TRY(put_text(w, "capsule.act_a", qtype_info(k->act_a)->name, e));
    TRY(put_text(w, "capsule.act_b", qtype_info(k->act_b)->name, e));
    TRY(put_real(w, "capsule.limit_a.max_rel", k->limit_a.max_rel, e));
    TRY(put_real(w, "capsule.limit_a.row_nmse", k->limit_a.row_nmse, e));
    TRY(put_real(w, "capsule.limit_b.max_rel", k->limit_b.max_rel, e));
    TRY(put_real(w, "capsule.limit_b.row_nmse", k->limit_b.row_nmse, e));
    TRY(put_real(w, "capsule.err_a", k->err_a, e));
    TRY(put_real(w, "capsule.err_b", k->err_b, e));
#define X(f) TRY(put_text(w, "capsule." #f, k->f, e));
    CAPSULE_TEXT_LIST(X)
#undef X
    TRY(put_params(w, c, e));
out:
    return rc;
}

/* Tensors are announced first, then written in the same order. */
static int each_tensor(struct gguf_writer *w, const struct capsule *k, bool data, struct err *e) {
    int rc = 0;
    const struct op_case *c = &k->c;
    struct {
        const char *name;
        const void *data;
        enum qtype type;
        int64_t ne[2];
    } t[OP_MAX_SRC + 3] = {
        { "position", k->position, QT_i32, { c->n_tok, 1 } },
        { "out_a", k->out_a, QT_f32, { c->n_cols, c->n_tok } },
        { "out_b", k->out_b, QT_f32, { c->n_cols, c->n_tok } },
        { .name = "src0" },
        { .name = "src1" },
        { .name = "src2" },
        { .name = "src3" },
        { .name = "src4" },
    };
    for (int s = 0; s < OP_MAX_SRC; s++) {
        t[3 + s].data = c->src[s].data;
        t[3 + s].type = (enum qtype)c->src[s].type;
        memcpy(t[3 + s].ne, c->src[s].ne, sizeof t[3 + s].ne);
    }
    for (size_t i = 0; i < N_ELEMS(t); i++) {
        if (!t[i].data) continue;
        size_t n = qtype_row_bytes(t[i].type, t[i].ne[0]) * (size_t)t[i].ne[1];
        TRY(data ? gguf_writer_data(w, t[i].data, n, e)
                 : gguf_put_tensor(w, t[i].name, 2, t[i].ne, t[i].type, e));
    }
out:
    return rc;
}

int capsule_save(const struct capsule *c, const char *path, struct err *e) {
    int rc = 0;
    struct gguf_writer *w = NULL;
    TRY(gguf_writer_new(&w, path, e));
    TRY(put_keys(w, c, e));
    TRY(each_tensor(w, c, false, e));
    TRY(gguf_writer_begin(w, e));
    TRY(each_tensor(w, c, true, e));
    TRY(gguf_writer_end(w, e));
out:
    gguf_writer_free(w);
    return rc;
}

/* ---- reading -------------------------------------------------------------------------------- */

static int get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                   struct err *e) {
    int rc = 0;
    int found = gguf_get_i64(g, key, out, e);
    if (found < 0) return found;
    FAIL_IF(!found, e, ERR_MISSING, "%s: no capsule: %s is missing", gguf_path(g), key);
    FAIL_IF(*out < min || *out > max, e, ERR_FORMAT,
            "%s: %s is %" PRId64 ", expected %" PRId64 " to %" PRId64, gguf_path(g), key, *out, min,
            max);
out:
    return rc;
}

static int get_real(const struct gguf *g, const char *key, double *out, struct err *e) {
    int rc = 0;
    int found = gguf_get_f64(g, key, out, e);
    if (found < 0) return found;
    FAIL_IF(!found, e, ERR_MISSING, "%s: no capsule: %s is missing", gguf_path(g), key);
out:
    return rc;
}

static int get_text(const struct gguf *g, const char *key, char *buf, size_t n_bytes,
                    struct err *e) {
    int rc = 0;
    struct gguf_str s;
    int found = gguf_get_str(g, key, &s, e);
    if (found < 0) return found;
    FAIL_IF(!found, e, ERR_MISSING, "%s: no capsule: %s is missing", gguf_path(g), key);
    FAIL_IF(s.n >= n_bytes || memchr(s.p, '\0', s.n), e, ERR_FORMAT,
            "%s: %s has %zu bytes or a NUL, expected fewer than %zu", gguf_path(g), key, s.n,
            n_bytes);
    memcpy(buf, s.p, s.n);
    buf[s.n] = '\0';
out:
    return rc;
}

static int get_type(const struct gguf *g, const char *key, enum qtype *out, struct err *e) {
    int rc = 0;
    char name[32];
    TRY(get_text(g, key, name, sizeof name, e));
    *out = qtype_from_name(name);
    FAIL_IF(*out == QT_none, e, ERR_UNSUPPORTED, "%s: %s is '%s', which this build does not know",
            gguf_path(g), key, name);
out:
    return rc;
}

/* Activations can be rounded through a type if ref converts both ways. */
static int get_act(const struct gguf *g, const char *key, int64_t n, enum qtype *out,
                   struct err *e) {
    int rc = 0;
    TRY(get_type(g, key, out, e));
    const struct qkernel *k = qkernel_find(COL_ref, *out, false, NULL);
    FAIL_IF(*out != QT_f32 &&
                (!k || !k->quantize_row || !k->dequant_row || n % qtype_info(*out)->n_blk),
            e, ERR_UNSUPPORTED, "%s: %s: activations cannot be rounded through %s", gguf_path(g),
            key, qtype_info(*out)->name);
out:
    return rc;
}

static int get_params(const struct gguf *g, struct op_case *c, struct err *e) {
    int rc = 0;
    int64_t i;
    double d;
    int64_t mode = 0, n_rot = 0;
    if (c->op == OP_rope) TRY(get_int(g, "capsule.rope.mode", ROPE_NORM, ROPE_NEOX, &mode, e));
    if (c->op == OP_rope || c->op == OP_rope_table)
        TRY(get_int(g, c->op == OP_rope ? "capsule.rope.n_rot" : "capsule.rope_table.n_rot", 2,
                    N_ROT_MAX, &n_rot, e));
#define INT(o, f)                                                                                  \
    if (c->op == OP_##o) {                                                                         \
        TRY(get_int(g, "capsule." #o "." #f, 0, INT_MAX_KEY, &i, e));                              \
        c->p.o.f = i;                                                                              \
    }
#define REAL(o, f)                                                                                 \
    if (c->op == OP_##o) {                                                                         \
        TRY(get_real(g, "capsule." #o "." #f, &d, e));                                             \
        c->p.o.f = d;                                                                              \
    }
    CAPSULE_PARAM_LIST(INT, REAL)
#undef INT
#undef REAL
out:
    return rc;
}

static int get_op(const struct gguf *g, enum op *out, struct err *e) {
    int rc = 0;
    char name[32];
    TRY(get_text(g, "capsule.op", name, sizeof name, e));
    for (int o = 0; o < OP_count; o++)
        if (!strcmp(op_name((enum op)o), name)) {
            *out = (enum op)o;
            return 0;
        }
    FAIL_IF(true, e, ERR_UNSUPPORTED, "%s: capsule.op is '%s', which this build does not have",
            gguf_path(g), name);
out:
    return rc;
}

/* A copy of the tensor: what is in a file may lie anywhere. *out = NULL if it is absent. */
static int copy_tensor(const struct gguf *g, const char *name, struct tensor *t, void **out,
                       struct err *e) {
    int rc = 0;
    const struct gguf_tensor *f = gguf_find_tensor(g, name);
    *out = NULL;
    if (!f) return 0;
    FAIL_IF(f->type == QT_none, e, ERR_UNSUPPORTED, "%s: %s: type id %u is not known to this build",
            gguf_path(g), name, (unsigned)f->type_id);
    *t = (struct tensor){ .type = f->type, .row_bytes = qtype_row_bytes(f->type, f->ne[0]) };
    memcpy(t->ne, f->ne, sizeof t->ne);
    *out = heap_alloc((size_t)f->n_bytes, e);
    if (!*out) return ERR_NOMEM;
    memcpy(*out, f->data, (size_t)f->n_bytes);
    t->data = *out;
out:
    return rc;
}

static int copy_output(const struct gguf *g, const char *name, const struct op_case *c, float **out,
                       struct err *e) {
    int rc = 0;
    struct tensor t;
    void *data;
    TRY(copy_tensor(g, name, &t, &data, e));
    *out = data;
    FAIL_IF(data && (t.type != QT_f32 || t.ne[0] != c->n_cols || t.ne[1] != c->n_tok ||
                     t.ne[2] != 1 || t.ne[3] != 1),
            e, ERR_FORMAT, "%s: %s is no f32 of %" PRId64 " x %" PRId64, gguf_path(g), name,
            c->n_cols, c->n_tok);
out:
    return rc;
}

static int read_case(const struct gguf *g, struct capsule *k, struct err *e) {
    int rc = 0;
    struct op_case *c = &k->c;
    int64_t v;
    void *position = NULL;
    struct tensor t;
    TRY(get_op(g, &c->op, e));
    TRY(get_text(g, "capsule.node", c->name, sizeof c->name, e));
    TRY(get_int(g, "capsule.occurrence", 0, 1 << 20, &v, e));
    c->occurrence = (int)v;
    TRY(get_int(g, "capsule.il", -1, 1 << 20, &v, e));
    c->il = (int)v;
    TRY(get_type(g, "capsule.dst_type", &c->dst_type, e));
    TRY(get_int(g, "capsule.n_cols", 1, INT_MAX_KEY, &c->n_cols, e));
    TRY(copy_tensor(g, "position", &t, &position, e));
    k->position = position;
    FAIL_IF(!position || t.type != QT_i32 || t.ne[1] != 1 || t.ne[2] != 1 || t.ne[3] != 1, e,
            ERR_FORMAT, "%s: tensor position is missing or no row of i32", gguf_path(g));
    c->n_tok = t.ne[0];
    for (int s = 0; s < OP_MAX_SRC; s++) {
        const char *const names[OP_MAX_SRC] = { "src0", "src1", "src2", "src3", "src4" };
        TRY(copy_tensor(g, names[s], &c->src[s], &c->owned[s], e));
    }
    TRY(get_params(g, c, e));
    TRY(op_case_check(c, e));
out:
    return rc;
}

static int read_capsule(const struct gguf *g, struct capsule *k, struct err *e) {
    int rc = 0;
    int64_t v;
    TRY(get_int(g, "capsule.version", CAPSULE_VERSION, CAPSULE_VERSION, &v, e));
    TRY(read_case(g, k, e));
    TRY(get_int(g, "capsule.col0", 0, INT_MAX_KEY, &k->col0, e));
    TRY(get_int(g, "capsule.n_cols_all", k->c.n_cols, INT_MAX_KEY, &k->n_cols_all, e));
    TRY(get_act(g, "capsule.act_a", k->c.op == OP_mul_mat ? k->c.src[0].ne[0] : 0, &k->act_a, e));
    TRY(get_act(g, "capsule.act_b", k->c.op == OP_mul_mat ? k->c.src[0].ne[0] : 0, &k->act_b, e));
    TRY(get_real(g, "capsule.limit_a.max_rel", &k->limit_a.max_rel, e));
    TRY(get_real(g, "capsule.limit_a.row_nmse", &k->limit_a.row_nmse, e));
    TRY(get_real(g, "capsule.limit_b.max_rel", &k->limit_b.max_rel, e));
    TRY(get_real(g, "capsule.limit_b.row_nmse", &k->limit_b.row_nmse, e));
    TRY(get_real(g, "capsule.err_a", &k->err_a, e));
    TRY(get_real(g, "capsule.err_b", &k->err_b, e));
#define X(f) TRY(get_text(g, "capsule." #f, k->f, sizeof k->f, e));
    CAPSULE_TEXT_LIST(X)
#undef X
    TRY(copy_output(g, "out_a", &k->c, &k->out_a, e));
    TRY(copy_output(g, "out_b", &k->c, &k->out_b, e));
out:
    return rc;
}

static int from_gguf(struct capsule **out, struct gguf *g, struct err *e) {
    int rc = 0;
    struct capsule *k = heap_calloc(1, sizeof *k, e);
    if (!k) rc = ERR_NOMEM;
    TRY(rc);
    TRY(read_capsule(g, k, e));
    *out = k;
out:
    if (rc < 0 && e && !strstr(e->msg, gguf_path(g))) err_prefix(e, "%s", gguf_path(g));
    gguf_close(g);
    if (rc < 0) capsule_free(k);
    return rc;
}

int capsule_open(struct capsule **out, const char *path, struct err *e) {
    struct gguf *g;
    *out = NULL;
    int rc = gguf_open(&g, path, e);
    return rc < 0 ? rc : from_gguf(out, g, e);
}

int capsule_open_memory(struct capsule **out, const void *data, size_t n_bytes, struct err *e) {
    struct gguf *g;
    *out = NULL;
    int rc = gguf_open_memory(&g, data, n_bytes, e);
    return rc < 0 ? rc : from_gguf(out, g, e);
}
