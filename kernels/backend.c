/* SPDX-License-Identifier: MIT
 * backend.c - the tables of cells, made from the lists, and the probe of the machine.
 *
 * This file and the Makefile alone know which columns are compiled in. It is built with plain
 * flags, so that it runs on any x86-64. */
#include "backend.h"

#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* PICK_Y(symbol) is its address, PICK__(symbol) nothing. The columns are called c0..c5 because a
 * parameter named like a column would replace the suffix that is being pasted. */
#define PICK_Y(symbol) &symbol
#define PICK__(symbol) NULL
#define DECLARE_Y(type, symbol) extern const struct type symbol;
#define DECLARE__(type, symbol)

#define X(name, id, n_blk, block, row_meta, gain, c0, c1, c2, c3, c4, c5)                          \
    DECLARE_##c0(qkernel, name##_ref) DECLARE_##c1(qkernel, name##_avx2)                           \
        DECLARE_##c2(qkernel, name##_avx512) DECLARE_##c3(qkernel, name##_amx)                     \
            DECLARE_##c4(qkernel, name##_amx_requant) DECLARE_##c5(qkernel, name##_cuda)
QTYPE_LIST(X)
#undef X
#define X(name, n_src, c0, c1, c2, c3, c4, c5)                                                     \
    DECLARE_##c0(op_cell, op_##name##_ref) DECLARE_##c1(op_cell, op_##name##_avx2)                 \
        DECLARE_##c2(op_cell, op_##name##_avx512) DECLARE_##c3(op_cell, op_##name##_amx)           \
            DECLARE_##c4(op_cell, op_##name##_amx_requant) DECLARE_##c5(op_cell, op_##name##_cuda)
OP_LIST(X)
#undef X
#define X(name, c0, c1, c2, c3, c4, c5)                                                            \
    DECLARE_##c0(peak_cell, peak_##name##_ref) DECLARE_##c1(peak_cell, peak_##name##_avx2)         \
        DECLARE_##c2(peak_cell, peak_##name##_avx512) DECLARE_##c3(peak_cell, peak_##name##_amx)   \
            DECLARE_##c4(peak_cell, peak_##name##_amx_requant)                                     \
                DECLARE_##c5(peak_cell, peak_##name##_cuda)
PEAK_LIST(X)
#undef X

static const struct qkernel *const qkernels[QT_count][COL_count] = {
#define X(name, id, n_blk, block, row_meta, gain, c0, c1, c2, c3, c4, c5)                          \
    [QT_##                                                                                         \
        name] = { PICK_##c0(name##_ref), PICK_##c1(name##_avx2),        PICK_##c2(name##_avx512),  \
                  PICK_##c3(name##_amx), PICK_##c4(name##_amx_requant), PICK_##c5(name##_cuda) },
    QTYPE_LIST(X)
#undef X
};

static const struct op_cell *const op_cells[OP_count][COL_count] = {
#define X(name, n_src, c0, c1, c2, c3, c4, c5)                                                     \
    [OP_##name] = { PICK_##c0(op_##name##_ref),         PICK_##c1(op_##name##_avx2),               \
                    PICK_##c2(op_##name##_avx512),      PICK_##c3(op_##name##_amx),                \
                    PICK_##c4(op_##name##_amx_requant), PICK_##c5(op_##name##_cuda) },
    OP_LIST(X)
#undef X
};

#define X(name, c0, c1, c2, c3, c4, c5)                                                            \
    DECLARE_##c0(chain_cell, chain_##name##_ref) DECLARE_##c1(chain_cell, chain_##name##_avx2)     \
        DECLARE_##c2(chain_cell, chain_##name##_avx512)                                            \
            DECLARE_##c3(chain_cell, chain_##name##_amx)                                           \
                DECLARE_##c4(chain_cell, chain_##name##_amx_requant)                               \
                    DECLARE_##c5(chain_cell, chain_##name##_cuda)
CHAIN_LIST(X)
#undef X

static const struct chain_cell *const chain_cells[][COL_count] = {
#define X(name, c0, c1, c2, c3, c4, c5)                                                            \
    { PICK_##c0(chain_##name##_ref),         PICK_##c1(chain_##name##_avx2),                       \
      PICK_##c2(chain_##name##_avx512),      PICK_##c3(chain_##name##_amx),                        \
      PICK_##c4(chain_##name##_amx_requant), PICK_##c5(chain_##name##_cuda) },
    CHAIN_LIST(X)
#undef X
};

static const struct peak_cell *const peak_cells[PEAK_count][COL_count] = {
#define X(name, c0, c1, c2, c3, c4, c5)                                                            \
    [PEAK_##name] = { PICK_##c0(peak_##name##_ref),         PICK_##c1(peak_##name##_avx2),         \
                      PICK_##c2(peak_##name##_avx512),      PICK_##c3(peak_##name##_amx),          \
                      PICK_##c4(peak_##name##_amx_requant), PICK_##c5(peak_##name##_cuda) },
    PEAK_LIST(X)
#undef X
};

static const struct {
    const char *name;
    enum column parent;
    bool by_name_only;
    const char *needs;
} columns[COL_count] = {
#define X(name, parent, by_name_only, needs) { #name, COL_##parent, by_name_only, needs },
    BACKEND_LIST(X)
#undef X
};

const char *column_name(enum column c) {
    return c >= 0 && c < COL_count ? columns[c].name : "none";
}

enum column column_from_name(const char *name) {
    for (int c = 0; c < COL_count; c++)
        if (strcmp(columns[c].name, name) == 0) return (enum column)c;
    return COL_none;
}

const char *column_needs(enum column c) {
    return columns[c].needs;
}

bool qtype_has_cell(enum column c, enum qtype t) {
    return qkernels[t][c] != NULL;
}

bool op_has_cell(enum column c, enum op op) {
    return op_cells[op][c] != NULL;
}

int64_t op_min_tokens(enum column c, enum op op) {
    return op_cells[op][c] ? op_cells[op][c]->min_tokens : 0;
}

static bool column_has_cells(enum column c) {
    for (int t = 0; t < QT_count; t++)
        if (qkernels[t][c]) return true;
    for (int o = 0; o < OP_count; o++)
        if (op_cells[o][c]) return true;
    return false;
}

/* Not every compiler's builtin knows F16C: bit 29 of ECX of leaf 1. */
static bool cpu_has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

/* AMX tiles (leaf 7: EDX bit 24 tile, 25 int8, 22 bf16), whose 8 KiB of state the kernel gives to a
 * process only on request. The request is cheap, may be repeated and holds for all threads. */
static bool cpu_has_amx(void) {
#ifdef __linux__
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d;
    const unsigned bits = 1u << 24 | 1u << 25 | 1u << 22;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & bits) != bits) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

bool column_available(enum column c) {
    if (!column_has_cells(c)) return false;
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
    /* VBMI unpacks bits that cross bytes. Of the processors with VNNI only two server generations
     * (Cascade Lake, Cooper Lake) lack it; they run avx2. BF16 is not asked for: no cell needs it.
     */
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    switch (c) {
    case COL_ref: return true;
    case COL_avx2: return avx2;
    case COL_avx512: return avx512;
    case COL_amx:
    case COL_amx_requant: return avx512 && cpu_has_amx();
    case COL_cuda: return cuda_available(NULL) == 0;
    default: return false;
    }
}

int column_check(enum column c, struct err *e) {
    if (c == COL_cuda) return cuda_available(e);
    if (column_available(c)) return 0;
    return ERR(e, ERR_UNSUPPORTED,
               "backend %s cannot run here: it needs %s, and this build or machine lacks it",
               column_name(c), column_needs(c));
}

int backend_init(struct backend *b, enum column c, struct thread_pool *pool, struct err *e) {
    return c == COL_cuda ? backend_cuda_init(b, 0, e) : backend_cpu_init(b, c, pool, e);
}

bool column_goes_unasked(enum column c) {
    return column_is_cpu(c) && !columns[c].by_name_only && column_available(c);
}

enum column column_best_cpu(void) {
    enum column best = COL_ref;
    for (int c = COL_ref; c < COL_count; c++)
        if (column_goes_unasked((enum column)c)) best = (enum column)c;
    return best;
}

const struct qkernel *qkernel_find(enum column c, enum qtype t, bool need_mul_mat,
                                   enum column *found) {
    for (; c != COL_none; c = columns[c].parent) {
        const struct qkernel *k = qkernels[t][c];
        if (!k || (need_mul_mat && !k->mul_mat && !k->on_device)) continue;
        if (found) *found = c;
        return k;
    }
    return NULL;
}

const struct qkernel *qkernel_for(enum column c, enum qtype t, int64_t n, int64_t n_tok,
                                  enum column *found) {
    for (; c != COL_none; c = columns[c].parent) {
        const struct qkernel *k = qkernels[t][c];
        if (!k || (!k->mul_mat && !k->on_device) || k->min_tokens > n_tok) continue;
        if (k->row_multiple && n % k->row_multiple) continue;
        if (found) *found = c;
        return k;
    }
    return NULL;
}

const struct op_cell *op_cell_find(enum column c, const struct node *n, enum column *found) {
    if (n->op == OP_mul_mat) {
        enum column k_col = COL_none;
        if (node_qkernel(c, n, &k_col)) {
            /* A column can lend its loop to a parent's kernel, but the row must name who computes.
             */
            c = k_col;
        } else if (!column_is_cpu(c)) {
            return NULL;
        } else {
            while (columns[c].parent != COL_none)
                c = columns[c].parent; /* ref multiplies anything */
        }
    }
    for (; c != COL_none; c = columns[c].parent) {
        if (!op_cells[n->op][c]) continue;
        if (n->op == OP_attn && op_min_tokens(c, OP_attn) > node_tokens(n)) continue;
        if (found) *found = c;
        return op_cells[n->op][c];
    }
    return NULL;
}

/* Whether column c leaves all products of the nodes to column p. */
static bool products_of(enum column p, enum column c, const struct node *const *nodes, int n) {
    enum column found = COL_none;
    for (int i = 0; i < n; i++)
        if (nodes[i]->op == OP_mul_mat && (!node_qkernel(c, nodes[i], &found) || found != p))
            return false;
    return true;
}

const struct chain_cell *chain_cell_find(enum column c, const struct node *const *nodes, int n) {
    for (enum column p = c; p != COL_none; p = columns[p].parent)
        for (size_t i = 0; i < sizeof chain_cells / sizeof chain_cells[0]; i++) {
            const struct chain_cell *cell = chain_cells[i][p];
            if (cell && cell->n_nodes <= n && cell->takes(nodes) &&
                products_of(p, c, nodes, cell->n_nodes))
                return cell;
        }
    return NULL;
}

const struct peak_cell *peak_cell_find(enum column c, enum peak p, enum column *found) {
    for (; c != COL_none; c = columns[c].parent) {
        if (!peak_cells[p][c]) continue;
        if (found) *found = c;
        return peak_cells[p][c];
    }
    return NULL;
}

const char *peak_name(enum peak p) {
    static const char *const names[PEAK_count] = {
#define X(name, ...) #name,
        PEAK_LIST(X)
#undef X
    };
    return names[p];
}

const char *op_name(enum op op) {
    static const char *const names[OP_count] = {
#define X(name, ...) #name,
        OP_LIST(X)
#undef X
    };
    return names[op];
}
