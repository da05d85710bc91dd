/* SPDX-License-Identifier: MIT
 * text.h - the text a measurement reads, as llama.cpp's tools take it. */
#ifndef GGAUGE_TEXT_H
#define GGAUGE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct text {
    char *data; /* NUL terminated for convenience; may hold more NULs */
    size_t n;
    char fingerprint[17]; /* of the file's bytes, before anything was changed */
};

/* Read the whole file, which may be a pipe, as it is; it may be empty. */
int text_read(struct text *t, const char *path, struct err *e);
/* Read the whole file, which may be a pipe; exactly one newline at its end is dropped. `escape`
 * turns \n \r \t \' \" \\ and \xHH into what they stand for, as ik_llama.cpp does by default and
 * llama.cpp does not. A directory or a file that cannot be read is ERR_IO, an empty text
 * ERR_ARG. */
int text_load(struct text *t, const char *path, bool escape, struct err *e);
void text_release(struct text *t);

/* Expand escape sequences in place; a backslash before anything else stays. Returns the new
 * length. */
size_t text_unescape(char *s, size_t n);

#endif
