/* SPDX-License-Identifier: MIT
 * pretok.c - the pre-tokenizer table and its use of PCRE2.
 *
 * The expressions are facts of the models, written as ik_llama.cpp 8337e4cd (src/llama-vocab.cpp)
 * has them, except where an equal expression does not need quadratic time; each such place says so.
 * Before compiling, \p{..}, \P{..}, \s and \S are replaced by explicit classes (unicode_table.h),
 * so the result does not depend on the tables of the installed PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tok/pretok.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "tok/unicode_table.h"

#define MAX_EXPRS 6
#define JIT_STACK_START (32u << 10) /* bytes; grows on demand */
#define JIT_STACK_MAX (64u << 20)   /* bytes */

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define CONTRACTION "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define LLAMA3_OF(number)                                                                          \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number                                           \
                "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK_OLD "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const char *const gpt2[] = { GPT2, NULL };
static const char *const starcoder[] = { "\\p{N}", GPT2, NULL };
static const char *const llama3[] = { LLAMA3_OF("\\p{N}{1,3}"), NULL };
static const char *const qwen2[] = { LLAMA3_OF("\\p{N}"), NULL };
static const char *const falcon[] = { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]", NULL };
static const char *const default_[] = { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+",
                                        "[0-9][0-9][0-9]", NULL };
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    "\\s?[\\x{41}-\\x{5A}\\x{61}-\\x{7A}\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}"
    "\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}"
    "\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"
    "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}"
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}"
    "\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}"
    "\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}"
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+",
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
    /* \s+$, but white space that is not at the end is looked at once, not from each position */
    "\\s++(?:$|(*SKIP)(*FAIL))",
    CJK_OLD,
    "\\p{N}+",
    NULL,
};
static const char *const deepseek_coder[] = { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                                              CJK_OLD,    "\\p{N}",      NULL };
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}",
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    NULL,
};
/* ((?=[\p{L}])([^a-z])) is one character: [^\P{L}a-z]. As a class it needs no stack in a loop. */
static const char *const tekken[] = {
    "[^\\r\\n\\p{L}\\p{N}]?[^\\P{L}a-z]*[^\\P{L}A-Z]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[^\\P{L}a-z]+[^\\P{L}A-Z]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    NULL,
};

/*    name               expressions     ignore_merges add_bos */
#define PRETOK_LIST(X)                                                                             \
    X("default", default_, 0, 0)                                                                   \
    X("gpt-2", gpt2, 0, 0)                                                                         \
    X("phi-2", gpt2, 0, 0)                                                                         \
    X("mpt", gpt2, 0, 0)                                                                           \
    X("olmo", gpt2, 0, 0)                                                                          \
    X("jais", gpt2, 0, 0)                                                                          \
    X("exaone4", gpt2, 0, 0)                                                                       \
    X("mellum", gpt2, 0, 0)                                                                        \
    X("gigachat", gpt2, 0, 0)                                                                      \
    X("a.x-4.0", gpt2, 0, 0)                                                                       \
    X("trillion", gpt2, 0, 0)                                                                      \
    X("granite-docling", gpt2, 0, 0)                                                               \
    X("modern-bert", gpt2, 0, 0)                                                                   \
    X("starcoder", starcoder, 0, 0)                                                                \
    X("refact", starcoder, 0, 0)                                                                   \
    X("command-r", starcoder, 0, 0)                                                                \
    X("smollm", starcoder, 0, 0)                                                                   \
    X("codeshell", starcoder, 0, 0)                                                                \
    X("exaone", starcoder, 0, 0)                                                                   \
    X("minerva-7b", starcoder, 0, 0)                                                               \
    X("llama3", llama3, 1, 1)                                                                      \
    X("llama-v3", llama3, 1, 1)                                                                    \
    X("llama-bpe", llama3, 1, 1)                                                                   \
    X("falcon3", llama3, 1, 1)                                                                     \
    X("falcon-h1", llama3, 1, 1)                                                                   \
    X("pixtral", llama3, 1, 1)                                                                     \
    X("midm-2.0", llama3, 1, 1)                                                                    \
    X("lfm2", llama3, 1, 1)                                                                        \
    X("dbrx", llama3, 0, 0)                                                                        \
    X("smaug-bpe", llama3, 0, 0)                                                                   \
    X("chatglm-bpe", llama3, 0, 0)                                                                 \
    X("glm4", llama3, 0, 0)                                                                        \
    X("qwen2", qwen2, 0, 0)                                                                        \
    X("deepseek-r1-qwen", qwen2, 0, 0)                                                             \
    X("megrez", qwen2, 0, 0)                                                                       \
    X("stablelm2", qwen2, 0, 0)                                                                    \
    X("hunyuan", qwen2, 0, 0)                                                                      \
    X("solar-open", qwen2, 0, 0)                                                                   \
    X("deepseek-llm", deepseek_llm, 0, 0)                                                          \
    X("deepseek-coder", deepseek_coder, 0, 0)                                                      \
    X("deepseek-v3", deepseek_v3, 0, 0)                                                            \
    X("hunyuan-dense", deepseek_v3, 0, 0)                                                          \
    X("joyai-llm", deepseek_v3, 0, 0)                                                              \
    X("falcon", falcon, 0, 0)                                                                      \
    X("tekken", tekken, 1, 1)

struct pretok_rule {
    const char *name;
    const char *const *expr;
    bool ignore_merges, add_bos;
};

static const struct pretok_rule rules[] = {
#define X(name, expr, ignore_merges, add_bos) { name, expr, ignore_merges, add_bos },
    PRETOK_LIST(X)
#undef X
};

struct pretok {
    const struct pretok_rule *rule;
    pcre2_code *code[MAX_EXPRS];
    int n_code;
};

/* Piece ends; two of them take turns as input and output of an expression. */
struct ends {
    size_t *end;
    size_t n, cap;
};

struct pretok_run {
    pcre2_general_context *memory;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    pcre2_match_data *match;
    struct ends in, out;
};

static void *pcre2_alloc(size_t n, void *unused) {
    (void)unused;
    return heap_alloc(n, NULL);
}

static void pcre2_release(void *p, void *unused) {
    (void)unused;
    heap_free(p);
}

/* ---- classes ------------------------------------------------------------------------------- */

/* Pattern text being built. Errors are sticky, so that writers need no checks. */
struct pattern {
    char *p;
    size_t n, cap;
    int rc;
};

static void pattern_put(struct pattern *o, const char *s, size_t n, struct err *e) {
    if (o->rc < 0) return;
    if (o->cap - o->n < n) {
        char *p = heap_realloc(o->p, (o->n + n) * 2, e);
        if (!p) {
            o->rc = ERR_NOMEM;
            return;
        }
        o->p = p;
        o->cap = (o->n + n) * 2;
    }
    memcpy(o->p + o->n, s, n);
    o->n += n;
}

static void pattern_put_range(struct pattern *o, uint32_t first, uint32_t last, struct err *e) {
    char s[40];
    int n = snprintf(s, sizeof s, "\\x{%X}-\\x{%X}", (unsigned)first, (unsigned)last);
    pattern_put(o, s, (size_t)n, e);
}

/* The members of a class, or all others. PCRE2 tries the ranges in this order, so large scripts
 * such as CJK come before the hundreds of small ones. */
static void pattern_put_class(struct pattern *o, const struct code_class *c, bool others,
                              struct err *e) {
    const uint32_t large = 64; /* code points */
    for (int pass = 0; pass < 2; pass++) {
        uint32_t next = 0; /* first code point after the previous range */
        for (int i = 0; i <= c->n; i++) {
            uint32_t first = i < c->n ? c->r[i].first : CODE_POINT_MAX + 1;
            uint32_t last = i < c->n ? c->r[i].last : CODE_POINT_MAX;
            uint32_t from = others ? next : first, to = others ? first - 1 : last;
            bool empty = others ? next == first : i == c->n;
            if (!empty && (to - from < large) == pass) pattern_put_range(o, from, to, e);
            next = last + 1;
        }
    }
}

/* Copy an expression, replacing the named classes inside and outside of brackets. */
static int expand(struct pattern *o, const char *expr, struct err *e) {
    bool in_class = false;
    for (const char *s = expr; *s; s++) {
        if (s[0] != '\\' || !strchr("pPsS", s[1])) {
            size_t n = s[0] == '\\' ? 2 : 1;
            if (n == 1 && *s == (in_class ? ']' : '[')) in_class = !in_class;
            pattern_put(o, s, n, e);
            s += n - 1;
            continue;
        }
        bool property = s[1] == 'p' || s[1] == 'P'; /* written \p{X} */
        const struct code_class *c = code_class_find(property ? s[3] : 's');
        if (!c) return ERR(e, ERR_ARG, "no class for %.5s in %s", s, expr);
        if (!in_class) pattern_put(o, "[", 1, e);
        pattern_put_class(o, c, s[1] == 'P' || s[1] == 'S', e);
        if (!in_class) pattern_put(o, "]", 1, e);
        s += property ? 4 : 1;
    }
    return o->rc;
}

/* ---- compiling ----------------------------------------------------------------------------- */

static int compile(pcre2_code **out, const char *expr, pcre2_compile_context *context,
                   struct err *e) {
    int rc = 0, code = 0;
    PCRE2_SIZE at = 0;
    char why[120] = "";
    struct pattern o = { 0 };
    TRY(expand(&o, expr, e));
    *out =
        pcre2_compile((PCRE2_SPTR)o.p, o.n, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, context);
    if (!*out) pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    FAIL_IF(!*out, e, ERR_UNSUPPORTED, "PCRE2 cannot compile the expression %s: %s", expr, why);
    /* Without JIT (a PCRE2 built without it, or a system that forbids writable code) matching is
     * slower, not different. */
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
out:
    heap_free(o.p);
    return rc;
}

static const struct pretok_rule *find_rule(const char *name, size_t n) {
    for (size_t i = 0; i < N_ELEMS(rules); i++)
        if (strlen(rules[i].name) == n && !memcmp(rules[i].name, name, n)) return &rules[i];
    return NULL;
}

int pretok_new(struct pretok **out, const char *name, size_t n, struct err *e) {
    int rc = 0;
    pcre2_general_context *memory = NULL;
    pcre2_compile_context *context = NULL;
    struct pretok *p = heap_calloc(1, sizeof *p, e);
    *out = NULL;
    if (!p) return ERR_NOMEM;
    p->rule = find_rule(name, n);
    FAIL_IF(
        !p->rule, e, ERR_UNSUPPORTED,
        "tokenizer.ggml.pre: unknown pre-tokenizer \"%.*s\"; its expressions are not in the table",
        (int)(n < 64 ? n : 64), name);
    memory = pcre2_general_context_create(pcre2_alloc, pcre2_release, NULL);
    context = memory ? pcre2_compile_context_create(memory) : NULL;
    FAIL_IF(!context, e, ERR_NOMEM, "no memory for the pre-tokenizer");
    for (; p->rule->expr[p->n_code]; p->n_code++)
        TRY(compile(&p->code[p->n_code], p->rule->expr[p->n_code], context, e));
out:
    pcre2_compile_context_free(context);
    pcre2_general_context_free(memory);
    if (rc < 0)
        pretok_free(p);
    else
        *out = p;
    return rc;
}

void pretok_free(struct pretok *p) {
    if (!p) return;
    for (int i = 0; i < MAX_EXPRS; i++)
        pcre2_code_free(p->code[i]);
    heap_free(p);
}

bool pretok_ignore_merges(const struct pretok *p) {
    return p->rule->ignore_merges;
}

bool pretok_add_bos(const struct pretok *p) {
    return p->rule->add_bos;
}

/* ---- splitting ----------------------------------------------------------------------------- */

int pretok_run_new(struct pretok_run **out, struct err *e) {
    int rc = 0;
    struct pretok_run *r = heap_calloc(1, sizeof *r, e);
    *out = NULL;
    if (!r) return ERR_NOMEM;
    r->memory = pcre2_general_context_create(pcre2_alloc, pcre2_release, NULL);
    FAIL_IF(!r->memory, e, ERR_NOMEM, "no memory for the pre-tokenizer");
    r->context = pcre2_match_context_create(r->memory);
    r->match = pcre2_match_data_create(1, r->memory);
    FAIL_IF(!r->context || !r->match, e, ERR_NOMEM, "no memory for the pre-tokenizer");
    /* NULL where there is no JIT, which then does not need it. */
    r->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, r->memory);
    if (r->stack) pcre2_jit_stack_assign(r->context, NULL, r->stack);
out:
    if (rc < 0)
        pretok_run_free(r);
    else
        *out = r;
    return rc;
}

void pretok_run_free(struct pretok_run *r) {
    if (!r) return;
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->context);
    pcre2_jit_stack_free(r->stack);
    pcre2_general_context_free(r->memory);
    heap_free(r->in.end);
    heap_free(r->out.end);
    heap_free(r);
}

static int ends_push(struct ends *v, size_t end, struct err *e) {
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 256;
        size_t *p = heap_realloc(v->end, cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        v->end = p;
        v->cap = cap;
    }
    v->end[v->n++] = end;
    return 0;
}

/* Cut the piece [at, at + n) with one expression, appending to r->out. */
static int split_piece(const pcre2_code *code, struct pretok_run *r, const char *text, size_t at,
                       size_t n, struct err *e) {
    int rc = 0;
    size_t done = 0;
    while (done < n) {
        int found = pcre2_match(code, (PCRE2_SPTR)text + at, n, done, PCRE2_NO_UTF_CHECK, r->match,
                                r->context);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0) {
            char why[120] = "";
            pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
            FAIL_IF(true, e, found == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_UNSUPPORTED,
                    "pre-tokenizer at byte %zu of the text: PCRE2: %s", at + done, why);
        }
        const PCRE2_SIZE *m = pcre2_get_ovector_pointer(r->match);
        FAIL_IF(m[1] <= m[0], e, ERR_UNSUPPORTED, "pre-tokenizer expression matches nothing");
        if (m[0] > done) TRY(ends_push(&r->out, at + m[0], e));
        TRY(ends_push(&r->out, at + m[1], e));
        done = m[1];
    }
    if (done < n) TRY(ends_push(&r->out, at + n, e));
out:
    return rc;
}

int pretok_split(const struct pretok *p, struct pretok_run *r, const char *text, size_t n,
                 const size_t **end, size_t *n_end, struct err *e) {
    int rc = 0;
    r->out.n = 0;
    if (n) TRY(ends_push(&r->out, n, e));
    for (int i = 0; i < p->n_code; i++) {
        struct ends swap = r->in;
        r->in = r->out;
        r->out = swap;
        r->out.n = 0;
        for (size_t k = 0, at = 0; k < r->in.n; at = r->in.end[k++])
            TRY(split_piece(p->code[i], r, text, at, r->in.end[k] - at, e));
    }
    *end = r->out.end;
    *n_end = r->out.n;
out:
    return rc;
}
