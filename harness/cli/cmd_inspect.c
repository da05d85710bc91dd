/* SPDX-License-Identifier: MIT
 * cmd_inspect.c - ggauge inspect: metadata, tensors, hyper-parameters and sizes of a GGUF file,
 * worded as llama.cpp logs them when it loads a model. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "base/utf8.h"
#include "cli/cmd.h"
#include "cli/inspect.h"
#include "cli/opt.h"

#define SHOW_CHARS 64 /* of a string */
#define SHOW_ELEMS 8  /* of an array */

/* ---- pieces of text ------------------------------------------------------------------------- */

void inspect_type_name(const struct gguf_kv *kv, char *buf, size_t n_bytes) {
    if (kv->type == GGUF_ARRAY)
        snprintf(buf, n_bytes, "arr[%s,%" PRIu64 "]", gguf_value_name(kv->elem_type), kv->count);
    else
        snprintf(buf, n_bytes, "%s", gguf_value_name(kv->type));
}

double inspect_short_f32(float x) {
    char buf[32];
    for (int digits = 6; digits <= 9 && isfinite(x); digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, (double)x);
        double d = strtod(buf, NULL);
        if ((float)d == x) return d;
    }
    return x;
}

/* At most SHOW_CHARS characters; what could move the terminal's cursor is escaped. */
static void print_text(struct gguf_str s, bool quoted) {
    size_t i = 0;
    if (quoted) putchar('"');
    for (int shown = 0; i < s.n && shown < SHOW_CHARS; shown++) {
        unsigned char c = (unsigned char)s.p[i];
        int len = utf8_char(s.p + i, s.n - i);
        bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && len && (s.p[i + 1] & 0x60) == 0);
        if (control || len == 0) len = 1;
        if (c == '\n')
            fputs("\\n", stdout);
        else if (quoted && (c == '"' || c == '\\'))
            printf("\\%c", c);
        else if (control || (c >= 0x80 && len == 1))
            printf("\\x%02x", c);
        else
            fwrite(s.p + i, 1, (size_t)len, stdout);
        i += (size_t)len;
    }
    if (i < s.n) fputs("...", stdout);
    if (quoted) putchar('"');
}

static void print_elem(const struct gguf_kv *kv, uint64_t i) {
    switch (kv->elem_type) {
    case GGUF_STRING: print_text(kv->strs[i], kv->type == GGUF_ARRAY); break;
    case GGUF_BOOL: fputs(gguf_kv_i64(kv, i) ? "true" : "false", stdout); break;
    case GGUF_FLOAT32: printf("%.9g", inspect_short_f32((float)gguf_kv_f64(kv, i))); break;
    case GGUF_FLOAT64: printf("%.17g", gguf_kv_f64(kv, i)); break;
    case GGUF_UINT64: {
        uint64_t u;
        memcpy(&u, (const char *)kv->data + i * sizeof u, sizeof u);
        printf("%" PRIu64, u);
        break;
    }
    default: printf("%" PRId64, gguf_kv_i64(kv, i));
    }
}

static void print_kv(const struct gguf_kv *kv, int64_t i) {
    char type[40];
    inspect_type_name(kv, type, sizeof type);
    printf("kv %3" PRId64 ": %*s", i, kv->key.n < 42 ? (int)(42 - kv->key.n) : 0, "");
    print_text(kv->key, false);
    printf(" %-16s = ", type);
    if (kv->type != GGUF_ARRAY) {
        print_elem(kv, 0);
    } else {
        putchar('[');
        for (uint64_t k = 0; k < kv->count && k < SHOW_ELEMS; k++) {
            if (k) fputs(", ", stdout);
            print_elem(kv, k);
        }
        fputs(kv->count > SHOW_ELEMS ? ", ...]" : "]", stdout);
    }
    putchar('\n');
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static uint64_t n_elems(const struct gguf_tensor *t) {
    return (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
}

static void measure(struct model_sizes *s, const struct gguf *g) {
    *s = (struct model_sizes){ 0 };
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if (t->type == QT_none) {
            s->n_unknown++;
            continue;
        }
        s->n_tensors[t->type]++;
        s->n_bytes += t->n_bytes;
        s->n_elems += n_elems(t);
    }
    const struct gguf_tensor *embd = gguf_find_tensor(g, "token_embd.weight");
    const struct gguf_tensor *out = gguf_find_tensor(g, "output.weight");
    if (!embd || !out || embd->type == QT_none || out->type == QT_none) return;
    s->has_layers = true;
    s->layer_bytes = s->n_bytes - embd->n_bytes - out->n_bytes;
    s->layer_elems = s->n_elems - n_elems(embd) - n_elems(out);
}

static void print_params(const char *name, uint64_t n) {
    static const struct {
        double unit;
        char letter;
    } units[] = { { 1e12, 'T' }, { 1e9, 'B' }, { 1e6, 'M' } };
    double x = (double)n;
    for (size_t i = 0; i < N_ELEMS(units); i++)
        if (x >= units[i].unit) {
            printf("%-18s = %.3f %c\n", name, x / units[i].unit, units[i].letter);
            return;
        }
    printf("%-18s = %.3f K\n", name, x / 1e3);
}

static void print_size(const char *name, uint64_t bytes, uint64_t elems) {
    const double mib = 0x1p20, gib = 0x1p30;
    double b = (double)bytes;
    printf("%-18s = %.3f %s (%.3f BPW)\n", name, b >= gib ? b / gib : b / mib,
           b >= gib ? "GiB" : "MiB", elems ? b * 8 / (double)elems : 0.0);
}

static void print_sizes(const struct model_sizes *s) {
    print_params("model params", s->n_elems);
    print_size("model size", s->n_bytes, s->n_elems);
    if (s->has_layers) print_size("repeating layers", s->layer_bytes, s->layer_elems);
    if (s->n_unknown)
        printf("%" PRId64 " tensors of types that this build does not know are not counted\n",
               s->n_unknown);
}

/* ---- the report ----------------------------------------------------------------------------- */

static void print_tensor(const struct gguf_tensor *t, int64_t i) {
    printf("tensor %4" PRId64 ": ", i);
    print_text((struct gguf_str){ t->name, strlen(t->name) }, false);
    int pad = 36 - (int)strlen(t->name);
    char unknown[24];
    snprintf(unknown, sizeof unknown, "id %" PRIu32, t->type_id);
    printf("%*s %-8s [%6" PRId64 ", %6" PRId64 ", %6" PRId64 ", %6" PRId64 "] ", pad > 0 ? pad : 0,
           "", t->type == QT_none ? unknown : qtype_info(t->type)->name, t->ne[0], t->ne[1],
           t->ne[2], t->ne[3]);
    if (t->type == QT_none)
        puts("  size unknown");
    else
        printf("%12" PRIu64 " bytes\n", t->n_bytes);
}

static void print_line(void *arg, const char *line) {
    (void)arg;
    puts(line);
}

static void print_report(const struct inspection *in, bool tensors) {
    const struct gguf *g = in->g;
    char fingerprint[17];
    gguf_fingerprint(g, fingerprint);
    printf("%-18s = %s\n", "file", gguf_path(g));
    printf("%-18s = GGUF V%" PRIu32 ", %d part%s, %" PRIu64 " bytes, alignment %" PRIu32 "\n",
           "format", gguf_version(g), gguf_n_parts(g), gguf_n_parts(g) == 1 ? "" : "s",
           gguf_file_bytes(g), gguf_alignment(g));
    printf("%-18s = %s\n", "fingerprint", fingerprint);
    printf("%" PRId64 " key-value pairs, %" PRId64 " tensors\n", gguf_n_kv(g), gguf_n_tensors(g));
    for (int64_t i = 0; i < gguf_n_kv(g); i++)
        print_kv(gguf_kv_at(g, i), i);
    for (int64_t i = 0; tensors && i < gguf_n_tensors(g); i++)
        print_tensor(gguf_tensor_at(g, i), i);
    for (int t = 0; t < QT_count; t++)
        if (in->sizes.n_tensors[t])
            printf("type %s: %" PRId64 " tensors\n", qtype_info((enum qtype)t)->name,
                   in->sizes.n_tensors[t]);
    if (in->sizes.n_unknown) printf("type unknown: %" PRId64 " tensors\n", in->sizes.n_unknown);
    if (in->has_hp) hparams_print(&in->hp, print_line, NULL);
    if (in->why.code) printf("%-18s = no: %s\n", "runs in this build", in->why.msg);
    print_sizes(&in->sizes);
}

static void find_missing_kernel(struct inspection *in) {
    for (int64_t i = 0; i < gguf_n_tensors(in->g) && !in->why.code; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(in->g, i);
        if (t->type == QT_none)
            ERR(&in->why, ERR_UNSUPPORTED, "%s: type id %" PRIu32 " is unknown", t->name,
                t->type_id);
        else if (!qkernel_find(COL_ref, t->type, false, NULL))
            ERR(&in->why, ERR_UNSUPPORTED, "%s: no kernels for type %s", t->name,
                qtype_info(t->type)->name);
    }
}

int cmd_inspect(int argc, char **argv, struct err *e) {
    const char *model = NULL;
    bool json = false, tensors = true;
    const struct opt table[] = {
        { OPT_STR, "-m --model", "FILE", &model, 0, 0, NULL,
          "GGUF file (first part of a split model)" },
        { OPT_FLAG, "--json", NULL, &json, 0, 0, NULL, "everything as one JSON object" },
        { OPT_NO_FLAG, "--no-tensors", NULL, &tensors, 0, 0, NULL, "leave the tensor table out" },
        OPT_END,
    };
    int rc = opt_parse(argc, argv, table, "inspect -m FILE [options]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    struct gguf *g = NULL;
    struct inspection *in = NULL;
    FAIL_IF(!model, e, ERR_ARG, "inspect needs a model: -m FILE");
    TRY(gguf_open(&g, model, e));
    in = heap_calloc(1, sizeof *in, e);
    TRY(in ? 0 : ERR_NOMEM);
    in->g = g;
    measure(&in->sizes, g);
    in->has_hp = hparams_load(&in->hp, g, &in->why) == 0;
    if (in->has_hp) find_missing_kernel(in);
    if (json)
        TRY(inspect_json(in, e));
    else
        print_report(in, tensors);
out:
    heap_free(in);
    gguf_close(g);
    return rc;
}
