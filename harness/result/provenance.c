/* SPDX-License-Identifier: MIT
 * provenance.c - where a result comes from; see row.h.
 *
 * BUILD_COMMIT, BUILD_DIRTY and BUILD_FLAGS are given by the Makefile to this file alone. Whatever
 * the system does not tell is left empty: a result without its governor is better than none. */
#include "result/provenance.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/threads.h"
#include "result/row.h"

#ifndef BUILD_COMMIT
#define BUILD_COMMIT "unknown"
#define BUILD_DIRTY 1
#define BUILD_FLAGS ""
#endif

#define STR_(x) #x
#define STR(x) STR_(x)
#if defined(__clang__)
#define COMPILER                                                                                   \
    "clang " STR(__clang_major__) "." STR(__clang_minor__) "." STR(__clang_patchlevel__)
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER ""
#endif

/* The kernel's spelling (arch/x86/include/asm/cpufeatures.h). */
static const char *const feature_names[] = {
    "avx2",        "fma",        "f16c",        "avx512f",  "avx512bw", "avx512dq", "avx512vl",
    "avx512_vnni", "avx512vbmi", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
};

/* The beginning of a small file, always NUL-terminated, "" if it cannot be read. */
static void read_head(const char *path, char *buf, size_t cap) {
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t k;
        while (n < cap - 1 && (k = read(fd, buf + n, cap - 1 - n)) > 0)
            n += (size_t)k;
        close(fd);
    }
    buf[n] = '\0';
}

/* The value of "key<blanks>: value" in text, up to the end of its line. */
static const char *find_value(const char *text, const char *key, size_t *n) {
    *n = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *p = line + strlen(key);
        p += strspn(p, " \t");
        if (*p != ':') continue;
        p++;
        p += strspn(p, " \t");
        *n = strcspn(p, "\n");
        return p;
    }
    return "";
}

static bool has_word(const char *s, size_t n, const char *word) {
    size_t w = strlen(word);
    for (size_t i = 0; i + w <= n; i++) {
        bool begins = i == 0 || s[i - 1] == ' ', ends = i + w == n || s[i + w] == ' ';
        if (begins && ends && memcmp(s + i, word, w) == 0) return true;
    }
    return false;
}

void cpuinfo_parse(const char *text, char *model, size_t n_model, char *features,
                   size_t n_features) {
    size_t n;
    const char *v = find_value(text, "model name", &n);
    snprintf(model, n_model, "%.*s", (int)(n < n_model ? n : n_model - 1), v);
    v = find_value(text, "flags", &n);
    features[0] = '\0';
    size_t used = 0;
    for (size_t i = 0; i < N_ELEMS(feature_names) && used < n_features; i++)
        if (has_word(v, n, feature_names[i]))
            used += (size_t)snprintf(features + used, n_features - used, "%s%s", used ? " " : "",
                                     feature_names[i]);
}

/* Time, and from it the name of this run. */
static int fill_run(struct row *r, struct err *e) {
    int rc = 0;
    char host[65] = "", utc[32], id[160];
    if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    TRY(row_set(r, ROW_host, host, e));
    strftime(utc, sizeof utc, "%Y-%m-%dT%H:%M:%SZ", &tm);
    TRY(row_set(r, ROW_time_utc, utc, e));
    strftime(utc, sizeof utc, "%Y%m%dT%H%M%SZ", &tm);
    for (char *c = host; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '.' && *c != '-') *c = '_'; /* a file name, too */
    snprintf(id, sizeof id, "%s-%s-%ld", utc, host[0] ? host : "host", (long)getpid());
    TRY(row_set(r, ROW_run_id, id, e));
out:
    return rc;
}

static int fill_machine(struct row *r, struct err *e) {
    int rc = 0;
    static const char governor_path[] = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    char cpuinfo[16384], model[256], features[256], governor[64]; /* one processor is about 2 KB */
    double load;
    struct sysinfo si;
    read_head("/proc/cpuinfo", cpuinfo, sizeof cpuinfo);
    cpuinfo_parse(cpuinfo, model, sizeof model, features, sizeof features);
    TRY(row_set(r, ROW_cpu, model, e));
    TRY(row_set(r, ROW_cpu_features, features, e));
    TRY(row_set_int(r, ROW_n_cpus, threads_online(), e));
    if (sysinfo(&si) == 0)
        TRY(row_set_int(r, ROW_mem_bytes, (long long)si.totalram * si.mem_unit, e));
    read_head(governor_path, governor, sizeof governor);
    governor[strcspn(governor, "\n")] = '\0';
    TRY(row_set(r, ROW_governor, governor, e));
    if (getloadavg(&load, 1) == 1) TRY(row_set_num(r, ROW_load1, load, e));
out:
    return rc;
}

const char *provenance_commit(void) {
    return BUILD_COMMIT;
}

int provenance_fill(struct row *r, struct err *e) {
    int rc = 0;
    TRY(row_set(r, ROW_schema, ROW_SCHEMA, e));
    TRY(fill_run(r, e));
    TRY(row_set(r, ROW_commit_id, BUILD_COMMIT, e));
    TRY(row_set_int(r, ROW_dirty, BUILD_DIRTY, e));
    TRY(fill_machine(r, e));
    TRY(row_set(r, ROW_compiler, COMPILER, e));
    TRY(row_set(r, ROW_flags, BUILD_FLAGS, e));
out:
    return rc;
}

void fingerprint_bytes(const void *data, size_t n, char out[17]) {
    snprintf(out, 17, "%016" PRIx64, (uint64_t)XXH3_64bits(data, n));
}
