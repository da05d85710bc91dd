/* SPDX-License-Identifier: MIT
 * test_worker.c - an arm in another process: the same bits, observers and errors as in this one,
 * and one clear error for each way in which the process can fail.
 *
 * This program is also the worker: started with the argument "worker" it serves an arm that fails
 * as the environment variable FAULT says. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../tiny/tiny_model.h"
#include "arm/arm.h"
#include "arm/frame.h"
#include "arm/serve.h"
#include "backend.h"
#include "base/timer.h"
#include "exec/observer.h"
#include "result/row.h"

#define N_TOK 40
#define N_WANT 30 /* the last ones */
#define N_VOCAB 300
#define LAST_HOLD 3 /* the call that goes wrong */

/* ---- the worker ------------------------------------------------------------------------------ */

static const char *fault;
static const struct arm_ops *sound;
static struct arm_ops faulty;
static int n_holds, raw_out;

static bool fault_is(const char *name) {
    return fault && !strcmp(fault, name);
}

static void say(const void *bytes, size_t n) {
    if (write(raw_out, bytes, n) != (ssize_t)n) _exit(9);
}

static void say_head(uint32_t type, uint32_t n) {
    unsigned char head[FRAME_HEAD_BYTES] = "GGwk";
    memcpy(head + 4, &type, 4);
    memcpy(head + 8, &n, 4);
    say(head, sizeof head);
}

static int fail_hold(struct arm *a, const struct arm_batch *b, bool append, struct err *e) {
    if (++n_holds < LAST_HOLD) return sound->hold(a, b, append, e);
    if (fault_is("segv")) {
        signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would exit instead */
        raise(SIGSEGV);
    }
    if (fault_is("kill")) raise(SIGKILL);
    if (fault_is("exit")) _exit(3);
    if (fault_is("stop")) raise(SIGSTOP);
    if (fault_is("slow")) sleep(12);
    if (fault_is("hang")) sleep(60);
    if (fault_is("close")) close_range(3, ~0u, 0), pause();
    if (fault_is("garbage")) say("Segmentation fault in libfoo\n", 29);
    if (fault_is("type")) say_head(99, 0);
    if (fault_is("length")) say_head(FRAME_row, UINT32_MAX);
    if (fault_is("unasked")) say_head(FRAME_row, 0);
    if (fault_is("torn")) say_head(FRAME_row, 8), say("12345678", 8);
    if (fault_is("half")) say_head(FRAME_error, 100), _exit(0);
    if (fault_is("vocab")) a->info.n_vocab -= 7;
    return sound->hold(a, b, append, e);
}

struct nan_call {
    arm_row_fn fn;
    void *arg;
};

static int row_of_nan(void *arg, const struct arm_row *r, struct err *e) {
    const struct nan_call *c = arg;
    float bad[N_VOCAB];
    struct arm_row x = *r;
    for (int i = 0; i < N_VOCAB; i++)
        bad[i] = i < 17 ? 1.0f : NAN;
    x.nll = x.max = x.lse = (double)NAN;
    x.top1 = -5;
    x.bad = 17;
    if (r->logits) x.logits = bad;
    return c->fn(c->arg, &x, e);
}

/* Rows of NaN, too few, or with other numbers. */
static int fail_rows(struct arm *a, int64_t r0, int64_t n, const int32_t *target, bool logits,
                     arm_row_fn fn, void *arg, struct err *e) {
    struct nan_call c = { fn, arg };
    if (fault_is("nan")) return sound->rows(a, r0, n, target, logits, row_of_nan, &c, e);
    if (fault_is("few")) n--;
    if (fault_is("shifted")) r0++, n--;
    return sound->rows(a, r0, n, target, logits, fn, arg, e);
}

static int open_faulty(struct arm **out, const struct arm_params *p, struct err *e) {
    int rc = arm_open(out, p, e);
    if (rc < 0) return rc;
    printf("a library says hello on standard output\n");
    fflush(stdout);
    sound = (*out)->ops;
    faulty = *sound;
    faulty.hold = fail_hold;
    faulty.rows = fail_rows;
    (*out)->ops = &faulty;
    return rc;
}

/* Files that a child would inherit. */
static int n_inherited(void) {
    int n = 0;
    for (int fd = 3; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        n += flags >= 0 && !(flags & FD_CLOEXEC);
    }
    return n;
}

static int worker_main(void) {
    struct err e = { 0 };
    fault = getenv("FAULT");
    if (fault_is("files")) return n_inherited() == atoi(getenv("N_FILES")) ? 40 : 41;
    if (fault_is("version")) {
        struct frame_io io = { .in = 0, .out = 1 };
        struct payload p = { 0 };
        put_u32(&p, FRAME_PROTOCOL + 6);
        put_str(&p, "abc");
        frame_send(&io, FRAME_welcome, &p, &e);
        payload_release(&p);
        return 0;
    }
    raw_out = dup(STDOUT_FILENO); /* as something would that writes into the pipe */
    int rc = arm_serve_stdio(open_faulty, &e);
    if (rc < 0) fprintf(stderr, "worker: %s\n", e.msg);
    return rc < 0 ? 3 : 0;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static char path[64];

static int write_model(void **state) {
    (void)state;
    struct err e = { 0 };
    struct tiny_model t = tiny_model_default("qwen3");
    t.quantised = true;
    snprintf(path, sizeof path, "/tmp/ggauge-tiny-XXXXXX");
    close(mkstemp(path));
    if (tiny_model_write(&t, path, &e)) fail_msg("%s", e.msg);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    return unlink(path);
}

static struct arm_params params(enum arm_kind kind, const char *backend) {
    return (struct arm_params){ .kind = kind,
                                .model = path,
                                .backend = backend,
                                .n_ctx = 64,
                                .n_seq = 1,
                                .n_batch = 64,
                                .n_ubatch = 16,
                                .n_threads = 2 };
}

static struct arm *open_ok(const struct arm_params *p) {
    struct err e = { 0 };
    struct arm *a = NULL;
    if (arm_open(&a, p, &e)) fail_msg("%s", e.msg);
    return a;
}

static struct arm *open_worker(const char *with_fault) {
    struct arm_params p = params(ARM_WORKER, "ref");
    setenv("FAULT", with_fault, 1);
    struct arm *a = open_ok(&p);
    unsetenv("FAULT");
    return a;
}

static void close_and_leave_nobody(struct arm *a) {
    arm_close(a);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static int32_t token[N_TOK], pos[N_TOK], seq[N_TOK], target[N_WANT];
static bool want[N_TOK];

static struct arm_batch batch(void) {
    for (int i = 0; i < N_TOK; i++) {
        token[i] = (i * 37 + 11) % N_VOCAB;
        pos[i] = i;
        want[i] = i >= N_TOK - N_WANT;
        if (i < N_WANT) target[i] = (i * 7) % N_VOCAB;
    }
    return (struct arm_batch){ N_TOK, token, pos, seq, want, true };
}

/* Everything that an arm says of the batch. */
struct answers {
    float decoded[N_WANT][N_VOCAB], held[N_WANT][N_VOCAB];
    struct arm_answer answer[N_WANT];
    struct arm_row row[N_WANT], reduced[N_WANT];
    int n_answers, n_rows, n_reduced;
};

static int keep_answer(void *arg, const struct arm_answer *a, struct err *e) {
    (void)e;
    struct answers *k = arg;
    int i = a->i - (N_TOK - N_WANT);
    assert_int_equal(i, k->n_answers++);
    memcpy(k->decoded[i], a->logits, sizeof k->decoded[i]);
    k->answer[i] = *a;
    k->answer[i].logits = NULL;
    return 0;
}

static int keep_row(void *arg, const struct arm_row *r, struct err *e) {
    (void)e;
    struct answers *k = arg;
    if (r->logits) {
        memcpy(k->held[r->r], r->logits, sizeof k->held[0]);
        k->row[r->r] = *r;
        k->row[r->r].logits = NULL;
        k->n_rows++;
    } else {
        k->reduced[r->r] = *r;
        k->n_reduced++;
    }
    return 0;
}

static void ask_all(struct arm *a, struct answers *k) {
    struct err e = { 0 };
    struct arm_batch b = batch();
    memset(k, 0, sizeof *k);
    if (arm_kv_trim(a, -1, 0, &e) || arm_decode(a, &b, keep_answer, k, &e) ||
        arm_kv_trim(a, -1, 0, &e) || arm_decode(a, &b, NULL, NULL, &e) ||
        arm_kv_trim(a, -1, 0, &e) || arm_hold(a, &b, false, &e) ||
        arm_rows(a, 0, 13, target, true, keep_row, k, &e) ||
        arm_rows(a, 13, N_WANT - 13, target + 13, true, keep_row, k, &e) ||
        arm_rows(a, 0, N_WANT, target, false, keep_row, k, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(k->n_answers, N_WANT);
    assert_int_equal(k->n_rows, N_WANT);
    assert_int_equal(k->n_reduced, N_WANT);
}

static void assert_same(const struct answers *x, const struct answers *y) {
    assert_memory_equal(x->decoded, y->decoded, sizeof x->decoded);
    assert_memory_equal(x->held, y->held, sizeof x->held);
    for (int i = 0; i < N_WANT; i++) { /* not the padding between members */
        const struct arm_row *r[] = { &x->row[i], &y->row[i], &x->reduced[i], &y->reduced[i] };
        for (size_t k = 1; k < N_ELEMS(r); k++) {
            assert_true(r[0]->r == r[k]->r && r[0]->nll == r[k]->nll && r[0]->max == r[k]->max);
            assert_true(r[0]->lse == r[k]->lse && r[0]->second == r[k]->second);
            assert_true(r[0]->top1 == r[k]->top1 && r[0]->bad == r[k]->bad);
        }
        assert_true(x->answer[i].max == y->answer[i].max && x->answer[i].lse == y->answer[i].lse);
        assert_int_equal(x->answer[i].top1, y->answer[i].top1);
    }
}

static struct answers here, there;

static void same_answers_for(const char *backend, const char *act_like) {
    struct arm_params p = params(ARM_BUILTIN, backend);
    p.act_like = act_like;
    struct arm *a = open_ok(&p);
    p.kind = ARM_WORKER;
    struct arm *b = open_ok(&p);
    ask_all(a, &here);
    ask_all(b, &there);
    assert_same(&here, &there);
    assert_memory_equal(&a->info, &b->info, offsetof(struct arm_info, arch));
    assert_string_equal(a->info.name, b->info.name);
    assert_string_equal(a->info.desc, b->info.desc);
    assert_true(!a->tok == !b->tok);
    struct row r = { 0 }, q = { 0 };
    struct err e = { 0 };
    if (provenance_fill(&r, &e) || provenance_fill(&q, &e) || arm_describe(a, &r, &e) ||
        arm_describe(b, &q, &e))
        fail_msg("%s", e.msg);
    for (int f = 0; f < ROW_field_count; f++)
        if (f != ROW_load1 && f != ROW_run_id && f != ROW_time_utc)
            assert_string_equal(row_get(&r, (enum row_field)f), row_get(&q, (enum row_field)f));
    row_release(&r);
    row_release(&q);
    arm_close(a);
    close_and_leave_nobody(b);
}

static void a_worker_gives_the_same_bits(void **state) {
    (void)state;
    same_answers_for("ref", NULL);
    if (!column_available(COL_avx2)) return;
    same_answers_for("avx2", NULL);
    same_answers_for("ref", "avx2");
}

/* ---- observers ------------------------------------------------------------------------------- */

struct watch {
    size_t n_log;
    char log[1 << 20]; /* a line for every node seen */
    bool force;
    int fail_at, n_seen; /* the n-th see() fails */
};

static bool want_node(void *arg, const struct node *n) {
    (void)arg;
    return n->il != 1; /* some, in both graphs */
}

static void add_shape(struct watch *w, const struct tensor *t) {
    w->n_log += (size_t)snprintf(w->log + w->n_log, sizeof w->log - w->n_log,
                                 " %s:%d[%lld,%lld,%lld,%lld]x%zu", t->name, t->type,
                                 (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                                 (long long)t->ne[3], t->row_bytes);
}

static int see_node(void *arg, const struct node *n, void *data, struct err *e) {
    struct watch *w = arg;
    char hash[17], params_hash[17];
    size_t bytes = (size_t)node_rows(n) * n->dst->row_bytes;
    if (++w->n_seen == w->fail_at) return ERR(e, ERR_NONFINITE, "node %s is bad", n->dst->name);
    fingerprint_bytes(data, bytes, hash);
    fingerprint_bytes(&n->p, sizeof n->p, params_hash);
    w->n_log += (size_t)snprintf(w->log + w->n_log, sizeof w->log - w->n_log, "\n%s %d %d %s %s",
                                 op_name(n->op), n->il, n->occurrence, hash, params_hash);
    add_shape(w, n->dst);
    for (int s = 0; s < OP_MAX_SRC; s++)
        if (n->src[s]) add_shape(w, n->src[s]);
    assert_true(w->n_log < sizeof w->log);
    if (w->force && n->il == 0 && (n->op == OP_attn || n->op == OP_set_rows))
        memset(data, 0, bytes / 2);
    return 0;
}

static struct watch w_here, w_there;

static void observers_see_and_force_the_same(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm_params p = params(ARM_BUILTIN, "ref");
    struct arm *a = open_ok(&p);
    p.kind = ARM_WORKER;
    struct arm *b = open_ok(&p);
    static struct answers free_run;
    ask_all(a, &free_run);
    for (int force = 0; force < 2; force++) {
        w_here = (struct watch){ .force = force };
        w_there = (struct watch){ .force = force };
        struct observer o = { .arg = &w_here, .want = want_node, .see = see_node };
        struct observer q = { .arg = &w_there, .want = want_node, .see = see_node };
        if (arm_observe(a, &o, &e) || arm_observe(b, &q, &e)) fail_msg("%s", e.msg);
        ask_all(a, &here);
        ask_all(b, &there);
        assert_string_equal(w_here.log, w_there.log);
        assert_true(w_here.n_seen > 100 && strstr(w_here.log, "result_output"));
        assert_same(&here, &there);
        assert_true(force == (memcmp(here.held, free_run.held, sizeof here.held) != 0));
    }
    if (arm_observe(b, NULL, &e)) fail_msg("%s", e.msg);
    w_there.n_seen = 0;
    ask_all(b, &there);
    assert_int_equal(w_there.n_seen, 0);
    assert_same(&free_run, &there);
    arm_close(a);
    close_and_leave_nobody(b);
}

static void errors_of_an_observer_come_back(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm_params p = params(ARM_WORKER, "ref");
    struct arm *a = open_ok(&p);
    struct arm_batch b = batch();
    w_there = (struct watch){ .fail_at = 5 };
    struct observer o = { .arg = &w_there, .want = want_node, .see = see_node };
    if (arm_observe(a, &o, &e)) fail_msg("%s", e.msg);
    assert_int_equal(arm_hold(a, &b, false, &e), ERR_NONFINITE);
    assert_non_null(strstr(e.msg, "is bad"));
    assert_int_equal(w_there.n_seen, 5);
    if (arm_observe(a, NULL, &e)) fail_msg("%s", e.msg);
    ask_all(a, &there); /* and the arm lives */
    if (arm_observe(a, &o, &e)) fail_msg("%s", e.msg);
    w_there = (struct watch){ 0 };
    ask_all(a, &there);
    arm_close(a);
    p.act_like = "avx2";
    if (!column_available(COL_avx2)) return;
    a = open_ok(&p);
    assert_int_equal(arm_observe(a, &o, &e), ERR_UNSUPPORTED);
    ask_all(a, &there);
    arm_close(a);
}

/* ---- errors that are no fault of the process ------------------------------------------------- */

static int third_row_fails(void *arg, const struct arm_row *r, struct err *e) {
    ++*(int *)arg;
    return r->r == 2 ? ERR(e, ERR_DB, "enough") : 0;
}

static int third_answer_fails(void *arg, const struct arm_answer *a, struct err *e) {
    (void)a;
    return ++*(int *)arg == 3 ? ERR(e, ERR_DB, "enough") : 0;
}

static void errors_travel_and_the_arm_lives(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm_params p = params(ARM_WORKER, "ref");
    struct arm *a = open_ok(&p);
    struct arm_batch b = batch();
    int n = 0;
    if (arm_hold(a, &b, false, &e)) fail_msg("%s", e.msg);
    assert_int_equal(arm_rows(a, 0, N_WANT, target, true, third_row_fails, &n, &e), ERR_DB);
    assert_string_equal(e.msg, "enough");
    assert_int_equal(n, 3);
    if (arm_kv_trim(a, -1, 0, &e)) fail_msg("%s", e.msg);
    n = 0;
    assert_int_equal(arm_decode(a, &b, third_answer_fails, &n, &e), ERR_DB);
    assert_int_equal(n, 3);
    assert_int_equal(arm_hold(a, &b, false, &e), ERR_ARG); /* positions that are filled */
    assert_non_null(strstr(e.msg, "whose next position is"));
    assert_int_equal(arm_rows(a, 25, N_WANT, target, true, keep_row, &there, &e), ERR_ARG);
    target[3] = N_VOCAB;
    assert_int_equal(arm_rows(a, 0, 5, target, false, keep_row, &there, &e), ERR_ARG);
    ask_all(a, &there);
    close_and_leave_nobody(a);
}

static void expect_no_arm(const struct arm_params *p, int code, const char *words) {
    struct err e = { 0 };
    struct arm *a;
    int rc = arm_open(&a, p, &e);
    if (rc != code || !strstr(e.msg, words))
        fail_msg("expected %s '%s', got %s '%s'", err_name(code), words, err_name(rc), e.msg);
    assert_null(a);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void what_is_no_worker_is_refused(void **state) {
    (void)state;
    struct arm_params p = params(ARM_WORKER, "ref");
    p.model = "/nowhere.gguf";
    expect_no_arm(&p, ERR_MISSING, "/nowhere.gguf");
    p.model = path;
    p.backend = "abacus";
    expect_no_arm(&p, ERR_ARG, "'abacus' is not a backend");
    p.backend = "ref";
    p.path = "/bin/true";
    expect_no_arm(&p, ERR_ARM, "arm died: exit code 0");
    p.path = "/bin/false";
    expect_no_arm(&p, ERR_ARM, "arm died: exit code 1");
    p.path = "/nowhere/ggauge";
    expect_no_arm(&p, ERR_MISSING, "cannot start /nowhere/ggauge: No such file");
    p.path = "/bin/echo"; /* prints its argument, "worker" */
    expect_no_arm(&p, ERR_ARM, "malformed frame: it begins with 'work");
    p.path = "ignored";
    p.launch = "sh -c 'exec cat' "; /* says what it hears */
    expect_no_arm(&p, ERR_ARM, "'hello' where 'welcome' was expected");
    p.launch = "sh -c 'sleep 30'";
    p.timeout_s = 1;
    expect_no_arm(&p, ERR_ARM, "more than 1 s for one answer");
    p.launch = "sh -c 'kill -TERM $$'";
    expect_no_arm(&p, ERR_ARM, "arm died: signal 15");
    p.launch = "sh 'unfinished";
    expect_no_arm(&p, ERR_ARG, "without its second");
    p.launch = p.path = NULL;
    setenv("FAULT", "version", 1);
    expect_no_arm(&p, ERR_ARM, "arm speaks protocol 8, this program 2: its commit is 'abc'");
    unsetenv("FAULT");
}

static void a_prefix_starts_this_program_too(void **state) {
    (void)state;
    struct arm_params p = params(ARM_WORKER, "ref");
    p.launch = "env  'FAULT=no  fault'\tnice -n 1";
    struct arm *a = open_ok(&p);
    ask_all(a, &there);
    close_and_leave_nobody(a);
}

static void no_file_is_inherited(void **state) {
    (void)state;
    char n[16];
    snprintf(n, sizeof n, "%d", n_inherited()); /* what whoever runs this test has left open */
    setenv("N_FILES", n, 1);
    struct arm *a = open_worker("none"), *b, *c = open_worker("none");
    struct arm_params p = params(ARM_WORKER, "ref");
    struct err e = { 0 };
    setenv("FAULT", "files", 1);
    assert_int_equal(arm_open(&b, &p, &e), ERR_ARM);
    unsetenv("FAULT");
    assert_string_equal(e.msg, "arm died: exit code 40");
    assert_int_equal(n_inherited(), atoi(n));
    arm_close(a);
    close_and_leave_nobody(c);
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* Rows of good holds first, then the fault; returns its error. */
static int run_into(struct arm *a, struct err *e) {
    struct arm_batch b = batch();
    int rc = 0;
    for (int i = 1; i <= LAST_HOLD && rc == 0; i++) {
        rc = arm_kv_trim(a, -1, 0, e);
        if (rc == 0) rc = arm_hold(a, &b, false, e);
        if (rc == 0) rc = arm_rows(a, 0, N_WANT, target, true, keep_row, &there, e);
    }
    return rc;
}

static void expect_fault(const char *name, const char *words) {
    struct err e = { 0 };
    struct arm *a = open_worker(name);
    int rc = run_into(a, &e);
    if (rc != ERR_ARM || !strstr(e.msg, words) || strncmp(e.msg, "arm ", 4))
        fail_msg("%s: expected '%s', got %s '%s'", name, words, err_name(rc), e.msg);
    struct err again = { 0 };
    assert_int_equal(arm_kv_trim(a, 0, 0, &again), ERR_ARM); /* it stays dead */
    assert_string_equal(again.msg, e.msg);
    arm_close(a);
}

static void each_death_has_its_words(void **state) {
    (void)state;
    expect_fault("segv", "arm died: signal 11");
    expect_fault("kill", "arm died: signal 9");
    expect_fault("exit", "arm died: exit code 3");
    expect_fault("half", "arm died: exit code 0");
    expect_fault("close", "arm closed its output, but its process runs on");
}

static void each_breach_has_its_words(void **state) {
    (void)state;
    expect_fault("garbage",
                 "arm broke the protocol: malformed frame: it begins with 'Segmentation");
    expect_fault("type", "no frame has the type 99");
    expect_fault("length", "'row' of 4294967295 bytes, at most 64 are allowed");
    expect_fault("unasked", "nobody asked for 'row'");
    expect_fault("torn", "nobody asked for 'row'");
    expect_fault("vocab", "a row of 293 logits, and the vocabulary has 300");
    expect_fault("few", "'done' before row 29 of 30");
    expect_fault("shifted", "row 1 where row 0 of 30 was expected");
}

static int expect_nan(void *arg, const struct arm_row *r, struct err *e) {
    (void)e;
    ++*(int *)arg;
    assert_true(isnan(r->nll) && isnan(r->max) && r->bad == 17);
    if (r->logits) assert_true(r->logits[16] == 1.0f && isnan(r->logits[17]));
    return 0;
}

/* Not a fault of the process: the rows arrive, and the measurement judges them. */
static void rows_of_nan_arrive(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm *a = open_worker("nan");
    struct arm_batch b = batch();
    int n = 0;
    if (arm_hold(a, &b, false, &e) || arm_rows(a, 0, 9, target, true, expect_nan, &n, &e) ||
        arm_rows(a, 9, 9, target, false, expect_nan, &n, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(n, 18);
    close_and_leave_nobody(a);
}

static void one_answer_has_its_time(void **state) {
    (void)state;
    struct err e = { 0 };
    struct arm_params p = params(ARM_WORKER, "ref");
    p.timeout_s = 2;
    setenv("FAULT", "hang", 1);
    struct arm *a = open_ok(&p);
    unsetenv("FAULT");
    double t0 = timer_s();
    assert_int_equal(run_into(a, &e), ERR_ARM); /* although it beats */
    assert_string_equal(e.msg, "arm does not answer: more than 2 s for one answer");
    close_and_leave_nobody(a);
    assert_true(timer_s() - t0 < 9);
}

struct slow_run {
    struct arm *a;
    int rc;
    struct err e;
};

static int ignore_row(void *arg, const struct arm_row *r, struct err *e) {
    (void)arg, (void)r, (void)e;
    return 0;
}

static void *run_slowly(void *arg) {
    struct slow_run *s = arg;
    struct arm_batch b = { N_TOK, token, pos, seq, want, true };
    for (int i = 1; i <= LAST_HOLD && s->rc == 0; i++) {
        s->rc = arm_kv_trim(s->a, -1, 0, &s->e);
        if (s->rc == 0) s->rc = arm_hold(s->a, &b, false, &s->e);
        if (s->rc == 0) s->rc = arm_rows(s->a, 0, 5, target, true, ignore_row, NULL, &s->e);
    }
    return NULL;
}

/* At the same time: 12 s of work with heartbeats, and a process that is stopped. */
static void silence_is_noticed_and_work_is_not(void **state) {
    (void)state;
    pthread_t thread;
    batch();
    struct slow_run slow = { .a = open_worker("slow") };
    struct arm *a = open_worker("stop");
    struct err e = { 0 };
    assert_int_equal(pthread_create(&thread, NULL, run_slowly, &slow), 0);
    double t0 = timer_s();
    struct arm_batch b = { N_TOK, token, pos, seq, want, true };
    int rc = 0;
    for (int i = 1; i <= LAST_HOLD && rc == 0; i++)
        if ((rc = arm_kv_trim(a, -1, 0, &e)) == 0) rc = arm_hold(a, &b, false, &e);
    double t = timer_s() - t0;
    arm_close(a);
    pthread_join(thread, NULL);
    if (slow.rc) fail_msg("%s", slow.e.msg);
    assert_int_equal(rc, ERR_ARM);
    assert_string_equal(e.msg, "arm does not answer: nothing for 10 s; it is stopped (T)");
    assert_true(t >= 10 && t < 14);
    assert_true(timer_s() - t0 >= 12);
    close_and_leave_nobody(slow.a);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "worker")) return worker_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_gives_the_same_bits),
        cmocka_unit_test(observers_see_and_force_the_same),
        cmocka_unit_test(errors_of_an_observer_come_back),
        cmocka_unit_test(errors_travel_and_the_arm_lives),
        cmocka_unit_test(what_is_no_worker_is_refused),
        cmocka_unit_test(a_prefix_starts_this_program_too),
        cmocka_unit_test(no_file_is_inherited),
        cmocka_unit_test(each_death_has_its_words),
        cmocka_unit_test(each_breach_has_its_words),
        cmocka_unit_test(rows_of_nan_arrive),
        cmocka_unit_test(one_answer_has_its_time),
        cmocka_unit_test(silence_is_noticed_and_work_is_not),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
