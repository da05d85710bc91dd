/* SPDX-License-Identifier: MIT
 * place.c - where each node runs; see place.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "exec/place.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The place of CUDA device `device`, new if nothing used it yet. */
static int place_for(struct place_map *m, int device, int n_devices, const char *what,
                     struct err *e) {
    if (device < 0 || device >= n_devices)
        return ERR(e, ERR_ARG, "%s: there is no CUDA%d; this machine has %d device(s)", what,
                   device, n_devices);
    for (int i = 1; i < m->n_places; i++)
        if (m->device[i] == device) return i;
    if (m->n_places == PLACES_MAX)
        return ERR(e, ERR_ARG, "%s: more than %d devices", what, PLACES_MAX - 1);
    m->device[m->n_places] = device;
    return m->n_places++;
}

/* "regex=CUDA0": the last '=' ends the expression. */
static int add_rule(struct place_map *m, const char *text, int n_devices, struct err *e) {
    int rc = 0, error;
    PCRE2_SIZE at;
    struct place_rule *r = &m->rule[m->n_rules];
    const char *eq = strrchr(text, '=');
    FAIL_IF(!eq || eq == text, e, ERR_ARG, "-ot %s: expected \"regex=CPU\" or \"regex=CUDA0\"",
            text);
    char *end = NULL;
    const bool cuda = !strncmp(eq + 1, "CUDA", 4) && eq[5] >= '0' && eq[5] <= '9';
    const long device = cuda ? strtol(eq + 5, &end, 10) : 0;
    FAIL_IF(strcmp(eq + 1, "CPU") && !(cuda && !*end), e, ERR_ARG,
            "-ot %s: '%s' is no device; expected CPU or CUDA0, CUDA1, ...", text, eq + 1);
    r->place = 0;
    if (cuda) TRY(r->place = place_for(m, (int)device, n_devices, text, e));
    rc = 0;
    r->regex =
        pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)(eq - text), PCRE2_UTF, &error, &at, NULL);
    if (!r->regex) {
        char why[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        rc = ERR(e, ERR_ARG, "-ot %s: %s at character %zu", text, why, (size_t)at + 1);
        goto out;
    }
    m->n_rules++;
out:
    return rc;
}

/* Rules between commas, as llama.cpp's -ot takes them. */
static int add_rules(struct place_map *m, const struct place_params *p, const char *text,
                     int n_devices, struct err *e) {
    int rc = 0;
    for (const char *at = text; at;) {
        char rule[512];
        const char *comma = strchr(at, ',');
        const size_t n = comma ? (size_t)(comma - at) : strlen(at);
        FAIL_IF(n >= sizeof rule, e, ERR_ARG, "-ot %.40s...: a rule of more than %zu bytes", at,
                sizeof rule - 1);
        memcpy(rule, at, n);
        rule[n] = '\0';
        const char *device = strrchr(rule, '=');
        FAIL_IF(p->column != COL_cuda && strcmp(device ? device : "", "=CPU"), e, ERR_ARG,
                "-ot %s: only --backend cuda has other devices than the CPU", rule);
        FAIL_IF(m->n_rules == PLACE_RULES_MAX, e, ERR_ARG, "-ot: more than %d rules",
                PLACE_RULES_MAX);
        TRY(add_rule(m, rule, n_devices, e));
        at = comma ? comma + 1 : NULL;
    }
out:
    return rc;
}

/* Give the offloaded layers [first, n_layer) to devices by their shares. */
static int split_layers(struct place_map *m, const struct place_params *p, int64_t first,
                        int n_devices, struct err *e) {
    int rc = 0, n = 0;
    double share[PLACES_MAX] = { 0 }, total = 0, sum = 0;
    const char *s = p->tensor_split;
    for (bool more = s != NULL; more; n++) {
        char *end;
        FAIL_IF(n == PLACES_MAX - 1, e, ERR_ARG, "-ts %s: more than %d shares", p->tensor_split,
                PLACES_MAX - 1);
        share[n] = strtod(s, &end);
        FAIL_IF(end == s || !(share[n] >= 0) || !(share[n] < 1e9) ||
                    (*end && *end != ',' && *end != '/'),
                e, ERR_ARG, "-ts %s: expected shares such as 3,1", p->tensor_split);
        total += share[n];
        more = *end != '\0';
        s = end + 1;
    }
    FAIL_IF(n > 0 && !(total > 0), e, ERR_ARG, "-ts %s: all shares are 0", p->tensor_split);
    FAIL_IF(n > n_devices, e, ERR_ARG, "-ts %s: %d shares for %d device(s)", p->tensor_split, n,
            n_devices);
    for (int64_t il = first, d = 0; il < m->n_layer; il++) {
        if (n == 0) {
            TRY(m->layer[il] = place_for(m, p->main_gpu, n_devices, "-mg", e));
            continue;
        }
        const double middle = total * ((double)(il - first) + 0.5) / (double)(m->n_layer - first);
        while (d < n - 1 && middle >= sum + share[d])
            sum += share[d++];
        TRY(m->layer[il] = place_for(m, (int)d, n_devices, "-ts", e));
    }
    rc = 0;
out:
    return rc;
}

int place_init(struct place_map *m, const struct place_params *p, int64_t n_layer, int n_devices,
               struct err *e) {
    int rc = 0;
    *m = (struct place_map){ .n_places = 1, .n_layer = n_layer };
    m->layer = heap_calloc((size_t)n_layer, sizeof *m->layer, e);
    if (!m->layer) return ERR_NOMEM;
    if (p->column == COL_cuda) {
        const int64_t on = p->n_gpu_layers < n_layer ? p->n_gpu_layers : n_layer;
        TRY(split_layers(m, p, n_layer - on, n_devices, e));
        if (p->n_gpu_layers > n_layer) {
            m->outside[0] = m->layer[0];
            m->outside[1] = m->layer[n_layer - 1];
        }
    }
    FAIL_IF(p->column != COL_cuda && (p->tensor_split || p->main_gpu), e, ERR_ARG,
            "%s: only --backend cuda has devices to choose from", p->tensor_split ? "-ts" : "-mg");
    for (int i = 0; i < p->n_rules; i++)
        TRY(add_rules(m, p, p->rule[i], n_devices, e));
out:
    if (rc < 0) place_release(m);
    return rc;
}

void place_release(struct place_map *m) {
    for (int i = 0; i < m->n_rules; i++)
        pcre2_code_free(m->rule[i].regex);
    heap_free(m->layer);
    *m = (struct place_map){ 0 };
}

/* The place a rule gives to a weight of this name, or -1. */
static int ruled(const struct place_map *m, const char *name) {
    int place = -1;
    pcre2_match_data *found = pcre2_match_data_create(1, NULL);
    for (int i = 0; found && place < 0 && i < m->n_rules; i++)
        if (pcre2_match(m->rule[i].regex, (PCRE2_SPTR)name, strlen(name), 0, 0, found, NULL) >= 0)
            place = m->rule[i].place;
    pcre2_match_data_free(found);
    return place;
}

int place_of(const struct place_map *m, const struct node *n) {
    const bool cache = n->op == OP_set_rows || n->op == OP_attn;
    /* the weight of an op is its table, matrix or vector; other sources have no such names */
    for (int s = 0; m->n_rules && !cache && s < 2; s++)
        if (n->src[s] && strstr(n->src[s]->name, ".weight")) {
            const int place = ruled(m, n->src[s]->name);
            if (place >= 0) return place;
        }
    if (n->il >= 0) return m->layer[n->il];
    return m->outside[n->op != OP_rope_table && n->op != OP_get_rows];
}
