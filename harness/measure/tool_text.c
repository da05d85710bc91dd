/* SPDX-License-Identifier: MIT
 * tool_text.c - reading what other programs print; see tool_text.h. */
#include "measure/tool_text.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
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

/* ---- one measurement ------------------------------------------------------------------------- */

static const struct {
    const char *column, *key;
    enum row_field field;
} said[] = {
#define X(column, key, field) { column, key, field },
    SPEED_SAID_LIST(X)
#undef X
};

struct speed_reader {
    speed_text_fn fn;
    speed_refused_fn refused;
    void *arg;
    int64_t line, n_found;
};

/* As written, before anything is believed. */
struct speed_numbers {
    double n_pp, n_tg, n_kv;
    bool apart; /* prompt and generation have speeds of their own: tps[0] and tps[1] */
    double tps[2];
};

PRINTF_LIKE(2, 3)
static void refuse(struct speed_reader *rd, const char *fmt, ...) {
    char why[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    if (rd->refused) rd->refused(rd->arg, rd->line, why);
}

static bool number(const char *text, double *x) {
    char *end;
    *x = strtod(text, &end);
    while (isspace((unsigned char)*end))
        end++;
    return end != text && !*end;
}

static bool set_count(struct speed_reader *rd, const char *what, double x, int *to) {
    const bool ok = x >= 0 && x <= 1 << 24 && x == floor(x);
    if (ok)
        *to = (int)x;
    else
        refuse(rd, "%s is %.12g, expected a count up to %d", what, x, 1 << 24);
    return ok;
}

static bool set_speed(struct speed_reader *rd, const char *what, double x, double *to) {
    const bool ok = x > 0 && isfinite(x);
    if (ok)
        *to = x;
    else
        refuse(rd, "%s of %g tokens/s", what, x);
    return ok;
}

/* Counts end up in columns of numbers. */
static bool said_is_sound(struct speed_reader *rd, const struct speed_text *s) {
    static const enum row_field counts[] = { ROW_n_threads, ROW_n_batch, ROW_n_ubatch };
    for (size_t i = 0; i < N_ELEMS(counts); i++) {
        const char *text = s->said[counts[i]] ? s->said[counts[i]] : "";
        if (strspn(text, "0123456789") == strlen(text) && strlen(text) < 9) continue;
        refuse(rd, "%s is \"%.40s\", expected a count", row_field_name(counts[i]), text);
        return false;
    }
    return true;
}

/* Hand on what can be believed of a measurement. s holds what the table says of the run. */
static int take(struct speed_reader *rd, struct speed_text *s, const struct speed_numbers *x,
                struct err *e) {
    int rc = 0;
    bool any;
    s->pp_tps = s->tg_tps = s->eval_tps = (double)NAN;
    s->test = x->apart ? "sweep-bench" : "bench";
    if (!set_count(rd, "the prompt", x->n_pp, &s->n_pp) ||
        !set_count(rd, "the generation", x->n_tg, &s->n_tg) ||
        !set_count(rd, "the depth", x->n_kv, &s->n_kv) || !said_is_sound(rd, s))
        return 0;
    if (!s->n_pp && !s->n_tg) {
        refuse(rd, "neither a prompt nor a generation");
        return 0;
    }
    if (x->apart) {
        any = s->n_pp && set_speed(rd, "a prompt speed", x->tps[0], &s->pp_tps);
        any |= s->n_tg && set_speed(rd, "a generation speed", x->tps[1], &s->tg_tps);
    } else {
        any = set_speed(rd, "a speed", x->tps[0],
                        s->n_pp && s->n_tg ? &s->eval_tps
                        : s->n_pp          ? &s->pp_tps
                                           : &s->tg_tps);
    }
    if (!any) return 0;
    rd->n_found++;
    TRY(rd->fn(rd->arg, s, e));
out:
    return rc;
}

/* "pp512", "tg128", "pp512+tg128", each also "... @ d4096"; ik_llama.cpp's "tg128@pp4096" is
 * generation alone, behind a prompt. */
static bool parse_test(const char *test, struct speed_numbers *x) {
    int used = 0;
    const char *at = test;
    x->n_pp = x->n_tg = x->n_kv = 0;
    const bool pp = sscanf(at, "pp%lf%n", &x->n_pp, &used) == 1;
    if (pp) at += used;
    const bool both = pp && *at == '+';
    if (both) at++;
    if (!pp || both) {
        if (sscanf(at, "tg%lf%n", &x->n_tg, &used) != 1) return false;
        at += used;
    }
    if (sscanf(at, " @ d%lf%n", &x->n_kv, &used) == 1 ||
        sscanf(at, "@pp%lf%n", &x->n_kv, &used) == 1)
        at += used;
    return !*at;
}

/* ---- Markdown tables ------------------------------------------------------------------------- */

#define CELLS_MAX 64
#define LINE_MAX_BYTES 4096

enum table { TABLE_NONE, TABLE_OTHER, TABLE_SWEEP, TABLE_BENCH };

struct md_table {
    enum table kind;
    int test, tps;           /* columns of llama-bench, wherever they stand */
    int said[N_ELEMS(said)]; /* -1: it has none */
};

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

static int column(char *const *head, int n, const char *name) {
    for (int i = 0; name && i < n; i++)
        if (!strcmp(head[i], name)) return i;
    return -1;
}

/* Behind all bytes of `set`; the text need not end in NUL and may hold more of them. */
static const char *skip(const char *at, const char *end, const char *set) {
    while (at < end && *at && strchr(set, *at))
        at++;
    return at;
}

/* |------|-----:| */
static bool is_rule(const char *line, const char *end) {
    return skip(line, end, " \t\r|:-") == end && memchr(line, '-', (size_t)(end - line));
}

/* |    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |, more behind it */
static bool is_sweep_head(char *const *cell, int n) {
    static const char *const names[] = { "PP",       "TG",     "N_KV",    "T_PP s",
                                         "S_PP t/s", "T_TG s", "S_TG t/s" };
    for (int i = 0; i < (int)N_ELEMS(names); i++)
        if (i >= n || strcmp(cell[i], names[i])) return false;
    return true;
}

static struct md_table md_head(char *const *cell, int n) {
    struct md_table t = { .kind = TABLE_OTHER,
                          .test = column(cell, n, "test"),
                          .tps = column(cell, n, "t/s") };
    for (size_t i = 0; i < N_ELEMS(said); i++)
        t.said[i] = column(cell, n, said[i].column);
    if (t.test >= 0 && t.tps >= 0)
        t.kind = TABLE_BENCH;
    else if (is_sweep_head(cell, n))
        t.kind = TABLE_SWEEP;
    return t;
}

static int sweep_row(struct speed_reader *rd, const struct md_table *t, char *const *cell, int n,
                     struct err *e) {
    double x[7] = { 0 };
    struct speed_text s = { 0 };
    int n_read = 0;
    while (n_read < 7 && n_read < n && number(cell[n_read], &x[n_read]))
        n_read++;
    if (n_read == 7)
        return take(rd, &s, &(struct speed_numbers){ x[0], x[1], x[2], true, { x[4], x[6] } }, e);
    if (t->kind == TABLE_SWEEP) /* without a head it need not be one of ours */
        refuse(rd, "expected 7 numbers, found %d", n_read);
    return 0;
}

static int bench_row(struct speed_reader *rd, const struct md_table *t, char *const *cell, int n,
                     struct err *e) {
    struct speed_numbers x = { 0 };
    struct speed_text s = { 0 };
    if (t->test >= n || t->tps >= n) {
        refuse(rd, "%d cells, fewer than its table has", n);
        return 0;
    }
    char *sd = strstr(cell[t->tps], "±");
    if (sd) *sd = '\0';
    if (!parse_test(cell[t->test], &x)) {
        refuse(rd, "\"%.80s\" is no test that has a place in a result row", cell[t->test]);
        return 0;
    }
    if (!number(cell[t->tps], &x.tps[0])) {
        refuse(rd, "\"%.80s\" is no speed", cell[t->tps]);
        return 0;
    }
    for (size_t i = 0; i < N_ELEMS(said); i++)
        if (t->said[i] >= 0 && t->said[i] < n) s.said[said[i].field] = cell[t->said[i]];
    return take(rd, &s, &x, e);
}

static int md_line(struct speed_reader *rd, struct md_table *t, const char *at, const char *end,
                   bool before_rule, struct err *e) {
    char line[LINE_MAX_BYTES], *cell[CELLS_MAX];
    size_t len = (size_t)(end - at);
    if (is_rule(at, end)) return 0;
    if (len >= sizeof line) len = sizeof line - 1;
    memcpy(line, at, len);
    line[len] = '\0';
    const int n = cut_cells(line, cell);
    if (before_rule || column(cell, n, "t/s") >= 0 || is_sweep_head(cell, n)) {
        *t = md_head(cell, n);
        return 0;
    }
    if (t->kind == TABLE_BENCH) return bench_row(rd, t, cell, n, e);
    return t->kind == TABLE_OTHER ? 0 : sweep_row(rd, t, cell, n, e);
}

/* ---- JSON and CSV ---------------------------------------------------------------------------- */

/* llama-bench as keys and values. Without a label, which only ik_llama.cpp writes, the counts say
 * what the test was; depths came later than the rest. */
static int take_bench(struct speed_reader *rd, struct speed_text *s, const char *label,
                      double n_prompt, double n_gen, double depth, bool has_depth, double tps,
                      struct err *e) {
    struct speed_numbers x = { n_prompt, n_gen, has_depth ? depth : 0, false, { tps } };
    if (label && label[0] && !parse_test(label, &x)) {
        refuse(rd, "\"%.80s\" is no test that has a place in a result row", label);
        return 0;
    }
    return take(rd, s, &x, e);
}

static double get(const json_t *j, const char *key) {
    const json_t *x = json_object_get(j, key);
    return json_is_number(x) ? json_number_value(x) : (double)NAN;
}

static int json_object_row(struct speed_reader *rd, const json_t *j, struct err *e) {
    struct speed_text s = { 0 };
    char buf[N_ELEMS(said)][32];
    for (size_t i = 0; i < N_ELEMS(said); i++) {
        const json_t *x = json_object_get(j, said[i].key);
        if (json_is_integer(x))
            snprintf(buf[i], sizeof buf[i], "%" JSON_INTEGER_FORMAT, json_integer_value(x));
        s.said[said[i].field] = json_is_integer(x) ? buf[i] : json_string_value(x);
    }
    if (json_object_get(j, "speed_pp"))
        return take(rd, &s,
                    &(struct speed_numbers){ get(j, "pp"),
                                             get(j, "tg"),
                                             get(j, "n_kv"),
                                             true,
                                             { get(j, "speed_pp"), get(j, "speed_tg") } },
                    e);
    if (json_object_get(j, "avg_ts"))
        return take_bench(rd, &s, json_string_value(json_object_get(j, "test")), get(j, "n_prompt"),
                          get(j, "n_gen"), get(j, "n_depth"), json_object_get(j, "n_depth"),
                          get(j, "avg_ts"), e);
    return 0; /* an object of something else */
}

/* An object in one line; the bytes behind it may be those of an array around it. */
static int json_line(struct speed_reader *rd, const char *at, const char *end, struct err *e) {
    int rc = 0;
    while (end > at && end[-1] != '}')
        end--;
    json_t *j = json_loadb(at, (size_t)(end - at), 0, NULL);
    if (j)
        rc = json_object_row(rd, j, e);
    else
        refuse(rd, "no JSON object in one line");
    json_decref(j);
    return rc;
}

static int field_of(const struct csv_reader *r, const char *name) {
    for (int i = 0; i < r->n_fields; i++)
        if (!strcmp(csv_field(r, i), name)) return i;
    return -1;
}

static double csv_number(const struct csv_reader *r, int i) {
    double x;
    return i >= 0 && number(csv_field(r, i), &x) ? x : (double)NAN;
}

static int read_csv(struct speed_reader *rd, const char *text, size_t n, const char *name,
                    struct err *e) {
    int rc = 0;
    struct csv_reader r;
    int said_at[N_ELEMS(said)];
    TRY(csv_reader_open_mem(&r, text, n, name, e));
    rc = csv_reader_next(&r, e);
    const int prompt = field_of(&r, "n_prompt"), gen = field_of(&r, "n_gen"),
              depth = field_of(&r, "n_depth"), tps = field_of(&r, "avg_ts"),
              label = field_of(&r, "test"), n_fields = r.n_fields;
    for (size_t i = 0; i < N_ELEMS(said); i++)
        said_at[i] = field_of(&r, said[i].key);
    while (rc == 1 && (rc = csv_reader_next(&r, e)) == 1) {
        struct speed_text s = { 0 };
        rd->line = r.line;
        if (r.n_fields != n_fields) {
            refuse(rd, "%d fields, its head has %d", r.n_fields, n_fields);
            continue;
        }
        for (size_t i = 0; i < N_ELEMS(said); i++)
            if (said_at[i] >= 0) s.said[said[i].field] = csv_field(&r, said_at[i]);
        rc = take_bench(rd, &s, label >= 0 ? csv_field(&r, label) : NULL, csv_number(&r, prompt),
                        csv_number(&r, gen), csv_number(&r, depth), depth >= 0, csv_number(&r, tps),
                        e);
        if (rc >= 0) rc = 1;
    }
    if (rc == 0 && r.torn) {
        rd->line = r.line;
        refuse(rd, "the last line is torn");
    }
    csv_reader_release(&r);
out:
    return rc;
}

/* ---- whole files ----------------------------------------------------------------------------- */

static const char *line_end(const char *at, const char *end) {
    const char *stop = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    return stop ? stop : end;
}

/* Lines of anything between two rows, as a program logs them, do not end a table. */
static int read_lines(struct speed_reader *rd, const char *text, size_t n, struct err *e) {
    int rc = 0;
    struct md_table table = { .kind = TABLE_NONE };
    for (const char *at = text, *end = text + n, *stop; at < end; at = stop + 1) {
        stop = line_end(at, end);
        rd->line++;
        const char *object = skip(at, stop, " \t[,"), *bar = skip(at, stop, " \t");
        if (object < stop && *object == '{') {
            TRY(json_line(rd, object, stop, e));
        } else if (bar < stop && *bar == '|') {
            const char *next = stop < end ? stop + 1 : end, *next_stop = line_end(next, end);
            const bool before_rule = next < next_stop && is_rule(next, next_stop);
            TRY(md_line(rd, &table, bar, stop, before_rule, e));
        }
    }
out:
    return rc;
}

int speed_text_read(const char *text, size_t n, const char *name, speed_text_fn fn,
                    speed_refused_fn refused, void *arg, struct err *e) {
    int rc = 0;
    static const char head[] = "build_commit,";
    struct speed_reader rd = { .fn = fn, .refused = refused, .arg = arg };
    if (n > sizeof head && (!memcmp(text, head, sizeof head - 1) || *text == '"'))
        TRY(read_csv(&rd, text, n, name, e));
    else
        TRY(read_lines(&rd, text, n, e));
    FAIL_IF(rd.n_found == 0, e, ERR_FORMAT,
            "%s: no measurement; expected what llama-sweep-bench or llama-bench prints (table, "
            "CSV, JSON lines)",
            name);
out:
    return rc;
}
