/* SPDX-License-Identifier: MIT
 * foreign.c - what is known of the cells of other engines; see foreign.h. */
#include "measure/foreign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* From the relative RMS of an error to limits. Rows of real activations have long tails: the
 * largest error of 2 million was seen at 12.4 times the RMS. */
#define MAX_REL(rms) (24.0 * (rms))
#define ROW_NMSE(rms) (9.0 * (rms) * (rms))

/* Names, as far as the build knows these types. */
static const char *const acts[] = { "f32", "q8_2_x4", "q8_0", "q8_1", "q8_k", "f16", "bf16" };

enum qtype foreign_act(int k) {
    for (size_t i = 0; i < N_ELEMS(acts); i++) {
        enum qtype t = qtype_from_name(acts[i]);
        const struct qkernel *c = t == QT_none ? NULL : qkernel_find(COL_ref, t, false, NULL);
        bool usable = c && c->dequant_row && (t == QT_f32 || c->quantize_row);
        if (usable && k-- == 0) return t;
    }
    return QT_none;
}

void foreign_cell_name(const char *engine, const struct node *n, char *buf, size_t n_bytes) {
    snprintf(buf, n_bytes, "%s@%s",
             n->op == OP_mul_mat ? qtype_info((enum qtype)n->src[0]->type)->name : op_name(n->op),
             engine);
}

/*    first words of the types' names (a trailing $ ends the name)      relative RMS  why */
#define KNOWN_IK(X)                                                                                \
    X("iq1_kt$ iq2_kt$ iq3_kt$ iq4_kt$", 2.6e-4,                                                   \
      "at 16 or 24 tokens and more its weights become q8_0_r8, whose scales are f16")              \
    X("q4_1$ q5_1$ q4_k$ q5_k$", 6.5e-4, "at 32 tokens and more its weights become q8_1")          \
    X("q6_k$", 5.4e-3, "at 64 tokens and more its weights become q8_0_r8")                         \
    X("q2_k$ q3_k$ iq3_xxs$ iq2_k$ iq3_k$ iq2_ks$ iq3_ks$ iq2_kl$", 7.5e-3,                        \
      "at 32 tokens and more its weights become q8_k, one scale for 256")                          \
    X("iq4_xs$ iq4_k$ iq5_k$ iq6_k$ iq4_ks$ iq5_ks$ iq4_kss$", 4.5e-2,                             \
      "its sums of byte products saturate at 16 bits, or its weights become q8_k")

/* A quantised product of any engine: activations become 8 bits wide by a rule that ref does not
 * have. */
#define ANY_RMS 1e-2
#define ANY_WHY "its activations become 8 bits wide in a way of their own"
#define FLOAT_RMS 2e-3
#define FLOAT_WHY "its activations or sums are of half precision"
/* Products that are multiplied with each other at once: few elements hold most of a row, and the
 * largest error was seen at 43 times a product's RMS. */
#define FUSED 4.0
/* Keys, values and their sum in 16 bits. */
#define ATTN_RMS 5e-3
#define ATTN_WHY "its attention sums in half precision"

static bool listed(const char *types, const char *name) {
    const size_t n = strlen(name);
    for (const char *at = strstr(types, name); at; at = strstr(at + 1, name))
        if ((at == types || at[-1] == ' ') && at[n] == '$') return true;
    return false;
}

/* Of 100,000 errors of 1 % and more the mean is below 1e-4. */
#define FACTOR_SLACK 1e-3

bool foreign_only_rounds(const struct op_error *s) {
    return s->sum_want > 0 && fabs(s->sum_dot / s->sum_want - 1) <= FACTOR_SLACK;
}

const char *foreign_known(const char *engine, bool attention, bool fused, enum qtype weight,
                          struct op_limit *limit) {
    const char *why = NULL;
    double rms = 0;
    if (attention) {
        rms = ATTN_RMS;
        why = ATTN_WHY;
    } else if (weight == QT_f32 || weight == QT_f16 || weight == QT_bf16) {
        rms = FLOAT_RMS;
        why = FLOAT_WHY;
    } else if (weight != QT_none) {
        rms = ANY_RMS;
        why = ANY_WHY;
    }
    if (!attention && weight != QT_none && !strcmp(engine, "ik_llama.cpp")) {
        const char *type = qtype_info(weight)->name;
#define X(types, size, text)                                                                       \
    if (listed(types, type)) {                                                                     \
        rms = size;                                                                                \
        why = text;                                                                                \
    }
        KNOWN_IK(X)
#undef X
    }
    if (fused) rms *= FUSED;
    *limit = (struct op_limit){ .max_rel = MAX_REL(rms), .row_nmse = ROW_NMSE(rms) };
    return why;
}
