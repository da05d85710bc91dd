/* SPDX-License-Identifier: MIT
 * ops_print.c - the findings of localisation as text and CSV; see ops_print.h. */
#include "cli/ops_print.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "stats/quantile.h"

#define BEFORE 4 /* nodes shown in front of the first bad one */
#define AFTER 3

/* Append to a text of n_bytes; what does not fit is cut. */
static void add(char *buf, size_t n_bytes, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void add(char *buf, size_t n_bytes, const char *fmt, ...) {
    size_t used = strlen(buf);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf + used, n_bytes - used, fmt, ap);
    va_end(ap);
}

static const char *arms_of(int wrong) {
    return wrong == (WRONG_A | WRONG_B) ? "both arms" : wrong == WRONG_A ? "arm A" : "arm B";
}

static void add_op(char *buf, size_t n, const struct op_report *r) {
    add(buf, n, "%s (%s", r->name, op_name(r->op));
    if (r->occurrence > 0) add(buf, n, ", occurrence %d", r->occurrence);
    for (int s = 0; s < OP_MAX_SRC; s++)
        if (r->src[s].name[0])
            add(buf, n, "%s %s %s [%" PRId64 " x %" PRId64 "]", s ? "," : " of", r->src[s].name,
                qtype_info(r->src[s].type)->name, r->src[s].ne[1], r->src[s].ne[0]);
    add(buf, n, ")");
}

static void add_weights(char *buf, size_t n, const struct finding_detail *f) {
    if (f->block >= 0)
        add(buf, n,
            " The worst block of its weight rows is %" PRId64 " (columns %" PRId64 " to %" PRId64
            ").",
            f->block, f->block * f->block_size, (f->block + 1) * f->block_size - 1);
    if (f->n_wrong_weights == 0) return;
    add(buf, n,
        " Read back one column at a time, %" PRId64 " of %" PRId64
        " weights are not the file's: row %" PRId64 ", column %" PRId64
        " is used as %.6g, the file has %.6g",
        f->n_wrong_weights, f->n_probed, f->weight.row, f->weight.col, (double)f->weight.used,
        (double)f->weight.expected);
    if (f->weight.expected != 0)
        add(buf, n, " (a factor of %.4g)", (double)f->weight.used / (double)f->weight.expected);
    add(buf, n, ".");
}

static void add_wrong(char *buf, size_t n, const struct localise *l) {
    const struct finding_detail *f = &l->first;
    const struct op_report *r = &l->nodes[f->node];
    bool a = !(f->wrong & WRONG_B);
    const struct op_error *s = a ? &r->err_a : &r->err_b;
    const struct op_limit *limit = a ? &r->limit_a : &r->limit_b;
    add(buf, n, "%s: %s in ", finding_name(f->kind), arms_of(f->wrong));
    add_op(buf, n, r);
    add(buf, n, ", cell %s: ", a ? r->cell_a : r->cell_b);
    if (f->kind == FINDING_NONFINITE)
        add(buf, n, "first at position %" PRId64 ", column %" PRId64 "; ref is finite there.",
            f->token, f->col);
    else
        add(buf, n,
            "error %.3g of a row's rms, limit %.3g%s (position %" PRId64 ", column %" PRId64
            ", tile %" PRId64 "); %s.",
            s->max_rel, limit->max_rel, limit->measured ? "" : " (not measured)", f->token, f->col,
            f->tile, finding_meaning(f->kind));
    add_weights(buf, n, f);
}

static void add_files(char *buf, size_t n, const struct localise *l) {
    const struct finding_detail *f = &l->first;
    if (f->kind == FINDING_WEIGHTS)
        add(buf, n,
            "weights differ: %s (%s in both files) holds %" PRIu64
            " other bytes, the first at byte %" PRIu64 "; it goes into %s.",
            f->tensor, qtype_info(f->type_a)->name, f->n_bytes_differ, f->byte,
            l->nodes[f->node].name);
    else
        add(buf, n,
            "format difference, no fault of a kernel: %s is %s in A's file and %s in B's; "
            "every operation is within its limit.",
            f->tensor, qtype_info(f->type_a)->name, qtype_info(f->type_b)->name);
}

void ops_sentence(const struct localise *l, char *buf, size_t n_bytes) {
    const struct finding_detail *f = &l->first;
    buf[0] = '\0';
    switch (f->kind) {
    case FINDING_NONE:
        add(buf, n_bytes, "none: all %d operations compared are within their limits.",
            l->n_examined);
        break;
    case FINDING_NOT_REPRODUCIBLE:
        add(buf, n_bytes, "not reproducible in %s: the difference does not survive observation.",
            arms_of(f->wrong));
        break;
    case FINDING_NODE_MISSING:
        add(buf, n_bytes, "node missing: %s does not compute %s.", arms_of(f->wrong),
            l->nodes[f->node].name);
        break;
    case FINDING_WEIGHTS:
    case FINDING_FORMAT: add_files(buf, n_bytes, l); break;
    default: add_wrong(buf, n_bytes, l);
    }
    if (f->note[0]) add(buf, n_bytes, " (%s)", f->note);
}

/* The node's cell in an arm deviates as it is known to; its error then, otherwise NULL. */
static const struct op_error *known_error(const struct op_report *r, int arm, const char **cell,
                                          const char **why) {
    const bool a = arm == WRONG_A;
    *cell = a ? r->cell_a : r->cell_b;
    *why = a ? r->known_a : r->known_b;
    return *why && !(r->wrong & arm) ? (a ? &r->err_a : &r->err_b) : NULL;
}

void ops_print_known(FILE *f, const struct localise *l) {
    const char *cell, *why, *other, *ignored;
    for (int k = 0; k < 2 * l->n_nodes; k++) {
        const int arm = k < l->n_nodes ? WRONG_A : WRONG_B, at = k % l->n_nodes;
        if (!known_error(&l->nodes[at], arm, &cell, &why)) continue;
        int n = 0, n_before = 0;
        double max_rel = 0, nmse = 0;
        for (int i = 0; i < l->n_nodes; i++) {
            const struct op_error *s = known_error(&l->nodes[i], arm, &other, &ignored);
            if (!s || strcmp(other, cell) || ignored != why) continue;
            n++;
            n_before += i < at;
            max_rel = fmax(max_rel, s->max_rel);
            nmse = fmax(nmse, s->nmse);
        }
        if (n_before == 0)
            fprintf(
                f,
                "known             %s, %s (%d nodes): %s; up to %.2g of a row's rms, NMSE %.1e\n",
                arms_of(arm), cell, n, why, max_rel, nmse);
    }
}

/* ---- the section of the report -------------------------------------------------------------- */

static void print_node(FILE *f, const struct localise *l, int i) {
    const struct op_report *r = &l->nodes[i];
    const char *mark = r->wrong ? arms_of(r->wrong) : r->files ? finding_name(r->files) : "";
    char name[TENSOR_NAME_MAX + 12];
    snprintf(name, sizeof name, r->occurrence ? "%s (%d)" : "%s", r->name, r->occurrence + 1);
    fprintf(f, "| %-18s | %-10s | %-14s | %-14s | %8.1e | %8.1e | %8.1e | %8.1e | %-9s |%s\n", name,
            op_name(r->op), r->cell_a, r->cell_b, r->own.nmse, r->acc.n ? r->acc.nmse : (double)NAN,
            r->err_a.n ? r->err_a.max_rel / r->limit_a.max_rel : (double)NAN,
            r->err_b.n ? r->err_b.max_rel / r->limit_b.max_rel : (double)NAN, mark,
            i == l->first.node ? " <- first" : "");
}

static void print_table(FILE *f, const struct localise *l) {
    int at = l->first.node < 0 ? 0 : l->first.node;
    int from = at > BEFORE ? at - BEFORE : 0;
    int to = at + AFTER < l->n_nodes - 1 ? at + AFTER : l->n_nodes - 1;
    fprintf(f, "\n| node               | op         | cell A         | cell B         | own A-B  | "
               "accum.   | A / lim. | B / lim. | wrong     |\n"
               "|--------------------|------------|----------------|----------------|---------:|"
               "---------:|---------:|---------:|-----------|\n");
    for (int i = from; i <= to; i++)
        print_node(f, l, i);
    fprintf(f, "\nown A-B: NMSE of B against A on equal inputs; accum.: with nothing forced; "
               "A / lim.: largest error against ref\non the same inputs, as a share of the cell's "
               "limit.\n");
}

static const char *cell_at(const struct localise *l, int k) {
    return k < l->n_nodes ? l->nodes[k].cell_a : l->nodes[k - l->n_nodes].cell_b;
}

/* Judged and bad nodes of a cell in one arm. */
static void count_cell(const struct localise *l, const char *cell, int arm, int *n, int *n_bad) {
    *n = *n_bad = 0;
    for (int i = 0; i < l->n_nodes; i++) {
        const struct op_report *r = &l->nodes[i];
        if (strcmp(arm == WRONG_A ? r->cell_a : r->cell_b, cell)) continue;
        *n += r->n_judged > 0;
        *n_bad += (r->wrong & arm) != 0;
    }
}

/* Each cell of each arm that is over its limit; or each cell that is good in both arms. */
static void print_cells(FILE *f, const struct localise *l, bool bad) {
    int n_printed = 0;
    for (int k = 0; k < 2 * l->n_nodes; k++) {
        const char *cell = cell_at(l, k);
        int arm = k < l->n_nodes ? WRONG_A : WRONG_B, n, n_bad, n_other, n_other_bad, first = 0;
        while (strcmp(cell_at(l, first), cell) || (bad && arm == WRONG_B && first < l->n_nodes))
            first++;
        count_cell(l, cell, arm, &n, &n_bad);
        count_cell(l, cell, WRONG_A + WRONG_B - arm, &n_other, &n_other_bad);
        if (first < k || (bad ? n_bad == 0 : n_bad + n_other_bad > 0 || n + n_other == 0)) continue;
        fprintf(f, "%s%s", n_printed++ ? ", " : bad ? "over the limit: " : "all good: ", cell);
        if (bad) fprintf(f, " in %s (%d of %d nodes)", arms_of(arm), n_bad, n);
    }
    if (n_printed) fprintf(f, "\n");
}

static void print_layers(FILE *f, const struct localise *l) {
    double *sorted = heap_calloc((size_t)l->n_layer, sizeof *sorted, NULL);
    int n = 0;
    if (!sorted) return;
    for (int il = 0; il < l->n_layer; il++)
        if (l->layer_own[il].n > 0) sorted[n++] = l->layer_own[il].nmse;
    double usual = median_f64(sorted, n);
    if (n > 0) fprintf(f, "layers on equal inputs: median NMSE %.2e", usual);
    for (int il = 0, shown = 0; il < l->n_layer; il++)
        if (!(l->layer_own[il].nmse <= LAYER_SUSPICIOUS * usual))
            fprintf(f, "%s %d (%.2e)", shown++ ? "," : "; far above it: layer", il,
                    l->layer_own[il].nmse);
    if (n > 0) fprintf(f, "\n");
    heap_free(sorted);
}

void ops_print(FILE *f, const struct localise *l, const char *capsule) {
    char text[2048];
    ops_sentence(l, text, sizeof text);
    fprintf(f, "First wrong operation: %s\n", text);
    fprintf(f,
            "nll B - A: mean %.6f, observed %.6f; %d of %d nodes compared on equal inputs in %.1f "
            "s\n",
            l->mean_d, l->mean_d_observed, l->n_examined, l->n_nodes, l->seconds);
    print_layers(f, l);
    print_cells(f, l, true);
    print_cells(f, l, false);
    ops_print_known(f, l);
    print_table(f, l);
    if (capsule) {
        const struct finding_detail *d = &l->first;
        const struct op_report *r = &l->nodes[d->node];
        const char *cell = d->wrong == WRONG_A ? r->cell_a : r->cell_b, *at = strchr(cell, '@');
        fprintf(f, "\nreproduce: ggauge replay %s", capsule);
        if (at && cell[0] != '?') fprintf(f, " --backend %s", at + 1);
        fprintf(f, "\n");
    }
}

/* ---- ops.csv -------------------------------------------------------------------------------- */

static void csv_text(FILE *f, const char *s, char end) {
    bool quote = strpbrk(s, ",\"\r\n") != NULL;
    if (quote) fputc('"', f);
    for (; *s; s++) {
        if (*s == '"') fputc('"', f);
        fputc(*s, f);
    }
    if (quote) fputc('"', f);
    fputc(end, f);
}

static void csv_error(FILE *f, const struct op_error *s) {
    if (s->n == 0)
        fputs(",,,", f);
    else
        fprintf(f, "%.6g,%.6g,%.6g,", s->nmse, s->row_nmse, s->max_rel);
}

static void csv_node(FILE *f, const struct localise *l, int i) {
    const struct op_report *r = &l->nodes[i];
    csv_text(f, r->name, ',');
    fprintf(f, "%d,%d,%s,", r->occurrence, r->il, op_name(r->op));
    for (int s = 0; s < 2; s++) {
        csv_text(f, r->src[s].name, ',');
        if (r->src[s].name[0])
            fprintf(f, "%s,%" PRId64 "x%" PRId64 ",", qtype_info(r->src[s].type)->name,
                    r->src[s].ne[1], r->src[s].ne[0]);
        else
            fputs(",,", f);
    }
    fprintf(f, "%" PRId64 ",%" PRId64 ",", r->n_rows, r->n_cols);
    csv_text(f, r->cell_a, ',');
    csv_text(f, r->cell_b, ',');
    csv_error(f, &r->own);
    csv_error(f, &r->acc);
    csv_error(f, &r->err_a);
    csv_error(f, &r->err_b);
    fprintf(f, "%.6g,%.6g,%.6g,%.6g,", r->limit_a.max_rel, r->limit_a.row_nmse, r->limit_b.max_rel,
            r->limit_b.row_nmse);
    fprintf(f, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%s%s,", r->n_judged, r->own.row, r->own.col,
            r->wrong & WRONG_A ? "A" : "", r->wrong & WRONG_B ? "B" : "");
    fprintf(f, "%s,%s,", r->files ? finding_name(r->files) : "",
            i == l->first.node ? finding_name(l->first.kind) : "");
    csv_text(f, r->known_a ? r->known_a : "", ',');
    csv_text(f, r->known_b ? r->known_b : "", '\n');
}

void ops_csv(const struct localise *l, FILE *f) {
    fputs("node,occurrence,il,op,src0,src0_type,src0_shape,src1,src1_type,src1_shape,n_rows,n_cols,"
          "cell_a,cell_b,own_nmse,own_row_nmse,own_max_rel,acc_nmse,acc_row_nmse,acc_max_rel,"
          "a_nmse,a_row_nmse,a_max_rel,b_nmse,b_row_nmse,b_max_rel,limit_a_max_rel,"
          "limit_a_row_nmse,limit_b_max_rel,limit_b_row_nmse,n_judged,worst_row,worst_col,wrong,"
          "files,first,known_a,known_b\n",
          f);
    for (int i = 0; i < l->n_nodes; i++)
        csv_node(f, l, i);
}
