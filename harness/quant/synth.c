/* SPDX-License-Identifier: MIT
 * synth.c - presets, keys and tensors of a synthetic model, and the stream of its rows; see
 * synth.h.
 *
 * Standard deviations are 1 / sqrt(row length), and those of the matrices that write to the
 * residual stream are smaller by sqrt(2 layers), so that activations and logits keep the size that
 * they have in trained models. */
#include "quant/synth.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "backend.h"
#include "base/arena.h"
#include "base/threads.h"
#include "measure/random_row.h"
#include "model/model.h"

#define BLOCK_BYTES (4u << 20) /* of rows computed at a time: enough work for many threads */
#define MAX_CUSTOM 32          /* type rules */

/* ---- presets --------------------------------------------------------------------------------- */

/* Source: config.json of meta-llama/Llama-3.2-1B and Llama-3.1-8B, Qwen/Qwen3-0.6B. */
/*    name             arch   ctx     embd layer head kv  hd   ff     vocab   eps    base      tied
 * llama3 factor */
#define PRESET_LIST(X)                                                                             \
    X("llama-3.2-1b", llama, 131072, 2048, 16, 32, 8, 64, 8192, 128256, 1e-5, 500000.0, 1, 32.0)   \
    X("llama-3.1-8b", llama, 131072, 4096, 32, 32, 8, 128, 14336, 128256, 1e-5, 500000.0, 0, 8.0)  \
    X("qwen3-0.6b", qwen3, 40960, 1024, 28, 16, 8, 128, 3072, 151936, 1e-6, 1000000.0, 1, 0.0)

static const struct {
    const char *name;
    struct hparams hp;
    bool tied;
    double llama3_factor;
} presets[] = {
#define X(name, arch, ctx, embd, layer, head, kv, hd, ff, vocab, eps, base, tied, factor)          \
    { name,                                                                                        \
      { ARCH_##arch, vocab, ctx, embd, layer, head, kv, hd, hd, hd, ff, eps, base, 1.0,            \
        ROPE_SCALING_NONE, 1.0, ctx },                                                             \
      tied,                                                                                        \
      factor },
    PRESET_LIST(X)
#undef X
};

#define X(name, ...) "|" name
static const char preset_names[] = PRESET_LIST(X);
#undef X

const char *synth_preset_names(void) {
    return preset_names + 1;
}

int synth_preset(struct synth_params *p, const char *name, struct err *e) {
    for (size_t i = 0; i < N_ELEMS(presets); i++) {
        if (strcmp(presets[i].name, name) != 0) continue;
        p->name = presets[i].name;
        p->hp = presets[i].hp;
        p->tied = presets[i].tied;
        p->llama3_factor = presets[i].llama3_factor;
        return 0;
    }
    return ERR(e, ERR_ARG, "there is no preset '%s', only %s", name, synth_preset_names());
}

/* ---- types by name --------------------------------------------------------------------------- */

struct rule {
    regex_t re;
    enum qtype type;
};

struct synth {
    const struct synth_params *p;
    struct rule rules[MAX_CUSTOM];
    int n_rules;
    struct synth_tensor *tensors;
    int64_t n_tensors, cap;
    struct synth_rows rows;
    struct gguf_writer *w;
    struct thread_pool *pool;
    struct synth_report report;
    int64_t done_bytes;
};

static int add_rule(struct synth *s, const char *text, size_t n, struct err *e) {
    int rc = 0;
    char buf[256], why[128];
    FAIL_IF(n >= sizeof buf, e, ERR_ARG, "types by name: a rule of %zu bytes, at most %zu", n,
            sizeof buf - 1);
    memcpy(buf, text, n);
    buf[n] = '\0';
    char *eq = strrchr(buf, '=');
    FAIL_IF(!eq || eq == buf, e, ERR_ARG, "types by name: expected REGEX=TYPE, not '%s'", buf);
    *eq = '\0';
    FAIL_IF(s->n_rules == MAX_CUSTOM, e, ERR_ARG, "types by name: more than %d rules", MAX_CUSTOM);
    struct rule *r = &s->rules[s->n_rules];
    r->type = qtype_from_name(eq + 1);
    FAIL_IF(r->type == QT_none, e, ERR_ARG, "types by name: there is no type '%s' ('%s=%s')",
            eq + 1, buf, eq + 1);
    int code = regcomp(&r->re, buf, REG_EXTENDED | REG_NOSUB);
    if (code) regerror(code, &r->re, why, sizeof why);
    FAIL_IF(code, e, ERR_ARG, "types by name: '%s': %s", buf, why);
    s->n_rules++;
out:
    return rc;
}

static int parse_rules(struct synth *s, struct err *e) {
    int rc = 0;
    for (const char *p = s->p->custom; p;) {
        const char *comma = strchr(p, ',');
        TRY(add_rule(s, p, comma ? (size_t)(comma - p) : strlen(p), e));
        p = comma ? comma + 1 : NULL;
    }
out:
    return rc;
}

static enum qtype type_of(const struct synth *s, const char *name) {
    const struct synth_params *p = s->p;
    for (int i = 0; i < s->n_rules; i++)
        if (regexec(&s->rules[i].re, name, 0, NULL, 0) == 0) return s->rules[i].type;
    if (!strcmp(name, "token_embd.weight") && p->type_embd != QT_none) return p->type_embd;
    if (!strcmp(name, "output.weight") && p->type_output != QT_none) return p->type_output;
    return p->type;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* FNV-1a: a tensor's seed follows from its name. */
static uint64_t hash_name(const char *s) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001B3u;
    return h;
}

/* How the weights of a matrix come about; an error if they cannot. */
static int choose_weights(const struct synth *s, struct synth_tensor *t, struct err *e) {
    int rc = 0;
    const struct qtype_info *q = qtype_info(t->type);
    const struct qkernel *k = qkernel_find(COL_ref, t->type, false, NULL);
    const bool is_float = t->type == QT_f32 || t->type == QT_f16 || t->type == QT_bf16;
    FAIL_IF(t->n0 % q->n_blk, e, ERR_ARG,
            "%s: a row of %lld weights is not a multiple of the %d that a block of %s holds",
            t->name, (long long)t->n0, q->n_blk, q->name);
    bool can_quantise = k && k->dequant_row && k->quantize_row;
    t->bits = !is_float && random_row_has(t->type) && (s->p->random_bits || !can_quantise);
    FAIL_IF(qtype_is_act(t->type) || (!t->bits && !can_quantise), e, ERR_UNSUPPORTED,
            "%s: this build can neither quantise to %s nor make random bits of it", t->name,
            q->name);
out:
    return rc;
}

/* A model_lister: every required tensor, and of the optional ones those that the parameters want.
 */
static int add_tensor(void *arg, const char *name, enum need need, int64_t n0, int64_t n1,
                      struct err *e) {
    int rc = 0;
    struct synth *s = arg;
    bool wanted = need == NEED_REQUIRED || (!strcmp(name, "output.weight") && !s->p->tied) ||
                  (!strcmp(name, "rope_freqs.weight") && s->p->llama3_factor > 0);
    if (!wanted) return 0;
    if (s->n_tensors == s->cap) {
        s->cap = 2 * s->cap + 64;
        struct synth_tensor *p = heap_realloc(s->tensors, (size_t)s->cap * sizeof *p, e);
        if (!p) return ERR_NOMEM;
        s->tensors = p;
    }
    struct synth_tensor *t = &s->tensors[s->n_tensors];
    *t = (struct synth_tensor){ .n0 = n0, .n1 = n1, .type = QT_f32, .kind = SYNTH_NORM, .sd = 0.1 };
    snprintf(t->name, sizeof t->name, "%s", name);
    t->seed = s->p->seed ^ hash_name(name);
    if (!strcmp(name, "rope_freqs.weight")) {
        t->kind = SYNTH_ROPE_FREQS;
    } else if (ends_with(name, ".bias")) {
        t->kind = SYNTH_BIAS;
    } else if (n1 > 1) {
        const bool residual = ends_with(name, "attn_output.weight") || strstr(name, "ffn_down");
        t->kind = SYNTH_MATRIX;
        t->type = type_of(s, name);
        t->sd = 1.0 / sqrt((double)n0 * (residual ? 2.0 * (double)s->p->hp.n_layer : 1.0));
        TRY(choose_weights(s, t, e));
    }
    TRY(gguf_put_tensor(s->w, t->name, n1 > 1 ? 2 : 1, (int64_t[]){ n0, n1 }, t->type, e));
    s->n_tensors++;
    s->report.n_params += n0 * n1;
    s->report.n_bytes += (int64_t)qtype_row_bytes(t->type, n0) * n1;
    s->report.random[t->type] |= t->bits;
out:
    return rc;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static int check_params(const struct synth_params *p, struct err *e) {
    int rc = 0;
    const struct hparams *hp = &p->hp;
    const int64_t dims[] = { hp->n_ctx_train, hp->n_embd,        hp->n_layer,       hp->n_head,
                             hp->n_head_kv,   hp->n_embd_head_k, hp->n_embd_head_v, hp->n_ff };
    for (size_t i = 0; i < N_ELEMS(dims); i++)
        FAIL_IF(dims[i] < 1, e, ERR_ARG,
                "context, embedding, layers, heads, head size and n_ff must all be given");
    FAIL_IF(hp->n_head % hp->n_head_kv, e, ERR_ARG,
            "%lld heads cannot be shared evenly by %lld kv heads", (long long)hp->n_head,
            (long long)hp->n_head_kv);
    FAIL_IF(hp->n_embd_head_k % 2, e, ERR_ARG, "the head size %lld must be even for RoPE",
            (long long)hp->n_embd_head_k);
    FAIL_IF(p->n_threads < 1, e, ERR_ARG, "%d threads", p->n_threads);
out:
    return rc;
}

static int put_hparams(struct gguf_writer *w, const struct hparams *hp, struct err *e) {
    int rc = 0;
    const char *arch = arch_ops(hp->arch)->name;
    const struct {
        const char *key;
        int64_t v;
    } ints[] = {
        { "vocab_size", hp->n_vocab },
        { "context_length", hp->n_ctx_train },
        { "embedding_length", hp->n_embd },
        { "block_count", hp->n_layer },
        { "feed_forward_length", hp->n_ff },
        { "attention.head_count", hp->n_head },
        { "attention.head_count_kv", hp->n_head_kv },
        { "attention.key_length", hp->n_embd_head_k },
        { "attention.value_length", hp->n_embd_head_v },
        { "rope.dimension_count", hp->n_rot },
    };
    char key[96];
    TRY(gguf_put_str(w, "general.architecture", arch, strlen(arch), e));
    for (size_t i = 0; i < N_ELEMS(ints); i++) {
        snprintf(key, sizeof key, "%s.%s", arch, ints[i].key);
        TRY(gguf_put_u32(w, key, (uint32_t)ints[i].v, e));
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    TRY(gguf_put_f32(w, key, (float)hp->rms_eps, e));
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    TRY(gguf_put_f32(w, key, (float)hp->rope_freq_base, e));
out:
    return rc;
}

/* A file must say what it is: nobody shall take its perplexity for a result. */
static int put_origin(struct synth *s, struct err *e) {
    int rc = 0;
    char text[512] = "";
    const char *name = s->p->name ? s->p->name : "synth";
    static const char note[] = "random weights, made for measurements of speed; says nothing";
    TRY(gguf_put_str(s->w, "general.name", name, strlen(name), e));
    TRY(gguf_put_str(s->w, "general.description", note, sizeof note - 1, e));
    TRY(gguf_put_u32(s->w, "general.quantization_version", 2, e)); /* of ggml, since 2023 */
    TRY(gguf_put_u32(s->w, "synth.seed", (uint32_t)s->p->seed, e));
    for (int t = 0, n = 0; t < QT_count; t++)
        if (s->report.random[t] && n < (int)sizeof text)
            n += snprintf(text + n, sizeof text - (size_t)n, n ? " %s" : "%s",
                          qtype_info((enum qtype)t)->name);
    TRY(gguf_put_str(s->w, "synth.random_bits", text, strlen(text), e));
out:
    return rc;
}

/* ---- the stream ------------------------------------------------------------------------------ */

struct block {
    const struct synth *s;
    const struct synth_tensor *t;
    int64_t first, n_rows;
    char *out;
};

static void fill_block(void *arg, struct work *w) {
    const struct block *b = arg;
    const size_t row_bytes = qtype_row_bytes(b->t->type, b->t->n0);
    for (int64_t r; (r = work_next(w)) < b->n_rows;)
        synth_row(&b->s->rows, b->t, b->first + r, w->scratch, b->out + (size_t)r * row_bytes);
}

/* Divisors of the rotation's frequencies: long wavelengths are stretched by `factor`, short ones
 * stay, and between a quarter of the old context and all of it they go over. Source: Llama 3.1
 * model card, rope_scaling with low_freq_factor 1, high_freq_factor 4 and 8192 positions. */
static void llama3_divisors(const struct hparams *hp, double factor, float *out) {
    const double old_ctx = 8192, low = 1, high = 4;
    for (int64_t i = 0; i < hp->n_rot / 2; i++) {
        const double wave =
            6.283185307179586 * pow(hp->rope_freq_base, 2.0 * (double)i / (double)hp->n_rot);
        double smooth = (old_ctx / wave - low) / (high - low);
        smooth = fmin(1.0, fmax(0.0, smooth));
        out[i] = (float)(1.0 / ((1.0 - smooth) / factor + smooth));
    }
}

static int put_rows(struct synth *s, const struct synth_tensor *t, char *buf, struct err *e) {
    int rc = 0;
    const size_t row_bytes = qtype_row_bytes(t->type, t->n0);
    const int64_t step = row_bytes < BLOCK_BYTES ? (int64_t)(BLOCK_BYTES / row_bytes) : 1;
    for (int64_t r = 0; r < t->n1; r += step) {
        struct block b = { s, t, r, t->n1 - r < step ? t->n1 - r : step, buf };
        if (t->kind == SYNTH_ROPE_FREQS)
            llama3_divisors(&s->p->hp, s->p->llama3_factor, (float *)(void *)buf);
        else
            thread_pool_run(s->pool, s->p->n_threads, fill_block, &b);
        TRY(gguf_writer_data(s->w, buf, (size_t)b.n_rows * row_bytes, e));
        s->done_bytes += b.n_rows * (int64_t)row_bytes;
        if (s->p->progress) s->p->progress(s->p->progress_arg, s->done_bytes, s->report.n_bytes);
    }
out:
    return rc;
}

static int stream(struct synth *s, struct err *e) {
    int rc = 0;
    int64_t longest = 0;
    char *buf = NULL;
    float *column = NULL;
    for (int64_t i = 0; i < s->n_tensors; i++)
        if (s->tensors[i].n0 > longest) longest = s->tensors[i].n0;
    const size_t row = (size_t)longest * sizeof(float); /* no type is wider than f32 */
    buf = heap_alloc(row > BLOCK_BYTES ? row : BLOCK_BYTES, e);
    column = heap_alloc(row, e);
    FAIL_IF(!buf || !column, e, ERR_NOMEM, "no memory for a block of rows");
    TRY(thread_pool_reserve(s->pool, 0, row, e));
    for (int64_t i = 0; i < s->n_tensors; i++) {
        struct synth_tensor *t = &s->tensors[i];
        t->column = column;
        if (t->kind == SYNTH_MATRIX && !t->bits) synth_columns(&s->rows, t);
        TRY(put_rows(s, t, buf, e));
    }
out:
    heap_free(buf);
    heap_free(column);
    return rc;
}

/* A disk that is too small is told before the first byte and not after the first hundred GB. */
static int check_room(const char *path, int64_t n_bytes, struct err *e) {
    int rc = 0;
    char folder[4096];
    struct statvfs fs;
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 0;
    if (n >= sizeof folder) return 0; /* opening the file tells */
    memcpy(folder, path, n);
    folder[n] = '\0';
    if (statvfs(n ? folder : ".", &fs) < 0) return 0;
    const double room = (double)fs.f_bavail * (double)fs.f_frsize;
    FAIL_IF((double)n_bytes > room, e, ERR_IO, "%s: needs %.2f GiB, and its disk has %.2f GiB left",
            path, (double)n_bytes / 0x1p30, room / 0x1p30);
out:
    return rc;
}

static void release(struct synth *s) {
    gguf_writer_free(s->w);
    thread_pool_free(s->pool);
    synth_rows_release(&s->rows);
    for (int i = 0; i < s->n_rules; i++)
        regfree(&s->rules[i].re);
    heap_free(s->tensors);
}

int synth_write(const struct synth_params *p, const char *path, struct synth_report *r,
                struct err *e) {
    int rc = 0;
    struct synth s = { .p = p };
    const struct model_lister lister = { add_tensor, &s };
    const bool llama = p->hp.arch == ARCH_llama;
    TRY(check_params(p, e));
    TRY(parse_rules(&s, e));
    TRY(gguf_writer_new(&s.w, path, e));
    TRY(put_hparams(s.w, &p->hp, e));
    TRY(model_list(&p->hp, &lister, e));
    TRY(check_room(path, s.report.n_bytes, e));
    TRY(put_origin(&s, e));
    TRY(synth_put_vocab(s.w, p->hp.n_vocab, llama ? "llama-bpe" : "qwen2", llama, e));
    TRY(synth_rows_init(&s.rows, e));
    TRY(thread_pool_new(&s.pool, p->n_threads, e));
    TRY(gguf_writer_begin(s.w, e));
    TRY(stream(&s, e));
    TRY(gguf_writer_end(s.w, e));
    s.report.n_tensors = s.n_tensors;
    if (r) *r = s.report;
out:
    release(&s);
    return rc;
}
