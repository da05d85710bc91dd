/* SPDX-License-Identifier: MIT
 * regress_build.c - two revisions of an engine as workers; see regress.h. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arm/tool.h"
#include "cli/regress.h"
#include "cli/text.h"

#define LOG_LINES "its output is in "

const char *regress_rev_name(int rev) {
    return rev == REV_BASE ? "base" : "head";
}

/* The last line that a program printed, and all of it in a file. */
struct captured {
    FILE *log; /* or NULL */
    char line[4096], last[4096];
    size_t n;
};

static int on_text(void *arg, const char *text, size_t n, struct err *e) {
    struct captured *c = arg;
    (void)e;
    if (c->log) fwrite(text, 1, n, c->log);
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\n') {
            if (c->n < sizeof c->line - 1) c->line[c->n++] = text[i];
            continue;
        }
        c->line[c->n] = '\0';
        if (c->n) memcpy(c->last, c->line, c->n + 1);
        c->n = 0;
    }
    return 0;
}

/* 0 if it ended well, 1 if not; negative if it could not be started. */
static int run(const char *const *argv, const char *dir, const char *log, struct captured *c,
               struct err *e) {
    int rc = 0, status = 0;
    *c = (struct captured){ 0 };
    if (log) {
        c->log = fopen(log, "we");
        FAIL_IF(!c->log, e, ERR_IO, "%s: %s", log, strerror(errno));
    }
    TRY(tool_run(argv, dir, 0, on_text, c, &status, e));
    if (c->n) on_text(c, "\n", 1, e);
    rc = status ? 1 : 0;
out:
    if (c->log) fclose(c->log);
    return rc;
}

static int resolve(struct regress *r, int rev, struct err *e) {
    int rc = 0;
    char spec[512];
    struct captured c;
    snprintf(spec, sizeof spec, "%s^{commit}", r->rev[rev]);
    const char *const argv[] = { "git", "-C", r->repo, "rev-parse", "--verify", spec, NULL };
    TRY(run(argv, NULL, NULL, &c, e));
    FAIL_IF(rc || strlen(c.last) >= sizeof r->commit[rev], e, ERR_ARG,
            "--%s %s is no commit of %s: %.200s", regress_rev_name(rev), r->rev[rev], r->repo,
            c.last);
    memcpy(r->commit[rev], c.last, strlen(c.last) + 1);
out:
    return rc;
}

/* ---- one checkout and its build -------------------------------------------------------------- */

/* The command that built a checkout stands in it, written when the command has succeeded. */
#define BUILT_FILE ".ggauge-built"

/* Whether the folder `tree` is a checkout of exactly that commit, no tracked file changed. Inside
 * of another repository git answers for that one, hence the question for the top. */
static int is_clean(const struct regress *r, int rev, const char *tree, bool *clean,
                    struct err *e) {
    int rc = 0;
    struct captured top, head, changes;
    const char *const ask_top[] = { "git", "-C", tree, "rev-parse", "--show-toplevel", NULL };
    const char *const ask_head[] = { "git", "-C", tree, "rev-parse", "HEAD", NULL };
    const char *const ask_changes[] = { "git",    "-C",          tree,
                                        "status", "--porcelain", "--untracked-files=no",
                                        NULL };
    *clean = false;
    TRY(run(ask_top, NULL, NULL, &top, e));
    if (rc || strcmp(top.last, tree)) return 0;
    TRY(run(ask_head, NULL, NULL, &head, e));
    if (rc || strcmp(head.last, r->commit[rev])) return 0;
    TRY(run(ask_changes, NULL, NULL, &changes, e));
    *clean = !rc && !changes.last[0];
    rc = 0;
out:
    return rc;
}

static bool is_built(const struct regress *r, const char *tree) {
    struct text t;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/" BUILT_FILE, tree);
    if (text_read(&t, path, NULL)) return false;
    bool same = t.n == strlen(r->build) && !memcmp(t.data, r->build, t.n);
    text_release(&t);
    return same;
}

/* What stands at `tree` goes: a killed checkout and the leftovers of another command would become
 * part of the build. git may still know it as a worktree, locked if it was killed: -f -f. */
static int check_out(const struct regress *r, int rev, const char *tree, struct err *e) {
    int rc = 0;
    struct stat st;
    struct captured c;
    const char *const away[] = { "rm", "-rf", "--", tree, NULL };
    const char *const add[] = { "git", "-C",       r->repo, "worktree",     "add", "-f",
                                "-f",  "--detach", tree,    r->commit[rev], NULL };
    if (!lstat(tree, &st)) {
        fprintf(stderr, "regress: %s is no clean checkout that this command has built: made anew\n",
                tree);
        TRY(run(away, NULL, NULL, &c, e));
        FAIL_IF(rc, e, ERR_IO, "%s cannot be removed: %.300s", tree, c.last);
    }
    TRY(run(add, NULL, NULL, &c, e));
    FAIL_IF(rc, e, ERR_IO, "%s cannot be checked out to %s: %.300s", r->rev[rev], tree, c.last);
out:
    return rc;
}

/* 1: the user's command failed. */
static int build(struct regress *r, int rev, const char *tree, const char *log, struct err *e) {
    int rc = 0;
    bool clean;
    char done[PATH_MAX + 16];
    struct captured c;
    TRY(is_clean(r, rev, tree, &clean, e));
    if (clean && is_built(r, tree)) return 0;
    TRY(check_out(r, rev, tree, e));
    fprintf(stderr, "regress: building %s %.12s: %s\n", regress_rev_name(rev), r->commit[rev],
            r->build);
    const char *const argv[] = { "sh", "-c", r->build, NULL };
    TRY(run(argv, tree, log, &c, e));
    FAIL_IF(rc && rev == REV_BASE, e, ERR_MISSING,
            "base %s does not build: %.300s (" LOG_LINES "%s)", r->rev[rev], c.last, log);
    if (rc) return 1;
    snprintf(done, sizeof done, "%s/" BUILT_FILE, tree);
    FILE *f = fopen(done, "we");
    if (!f) return 0; /* without it, it is built again */
    fputs(r->build, f);
    fclose(f);
out:
    return rc;
}

static int build_worker(struct regress *r, int rev, const char *tree, const char *log,
                        struct err *e) {
    int rc = 0;
    char engine[PATH_MAX + 16], dir[PATH_MAX + 32], commit[128];
    struct captured c;
    snprintf(engine, sizeof engine, "ENGINE=%s", tree);
    snprintf(dir, sizeof dir, "ENGINE_BUILD=%s", r->build_dir);
    snprintf(commit, sizeof commit, "ENGINE_COMMIT=%s", r->commit[rev]);
    const char *const argv[] = { "make",   "-C",   r->source, "--no-print-directory",
                                 "worker", engine, dir,       commit,
                                 NULL };
    TRY(run(argv, NULL, log, &c, e));
    FAIL_IF(rc, e, ERR_MISSING, "the worker of %s cannot be built: %.300s (" LOG_LINES "%s)",
            r->rev[rev], c.last, log);
    if (c.last[0] == '/')
        snprintf(r->worker[rev], sizeof r->worker[rev], "%s", c.last);
    else
        snprintf(r->worker[rev], sizeof r->worker[rev], "%.2000s/%.2000s", r->source, c.last);
    FAIL_IF(access(r->worker[rev], X_OK), e, ERR_MISSING,
            "%s: make worker has left no program there", r->worker[rev]);
out:
    return rc;
}

/* The source tree of this program, where `make worker` works: above the folder that it was built
 * in. */
static int find_source(struct regress *r, struct err *e) {
    int rc = 0;
    static char found[PATH_MAX];
    char path[PATH_MAX + 64];
    if (r->source) return 0;
    ssize_t n = readlink("/proc/self/exe", found, sizeof found - 1);
    found[n > 0 ? n : 0] = '\0';
    for (char *slash = strrchr(found, '/'); slash; slash = strrchr(found, '/')) {
        *slash = '\0';
        snprintf(path, sizeof path, "%s/harness/worker/libllama_build.sh", found);
        if (access(path, R_OK)) continue;
        r->source = found;
        return 0;
    }
    FAIL_IF(true, e, ERR_ARG,
            "the source tree of ggauge is not around this program: say --source DIR");
out:
    return rc;
}

int regress_build(struct regress *r, struct err *e) {
    int rc = 0;
    char here[PATH_MAX], tree[PATH_MAX], log[PATH_MAX];
    TRY(find_source(r, e));
    FAIL_IF(mkdir(r->out, 0777) && errno != EEXIST, e, ERR_IO, "%s: %s", r->out, strerror(errno));
    FAIL_IF(!realpath(r->out, here), e, ERR_IO, "%s: %s", r->out, strerror(errno));
    for (int rev = 0; rev < REV_count; rev++) {
        TRY(resolve(r, rev, e));
        FAIL_IF(snprintf(tree, sizeof tree, "%s/%.12s", here, r->commit[rev]) >= (int)sizeof tree ||
                    snprintf(log, sizeof log, "%s/build-%s.log", here, regress_rev_name(rev)) >=
                        (int)sizeof log,
                e, ERR_ARG, "%s: the path is too long", r->out);
        TRY(build(r, rev, tree, log, e));
        r->head_broken = rc == 1;
        if (r->head_broken) return 0;
        FAIL_IF(snprintf(log, sizeof log, "%s/worker-%s.log", here, regress_rev_name(rev)) >=
                    (int)sizeof log,
                e, ERR_ARG, "%s: the path is too long", r->out);
        TRY(build_worker(r, rev, tree, log, e));
    }
    rc = 0;
out:
    return rc;
}
