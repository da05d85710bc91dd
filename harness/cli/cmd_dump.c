/* SPDX-License-Identifier: MIT
 * cmd_dump.c - ggauge dump: one tensor, dequantised, as raw little-endian f32, rows in file order.
 *
 * The numbers are those of the ref column, without the compute-time factor of the trellis types. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "base/arena.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "gguf/gguf.h"

#define NAME_CAP 64 /* bytes of a tensor's name with its NUL */
#define N_NEAR 5    /* names offered for one that does not exist */

/* ---- the tensor ----------------------------------------------------------------------------- */

/* Levenshtein's distance; a and b are shorter than NAME_CAP. */
static int distance(const char *a, const char *b) {
    int row[NAME_CAP];
    int n = (int)strlen(b);
    for (int k = 0; k <= n; k++)
        row[k] = k;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int k = 1; k <= n; k++) {
            int best = diagonal + (a[i] != b[k - 1]);
            diagonal = row[k];
            if (row[k] + 1 < best) best = row[k] + 1;
            if (row[k - 1] + 1 < best) best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[n];
}

static int unknown_tensor(const struct gguf *g, const char *name, struct err *e) {
    char wanted[NAME_CAP], list[N_NEAR * (NAME_CAP + 2)] = "";
    const struct gguf_tensor *near[N_NEAR];
    int dist[N_NEAR], n = 0;
    snprintf(wanted, sizeof wanted, "%s", name);
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        int d = distance(wanted, t->name), k = n < N_NEAR ? n++ : N_NEAR;
        for (; k > 0 && dist[k - 1] > d; k--) /* insert, the last one falls out */
            if (k < N_NEAR) {
                dist[k] = dist[k - 1];
                near[k] = near[k - 1];
            }
        if (k < N_NEAR) {
            dist[k] = d;
            near[k] = t;
        }
    }
    for (int k = 0; k < n; k++) {
        size_t len = strlen(list);
        snprintf(list + len, sizeof list - len, "%s%s", k ? ", " : "", near[k]->name);
    }
    return ERR(e, ERR_MISSING, "%s: no tensor is called '%.200s'; near are: %s", gguf_path(g), name,
               n ? list : "none (the file has no tensors)");
}

static int find_tensor(const struct gguf *g, const char *name, const struct gguf_tensor **out,
                       const struct qkernel **kernel, struct err *e) {
    int rc = 0;
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    if (!t) return unknown_tensor(g, name, e);
    FAIL_IF(t->type == QT_none, e, ERR_UNSUPPORTED,
            "%s: %s: type id %" PRIu32 " is not known to this build", gguf_path(g), name,
            t->type_id);
    *kernel = qkernel_find(COL_ref, t->type, false, NULL);
    FAIL_IF(!*kernel || !(*kernel)->dequant_row, e, ERR_UNSUPPORTED,
            "%s: %s: this build cannot dequantise type %s; see ggauge types", gguf_path(g), name,
            qtype_info(t->type)->name);
    *out = t;
out:
    return rc;
}

/* ---- the output ----------------------------------------------------------------------------- */

struct output {
    FILE *f;
    const char *path; /* NULL: stdout */
};

static int output_open(struct output *o, const struct gguf *g, struct err *e) {
    int rc = 0;
    struct stat out, in;
    if (!o->path) {
        FAIL_IF(isatty(STDOUT_FILENO), e, ERR_ARG,
                "stdout is a terminal; use -o FILE or a pipe for the raw numbers");
        o->f = stdout;
        goto out;
    }
    /* Emptying the mapped model would end in SIGBUS, and without the model. */
    FAIL_IF(stat(o->path, &out) == 0 && stat(gguf_path(g), &in) == 0 && out.st_dev == in.st_dev &&
                out.st_ino == in.st_ino,
            e, ERR_ARG, "%s: is the model itself", o->path);
    o->f = fopen(o->path, "wbe");
    FAIL_IF(!o->f, e, ERR_IO, "%s: cannot create: %s", o->path, strerror(errno));
out:
    return rc;
}

/* Close; after a failure, now or before (rc), remove what is there of an ordinary file. */
static int output_close(struct output *o, int rc, struct err *e) {
    struct stat st;
    if (!o->f) return rc;
    bool regular = fstat(fileno(o->f), &st) == 0 && S_ISREG(st.st_mode);
    int bad = o->path ? fclose(o->f) : fflush(o->f);
    if (rc >= 0 && bad)
        rc = ERR(e, ERR_IO, "%s: cannot write: %s", o->path ? o->path : "stdout", strerror(errno));
    if (rc < 0 && o->path && regular) remove(o->path);
    return rc;
}

static int write_rows(struct output *o, const struct gguf_tensor *t, const struct qkernel *kernel,
                      struct err *e) {
    int rc = 0;
    const int64_t n = t->ne[0], rows = t->ne[1] * t->ne[2] * t->ne[3];
    const size_t row_bytes = qtype_row_bytes(t->type, n);
    float *y = heap_calloc((size_t)n, sizeof *y, e);
    TRY(y ? 0 : ERR_NOMEM);
    for (int64_t r = 0; r < rows; r++) {
        kernel->dequant_row((const char *)t->data + (size_t)r * row_bytes, y, n);
        FAIL_IF(fwrite(y, sizeof *y, (size_t)n, o->f) != (size_t)n, e, ERR_IO,
                "%s: cannot write row %" PRId64 " of %" PRId64 ": %s", o->path ? o->path : "stdout",
                r, rows, strerror(errno));
    }
out:
    rc = output_close(o, rc, e);
    heap_free(y);
    return rc;
}

int cmd_dump(int argc, char **argv, struct err *e) {
    const char *model = NULL, *name = NULL;
    struct output o = { 0 };
    const struct opt table[] = {
        { OPT_STR, "-m --model", "FILE", &model, 0, 0, NULL,
          "GGUF file (first part of a split model)" },
        { OPT_STR, "--tensor", "NAME", &name, 0, 0, NULL, "the tensor to write" },
        { OPT_STR, "-o --output", "OUT", &o.path, 0, 0, NULL, "file to write instead of stdout" },
        OPT_END,
    };
    int rc = opt_parse(argc, argv, table, "dump -m FILE --tensor NAME [-o OUT]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    struct gguf *g = NULL;
    const struct gguf_tensor *t = NULL;
    const struct qkernel *kernel = NULL;
    FAIL_IF(!model || !name, e, ERR_ARG, "dump needs -m FILE and --tensor NAME");
    TRY(gguf_open(&g, model, e));
    TRY(find_tensor(g, name, &t, &kernel, e));
    TRY(output_open(&o, g, e));
    TRY(write_rows(&o, t, kernel, e));
out:
    gguf_close(g);
    return rc;
}
