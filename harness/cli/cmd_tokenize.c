/* SPDX-License-Identifier: MIT
 * cmd_tokenize.c - token ids of a text on one line, as the vocabulary inside a GGUF file says. The
 * text is taken as it is: no newline is stripped, no escape is expanded. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "gguf/gguf.h"
#include "tok/tok.h"

/* The whole file, which may be a pipe. *text is released by heap_free. */
static int read_text(const char *path, char **text, size_t *n, struct err *e) {
    int rc = 0;
    size_t cap = 0;
    FILE *f = fopen(path, "rb");
    FAIL_IF(!f, e, ERR_IO, "%s: %s", path, strerror(errno));
    for (size_t got = 1; got; *n += got) {
        if (*n == cap) {
            cap = cap ? cap * 2 : 65536;
            char *p = heap_realloc(*text, cap, e);
            if (!p) rc = ERR_NOMEM;
            TRY(rc);
            *text = p;
        }
        got = fread(*text + *n, 1, cap - *n, f);
        FAIL_IF(!got && ferror(f), e, ERR_IO, "%s: %s", path, strerror(errno));
    }
out:
    if (f) fclose(f);
    return rc;
}

int cmd_tokenize(int argc, char **argv, struct err *e) {
    const char *model = NULL, *file = NULL, *prompt = NULL;
    bool add_special = true, parse_special = false;
    const struct opt table[] = {
        { OPT_GROUP, NULL, NULL, NULL, 0, 0, NULL, "tokenize" },
        { OPT_STR, "-m --model", "FILE", &model, 0, 0, NULL, "GGUF file with the vocabulary" },
        { OPT_STR, "-f --file", "FILE", &file, 0, 0, NULL, "text to tokenise, as it is" },
        { OPT_STR, "-p --prompt", "TEXT", &prompt, 0, 0, NULL, "the text itself" },
        { OPT_NO_FLAG, "--no-bos", NULL, &add_special, 0, 0, NULL,
          "add neither BOS nor EOS, whatever the vocabulary says" },
        { OPT_FLAG, "--parse-special", NULL, &parse_special, 0, 0, NULL,
          "match control tokens written in the text" },
        OPT_END,
    };
    struct gguf *g = NULL;
    struct tok *t = NULL;
    struct tok_ids ids = { 0 };
    char *text = NULL;
    size_t n = 0;
    int rc = opt_parse(argc, argv, table, "tokenize -m FILE (-f FILE | -p TEXT) [options]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    FAIL_IF(!model, e, ERR_ARG, "tokenize needs a model: -m FILE");
    FAIL_IF(!file == !prompt, e, ERR_ARG, "tokenize needs one text: either -f FILE or -p TEXT");
    if (file) TRY(read_text(file, &text, &n, e));
    TRY(gguf_open(&g, model, e));
    rc = tok_load(&t, g, e);
    if (rc < 0) err_prefix(e, "%s", model);
    TRY(rc);
    TRY(tok_encode(t, file ? text : prompt, file ? n : strlen(prompt), add_special, parse_special,
                   &ids, e));
    for (int64_t i = 0; i < ids.n; i++)
        printf(i ? " %d" : "%d", (int)ids.id[i]);
    putchar('\n');
out:
    tok_ids_free(&ids);
    tok_free(t);
    gguf_close(g);
    heap_free(text);
    return rc < 0 ? rc : EXIT_PASS;
}
