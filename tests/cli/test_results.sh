#!/bin/sh
# SPDX-License-Identifier: MIT
# What writes tables into results/ leaves them alone where it has nothing whole to write: check_limits.py --merge,
# aa.py, cuda_results.py.
cd "$(dirname "$0")/../.." || exit 3
. tests/cli/common.sh
if ! python3 -c 'import sqlite3' 2>/dev/null; then
    echo "ok - tables of results # SKIP python3 with sqlite3 is not installed"
    exit 0
fi
export PYTHONDONTWRITEBYTECODE=1

# A tree of its own: the tables are found from where a script lies.
tree=$tmp/tree
mkdir -p "$tree/results" "$tree/harness/measure" "$tree/kernels"
cp -r .ci "$tree" && cp results/limits.csv results/aa.csv "$tree/results" && cp kernels/*.h "$tree/kernels" &&
    cp harness/measure/limits.h harness/measure/limits_table.h "$tree/harness/measure" || exit 3
same() { # the tables are those of before, and nothing lies beside them
    cmp results/limits.csv "$tree/results/limits.csv" && cmp results/aa.csv "$tree/results/aa.csv" &&
        cmp harness/measure/limits_table.h "$tree/harness/measure/limits_table.h" &&
        [ "$(find "$tree/results" "$tree/harness" -type f | wc -l)" -eq 4 ]
}

# ---- limits
merge() {
    "$tree/.ci/check_limits.py" --merge "$tmp/new.csv" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
refused() { # NAME WORDS
    merge
    check "limits: $1 is refused" [ "$status" -eq 1 ]
    check "... with what was expected" grep -qF "$2" "$tmp/err"
    check "... and one line" [ "$(grep -c . "$tmp/err")" -eq 1 ]
    check "... and nothing is touched" same
}
head -n 1 results/limits.csv >"$tmp/new.csv"
refused "a header alone" "new.csv: no cell in it"
cut -d, -f1-18 results/limits.csv | head -n 6 >"$tmp/new.csv"
refused "a table that lacks a column" "new.csv: no column driver, which"
{ head -n 5 results/limits.csv && sed -n 6p results/limits.csv | cut -d, -f1-7; } >"$tmp/new.csv"
refused "a torn line" "new.csv:6: not 19 fields"
head -n 3 results/limits.csv | sed '3s/,1e-13,/,wide,/' >"$tmp/new.csv"
refused "a limit that is no number" "new.csv:3: could not convert"
: >"$tmp/new.csv"
refused "an empty file" "new.csv: no cell in it"
# one cell with another history: the others stay
cell=$(sed -n '/@avx2,/{p;q;}' results/limits.csv)
{ head -n 1 results/limits.csv && echo "$cell" | sed 's/,512,/,513,/'; } >"$tmp/new.csv"
merge
check "limits: a table of one cell is merged" [ "$status" -eq 0 ]
check "... the others stay" [ "$(wc -l <"$tree/results/limits.csv")" -eq "$(wc -l <results/limits.csv)" ]
check "... the cell is the new one" grep -qxF "$(tail -n 1 "$tmp/new.csv")" "$tree/results/limits.csv"
cp results/limits.csv "$tree/results"

# ---- comparisons of healthy arms
for n in 0 -3 many; do
    "$tree/.ci/aa.py" "$GGAUGE" datasets/small/small.txt $n datasets/models/tiny-qwen3-q8_0.gguf >"$tmp/out" 2>"$tmp/err"
    check "aa: $n comparisons are refused" [ $? -eq 2 ]
    check "... with what was expected" grep -qF "expected a number of comparisons, found '$n'" "$tmp/err"
    check "... and aa.csv stays" same
done

# ---- what a card's check left
mkdir "$tmp/found"
printf 'step,status,seconds\nkernels,PASS,4.0\n' >"$tmp/found/summary.csv"
{
    echo 'schema,run_id,backend,gpu,driver,test,subject,metric,value'
    echo '1,r1,cuda,a card,its driver,perplexity,chunk 1,ppl_running,70'
    echo '1,r1,cuda,a card,its driver,perplexity,run,ppl,70'
} >"$tmp/found/ppl.csv"
kept() {
    .ci/cuda_results.py "$tmp/found" "$tmp/kept" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
kept
check "cuda-results: rows become a page" [ "$status" -eq 0 ]
check "... without those of chunks" [ "$(grep -c . "$tmp/kept/ppl.csv")" -eq 2 ]
cp "$tmp/kept/ppl.csv" "$tmp/before.csv"
printf '1,r1,cuda,a ca' >>"$tmp/found/ppl.csv"
kept
check "cuda-results: a torn last line is refused" [ "$status" -eq 3 ]
check "... with file and line" grep -q 'ppl.csv:4: .*torn' "$tmp/err"
check "... in one line" [ "$(grep -c . "$tmp/err")" -eq 1 ]
check "... and what was kept stays" cmp "$tmp/before.csv" "$tmp/kept/ppl.csv"
