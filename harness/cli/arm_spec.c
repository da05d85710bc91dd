/* SPDX-License-Identifier: MIT
 * arm_spec.c - arms as strings; see arm_spec.h. */
#include "cli/arm_spec.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

#define LIBLLAMA "ggauge-libllama"

/* The program of "lib:PATH". */
static int find_program(struct arm_spec *s, const char *what, const char *path, struct err *e) {
    int rc = 0;
    struct stat st;
    FAIL_IF(
        stat(path, &st), e, ERR_ARG,
        "%s: lib:%s: no such program or folder; make worker ENGINE=/path/to/llama.cpp builds one",
        what, path);
    bool folder = S_ISDIR(st.st_mode);
    int n = snprintf(s->program, sizeof s->program, "%s%s", path, folder ? "/" LIBLLAMA : "");
    FAIL_IF(n >= (int)sizeof s->program, e, ERR_ARG, "%s: lib:%s: the path is too long", what,
            path);
    FAIL_IF(folder && stat(s->program, &st), e, ERR_ARG,
            "%s: lib:%s: no " LIBLLAMA
            " in this folder; make worker ENGINE=/path/to/llama.cpp builds "
            "one",
            what, path);
out:
    return rc;
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
    } else if (!strncmp(kind, "lib:", 4) && kind[4]) {
        p->kind = ARM_WORKER;
        p->foreign = true;
        p->backend = NULL;
        TRY(find_program(s, what, kind + 4, e));
        p->path = s->program;
    } else if (!strncmp(kind, "cli:", 4) && kind[4]) {
        p->kind = ARM_TOOL;
        p->foreign = true;
        p->path = kind + 4;
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
                 "%s: '%s' is no kind of arm; expected ref, avx2, avx512, amx, amx_requant, "
                 "cuda, best, worker[:PROGRAM], lib:PATH, cli:PROGRAM or file:PATH",
                 what, kind);
    }
out:
    return rc;
}

#define OPT_ARM(S)                                                                                 \
    OPT_MODEL((S)->params), {                                                                      \
        OPT_INT, "-c --ctx-size", "N", &(S)->params.n_ctx, 3, 1 << 24, NULL,                       \
            "must be that of the other arm"                                                        \
    }
#define OPT_PROCESS(S)                                                                             \
    { OPT_STR, "--launch",                                                                         \
      "WORDS", &(S)->params.launch,                                                                \
      0,       0,                                                                                  \
      NULL,    "of a worker: words in front of the program, such as \"ssh host\"" },               \
    {                                                                                              \
        OPT_INT, "--timeout", "S", &(S)->params.timeout_s, 0, 1 << 20, NULL,                       \
            "of a worker: longest wait for one answer (0 = 600)"                                   \
    }

static int parse_own(struct arm_spec *s, int n_kind, struct err *e) {
    const struct opt table[] = { OPT_ARM(s), OPT_ENGINE(s->params), OPT_ACT_LIKE(s->params),
                                 OPT_PROCESS(s), OPT_END };
    return opt_parse(s->argc - n_kind + 1, s->argv + n_kind - 1, table,
                     "compare --a \"KIND [options]\"", e);
}

/* Another engine: its options by the names that its own programs give them. */
static int parse_engine(struct arm_spec *s, int n_kind, struct err *e) {
    struct arm_params *p = &s->params;
    const struct opt table[] = {
        OPT_ARM(s),
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "engine" },
        OPT_BATCHES(*p),
        OPT_HUGE_PAGES(*p),
        { OPT_STR, "-ctk --cache-type-k", "TYPE", &p->type_k, 0, 0, NULL, "type of the K cache" },
        { OPT_STR, "-ctv --cache-type-v", "TYPE", &p->type_v, 0, 0, NULL, "type of the V cache" },
        { OPT_STR, "-ngl --n-gpu-layers --gpu-layers", "N", &p->engine.ngl, 0, 0, NULL,
          "layers on accelerators" },
        { OPT_STR, "-ot --override-tensor", "REGEX=TYPE,...", &p->engine.ot, 0, 0, NULL,
          "buffer types of tensors, such as exps=CPU" },
        { OPT_CHOICE, "-fa --flash-attn", "MODE", &p->engine.fa, 0, 0, "on|off|auto|1|0",
          "flash attention" },
        { OPT_ON, "-nkvo --no-kv-offload", NULL, &p->engine.nkvo, 0, 0, NULL,
          "keep the cache off accelerators" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "of ik_llama.cpp" },
        { OPT_STR, "-mla --mla-use", "N", &p->engine.mla, 0, 0, NULL,
          "how multi-head latent attention is computed" },
        { OPT_STR, "-amb --attention-max-batch", "MIB", &p->engine.amb, 0, 0, NULL,
          "memory that attention may take" },
        { OPT_ON, "-fmoe --fused-moe", NULL, &p->engine.fmoe, 0, 0, NULL, "fused experts" },
        { OPT_OFF, "-no-fmoe --no-fused-moe", NULL, &p->engine.fmoe, 0, 0, NULL,
          "no fused experts" },
        { OPT_ON, "-fug --fused-up-gate", NULL, &p->engine.fug, 0, 0, NULL,
          "fused up and gate of dense layers" },
        { OPT_OFF, "-no-fug --no-fused-up-gate", NULL, &p->engine.fug, 0, 0, NULL,
          "no fused up and gate" },
        { OPT_ON, "-rtr --run-time-repack", NULL, &p->engine.rtr, 0, 0, NULL,
          "interleave the weights when they are loaded" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "process" },
        OPT_PROCESS(s),
        OPT_END,
    };
    return opt_parse(s->argc - n_kind + 1, s->argv + n_kind - 1, table,
                     "compare --b \"lib:PATH [options]\"", e);
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
    if (s->params.foreign) s->params.engine.rtr = NULL;
    s->argv[n_kind - 1] = (char *)(uintptr_t)what;
    rc = s->params.foreign ? parse_engine(s, n_kind, e) : parse_own(s, n_kind, e);
    if (rc < 0 && e && !strstr(e->msg, what)) err_prefix(e, "%s", what);
    FAIL_IF(rc == 0 && s->params.kind != ARM_WORKER && s->params.kind != ARM_TOOL &&
                (s->params.launch || s->params.timeout_s),
            e, ERR_ARG, "%s: --launch and --timeout belong to a worker", what);
out:
    return rc;
}

void arm_spec_release(struct arm_spec *s) {
    heap_free(s->words);
    s->words = NULL;
}
