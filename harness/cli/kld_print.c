/* SPDX-License-Identifier: MIT
 * kld_print.c - tables of a KL divergence; see kld_print.h. */
#include "cli/kld_print.h"

void kld_print_head(FILE *f) {
    fputs("\nchunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence"
          "              Δp RMS            Same top p\n",
          f);
}

void kld_print_chunk(FILE *f, int64_t i, const struct kld *k) {
    struct estimate ppl = kld_ppl(k), ratio = kld_ln_ratio(k), kld = kld_mean(k);
    struct estimate rms = kld_rms_dp(k), top = kld_same_top(k);
    fprintf(f, "%4d", (int)i + 1);
    fprintf(f, "    %9.4f ± %9.4f", ppl.value, ppl.se);
    fprintf(f, "    %10.5f ± %10.5f", ratio.value, ratio.se);
    fprintf(f, "    %10.5f ± %10.5f", kld.value, kld.se);
    fprintf(f, "    %6.3f ± %6.3f %%", 100 * rms.value, 100 * rms.se);
    fprintf(f, "    %6.3f ± %6.3f %%\n", 100 * top.value, 100 * top.se);
}

static void print_ppl(FILE *f, const struct kld *k) {
    const struct {
        const char *label;
        struct estimate x;
    } head[] = { { "Mean PPL(Q)                   ", kld_ppl(k) },
                 { "Mean PPL(base)                ", kld_ppl_base(k) } },
      tail[] = { { "Mean ln(PPL(Q)/PPL(base))     ", kld_ln_ratio(k) },
                 { "Mean PPL(Q)/PPL(base)         ", kld_ratio(k) },
                 { "Mean PPL(Q)-PPL(base)         ", kld_difference(k) } };
    fputs("====== Perplexity statistics ======\n", f);
    for (size_t i = 0; i < N_ELEMS(head); i++)
        fprintf(f, "%s: %10.6f ± %10.6f\n", head[i].label, head[i].x.value, head[i].x.se);
    fprintf(f, "Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n", 100 * kld_cor_ln_ppl(k));
    for (size_t i = 0; i < N_ELEMS(tail); i++)
        fprintf(f, "%s: %10.6f ± %10.6f\n", tail[i].label, tail[i].x.value, tail[i].x.se);
}

/* Rows of both percentile tables, from the top; the median is computed in its own way. */
static const struct {
    const char *label;
    float p;
    int dp_only;
} percentile[] = {
    { "Maximum", 1, 0 },     { "99.9%  ", 0.999f, 0 }, { "99.0%  ", 0.99f, 0 },
    { "95.0%  ", 0.95f, 0 }, { "90.0%  ", 0.90f, 0 },  { "75.0%  ", 0.75f, 1 },
    { "Median ", -1, 0 },    { "25.0%  ", 0.25f, 1 },  { "10.0%  ", 0.10f, 0 },
    { " 5.0%  ", 0.05f, 0 }, { " 1.0%  ", 0.01f, 0 },  { " 0.1%  ", 0.001f, 0 },
    { "Minimum", 0, 0 },
};

static float at(const float *sorted, int64_t n, float p) {
    return p < 0 ? kld_median(sorted, n) : kld_percentile(sorted, n, p);
}

static void print_kld(FILE *f, const struct kld *k) {
    struct estimate m = kld_mean(k);
    fputs("\n====== KL divergence statistics ======\n", f);
    fprintf(f, "Mean    KLD: %10.6f ± %10.6f\n", m.value, m.se);
    for (size_t i = 0; i < N_ELEMS(percentile); i++)
        if (!percentile[i].dp_only)
            fprintf(f, "%s KLD: %10.6f\n", percentile[i].label,
                    (double)at(k->kld_at, k->n, percentile[i].p));
}

static void print_dp(FILE *f, const struct kld *k) {
    struct estimate m = kld_mean_dp(k), rms = kld_rms_dp(k), top = kld_same_top(k);
    fputs("\n====== Token probability statistics ======\n", f);
    fprintf(f, "Mean    Δp: %6.3f ± %5.3f %%\n", 100 * m.value, 100 * m.se);
    for (size_t i = 0; i < N_ELEMS(percentile); i++)
        fprintf(f, "%s Δp: %6.3f%%\n", percentile[i].label,
                100.0 * (double)at(k->dp_at, k->n, percentile[i].p));
    fprintf(f, "RMS Δp    : %6.3f ± %5.3f %%\n", 100 * rms.value, 100 * rms.se);
    fprintf(f, "Same top p: %6.3f ± %5.3f %%\n", 100 * top.value, 100 * top.se);
}

void kld_print_tables(FILE *f, struct kld *k) {
    fputc('\n', f);
    if (k->n < KLD_MIN_FINAL) return;
    kld_sort(k);
    print_ppl(f, k);
    print_kld(f, k);
    print_dp(f, k);
}
