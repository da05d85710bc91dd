/* SPDX-License-Identifier: MIT
 * cmd_tokenize.c - token ids of a text on one line, as the vocabulary inside a GGUF file says. The
 * text is taken as it is: no newline is stripped, no escape is expanded. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/text.h"
#include "gguf/gguf.h"
#include "tok/tok.h"

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
    struct text text = { 0 };
    int rc = opt_parse(argc, argv, table, "tokenize -m FILE (-f FILE | -p TEXT) [options]", e);
    if (rc) return rc < 0 ? rc : EXIT_PASS;

    FAIL_IF(!model, e, ERR_ARG, "tokenize needs a model: -m FILE");
    FAIL_IF(!file == !prompt, e, ERR_ARG, "tokenize needs one text: either -f FILE or -p TEXT");
    if (file) TRY(text_read(&text, file, e));
    TRY(gguf_open(&g, model, e));
    rc = tok_load(&t, g, e);
    if (rc < 0) err_prefix(e, "%s", model);
    TRY(rc);
    TRY(tok_encode(t, file ? text.data : prompt, file ? text.n : strlen(prompt), add_special,
                   parse_special, &ids, e));
    for (int64_t i = 0; i < ids.n; i++)
        printf(i ? " %d" : "%d", (int)ids.id[i]);
    putchar('\n');
out:
    tok_ids_free(&ids);
    tok_free(t);
    gguf_close(g);
    text_release(&text);
    return rc < 0 ? rc : EXIT_PASS;
}
