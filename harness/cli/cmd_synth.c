/* SPDX-License-Identifier: MIT
 * cmd_synth.c - a GGUF file of random weights, at any shape and of any types. stdout stays empty;
 * what was written is told on stderr. */
#include <stdio.h>
#include <string.h>

#include "base/threads.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/progress.h"
#include "quant/synth.h"

struct synth_cmd {
    struct synth_params p;
    const char *preset, *arch, *type, *type_embd, *type_output, *out;
    /* 0 or negative = as the preset says, or what follows from the others */
    int n_layer, n_embd, n_head, n_head_kv, n_embd_head, n_ff, n_vocab, n_ctx, seed;
    double freq_base, rms_eps;
    const char *tied;
    struct progress progress;
};

#define X(name) "|" #name
static const char arch_names[] = ARCH_LIST(X);
#undef X

static int parse(struct synth_cmd *c, int argc, char **argv, struct err *e) {
    const double max = 1 << 24; /* what a file's reader takes */
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "output" },
        { OPT_STR, "-o --output", "FILE", &c->out, 0, 0, NULL, "the GGUF file to write" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "shape (0 = as the preset says)" },
        { OPT_CHOICE, "--preset", "NAME", &c->preset, 0, 0, synth_preset_names(),
          "shape and settings of a real model" },
        { OPT_CHOICE, "--arch", "NAME", &c->arch, 0, 0, arch_names + 1, "architecture" },
        { OPT_INT, "--n-layer", "N", &c->n_layer, 0, 4096, NULL, "layers" },
        { OPT_INT, "--n-embd", "N", &c->n_embd, 0, max, NULL, "embedding length" },
        { OPT_INT, "--n-head", "N", &c->n_head, 0, max, NULL, "heads" },
        { OPT_INT, "--n-head-kv", "N", &c->n_head_kv, 0, max, NULL,
          "heads of K and V; without a preset as many as --n-head" },
        { OPT_INT, "--n-embd-head", "N", &c->n_embd_head, 0, max, NULL,
          "head size; without a preset n_embd / n_head" },
        { OPT_INT, "--n-ff", "N", &c->n_ff, 0, max, NULL, "feed-forward length" },
        { OPT_INT, "--n-vocab", "N", &c->n_vocab, 0, max, NULL, "tokens; without a preset 32000" },
        { OPT_INT, "--n-ctx", "N", &c->n_ctx, 0, max, NULL,
          "context it says it was trained for; without a preset 8192" },
        { OPT_DOUBLE, "--rope-freq-base", "X", &c->freq_base, 0, 1e12, NULL,
          "base of RoPE; without a preset 10000" },
        { OPT_DOUBLE, "--rms-eps", "X", &c->rms_eps, 0, 1, NULL,
          "epsilon of the norms; without a preset 1e-5" },
        { OPT_CHOICE, "--tied", "on|off", &c->tied, 0, 0, "on|off",
          "no output matrix, the embedding serves; without a preset off" },
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "weights" },
        { OPT_STR, "--type", "TYPE", &c->type, 0, 0, NULL, "type of all matrices" },
        { OPT_STR, "--type-embd --token-embedding-type", "TYPE", &c->type_embd, 0, 0, NULL,
          "type of token_embd.weight (default: as --type)" },
        { OPT_STR, "--type-output --output-tensor-type", "TYPE", &c->type_output, 0, 0, NULL,
          "type of output.weight (default: as --type)" },
        { OPT_STR, "--custom-q --tensor-type", "LIST", &c->p.custom, 0, 0, NULL,
          "types by name, REGEX=TYPE,REGEX=TYPE; the first that matches wins" },
        { OPT_FLAG, "--random-bits", NULL, &c->p.random_bits, 0, 0, NULL,
          "random quant bits with sane scales for every quantised type: fast, for speed at size" },
        { OPT_INT, "-s --seed", "N", &c->seed, 0, INT32_MAX, NULL, "seed of the weights" },
        { OPT_INT, "-t --threads", "N", &c->p.n_threads, 0, THREADS_MAX, NULL,
          "threads (0 = all processors); the file does not depend on it" },
        OPT_END,
    };
    return opt_parse(argc, argv, table, "synth --preset NAME --type TYPE -o FILE [options]", e);
}

static int parse_type(const char *flag, const char *name, enum qtype *out, struct err *e) {
    int rc = 0;
    *out = QT_none;
    if (!name) return 0;
    *out = qtype_from_name(name);
    FAIL_IF(*out == QT_none, e, ERR_ARG, "%s: there is no type '%s'; see ggauge types", flag, name);
out:
    return rc;
}

static void set(int64_t *dst, int v) {
    if (v > 0) *dst = v;
}

/* Sizes of the command line over those of the preset. */
static void shape(struct synth_cmd *c) {
    struct hparams *hp = &c->p.hp;
    for (int a = 0; c->arch && a < ARCH_count; a++)
        if (!strcmp(arch_ops((enum arch)a)->name, c->arch)) hp->arch = (enum arch)a;
    set(&hp->n_layer, c->n_layer);
    set(&hp->n_embd, c->n_embd);
    set(&hp->n_head, c->n_head);
    set(&hp->n_head_kv, c->n_head_kv);
    set(&hp->n_ff, c->n_ff);
    set(&hp->n_vocab, c->n_vocab);
    set(&hp->n_ctx_train, c->n_ctx);
    if (!hp->n_head_kv) hp->n_head_kv = hp->n_head;
    if (!hp->n_embd_head_k && hp->n_head) hp->n_embd_head_k = hp->n_embd / hp->n_head;
    set(&hp->n_embd_head_k, c->n_embd_head);
    hp->n_embd_head_v = hp->n_rot = hp->n_embd_head_k;
    if (c->freq_base > 0) hp->rope_freq_base = c->freq_base;
    if (c->rms_eps > 0) hp->rms_eps = c->rms_eps;
    if (c->tied) c->p.tied = !strcmp(c->tied, "on");
}

static int check(struct synth_cmd *c, struct err *e) {
    int rc = 0;
    FAIL_IF(!c->out, e, ERR_ARG, "synth needs a file to write: -o FILE");
    FAIL_IF(!c->type, e, ERR_ARG, "synth needs a type for the matrices: --type TYPE");
    FAIL_IF(!c->preset && !(c->arch && c->n_layer && c->n_embd && c->n_head && c->n_ff), e, ERR_ARG,
            "synth needs a shape: --preset NAME, or --arch, --n-layer, --n-embd, --n-head and "
            "--n-ff");
    if (c->preset) TRY(synth_preset(&c->p, c->preset, e));
    shape(c);
    TRY(parse_type("--type", c->type, &c->p.type, e));
    TRY(parse_type("--type-embd", c->type_embd, &c->p.type_embd, e));
    TRY(parse_type("--type-output", c->type_output, &c->p.type_output, e));
    c->p.seed = (uint64_t)c->seed;
    if (c->p.n_threads == 0) c->p.n_threads = threads_online();
out:
    return rc;
}

static void on_progress(void *arg, int64_t done_bytes, int64_t total_bytes) {
    struct synth_cmd *c = arg;
    if (!c->progress.total) progress_start(&c->progress, "MiB", total_bytes >> 20, 0);
    progress_update(&c->progress, done_bytes >> 20);
}

static void tell(const struct synth_cmd *c, const struct synth_report *r) {
    fprintf(stderr, "%s: %s, %lld tensors, %.3f M weights, %.3f MiB, %.3f bits per weight\n",
            c->out, arch_ops(c->p.hp.arch)->name, (long long)r->n_tensors,
            (double)r->n_params * 1e-6, (double)r->n_bytes / 0x1p20,
            8.0 * (double)r->n_bytes / (double)r->n_params);
    bool any = false;
    for (int t = 0; t < QT_count; t++) {
        if (!r->random[t]) continue;
        fprintf(stderr, any ? ", %s" : "random quant bits, not quantised weights: %s",
                qtype_info((enum qtype)t)->name);
        any = true;
    }
    if (any) fputc('\n', stderr);
}

int cmd_synth(int argc, char **argv, struct err *e) {
    struct synth_cmd c = { .p = { .type_embd = QT_none, .type_output = QT_none }, .seed = 1 };
    struct synth_report r;
    c.p.hp = (struct hparams){ .n_vocab = 32000,
                               .n_ctx_train = 8192,
                               .rms_eps = 1e-5,
                               .rope_freq_base = 10000,
                               .rope_freq_scale = 1,
                               .rope_attn_factor = 1 };
    int rc = parse(&c, argc, argv, e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;
    TRY(check(&c, e));
    c.p.progress = on_progress;
    c.p.progress_arg = &c;
    rc = synth_write(&c.p, c.out, &r, e);
    progress_clear(&c.progress);
    TRY(rc);
    tell(&c, &r);
out:
    return rc < 0 ? rc : EXIT_PASS;
}
