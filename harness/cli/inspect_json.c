/* SPDX-License-Identifier: MIT
 * inspect_json.c - `ggauge inspect --json`. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/utf8.h"
#include "cli/inspect.h"

/* 15 digits show every shortened binary32 as it was written. */
#define DUMP_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(15))

/* All of these return NULL when memory is short; jansson's setters pass that on as -1. */

static json_t *text(struct gguf_str s) {
    const size_t cap = s.n * 3 + 1;
    char *buf = heap_alloc(cap, NULL);
    if (!buf) return NULL;
    json_t *j = json_stringn(buf, utf8_repair(buf, cap, s.p, s.n));
    heap_free(buf);
    return j;
}

static json_t *c_text(const char *s) {
    return text((struct gguf_str){ s, strlen(s) });
}

/* JSON has no NaN and no infinity: their names take their place. */
static json_t *real(double x) {
    if (isfinite(x)) return json_real(x);
    return json_string(isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
}

/* jansson's integers are signed: larger ones become strings rather than lose digits. */
static json_t *whole(uint64_t x) {
    char buf[24];
    if (x <= INT64_MAX) return json_integer((json_int_t)x);
    snprintf(buf, sizeof buf, "%" PRIu64, x);
    return json_string(buf);
}

static json_t *element(const struct gguf_kv *kv, uint64_t i) {
    uint64_t u;
    switch (kv->elem_type) {
    case GGUF_STRING: return text(kv->strs[i]);
    case GGUF_BOOL: return json_boolean(gguf_kv_i64(kv, i) != 0);
    case GGUF_FLOAT32: return real(inspect_short_f32((float)gguf_kv_f64(kv, i)));
    case GGUF_FLOAT64: return real(gguf_kv_f64(kv, i));
    case GGUF_UINT64: memcpy(&u, (const char *)kv->data + i * sizeof u, sizeof u); return whole(u);
    default: return json_integer(gguf_kv_i64(kv, i));
    }
}

static json_t *value(const struct gguf_kv *kv) {
    if (kv->type != GGUF_ARRAY) return element(kv, 0);
    json_t *a = json_array();
    bool ok = a != NULL;
    for (uint64_t i = 0; ok && i < kv->count; i++)
        ok = json_array_append_new(a, element(kv, i)) == 0;
    if (ok) return a;
    json_decref(a);
    return NULL;
}

/* An array of pairs keeps their order and their types. */
static json_t *pairs(const struct gguf *g) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < gguf_n_kv(g); i++) {
        const struct gguf_kv *kv = gguf_kv_at(g, i);
        char type[40];
        inspect_type_name(kv, type, sizeof type);
        ok = json_array_append_new(list, json_pack("{s:o, s:s, s:o}", "key", text(kv->key), "type",
                                                   type, "value", value(kv))) == 0;
    }
    if (ok) return list;
    json_decref(list);
    return NULL;
}

static json_t *tensors(const struct gguf *g) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        const char *type = t->type == QT_none ? NULL : qtype_info(t->type)->name;
        json_t *j = json_pack("{s:o, s:[I,I,I,I], s:s?, s:I, s:I, s:I, s:i}", "name",
                              c_text(t->name), "ne", (json_int_t)t->ne[0], (json_int_t)t->ne[1],
                              (json_int_t)t->ne[2], (json_int_t)t->ne[3], "type", type, "type_id",
                              (json_int_t)t->type_id, "offset", (json_int_t)t->offset, "bytes",
                              (json_int_t)t->n_bytes, "part", t->part + 1);
        ok = json_array_append_new(list, j) == 0;
    }
    if (ok) return list;
    json_decref(list);
    return NULL;
}

static json_t *types(const struct model_sizes *s) {
    json_t *o = json_object();
    bool ok = o != NULL;
    for (int t = 0; ok && t < QT_count; t++)
        if (s->n_tensors[t])
            ok = json_object_set_new(o, qtype_info((enum qtype)t)->name,
                                     json_integer(s->n_tensors[t])) == 0;
    if (ok && s->n_unknown) ok = json_object_set_new(o, "unknown", json_integer(s->n_unknown)) == 0;
    if (ok) return o;
    json_decref(o);
    return NULL;
}

/* The lines of hparams_print as members; numbers stay numbers. */
static void add_line(void *arg, const char *line) {
    json_t *o = arg;
    char name[64];
    const char *val = strstr(line, " = ");
    size_t n = strcspn(line, " ");
    if (!val || n >= sizeof name) return;
    memcpy(name, line, n);
    name[n] = '\0';
    val += 3;
    json_t *v = json_loads(val, JSON_DECODE_ANY, NULL);
    if (!v) v = json_string(val);
    json_object_set_new(o, name, v);
}

static json_t *hparams(const struct inspection *in) {
    json_t *o = json_object();
    if (!o) return NULL;
    if (in->has_hp) hparams_print(&in->hp, add_line, o);
    if (in->why.code) json_object_set_new(o, "unsupported", c_text(in->why.msg));
    return o;
}

static json_t *sizes(const struct model_sizes *s) {
    double bpw = s->n_elems ? 8.0 * (double)s->n_bytes / (double)s->n_elems : 0;
    double layers = s->layer_elems ? 8.0 * (double)s->layer_bytes / (double)s->layer_elems : 0;
    json_t *o = json_pack("{s:I, s:I, s:f}", "n_params", (json_int_t)s->n_elems, "bytes",
                          (json_int_t)s->n_bytes, "bpw", bpw);
    if (!o || !s->has_layers) return o;
    json_object_set_new(o, "repeating_bytes", json_integer((json_int_t)s->layer_bytes));
    json_object_set_new(o, "repeating_bpw", json_real(layers));
    return o;
}

int inspect_json(const struct inspection *in, struct err *e) {
    const struct gguf *g = in->g;
    char fingerprint[17];
    gguf_fingerprint(g, fingerprint);
    json_t *o =
        json_pack("{s:o, s:i, s:i, s:I, s:i, s:s, s:o, s:o, s:o, s:o, s:o}", "file",
                  c_text(gguf_path(g)), "version", (int)gguf_version(g), "parts", gguf_n_parts(g),
                  "file_bytes", (json_int_t)gguf_file_bytes(g), "alignment", (int)gguf_alignment(g),
                  "fingerprint", fingerprint, "kv", pairs(g), "tensors", tensors(g), "types",
                  types(&in->sizes), "hparams", hparams(in), "sizes", sizes(&in->sizes));
    if (!o) return ERR(e, ERR_NOMEM, "out of memory for the JSON of %s", gguf_path(g));
    int bad = json_dumpf(o, stdout, DUMP_FLAGS);
    json_decref(o);
    if (bad || putchar('\n') == EOF) return ERR(e, ERR_IO, "writing JSON to stdout failed");
    return 0;
}
