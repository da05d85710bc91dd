#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge history: rebuilds the index over result files and leaves an old one alone when a file is broken.
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/runs/deep"
status=0
check() { # check NAME CONDITION...
    name=$1
    shift
    if "$@"; then echo "ok - $name"; else
        echo "not ok - $name"
        cat "$tmp/out" "$tmp/err"
        status=1
    fi
}
history() {
    "$GGAUGE" history --db "$tmp/h.sqlite" --runs "$tmp/runs" >"$tmp/out" 2>"$tmp/err"
    code=$?
}
exits() { [ "$code" -eq "$1" ]; }

history
check "an empty folder gives an empty index" grep -q ': 0 files, 0 rows$' "$tmp/out"

printf 'schema,run_id,metric,value\n1,r1,ppl,9.25\n1,r1,kld,nan\n' >"$tmp/runs/a.csv"
printf 'schema,run_id,metric,value\n1,r2,ppl,922\n1,r2,pp' >"$tmp/runs/deep/b.csv"
history
check "two files are read" grep -q ': 2 files, 3 rows$' "$tmp/out"
check "exit 0" exits 0
check "a torn last line is a warning with file and line" grep -q 'deep/b.csv:3: .*torn' "$tmp/err"

cp "$tmp/h.sqlite" "$tmp/before"
printf 'schema,run_id,metric,value\n1,r3,ppl,nine\n' >"$tmp/runs/c.csv"
history
check "a broken file is an error with file and line" grep -q 'c.csv:2: value: expected a number' "$tmp/err"
check "exit 3" exits 3
check "the old index stays" cmp -s "$tmp/before" "$tmp/h.sqlite"
check "nothing is left behind" [ "$(ls "$tmp" | grep -c 'h.sqlite')" -eq 1 ]

"$GGAUGE" history --db "$tmp/runs/a.csv" --runs "$tmp/runs" >"$tmp/out" 2>"$tmp/err"
code=$?
check "a file that is no database is not replaced" grep -q 'not an SQLite database' "$tmp/err"
check "exit 2" exits 2
"$GGAUGE" history --runs "$tmp/nowhere" --db "$tmp/h2.sqlite" >"$tmp/out" 2>"$tmp/err"
code=$?
check "a missing folder is named" grep -q "$tmp/nowhere" "$tmp/err"
check "exit 3 for a missing folder" exits 3

mkdir "$tmp/linked" "$tmp/elsewhere"
printf 'schema,run_id,metric,value\n1,r4,ppl,9\n' >"$tmp/elsewhere/d.csv"
printf 'schema,run_id,metric,value\n1,r5,ppl,9\n1,r5,kld,1\n' >"$tmp/e"
ln -s "$tmp/elsewhere" "$tmp/linked/folder"
ln -s "$tmp/e" "$tmp/linked/e.csv"
ln -s ../linked "$tmp/linked/around"
ln -s nowhere "$tmp/linked/no-result"
"$GGAUGE" history --db "$tmp/h3.sqlite" --runs "$tmp/linked" >"$tmp/out" 2>"$tmp/err"
code=$?
check "links to files and folders are read, once" grep -q ': 2 files, 3 rows$' "$tmp/out"
check "a link to a folder around it is named" grep -q 'linked/around: .*not followed' "$tmp/err"
check "exit 0 with links" exits 0
ln -s nowhere "$tmp/linked/f.csv"
"$GGAUGE" history --db "$tmp/h3.sqlite" --runs "$tmp/linked" >"$tmp/out" 2>"$tmp/err"
code=$?
check "a result file that its link does not find is an error" grep -q 'linked/f.csv: cannot be read: No such file' "$tmp/err"
check "exit 3 for such a link" exits 3
exit $status
