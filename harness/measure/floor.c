/* SPDX-License-Identifier: MIT
 * floor.c - noise floor of an arm; see floor.h. */
#include "measure/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/threads.h"
#include "result/row.h"

/* 512 tokens are 15 micro-batches of 33 and one of 17: the widths that tiles of 8, 16 and 32
 * columns have most trouble with. */
#define FLOOR_UBATCH 33
#define FLOOR_UBATCH_OTHER 64
/* More threads than before, and an odd number more, so that work is shared out unevenly. */
#define FLOOR_MORE_THREADS 3
/* Arms that promise no bits: one rounding that falls otherwise moves many later ones, so single
 * positions differ by a few hundredths of a nat. Their mean may not: beyond its own standard errors
 * it stays within a share of the margin. */
#define NOISE_SHARE 0.1
#define NOISE_SIGMAS 4.0
#define NOISE_MAX 0.1 /* of the mean |d nll|, nats: this is no rounding */

static int on_score(void *arg, const struct pair *p, struct err *e) {
    (void)e;
    struct floor *f = arg;
    const struct arm_row *a = p->row[SIDE_A], *b = p->row[SIDE_B];
    double d = fabs(b->nll - a->nll);
    if (isnan(d)) d = a->bad == b->bad ? 0.0 : (double)INFINITY;
    bool same = arm_row_same(a, b) && d == 0.0;
    f->n++;
    f->n_different += !same;
    f->d_mean += d;
    f->d_sum += isfinite(d) ? b->nll - a->nll : d;
    f->d_sq += d * d;
    if (d > f->d_max) f->d_max = d;
    return 0;
}

static int on_done(void *arg, int64_t window, struct err *e) {
    (void)arg, (void)window, (void)e;
    return 0;
}

/* The threads of other engines spin at their barriers: more of them than processors take for ever.
 */
static int other_threads(const struct arm *a, const struct arm_params *p) {
    const int n = a->info.n_threads_batch, more = n + FLOOR_MORE_THREADS;
    if (!p->foreign || more <= threads_online()) return more;
    return n > 1 ? n - 1 : 2;
}

static bool is_noise(const struct floor *f, double margin) {
    const double n = (double)f->n, mean = f->n ? f->d_sum / n : 0;
    const double sd = f->n ? sqrt(fmax(f->d_sq / n - mean * mean, 0)) : 0;
    return f->d_mean <= NOISE_MAX &&
           fabs(mean) <= NOISE_SHARE * margin + NOISE_SIGMAS * sd / sqrt(fmax(n, 1));
}

int floor_measure(struct floor *f, struct arm *a, const struct arm_params *p,
                  const struct pair_walk *w, double margin, struct err *e) {
    int rc = 0;
    struct arm *other = NULL;
    *f = (struct floor){ .kept = true };
    if (a->info.promise == ARM_RECORDED) return 0;
    struct arm_params q = *p;
    q.n_ubatch = a->info.n_ubatch == FLOOR_UBATCH ? FLOOR_UBATCH_OTHER : FLOOR_UBATCH;
    if (q.n_batch <= q.n_ubatch) q.n_ubatch = (a->info.n_ubatch + 1) / 2; /* it would be cut */
    if (q.n_ubatch == a->info.n_ubatch) q.n_ubatch = q.n_batch = 2;       /* it was 1 */
    q.n_threads = q.n_threads_batch = other_threads(a, p);
    f->n_ubatch = q.n_ubatch;
    f->n_threads = q.n_threads;
    TRY(arm_open(&other, &q, e));
    struct pair_walk v = *w;
    v.arm[SIDE_A] = a;
    v.arm[SIDE_B] = other;
    v.n = w->n < FLOOR_CHUNKS ? w->n : FLOOR_CHUNKS;
    v.logits = false;
    v.arg = f;
    v.score = on_score;
    v.done = on_done;
    TRY(pair_walk_run(&v, e));
    f->d_mean /= (double)(f->n ? f->n : 1);
    f->kept = a->info.promise == ARM_BITWISE ? f->n_different == 0 : is_noise(f, margin);
out:
    arm_close(other);
    return rc;
}

/* ---- remembering ----------------------------------------------------------------------------- */

/* A hash of the running program, so that a build with other kernels has other floors. */
static int program_hash(char out[17], struct err *e) {
    int rc = 0;
    char *data = NULL;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat st;
    FAIL_IF(fd < 0 || fstat(fd, &st) || st.st_size <= 0, e, ERR_IO, "/proc/self/exe: %s",
            strerror(errno));
    data = heap_alloc((size_t)st.st_size, e);
    if (!data) {
        rc = ERR_NOMEM;
        goto out;
    }
    size_t n = 0;
    for (ssize_t k; n < (size_t)st.st_size && (k = read(fd, data + n, (size_t)st.st_size - n)) > 0;)
        n += (size_t)k;
    fingerprint_bytes(data, n, out);
out:
    if (fd >= 0) close(fd);
    heap_free(data);
    return rc;
}

int floor_key(char key[17], const struct arm *a, const struct arm_params *p,
              const struct pair_walk *w, struct err *e) {
    int rc = 0;
    static const enum row_field what[] = {
        ROW_engine,   ROW_engine_commit, ROW_backend,   ROW_cells,
        ROW_model_fp, ROW_n_threads,     ROW_n_ubatch,  ROW_n_threads_batch,
        ROW_n_batch,  ROW_type_k,        ROW_type_v,    ROW_settings,
        ROW_host,     ROW_cpu,           ROW_placement,
    };
    char all[8192], program[17], text[17];
    size_t n = 0;
    struct row r;
    row_init(&r);
    TRY(provenance_fill(&r, e));
    TRY(arm_describe(a, &r, e));
    TRY(program_hash(program, e));
    /* Windows, not the file: the same tokens give the same floor. */
    int64_t n_win = w->n < FLOOR_CHUNKS ? w->n : FLOOR_CHUNKS;
    n += (size_t)snprintf(all, sizeof all, "floor 1 %s n_ctx %d bos %d act_like %s", program,
                          w->win->n_ctx, w->bos, p->act_like ? p->act_like : "none");
    for (int64_t i = 0; i < n_win; i++) {
        int64_t start = windows_start(w->win, w->order ? w->order[i] : i);
        fingerprint_bytes(w->tokens + start, (size_t)w->win->n_ctx * sizeof *w->tokens, text);
        n += (size_t)snprintf(all + n, sizeof all - n, " %s", text);
    }
    for (size_t i = 0; i < N_ELEMS(what) && n < sizeof all; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "|%s", row_get(&r, what[i]));
    fingerprint_bytes(all, n < sizeof all ? n : sizeof all, key);
out:
    row_release(&r);
    return rc;
}

static bool is_regular(FILE *f) {
    struct stat st;
    return fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
}

static bool has_key(const char *line) {
    return strspn(line, "0123456789abcdef") == 16 && line[16] == ' ';
}

/* A line: key n n_different d_max d_mean n_ubatch n_threads kept. Other lines are passed over: the
 * file is a memory, not a result. */
int floor_recall(struct floor *f, const char *path, const char *key, struct err *e) {
    (void)e;
    char line[512];
    int found = 0;
    FILE *in = fopen(path, "re");
    if (!in) return 0;
    const bool readable = is_regular(in); /* a device may have no end */
    while (readable && fgets(line, sizeof line, in)) {
        struct floor g = { .remembered = true };
        int kept = 0, end = 0;
        if (strncmp(line, key, 16)) continue;
        if (sscanf(line + 16, " %" SCNd64 " %" SCNd64 " %lf %lf %d %d %d%n", &g.n, &g.n_different,
                   &g.d_max, &g.d_mean, &g.n_ubatch, &g.n_threads, &kept, &end) != 7)
            continue;
        g.kept = kept == 1;
        *f = g;
        found = 1;
    }
    fclose(in);
    return found;
}

static void make_parents(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(path, 0777);
        *p = '/';
    }
}

int floor_remember(const struct floor *f, const char *path, const char *key, struct err *e) {
    int rc = 0;
    char line[512], dirs[4096];
    int fd = -1;
    FILE *old = fopen(path, "re");
    FAIL_IF(old && is_regular(old) && fgets(line, sizeof line, old) && !has_key(line), e, ERR_ARG,
            "%s: is there already and does not hold noise floors; it is left alone", path);
    FAIL_IF(strlen(path) >= sizeof dirs, e, ERR_ARG, "%s: the path is too long", path);
    memcpy(dirs, path, strlen(path) + 1);
    make_parents(dirs);
    int n =
        snprintf(line, sizeof line, "%s %" PRId64 " %" PRId64 " %.17g %.17g %d %d %d\n", key, f->n,
                 f->n_different, f->d_max, f->d_mean, f->n_ubatch, f->n_threads, (int)f->kept);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    FAIL_IF(fd < 0 || write(fd, line, (size_t)n) != n, e, ERR_IO, "%s: %s", path, strerror(errno));
out:
    if (old) fclose(old);
    if (fd >= 0) close(fd);
    return rc;
}
