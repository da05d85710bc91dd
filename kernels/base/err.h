/* SPDX-License-Identifier: MIT
 * err.h - the one error convention of the program.
 *
 * A fallible function returns int: 0 on success or a negative ERR_ code, and takes a `struct err *`
 * as its last argument, which then holds a message for the user: what was expected, what was found,
 * and where. Library code never prints and never exits.
 *
 * The macros expect a local `int rc = 0;` and one label `out:` that releases and returns rc. */
#ifndef GGAUGE_ERR_H
#define GGAUGE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

#include "compiler.h"

/*    code         value  meaning */
#define ERR_LIST(X)                                                                                \
    X(ARG,         1)  /* the caller or the user asked for something meaningless (exit 2) */       \
    X(NOMEM,       2)  /* an allocation failed */                                                  \
    X(IO,          3)  /* the operating system refused: open, read, write, map, disk full */       \
    X(FORMAT,      4)  /* file content breaks its format */                                        \
    X(UNSUPPORTED, 5)  /* well formed, but nothing here can do it */                               \
    X(MISSING,     6)  /* a key, tensor or file that must exist does not */                        \
    X(NONFINITE,   7)  /* a NaN or infinity where a number is required */                          \
    X(MISMATCH,    8)  /* two things that must agree do not */                                     \
    X(DEVICE,      9)  /* an accelerator reported an error */                                      \
    X(DB,         10)  /* SQLite reported an error */                                              \
    X(ARM,        11)  /* another process that computes for us died, hung or broke the protocol */

enum err_code {
    ERR_OK = 0,
#define X(name, value) ERR_##name = -(value),
    ERR_LIST(X)
#undef X
};

struct err {
    int code;         /* ERR_OK or negative */
    int line;         /* origin */
    const char *file; /* origin, a string literal */
    char msg[1024];
};

/* Fill *e (which may be NULL) and return `code`, so that `return err_set(...)` works. */
int err_set(struct err *e, int code, const char *file, int line, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

/* Put "context: " before the message of an error that is already set; returns e->code. */
int err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* "FORMAT", "IO", ...; never NULL. */
const char *err_name(int code);

#define ERR(e, code, ...) err_set((e), (code), __FILE__, __LINE__, __VA_ARGS__)

#define FAIL_IF(cond, e, code, ...)                                                                \
    do {                                                                                           \
        if (UNLIKELY(cond)) {                                                                      \
            rc = ERR((e), (code), __VA_ARGS__);                                                    \
            goto out;                                                                              \
        }                                                                                          \
    } while (0)

#define TRY(call)                                                                                  \
    do {                                                                                           \
        rc = (call);                                                                               \
        if (UNLIKELY(rc < 0)) goto out;                                                            \
    } while (0)

#endif
