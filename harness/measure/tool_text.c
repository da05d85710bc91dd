/* SPDX-License-Identifier: MIT
 * tool_text.c - reading what other programs print; see tool_text.h. */
#include "measure/tool_text.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "result/csv.h"

/* ---- llama-perplexity ------------------------------------------------------------------------ */

static int take_value(struct ppl_text *p, ppl_text_fn fn, void *arg, struct err *e) {
    int rc = 0;
    int64_t i = 0;
    double ppl;
    char value[64], *end;
    p->word[p->n] = '\0';
    if (sscanf(p->word, "[%" SCNd64 "]%63[^,]", &i, value) != 2) return 0; /* not ours */
    ppl = strtod(value, &end);
    if (*end || end == value) return 0;
    FAIL_IF(i != p->n_chunks + 1, e, ERR_FORMAT,
            "chunk %" PRId64 " was printed behind chunk %" PRId64, i, p->n_chunks);
    p->n_chunks = i;
    TRY(fn(arg, i, ppl, e));
out:
    return rc;
}

/* "calculating perplexity over 20 chunks, n_ctx=512, ..." */
static void take_line(struct ppl_text *p) {
    p->line[p->n_line] = '\0';
    p->n_line = 0;
    const char *over = strstr(p->line, "calculating perplexity over ");
    if (over)
        sscanf(over, "calculating perplexity over %" SCNd64 " chunks, n_ctx=%d", &p->n_planned,
               &p->n_ctx);
}

int ppl_text_feed(struct ppl_text *p, const char *text, size_t n, ppl_text_fn fn, void *arg,
                  struct err *e) {
    int rc = 0;
    for (size_t k = 0; k < n; k++) {
        const char c = text[k];
        if (c == '\n')
            take_line(p);
        else if (p->n_line < sizeof p->line - 1)
            p->line[p->n_line++] = c;
        if (c == '[') p->n = 0;
        if (c == '[' || (p->n > 0 && p->n < sizeof p->word - 1 && c != '\n' && c != ','))
            p->word[p->n++] = c;
        else if (c == ',' && p->n > 0)
            TRY(take_value(p, fn, arg, e));
        if (c == ',' || c == '\n') p->n = 0;
    }
out:
    return rc;
}

/* ---- Markdown tables ------------------------------------------------------------------------- */

#define CELLS_MAX 32
#define LINE_MAX_BYTES 4096

/* Cut "| a | b |" into trimmed cells in place; how many. */
static int cut_cells(char *line, char **cell) {
    int n = 0;
    char *at = strchr(line, '|');
    while (at && n < CELLS_MAX) {
        char *from = at + 1, *to = strchr(from, '|');
        if (!to) break;
        *to = '\0';
        while (isspace((unsigned char)*from))
            from++;
        for (char *end = to; end > from && isspace((unsigned char)end[-1]);)
            *--end = '\0';
        cell[n++] = from;
        at = to;
        *at = '|';
    }
    for (int i = 0; i < n; i++) { /* the bars were needed to go on */
        char *bar = strchr(cell[i], '|');
        if (bar) *bar = '\0';
    }
    return n;
}

/* 0 for what is no count: NaN, negative, beyond any context. */
static int count(double x) {
    return x >= 0 && x <= 1 << 24 ? (int)x : 0;
}

static bool number(const char *text, double *x) {
    char *end;
    *x = strtod(text, &end);
    while (isspace((unsigned char)*end))
        end++;
    return end != text && !*end;
}

static const struct speed_text nothing = {
    .pp_tps = (double)NAN,
    .tg_tps = (double)NAN,
    .pp_low = (double)NAN,
    .pp_high = (double)NAN,
    .tg_low = (double)NAN,
    .tg_high = (double)NAN,
};

/* |    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s | */
static bool sweep_row(char *const *cell, int n, struct speed_text *s) {
    double x[7];
    for (int i = 0; i < 7; i++)
        if (n < 7 || !number(cell[i], &x[i])) return false;
    *s = nothing;
    s->n_pp = count(x[0]);
    s->n_tg = count(x[1]);
    s->n_kv = count(x[2]);
    s->pp_tps = x[4];
    s->tg_tps = x[6];
    return true;
}

/* "pp512", "tg128 @ d4096", and a speed with its standard deviation. */
static bool take_test(struct speed_text *s, const char *test, double tps, double sd) {
    int n = 0, depth = 0;
    bool pp = !strncmp(test, "pp", 2), tg = !strncmp(test, "tg", 2);
    if ((!pp && !tg) || sscanf(test + 2, "%d", &n) != 1 || strchr(test, '+')) return false;
    const char *at = strstr(test, "@ d");
    if (at) sscanf(at + 3, "%d", &depth);
    s->n_kv = depth;
    if (pp) {
        s->n_pp = n;
        s->pp_tps = tps, s->pp_low = tps - sd, s->pp_high = tps + sd;
    } else {
        s->n_tg = n;
        s->tg_tps = tps, s->tg_low = tps - sd, s->tg_high = tps + sd;
    }
    return true;
}

static int column(char *const *head, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(head[i], name)) return i;
    return -1;
}

/* Columns "model", "test" and "t/s" of llama-bench, wherever they stand. */
struct bench_columns {
    int model, test, tps;
};

static bool bench_row(char *const *cell, int n, const struct bench_columns *c,
                      struct speed_text *s) {
    double tps, sd = (double)NAN;
    if (c->test < 0 || c->tps < 0 || c->test >= n || c->tps >= n) return false;
    if (sscanf(cell[c->tps], "%lf", &tps) != 1) return false;
    const char *plus = strstr(cell[c->tps], "±");
    if (plus) sscanf(plus + strlen("±"), "%lf", &sd);
    *s = nothing;
    if (c->model >= 0 && c->model < n) snprintf(s->model, sizeof s->model, "%s", cell[c->model]);
    return take_test(s, cell[c->test], tps, sd);
}

/* ---- JSON and CSV ---------------------------------------------------------------------------- */

static double get(const json_t *j, const char *key) {
    const json_t *x = json_object_get(j, key);
    return json_is_number(x) ? json_number_value(x) : (double)NAN;
}

static void copy(const json_t *j, const char *key, char *buf, size_t n) {
    const char *s = json_string_value(json_object_get(j, key));
    if (s) snprintf(buf, n, "%s", s);
}

/* One of n_prompt and n_gen is 0. */
static bool take_bench(struct speed_text *s, double n_prompt, double n_gen, double depth,
                       double tps, double sd) {
    char test[64];
    if (isnan(n_prompt) || isnan(n_gen) || isnan(tps) || (n_prompt > 0 && n_gen > 0)) return false;
    snprintf(test, sizeof test, "%s%d @ d%d", n_prompt > 0 ? "pp" : "tg",
             count(n_prompt > 0 ? n_prompt : n_gen), count(depth));
    return take_test(s, test, tps, sd);
}

static bool json_row(const char *line, struct speed_text *s, bool *sweep) {
    json_t *j = json_loads(line, 0, NULL);
    bool ok = false;
    *s = nothing;
    *sweep = !isnan(get(j, "speed_pp"));
    if (*sweep) {
        s->n_pp = count(get(j, "pp"));
        s->n_tg = count(get(j, "tg"));
        s->n_kv = count(get(j, "n_kv"));
        s->pp_tps = get(j, "speed_pp");
        s->tg_tps = get(j, "speed_tg");
        ok = !isnan(get(j, "n_kv")) && !isnan(get(j, "pp")) && !isnan(get(j, "tg"));
    } else {
        copy(j, "model_type", s->model, sizeof s->model);
        copy(j, "build_commit", s->build, sizeof s->build);
        ok = take_bench(s, get(j, "n_prompt"), get(j, "n_gen"), get(j, "n_depth"), get(j, "avg_ts"),
                        get(j, "stddev_ts"));
    }
    json_decref(j);
    return ok;
}

static int field_of(const struct csv_reader *r, const char *name) {
    for (int i = 0; i < r->n_fields; i++)
        if (!strcmp(csv_field(r, i), name)) return i;
    return -1;
}

static double csv_number(const struct csv_reader *r, int i) {
    double x;
    return i >= 0 && i < r->n_fields && number(csv_field(r, i), &x) ? x : (double)NAN;
}

static int read_csv(const char *text, size_t n, const char *name, int64_t *n_found,
                    speed_text_fn fn, void *arg, struct err *e) {
    int rc = 0;
    struct csv_reader r;
    TRY(csv_reader_open_mem(&r, text, n, name, e));
    rc = csv_reader_next(&r, e);
    const int prompt = field_of(&r, "n_prompt"), gen = field_of(&r, "n_gen"),
              depth = field_of(&r, "n_depth"), tps = field_of(&r, "avg_ts"),
              sd = field_of(&r, "stddev_ts"), model = field_of(&r, "model_type"),
              build = field_of(&r, "build_commit");
    while (rc == 1 && (rc = csv_reader_next(&r, e)) == 1) {
        struct speed_text s = nothing;
        if (model >= 0) snprintf(s.model, sizeof s.model, "%s", csv_field(&r, model));
        if (build >= 0) snprintf(s.build, sizeof s.build, "%s", csv_field(&r, build));
        if (!take_bench(&s, csv_number(&r, prompt), csv_number(&r, gen), csv_number(&r, depth),
                        csv_number(&r, tps), csv_number(&r, sd)))
            continue;
        ++*n_found;
        rc = fn(arg, &s, e);
        if (rc >= 0) rc = 1;
    }
    csv_reader_release(&r);
out:
    return rc;
}

/* ---- whole files ----------------------------------------------------------------------------- */

static int read_lines(const char *text, size_t n, int64_t *n_found, bool *sweep, speed_text_fn fn,
                      void *arg, struct err *e) {
    int rc = 0;
    char line[LINE_MAX_BYTES], *cell[CELLS_MAX];
    struct bench_columns columns = { -1, -1, -1 };
    for (const char *at = text, *end = text + n; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        size_t len = (size_t)(stop - at);
        if (len >= sizeof line) len = sizeof line - 1;
        memcpy(line, at, len);
        line[len] = '\0';
        at = stop + 1;
        struct speed_text s;
        bool found = false;
        if (line[strspn(line, " \t[,")] == '{') {
            char *last = strrchr(line, '}');
            if (last) last[1] = '\0';
            found = json_row(line + strspn(line, " \t[,"), &s, sweep);
        } else if (line[strspn(line, " \t")] == '|') {
            int k = cut_cells(line, cell);
            if (column(cell, k, "t/s") >= 0) {
                columns = (struct bench_columns){ column(cell, k, "model"), column(cell, k, "test"),
                                                  column(cell, k, "t/s") };
                continue;
            }
            *sweep = columns.tps < 0;
            found = *sweep ? sweep_row(cell, k, &s) : bench_row(cell, k, &columns, &s);
        }
        if (!found) continue;
        ++*n_found;
        TRY(fn(arg, &s, e));
    }
out:
    return rc;
}

int speed_text_read(const char *text, size_t n, const char *name, const char **kind,
                    speed_text_fn fn, void *arg, struct err *e) {
    int rc = 0;
    int64_t n_found = 0;
    bool sweep = false;
    static const char head[] = "build_commit,";
    if (n > sizeof head && (!memcmp(text, head, sizeof head - 1) || memchr(text, '"', 1)))
        TRY(read_csv(text, n, name, &n_found, fn, arg, e));
    else
        TRY(read_lines(text, n, &n_found, &sweep, fn, arg, e));
    *kind = sweep ? "sweep-bench" : "bench";
    FAIL_IF(n_found == 0, e, ERR_FORMAT,
            "%s: no measurement; expected what llama-sweep-bench or llama-bench prints (table, "
            "CSV, JSON lines)",
            name);
out:
    return rc;
}
