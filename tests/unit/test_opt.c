/* SPDX-License-Identifier: MIT
 * test_opt.c - options of the command line: every kind, both ways of giving a value, what is
 * refused, the help, and the warning about threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/threads.h"
#include "cli/opt.h"

#define MAX_ARGS 32

struct values {
    bool flag, no_flag, onoff;
    int i;
    double d;
    const char *str, *choice, *word;
    struct arm_params arm;
};

static const struct values defaults = {
    .no_flag = true, .i = 3, .d = 0.5, .choice = "red", .arm = { .n_batch = 2048, .type_k = "f16" }
};

/* Options are words of `line`, separated by single blanks. */
static int parse(struct values *v, const char *line, struct err *e) {
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "of all kinds" },
        { OPT_FLAG, "-f --flag", NULL, &v->flag, 0, 0, NULL, "a flag" },
        { OPT_NO_FLAG, "--no-flag", NULL, &v->no_flag, 0, 0, NULL, "clears a flag" },
        { OPT_ON, "-w --word", NULL, &v->word, 0, 0, NULL, "sets a text" },
        { OPT_OFF, "-no-w", NULL, &v->word, 0, 0, NULL, "sets it to another" },
        { OPT_INT, "-i -int --int", "N", &v->i, -4, 1 << 20, NULL, "a whole number" },
        { OPT_DOUBLE, "-d --double", "X", &v->d, 0, 1, NULL, "a number" },
        { OPT_STR, "-s --str", "TEXT", &v->str, 0, 0, NULL, "any text" },
        { OPT_CHOICE, "-ch --choice", "COLOUR", &v->choice, 0, 0, "red|green|blue", "one of some" },
        { OPT_ONOFF, "-o --onoff", "on|off", &v->onoff, 0, 0, NULL, "a switch" },
        OPT_MODEL(v->arm),
        OPT_ENGINE(v->arm),
        OPT_END,
    };
    static char words[256];
    char *argv[MAX_ARGS + 1] = { words };
    int argc = 1;
    memcpy(v, &defaults, sizeof *v); /* padding too */
    memset(e, 0, sizeof *e);
    assert_true((size_t)snprintf(words, sizeof words, "cmd %s", line) < sizeof words);
    for (char *p = words; (p = strchr(p, ' ')) && p[1];) {
        *p++ = '\0';
        assert_true(argc < MAX_ARGS);
        argv[argc++] = p;
    }
    return opt_parse(argc, argv, table, "cmd [options]", e);
}

static void every_kind(void **state) {
    (void)state;
    struct values v;
    struct err e;
    assert_int_equal(parse(&v, "", &e), 0);
    assert_memory_equal(&v, &defaults, sizeof v);
    assert_int_equal(
        parse(&v, "-f --no-flag -i -4 -d 0.25 -s -x -ch blue -o on -m a.gguf -b 7", &e), 0);
    assert_true(v.flag && !v.no_flag && v.onoff);
    assert_int_equal(v.i, -4);
    assert_true(v.d == 0.25);
    assert_string_equal(v.str, "-x"); /* a value may look like an option */
    assert_string_equal(v.choice, "blue");
    assert_string_equal(v.arm.model, "a.gguf");
    assert_int_equal(v.arm.n_batch, 7);
    assert_int_equal(parse(&v, "-o 1 -o off", &e), 0);
    assert_false(v.onoff); /* the last one counts */
    assert_int_equal(parse(&v, "-o 1", &e), 0);
    assert_true(v.onoff);
    assert_int_equal(parse(&v, "-o on -o 0", &e), 0);
    assert_false(v.onoff);
    assert_int_equal(parse(&v, "-no-w -w -rtr", &e), 0);
    assert_string_equal(v.word, "on");
    assert_string_equal(v.arm.engine.rtr, "on");
    assert_int_equal(parse(&v, "--word -no-w", &e), 0);
    assert_string_equal(v.word, "off");
}

static void every_spelling(void **state) {
    (void)state;
    static const char *const lines[] = { "-i 12", "-int 12",  "--int 12",
                                         "-i=12", "--int=12", "-i 1.2e1" };
    struct values v;
    struct err e;
    for (size_t k = 0; k < N_ELEMS(lines); k++) {
        assert_int_equal(parse(&v, lines[k], &e), 0);
        assert_int_equal(v.i, 12);
    }
    assert_int_equal(parse(&v, "--str=a=b -d=1 --choice=green -o=on", &e), 0);
    assert_string_equal(v.str, "a=b");
    assert_string_equal(v.choice, "green");
    assert_true(v.d == 1 && v.onoff);
    assert_int_equal(parse(&v, "--str=", &e), 0);
    assert_string_equal(v.str, "");
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *line, *msg;
    } bad[] = {
        { "-i", "-i needs a value (N)" },
        { "-f --str", "--str needs a value (TEXT)" },
        { "-i 1048577", "-i: 1048577 is outside of -4 to 1048576" },
        { "--int=-5", "--int: -5 is outside of -4 to 1048576" },
        { "-i 1.5", "-i: expected a whole number, not '1.5'" },
        { "-i 1x", "-i: expected a number, not '1x'" },
        { "-i=", "-i: expected a number, not ''" },
        { "-i nan", "-i: expected a number, not 'nan'" },
        { "-d inf", "-d: expected a number, not 'inf'" },
        { "-d 1e999", "-d: expected a number, not '1e999'" },
        { "-d 1.01", "-d: 1.01 is outside of 0 to 1" },
        { "-ch pink", "-ch: expected one of red|green|blue, not 'pink'" },
        { "-ch red|green", "-ch: expected one of red|green|blue, not 'red|green'" },
        { "-ch re", "-ch: expected one of red|green|blue, not 're'" },
        { "-o yes", "-o: expected on or off, not 'yes'" },
        { "-f=1", "-f takes no value" },
        { "--no-flag=0", "--no-flag takes no value" },
        { "--unknown", "cmd: unknown option '--unknown'; see ggauge cmd -h" },
        { "--unknown=3", "cmd: unknown option '--unknown'; see ggauge cmd -h" },
        { "--fla", "cmd: unknown option '--fla'; see ggauge cmd -h" },
        { "-f -flag", "cmd: unknown option '-flag'; see ggauge cmd -h" },
        { "file", "cmd: unexpected argument 'file'; see ggauge cmd -h" },
        { "-", "cmd: unexpected argument '-'; see ggauge cmd -h" },
    };
    for (size_t k = 0; k < N_ELEMS(bad); k++) {
        struct values v;
        struct err e;
        assert_int_equal(parse(&v, bad[k].line, &e), ERR_ARG);
        assert_string_equal(e.msg, bad[k].msg);
    }
}

/* What fn prints to fd 1 or 2, until the next call. */
static const char *printed(int fd, void (*fn)(void)) {
    static char text[16384];
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(NULL);
    int old = dup(fd);
    assert_true(old >= 0 && dup2(fileno(f), fd) == fd);
    fn();
    fflush(NULL);
    assert_true(dup2(old, fd) == fd);
    close(old);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void ask_for_help(void) {
    struct values v;
    struct err e;
    /* Whatever else stands there, and before anything is complained about. */
    assert_int_equal(parse(&v, "--unknown -i 5 --help", &e), 1);
    assert_memory_equal(&v, &defaults, sizeof v);
}

static void the_help_lists_every_option(void **state) {
    (void)state;
    static const char *const words[] = {
        "usage: ggauge cmd [options]\n",
        "\nof all kinds\n",
        "  -f, --flag                       a flag\n",
        "  --no-flag                        clears a flag\n",
        "  -i, -int, --int N                a whole number (default 3)\n",
        "  -d, --double X                   a number (default 0.5)\n",
        "  -s, --str TEXT                   any text\n",
        "  -ch, --choice COLOUR             one of some: red|green|blue (default red)\n",
        "  -o, --onoff on|off               a switch (default off)\n",
        "\nmodel\n",
        "  -m, --model FILE ",
        "\nengine\n",
        "  --backend COLUMN ",
        "  -t, --threads N ",
        "  -tb, --threads-batch N ",
        "  -b, --batch-size N ",
        "(default 2048)\n",
        "  -ub, --ubatch-size N ",
        "  -ctk, --cache-type-k TYPE ",
        ": f32|f16|q8_0 (default f16)\n",
        "  -ctv, --cache-type-v TYPE ",
        "  -h, --help                       this text\n",
    };
    const char *text = printed(STDOUT_FILENO, ask_for_help);
    for (size_t i = 0; i < N_ELEMS(words); i++)
        if (!strstr(text, words[i])) fail_msg("the help lacks '%s':\n%s", words[i], text);
}

static void few_threads(void) {
    opt_warn_threads(0, 0);
    opt_warn_threads(1, threads_online());
}

static void many_threads(void) {
    opt_warn_threads(1, threads_online() + 1);
}

static void threads_are_warned_about(void **state) {
    (void)state;
    assert_string_equal(printed(STDERR_FILENO, few_threads), "");
    char want[64];
    snprintf(want, sizeof want, "warning: %d threads on %d processors ", threads_online() + 1,
             threads_online());
    assert_non_null(strstr(printed(STDERR_FILENO, many_threads), want));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(every_spelling),
        cmocka_unit_test(refusals),
        cmocka_unit_test(the_help_lists_every_option),
        cmocka_unit_test(threads_are_warned_about),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
