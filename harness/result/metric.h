/* SPDX-License-Identifier: MIT
 * metric.h - METRIC_LIST: every quantity that a result row can hold.
 *
 * better: +1 larger is better, -1 smaller is better, 0 neither. timed: 1 = varies from run to run,
 * 0 = deterministic. limit: relative change that counts as a regression (0 = any). */
#ifndef GGAUGE_METRIC_H
#define GGAUGE_METRIC_H

/*    name           unit       better timed limit   meaning */
#define METRIC_LIST(X)                                                                             \
    X(ppl,           "",          -1,  0, 0.0005, "perplexity")                                    \
    X(ppl_running,   "",          -1,  0, 0.0005, "perplexity of all chunks so far")               \
    X(nll_sum,       "nat",       -1,  0, 0.0,    "sum of negative log-likelihoods of a chunk")    \
    X(nll_sq_sum,    "nat^2",      0,  0, 0.0,    "sum of their squares")                          \
    X(n_scored,      "token",      0,  0, 0.0,    "tokens scored")                                 \
    X(ppl_se_token,  "",          -1,  0, 0.0,    "standard error of ppl, tokens independent")     \
    X(ppl_se_chunk,  "",          -1,  0, 0.0,    "standard error of ppl, chunks independent")     \
    X(kld,           "nat",       -1,  0, 0.0005, "mean KL divergence from the base model")        \
    X(top1,          "",          +1,  0, 0.0005, "share of positions with the same top token")    \
    X(ln_ratio,      "nat",        0,  0, 0.0,    "ln(PPL_B/PPL_A), of all chunks so far")         \
    X(d_abs,         "nat",       -1,  0, 0.0,    "quantile of |nll_B - nll_A| of positions")      \
    X(kld_ba,        "nat",       -1,  0, 0.0,    "mean KL divergence of arm A from arm B")        \
    X(wide_flips,    "",          -1,  0, 0.0,    "positions where A leads widely and B "          \
                                                  "disagrees")                                     \
    X(floor_d_max,   "nat",       -1,  0, 0.0,    "largest |nll' - nll| of an arm against itself") \
    X(op_error,      "",          -1,  0, 0.0,    "error of arm B's operation, as a share of its " \
                                                  "limit")                                         \
    X(op_error_a,    "",          -1,  0, 0.0,    "the same of arm A")                             \
    X(eval_tps,      "token/s",   +1,  1, 0.05,   "tokens evaluated per second")                   \
    X(eval_s,        "s",         -1,  1, 0.05,   "seconds of evaluation")                         \
    X(pp_s,          "s",         -1,  1, 0.05,   "seconds to process the prompt part (T_PP)")     \
    X(pp_tps,        "token/s",   +1,  1, 0.05,   "prompt processing speed (S_PP)")                \
    X(tg_s,          "s",         -1,  1, 0.05,   "seconds to generate (T_TG)")                    \
    X(tg_tps,        "token/s",   +1,  1, 0.05,   "token generation speed (S_TG)")                 \
    X(rss_bytes,     "byte",      -1,  1, 0.05,   "peak resident memory of the process")           \
    X(gpu_sm_mhz,    "MHz",        0,  1, 0.0,    "clock of the cards' SMs, behind a timed part")  \
    X(gpu_mem_mhz,   "MHz",        0,  1, 0.0,    "clock of their memory")                         \
    X(gpu_w,         "W",          0,  1, 0.0,    "mean power of the cards in a timed part")       \
    X(gpu_jpt,       "J/token",   -1,  1, 0.05,   "energy of a token, by the cards' counters")     \
    X(gpu_jpt_power, "J/token",   -1,  1, 0.05,   "the same by readings of power, times time")     \
    X(vram_bytes,    "byte",       0,  1, 0.0,    "memory in use on the cards, by whomever")       \
    X(vram_delta_bytes, "byte",   -1,  1, 0.05,   "of it, what was free before the run")           \
    X(model_bytes,   "byte",      -1,  0, 0.0,    "bytes of all tensors")                          \
    X(bpw,           "bit",       -1,  0, 0.0,    "bits per weight")                               \
    X(kernel_us,     "us",        -1,  1, 0.05,   "time of one call of a kernel")                  \
    X(kernel_gbs,    "GB/s",      +1,  1, 0.05,   "bytes of a call over its time")                 \
    X(kernel_gmacs,  "G MAC/s",   +1,  1, 0.05,   "multiply-adds of a call over its time")         \
    X(kernel_roof,   "%",         +1,  1, 0.05,   "speed of a kernel as a share of the roofline")  \
    X(kernel_nmse,   "",          -1,  0, 0.0,    "error of a kernel's worst row against ref")     \
    X(peak_gbs,      "GB/s",      +1,  1, 0.05,   "measured peak of reading")                      \
    X(peak_gmacs,    "G MAC/s",   +1,  1, 0.05,   "measured peak of multiply-adds")

enum metric {
#define X(name, ...) METRIC_##name,
    METRIC_LIST(X)
#undef X
    METRIC_count,
};

struct metric_info {
    const char *name, *unit;
    int better, timed;
    double limit;
    const char *meaning;
};

const struct metric_info *metric_info(enum metric m);
/* METRIC_count if there is none of that name. */
enum metric metric_from_name(const char *name);

#endif
