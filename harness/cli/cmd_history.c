/* SPDX-License-Identifier: MIT
 * cmd_history.c - `ggauge history`: rebuild the SQLite index over the result files. */
#include <stdio.h>

#include "base/compiler.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "result/row.h"

int cmd_history(int argc, char **argv, struct err *e) {
    const char *db = "results/history.sqlite", *runs = "results/runs";
    const char *schema = "results/schema.sql";
    const struct opt options[] = {
        { .kind = OPT_GROUP, .help = "files" },
        { OPT_STR, "--db", "FILE", &db, 0, 0, NULL,
          "the index, replaced when the new one is whole" },
        { OPT_STR, "--runs", "DIR", &runs, 0, 0, NULL,
          "every *.csv below it is read, also behind links" },
        { OPT_STR, "--schema", "FILE", &schema, 0, 0, NULL, "tables and views of the index" },
        OPT_END,
    };
    int64_t n_files = 0, n_rows = 0;
    int rc = opt_parse(argc, argv, options, "history [options]", e);
    if (rc != 0) return rc < 0 ? rc : EXIT_PASS;
    rc = history_rebuild(db, runs, schema, &n_files, &n_rows, e);
    if (rc < 0) return rc;
    printf("%s: %lld files, %lld rows\n", db, (long long)n_files, (long long)n_rows);
    return EXIT_PASS;
}
