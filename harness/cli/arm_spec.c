/* SPDX-License-Identifier: MIT
 * arm_spec.c - arms as strings; see arm_spec.h. */
#include "cli/arm_spec.h"

#include <string.h>

#include "backend.h"
#include "base/arena.h"
#include "cli/opt.h"

/* Cut s->words into argv, in place. */
static int split(struct arm_spec *s, const char *what, struct err *e) {
    int rc = 0;
    char *in = s->words, *out = s->words;
    s->argc = 0;
    for (;;) {
        while (*in == ' ' || *in == '\t')
            in++;
        if (!*in) break;
        FAIL_IF(s->argc == ARM_SPEC_WORDS, e, ERR_ARG, "%s: more than %d words", what,
                ARM_SPEC_WORDS);
        s->argv[s->argc++] = out;
        char quote = '\0';
        for (; *in && (quote || (*in != ' ' && *in != '\t')); in++) {
            if (*in == quote)
                quote = '\0';
            else if (!quote && (*in == '\'' || *in == '"'))
                quote = *in;
            else
                *out++ = *in;
        }
        FAIL_IF(quote, e, ERR_ARG, "%s: the quote %c is not closed", what, quote);
        bool end = !*in;
        *out++ = '\0'; /* never behind `in`: a blank or a quote was dropped for it */
        if (end) break;
        in++;
    }
    FAIL_IF(s->argc == 0, e, ERR_ARG, "%s: an arm is at least its kind, such as avx2", what);
out:
    return rc;
}

static bool is_cpu_or_cuda(const char *word) {
    return column_from_name(word) != COL_none;
}

/* The words in front of the options; *n counts them. */
static int parse_kind(struct arm_spec *s, const char *what, int *n, struct err *e) {
    int rc = 0;
    const char *kind = s->argv[0];
    struct arm_params *p = &s->params;
    *n = 1;
    if (!strcmp(kind, "best")) {
        p->backend = NULL;
    } else if (is_cpu_or_cuda(kind)) {
        p->backend = kind;
    } else if (!strncmp(kind, "file:", 5) && kind[5]) {
        p->kind = ARM_FILE;
        p->path = kind + 5;
    } else if (!strcmp(kind, "worker") || (!strncmp(kind, "worker:", 7) && kind[7])) {
        p->kind = ARM_WORKER;
        p->path = kind[6] ? kind + 7 : NULL;
        if (s->argc > 1 && s->argv[1][0] != '-') {
            FAIL_IF(!is_cpu_or_cuda(s->argv[1]) && strcmp(s->argv[1], "best"), e, ERR_ARG,
                    "%s: '%s' is not a column of kernels", what, s->argv[1]);
            p->backend = strcmp(s->argv[1], "best") ? s->argv[1] : NULL;
            *n = 2;
        }
    } else {
        rc = ERR(e, ERR_ARG,
                 "%s: '%s' is no kind of arm; expected ref, avx2, avx512, amx, cuda, best, "
                 "worker[:PROGRAM] or file:PATH",
                 what, kind);
    }
out:
    return rc;
}

int arm_spec_parse(struct arm_spec *s, const char *what, const char *text,
                   const struct arm_params *defaults, struct err *e) {
    int rc = 0, n_kind;
    *s = (struct arm_spec){ .params = *defaults };
    s->words = heap_alloc(strlen(text) + 2, e);
    if (!s->words) return ERR_NOMEM;
    memcpy(s->words, text, strlen(text) + 1);
    TRY(split(s, what, e));
    TRY(parse_kind(s, what, &n_kind, e));
    const struct opt table[] = {
        OPT_MODEL(s->params),
        { OPT_INT, "-c --ctx-size", "N", &s->params.n_ctx, 3, 1 << 24, NULL,
          "must be that of the other arm" },
        OPT_ENGINE(s->params),
        OPT_ACT_LIKE(s->params),
        { OPT_STR, "--launch", "WORDS", &s->params.launch, 0, 0, NULL,
          "of a worker: words in front of the program, such as \"ssh host\"" },
        { OPT_INT, "--timeout", "S", &s->params.timeout_s, 0, 1 << 20, NULL,
          "of a worker: longest wait for one answer (0 = 600)" },
        OPT_END,
    };
    s->argv[n_kind - 1] = (char *)(uintptr_t)what;
    rc = opt_parse(s->argc - n_kind + 1, s->argv + n_kind - 1, table,
                   "compare --a \"KIND [options]\"", e);
    if (rc < 0 && e && !strstr(e->msg, what)) err_prefix(e, "%s", what);
    FAIL_IF(rc == 0 && s->params.kind != ARM_WORKER && (s->params.launch || s->params.timeout_s), e,
            ERR_ARG, "%s: --launch and --timeout belong to a worker", what);
out:
    return rc;
}

void arm_spec_release(struct arm_spec *s) {
    heap_free(s->words);
    s->words = NULL;
}
