/* SPDX-License-Identifier: MIT
 * opt.c - option tables; see opt.h. */
#include "cli/opt.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"

static bool is_end(const struct opt *o) {
    return o->kind == OPT_GROUP && !o->help;
}

/* Does the list of spellings, separated by blanks, hold the n bytes at s? */
static bool has_word(const char *list, char sep, const char *s, size_t n) {
    while (list && *list) {
        const char *end = strchr(list, sep);
        size_t len = end ? (size_t)(end - list) : strlen(list);
        if (len == n && memcmp(list, s, n) == 0) return true;
        list = end ? end + 1 : NULL;
    }
    return false;
}

static int parse_number(const char *flag, const char *text, const struct opt *o, double *out,
                        struct err *e) {
    int rc = 0;
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    FAIL_IF(end == text || *end || !isfinite(v), e, ERR_ARG, "%s: expected a number, not '%s'",
            flag, text);
    FAIL_IF(o->kind == OPT_INT && v != floor(v), e, ERR_ARG,
            "%s: expected a whole number, not '%s'", flag, text);
    FAIL_IF(v < o->min || v > o->max, e, ERR_ARG, "%s: %s is outside of %.15g to %.15g", flag, text,
            o->min, o->max);
    *out = v;
out:
    return rc;
}

static int set_value(const struct opt *o, const char *flag, const char *text, struct err *e) {
    int rc = 0;
    double v;
    switch (o->kind) {
    case OPT_INT:
        TRY(parse_number(flag, text, o, &v, e));
        *(int *)o->dst = (int)v;
        break;
    case OPT_DOUBLE:
        TRY(parse_number(flag, text, o, &v, e));
        *(double *)o->dst = v;
        break;
    case OPT_STR: *(const char **)o->dst = text; break;
    case OPT_LIST: {
        struct opt_list *l = o->dst;
        const size_t have = l->given ? strlen(l->joined) : 0, most = sizeof l->joined - have;
        const int n = snprintf(l->joined + have, most, "%s%s", l->given ? "," : "", text);
        FAIL_IF(n >= (int)most, e, ERR_ARG, "%s: the list has more than %zu bytes", flag,
                sizeof l->joined - 1);
        l->text = l->joined;
        l->given = true;
        break;
    }
    case OPT_STRS: {
        struct arm_rules *all = o->dst;
        FAIL_IF(all->n == ARM_RULES_MAX, e, ERR_ARG, "%s: given more than %d times", flag,
                ARM_RULES_MAX);
        all->v[all->n++] = text;
        break;
    }
    case OPT_CHOICE:
        FAIL_IF(!has_word(o->choices, '|', text, strlen(text)), e, ERR_ARG,
                "%s: expected one of %s, not '%s'", flag, o->choices, text);
        *(const char **)o->dst = text;
        break;
    case OPT_ONOFF:
        FAIL_IF(!has_word("on|off|1|0", '|', text, strlen(text)), e, ERR_ARG,
                "%s: expected on or off, not '%s'", flag, text);
        *(bool *)o->dst = !strcmp(text, "on") || !strcmp(text, "1");
        break;
    default: break;
    }
out:
    return rc;
}

static void print_default(const struct opt *o) {
    switch (o->kind) {
    case OPT_INT: printf(" (default %d)", *(const int *)o->dst); break;
    case OPT_DOUBLE: printf(" (default %g)", *(const double *)o->dst); break;
    case OPT_ONOFF: printf(" (default %s)", *(const bool *)o->dst ? "on" : "off"); break;
    case OPT_STR:
    case OPT_CHOICE:
        if (*(const char *const *)o->dst) printf(" (default %s)", *(const char *const *)o->dst);
        break;
    case OPT_LIST: {
        const struct opt_list *l = o->dst;
        if (l->text) printf(" (default %s)", l->text);
        break;
    }
    default: break;
    }
}

static void print_help(const struct opt *table, const char *usage) {
    printf("usage: ggauge %s\n", usage);
    for (const struct opt *o = table; !is_end(o); o++) {
        if (o->kind == OPT_GROUP) {
            printf("\n%s\n", o->help);
            continue;
        }
        char left[128];
        size_t n = 0;
        for (const char *p = o->flags; *p && n < sizeof left - 3; p++) {
            if (*p == ' ') left[n++] = ',';
            left[n++] = *p;
        }
        left[n] = '\0';
        if (o->arg) snprintf(left + n, sizeof left - n, " %s", o->arg);
        printf("  %-32s%s %s", left,
               strlen(left) > 31 ? "\n                                  " : "", o->help);
        if (o->kind == OPT_CHOICE) printf(": %s", o->choices);
        print_default(o);
        putchar('\n');
    }
    printf("\n  %-32s %s\n", "-h, --help", "this text");
}

static bool takes_no_value(enum opt_kind k) {
    return k == OPT_FLAG || k == OPT_NO_FLAG || k == OPT_ON || k == OPT_OFF;
}

int opt_parse(int argc, char **argv, const struct opt *table, const char *usage, struct err *e) {
    int rc = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
            print_help(table, usage);
            return 1;
        }
    }
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *eq = strchr(flag, '=');
        size_t n = eq ? (size_t)(eq - flag) : strlen(flag);
        FAIL_IF(flag[0] != '-' || n < 2, e, ERR_ARG,
                "%s: unexpected argument '%s'; see ggauge %s -h", argv[0], flag, argv[0]);
        const struct opt *o = table;
        while (!is_end(o) && !(o->flags && has_word(o->flags, ' ', flag, n)))
            o++;
        FAIL_IF(is_end(o), e, ERR_ARG, "%s: unknown option '%.*s'; see ggauge %s -h", argv[0],
                (int)n, flag, argv[0]);
        if (takes_no_value(o->kind)) {
            FAIL_IF(eq, e, ERR_ARG, "%.*s takes no value", (int)n, flag);
            if (o->kind == OPT_ON || o->kind == OPT_OFF)
                *(const char **)o->dst = o->kind == OPT_ON ? "on" : "off";
            else
                *(bool *)o->dst = o->kind == OPT_FLAG;
            continue;
        }
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)n, flag);
        FAIL_IF(!eq && i + 1 >= argc, e, ERR_ARG, "%s needs a value (%s)", name, o->arg);
        TRY(set_value(o, name, eq ? eq + 1 : argv[++i], e));
    }
out:
    return rc;
}

void opt_warn_threads(int n_threads, int n_threads_batch) {
    int n = n_threads > n_threads_batch ? n_threads : n_threads_batch, online = threads_online();
    if (n > online)
        fprintf(stderr, "warning: %d threads on %d processors take turns; speeds will be too low\n",
                n, online);
}

void opt_note_fa(const char *fa) {
    if (!strcmp(fa, "off") || !strcmp(fa, "0"))
        fputs("note: -fa off has no effect, this engine has one attention\n", stderr);
}
