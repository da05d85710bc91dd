/* SPDX-License-Identifier: MIT
 * gguf_open.c - opening a model of one or several parts, and what an open model answers.
 *
 * A split model is opened by its first part, PREFIX-00001-of-0000N.gguf; the names of the others
 * follow from it. Every part is a whole GGUF file with a data section of its own; only the first
 * has the metadata of the model. Source: spec of ggml; ik_llama.cpp 8337e4cd, src/llama.cpp
 * (llama_split_path, llama_model_loader). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "gguf_impl.h"

#define SUFFIX_LEN 20 /* characters of "-00001-of-00003.gguf" */

/* ---- one part ------------------------------------------------------------------------------- */

/* Map n bytes of a file from a huge page's border on: see gguf_memory.c. */
static void *map_aligned(size_t n, int fd) {
    if (n < HUGE_PAGE) return mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    char *all = mmap(NULL, n + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return all;
    const size_t before = (HUGE_PAGE - (uintptr_t)all % HUGE_PAGE) % HUGE_PAGE;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (n + page - 1) / page * page;
    void *map = mmap(all + before, n, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    if (map == MAP_FAILED) {
        munmap(all, n + HUGE_PAGE);
        return map;
    }
    if (before) munmap(all, before);
    munmap(all + before + used, HUGE_PAGE - before);
    return map;
}

static int map_file(struct gguf_part *p, struct err *e) {
    int rc = 0;
    struct stat st;
    /* Not blocking, so that a FIFO is refused below instead of waited for. */
    int fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FAIL_IF(fd < 0, e, errno == ENOENT ? ERR_MISSING : ERR_IO, "%s: cannot open: %s", p->path,
            strerror(errno));
    FAIL_IF(fstat(fd, &st) < 0, e, ERR_IO, "%s: cannot stat: %s", p->path, strerror(errno));
    FAIL_IF(S_ISDIR(st.st_mode), e, ERR_IO, "%s: is a directory, expected a GGUF file", p->path);
    FAIL_IF(!S_ISREG(st.st_mode), e, ERR_IO, "%s: is not a regular file and cannot be mapped",
            p->path);
    FAIL_IF(st.st_size == 0, e, ERR_FORMAT, "%s: the file is empty, expected a GGUF file", p->path);
    p->n_bytes = (uint64_t)st.st_size;
    void *map = map_aligned((size_t)st.st_size, fd);
    FAIL_IF(map == MAP_FAILED, e, ERR_IO, "%s: cannot map %" PRIu64 " bytes: %s", p->path,
            p->n_bytes, strerror(errno));
    p->map = map;
    p->base = map;
out:
    if (fd >= 0) close(fd);
    return rc;
}

static int open_part(struct gguf_part *p, const char *path, size_t path_len, struct err *e) {
    p->path = heap_strndup(path, path_len, e);
    if (!p->path) return ERR_NOMEM;
    int rc = map_file(p, e);
    return rc < 0 ? rc : gguf_read_part(p, e);
}

static void part_release(struct gguf_part *p) {
    for (int64_t i = 0; i < p->n_pairs; i++)
        heap_free(p->pairs[i].strs);
    for (int64_t i = 0; i < p->n_tensors; i++)
        heap_free(p->tensors[i].name);
    heap_free(p->pairs);
    heap_free(p->tensors);
    gguf_index_release(&p->keys);
    if (p->map) munmap(p->map, (size_t)p->n_bytes);
    heap_free(p->path);
}

/* ---- split models --------------------------------------------------------------------------- */

static bool is_suffix(const char *s) {
    static const char shape[] = "-ddddd-of-ddddd.gguf"; /* d = a digit */
    for (int i = 0; i < SUFFIX_LEN; i++) {
        bool digit = s[i] >= '0' && s[i] <= '9';
        if (i > 0 && shape[i] == 'd' ? !digit : s[i] != shape[i]) return false;
    }
    return s[SUFFIX_LEN] == '\0';
}

/* The path of part i of n (from 0), made from that of another part; NULL if that does not end like
 * the name of a part. */
static int sibling(char **out, const char *path, int i, int n, struct err *e) {
    size_t len = strlen(path);
    *out = NULL;
    if (len <= SUFFIX_LEN || !is_suffix(path + len - SUFFIX_LEN)) return 0;
    *out = heap_strndup(path, len, e);
    if (!*out) return ERR_NOMEM;
    snprintf(*out + len - SUFFIX_LEN, SUFFIX_LEN + 1, "-%05u-of-%05u.gguf", (i + 1u) % 100000u,
             (unsigned)n % 100000u);
    return 0;
}

/* *n = parts of the model that this part belongs to, 1 without the keys; *no = its own number. */
static int split_keys(const struct gguf_part *p, uint64_t *no, uint64_t *n, struct err *e) {
    int rc = 0;
    *no = 0;
    *n = 1;
    TRY(gguf_part_u64(p, "split.count", n, e));
    TRY(gguf_part_u64(p, "split.no", no, e));
    FAIL_IF(*n == 0 || *n > UINT16_MAX || *no >= *n, e, ERR_FORMAT,
            "%s: split.no = %" PRIu64 " with split.count = %" PRIu64
            ", expected 0 <= no < count < 65536",
            p->path, *no, *n);
    rc = 0;
out:
    return rc;
}

/* The part that the user named must be the first; say which one that is. */
static int check_first(const struct gguf_part *p, uint64_t no, uint64_t n, struct err *e) {
    int rc = 0;
    char *first = NULL;
    TRY(sibling(&first, p->path, 0, (int)n, e));
    FAIL_IF(no != 0, e, ERR_ARG,
            "%s: this is part %" PRIu64 " of %" PRIu64 " of a split model; open its first part%s%s",
            p->path, no + 1, n, first ? ", " : "", first ? first : "");
    FAIL_IF(!first || strcmp(first, p->path) != 0, e, ERR_ARG,
            "%s: this is the first of %" PRIu64 " parts of a split model; its name must end in "
            "-00001-of-%05" PRIu64 ".gguf for the others to be found",
            p->path, n, n);
out:
    heap_free(first);
    return rc;
}

static int open_sibling(struct gguf *g, int i, int n, struct err *e) {
    int rc = 0;
    uint64_t no, count;
    struct gguf_part *p = &g->parts[i];
    char *path = NULL; /* check_first has seen that there is one */
    TRY(sibling(&path, g->parts[0].path, i, n, e));
    g->n_parts = i + 1;
    rc = open_part(p, path, strlen(path), e);
    if (rc < 0) err_prefix(e, "part %d of %d", i + 1, n);
    TRY(rc);
    TRY(split_keys(p, &no, &count, e));
    FAIL_IF(no != (uint64_t)i || count != (uint64_t)n, e, ERR_MISMATCH,
            "%s: says it is part %" PRIu64 " of %" PRIu64 ", expected part %d of %d", path, no + 1,
            count, i + 1, n);
out:
    heap_free(path);
    return rc;
}

static int open_siblings(struct gguf *g, struct err *e) {
    int rc = 0;
    uint64_t no, n, n_tensors = 0;
    TRY(split_keys(&g->parts[0], &no, &n, e));
    if (n == 1) goto out;
    FAIL_IF(!g->parts[0].map, e, ERR_UNSUPPORTED,
            "%s: a split model of %" PRIu64 " parts cannot be opened from memory", g->parts[0].path,
            n);
    TRY(check_first(&g->parts[0], no, n, e));
    struct gguf_part *parts = heap_calloc(n, sizeof *parts, e);
    if (!parts) return ERR_NOMEM;
    parts[0] = g->parts[0];
    heap_free(g->parts);
    g->parts = parts;
    for (int i = 1; i < (int)n; i++)
        TRY(open_sibling(g, i, (int)n, e));

    uint64_t found = 0;
    for (uint64_t i = 0; i < n; i++)
        found += (uint64_t)parts[i].n_tensors;
    TRY(gguf_part_u64(&parts[0], "split.tensors.count", &n_tensors, e));
    FAIL_IF(rc == 0, e, ERR_MISSING, "%s: a split model needs the key split.tensors.count",
            parts[0].path);
    FAIL_IF(found != n_tensors, e, ERR_MISMATCH,
            "%s: split.tensors.count is %" PRIu64 ", but the %" PRIu64 " parts have %" PRIu64
            " tensors",
            parts[0].path, n_tensors, n, found);
    rc = 0;
out:
    return rc;
}

/* ---- the whole model ------------------------------------------------------------------------ */

static int join_tensors(struct gguf *g, struct err *e) {
    int rc = 0;
    int64_t total = 0, have = 0;
    for (int k = 0; k < g->n_parts; k++)
        total += g->parts[k].n_tensors;
    g->tensors = heap_calloc((size_t)total, sizeof *g->tensors, e);
    if (!g->tensors) return ERR_NOMEM;
    for (int k = 0; k < g->n_parts; k++) {
        struct gguf_part *p = &g->parts[k];
        g->n_bytes += p->n_bytes;
        for (int64_t i = 0; i < p->n_tensors; i++) {
            struct gguf_tensor *t = &g->tensors[g->n_tensors];
            *t = p->tensors[i];
            t->part = k;
            TRY(gguf_index_put(&g->names, gguf_str_of(t->name), g->n_tensors, &have, e));
            FAIL_IF(rc == 1, e, ERR_FORMAT,
                    "%s: tensor %s is there twice (numbers %" PRId64 " and %" PRId64 ")", p->path,
                    gguf_show(gguf_str_of(t->name)).s, have, g->n_tensors);
            g->n_tensors++;
        }
    }
out:
    return rc;
}

/* A model with room for its first part. */
static struct gguf *new_model(struct err *e) {
    struct gguf *g = heap_calloc(1, sizeof *g, e);
    if (!g) return NULL;
    g->parts = heap_calloc(1, sizeof *g->parts, e);
    g->n_parts = g->parts ? 1 : 0;
    if (g->parts) return g;
    gguf_close(g);
    return NULL;
}

int gguf_open(struct gguf **out, const char *path, struct err *e) {
    int rc = 0;
    *out = NULL;
    struct gguf *g = new_model(e);
    if (!g) return ERR_NOMEM;
    TRY(open_part(&g->parts[0], path, strlen(path), e));
    TRY(open_siblings(g, e));
    TRY(join_tensors(g, e));
    *out = g;
    g = NULL;
out:
    gguf_close(g);
    return rc;
}

int gguf_open_memory(struct gguf **out, const void *data, size_t n_bytes, struct err *e) {
    static const char name[] = "(memory)";
    int rc = 0;
    *out = NULL;
    struct gguf *g = new_model(e);
    if (!g) return ERR_NOMEM;
    struct gguf_part *p = &g->parts[0];
    p->path = heap_strndup(name, sizeof name - 1, e);
    TRY(p->path ? 0 : ERR_NOMEM);
    FAIL_IF(n_bytes == 0, e, ERR_FORMAT, "%s: empty, expected a GGUF file", name);
    p->base = data;
    p->n_bytes = n_bytes;
    TRY(gguf_read_part(p, e));
    TRY(open_siblings(g, e));
    TRY(join_tensors(g, e));
    *out = g;
    g = NULL;
out:
    gguf_close(g);
    return rc;
}

void gguf_close(struct gguf *g) {
    if (!g) return;
    for (int k = 0; k < g->n_parts; k++)
        part_release(&g->parts[k]);
    heap_free(g->parts);
    heap_free(g->tensors);
    gguf_index_release(&g->names);
    heap_free(g);
}

uint32_t gguf_version(const struct gguf *g) {
    return g->parts[0].version;
}

uint32_t gguf_alignment(const struct gguf *g) {
    return g->parts[0].alignment;
}

int gguf_n_parts(const struct gguf *g) {
    return g->n_parts;
}

uint64_t gguf_file_bytes(const struct gguf *g) {
    return g->n_bytes;
}

const char *gguf_path(const struct gguf *g) {
    return g->parts[0].path;
}

int64_t gguf_n_kv(const struct gguf *g) {
    return g->parts[0].n_pairs;
}

const struct gguf_kv *gguf_kv_at(const struct gguf *g, int64_t i) {
    return i >= 0 && i < g->parts[0].n_pairs ? &g->parts[0].pairs[i].kv : NULL;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key) {
    return gguf_part_find(&g->parts[0], key);
}

int64_t gguf_n_tensors(const struct gguf *g) {
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int64_t i) {
    return i >= 0 && i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    int64_t i = gguf_index_find(&g->names, gguf_str_of(name));
    return i < 0 ? NULL : &g->tensors[i];
}

enum qtype gguf_main_type(const struct gguf *g) {
    int64_t n[QT_count] = { 0 }, most = 0;
    enum qtype best = QT_none;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (t->type != QT_none && t->ne[1] > 1)
            n[t->type] += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    for (int t = 0; t < QT_count; t++) {
        if (n[t] <= most) continue;
        most = n[t];
        best = (enum qtype)t;
    }
    return best;
}
